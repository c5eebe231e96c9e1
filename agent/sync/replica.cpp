// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/replica.h"

#include <algorithm>

#include "agent/sync/record.h"

namespace saru::sync {
namespace {

// False when it does not fit any more.
bool add_to(Flows& message, const std::string& key, const std::optional<std::string>& value,
            std::size_t most) {
  const std::size_t size = key.size() + (value ? value->size() : 0);
  const std::size_t now = message.over.size() + message.known.size();
  if (now > 0 && now + size > most) return false;
  (value ? message.known : message.over) += key;
  if (value) message.known += *value;
  return true;
}

// Calls each(key, value, block). False: the records cannot be read to the end.
bool read_records(std::string_view records, const Replica::BlockOf& block_of,
                  const std::function<void(std::string_view, std::string_view, BlockId)>& each) {
  while (!records.empty()) {
    const auto key_bytes = key_size(records);
    if (!key_bytes) return false;
    const std::string_view key = records.substr(0, *key_bytes);
    records.remove_prefix(*key_bytes);
    const auto value_bytes = value_size(records, key);
    if (!value_bytes) return false;
    const std::string_view value = records.substr(0, *value_bytes);
    records.remove_prefix(*value_bytes);
    const auto flow = decode(key, value);
    if (!flow) return false;
    if (const auto block = block_of(*flow)) each(key, value, *block);
  }
  return true;
}

bool read_keys(std::string_view keys, const std::function<void(std::string_view)>& each) {
  while (!keys.empty()) {
    const auto bytes = key_size(keys);
    if (!bytes) return false;
    each(keys.substr(0, *bytes));
    keys.remove_prefix(*bytes);
  }
  return true;
}

}  // namespace

Replica::Replica(unsigned blocks, BlockOf block_of)
    : block_of_(std::move(block_of)), store_(blocks), wanted_(blocks) {}

// ---- News --------------------------------------------------------------------------------------

const std::string* Replica::known(BlockId block, const std::string& key) const {
  const auto value = [](const News& news) { return news.value ? &*news.value : nullptr; };
  if (const auto found = news_.find(key); found != news_.end()) return value(found->second);
  if (const auto found = sent_.find(key); found != sent_.end()) return value(found->second.news);
  return store_.find(block, key);
}

void Replica::changed(BlockId block, const std::string& key, std::string value) {
  const std::string* before = known(block, key);
  if (before != nullptr && differ_in_timeout_only(*before, value)) return;
  news_[key] = {block, std::move(value)};
}

void Replica::over(BlockId block, const std::string& key) {
  news_.erase(key);
  if (known(block, key) != nullptr) news_[key] = {block, std::nullopt};
}

// ---- Messages out ------------------------------------------------------------------------------

// What next() or news_of() puts into a message is noted under its number.
Flows Replica::number(Flows message) {
  message.sequence = ++sequence_;
  if (on_their_way_.empty() || on_their_way_.back().sequence != sequence_) {
    on_their_way_.push_back({sequence_, {}});
  }
  return message;
}

void Replica::send(const std::string& key, News news) {
  if (on_their_way_.empty() || on_their_way_.back().sequence != sequence_ + 1) {
    on_their_way_.push_back({sequence_ + 1, {}});
  }
  on_their_way_.back().keys.push_back(key);
  sent_[key] = {std::move(news), sequence_ + 1};
  ++counters_.told;
}

std::optional<Flows> Replica::next(std::size_t most) {
  // A block that somebody wants goes out whole; between two of them come the news.
  if (parts_.empty() && !wanted_.empty() && (news_.empty() || news_went_)) {
    const BlockId block = wanted_.first();
    wanted_.erase(block);
    make_parts(block, most);
    news_went_ = false;
  }
  if (!parts_.empty()) {
    Flows part = number(std::move(parts_.front()));
    parts_.pop_front();
    return part;
  }
  if (news_.empty()) return std::nullopt;
  Flows message;
  while (!news_.empty()) {
    const auto first = news_.begin();
    if (!add_to(message, first->first, first->second.value, most)) break;
    send(first->first, std::move(first->second));
    news_.erase(first);
  }
  news_went_ = true;
  return number(std::move(message));
}

std::vector<Flows> Replica::news_of(const BlockSet& blocks, std::size_t most) {
  std::vector<Flows> messages;
  // What somebody wants was asked for before, and the rest of a block belongs to what went out.
  for (Flows& part : parts_) messages.push_back(number(std::move(part)));
  parts_.clear();
  Flows message;
  for (auto it = news_.begin(); it != news_.end();) {
    if (!blocks.contains(it->second.block)) {
      ++it;
    } else if (add_to(message, it->first, it->second.value, most)) {
      send(it->first, std::move(it->second));
      it = news_.erase(it);
    } else {
      messages.push_back(number(std::exchange(message, Flows{})));
    }
  }
  if (!message.over.empty() || !message.known.empty()) messages.push_back(number(message));
  return messages;
}

void Replica::wanted(const BlockSet& blocks) {
  if (blocks.blocks() == wanted_.blocks()) wanted_ |= blocks;
}

// As the store will be once everything has come back that was sent. News that wait come later.
FlowStore::Table Replica::all_of(BlockId block) const {
  FlowStore::Table table;
  BlockSet one(store_.blocks());
  one.insert(block);
  for_each(one, [&](const std::string& key, const std::string& value, BlockId) {
    table.emplace(key, value);
  });
  return table;
}

void Replica::make_parts(BlockId block, std::size_t most) {
  const auto empty = [&](Flows::Kind kind) {
    Flows part;
    part.kind = kind;
    part.block = block.value;
    return part;
  };
  Flows part = empty(Flows::Kind::kOnly);
  for (const auto& [key, value] : all_of(block)) {
    if (add_to(part, key, value, most)) continue;
    part.kind = parts_.empty() ? Flows::Kind::kFirst : Flows::Kind::kMiddle;
    parts_.push_back(std::exchange(part, empty(Flows::Kind::kLast)));
    (void)add_to(part, key, value, most);
  }
  parts_.push_back(std::move(part));
}

FlowDigest Replica::digest(const BlockSet& blocks) const {
  FlowDigest result{blocks, {}};
  if (blocks.blocks() != store_.blocks()) return {BlockSet(store_.blocks()), {}};
  // A record's share of the sum is the difference that what is on its way makes.
  std::unordered_map<std::uint16_t, FlowStore::Digest> changes;
  for (const auto& [key, sent] : sent_) {
    FlowStore::Digest& change = changes[sent.news.block.value];
    if (const std::string* before = store_.find(sent.news.block, key)) {
      --change.flows;
      change.sum -= FlowStore::hash_of(key, *before);
    }
    if (!sent.news.value) continue;
    ++change.flows;
    change.sum += FlowStore::hash_of(key, *sent.news.value);
  }
  blocks.for_each([&](BlockId block) {
    FlowStore::Digest digest = store_.digest(block);
    if (const auto change = changes.find(block.value); change != changes.end()) {
      digest.flows += change->second.flows;
      digest.sum += change->second.sum;
    }
    if (digest.flows != 0) result.entries.push_back({block.value, digest.flows, digest.sum});
  });
  return result;
}

// ---- Messages in -------------------------------------------------------------------------------

// In which block it is what is known of it says, where its key does not.
void Replica::erase(std::string_view key, const BlockSet& accepted) {
  const auto flow = decode_key(key);
  if (!flow) return;
  const std::string name(key);
  if (const auto block = block_of_({*flow, {}})) {
    if (accepted.contains(*block)) store_.erase(*block, name);
    return;
  }
  accepted.for_each([&](BlockId other) { store_.erase(other, name); });
}

void Replica::apply(const Flows& message, const BlockSet& accepted) {
  bool whole = read_keys(message.over, [&](std::string_view key) { erase(key, accepted); });
  whole = read_records(message.known, block_of_,
                       [&](std::string_view key, std::string_view value, BlockId block) {
                         if (!accepted.contains(block)) {
                           ++counters_.refused;
                           return;
                         }
                         store_.put(block, key, value);
                         ++counters_.learned;
                       }) &&
          whole;
  counters_.damaged += whole ? 0 : 1;
}

// Who has missed the first part waits until it has asked once more.
std::optional<BlockId> Replica::apply_part(const Flows& message, const MemberId& sender,
                                           const BlockSet& accepted, bool merge) {
  using Kind = Flows::Kind;
  const BlockId block{message.block};
  if (block.value >= store_.blocks()) return std::nullopt;
  if (message.kind == Kind::kFirst || message.kind == Kind::kOnly) staging_[sender] = {block, {}};
  const auto staging = staging_.find(sender);
  if (staging == staging_.end() || staging->second.block != block) return std::nullopt;
  FlowStore::Table& table = staging->second.table;
  const auto put = [&](std::string_view key, std::string_view value, BlockId belongs) {
    if (belongs == block) table[std::string(key)] = value;
  };
  if (!read_records(message.known, block_of_, put)) {
    ++counters_.damaged;
    staging_.erase(staging);
    return std::nullopt;
  }
  if (message.kind != Kind::kLast && message.kind != Kind::kOnly) return std::nullopt;
  const bool counts = accepted.contains(block);
  if (counts) {
    ++counters_.wholes;
    counters_.learned += table.size();
    if (merge) {
      for (const auto& [key, value] : store_.of(block)) table.insert_or_assign(key, value);
    }
    store_.replace(block, std::move(table));
  } else {
    ++counters_.refused;
  }
  staging_.erase(staging);
  return counts ? std::optional(block) : std::nullopt;
}

Replica::Delivered Replica::deliver(const Flows& message, const MemberId& sender,
                                    const BlockSet& accepted, bool merge) {
  Delivered result;
  if (accepted.blocks() != store_.blocks()) return result;
  auto& heard = heard_[sender];
  result.gap = heard != 0 && message.sequence != heard + 1;
  heard = message.sequence;
  if (result.gap) {
    ++counters_.gaps;
    staging_.erase(sender);
  }
  if (message.kind == Flows::Kind::kChanges) {
    apply(message, accepted);
  } else {
    result.whole = apply_part(message, sender, accepted, merge);
  }
  return result;
}

// What was sent later of the same connection is still on its way.
void Replica::take_back(const OnItsWay& message, bool lost, const BlockSet& ours) {
  for (const std::string& key : message.keys) {
    const auto sent = sent_.find(key);
    if (sent == sent_.end() || sent->second.sequence != message.sequence) continue;
    News& news = sent->second.news;
    if (lost && ours.blocks() == store_.blocks() && ours.contains(news.block)) {
      ++counters_.repeated;
      news_.try_emplace(key, std::move(news));
    }
    sent_.erase(sent);
  }
}

void Replica::deliver_own(const Flows& message, bool counts, const BlockSet& ours) {
  if (counts && message.kind == Flows::Kind::kChanges) {
    const std::uint64_t learned = counters_.learned;
    BlockSet all(store_.blocks());
    all.fill();
    apply(message, all);
    counters_.learned = learned;
  }
  while (!on_their_way_.empty() && on_their_way_.front().sequence <= message.sequence) {
    const OnItsWay one = std::move(on_their_way_.front());
    on_their_way_.pop_front();
    take_back(one, !counts || one.sequence < message.sequence, ours);
  }
}

BlockSet Replica::differing(const FlowDigest& digest) const {
  BlockSet differing(store_.blocks());
  if (digest.blocks.blocks() != store_.blocks()) return differing;
  auto entry = digest.entries.begin();
  digest.blocks.for_each([&](BlockId block) {
    FlowStore::Digest theirs;
    if (entry != digest.entries.end() && entry->block == block.value) {
      theirs = {entry->flows, entry->digest};
      ++entry;
    }
    if (theirs != store_.digest(block)) differing.insert(block);
  });
  return differing;
}

// ---- Surroundings ------------------------------------------------------------------------------

void Replica::joined_anew() {
  news_.clear();
  sent_.clear();
  on_their_way_.clear();
  parts_.clear();
  wanted_.clear();
  staging_.clear();
  heard_.clear();
  sequence_ = 0;
}

void Replica::keep_senders(const std::set<MemberId>& senders) {
  const auto gone = [&](const auto& one) { return !senders.contains(one.first); };
  std::erase_if(staging_, gone);
  std::erase_if(heard_, gone);
}

void Replica::drop_news(const BlockSet& blocks) {
  if (blocks.blocks() != store_.blocks()) return;
  std::erase_if(news_, [&](const auto& one) { return blocks.contains(one.second.block); });
}

void Replica::cut_anew(unsigned blocks, BlockOf block_of) {
  const FlowStore before = std::move(store_);
  block_of_ = std::move(block_of);
  store_ = FlowStore(blocks);
  wanted_ = BlockSet(blocks);
  news_.clear();
  parts_.clear();
  staging_.clear();
  for (unsigned b = 0; b < before.blocks(); ++b) {
    for (const auto& [key, value] : before.of(BlockId{static_cast<std::uint16_t>(b)})) {
      const auto flow = decode(key, value);
      const auto block = flow ? block_of_(*flow) : std::nullopt;
      if (block) store_.put(*block, key, value);
    }
  }
  // What is on its way comes back, and goes where it belongs then.
  sent_.clear();
  on_their_way_.clear();
}

void Replica::for_each(
    const BlockSet& blocks,
    const std::function<void(const std::string&, const std::string&, BlockId)>& each) const {
  if (blocks.blocks() != store_.blocks()) return;
  const auto is_newer = [&](const std::string& key, BlockId block) {
    const auto sent = sent_.find(key);
    return sent != sent_.end() && sent->second.news.block == block;
  };
  blocks.for_each([&](BlockId block) {
    for (const auto& [key, value] : store_.of(block)) {
      if (!is_newer(key, block)) each(key, value, block);
    }
  });
  for (const auto& [key, sent] : sent_) {
    if (!sent.news.value || !blocks.contains(sent.news.block)) continue;
    each(key, *sent.news.value, sent.news.block);
  }
}

}  // namespace saru::sync
