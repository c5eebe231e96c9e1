// SPDX-License-Identifier: GPL-2.0-or-later
// An interpreter of the plan's rules that knows nothing of how they were made, and packets for it.
#pragma once

#include <gtest/gtest.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <net/if.h>
#include <netpacket/packet.h>

#include <algorithm>
#include <cstring>

#include "nft/plan.h"
#include "tests/unit/golden_packets.h"

namespace saru::nft {

// ---- A packet as the kernel's expressions see it
// --------------------------------------------------------

struct Packet {
  std::uint8_t family = NFPROTO_IPV4;
  std::uint8_t protocol = 6;
  std::uint32_t in_interface = 2;
  std::string in_name = "eth0";
  Bytes ethernet = Bytes(14);
  std::uint8_t packet_type = PACKET_HOST;
  Bytes network = Bytes(40);
  Bytes transport = Bytes(64);
  std::uint64_t time_ns = 0;
  bool lease_elements = true;  // the timed elements have not run out
};

// Runs the chains of one table: what nf_tables(8) documents, for the expressions that we use.
class Machine {
 public:
  Machine(const TablePlan& table, const Packet& packet) : table_(table), packet_(packet) {}

  std::int32_t run(const std::string& start) {
    const std::optional<Verdict> verdict = run_chain(start, 0);
    return verdict ? verdict->code : NF_ACCEPT;  // the policy
  }
  const std::vector<std::string>& counted() const { return counted_; }
  std::size_t rules() const { return rules_; }

 private:
  const Set& set(const std::string& name) const {
    return *std::find_if(table_.sets.begin(), table_.sets.end(),
                         [&](const Set& one) { return one.name == name; });
  }

  // Accept or drop; nullopt at the end of the chain.
  std::optional<Verdict> run_chain(const std::string& name, int depth) {
    const auto chain = std::find_if(table_.chains.begin(), table_.chains.end(),
                                    [&](const Chain& one) { return one.name == name; });
    EXPECT_NE(chain, table_.chains.end()) << name;
    EXPECT_LT(depth, 16) << "chains without an end";
    if (chain == table_.chains.end() || depth >= 16) return Verdict{NF_DROP, ""};
    for (const Rule& rule : chain->rules) {
      ++rules_;
      auto verdict = run_rule(rule);
      if (!verdict) continue;
      if (verdict->code == NFT_GOTO) return run_chain(verdict->chain, depth + 1);
      if (verdict->code != NFT_JUMP) return verdict;
      if (auto end = run_chain(verdict->chain, depth + 1)) return end;
    }
    return std::nullopt;
  }

  std::optional<Verdict> run_rule(const Rule& rule) {
    for (const Expression& expression : rule.expressions) {
      if (const auto* verdict = std::get_if<Verdict>(&expression)) return *verdict;
      if (!step(expression)) return std::nullopt;
    }
    return std::nullopt;
  }

  // False: the rule does not match.
  bool step(const Expression& expression) {
    if (const auto* load = std::get_if<LoadMeta>(&expression)) return load_meta(load->key);
    if (const auto* load = std::get_if<LoadPayload>(&expression)) {
      const Bytes& header = load->base == NFT_PAYLOAD_LL_HEADER        ? packet_.ethernet
                            : load->base == NFT_PAYLOAD_NETWORK_HEADER ? packet_.network
                                                                       : packet_.transport;
      if (load->offset + load->length > header.size()) return false;
      const auto at = header.begin() + load->offset;
      reg_.resize(std::size_t{load->word} * 4);
      reg_.insert(reg_.end(), at, at + load->length);
    } else if (const auto* mask = std::get_if<Mask>(&expression)) {
      EXPECT_EQ(reg_.size(), mask->mask.size());
      for (std::size_t i = 0; i < reg_.size(); ++i) reg_[i] &= mask->mask[i];
    } else if (const auto* hash = std::get_if<Hash>(&expression)) {
      reg_.resize(hash->length);
      const std::uint32_t value = saru_jhash(reg_.data(), hash->length, hash->seed) >> 16;
      reg_ = {static_cast<std::uint8_t>(value & 0xff), static_cast<std::uint8_t>(value >> 8)};
    } else if (const auto* order = std::get_if<ToBigEndian>(&expression)) {
      EXPECT_EQ(reg_.size(), order->size);
      std::reverse(reg_.begin(), reg_.end());
    } else if (const auto* compare = std::get_if<Compare>(&expression)) {
      EXPECT_EQ(reg_.size(), compare->value.size());
      return compare->op == NFT_CMP_EQ ? reg_ == compare->value : reg_ >= compare->value;
    } else if (const auto* lookup = std::get_if<Lookup>(&expression)) {
      const Set& in = set(lookup->set);
      EXPECT_EQ(reg_.size(), in.key_length);
      bool found = std::binary_search(in.elements.begin(), in.elements.end(), reg_);
      if (in.name == "lease") found = found && packet_.lease_elements;
      if (in.counts && found)
        counted_.push_back(in.name + " " + std::to_string(reg_[0] * 256 + reg_[1]));
      return found != lookup->absent;
    } else if (const auto* count = std::get_if<Count>(&expression)) {
      counted_.push_back(count->counter);
    }
    return true;
  }

  bool load_meta(std::uint32_t key) {
    const auto keep = [&](auto value) {
      reg_.resize(sizeof value);
      std::memcpy(reg_.data(), &value, sizeof value);
      return true;
    };
    if (key == NFT_META_NFPROTO) return keep(packet_.family);
    if (key == NFT_META_L4PROTO) return keep(packet_.protocol);
    if (key == NFT_META_IIF) return keep(packet_.in_interface);
    if (key == NFT_META_IIFTYPE) return keep(std::uint16_t{1});  // ARPHRD_ETHER
    if (key == NFT_META_PKTTYPE) return keep(packet_.packet_type);
    if (key == NFT_META_IIFNAME) {
      reg_.assign(IFNAMSIZ, 0);
      std::copy(packet_.in_name.begin(), packet_.in_name.end(), reg_.begin());
      return true;
    }
    if (key == NFT_META_TIME_NS) return keep(packet_.time_ns);
    ADD_FAILURE() << "meta key " << key;
    return false;
  }

  const TablePlan& table_;
  const Packet& packet_;
  Bytes reg_;
  std::vector<std::string> counted_;
  std::size_t rules_ = 0;
};

// ---- Configurations and packets
// --------------------------------------------------------------------------

inline constexpr std::uint64_t kEnd = 1'700'000'000'123'456'789;

inline TableConfig make_config(unsigned blocks = 512) {
  TableConfig config;
  config.id = 7;
  config.addresses = {*IpAddress::parse("10.9.0.1"), *IpAddress::parse("fd09::1")};
  config.blocks = blocks;
  config.node_name = "n1";
  config.shared_mac = derived_shared_mac(7);
  config.own_mac = *MacAddress::parse("02:00:00:00:00:01");
  config.nic = "eth0";
  config.link = link_name(7);
  return config;
}

inline BlockSet blocks_of(unsigned blocks, std::initializer_list<unsigned> which) {
  BlockSet set(blocks);
  for (const unsigned block : which) set.insert(BlockId{static_cast<std::uint16_t>(block)});
  return set;
}

inline Plan open_plan(const TableConfig& config, std::initializer_list<unsigned> which) {
  const Contents contents{Accepting::all_of(blocks_of(config.blocks, which)),
                          Lease{std::chrono::seconds(1), Nanos(kEnd)}};
  return make_plan(config, contents, Features{}, true);
}

inline void put16(Bytes& bytes, std::size_t at, unsigned value) {
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value & 0xff);
}

inline Packet packet_to(const TableConfig& config, bool v4, std::uint8_t protocol,
                        unsigned source_low, unsigned source_port) {
  Packet packet;
  packet.family = v4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
  packet.protocol = protocol;
  packet.time_ns = kEnd - 1;
  const auto to = config.addresses[v4 ? 0 : 1].bytes();
  std::copy(to.begin(), to.end(), packet.network.begin() + (v4 ? 16 : 24));
  put16(packet.network, v4 ? 14 : 22, source_low);
  put16(packet.transport, 0, source_port);
  return packet;
}

inline std::int32_t verdict_of(const Plan& plan, const Packet& packet) {
  return Machine(plan.inet, packet).run("prerouting");
}

// A golden packet as the kernel has it when it comes to the rules.
inline Packet packet_of(const Golden& golden) {
  const saru_packet raw{golden.packet.data(), static_cast<saru_u32>(golden.packet.size())};
  saru_headers at{};
  Packet packet;
  packet.time_ns = kEnd - 1;
  if (saru_find_headers(&raw, &at) != 0) at = {saru_u32{golden.packet[0]} >> 4, 255, 0, 0};
  packet.family = at.version == 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
  packet.protocol = static_cast<std::uint8_t>(at.protocol);
  const auto bytes = [&](saru_u32 from, saru_u32 to) {
    return Bytes(golden.packet.begin() + from, golden.packet.begin() + std::max(from, to));
  };
  packet.network = bytes(0, static_cast<saru_u32>(golden.packet.size()));
  packet.transport = at.transport < at.end ? bytes(at.transport, at.end) : Bytes();
  return packet;
}

}  // namespace saru::nft
