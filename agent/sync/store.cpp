// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/store.h"

#include <utility>

#include "agent/core/fnv.h"
#include "agent/core/rng.h"

namespace saru::sync {

// FNV leaves regular patterns in the high bits, which a sum would keep; SplitMix64 mixes them.
std::uint64_t FlowStore::hash_of(std::string_view key, std::string_view value) {
  return SplitMix64(fnv1a(value, fnv1a(key))).next();
}

void FlowStore::put(BlockId block, std::string_view key, std::string_view value) {
  Block& at = blocks_[block.value];
  const auto [place, is_new] = at.table.try_emplace(std::string(key));
  if (!is_new && place->second == value) return;
  if (!is_new) at.sum -= hash_of(key, place->second);
  place->second = value;
  at.sum += hash_of(key, value);
  size_ += is_new ? 1 : 0;
  ++at.version;
}

void FlowStore::erase(BlockId block, const std::string& key) {
  Block& at = blocks_[block.value];
  const auto place = at.table.find(key);
  if (place == at.table.end()) return;
  at.sum -= hash_of(key, place->second);
  at.table.erase(place);
  --size_;
  ++at.version;
}

void FlowStore::replace(BlockId block, Table table) {
  Block& at = blocks_[block.value];
  if (at.table == table) return;
  size_ -= at.table.size();
  at.table = std::move(table);
  size_ += at.table.size();
  at.sum = 0;
  for (const auto& [key, value] : at.table) at.sum += hash_of(key, value);
  ++at.version;
}

void FlowStore::clear() {
  for (Block& at : blocks_) {
    if (at.table.empty()) continue;
    at.table.clear();
    at.sum = 0;
    ++at.version;
  }
  size_ = 0;
}

const std::string* FlowStore::find(BlockId block, const std::string& key) const {
  const Table& table = of(block);
  const auto place = table.find(key);
  return place == table.end() ? nullptr : &place->second;
}

FlowStore::Digest FlowStore::digest(BlockId block) const {
  const Block& at = blocks_[block.value];
  return {static_cast<std::uint32_t>(at.table.size()), at.sum};
}

}  // namespace saru::sync
