// SPDX-License-Identifier: GPL-2.0-or-later
// Who owned what, why it moved, and the time without an owner, as each node tells it.
#include "agent/ownership.h"

#include <gtest/gtest.h>

#include "agent/ownership_report.h"
#include "tests/unit/core_cluster.h"

namespace saru {
namespace {

// Three members, each with somebody who follows it.
class Followed {
 public:
  explicit Followed(unsigned nodes) : cluster(nodes) {
    cluster.watch = [this](std::uint32_t node, const Event& event, const State& state,
                           const std::vector<Action>& actions) {
      for (const Log& line : of[node].follow(event, state, actions, event.now.raw)) {
        said[node] += line.text + "\n";
      }
    };
    cluster.start();
  }

  const Histogram& spans(std::uint32_t node, Ended ended) {
    return of[node].tally().without_owner[static_cast<std::size_t>(ended)];
  }
  std::uint64_t taken(Ended ended) {
    std::uint64_t sum = 0;
    for (auto& [node, one] : of) sum += spans(node, ended).count;
    return sum;
  }
  bool told_why(std::uint32_t node, const std::string& words) const {
    return said.at(node).find(words) != std::string::npos;
  }
  // Of all that `node` remembers, the last move of this block.
  std::string last_move(std::uint32_t node, BlockId block) {
    std::string text = "none";
    for (const ViewRecord& view : of[node].views()) {
      for (const Move& move : view.moves) {
        if (!move.blocks.contains(block)) continue;
        text = (move.from ? of[node].name_of(*move.from) : "nobody") + " -> " +
               (move.to ? of[node].name_of(*move.to) : "nobody");
      }
    }
    return text;
  }
  void lose(std::uint32_t node, std::uint64_t seq, const std::set<std::uint32_t>& survivors) {
    cluster.deaf.insert(node);
    cluster.stopped.insert(node);
    cluster.run(milliseconds(100));
    cluster.form(seq, survivors);
  }

  std::map<std::uint32_t, Ownership> of;
  std::map<std::uint32_t, std::string> said;
  Cluster cluster;
};

TEST(Ownership, BlocksThatNobodyOwnedBeforeAreNotMeasured) {
  Followed three(3);
  std::uint64_t unknown = 0;
  for (std::uint32_t node = 1; node <= 3; ++node) {
    unknown += three.of[node].tally().taken_unknown;
    for (const Ended ended : {Ended::kHandedOver, Ended::kLost, Ended::kClosed}) {
      EXPECT_EQ(three.spans(node, ended).count, 0U) << node << word_of(ended);
    }
  }
  EXPECT_EQ(unknown, kBlockCount);
}

TEST(Ownership, EachBlockThatIsHandedOverCountsOnceAtItsNewOwner) {
  Followed three(3);
  const unsigned had = three.cluster.owned(3);
  ASSERT_GT(had, 0U);
  three.cluster.feed(3, SetEligible{false, "drained by the administrator"});
  three.cluster.run(milliseconds(500));
  ASSERT_EQ(three.cluster.owned(3), 0U);
  EXPECT_EQ(three.taken(Ended::kHandedOver), had);
  EXPECT_EQ(three.of[3].tally().released, had);
  EXPECT_EQ(three.of[3].tally().closed, 0U);
  EXPECT_EQ(three.taken(Ended::kLost) + three.taken(Ended::kClosed), 0U);
  for (const std::uint32_t node : {1U, 2U}) {
    EXPECT_LE(three.spans(node, Ended::kHandedOver).sum, milliseconds(20) * had) << node;
    EXPECT_TRUE(three.told_why(node, "why: n3 gives its blocks up")) << three.said[node];
  }
  EXPECT_TRUE(three.told_why(3, "n3 gives its blocks up (drained by the administrator)"));
}

TEST(Ownership, OfALostNodeTheTimeRunsFromItsLastMessage) {
  Followed three(3);
  const BlockSet lost = three.cluster.state(3).kernel.held;
  const Nanos last = three.cluster.now;
  three.lose(3, 8, {1, 2});
  three.cluster.run(milliseconds(1500));
  ASSERT_EQ(three.cluster.owned(1) + three.cluster.owned(2), kBlockCount);
  EXPECT_EQ(three.taken(Ended::kLost), lost.size());
  for (const std::uint32_t node : {1U, 2U}) {
    const Histogram& spans = three.spans(node, Ended::kLost);
    // Its lease had to run out first; its last message was one beat old at most.
    EXPECT_GE(spans.sum, kLease * static_cast<int>(spans.count)) << node;
    EXPECT_LE(spans.sum, (three.cluster.now - last + kLease / 5) * static_cast<int>(spans.count));
    EXPECT_EQ(spans.within[7] + spans.within[6], 0U) << "none within one lease";
    EXPECT_EQ(spans.within[8], spans.count) << "all within 2.5 s";
    EXPECT_TRUE(three.told_why(node, "why: n3 was lost, last heard ")) << three.said[node];
  }
  EXPECT_TRUE(three.last_move(1, lost.first()).starts_with("n3 -> n")) << three.said[1];
  EXPECT_EQ(three.last_move(1, lost.first()), three.last_move(2, lost.first()));
}

TEST(Ownership, WhatAThirdNodeTookIsMeasuredFromThatNodesEnd) {
  Followed five(5);
  five.lose(5, 8, {1, 2, 3, 4});
  five.cluster.run(std::chrono::seconds(20));
  const std::uint64_t before = five.taken(Ended::kLost);
  const unsigned had = five.cluster.owned(4);
  five.lose(4, 12, {1, 2, 3});
  five.cluster.run(milliseconds(1500));
  EXPECT_EQ(five.taken(Ended::kLost), before + had);
  for (const std::uint32_t node : {1U, 2U, 3U}) {
    const Histogram& spans = five.spans(node, Ended::kLost);
    EXPECT_LE(spans.sum, milliseconds(2500) * static_cast<int>(spans.count)) << node;
  }
}

TEST(Ownership, OwnBlocksThatWereClosedAreMeasuredFromTheClosing) {
  Followed three(3);
  // n1 alone is no quorum any more, and closes.
  three.cluster.deaf = {2, 3};
  three.cluster.stopped = {2, 3};
  const unsigned had = three.cluster.owned(1);
  three.cluster.form(8, {1}, false);
  ASSERT_EQ(three.cluster.owned(1), 0U);
  EXPECT_EQ(three.of[1].tally().closed, had);
  three.cluster.run(milliseconds(4000));
  EXPECT_TRUE(three.told_why(1, "there is no quorum: nobody takes blocks")) << three.said[1];
  three.cluster.form(12, {1}, true);
  three.cluster.state(1).config.quorum_votes = 1;
  three.cluster.run(milliseconds(2500));
  ASSERT_EQ(three.cluster.owned(1), kBlockCount);
  EXPECT_EQ(three.spans(1, Ended::kClosed).count, had);
  // 4000 ms without quorum, and a lease that has to pass before it takes anything.
  EXPECT_GE(three.spans(1, Ended::kClosed).sum, (milliseconds(4000) + kLease) * had);
  EXPECT_EQ(three.spans(1, Ended::kLost).count, kBlockCount - had);
}

TEST(Ownership, AWeightThatChangedIsTheReason) {
  Followed three(3);
  three.cluster.feed(2, SetWeight{3});
  three.cluster.run(milliseconds(500));
  for (std::uint32_t node = 1; node <= 3; ++node) {
    EXPECT_TRUE(three.told_why(node, "why: weight of n2: 1 -> 3")) << three.said[node];
  }
}

TEST(Ownership, WhoKnowsTheConnectionsLaterIsTheReason) {
  Followed three(3);
  three.cluster.state(3).config.syncs = true;
  three.cluster.feed(3, SetWeight{2});
  three.cluster.run(milliseconds(500));
  EXPECT_TRUE(three.told_why(1, "n3 does not know all connections")) << three.said[1];
  three.cluster.feed(3, Synced{});
  three.cluster.run(milliseconds(500));
  EXPECT_TRUE(three.told_why(1, "why: n3 knows all connections now")) << three.said[1];
}

TEST(Ownership, ALapseIsCountedAndTold) {
  Followed three(3);
  three.cluster.deaf = {1};
  three.cluster.run(milliseconds(1500));
  EXPECT_EQ(three.of[1].tally().lapses, 1U);
  EXPECT_GT(three.of[1].tally().closed, 0U);
}

TEST(Ownership, MemoryIsBounded) {
  Followed three(3);
  for (unsigned i = 0; i < Ownership::kMostViews + 50; ++i) {
    three.cluster.feed(2, SetWeight{static_cast<std::uint16_t>(1 + i % 5)});
    three.cluster.run(milliseconds(300));
  }
  EXPECT_EQ(three.of[1].views().size(), Ownership::kMostViews);
  EXPECT_TRUE(three.of[1].is_cut());
  EXPECT_FALSE(describe(three.of[1]).front().at("why").empty());
}

TEST(Ownership, LinesOfTheLogAreShortEnoughForLibqb) {
  Config config = config_of(1, 3);
  config.blocks = 1024;
  State state(config);
  for (std::uint16_t block = 0; block < 1024; block += 2) state.kernel.held.insert({block});
  Ownership ownership;
  const Event event{{}, KernelDone{1, true, Accepting::all_of(state.kernel.held), ""}};
  std::string all;
  const auto lines = ownership.follow(event, state, {}, Nanos(0));
  for (const Log& line : lines) {
    EXPECT_LT(line.text.size(), 500U) << line.text;
    all += line.text.substr(line.text.rfind(' ') + 1) + ",";
  }
  EXPECT_GT(lines.size(), 4U);
  EXPECT_EQ(all, state.kernel.held.to_ranges() + ",") << "no block is left out";
}

}  // namespace
}  // namespace saru
