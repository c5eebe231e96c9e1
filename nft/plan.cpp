// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/plan.h"

#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

// After <netinet/in.h>: the kernel's headers give way to libc's, not the other way round.
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <set>

namespace saru::nft {
namespace {

// How nft (its enum datatypes) names the type of a set's key.
constexpr std::uint32_t kTypeNfProto = 2;
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypeInetService = 13;
constexpr std::uint32_t kTypeIcmp = 14;
constexpr std::uint32_t kTypeIcmpv6 = 29;

// NF_IP_PRI_RAW - 10: after defragmentation (-400), before connection tracking (-200).
constexpr std::int32_t kPriority = -310;
// The loopback interface has this index in every network namespace.
constexpr std::uint32_t kLoopbackIndex = 1;
// Above this the kernel's bitmap set, whose every update is linear, is worse than its hash: at 512
// blocks a switch of half of them took 4.5 ms with the bitmap and 1.0 ms with the hash (busy
// machine), and a lookup costs 6 to 11 ns more. A set that may have timeouts is never a bitmap.
constexpr unsigned kLargestBitmap = 64;
constexpr std::uint32_t kMostAddresses = 64;
constexpr std::size_t kMostNodeName = 40;
constexpr char kTwin[] = "_live";

constexpr std::uint32_t kNetwork = NFT_PAYLOAD_NETWORK_HEADER;
constexpr std::uint32_t kTransport = NFT_PAYLOAD_TRANSPORT_HEADER;

using Expressions = std::vector<Expression>;

template <class T>
Bytes host_bytes(T value) {
  const auto* begin = reinterpret_cast<const std::uint8_t*>(&value);
  return Bytes(begin, begin + sizeof value);
}
Bytes big16(unsigned value) {
  return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value & 0xff)};
}
Bytes big64(std::uint64_t value) {
  Bytes bytes(8);
  for (int i = 7; i >= 0; --i, value >>= 8) bytes[i] = static_cast<std::uint8_t>(value & 0xff);
  return bytes;
}

Expression equals(Bytes value) { return Compare{NFT_CMP_EQ, std::move(value)}; }
Expression drop() { return Verdict{NF_DROP, ""}; }
Expression accept() { return Verdict{NF_ACCEPT, ""}; }
Expression go_to(const char* chain) { return Verdict{NFT_GOTO, chain}; }

Expressions operator+(Expressions a, const Expressions& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Expressions family(std::uint8_t nfproto) { return {LoadMeta{NFT_META_NFPROTO}, equals({nfproto})}; }
Expressions protocol(std::uint8_t l4proto) {
  return {LoadMeta{NFT_META_L4PROTO}, equals({l4proto})};
}
Expressions byte_is(std::uint32_t base, std::uint32_t offset, std::uint8_t value) {
  return {LoadPayload{base, offset, 1}, equals({value})};
}
// The protocol is known by then, but without it nft does not print the type by its name.
Expressions type_in(std::uint8_t l4proto, const char* set) {
  return protocol(l4proto) + Expressions{LoadPayload{kTransport, 0, 1}, Lookup{set}};
}

bool has_family(const TableConfig& config, bool v4) {
  return std::any_of(config.addresses.begin(), config.addresses.end(),
                     [&](const IpAddress& ip) { return ip.is_v4() == v4; });
}

// The two bytes at this place, masked, name a block of ours.
Expressions owned_by(const TableConfig& config, std::uint32_t base, std::uint32_t offset) {
  const unsigned block_size = 65536 / config.blocks;
  return {LoadPayload{base, offset, 2}, Mask{big16(65536 - block_size)}, Lookup{"owned"}};
}

Rule foreign_drop(const char* comment) { return {comment, {Count{"foreign"}, drop()}}; }

Set constant_set(const char* name, const char* comment, std::uint32_t key_type,
                 const Bytes& values) {
  Set set{name,
          comment,
          key_type,
          1,
          false,
          NFT_SET_CONSTANT,
          static_cast<std::uint32_t>(values.size()),
          {},
          0};
  for (const std::uint8_t value : values) set.elements.push_back({value});
  std::sort(set.elements.begin(), set.elements.end());
  return set;
}

Set address_set(const TableConfig& config, bool v4) {
  Set set{v4 ? "address4" : "address6",
          "the addresses that all nodes share",
          v4 ? kTypeIpv4 : kTypeIpv6,
          v4 ? 4U : 16U,
          false,
          0,
          kMostAddresses,
          {},
          0};
  for (const IpAddress& ip : config.addresses) {
    if (ip.is_v4() == v4) set.elements.emplace_back(ip.bytes().begin(), ip.bytes().end());
  }
  std::sort(set.elements.begin(), set.elements.end());
  return set;
}

Set owned_set(const TableConfig& config, const BlockSet& owned) {
  const std::string comment = "this node's blocks: first port of each, " +
                              std::to_string(config.blocks) + " blocks of " +
                              std::to_string(65536 / config.blocks);
  Set set{"owned", comment, kTypeInetService,
          2,       false,   config.blocks > kLargestBitmap ? std::uint32_t{NFT_SET_TIMEOUT} : 0U,
          0,       {},      0};
  owned.for_each([&](BlockId block) { set.elements.push_back(block_key(block, config.blocks)); });
  return set;
}

Set lease_set(const TableConfig& config, const std::optional<Lease>& lease) {
  Set set{"lease",
          "dead man's switch: without these elements the address is closed",
          kTypeNfProto,
          1,
          true,
          NFT_SET_TIMEOUT,
          0,
          {},
          0};
  if (!lease) return set;
  set.timeout_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(lease->remaining).count());
  for (const std::uint8_t key : lease_keys(config)) set.elements.push_back({key});
  return set;
}

std::vector<Set> make_sets(const TableConfig& config, const Contents& contents) {
  std::vector<Set> sets{owned_set(config, contents.owned), lease_set(config, contents.lease)};
  if (has_family(config, true)) {
    sets.push_back(address_set(config, true));
    sets.push_back(constant_set("icmp_query", "told apart by the client's address", kTypeIcmp,
                                {ICMP_ECHO, ICMP_ECHOREPLY, ICMP_TIMESTAMP, ICMP_TIMESTAMPREPLY}));
    sets.push_back(constant_set("icmp_error", "told apart by the packet they quote", kTypeIcmp,
                                {ICMP_DEST_UNREACH, ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB}));
  }
  if (has_family(config, false)) {
    sets.push_back(address_set(config, false));
    sets.push_back(constant_set("neighbour", "neighbour discovery", kTypeIcmpv6,
                                {ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT}));
    sets.push_back(constant_set("icmpv6_query", "told apart by the client's address", kTypeIcmpv6,
                                {ICMP6_ECHO_REQUEST, ICMP6_ECHO_REPLY}));
    sets.push_back(constant_set(
        "icmpv6_error", "told apart by the packet they quote", kTypeIcmpv6,
        {ICMP6_DST_UNREACH, ICMP6_PACKET_TOO_BIG, ICMP6_TIME_EXCEEDED, ICMP6_PARAM_PROB}));
  }
  return sets;
}

Chain prerouting_chain(const TableConfig& config) {
  Chain chain{"prerouting", "", Hook{NF_INET_PRE_ROUTING, kPriority, "", true}, {}};
  if (has_family(config, true)) {
    chain.rules.push_back(
        {"to an address that all nodes share",
         family(NFPROTO_IPV4) +
             Expressions{LoadPayload{kNetwork, 16, 4}, Lookup{"address4"}, go_to("shared")}});
  }
  if (has_family(config, false)) {
    chain.rules.push_back(
        {"to an address that all nodes share",
         family(NFPROTO_IPV6) +
             Expressions{LoadPayload{kNetwork, 24, 16}, Lookup{"address6"}, go_to("shared")}});
  }
  return chain;
}

// A packet of a foreign TCP connection passes three rules here before it is dropped.
Chain shared_chain(const TableConfig& config) {
  Chain chain{"shared", "packets to a shared address: one node accepts each", std::nullopt, {}};
  const Expressions by_port = owned_by(config, kTransport, 0) + Expressions{go_to("open")};
  chain.rules.push_back({"this node's own access to its addresses",
                         {LoadMeta{NFT_META_IIF}, equals(host_bytes(kLoopbackIndex)), accept()}});
  chain.rules.push_back(
      {"TCP: the client's port is in a block of this node", protocol(IPPROTO_TCP) + by_port});
  chain.rules.push_back(
      {"UDP: the client's port is in a block of this node", protocol(IPPROTO_UDP) + by_port});
  if (has_family(config, true)) {
    chain.rules.push_back(
        {"ICMP has no ports", protocol(IPPROTO_ICMP) + Expressions{go_to("icmp")}});
  }
  if (has_family(config, false)) {
    chain.rules.push_back(
        {"ICMPv6 has no ports", protocol(IPPROTO_ICMPV6) + Expressions{go_to("icmpv6")}});
  }
  chain.rules.push_back(foreign_drop("another node accepts it, or nobody serves this protocol"));
  return chain;
}

// Where the headers of one IP version have what we look at.
struct IcmpLayout {
  const char* queries;
  const char* errors;
  const char* chain;
  const char* error_chain;
  const char* quoted_chain;
  std::uint32_t source_low;       // low 16 bits of the outer source address, in the IP header
  std::uint32_t quoted_protocol;  // in the ICMP message
  std::uint32_t quoted_port;      // destination port of the quoted packet: the client's
};
constexpr std::uint32_t kIcmpHeader = 8;
constexpr IcmpLayout kIcmp4{"icmp_query",  "icmp_error", "icmp",          "icmp_error",
                            "icmp_quoted", 14,           kIcmpHeader + 9, kIcmpHeader + 20 + 2};
constexpr IcmpLayout kIcmp6{"icmpv6_query",  "icmpv6_error",      "icmpv6",
                            "icmpv6_error",  "icmpv6_quoted",     22,
                            kIcmpHeader + 6, kIcmpHeader + 40 + 2};

void add_icmp_chains(std::vector<Chain>& chains, const TableConfig& config, bool v4) {
  const IcmpLayout& at = v4 ? kIcmp4 : kIcmp6;
  const auto l4proto = static_cast<std::uint8_t>(v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
  const Expressions by_source =
      owned_by(config, kNetwork, at.source_low) + Expressions{go_to("open")};
  const Expressions by_quoted =
      owned_by(config, kTransport, at.quoted_port) + Expressions{go_to("open")};
  // A quoted IPv4 packet without options that is not a later fragment; for IPv6 the next header
  // says it.
  const Expressions plain = v4 ? byte_is(kTransport, kIcmpHeader, 0x45) +
                                     Expressions{LoadPayload{kTransport, kIcmpHeader + 6, 2},
                                                 Mask{big16(0x1fff)}, equals(big16(0))}
                               : Expressions{};

  Chain quoted{at.quoted_chain, "the quoted packet went to a client's port", std::nullopt, {}};
  quoted.rules.push_back({"that port is in a block of this node", by_quoted});
  quoted.rules.push_back(foreign_drop("another node sent the quoted packet"));

  Chain error{at.error_chain, "errors, also fragmentation needed (path MTU)", std::nullopt, {}};
  for (const std::uint8_t quotes : {IPPROTO_TCP, IPPROTO_UDP}) {
    error.rules.push_back({quotes == IPPROTO_TCP ? "quotes TCP" : "quotes UDP",
                           plain + byte_is(kTransport, at.quoted_protocol, quotes) +
                               Expressions{go_to(at.quoted_chain)}});
  }
  error.rules.push_back({"quotes something else: by the sender's address", by_source});
  error.rules.push_back(foreign_drop("another node accepts it"));

  Chain icmp{at.chain, "", std::nullopt, {}};
  if (!v4) {
    icmp.rules.push_back({"neighbour discovery: every node answers",
                          type_in(IPPROTO_ICMPV6, "neighbour") + Expressions{accept()}});
  }
  icmp.rules.push_back(
      {"errors", type_in(l4proto, at.errors) + Expressions{go_to(at.error_chain)}});
  icmp.rules.push_back({"the low 16 bits of the client's address are in a block of this node",
                        type_in(l4proto, at.queries) + by_source});
  icmp.rules.push_back(foreign_drop("another node accepts it, or nobody serves this type"));

  chains.push_back(std::move(quoted));
  chains.push_back(std::move(error));
  chains.push_back(std::move(icmp));
}

Chain defragment_chain() {
  return {"defragment",
          "nothing comes here; the rule makes the kernel join fragments first",
          std::nullopt,
          {{"never reached",
            protocol(IPPROTO_TCP) + Expressions{LoadConstant{big16(1)}, TproxyToPort{}}}}};
}

Chain masking_chain(const char* name, const std::string& device, const TableConfig& config) {
  const Bytes shared(config.shared_mac.bytes.begin(), config.shared_mac.bytes.end());
  const Bytes own(config.own_mac.bytes.begin(), config.own_mac.bytes.end());
  constexpr std::uint16_t kEther = 1;  // ARPHRD_ETHER
  // Offset 6 of the Ethernet header: the source.
  const Rule rule{"the shared MAC never leaves as a source",
                  {LoadMeta{NFT_META_IIFTYPE}, equals(host_bytes(kEther)),
                   LoadPayload{NFT_PAYLOAD_LL_HEADER, 6, 6}, equals(shared), LoadConstant{own},
                   StorePayload{NFT_PAYLOAD_LL_HEADER, 6, 6}}};
  return {name, "", Hook{NF_NETDEV_EGRESS, 0, device, true}, {rule}};
}

}  // namespace

std::string table_name(std::uint16_t id) { return "saru_" + std::to_string(id); }
std::string twin_name(std::uint16_t id) { return table_name(id) + kTwin; }
std::string link_name(std::uint16_t id) { return "saru" + std::to_string(id); }

std::optional<Error> check(const TableConfig& config) {
  const auto bad = [](std::string text) { return Error{ErrorKind::kInvalid, std::move(text)}; };
  if (config.id == 0) return bad("cluster id 0 does not exist: give one from 1 to 65535");
  if (!is_block_count(config.blocks)) {
    return bad("an address cannot be cut in " + std::to_string(config.blocks) +
               " blocks: give a power of two from 16 to 4096");
  }
  if (config.addresses.empty()) return bad("no address to share: give at least one");
  if (config.addresses.size() > kMostAddresses) {
    return bad(std::to_string(config.addresses.size()) + " addresses are too many: at most " +
               std::to_string(kMostAddresses));
  }
  const std::set<IpAddress> distinct(config.addresses.begin(), config.addresses.end());
  if (distinct.size() != config.addresses.size()) return bad("an address is given twice");
  if (config.nic.empty() || config.nic.size() >= IFNAMSIZ) {
    return bad("\"" + config.nic + "\" is no name of a network interface");
  }
  if (config.link.empty() || config.link.size() >= IFNAMSIZ || config.link == config.nic) {
    return bad("\"" + config.link + "\" cannot be the name of the shared interface");
  }
  for (const MacAddress& mac : {config.shared_mac, config.own_mac}) {
    if (mac.is_multicast() || mac.is_zero()) {
      return bad(mac.text() +
                 " is no MAC address of one interface: the first byte must be even, and not "
                 "all bytes zero");
    }
  }
  if (config.shared_mac == config.own_mac) {
    return bad("the shared MAC " + config.shared_mac.text() +
               " is the NIC's own: choose another one");
  }
  return std::nullopt;
}

std::vector<std::uint8_t> lease_keys(const TableConfig& config) {
  std::vector<std::uint8_t> keys;
  if (has_family(config, true)) keys.push_back(NFPROTO_IPV4);
  if (has_family(config, false)) keys.push_back(NFPROTO_IPV6);
  return keys;
}

std::vector<Rule> open_rules(const TableConfig&, const std::optional<Lease>& lease) {
  if (!lease) return {{"closed", {Count{"late"}, drop()}}};
  const auto deadline = static_cast<std::uint64_t>(lease->realtime.count());
  return {{"the lease ends at this time, however long this process sleeps",
           {LoadMeta{NFT_META_TIME_NS}, ToBigEndian{}, Compare{NFT_CMP_GTE, big64(deadline)},
            Count{"late"}, drop()}},
          {"the lease has run out",
           {LoadMeta{NFT_META_NFPROTO}, Lookup{"lease", true}, Count{"late"}, drop()}},
          {"this node answers", {Count{"accepted"}, accept()}}};
}

Plan make_plan(const TableConfig& config, const Contents& contents, const Features& features,
               bool with_link) {
  Plan plan;
  const std::string id = std::to_string(config.id);
  const std::string node = config.node_name.substr(0, kMostNodeName);
  plan.inet = {
      NFPROTO_INET,
      table_name(config.id),
      "saru " + id + " on " + node + ": which packets this node accepts; do not edit, do not save",
      {"accepted", "foreign", "late"},
      make_sets(config, contents),
      {}};
  auto& chains = plan.inet.chains;
  chains.push_back({"open", "our packets, as long as the lease lasts", std::nullopt,
                    open_rules(config, contents.lease)});
  if (has_family(config, true)) add_icmp_chains(chains, config, true);
  if (has_family(config, false)) add_icmp_chains(chains, config, false);
  chains.push_back(shared_chain(config));
  chains.push_back(prerouting_chain(config));
  if (features.defragments) chains.push_back(defragment_chain());

  plan.netdev = {NFPROTO_NETDEV,
                 table_name(config.id),
                 "saru " + id + " on " + node + ": hides the shared MAC; do not edit, do not save",
                 {},
                 {},
                 {masking_chain("nic", config.nic, config)}};
  if (with_link) plan.netdev.chains.push_back(masking_chain("link", config.link, config));
  return plan;
}

TablePlan make_twin(TablePlan table) {
  table.name += kTwin;
  table.comment =
      "as the other one, but cannot be flushed while sarud lives; do not edit, do not save";
  return table;
}

Difference difference(const BlockSet& from, const BlockSet& to) { return {from - to, to - from}; }

std::vector<std::uint8_t> block_key(BlockId block, unsigned blocks) {
  return big16(block.value * (65536 / blocks));
}

std::optional<BlockId> key_block(std::span<const std::uint8_t> key, unsigned blocks) {
  if (key.size() != 2) return std::nullopt;
  const unsigned value = key[0] * 256U + key[1];
  const unsigned block_size = 65536 / blocks;
  if (value % block_size != 0) return std::nullopt;
  return BlockId{static_cast<std::uint16_t>(value / block_size)};
}

}  // namespace saru::nft
