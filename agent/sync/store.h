// SPDX-License-Identifier: GPL-2.0-or-later
// All connections that the members have told each other, as records, by block. The same at every
// member that has received the same messages. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "agent/core/types.h"

namespace saru::sync {

class FlowStore {
 public:
  using Table = std::unordered_map<std::string, std::string>;  // key: value (agent/sync/record.h)
  // Equal for two tables exactly when they have the same records (but for chance, 1 in 2^64).
  struct Digest {
    std::uint32_t flows = 0;
    std::uint64_t sum = 0;
    bool operator==(const Digest&) const = default;
  };

  explicit FlowStore(unsigned blocks) : blocks_(blocks) {}

  void put(BlockId block, std::string_view key, std::string_view value);
  void erase(BlockId block, const std::string& key);
  void replace(BlockId block, Table table);
  void clear();

  const Table& of(BlockId block) const { return blocks_[block.value].table; }
  const std::string* find(BlockId block, const std::string& key) const;
  Digest digest(BlockId block) const;
  // Grows with everything that changes the block.
  std::uint64_t version(BlockId block) const { return blocks_[block.value].version; }
  std::size_t size() const { return size_; }
  unsigned blocks() const { return static_cast<unsigned>(blocks_.size()); }

  // What one record adds to a digest.
  static std::uint64_t hash_of(std::string_view key, std::string_view value);

 private:
  struct Block {
    Table table;
    std::uint64_t sum = 0;
    std::uint64_t version = 0;
  };
  std::vector<Block> blocks_;
  std::size_t size_ = 0;
};

}  // namespace saru::sync
