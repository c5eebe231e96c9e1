// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: what the answers of three nodes say of the switch, seen from n1.
#include "agent/doctor_switch.h"

#include <gtest/gtest.h>

namespace saru {
namespace {

const MacAddress kShared = *MacAddress::parse("02:5a:72:00:00:01");
const MacAddress kTwo = *MacAddress::parse("02:77:00:00:00:02");
const MacAddress kThree = *MacAddress::parse("02:77:00:00:00:03");
const MacAddress kStranger = *MacAddress::parse("02:77:00:00:00:09");

SwitchSight well() {
  SwitchSight sight;
  sight.nic = "eth0";
  sight.shared_mac = kShared;
  sight.address = "10.77.0.100";
  sight.expected = 2;
  sight.names = {{kTwo, "n2"}, {kThree, "n3"}};
  sight.answers.flooded = sight.answers.broadcast = {kTwo, kThree};
  sight.answers.unknown = sight.answers.inward = {kTwo, kThree};
  sight.answers.asked_inward = {kTwo, kThree};
  sight.answers.asked_unknown = true;
  return sight;
}

// The checks that are not well, with what was found.
std::map<std::string, std::string> troubles(const SwitchSight& sight) {
  std::map<std::string, std::string> found;
  for (const Finding& one : judge_switch(sight)) {
    EXPECT_EQ(one.level == Level::kOk, one.remedy.empty()) << one.found;
    if (one.level != Level::kOk) found[one.check] += one.found;
  }
  return found;
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(DoctorSwitch, FloodingSwitchIsWell) { EXPECT_TRUE(troubles(well()).empty()); }

TEST(DoctorSwitch, AloneThereIsNothingToAsk) {
  SwitchSight sight = well();
  sight.expected = 0;
  sight.answers = {};
  EXPECT_TRUE(troubles(sight).empty());
}

TEST(DoctorSwitch, MacLearnedAtAnotherNode) {
  SwitchSight sight = well();
  sight.answers.flooded = {kTwo};
  sight.answers.inward = {};
  const auto found = troubles(sight);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(says(found.at("switch"), "n2 (02:77:00:00:00:02) alone")) << found.at("switch");
  EXPECT_FALSE(says(found.at("switch"), "does not flood")) << found.at("switch");
  // Where no own address of the others is known, it could be both.
  sight.answers.asked_inward = {};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "does not flood it to n3"));
}

TEST(DoctorSwitch, OfTwoNodesMacLearnedAtTheOther) {
  SwitchSight sight = well();
  sight.expected = 1;
  sight.names = {{kTwo, "n2"}};
  sight.answers.flooded = sight.answers.broadcast = sight.answers.unknown = {kTwo};
  sight.answers.asked_inward = {kTwo};
  sight.answers.inward = {};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "pinned the address at another port"));
  sight.answers.inward = {kTwo};
  EXPECT_TRUE(troubles(sight).empty());
}

TEST(DoctorSwitch, MacLearnedAtThisNode) {
  SwitchSight sight = well();
  sight.answers.flooded = {};
  const auto found = troubles(sight);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(says(found.at("switch"), "at this node's port")) << found.at("switch");
}

TEST(DoctorSwitch, MacLearnedElsewhere) {
  SwitchSight sight = well();
  sight.answers.flooded = sight.answers.inward = {};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "a port of none of the nodes"));
}

TEST(DoctorSwitch, NothingIsFlooded) {
  SwitchSight sight = well();
  sight.answers.flooded = sight.answers.inward = sight.answers.unknown = {};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "suppresses unknown unicast"));
}

TEST(DoctorSwitch, OnePortIsNotFlooded) {
  SwitchSight sight = well();
  sight.answers.flooded = {kTwo};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "do not reach n3"));
}

TEST(DoctorSwitch, ThisPortIsNotFlooded) {
  SwitchSight sight = well();
  sight.answers.inward = sight.answers.unknown = {};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "do not come in at eth0"));
  // Packets of clients do come in: then it is the question that does not get out.
  sight.answers.heard_to_shared = true;
  EXPECT_TRUE(says(troubles(sight).at("arp"), "inspects ARP at this node's port"));
}

TEST(DoctorSwitch, ArpWithTheSharedMacDoesNotGetOut) {
  SwitchSight sight = well();
  sight.answers.inward = {};
  const auto found = troubles(sight);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(says(found.at("arp"), "inspects ARP at this node's port"));
}

TEST(DoctorSwitch, FramesOfOneNodeDoNotComeIn) {
  SwitchSight sight = well();
  sight.answers.unknown = {kTwo};
  EXPECT_TRUE(says(troubles(sight).at("switch"), "frames of n3"));
}

TEST(DoctorSwitch, NodeWhoseArpDoesNotComeThrough) {
  SwitchSight sight = well();
  sight.answers.flooded = sight.answers.broadcast = sight.answers.unknown = {kTwo};
  sight.answers.asked_inward = sight.answers.inward = {kTwo};
  const auto found = troubles(sight);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(says(found.at("arp"), "silent: n3")) << found.at("arp");
}

TEST(DoctorSwitch, NobodyAnswers) {
  SwitchSight sight = well();
  sight.answers = {};
  sight.answers.asked_unknown = true;
  const auto found = troubles(sight);
  EXPECT_EQ(found.count("arp"), 1U);
  EXPECT_EQ(found.count("switch"), 1U);
}

TEST(DoctorSwitch, Ipv6CannotAskForFramesInward) {
  SwitchSight sight = well();
  sight.answers.asked_unknown = false;
  sight.answers.asked_inward = sight.answers.inward = sight.answers.unknown = {};
  EXPECT_TRUE(troubles(sight).empty());
  sight.answers.flooded = {};
  EXPECT_EQ(troubles(sight).count("switch"), 1U);
}

TEST(DoctorSwitch, SomebodySendsFromTheSharedMac) {
  SwitchSight sight = well();
  sight.answers.types_from_shared = {0x8035};
  EXPECT_TRUE(says(troubles(sight).at("mac"), "RARP"));
  sight.answers.types_from_shared = {0x88cc};
  EXPECT_TRUE(says(troubles(sight).at("mac"), "0x88cc"));
}

TEST(DoctorSwitch, SomebodyClaimsTheAddress) {
  SwitchSight sight = well();
  sight.answers.claimants = {kStranger};
  EXPECT_TRUE(says(troubles(sight).at("address"), "02:77:00:00:00:09"));
}

}  // namespace
}  // namespace saru
