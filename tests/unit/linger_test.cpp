// SPDX-License-Identifier: GPL-2.0-or-later
// Established connections stay while their block moves: what lingers where, and until when.
#include <gtest/gtest.h>

#include "tests/unit/core_cluster.h"

namespace saru {
namespace {

class Linger : public testing::Test {
 protected:
  explicit Linger(unsigned nodes = 3) : c(nodes) {
    for (std::uint32_t n = 1; n <= nodes; ++n) c.state(n).config.stays = true;
    c.start();
    before = c.state(1).kernel.held;
  }

  // n1 gives up all it has.
  void drain() {
    c.feed(1, SetEligible{false, "drained"});
    c.run(milliseconds(100));
  }
  const Kernel& kernel(std::uint32_t node) { return c.state(node).kernel; }
  BlockSet contested() { return kernel(2).contested | kernel(3).contested; }

  Cluster c;
  BlockSet before;
};

TEST_F(Linger, WhatIsGivenUpLingersAndIsContestedWhereItGoes) {
  ASSERT_FALSE(before.empty());
  drain();
  EXPECT_EQ(c.owned(1), 0U);
  EXPECT_EQ(kernel(1).lingering, before);
  EXPECT_TRUE(kernel(1).deadline.has_value()) << "under the lease, though it owns nothing";
  EXPECT_EQ(contested(), before);
  EXPECT_TRUE(kernel(2).lingering.empty());
  c.run(3 * kLease);
  EXPECT_EQ(kernel(1).lingering, before) << "for as long as there are connections";
  EXPECT_EQ(contested(), before);
}

TEST_F(Linger, EndsWithTheLastConnectionOfABlock) {
  drain();
  BlockSet some(kBlockCount);
  some.insert(before.first());
  c.feed(1, LingerEnded{some});
  c.deliver();
  EXPECT_EQ(kernel(1).lingering, before - some);
  EXPECT_EQ(contested(), before - some);
  c.feed(1, LingerEnded{before});
  c.deliver();
  EXPECT_TRUE(kernel(1).lingering.empty());
  EXPECT_FALSE(kernel(1).deadline.has_value());
  EXPECT_TRUE(contested().empty());
}

TEST_F(Linger, TheEndIsSaidOnlyAfterTheKernelHasLetGo) {
  drain();
  c.kernels_answer = false;
  c.feed(1, LingerEnded{before});
  c.deliver();
  EXPECT_EQ(contested(), before);
}

TEST_F(Linger, OfWhoIsMissingItIsContestedUntilItsLeaseHasEnded) {
  drain();
  c.stopped = c.deaf = {1};
  c.form(8, {2, 3});
  c.run(kLease / 2);
  EXPECT_EQ(contested(), before);
  EXPECT_EQ(c.owned(2) + c.owned(3), kBlockCount) << "and owned all the while";
  c.run(kLease);
  EXPECT_TRUE(contested().empty());
}

TEST_F(Linger, WhatComesBackIsOwnedAndWhatBeganMeanwhileLingersElsewhere) {
  drain();
  c.feed(1, SetEligible{true, ""});
  c.run(milliseconds(100));
  const BlockSet now = kernel(1).held;
  ASSERT_FALSE(now.empty());
  EXPECT_FALSE(kernel(1).lingering.intersects(now));
  EXPECT_EQ(kernel(1).lingering, before - now);
  EXPECT_EQ(kernel(2).lingering | kernel(3).lingering, now);
  EXPECT_EQ(kernel(1).contested, now);
}

TEST_F(Linger, ALapseEndsIt) {
  drain();
  c.deaf = {1, 2, 3};
  c.run(2 * kLease);
  EXPECT_TRUE(kernel(1).lingering.empty());
  EXPECT_TRUE(c.logged(1, "the lease ran out"));
}

TEST_F(Linger, WhoStopsLetsNothingLinger) {
  c.feed(1, StopRequested{});
  c.run(milliseconds(200));
  EXPECT_TRUE(c.said<Left>(1));
  EXPECT_TRUE(kernel(1).lingering.empty());
  EXPECT_TRUE(contested().empty());
}

TEST(NoLinger, WithoutItNothingLingers) {
  Cluster c(2);
  c.start();
  c.feed(1, SetEligible{false, "drained"});
  c.run(milliseconds(100));
  EXPECT_EQ(c.owned(2), kBlockCount);
  EXPECT_TRUE(c.state(1).kernel.lingering.empty());
  EXPECT_TRUE(c.state(2).kernel.contested.empty());
}

}  // namespace
}  // namespace saru
