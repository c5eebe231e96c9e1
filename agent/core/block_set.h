// SPDX-License-Identifier: GPL-2.0-or-later
// A set of blocks: 0 .. blocks() - 1, one bit each. A value without allocation; standard library
// only.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "agent/core/types.h"

namespace saru {

// Whether an address can be cut in this many blocks: a power of two from kMinBlocks to kMaxBlocks.
constexpr bool is_block_count(unsigned blocks) {
  return std::has_single_bit(blocks) && blocks >= kMinBlocks && blocks <= kMaxBlocks;
}

// Sets of different block counts are different worlds: combining two of them, inserting a block
// that does not exist, or asking an empty set for its first block is a bug and aborts.
class BlockSet {
 public:
  // `blocks` must satisfy is_block_count(), or be 0: a set that can hold nothing.
  explicit BlockSet(unsigned blocks = 0);

  // What words() gave, as it came from a peer: nullopt if the block count is not one, the number
  // of words does not fit it, or a bit of a block that does not exist is set.
  static std::optional<BlockSet> from_words(unsigned blocks, std::span<const std::uint64_t> words);

  unsigned blocks() const { return blocks_; }
  unsigned size() const;
  bool empty() const;
  bool contains(BlockId block) const;
  bool intersects(const BlockSet& other) const;
  BlockId first() const;

  void insert(BlockId block);
  void erase(BlockId block);
  void clear() { words_ = {}; }
  void fill();

  BlockSet& operator|=(const BlockSet& other);
  BlockSet& operator&=(const BlockSet& other);
  BlockSet& operator-=(const BlockSet& other);
  friend BlockSet operator|(BlockSet a, const BlockSet& b) { return a |= b; }
  friend BlockSet operator&(BlockSet a, const BlockSet& b) { return a &= b; }
  friend BlockSet operator-(BlockSet a, const BlockSet& b) { return a -= b; }
  bool operator==(const BlockSet&) const = default;

  // Calls visit(BlockId) for each block, lowest first.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (unsigned w = 0; w < word_count(); ++w) {
      for (std::uint64_t rest = words_[w]; rest != 0; rest &= rest - 1) {
        visit(BlockId{static_cast<std::uint16_t>(w * kWordBits + std::countr_zero(rest))});
      }
    }
  }

  // For people: "0-15,32"; empty for the empty set.
  std::string to_ranges() const;

  // For the wire: block b is bit b % 64 of word b / 64; ceil(blocks() / 64) words.
  std::span<const std::uint64_t> words() const { return {words_.data(), word_count()}; }

 private:
  static constexpr unsigned kWordBits = 64;
  unsigned word_count() const { return (blocks_ + kWordBits - 1) / kWordBits; }

  std::array<std::uint64_t, kMaxBlocks / kWordBits> words_{};
  std::uint16_t blocks_ = 0;
};

}  // namespace saru
