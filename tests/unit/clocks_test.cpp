// SPDX-License-Identifier: GPL-2.0-or-later
// How much slower the clock runs by which the kernel closes, from what adjtimex says.
#include "nft/clocks.h"

#include <gtest/gtest.h>

namespace saru::nft {
namespace {

TEST(Slowness, AClockThatNobodyBendsIsNotSlow) { EXPECT_DOUBLE_EQ(slowness_of(10'000, 0), 0.0); }

TEST(Slowness, AShorterTickIsASlowerClock) {
  EXPECT_NEAR(slowness_of(9'167, 0), 0.0833, 1e-9);
  EXPECT_DOUBLE_EQ(slowness_of(9'000, 0), 0.1);
}

TEST(Slowness, TheFrequencyCountsToo) {
  EXPECT_NEAR(slowness_of(10'000, -500L * 65'536), 500e-6, 1e-12);
  EXPECT_NEAR(slowness_of(9'500, 500L * 65'536), 0.05 - 500e-6, 1e-9);
}

TEST(Slowness, AFasterClockIsNotSlow) {
  EXPECT_EQ(slowness_of(10'500, 0), 0.0);
  EXPECT_EQ(slowness_of(10'000, 500L * 65'536), 0.0);
}

TEST(Slowness, NoMoreThanTheKernelTakes) { EXPECT_DOUBLE_EQ(slowness_of(0, 0), 0.1); }

}  // namespace
}  // namespace saru::nft
