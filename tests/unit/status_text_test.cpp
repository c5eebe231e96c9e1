// SPDX-License-Identifier: GPL-2.0-or-later
// What saructl prints, letter by letter.
#include <gtest/gtest.h>

#include <sstream>

#include "agent/audit.h"
#include "agent/report.h"
#include "agent/text.h"
#include "agent/version.h"

namespace saru {
namespace {

using nlohmann::json;

json member(unsigned id, unsigned owns, const std::string& state) {
  return {{"id", id},
          {"node", "n" + std::to_string(id)},
          {"owns", owns},
          {"weight", 1},
          {"state", state}};
}

json sixteen_blocks() {
  json owners = json::array();
  for (unsigned block = 0; block < 16; ++block) owners.push_back(block % 3 + 1);
  return {{"id", 1},
          {"label", "web"},
          {"node", "n1"},
          {"node_id", 1},
          {"addresses", {"10.77.0.100", "fd77::100"}},
          {"nic", "eth0"},
          {"mac", "02:5a:72:00:00:01"},
          {"blocks", 16},
          {"selector", "src-port"},
          {"delivery", "flood"},
          {"connections", "none"},
          {"lease_ms", 1375},
          {"lease_left_ms", 1300},
          {"quorate", true},
          {"state", "open"},
          {"owns", 6},
          {"config", {{"hash", "7"}, {"next", nullptr}, {"waiting_for", json::array()}}},
          {"view",
           {{"open", true},
            {"ring", "1.24"},
            {"round", 3},
            {"confirmed", true},
            {"reason", "n4 left"},
            {"age_ms", 12345},
            {"moved", 2}}},
          {"members", {member(1, 6, "open"), member(2, 5, "serving"), member(3, 5, "serving")}},
          {"owners", owners},
          {"moving", json::array()}};
}

TEST(StatusText, AnotherVersionThanIsInstalledIsTold) {
  json status = sixteen_blocks();
  status["version"] = kVersion;
  EXPECT_EQ(text_of_status(status).find("is installed"), std::string::npos);
  status["version"] = "0.0.7";
  const std::string text = text_of_status(status);
  EXPECT_NE(text.find("sarud 0.0.7 runs, " + std::string(kVersion) + " is installed"),
            std::string::npos)
      << text;
}

// Found by tests/fuzz: the map divides by it.
TEST(StatusText, AnswersWithAnImpossibleNumberOfBlocksAreNotUnderstood) {
  json status = sixteen_blocks();
  for (const unsigned blocks : {0U, 1U, 17U, 65536U, 1U << 31}) {
    status["blocks"] = blocks;
    EXPECT_THROW(static_cast<void>(text_of_map(status, false)), std::exception) << blocks;
    EXPECT_THROW(static_cast<void>(text_of_status(status)), std::exception) << blocks;
    EXPECT_THROW(static_cast<void>(text_of_owner(status, ClientPacket{})), std::exception);
  }
}

TEST(StatusText, ShowsNodeLeaseViewAndMembers) {
  EXPECT_EQ(text_of_status(sixteen_blocks()),
            "saru 1: 10.77.0.100, fd77::100 on eth0 (web)\n"
            "  this node  n1, open; owns 6 of 16 blocks\n"
            "  lease      1300 of 1375 ms left\n"
            "  view       ring 1.24, round 3, quorate, agreed, 12 s old: n4 left\n"
            "  settings   src-port, delivery flood, connections none, MAC 02:5a:72:00:00:01\n"
            "\n"
            "  node                id weight  blocks   share  state\n"
            "* n1                   1      1       6  37.5 %  open\n"
            "  n2                   2      1       5  31.2 %  serving\n"
            "  n3                   3      1       5  31.2 %  serving\n");
}

TEST(StatusText, ShowsTheInsideOfADirector) {
  json status = sixteen_blocks();
  EXPECT_EQ(text_of_status(status).find("inside"), std::string::npos);
  status["inside"] = nullptr;
  EXPECT_EQ(text_of_status(status).find("inside"), std::string::npos);
  const auto options = validate({{"ip", "10.77.0.100"},
                                 {"nic", "eth0"},
                                 {"inside-ip", "10.2.0.1/24,fd02::1"},
                                 {"inside-nic", "eth1"}});
  status["inside"] = describe(State(Config{}), *options, {}, {}).at("inside");
  EXPECT_NE(text_of_status(status).find("  inside     10.2.0.1, fd02::1 on eth1, MAC "
                                        "02:5a:72:01:00:01\n"),
            std::string::npos)
      << text_of_status(status);
}

TEST(StatusText, NamesTheNodesThatNewParametersWaitFor) {
  json status = sixteen_blocks();
  status["config"] = {{"hash", "7"}, {"next", "8"}, {"waiting_for", {"n2", "n3"}}};
  const std::string text = text_of_status(status);
  EXPECT_NE(text.find("to come    other settings, once these nodes have them too: n2, n3"),
            std::string::npos)
      << text;
}

TEST(LoadText, DrawsNinthsAndNamesTheBusiestBlocks) {
  json status = sixteen_blocks();
  status["loads"] = {0, 1, 9, 90, 45, 10, 11, 0, 0, 0, 0, 0, 0, 0, 0, 80};
  EXPECT_EQ(text_of_load(status),
            "saru 1: 16 blocks of 4096 source ports, new connections that n1 accepted\n"
            "\n"
            "    0  .119512. .......8\n"
            "\n"
            "    .  none   1..9  by ninths of the busiest block\n"
            "    246 in all, since sarud's table was made\n"
            "    block 3: 90\n"
            "    block 15: 80\n"
            "    block 4: 45\n"
            "    block 6: 11\n"
            "    block 5: 10\n");
  status["loads"] = json::array({0, 0});
  EXPECT_NE(text_of_load(status).find("0 in all"), std::string::npos);
}

TEST(StatusText, SaysWhatIsWrong) {
  json status = sixteen_blocks();
  status["quorate"] = false;
  status["state"] = "closed: no quorum";
  status["owns"] = 0;
  status["owners"][4] = nullptr;
  status["view"]["confirmed"] = false;
  status["members"][2]["state"] = "has not answered yet";
  status["members"][2]["weight"] = nullptr;
  const std::string text = text_of_status(status);
  EXPECT_NE(text.find("n1, closed: no quorum; owns 0 of 16 blocks"), std::string::npos) << text;
  EXPECT_NE(text.find("NOT QUORATE, NOT YET AGREED"), std::string::npos) << text;
  EXPECT_NE(text.find("  n3                   3      ?       5  31.2 %  has not answered yet\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("  UNOWNED    1 of 16 blocks have no owner\n"), std::string::npos) << text;
}

TEST(MapText, DrawsALetterForEachOwner) {
  EXPECT_EQ(text_of_map(sixteen_blocks(), false),
            "saru 1: 16 blocks of 4096 source ports, as n1 sees them\n"
            "\n"
            "    0  ABCABCAB CABCABCA\n"
            "\n"
            "    A  n1                  6 blocks   37.5 %  weight 1, this node, open\n"
            "    B  n2                  5 blocks   31.2 %  weight 1, serving\n"
            "    C  n3                  5 blocks   31.2 %  weight 1, serving\n");
}

TEST(MapText, UnownedAndMovingBlocksAreObviousWithoutColour) {
  json status = sixteen_blocks();
  status["owners"][0] = nullptr;
  status["moving"] = {{{"block", 1}, {"from", 3}, {"to", 2}},
                      {{"block", 2}, {"from", 3}, {"to", 1}}};
  const std::string text = text_of_map(status, false);
  EXPECT_NE(text.find("    0  .**ABCAB CABCABCA\n"), std::string::npos) << text;
  EXPECT_NE(text.find("    .  nobody              1 blocks    6.2 %  NOT SERVED\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("    *  moving           1 blocks    C -> A\n"), std::string::npos) << text;
  EXPECT_NE(text.find("    *  moving           1 blocks    C -> B\n"), std::string::npos) << text;
}

TEST(MapText, ColourAddsNothingButColour) {
  std::string text = text_of_map(sixteen_blocks(), true);
  EXPECT_NE(text.find("\033["), std::string::npos);
  std::string plain;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\033') at = text.find('m', at) + 1;
    if (text[at] == '\033') {
      --at;
      continue;
    }
    plain += text[at];
  }
  EXPECT_EQ(plain, text_of_map(sixteen_blocks(), false));
}

TEST(MapText, ANodeThatLeftKeepsItsLetterUntilItsBlocksHaveMoved) {
  json status = sixteen_blocks();
  status["members"].erase(2);
  const std::string text = text_of_map(status, false);
  EXPECT_NE(text.find("    C  node 3              5 blocks   31.2 %  has left the group\n"),
            std::string::npos)
      << text;
}

TEST(MapText, FitsEightyColumnsAtEverySize) {
  for (unsigned blocks = 16; blocks <= 4096; blocks *= 2) {
    json status = sixteen_blocks();
    status["blocks"] = blocks;
    status["members"] = json::array();
    status["owners"] = json::array();
    for (unsigned id = 1; id <= 128; ++id) {
      json one = member(id, blocks, std::string(70, 'x'));
      one["node"] = std::string(64, 'n');
      one["weight"] = 65535;
      status["members"].push_back(one);
    }
    for (unsigned block = 0; block < blocks; ++block) status["owners"].push_back(block % 128 + 1);
    for (const std::string& text : {text_of_map(status, false), text_of_status(status)}) {
      std::istringstream lines(text);
      for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
    }
  }
}

TEST(OwnerText, NamesBlockRangeAndNode) {
  const auto packet = parse_client("192.0.2.7:5000", "");
  ASSERT_TRUE(packet);
  const Answer answer = text_of_owner(sixteen_blocks(), *packet);
  EXPECT_EQ(answer.text, "192.0.2.7:5000 tcp is block 1 (source ports 4096-8191): n2\n");
  EXPECT_TRUE(answer.good);
}

TEST(OwnerText, IcmpGoesByTheAddress) {
  const auto packet = parse_client("fd77::1234", "icmpv6");
  ASSERT_TRUE(packet);
  EXPECT_EQ(block_of(*packet, {})->block.value, 0x1234 / 128);
  EXPECT_EQ(block_of(*parse_client("10.77.0.250", "icmp"), {})->block.value, 250 / 128);
}

TEST(OwnerText, GoesByTheSelectorThatAppliesAndSaysWhatItMustKnow) {
  json status = sixteen_blocks();
  status["selector"] = "src-addr";
  status["services"] = "443 by dst-port, 53/udp by src-port";
  const auto text = [&](const char* client, const char* protocol, const char* to) {
    return text_of_owner(status, *parse_client(client, protocol, to)).text;
  };
  EXPECT_EQ(text("192.0.2.7", "tcp", "80"),
            "192.0.2.7 tcp to port 80 is block 0 (low 16 bits of the source address 0-4095): n1\n");
  EXPECT_EQ(text("192.0.2.7", "tcp", "10.77.0.100:443"),
            "192.0.2.7 tcp to 10.77.0.100:443 is block 0 (destination ports 0-4095): n1\n");
  EXPECT_EQ(text("192.0.2.7", "", ""),
            "\"443 by dst-port\" is a service of its own: say with --to to which port the packet "
            "goes\n");
  EXPECT_EQ(text("192.0.2.7", "udp", "53"),
            "the block depends on the client's port: give 192.0.2.7:PORT, or the protocol icmp\n");
  EXPECT_EQ(text("[fd77::7]:5000", "udp", "[fd77::100]:53"),
            "[fd77::7]:5000 udp to [fd77::100]:53 is block 1 (source ports 4096-8191): n2\n");
  status["services"] = "[fd77::100]:53 by src-port";
  EXPECT_EQ(text("[fd77::7]:5000", "udp", "53"),
            "[fd77::7]:5000 udp to port 53 is block 1 (source ports 4096-8191): n2\n");
  status["addresses"] = {"fd77::100", "fd77::101"};
  EXPECT_EQ(text("[fd77::7]:5000", "udp", "53"),
            "\"[fd77::100]:53 by src-port\" is a service of its own: say with --to to which "
            "ADDRESS:PORT the packet goes\n");
  status["selector"] = "dst-addr";
  status["services"] = "";
  EXPECT_EQ(text("fd77::7", "udp", ""),
            "the block depends on the shared address that the packet goes to: give --to "
            "ADDRESS:PORT\n");
  EXPECT_EQ(text("fd77::7", "udp", "[fd77::ffff]:1").substr(0, 45),
            "fd77::7 udp to [fd77::ffff]:1 is block 15 (lo");
  // As nf_tables has it: tests/kernel/golden/packets.txt, selection 5.
  status["selector"] = "src-addr-port";
  status["seed"] = 0xfedcba98;
  EXPECT_EQ(text("203.0.113.255:61440", "udplite", ""),
            "203.0.113.255:61440 udplite is block 1 (hash of source address and port 4096-8191): "
            "n2\n");
}

TEST(OwnerText, WhatCannotBeAskedIsSaid) {
  EXPECT_EQ(block_of(*parse_client("192.0.2.7", ""), {}).error(),
            "the block depends on the client's port: give 192.0.2.7:PORT, or the protocol icmp");
  EXPECT_EQ(parse_client("192.0.2.7:1", "", "[fd77::1]:443").error(),
            "a packet from 192.0.2.7 cannot go to fd77::1");
  EXPECT_EQ(parse_client("192.0.2.7:99999", "").error(),
            "the port in \"192.0.2.7:99999\" is not a number to 65535");
  EXPECT_EQ(parse_client("web:80", "").error(), "\"web\" is not an IPv4 or IPv6 address");
  EXPECT_EQ(parse_client("192.0.2.7:1", "gre").error(),
            "protocol \"gre\" is not served; use tcp, udp, udplite, dccp, sctp, icmp or icmpv6");
  EXPECT_TRUE(parse_client("[fd77::7]:4711", "udp"));
}

TEST(OwnerText, AnUnownedBlockIsNoGoodAnswer) {
  json status = sixteen_blocks();
  status["owners"][1] = nullptr;
  EXPECT_FALSE(text_of_owner(status, *parse_client("192.0.2.7:5000", "")).good);
}

// ---- saructl check -----------------------------------------------------------------------------

BlockSet blocks(std::initializer_list<unsigned> list) {
  BlockSet set(16);
  for (const unsigned block : list) set.insert(BlockId{static_cast<std::uint16_t>(block)});
  return set;
}

AuditRound two_halves() {
  AuditRound round;
  round.blocks = 16;
  const ProcessId a{NodeId{1}, 10};
  const ProcessId b{NodeId{2}, 20};
  round.asked = {{a, "n1"}, {b, "n2"}};
  round.replies[a] = {0, blocks({0, 1, 2, 3, 4, 5, 6, 7}), true, true, "n1"};
  round.replies[b] = {0, blocks({8, 9, 10, 11, 12, 13, 14, 15}), true, true, "n2"};
  return round;
}

TEST(Check, EachBlockExactlyOnceIsGood) {
  const AuditRound round = two_halves();
  EXPECT_TRUE(round.complete());
  const Answer answer = text_of_check(describe(round, 3));
  EXPECT_EQ(answer.text, "each of 16 blocks is accepted by exactly one of 2 nodes\n");
  EXPECT_TRUE(answer.good);
}

TEST(Check, TwoOwnersAreNamed) {
  AuditRound round = two_halves();
  round.replies[{NodeId{2}, 20}].held.insert(BlockId{3});
  const Answer answer = text_of_check(describe(round, 3));
  EXPECT_EQ(answer.text, "block 3: owned by n1 and n2\n");
  EXPECT_FALSE(answer.good);
}

TEST(Check, AClosedKernelAcceptsNothing) {
  AuditRound round = two_halves();
  round.replies[{NodeId{2}, 20}].open = false;
  const Answer answer = text_of_check(describe(round, 3));
  EXPECT_EQ(answer.text, "8 blocks owned by nobody: 8-15\n");
  EXPECT_FALSE(answer.good);
}

TEST(Check, WhoDoesNotAnswerIsNamed) {
  AuditRound round = two_halves();
  round.replies.erase({NodeId{2}, 20});
  EXPECT_FALSE(round.complete());
  const Answer answer = text_of_check(describe(round, 2000));
  EXPECT_EQ(answer.text, "n2: did not answer within 2 s\n8 blocks owned by nobody: 8-15\n");
  EXPECT_FALSE(answer.good);
}

TEST(Check, ADisturbedKernelIsNamed) {
  AuditRound round = two_halves();
  round.replies[{NodeId{1}, 10}].intact = false;
  const Answer answer = text_of_check(describe(round, 3));
  EXPECT_EQ(answer.text, "n1: its kernel does not hold what sarud wrote; see its log\n");
  EXPECT_FALSE(answer.good);
}

// ---- From the core's state
// -----------------------------------------------------------------------

TEST(Report, AFreshNodeIsClosedAndSaysWhy) {
  Config config;
  config.node = NodeId{1};
  config.node_name = "n1";
  config.lease = std::chrono::milliseconds(1375);
  const State state(config);
  Surroundings around;
  EXPECT_EQ(state_word(state, around, {}), "closed: no rules in the kernel");
  around.gate_stands = true;
  EXPECT_EQ(state_word(state, around, {}), "closed: not in the group");
  const auto options = validate({{"ip", "10.77.0.100"}, {"nic", "eth0"}});
  const json status = describe(state, *options, around, {});
  EXPECT_EQ(status.at("owns"), 0);
  EXPECT_EQ(text_of_map(status, false),
            "saru 1: 512 blocks of 128 source ports, as n1 sees them\n\n"
            "  No table has been agreed yet. This node: closed: not in the group.\n");
  EXPECT_NE(text_of_status(status).find("none; NOT QUORATE"), std::string::npos);
}

}  // namespace
}  // namespace saru
