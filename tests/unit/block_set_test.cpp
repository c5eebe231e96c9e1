// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/core/block_set.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "agent/core/rng.h"

namespace saru {
namespace {

const std::vector<unsigned> kCounts = {16, 32, 64, 128, 512, 4096};

BlockId id(std::uint64_t value) { return BlockId{static_cast<std::uint16_t>(value)}; }

std::set<unsigned> to_std(const BlockSet& set) {
  std::set<unsigned> out;
  set.for_each([&](BlockId block) { out.insert(block.value); });
  return out;
}

void expect_same(const BlockSet& set, const std::set<unsigned>& model) {
  EXPECT_EQ(to_std(set), model);
  EXPECT_EQ(set.size(), model.size());
  EXPECT_EQ(set.empty(), model.empty());
  if (!model.empty()) {
    EXPECT_EQ(set.first(), id(*model.begin()));
  }
  for (unsigned b = 0; b < set.blocks() + 70; ++b) {
    ASSERT_EQ(set.contains(id(b)), model.count(b) != 0) << "block " << b;
  }
}

TEST(BlockSet, AgreesWithAnOrdinarySetInEveryOperation) {
  for (const unsigned blocks : kCounts) {
    SplitMix64 random(blocks);
    for (int round = 0; round < 30; ++round) {
      BlockSet a(blocks), b(blocks);
      std::set<unsigned> model_a, model_b, either, both, only_a;
      for (std::uint64_t n = random.below(std::uint64_t{2} * blocks); n > 0; --n) {
        const auto x = static_cast<unsigned>(random.below(blocks));
        const auto y = static_cast<unsigned>(random.below(blocks));
        a.insert(id(x)), model_a.insert(x);
        if (random.below(3) != 0) b.insert(id(y)), model_b.insert(y);
        if (random.below(4) == 0) a.erase(id(y)), model_a.erase(y);
      }
      either = model_a;
      either.insert(model_b.begin(), model_b.end());
      for (const unsigned x : model_a) (model_b.count(x) != 0 ? both : only_a).insert(x);
      expect_same(a, model_a);
      expect_same(a | b, either);
      expect_same(a & b, both);
      expect_same(a - b, only_a);
      EXPECT_EQ(a.intersects(b), !both.empty());
      EXPECT_EQ(a == b, model_a == model_b);
    }
  }
}

TEST(BlockSet, IsFilledToItsBlockCountAndNoFurther) {
  for (const unsigned blocks : kCounts) {
    BlockSet set(blocks);
    set.fill();
    EXPECT_EQ(set.size(), blocks);
    EXPECT_EQ(set.to_ranges(), "0-" + std::to_string(blocks - 1));
    EXPECT_FALSE(set.contains(id(blocks)));
    set.clear();
    EXPECT_EQ(set, BlockSet(blocks));
  }
}

TEST(BlockSet, ShowsRangesAsPeopleWriteThem) {
  BlockSet set(64);
  EXPECT_EQ(set.to_ranges(), "");
  for (unsigned b = 0; b < 16; ++b) set.insert(id(b));
  set.insert(id(32));
  EXPECT_EQ(set.to_ranges(), "0-15,32");
  set.insert(id(62)), set.insert(id(63));
  EXPECT_EQ(set.to_ranges(), "0-15,32,62-63");
  BlockSet large(4096);
  large.insert(id(4095));
  EXPECT_EQ(large.to_ranges(), "4095");
}

TEST(BlockSet, OfNoBlocksHoldsNothing) {
  BlockSet none;
  none.fill();
  expect_same(none, {});
  EXPECT_EQ(none.to_ranges(), "");
  EXPECT_TRUE(none.words().empty());
  EXPECT_NE(none, BlockSet(16));
}

TEST(BlockSet, ComesBackFromItsWords) {
  for (const unsigned blocks : kCounts) {
    SplitMix64 random(blocks);
    BlockSet set(blocks);
    for (unsigned n = 0; n < blocks / 2; ++n) set.insert(id(random.below(blocks)));
    EXPECT_EQ(set.words().size(), (blocks + 63) / 64);
    EXPECT_EQ(BlockSet::from_words(blocks, set.words()), set);
  }
}

TEST(BlockSet, RefusesWordsThatAreNotItsOwn) {
  const std::vector<std::uint64_t> one = {0xffff};
  EXPECT_TRUE(BlockSet::from_words(16, one));
  EXPECT_FALSE(BlockSet::from_words(0, {}));
  EXPECT_FALSE(BlockSet::from_words(8, one));
  EXPECT_FALSE(BlockSet::from_words(48, one));
  EXPECT_FALSE(BlockSet::from_words(8192, std::vector<std::uint64_t>(128)));
  EXPECT_FALSE(BlockSet::from_words(16, {}));
  EXPECT_FALSE(BlockSet::from_words(128, one));
  EXPECT_FALSE(BlockSet::from_words(16, std::vector<std::uint64_t>{0, 0}));
  EXPECT_FALSE(BlockSet::from_words(16, std::vector<std::uint64_t>{0x10000}));
}

TEST(BlockSetDeathTest, AbortsOnABug) {
  BlockSet set(16);
  EXPECT_DEATH(BlockSet(17), "");
  EXPECT_DEATH(BlockSet(8192), "");
  EXPECT_DEATH(set.insert(id(16)), "");
  EXPECT_DEATH(set |= BlockSet(32), "");
  EXPECT_DEATH((void)set.first(), "");
}

// The reference values of the published algorithm (seed 1234567).
TEST(SplitMix64, GivesThePublishedNumbers) {
  SplitMix64 random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317u);
  EXPECT_EQ(random.next(), 3203168211198807973u);
  EXPECT_EQ(random.next(), 9817491932198370423u);
  EXPECT_EQ(random.next(), 4593380528125082431u);
  EXPECT_EQ(random.next(), 16408922859458223821u);
}

TEST(SplitMix64, DrawsEveryNumberBelowItsLimitAboutEquallyOften) {
  SplitMix64 random(7);
  std::vector<int> seen(10);
  for (int n = 0; n < 100000; ++n) ++seen.at(random.below(10));
  for (const int count : seen) EXPECT_NEAR(count, 10000, 500);
  for (int n = 0; n < 100; ++n) EXPECT_EQ(random.below(1), 0u);
  // Without a second draw, numbers below 2^62 would come twice as often as the others.
  int low = 0;
  for (int n = 0; n < 10000; ++n)
    low += random.below(std::uint64_t{3} << 62) < (std::uint64_t{1} << 62) ? 1 : 0;
  EXPECT_NEAR(low, 3333, 300);
}

TEST(SplitMix64, UnitStaysBelowOne) {
  SplitMix64 random(7);
  double sum = 0;
  for (int n = 0; n < 100000; ++n) {
    const double drawn = random.unit();
    ASSERT_GE(drawn, 0.0);
    ASSERT_LT(drawn, 1.0);
    sum += drawn;
  }
  EXPECT_NEAR(sum / 100000, 0.5, 0.01);
}

}  // namespace
}  // namespace saru
