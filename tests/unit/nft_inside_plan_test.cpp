// SPDX-License-Identifier: GPL-2.0-or-later
// The plan of a director: what comes in from inside is of the block of its connection.
#include "tests/unit/nft_machine.h"

namespace saru::nft {
namespace {

TableConfig make_director(unsigned blocks = 512) {
  TableConfig config = make_config(blocks);
  config.inside = LinkConfig{{*IpAddress::parse("10.2.0.1"), *IpAddress::parse("fd02::1")},
                             derived_inside_mac(config.shared_mac),
                             *MacAddress::parse("02:00:00:00:01:01"),
                             "eth1",
                             link_name(7, Side::kInside)};
  return config;
}

void swap_bytes(Bytes& bytes, std::size_t a, std::size_t b, std::size_t count) {
  std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(a),
                   bytes.begin() + static_cast<std::ptrdiff_t>(a + count),
                   bytes.begin() + static_cast<std::ptrdiff_t>(b));
}

// Addresses and ports the other way round; in an error, also those of the packet that it quotes.
// nullopt: it ends before it has them all, so one way round tells what the other does not.
std::optional<Packet> mirrored(Packet packet) {
  const bool v4 = packet.family == NFPROTO_IPV4;
  const std::size_t header = v4 ? 20 : 40, size = v4 ? 4 : 16, source = v4 ? 12 : 8;
  Bytes& inner = packet.transport;
  if (packet.network.size() < header) return std::nullopt;
  swap_bytes(packet.network, source, source + size, size);
  if (saru_has_ports(packet.protocol) != 0) {
    if (inner.size() < 4) return std::nullopt;
    swap_bytes(inner, 0, 2, 2);
  } else if (packet.protocol == (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
    if (inner.empty()) return std::nullopt;
    if (saru_icmp_kind_of(v4 ? 4 : 6, inner[0]) != SARU_ICMP_ERROR) return packet;
    if (inner.size() < SARU_ICMP_HEADER + header + 4) return std::nullopt;
    swap_bytes(inner, SARU_ICMP_HEADER + source, SARU_ICMP_HEADER + source + size, size);
    swap_bytes(inner, SARU_ICMP_HEADER + header, SARU_ICMP_HEADER + header + 2, 2);
  }
  return packet;
}

bool is_number(const std::string& answer) { return answer[0] >= '0' && answer[0] <= '9'; }

TEST(InsidePlan, MirroredGoldenPacketsAreOfTheBlockOfTheirConnection) {
  const Book book = read_book();
  unsigned judged = 0;
  for (std::size_t i = 0; i < book.selections.size(); ++i) {
    TableConfig config = make_director(16);
    config.selection = book.selections[i];
    if (!config.selection.services.empty() || check(config)) continue;
    const auto verdict = [&](const BlockSet& owned, const Packet& packet) {
      const Contents contents{Accepting::all_of(owned),
                              Lease{std::chrono::seconds(1), Nanos(kEnd)}};
      return verdict_of(make_plan(config, contents, Features{}, false), packet);
    };
    for (const Golden& golden : book.packets) {
      auto packet = golden.whole ? mirrored(packet_of(golden)) : std::nullopt;
      if (!packet) continue;
      const std::string& answer = golden.answers[i];
      packet->in_name = config.inside->link;
      BlockSet one(16), all(16);
      all.fill();
      if (is_number(answer)) {
        one.insert(BlockId{static_cast<std::uint16_t>(std::stoul(answer) / (65536 / 16))});
      }
      EXPECT_EQ(verdict(all, *packet), answer == "nobody" ? NF_DROP : NF_ACCEPT) << golden.name;
      EXPECT_EQ(verdict(all - one, *packet), answer == "all" ? NF_ACCEPT : NF_DROP) << golden.name;
      if (one.empty()) continue;
      EXPECT_EQ(verdict(one, *packet), NF_ACCEPT) << golden.name;
      ++judged;
    }
  }
  EXPECT_GT(judged, 1000U);
}

TEST(InsidePlan, WhatPassesThroughFromOutsideGoesByTheSelector) {
  const TableConfig config = make_director();
  const Plan plan = open_plan(config, {39});
  for (const bool v4 : {true, false}) {
    for (const unsigned port : {38U * 128, 39U * 128, 40U * 128}) {
      Packet packet = packet_to(config, v4, 6, 0, port);
      packet.network[v4 ? 19 : 39] ^= 0x55;  // a host inside, say
      const bool ours = port / 128 == 39;
      EXPECT_EQ(verdict_of(plan, packet), NF_ACCEPT)
          << "not through our link: none of our business";
      packet.in_name = config.link;
      EXPECT_EQ(verdict_of(plan, packet), ours ? NF_ACCEPT : NF_DROP);
      packet.packet_type = PACKET_MULTICAST;
      EXPECT_EQ(verdict_of(plan, packet), NF_ACCEPT) << "nothing of that is forwarded";
    }
  }
}

TEST(InsidePlan, AnotherNameOfTheLinkOpensNothing) {
  const TableConfig config = make_director();
  const Plan plan = open_plan(config, {39});
  const auto to = [](Packet& packet, const MacAddress& mac) {
    std::copy(mac.bytes.begin(), mac.bytes.end(), packet.ethernet.begin());
  };
  for (const bool v4 : {true, false}) {
    for (const unsigned port : {38U * 128, 39U * 128}) {
      const auto expected = port / 128 == 39 ? NF_ACCEPT : NF_DROP;
      Packet packet = packet_to(config, v4, 6, 0, port);
      packet.network[v4 ? 19 : 39] ^= 0x55;
      to(packet, config.shared_mac);
      EXPECT_EQ(verdict_of(plan, packet), expected);
      put16(packet.transport, 0, 4711);
      put16(packet.transport, 2, port);
      to(packet, config.inside->shared_mac);
      EXPECT_EQ(verdict_of(plan, packet), expected);
    }
  }
}

TEST(InsidePlan, WithoutALeaseNothingPassesThrough) {
  const TableConfig config = make_director();
  const Plan closed =
      make_plan(config, {Accepting::all_of(blocks_of(512, {39})), std::nullopt}, Features{}, true);
  for (const bool v4 : {true, false}) {
    for (const std::string& name : {config.link, config.inside->link}) {
      Packet packet = packet_to(config, v4, 6, 0, 39 * 128);
      put16(packet.transport, 2, 39 * 128);
      packet.network[v4 ? 19 : 39] ^= 0x55;
      packet.in_name = name;
      EXPECT_EQ(verdict_of(closed, packet), NF_DROP);
    }
  }
}

// A family without any address has no lease, and is nobody's.
TEST(InsidePlan, AFamilyWithoutAddressesStaysClosed) {
  TableConfig config = make_director();
  config.addresses = {*IpAddress::parse("10.9.0.1")};
  config.inside->addresses = {*IpAddress::parse("10.2.0.1")};
  const Plan plan = open_plan(config, {39});
  Packet packet = packet_to(make_director(), false, 6, 0, 39 * 128);
  put16(packet.transport, 2, 39 * 128);
  packet.in_name = config.inside->link;
  packet.lease_elements = true;
  EXPECT_EQ(verdict_of(plan, packet), NF_DROP);
}

TEST(InsidePlan, WithoutAnInsideNothingIsDifferent) {
  const Plan plain = open_plan(make_config(), {1});
  const Plan director = open_plan(make_director(), {1});
  EXPECT_EQ(plain.inet.chains.back().name, director.inet.chains.back().name);
  for (const Chain& chain : plain.inet.chains) {
    EXPECT_FALSE(chain.name.starts_with("inside")) << chain.name;
    EXPECT_TRUE(chain.name != "prerouting" || chain.rules.size() == 2);
  }
  EXPECT_EQ(plain.netdev.chains.size(), 2U);
  const Plan with_links =
      make_plan(make_director(), {Accepting::nothing(512), std::nullopt}, {}, true, true);
  EXPECT_EQ(with_links.netdev.chains.size(), 4U);
}

TEST(InsidePlan, EveryRuleHasACommentThatFits) {
  const Plan plan = open_plan(make_director(), {1});
  for (const Chain& chain : plan.inet.chains) {
    for (const Rule& rule : chain.rules) {
      EXPECT_FALSE(rule.comment.empty()) << chain.name;
      EXPECT_LT(rule.comment.size(), 128U);
    }
  }
}

TEST(InsidePlan, RefusesWhatNatWouldTearApart) {
  EXPECT_EQ(check(make_director()), std::nullopt);
  const auto text = [](auto&& spoil) {
    TableConfig config = make_director();
    spoil(config);
    const auto error = check(config);
    return error ? error->text : "";
  };
  EXPECT_EQ(text([](auto& c) { c.selection.selector = Selector::kDstPort; }),
            "with an inside the selector cannot be dst-port, which NAT changes: choose src-port, "
            "src-addr or src-addr-port");
  EXPECT_NE(text([](auto& c) { c.selection.selector = Selector::kDstAddr; }), "");
  EXPECT_NE(text([](auto& c) { c.selection.services = *parse_services("443 by src-addr"); }), "");
  EXPECT_NE(text([](auto& c) { c.stays = true; }), "");
  EXPECT_EQ(text([](auto& c) { c.inside->nic = "eth0"; }),
            "\"eth0\" cannot be an interface of both sides: choose another one");
  EXPECT_NE(text([](auto& c) { c.inside->link = c.link; }), "");
  EXPECT_EQ(text([](auto& c) { c.inside->shared_mac = c.shared_mac; }),
            "the shared MAC 02:5a:72:00:00:07 is also that of another interface: choose another "
            "one");
  EXPECT_NE(text([](auto& c) { c.inside->shared_mac = c.own_mac; }), "");
  EXPECT_NE(text([](auto& c) { c.inside->own_mac = c.shared_mac; }), "");
  EXPECT_EQ(text([](auto& c) { c.inside->addresses.push_back(c.addresses[0]); }),
            "an address is given twice");
  EXPECT_NE(text([](auto& c) { c.inside->addresses.clear(); }), "");
}

}  // namespace
}  // namespace saru::nft
