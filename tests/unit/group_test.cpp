// SPDX-License-Identifier: GPL-2.0-or-later
// The parts of the corosync adapters that decide something: the queue of outgoing messages, and
// what libquorum's callbacks amount to. The adapters themselves meet a real corosync in
// group_live_test.
#include <gtest/gtest.h>

#include <vector>

#include "agent/core/rng.h"
#include "cpg/outbox.h"
#include "cpg/quorum_merge.h"
#include "cpg/wire.h"

namespace saru {
namespace {

using Bytes = std::vector<std::byte>;

Message message(Body body, std::uint32_t round = 1) {
  return {
      .sender = {}, .view = {.ring = {}, .round = round}, .excluded = {}, .body = std::move(body)};
}
Message beat(std::uint64_t n, std::uint32_t round = 1) {
  return message(Beat{.n = n, .lease = {}, .t_send = {}, .reports = {}}, round);
}
Message audit(std::uint64_t token) { return message(Audit{.token = token}); }
Bytes bytes_of(const Message& message) { return encode(1, message); }

Outbox::Queued push(Outbox& box, const Message& message) {
  return box.push(message, bytes_of(message));
}
// What corosync would be given now.
std::vector<Bytes> take_all(Outbox& box) {
  std::vector<Bytes> taken;
  while (box.next() != nullptr) {
    taken.push_back(*box.next());
    box.sent();
  }
  return taken;
}

TEST(Outbox, KeepsTheOrder) {
  Outbox box(100, 100);
  std::vector<Bytes> expected;
  for (std::uint64_t token = 0; token < 100; ++token) {
    EXPECT_EQ(push(box, audit(token)), Outbox::Queued::kYes);
    expected.push_back(bytes_of(audit(token)));
  }
  EXPECT_EQ(take_all(box), expected);
}

TEST(Outbox, GivesNoMoreThanMayBeOnTheWay) {
  Outbox box(100, 3);
  for (std::uint64_t token = 0; token < 5; ++token)
    EXPECT_EQ(push(box, audit(token)), Outbox::Queued::kYes);
  EXPECT_EQ(take_all(box).size(), 3u);
  EXPECT_EQ(box.in_flight(), 3u);
  EXPECT_EQ(box.came_back(bytes_of(audit(0))), 0u);
  EXPECT_EQ(take_all(box), std::vector<Bytes>{bytes_of(audit(3))});
  EXPECT_EQ(box.queued(), 1u);
}

TEST(Outbox, RefusesWhenFullAndThenTakesAgain) {
  Outbox box(2, 1);
  EXPECT_EQ(push(box, audit(1)), Outbox::Queued::kYes);
  EXPECT_EQ(push(box, audit(2)), Outbox::Queued::kYes);
  EXPECT_EQ(push(box, audit(3)), Outbox::Queued::kFull);
  EXPECT_EQ(box.queued(), 2u);
  box.sent();
  EXPECT_EQ(push(box, audit(4)), Outbox::Queued::kYes);
}

// A queue full of other messages keeps room for the newest beat only if it holds an older one.
TEST(Outbox, ANewerBeatReplacesOneThatWaitsAndGoesToTheEnd) {
  Outbox box(2, 10);
  EXPECT_EQ(push(box, beat(1)), Outbox::Queued::kYes);
  EXPECT_EQ(push(box, audit(1)), Outbox::Queued::kYes);
  EXPECT_EQ(push(box, beat(2)), Outbox::Queued::kInPlaceOfABeat);
  EXPECT_EQ(take_all(box), (std::vector<Bytes>{bytes_of(audit(1)), bytes_of(beat(2))}));
}

TEST(Outbox, ABeatOfAnotherViewIsNotReplaced) {
  Outbox box(10, 10);
  EXPECT_EQ(push(box, beat(1, 1)), Outbox::Queued::kYes);
  EXPECT_EQ(push(box, beat(2, 2)), Outbox::Queued::kYes);
  EXPECT_EQ(box.queued(), 2u);
}

TEST(Outbox, ABeatThatIsOnItsWayIsNotReplaced) {
  Outbox box(10, 10);
  EXPECT_EQ(push(box, beat(1)), Outbox::Queued::kYes);
  box.sent();
  EXPECT_EQ(push(box, beat(2)), Outbox::Queued::kYes);
  EXPECT_EQ(box.in_flight(), 1u);
  EXPECT_EQ(box.queued(), 1u);
}

// Corosync has lost messages at rejoins (corosync#660): the count must not stay wrong for good.
TEST(Outbox, MessagesThatNeverComeBackAreCountedAsLostWhenALaterOneDoes) {
  Outbox box(10, 4);
  for (std::uint64_t token = 0; token < 6; ++token)
    EXPECT_EQ(push(box, audit(token)), Outbox::Queued::kYes);
  take_all(box);
  EXPECT_EQ(box.came_back(bytes_of(audit(2))), 2u);
  EXPECT_EQ(box.in_flight(), 1u);
  EXPECT_EQ(take_all(box).size(), 2u);
}

TEST(Outbox, WhatWasNeverSentChangesNothingWhenItComesBack) {
  Outbox box(10, 4);
  EXPECT_EQ(push(box, audit(1)), Outbox::Queued::kYes);
  box.sent();
  EXPECT_EQ(box.came_back(bytes_of(audit(9))), 0u);
  EXPECT_EQ(box.came_back({}), 0u);
  EXPECT_EQ(box.in_flight(), 1u);
}

TEST(Outbox, EqualMessagesComeBackOneByOne) {
  Outbox box(10, 4);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(push(box, message(Leave{})), Outbox::Queued::kYes);
  take_all(box);
  for (std::size_t left = 3; left > 0; --left) {
    EXPECT_EQ(box.in_flight(), left);
    EXPECT_EQ(box.came_back(bytes_of(message(Leave{}))), 0u);
  }
  EXPECT_EQ(box.in_flight(), 0u);
}

// Thousands of random histories: bounds hold, and what is neither refused nor replaced goes out
// once, in the order in which it was pushed.
TEST(Outbox, HoldsItsBoundsInRandomHistories) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    SplitMix64 random(seed);
    const std::size_t queued_max = 1 + random.below(8);
    const std::size_t in_flight_max = 1 + random.below(4);
    Outbox box(queued_max, in_flight_max);
    std::vector<Bytes> accepted;
    std::vector<Bytes> sent;
    std::size_t back = 0;
    for (std::uint64_t i = 1; i < 100; ++i) {
      if (random.below(2) == 0) {
        const Message next = audit(i);
        const bool full = box.queued() == queued_max;
        const bool taken = push(box, next) != Outbox::Queued::kFull;
        ASSERT_NE(taken, full);
        if (taken) accepted.push_back(bytes_of(next));
      } else if (random.below(2) == 0 && box.next() != nullptr) {
        sent.push_back(*box.next());
        box.sent();
      } else if (back < sent.size()) {
        ASSERT_EQ(box.came_back(sent[back++]), 0u);
      }
      ASSERT_LE(box.queued(), queued_max);
      ASSERT_LE(box.in_flight(), in_flight_max);
      ASSERT_EQ(box.in_flight(), sent.size() - back);
    }
    accepted.resize(sent.size());
    ASSERT_EQ(sent, accepted) << "seed " << seed;
  }
}

// ---- Quorum ------------------------------------------------------------------------------------

using Nodes = std::vector<NodeId>;

constexpr NodeId kN1{1}, kN2{2}, kN3{3};
RingId ring(std::uint64_t seq, NodeId representative = kN1) { return {representative, seq}; }

// A merge that has given its first event, for ring 1 with all three nodes.
QuorumMerge running() {
  QuorumMerge merge(kN1);
  EXPECT_FALSE(merge.nodelist(ring(1), {kN1, kN2, kN3}, {}, {}).has_value());
  EXPECT_TRUE(merge.quorum(ring(1), true).has_value());
  return merge;
}

TEST(QuorumMerge, TheFirstEventKnowsOfNobodyThatItCameAlong) {
  QuorumMerge merge(kN2);
  EXPECT_FALSE(merge.nodelist(ring(4), {kN3, kN1, kN2}, {}, {}).has_value());
  const auto event = merge.quorum(ring(4), true);
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->ring, ring(4));
  EXPECT_TRUE(event->quorate);
  EXPECT_EQ(event->members, (Nodes{kN1, kN2, kN3}));
  EXPECT_EQ(event->joined, (Nodes{kN1, kN3}));
}

TEST(QuorumMerge, EitherCallbackMayComeFirst) {
  QuorumMerge merge = running();
  EXPECT_FALSE(merge.quorum(ring(2), true).has_value());
  const auto event = merge.nodelist(ring(2), {kN1, kN2}, {}, {kN3});
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->members, (Nodes{kN1, kN2}));
  EXPECT_EQ(event->joined, Nodes{});
}

TEST(QuorumMerge, AVerdictOfAnotherRingIsNotGiven) {
  QuorumMerge merge = running();
  EXPECT_FALSE(merge.nodelist(ring(2), {kN1}, {}, {kN2, kN3}).has_value());
  EXPECT_FALSE(merge.quorum(ring(2, kN2), true).has_value());
  const auto event = merge.quorum(ring(2), false);
  ASSERT_TRUE(event.has_value());
  EXPECT_FALSE(event->quorate);
}

TEST(QuorumMerge, QuorumThatComesOrGoesInsideOneRingIsGiven) {
  QuorumMerge merge = running();
  const auto event = merge.quorum(ring(1), false);
  ASSERT_TRUE(event.has_value());
  EXPECT_FALSE(event->quorate);
  EXPECT_EQ(event->joined, Nodes{});
}

TEST(QuorumMerge, ANodelistAloneGivesNothing) {
  QuorumMerge merge = running();
  EXPECT_FALSE(merge.nodelist(ring(1), {kN1, kN2, kN3}, {}, {}).has_value());
}

// A paused node comes back in left and joined at once (corosync#755): it did not come along.
TEST(QuorumMerge, ANodeThatLeftAndJoinedAtOnceHasJoined) {
  QuorumMerge merge = running();
  merge.nodelist(ring(2), {kN1, kN2, kN3}, {kN2}, {kN2});
  EXPECT_EQ(merge.quorum(ring(2), true)->joined, Nodes{kN2});
  merge.nodelist(ring(3), {kN1, kN2, kN3}, {}, {kN3});
  EXPECT_EQ(merge.quorum(ring(3), true)->joined, Nodes{kN3});
}

TEST(QuorumMerge, ARingThatPassedUnseenLeavesItsNewcomersToTheNext) {
  QuorumMerge merge = running();
  EXPECT_FALSE(merge.nodelist(ring(2), {kN1, kN3}, {}, {kN2}).has_value());
  EXPECT_FALSE(merge.nodelist(ring(3), {kN1, kN2, kN3}, {kN2}, {}).has_value());
  EXPECT_FALSE(merge.nodelist(ring(4), {kN1, kN2}, {}, {kN3}).has_value());
  EXPECT_FALSE(merge.quorum(ring(3), true).has_value());
  const auto event = merge.quorum(ring(4), true);
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->members, (Nodes{kN1, kN2}));
  EXPECT_EQ(event->joined, Nodes{kN2});
}

TEST(QuorumMerge, AfterAResetNobodyCameAlong) {
  QuorumMerge merge = running();
  merge.reset();
  EXPECT_FALSE(merge.quorum(ring(1), true).has_value());
  EXPECT_EQ(merge.nodelist(ring(1), {kN1, kN2}, {}, {})->joined, Nodes{kN2});
}

}  // namespace
}  // namespace saru
