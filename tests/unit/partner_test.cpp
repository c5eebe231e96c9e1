// SPDX-License-Identifier: GPL-2.0-or-later
// Two nodes that can both be quorate alone: when does one take the other's blocks?
#include <gtest/gtest.h>

#include "tests/unit/core_cluster.h"

namespace saru {
namespace {

// n1 and n2, of which n2 goes away without a word.
class Partner : public testing::Test {
 protected:
  Partner() {
    for (const std::uint32_t node : {1, 2}) {
      c.state(node).config.quorum_votes = 1;
      c.state(node).config.partner = NodeId{3 - node};
      c.state(node).config.votes = {{NodeId{1}, 1}, {NodeId{2}, 1}};
    }
    c.start();
  }

  void part() {
    c.deaf = c.stopped = {2};
    c.feed(1, GroupChanged{{c.process(1)}, {c.process(2)}, {}});
    c.feed(1, RingChanged{kAlone, {NodeId{1}}});
    c.feed(1, QuorumChanged{kAlone, true, {NodeId{1}}, {}});
    c.run(kLease / 10);
  }

  void join_alone(RingId ring, std::uint64_t nonce) {
    c.feed(1, Joined{{c.process(1), nonce}});
    c.feed(1, GroupChanged{{c.process(1)}, {}, {c.process(1)}});
    c.feed(1, RingChanged{ring, {NodeId{1}}});
  }

  // n1's next process.
  void start_another(const Config& config, RingId ring) {
    c.state(1) = State(config);
    join_alone(ring, 9);
  }

  bool took_all() { return c.owned(1) == kBlockCount; }

  static constexpr RingId kAlone{NodeId{1}, 8};
  Cluster c{2};
};

TEST_F(Partner, WhoIsPartedGoesOnServingItsOwnBlocksAndTakesNone) {
  part();
  c.run(20 * kLease);
  EXPECT_EQ(c.owned(1), kBlockCount / 2);
  EXPECT_TRUE(partner_may_hold(c.state(1)));
}

TEST_F(Partner, WhoHasFencedTakesTheBlocksAtOnce) {
  part();
  c.feed(1, Fenced{NodeId{2}, c.now, false});
  c.run(milliseconds(20));
  EXPECT_TRUE(took_all());
}

TEST_F(Partner, AFencingFromBeforeTheyMetDoesNotCount) {
  const Nanos before = c.state(1).partner.met.value();
  part();
  c.feed(1, Fenced{NodeId{2}, before, false});
  c.feed(1, Fenced{NodeId{2}, c.now, true});  // they have met, so it was never alone
  c.run(20 * kLease);
  EXPECT_FALSE(took_all());
  EXPECT_TRUE(c.logged(1, "does not count"));
}

TEST_F(Partner, AFencingToldBeforeCorosyncNoticesCountsOnceItDoes) {
  c.feed(1, Fenced{NodeId{2}, c.now, false});
  c.run(milliseconds(20));
  EXPECT_FALSE(c.state(1).partner.closed);
  part();
  EXPECT_TRUE(took_all());
}

TEST_F(Partner, WhoLeavesInOrderNeedNotBeFenced) {
  c.feed(2, StopRequested{});
  c.run(2 * kLease);
  EXPECT_TRUE(took_all());
}

TEST_F(Partner, WhoIsOnTheRingWithoutSarudIsClosedAfterALease) {
  c.deaf = c.stopped = {2};
  c.feed(1, GroupChanged{{c.process(1)}, {c.process(2)}, {}});
  c.run(kLease * 9 / 10);
  EXPECT_FALSE(took_all());
  c.run(kLease * 2 / 10);
  EXPECT_TRUE(took_all());
}

TEST_F(Partner, TheAdministratorsWordCountsUnlessCorosyncSeesTheNode) {
  c.feed(1, ConfirmedDead{NodeId{2}});
  EXPECT_FALSE(c.state(1).partner.closed);
  part();
  c.feed(1, ConfirmedDead{NodeId{2}});
  c.run(milliseconds(20));
  EXPECT_TRUE(took_all());
}

// A new name in the group, on a ring where the partner may have been in between.
TEST_F(Partner, WhatIsKnownEndsWithTheNextJoinUnlessTheRingIsTheSame) {
  part();
  c.feed(1, Fenced{NodeId{2}, c.now, false});
  c.run(milliseconds(20));
  ASSERT_EQ(closed_on(c.state(1)), kAlone);
  const auto join_on = [this](RingId ring, std::uint64_t nonce) {
    join_alone(ring, nonce);
    return c.state(1).partner.closed;
  };
  EXPECT_TRUE(join_on(kAlone, 2001));
  EXPECT_FALSE(join_on({NodeId{1}, 16}, 2002));
  EXPECT_FALSE(join_on({NodeId{1}, 16}, 2003));
}

// We were away while it was told; on the same ring, alone, nobody can have seen that.
TEST_F(Partner, AFencingToldWhileWeAreAwayCountsOnTheSameRing) {
  part();
  const auto come_back_on = [this](RingId ring, std::uint64_t nonce) {
    c.run(milliseconds(20));
    c.state(1).phase = Phase::kOut;
    c.feed(1, Fenced{NodeId{2}, c.now, false});
    c.run(milliseconds(20));
    join_alone(ring, nonce);
    return c.state(1).partner.closed;
  };
  EXPECT_FALSE(come_back_on({NodeId{1}, 16}, 2001));
  EXPECT_TRUE(come_back_on({NodeId{1}, 16}, 2002));
}

TEST_F(Partner, WhoGoesOnSpeakingWasNotFenced) {
  c.feed(1, Fenced{NodeId{2}, c.now, false});
  EXPECT_TRUE(c.state(1).partner.fenced);
  c.run(2 * kLease);
  EXPECT_FALSE(c.state(1).partner.fenced);
  part();
  c.run(2 * kLease);
  EXPECT_FALSE(took_all());
}

TEST_F(Partner, TheNextProcessOnTheSameRingNeedNotBeTold) {
  Config config = config_of(1, 2);
  config.partner = NodeId{2};
  config.partner_closed = kAlone;
  for (const RingId ring : {kAlone, RingId{NodeId{1}, 16}}) {
    start_another(config, ring);
    EXPECT_EQ(c.state(1).partner.closed, ring == kAlone);
  }
}

// No other node has been on a ring with this one since its corosync began: what its fencer did
// before sarud began counts.
TEST_F(Partner, WhoWasAloneMayBelieveAnOlderFencing) {
  Config config = config_of(1, 2);
  config.partner = NodeId{2};
  start_another(config, kAlone);
  c.feed(1, Fenced{NodeId{2}, Nanos(0), false});
  EXPECT_FALSE(c.state(1).partner.closed);
  c.feed(1, Fenced{NodeId{2}, c.now, true});  // said before this ring was told
  EXPECT_FALSE(c.state(1).partner.closed);
  c.run(milliseconds(1));
  c.feed(1, Fenced{NodeId{2}, c.now, true});
  EXPECT_TRUE(c.state(1).partner.closed);
}

// Told while sarud was out of the group: who has been on a ring with this node meanwhile, and is
// not on the next one, may hold everything.
TEST_F(Partner, HavingBeenAloneIsNotBelievedAtALaterRing) {
  Config config = config_of(1, 2);
  config.partner = NodeId{2};
  c.state(1) = State(config);
  c.feed(1, Fenced{NodeId{2}, c.now, true});
  c.run(20 * kLease);
  join_alone(kAlone, 9);
  c.run(milliseconds(1));
  EXPECT_FALSE(c.state(1).partner.closed);
}

}  // namespace
}  // namespace saru
