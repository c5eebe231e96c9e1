// SPDX-License-Identifier: GPL-2.0-or-later
// When the resource agent calls a node degraded.
#include "agent/health.h"

#include <gtest/gtest.h>

namespace saru {
namespace {

using nlohmann::json;

json well() {
  return {
      {"state", "open"},     {"config", {{"next", nullptr}, {"waiting_for", json::array()}}},
      {"draining", false},   {"eligible", true},
      {"quorate", true},     {"weight", 1},
      {"owns", 171},         {"lease_ms", 4000},
      {"restored", nullptr}, {"view", {{"open", true}, {"confirmed", true}, {"age_ms", 60000}}}};
}

json but(const json& change) {
  json status = well();
  status.update(change);
  return status;
}

TEST(Health, NodeThatServesIsWell) { EXPECT_FALSE(find_shortcoming(well())); }

TEST(Health, NodeOfWeightZeroIsWell) {
  EXPECT_FALSE(find_shortcoming(but({{"weight", 0}, {"owns", 0}, {"state", "idle: weight 0"}})));
}

TEST(Health, AfterAStartANodeMayWaitForALease) {
  const auto served = [](int age_ms, const char* state) {
    return but({{"owns", 0}, {"age_ms", age_ms}, {"state", state}});
  };
  EXPECT_FALSE(find_shortcoming(served(7400, "idle: owns nothing yet")));
  EXPECT_TRUE(find_shortcoming(served(7401, "idle: owns nothing yet")));
  EXPECT_TRUE(find_shortcoming(served(7400, "closed: the lease ran out")));
}

TEST(Health, NodeWithoutCarrierIsDegradedAtOnce) {
  const auto found = find_shortcoming(
      but({{"eligible", false}, {"owns", 0}, {"state", "idle: carrier lost on eth0"}}));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->sentence, "takes no blocks: idle: carrier lost on eth0");
  EXPECT_FALSE(found->may_settle);
}

TEST(Health, DrainedNodeIsWell) {
  EXPECT_FALSE(find_shortcoming(
      but({{"draining", true}, {"eligible", false}, {"owns", 0}, {"state", "drained"}})));
}

TEST(Health, RepairIsRememberedForAMinute) {
  const auto repaired = [](int ms) {
    return but({{"restored", {{"ms_ago", ms}, {"what", "process 7 (nft) deleted table x"}}}});
  };
  const auto found = find_shortcoming(repaired(59000));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->sentence,
            "the kernel's rules or link had to be restored 59 s ago: "
            "process 7 (nft) deleted table x");
  EXPECT_FALSE(find_shortcoming(repaired(60001)));
}

TEST(Health, NewParametersMayTakeHalfAMinute) {
  const auto waits = [](int view_age_ms) {
    return but({{"config", {{"next", "12ab"}, {"waiting_for", {"n3"}}}},
                {"view", {{"open", true}, {"confirmed", true}, {"age_ms", view_age_ms}}}});
  };
  EXPECT_FALSE(find_shortcoming(waits(30000)));
  const auto found = find_shortcoming(waits(30001));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->sentence, "new parameters are not in force: these nodes do not have them: n3");
}

TEST(Health, WhatOnlyTheAdministratorCanPutRightIsAShortcoming) {
  const auto found = find_shortcoming(but({{"warnings", {"address 192.0.2.1 is also on eth0"}}}));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->sentence, "address 192.0.2.1 is also on eth0");
  EXPECT_FALSE(found->may_settle);
}

TEST(Health, WhatAStartShowsTooIsGivenTime) {
  for (const json& status : {but({{"quorate", false}, {"owns", 0}, {"state", "closed: no quorum"}}),
                             but({{"view", {{"open", true}, {"confirmed", false}, {"age_ms", 1}}}}),
                             but({{"owns", 0}, {"state", "closed: configured differently"}})}) {
    const auto found = find_shortcoming(status);
    ASSERT_TRUE(found) << status;
    EXPECT_TRUE(found->may_settle) << status;
    EXPECT_NE(found->sentence.find(status.at("state").get<std::string>()), std::string::npos);
  }
}

}  // namespace
}  // namespace saru
