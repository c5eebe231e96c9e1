// SPDX-License-Identifier: GPL-2.0-or-later
// The core's rules one by one, on a few members that hear each other at once. Histories with faults
// are the simulator's (tests/sim).
#include <gtest/gtest.h>

#include "tests/unit/core_cluster.h"

namespace saru {
namespace {

TEST(Owner, ThreeMembersShareAllBlocks) {
  Cluster c(3);
  c.start();
  EXPECT_EQ(c.owned(1) + c.owned(2) + c.owned(3), kBlockCount);
  EXPECT_TRUE((c.state(1).kernel.held & c.state(2).kernel.held).empty());
  EXPECT_GE(c.owned(3), 5U);
}

TEST(Owner, NobodysBlocksWaitUntilQuorumHasLastedALease) {
  Cluster c(3);
  for (std::uint32_t n : {1, 2, 3}) c.feed(n, Joined{{c.process(n), n}});
  c.form(4, {1, 2, 3});
  c.run(kLease);
  EXPECT_EQ(c.owned(1) + c.owned(2) + c.owned(3), 0U);
  c.run(milliseconds(100));
  EXPECT_EQ(c.owned(1) + c.owned(2) + c.owned(3), kBlockCount);
}

TEST(Owner, NonQuorateNodeOwnsNothing) {
  Cluster c(3);
  c.start();
  ASSERT_GT(c.owned(3), 0U);
  c.feed(3, QuorumChanged{{NodeId{3}, 8}, false, {NodeId{3}}, {}});
  EXPECT_EQ(c.owned(3), 0U);
  EXPECT_FALSE(c.writes(3).back().deadline);
  EXPECT_TRUE(c.logged(3, "quorum is lost"));
}

TEST(Lease, RunsOutWhenTheOthersAreNotHeard) {
  Cluster c(3);
  c.start();
  c.deaf = {1};  // its corosync hangs: no callback comes, its timer still fires
  c.run(kLease - milliseconds(150));
  EXPECT_GT(c.owned(1), 0U);
  c.run(milliseconds(200));
  EXPECT_EQ(c.owned(1), 0U);
  EXPECT_TRUE(c.logged(1, "the lease ran out"));
}

TEST(Lease, NeverReachesBeyondTheNewestReportedBeat) {
  Cluster c(3);
  c.start();
  for (const KernelWrite& write : c.writes(2)) {
    if (!write.deadline) continue;
    EXPECT_LE(write.deadline->raw, c.now + kLease);
  }
  const Nanos before = c.state(2).granted->raw;
  c.deaf = {1};  // no longer reports anybody's beats
  c.stopped = {1};
  c.run(milliseconds(300));
  EXPECT_LE(c.state(2).granted->raw, before + milliseconds(110));
}

TEST(Lease, GrowsOnlyWithQuorum) {
  Cluster c(3);
  c.start();
  c.state(1).quorum->quorate = false;
  const Nanos before = c.state(1).granted->raw;
  c.run(milliseconds(300));
  EXPECT_EQ(c.state(1).granted->raw, before);
}

// Corosync may have gone on without the process: only what is ordered later proves that it did not.
TEST(Lease, NobodysBlocksAreTakenByABeatSentAfterTheWait) {
  Cluster c(1);
  c.feed(1, Joined{{c.process(1), 1001}});
  c.form(4, {1});
  const Nanos free_at = c.state(1).view.free_at;
  c.run(free_at - c.now - milliseconds(20));
  c.deaf = {1};
  c.run(milliseconds(60));
  ASSERT_GT(c.now, free_at);
  ASSERT_GT(c.state(1).granted->raw, c.now);
  EXPECT_EQ(c.owned(1), 0U);
  EXPECT_GE(c.state(1).last_beat, free_at) << "it asks at once";
  c.deaf = {};
  c.run(kLease / 8);
  EXPECT_EQ(c.owned(1), kBlockCount);
}

TEST(Lease, BesideADeviceALapseStartsTheWaitForItsQuorumAnew) {
  for (const bool device : {false, true}) {
    Cluster c(2);
    const Nanos lag = device ? 2 * kLease : Nanos(0);
    c.state(1).config.device_lag = c.state(2).config.device_lag = lag;
    c.start();
    c.run(lag + kLease);
    ASSERT_EQ(c.owned(1) + c.owned(2), kBlockCount);
    for (int i = 0; i < 110; ++i) {  // nothing is delivered
      c.now += milliseconds(10);
      for (const std::uint32_t node : {1U, 2U}) c.feed(node, Tick{});
    }
    ASSERT_EQ(c.owned(1) + c.owned(2), 0U);
    c.deliver();
    c.run(kLease * 3 / 2);
    EXPECT_EQ(c.owned(1) + c.owned(2), device ? 0U : kBlockCount);
    c.run(lag + kLease / 2);
    EXPECT_EQ(c.owned(1) + c.owned(2), kBlockCount);
  }
}

// n1 comes to a ring with n2, where no sarud runs; n3 stays behind, unless the cluster has but two.
Nanos growth_on_a_ring_with(std::vector<NodeId> joined, bool third = true) {
  Cluster c(3);
  c.start();
  VotesChanged votes{{{NodeId{1}, 1}, {NodeId{2}, 1}}, 3, 2};
  if (third) votes.votes[NodeId{3}] = 1;
  c.feed(1, votes);
  const Nanos before = c.state(1).granted->raw;
  c.deaf = c.stopped = {2, 3};
  c.feed(1, GroupChanged{{c.process(1)}, {c.process(2), c.process(3)}, {}});
  c.feed(1, RingChanged{{NodeId{1}, 8}, {NodeId{1}, NodeId{2}}});
  c.feed(1, QuorumChanged{{NodeId{1}, 8}, true, {NodeId{1}, NodeId{2}}, std::move(joined)});
  c.run(kLease / 2);
  EXPECT_GT(c.owned(1), 0U);
  return c.state(1).granted->raw - before;
}

TEST(Lease, DoesNotGrowOnARingThatNoQuorumCameAlongToUnlessSomebodyVouches) {
  EXPECT_GT(growth_on_a_ring_with({}), kLease / 4);
  EXPECT_EQ(growth_on_a_ring_with({NodeId{2}}), Nanos(0));
}

// As when a quorum device had chosen n1, and n2 is back on the ring before its sarud runs.
TEST(Lease, GrowsOnARingThatHasEveryNode) {
  EXPECT_GT(growth_on_a_ring_with({NodeId{2}}, false), kLease / 4);
}

// Three nodes and two votes of a quorum device: two nodes are quorate with it, but not without.
TEST(Lease, GrowsOnARingThatADeviceMakesQuorateUnlessSomebodyJoined) {
  for (const bool joined : {false, true}) {
    Cluster c(3);
    c.start();
    c.feed(1, VotesChanged{{{NodeId{1}, 1}, {NodeId{2}, 1}, {NodeId{3}, 1}}, 3, 5});
    const Nanos before = c.state(1).granted->raw;
    c.deaf = c.stopped = {2, 3};
    c.feed(1, GroupChanged{{c.process(1)}, {c.process(2), c.process(3)}, {}});
    c.feed(1, RingChanged{{NodeId{1}, 8}, {NodeId{1}, NodeId{2}}});
    std::vector<NodeId> newcomers;
    if (joined) newcomers.push_back(NodeId{2});
    c.feed(1, QuorumChanged{{NodeId{1}, 8}, true, {NodeId{1}, NodeId{2}}, newcomers});
    c.run(kLease / 2);
    EXPECT_EQ(c.state(1).granted->raw > before, !joined);
    EXPECT_LT(c.owned(1), kBlockCount) << "its quorum is new: nobody's blocks wait";
  }
}

TEST(Exclusion, SilentMemberIsExcludedAndItsBlocksWaitForItsLease) {
  Cluster c(3);
  c.start();
  c.deaf = c.stopped = {3};
  c.run(milliseconds(800));
  EXPECT_TRUE(c.state(1).view.excluded.contains(c.process(3)));
  EXPECT_TRUE(c.state(2).view.excluded.contains(c.process(3)));
  EXPECT_LT(c.owned(1) + c.owned(2), kBlockCount);
  c.run(milliseconds(500));
  EXPECT_EQ(c.owned(1) + c.owned(2), kBlockCount);
}

TEST(Exclusion, WhoReadsThatItIsExcludedClosesAndComesBackUnderANewName) {
  Cluster c(3);
  c.start();
  Message message = make_message(c.state(1), Beat{99, kLease, c.now, {}});
  message.excluded = {c.state(3).me};
  c.feed(3, Received{c.process(1), message});
  EXPECT_EQ(c.owned(3), 0U);
  EXPECT_TRUE(c.said<Rejoin>(3));
}

TEST(Exclusion, BlocksOfSilentMembersWaitUntilAQuorumCountsOrTheyHaveLeftTheGroup) {
  Cluster c(3);
  c.start();
  c.deaf = c.stopped = {2, 3};
  c.run(milliseconds(5000));
  ASSERT_EQ(c.state(1).view.excluded.size(), 2u);
  // Its own close, too: what it granted itself those two would not hear of, and they are a quorum.
  EXPECT_EQ(c.owned(1), 0U);
  c.feed(1, GroupChanged{{c.process(1)}, {c.process(2), c.process(3)}, {}});
  c.run(milliseconds(5000));
  EXPECT_EQ(c.owned(1), kBlockCount);
}

TEST(Pause, BacklogIsNotActedOn) {
  Cluster c(3);
  c.start();
  c.now += kLease * 6 / 10;
  c.feed(2, Received{c.process(1), make_message(c.state(1), Released{c.state(1).holding, 0})});
  EXPECT_TRUE(c.said<Rejoin>(2));
  EXPECT_EQ(c.owned(2), 0U);
}

TEST(Release, IsSaidOnlyAfterTheKernelHasLetGo) {
  Cluster c(2);
  c.start();
  c.kernels_answer = false;
  c.feed(1, SetEligible{false, "drained"});
  c.deliver();
  bool early = false;
  for (const auto& [from, message] : c.order())
    early = early || std::holds_alternative<Released>(message.body);
  EXPECT_FALSE(early);
  EXPECT_EQ(c.owned(2), kBlockCount / 2);  // the winner waits
  ASSERT_TRUE(c.state(1).kernel.in_flight);
  c.kernels_answer = true;
  for (const std::uint32_t node : {1U, 2U}) {  // 2 may have been renewing
    const KernelWrite write = c.writes(node).back();
    c.feed(node, KernelDone{write.seq, true, write.accepting, ""});
  }
  c.run(milliseconds(50));
  EXPECT_EQ(c.owned(1), 0U);
  EXPECT_EQ(c.owned(2), kBlockCount);
}

TEST(Stop, HandsOverBeforeItLeaves) {
  Cluster c(3);
  c.start();
  c.feed(3, StopRequested{});
  c.run(milliseconds(50));
  EXPECT_TRUE(c.said<Left>(3));
  EXPECT_EQ(c.owned(1) + c.owned(2), kBlockCount);
  EXPECT_FALSE(c.logged(1, " ms; no quorum"));
}

TEST(Stop, LastMemberStopsAtOnce) {
  Cluster c(1);
  c.start();
  EXPECT_EQ(c.owned(1), kBlockCount);
  c.feed(1, StopRequested{});
  c.run(milliseconds(30));
  EXPECT_TRUE(c.said<Left>(1));
  EXPECT_EQ(c.owned(1), 0U);
}

TEST(Kernel, RefusedWriteClosesTheNode) {
  Cluster c(2);
  c.start();
  c.kernels_work = false;
  c.run(milliseconds(200));
  EXPECT_TRUE(c.state(1).holding.empty());
  EXPECT_TRUE(c.logged(1, "the kernel refused a change (Operation not permitted)"));
}

TEST(Config, MemberWithAnotherConfigurationOwnsNothingAndSaysWhy) {
  Cluster c(3);
  c.start();
  c.feed(3, Disconnected{});
  EXPECT_EQ(c.owned(3), 0U);
  c.state(3).config.config_hash = 1;
  c.feed(3, Joined{{c.process(3), 77}});
  c.form(8, {1, 2, 3});
  c.run(milliseconds(2500));
  EXPECT_EQ(c.owned(3), 0U);
  EXPECT_EQ(c.owned(1) + c.owned(2), kBlockCount);
  EXPECT_TRUE(c.logged(3, "configuration differs"));
}

Reconfigure to(std::uint64_t hash, bool keeps_blocks, unsigned blocks = kBlockCount) {
  return {hash, blocks, kLease, keeps_blocks};
}

TEST(Config, TheNextOneWaitsUntilAllMembersWantIt) {
  Cluster c(3);
  c.start();
  c.feed(1, to(8, true));
  c.feed(2, to(8, true));
  c.run(milliseconds(300));
  for (std::uint32_t n : {1, 2, 3}) {
    EXPECT_EQ(c.state(n).config.config_hash, 7u);
    EXPECT_GE(c.owned(n), kBlockCount / 3);
  }
  c.feed(3, to(8, true));
  c.run(milliseconds(300));
  for (std::uint32_t n : {1, 2, 3}) EXPECT_EQ(c.state(n).config.config_hash, 8u);
}

TEST(Config, ThatKeepsTheBlocksIsSwitchedToWithoutReleasingAny) {
  Cluster c(3);
  c.start();
  const unsigned before = c.owned(1);
  const auto writes = c.writes(1).size();
  for (std::uint32_t n : {1, 2, 3}) c.feed(n, to(8, true));
  c.run(milliseconds(300));
  ASSERT_EQ(c.state(1).config.config_hash, 8u);
  unsigned under_new = 0;
  for (std::size_t i = writes; i < c.writes(1).size(); ++i) {
    EXPECT_EQ(c.writes(1)[i].accepting.owned.size(), before);
    under_new += c.writes(1)[i].config == 8u ? 1 : 0;
  }
  EXPECT_EQ(under_new, 1u);
}

// The others wait for the shorter one alone once all have switched.
TEST(Config, WithAShorterLeaseShortensWhatWasGranted) {
  Cluster c(3);
  c.start();
  const Nanos shorter = kLease / 5;
  for (std::uint32_t n : {1, 2, 3}) c.feed(n, Reconfigure{8, kBlockCount, shorter, true});
  unsigned seen = 0;
  for (int i = 0; i < 30; ++i) {
    c.run(milliseconds(10));
    for (std::uint32_t n : {1, 2, 3}) {
      if (c.state(n).config.config_hash != 8u) continue;
      ASSERT_TRUE(c.state(n).kernel.deadline);
      EXPECT_LE(c.state(n).kernel.deadline->raw, c.now + shorter) << n << " after " << i;
      ++seen;
    }
  }
  EXPECT_GE(seen, 60u);
}

TEST(Config, WithOtherBlocksIsSwitchedToOnlyWhenNothingIsHeld) {
  Cluster c(3);
  c.start();
  for (std::uint32_t n : {1, 2, 3}) c.feed(n, to(8, false, 64));
  c.run(milliseconds(300));
  unsigned all = 0;
  for (std::uint32_t n : {1, 2, 3}) {
    for (const KernelWrite& write : c.writes(n)) {
      EXPECT_TRUE(!write.config || write.accepting.owned.empty());
    }
    EXPECT_EQ(c.state(n).config.blocks, 64u);
    all += c.owned(n);
  }
  EXPECT_EQ(all, 64u);
}

TEST(Config, RefusedByTheKernelIsGivenUpUntilAskedForAgain) {
  Cluster c(3);
  c.start();
  for (std::uint32_t n : {1, 2}) c.feed(n, to(8, true));
  c.kernels_work = false;
  c.feed(3, to(8, true));
  c.run(milliseconds(50));
  c.kernels_work = true;
  c.run(milliseconds(7000));
  EXPECT_FALSE(c.state(3).next);
  EXPECT_EQ(c.state(3).config.config_hash, 7u);
}

TEST(Config, OfDrainedHoldersGivesWayToOneThatServes) {
  Cluster c(2);
  c.state(2).config.config_hash = 9;
  c.state(2).config.weight = 0;
  c.start();
  ASSERT_EQ(c.owned(1), kBlockCount);
  c.feed(2, SetWeight{1});
  c.run(milliseconds(300));
  EXPECT_EQ(c.owned(2), 0u);
  c.feed(1, SetEligible{false, "drained"});
  c.run(milliseconds(300));
  EXPECT_EQ(c.owned(1), 0u);
  EXPECT_EQ(c.owned(2), kBlockCount);
}

TEST(Quorum, LastsThroughARingChangeOnlyAmongNodesThatWereKnown) {
  const auto known_nodes =
      std::map<NodeId, unsigned>{{NodeId{1}, 1}, {NodeId{2}, 1}, {NodeId{3}, 1}};
  for (const std::uint32_t third : {3U, 4U}) {
    Cluster c(3);
    c.state(1).config.votes = known_nodes;
    c.start();
    const Nanos since = *c.state(1).quorate_since;
    c.now += milliseconds(10);
    c.feed(1, QuorumChanged{{NodeId{1}, 8}, true, {NodeId{1}, NodeId{2}, NodeId{third}}, {}});
    EXPECT_EQ(*c.state(1).quorate_since == since, third == 3) << third;
  }
}

// Whoever it is may own blocks, and beats that we could have heard.
TEST(Quorum, CountsAnewAfterEveryMessageThatIsNotUnderstood) {
  Cluster c(3);
  c.start();
  const auto since = c.state(1).quorate_since;
  ASSERT_TRUE(since && *since < c.now);
  c.feed(1, NotUnderstood{c.process(1)});  // our own say nothing new
  EXPECT_EQ(c.state(1).quorate_since, since);
  c.feed(1, NotUnderstood{c.process(2)});
  EXPECT_EQ(c.state(1).quorate_since, c.now);
}

TEST(Quorum, CountsAnewWhenTheVotesChange) {
  Cluster c(3);
  c.start();
  c.now += milliseconds(10);
  c.feed(1, VotesChanged{{{NodeId{1}, 1}, {NodeId{2}, 1}}, 3, 5});
  EXPECT_EQ(*c.state(1).quorate_since, c.now);
  EXPECT_EQ(c.state(1).config.quorum_votes, 3u);
}

// Such as auto_tie_breaker, or two_node that has just been switched on.
TEST(Quorum, WithoutItsVotesNobodysBlocksAreTaken) {
  for (const bool decide : {true, false}) {
    Cluster c(4);
    c.start();
    for (const std::uint32_t node : {1U, 2U}) c.state(node).config.votes_decide = decide;
    c.stopped = {3, 4};
    c.form(8, {1, 2});
    c.run(3 * kLease);
    EXPECT_EQ(c.owned(1) + c.owned(2), decide ? kBlockCount / 2 : kBlockCount);
    EXPECT_EQ(c.logged(1, "these nodes have not its votes"), decide);
    c.feed(1, VotesChanged{{{NodeId{1}, 1}, {NodeId{2}, 1}}, 2, 2});
    c.feed(2, VotesChanged{{{NodeId{1}, 1}, {NodeId{2}, 1}}, 2, 2});
    c.run(3 * kLease);
    EXPECT_EQ(c.owned(1) + c.owned(2), kBlockCount);
  }
}

TEST(Membership, MoreThanCpgsLimitIsRefusedByName) {
  Cluster c(1);
  c.start();
  std::vector<ProcessId> many;
  for (std::uint32_t n = 1; n <= kMaxMembers + 1; ++n) many.push_back(c.process(n));
  c.feed(1, GroupChanged{many, {}, {}});
  EXPECT_EQ(c.owned(1), 0U);
  EXPECT_TRUE(c.logged(1, "129 members; saru (as CPG) serves at most 128"));
}

TEST(Membership, DifferentGroupsOnOneRingFreezeTheView) {
  Cluster c(3);
  c.start();
  Message stranger = make_message(c.state(1), Released{BlockSet(kBlockCount), 0});
  stranger.sender = {{NodeId{9}, 9}, 9};
  c.feed(1, Received{{NodeId{9}, 9}, stranger});
  EXPECT_TRUE(c.state(1).view.frozen);
  EXPECT_TRUE(c.logged(1, "different members on one ring"));
}

}  // namespace
}  // namespace saru
