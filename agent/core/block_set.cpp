// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/core/block_set.h"

#include <algorithm>
#include <cstdlib>

namespace saru {
namespace {

void require(bool promise) {
  if (!promise) std::abort();
}

}  // namespace

BlockSet::BlockSet(unsigned blocks) : blocks_(static_cast<std::uint16_t>(blocks)) {
  require(blocks == 0 || is_block_count(blocks));
}

std::optional<BlockSet> BlockSet::from_words(unsigned blocks,
                                             std::span<const std::uint64_t> words) {
  if (!is_block_count(blocks)) return std::nullopt;
  BlockSet all(blocks);
  all.fill();
  BlockSet set(blocks);
  if (words.size() != set.word_count()) return std::nullopt;
  std::copy(words.begin(), words.end(), set.words_.begin());
  if (!(set - all).empty()) return std::nullopt;
  return set;
}

unsigned BlockSet::size() const {
  unsigned count = 0;
  for (const std::uint64_t word : words()) count += static_cast<unsigned>(std::popcount(word));
  return count;
}

bool BlockSet::empty() const {
  return std::all_of(words_.begin(), words_.end(), [](std::uint64_t word) { return word == 0; });
}

bool BlockSet::contains(BlockId block) const {
  if (block.value >= blocks_) return false;
  return (words_[block.value / kWordBits] >> (block.value % kWordBits) & 1) != 0;
}

bool BlockSet::intersects(const BlockSet& other) const { return !(*this & other).empty(); }

BlockId BlockSet::first() const {
  require(!empty());
  unsigned w = 0;
  while (words_[w] == 0) ++w;
  return BlockId{static_cast<std::uint16_t>(w * kWordBits + std::countr_zero(words_[w]))};
}

void BlockSet::insert(BlockId block) {
  require(block.value < blocks_);
  words_[block.value / kWordBits] |= std::uint64_t{1} << (block.value % kWordBits);
}

void BlockSet::erase(BlockId block) {
  if (block.value >= blocks_) return;
  words_[block.value / kWordBits] &= ~(std::uint64_t{1} << (block.value % kWordBits));
}

void BlockSet::fill() {
  for (unsigned w = 0; w < word_count(); ++w) {
    const unsigned bits = std::min(kWordBits, blocks_ - w * kWordBits);
    words_[w] = ~std::uint64_t{0} >> (kWordBits - bits);
  }
}

BlockSet& BlockSet::operator|=(const BlockSet& other) {
  require(blocks_ == other.blocks_);
  for (unsigned w = 0; w < word_count(); ++w) words_[w] |= other.words_[w];
  return *this;
}

BlockSet& BlockSet::operator&=(const BlockSet& other) {
  require(blocks_ == other.blocks_);
  for (unsigned w = 0; w < word_count(); ++w) words_[w] &= other.words_[w];
  return *this;
}

BlockSet& BlockSet::operator-=(const BlockSet& other) {
  require(blocks_ == other.blocks_);
  for (unsigned w = 0; w < word_count(); ++w) words_[w] &= ~other.words_[w];
  return *this;
}

std::string BlockSet::to_ranges() const {
  std::string text;
  for (unsigned begin = 0; begin < blocks_; ++begin) {
    if (!contains(BlockId{static_cast<std::uint16_t>(begin)})) continue;
    unsigned end = begin;
    while (contains(BlockId{static_cast<std::uint16_t>(end + 1)})) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(begin);
    if (end > begin) text += '-' + std::to_string(end);
    begin = end;
  }
  return text;
}

}  // namespace saru
