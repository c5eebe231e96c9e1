// SPDX-License-Identifier: GPL-2.0-or-later
// Whoever takes a block has its connections before; who does not know them yet gets none.
#include <gtest/gtest.h>

#include "tests/unit/core_cluster.h"

namespace saru {
namespace {

class CoreFlows : public testing::Test {
 protected:
  explicit CoreFlows(unsigned nodes = 3) : c(nodes) {
    for (std::uint32_t n = 1; n <= nodes; ++n) c.state(n).config.syncs = true;
  }
  unsigned all_owned() { return c.owned(1) + c.owned(2) + c.owned(3); }

  void start_synced() {
    c.start();
    for (std::uint32_t n = 1; n <= 3; ++n) c.feed(n, Synced{});
    c.run(milliseconds(500));
  }

  // n3 comes anew: it has missed what was said meanwhile.
  void restart_n3() {
    c.form(8, {1, 2});
    c.run(2 * kLease);
    c.state(3) = State(config_of(3, 3));
    c.state(3).config.syncs = true;
    c.feed(3, Joined{{c.process(3), 2003}});
    c.form(12, {1, 2, 3});
    c.run(milliseconds(500));
  }

  Cluster c;
};

TEST_F(CoreFlows, WhereNobodyKnowsMoreAllGetBlocks) {
  c.start();
  EXPECT_EQ(all_owned(), kBlockCount);
  for (std::uint32_t n = 1; n <= 3; ++n) EXPECT_FALSE(c.state(n).synced) << n;
  c.feed(2, Synced{});
  c.run(milliseconds(300));
  EXPECT_EQ(c.owned(2), kBlockCount) << "and to whoever knows more than others all";
  c.feed(1, Synced{});
  c.feed(3, Synced{});
  c.run(milliseconds(300));
  EXPECT_EQ(all_owned(), kBlockCount);
  EXPECT_GT(c.owned(1), 0U);
  EXPECT_GT(c.owned(3), 0U);
}

TEST_F(CoreFlows, NoBlockIsTakenBeforeItsConnectionsAreThere) {
  c.flows_answer = false;
  c.start();
  ASSERT_TRUE(c.said<PlaceFlows>(1));
  EXPECT_EQ(all_owned(), 0U) << "though the wait is over";
  const PlaceFlows flows = c.last<PlaceFlows>(1);
  BlockSet one(kBlockCount);
  one.insert(flows.blocks.first());
  c.feed(1, FlowsPlaced{flows.ticket, one});
  EXPECT_EQ(c.owned(1), 1U);
  c.feed(1, FlowsPlaced{flows.ticket, flows.blocks});
  EXPECT_EQ(c.owned(1), flows.blocks.size());
}

TEST_F(CoreFlows, TheyAreAskedForWhileTheWaitLasts) {
  for (std::uint32_t n = 1; n <= 3; ++n) c.feed(n, Joined{{c.process(n), 1000 + n}});
  c.form(4, {1, 2, 3});
  c.run(milliseconds(100));
  EXPECT_TRUE(c.said<PlaceFlows>(1));
  EXPECT_EQ(all_owned(), 0U);
}

TEST_F(CoreFlows, AnAnswerOfAnOlderViewDoesNotCount) {
  c.flows_answer = false;
  c.start();
  const PlaceFlows old = c.last<PlaceFlows>(1);
  c.form(8, {1, 2, 3});
  c.run(milliseconds(300));
  c.feed(1, FlowsPlaced{old.ticket, old.blocks});
  EXPECT_EQ(c.owned(1), 0U);
  const PlaceFlows now = c.last<PlaceFlows>(1);
  EXPECT_NE(now.ticket, old.ticket);
  c.feed(1, FlowsPlaced{now.ticket, now.blocks});
  EXPECT_EQ(c.owned(1), now.blocks.size());
}

TEST_F(CoreFlows, WhatAnotherGivesUpIsAskedForOnceItHas) {
  start_synced();
  c.flows_answer = false;
  c.feed(1, SetEligible{false, "drained"});
  c.run(milliseconds(300));
  EXPECT_EQ(c.owned(1), 0U);
  const PlaceFlows flows = c.last<PlaceFlows>(2);
  EXPECT_FALSE(flows.blocks.intersects(c.state(2).kernel.held));
  const unsigned before = c.owned(2);
  c.feed(2, FlowsPlaced{flows.ticket, flows.blocks});
  EXPECT_EQ(c.owned(2), before + flows.blocks.size());
}

TEST_F(CoreFlows, AJoinerGetsNothingUntilItKnowsWhatTheOthersKnow) {
  start_synced();
  restart_n3();
  EXPECT_FALSE(c.state(3).synced);
  EXPECT_EQ(c.owned(3), 0U);
  EXPECT_EQ(c.owned(1) + c.owned(2), kBlockCount);
  c.feed(3, Synced{});
  c.run(milliseconds(300));
  EXPECT_GT(c.owned(3), 0U);
  EXPECT_EQ(all_owned(), kBlockCount);
}

TEST_F(CoreFlows, WhereNobodyElseCanServeAJoinerDoes) {
  start_synced();
  restart_n3();
  c.feed(1, SetEligible{false, "drained"});
  c.feed(2, SetEligible{false, "drained"});
  c.run(milliseconds(500));
  EXPECT_EQ(c.owned(3), kBlockCount);
  EXPECT_FALSE(c.state(3).synced);
}

TEST_F(CoreFlows, WhoWasInNoQuorumHasMissedSomething) {
  start_synced();
  c.form(8, {1, 2});
  c.form(9, {3}, false);
  EXPECT_FALSE(c.state(3).synced);
  EXPECT_TRUE(c.state(1).synced);
}

TEST_F(CoreFlows, WithoutSynchronisationNothingIsAskedFor) {
  for (std::uint32_t n = 1; n <= 3; ++n) c.state(n).config.syncs = false;
  c.start();
  EXPECT_FALSE(c.said<PlaceFlows>(1));
  EXPECT_EQ(all_owned(), kBlockCount);
}

}  // namespace
}  // namespace saru
