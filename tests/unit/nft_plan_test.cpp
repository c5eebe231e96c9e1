// SPDX-License-Identifier: GPL-2.0-or-later
// The plan, judged by an interpreter of its rules that knows nothing of how they were made.
#include "tests/unit/nft_machine.h"

namespace saru::nft {
namespace {

// ---- Tests
// ----------------------------------------------------------------------------------------------

TEST(NftPlan, AcceptsEveryPortOfAnOwnedBlockAndNoOther) {
  for (const unsigned blocks : {16U, 512U, 4096U}) {
    const TableConfig config = make_config(blocks);
    const unsigned size = 65536 / blocks;
    const Plan plan = open_plan(config, {0, 3, blocks - 1});
    for (const bool v4 : {true, false}) {
      for (const std::uint8_t protocol : {6, 17}) {
        for (unsigned port = 0; port < 65536; ++port) {
          const unsigned block = port / size;
          const bool owned = block == 0 || block == 3 || block == blocks - 1;
          const auto verdict =
              verdict_of(plan, packet_to(config, v4, protocol, 0xffff & ~port, port));
          ASSERT_EQ(verdict == NF_ACCEPT, owned) << blocks << " blocks, port " << port;
        }
      }
    }
  }
}

TEST(NftPlan, LetsPassWhatIsForOtherAddresses) {
  const TableConfig config = make_config();
  const Plan plan = open_plan(config, {});
  Packet packet = packet_to(config, true, 6, 0, 5000);
  EXPECT_EQ(verdict_of(plan, packet), NF_DROP);
  packet.network[19] ^= 1;
  EXPECT_EQ(verdict_of(plan, packet), NF_ACCEPT);
}

TEST(NftPlan, LetsTheNodeReachItsOwnAddresses) {
  const TableConfig config = make_config();
  Packet packet = packet_to(config, false, 6, 0, 5000);
  packet.in_interface = 1;
  EXPECT_EQ(verdict_of(open_plan(config, {}), packet), NF_ACCEPT);
}

TEST(NftPlan, ClosesAtTheDeadlineAndWithoutTimedElements) {
  const TableConfig config = make_config();
  const Plan plan = open_plan(config, {39});
  Packet packet = packet_to(config, true, 17, 0, 5000);
  EXPECT_EQ(verdict_of(plan, packet), NF_ACCEPT);
  packet.time_ns = kEnd;
  Machine late(plan.inet, packet);
  EXPECT_EQ(late.run("prerouting"), NF_DROP);
  EXPECT_EQ(late.counted(), std::vector<std::string>{"late"});
  packet.time_ns = 0;
  packet.lease_elements = false;
  EXPECT_EQ(verdict_of(plan, packet), NF_DROP);
}

TEST(NftPlan, AcceptsNothingWithoutALease) {
  const TableConfig config = make_config();
  // Even if somebody left blocks in the set.
  const Plan plan =
      make_plan(config, {Accepting::all_of(blocks_of(512, {39})), std::nullopt}, Features{}, true);
  EXPECT_EQ(verdict_of(plan, packet_to(config, true, 17, 0, 5000)), NF_DROP);
}

TEST(NftPlan, DropsAForeignPacketWithinSevenRules) {
  const TableConfig config = make_config();
  const Packet packet = packet_to(config, true, 6, 0, 5000);
  const Plan plan = open_plan(config, {0});
  Machine machine(plan.inet, packet);
  EXPECT_EQ(machine.run("prerouting"), NF_DROP);
  EXPECT_EQ(machine.counted(), std::vector<std::string>{"foreign"});
  EXPECT_LE(machine.rules(), 5U);
}

TEST(NftPlan, TellsEchoRequestsApartByTheClientsAddress) {
  const TableConfig config = make_config();
  const Plan plan = open_plan(config, {2});
  for (const bool v4 : {true, false}) {
    for (const unsigned low : {255U, 256U, 383U, 384U}) {
      Packet packet = packet_to(config, v4, v4 ? 1 : 58, low, 0);
      packet.transport[0] = v4 ? 8 : 128;
      EXPECT_EQ(verdict_of(plan, packet) == NF_ACCEPT, low / 128 == 2) << low;
    }
  }
}

TEST(NftPlan, AnswersNeighbourDiscoveryEverywhere) {
  const TableConfig config = make_config();
  const Plan closed = make_plan(config, {Accepting::nothing(512), std::nullopt}, Features{}, true);
  for (const std::uint8_t type : {135, 136}) {
    Packet packet = packet_to(config, false, 58, 500, 0);
    packet.transport[0] = type;
    EXPECT_EQ(verdict_of(closed, packet), NF_ACCEPT);
  }
}

TEST(NftPlan, TellsIcmpErrorsApartByTheQuotedPacket) {
  const TableConfig config = make_config();
  const Plan plan = open_plan(config, {2});
  for (const bool v4 : {true, false}) {
    for (const std::uint8_t quoted_protocol : {6, 17, 1}) {
      for (const std::uint8_t version : {0x45, 0x46}) {
        for (const unsigned port : {2U * 128, 3U * 128}) {
          for (const unsigned low : {2U * 128, 3U * 128}) {
            Packet packet = packet_to(config, v4, v4 ? 1 : 58, low, 0);
            packet.transport[0] = v4 ? 3 : 2;
            packet.transport[8] = v4 ? version : 0x60;
            packet.transport[v4 ? 17 : 14] = quoted_protocol;
            put16(packet.transport, v4 ? 30 : 50, port);
            const bool plain = quoted_protocol != 1 && (!v4 || version == 0x45);
            EXPECT_EQ(verdict_of(plan, packet) == NF_ACCEPT, (plain ? port : low) / 128 == 2);
          }
        }
      }
    }
  }
}

TEST(NftPlan, GoldenPacketsAreAcceptedByTheirBlockAlone) {
  const Book book = read_book();
  for (std::size_t i = 0; i < book.selections.size(); ++i) {
    TableConfig config = make_config(16);
    for (const char* text : {"10.9.7.2", "fd09::7:2"}) {
      config.addresses.push_back(*IpAddress::parse(text));
    }
    config.selection = book.selections[i];
    ASSERT_EQ(check(config), std::nullopt);
    BlockSet none(config.blocks);
    for (const Golden& golden : book.packets) {
      if (!golden.whole) continue;
      const std::string& answer = golden.answers[i];
      BlockSet one = none;
      if (answer[0] <= '9') {
        one.insert(BlockId{static_cast<std::uint16_t>(std::stoul(answer) / (65536 / 16))});
      }
      BlockSet all = none;
      all.fill();
      const auto verdict = [&](const BlockSet& owned) {
        const Contents contents{Accepting::all_of(owned),
                                Lease{std::chrono::seconds(1), Nanos(kEnd)}};
        return verdict_of(make_plan(config, contents, Features{}, false), packet_of(golden));
      };
      EXPECT_EQ(verdict(all), answer == "nobody" ? NF_DROP : NF_ACCEPT) << golden.name << " " << i;
      EXPECT_EQ(verdict(all - one), answer == "all" ? NF_ACCEPT : NF_DROP)
          << golden.name << " " << i;
      if (one.empty()) continue;
      EXPECT_EQ(verdict(one), NF_ACCEPT) << golden.name << " " << i;
    }
  }
}

TEST(NftPlan, ForcesTheHashAboveTheSizeWhereTheBitmapIsWorse) {
  const auto flags = [](unsigned blocks) {
    return make_plan(make_config(blocks), {Accepting::nothing(blocks), std::nullopt}, Features{},
                     true)
        .inet.sets[0]
        .flags;
  };
  EXPECT_EQ(flags(64), 0U);
  EXPECT_EQ(flags(128), std::uint32_t{NFT_SET_TIMEOUT});
  EXPECT_EQ(flags(4096), std::uint32_t{NFT_SET_TIMEOUT});
}

TEST(NftPlan, KeysNameBlocksBothWays) {
  for (const unsigned blocks : {16U, 512U, 4096U}) {
    for (unsigned b = 0; b < blocks; ++b) {
      const BlockId block{static_cast<std::uint16_t>(b)};
      EXPECT_EQ(key_block(block_key(block, blocks), blocks), block);
    }
  }
  EXPECT_EQ(key_block(Bytes{0, 1}, 512), std::nullopt);
  EXPECT_EQ(key_block(Bytes{0}, 512), std::nullopt);
}

TEST(NftPlan, DifferenceIsWhatChanges) {
  const auto change = difference(blocks_of(16, {1, 2, 3}), blocks_of(16, {3, 4}));
  EXPECT_EQ(change.remove, blocks_of(16, {1, 2}));
  EXPECT_EQ(change.add, blocks_of(16, {4}));
}

TEST(NftPlan, ComparesInWords) {
  const TableConfig config = make_config();
  const Plan plan = open_plan(config, {1, 2});
  EXPECT_EQ(compare(plan.inet, plan.inet), std::vector<std::string>{});
  TablePlan other = plan.inet;
  other.sets[0].elements.pop_back();
  std::erase_if(other.chains, [](const Chain& chain) { return chain.name == "shared"; });
  for (Chain& chain : other.chains) {
    if (chain.name == "prerouting") chain.hook->priority = 0;
    if (chain.name == "open") chain.rules.erase(chain.rules.begin());
  }
  const auto words = compare(plan.inet, other);
  ASSERT_EQ(words.size(), 4U);
  EXPECT_EQ(words[0], "table inet saru_7: set owned: 1 element missing, the first is 0x0100");
  EXPECT_EQ(
      words[1],
      "table inet saru_7: chain open: rule 1 (\"the lease ends at this time, however long this "
      "process sleeps\") is missing");
  EXPECT_EQ(words[2], "table inet saru_7: chain shared is missing");
  EXPECT_NE(words[3].find("priority 0 policy accept instead of"), std::string::npos);
}

TEST(NftPlan, EveryRuleHasACommentThatFits) {
  for (const Plan& plan :
       {open_plan(make_config(), {1}),
        make_plan(make_config(), {Accepting::nothing(512), std::nullopt}, {}, false)}) {
    for (const TablePlan* table : {&plan.inet, &plan.netdev}) {
      EXPECT_LT(table->comment.size(), 128U);
      for (const Set& set : table->sets) EXPECT_FALSE(set.comment.empty()) << set.name;
      for (const Chain& chain : table->chains) {
        for (const Rule& rule : chain.rules) {
          EXPECT_FALSE(rule.comment.empty()) << chain.name;
          EXPECT_LT(rule.comment.size(), 128U);
        }
      }
    }
  }
}

TEST(NftPlan, RefusesWhatCannotBe) {
  EXPECT_EQ(check(make_config()), std::nullopt);
  const auto text = [](auto&& spoil) {
    TableConfig config = make_config();
    spoil(config);
    const auto error = check(config);
    return error ? error->text : "";
  };
  EXPECT_EQ(text([](auto& c) { c.id = 0; }),
            "cluster id 0 does not exist: give one from 1 to 65535");
  EXPECT_EQ(text([](auto& c) { c.blocks = 24; }),
            "an address cannot be cut in 24 blocks: give a power of two from 16 to 4096");
  EXPECT_EQ(text([](auto& c) { c.addresses.clear(); }), "no address to share: give at least one");
  EXPECT_NE(text([](auto& c) { c.addresses.push_back(c.addresses[0]); }), "");
  EXPECT_NE(text([](auto& c) { c.shared_mac.bytes[0] |= 1; }), "");
  EXPECT_NE(text([](auto& c) { c.shared_mac = c.own_mac; }), "");
  EXPECT_NE(text([](auto& c) { c.nic = "a-name-that-is-too-long"; }), "");
}

TEST(Addresses, ParseAndPrint) {
  EXPECT_EQ(ServiceAddress::parse("10.0.0.1")->text(), "10.0.0.1/32");
  EXPECT_EQ(ServiceAddress::parse("fd09::1/64")->text(), "fd09::1/64");
  for (const char* bad : {"", "10.0.0", "10.0.0.1/", "10.0.0.1/0", "10.0.0.1/33", "10.0.0.1/8x",
                          "::", "::1", "0.0.0.0", "127.0.0.1", "255.255.255.255", "239.1.1.1",
                          "ff02::1", "fe80::1", "::ffff:10.0.0.1", "10.0.0.1 ", "fd09::1/129"}) {
    const auto parsed = ServiceAddress::parse(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kInvalid);
    EXPECT_NE(parsed.error().text.find(bad), std::string::npos);
  }
  EXPECT_EQ(MacAddress::parse("02:5A:72:00:00:01"), derived_shared_mac(1));
  EXPECT_EQ(derived_shared_mac(65535).text(), "02:5a:72:00:ff:ff");
  EXPECT_EQ(derived_inside_mac(derived_shared_mac(1)).text(), "02:5a:72:01:00:01");
  EXPECT_EQ(derived_inside_mac(*MacAddress::parse("00:11:22:33:44:55")).text(),
            "02:11:22:32:44:55");
  for (const char* bad : {"", "02:5a:72:00:00", "02:5a:72:00:00:0g", "02-5a-72-00-00-01"}) {
    EXPECT_FALSE(MacAddress::parse(bad)) << bad;
  }
}

}  // namespace
}  // namespace saru::nft
