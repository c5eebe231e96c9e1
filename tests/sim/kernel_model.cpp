// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/kernel_model.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <algorithm>

namespace saru::sim {

namespace {

bool has_run_out(const std::optional<Nanos>& end, const KernelTime& now) {
  return end && now.jiffies >= *end;
}

Nanos big64(const nft::Bytes& bytes) {
  std::uint64_t value = 0;
  for (const std::uint8_t byte : bytes) value = value << 8 | byte;
  return Nanos(static_cast<Nanos::rep>(value));
}

}  // namespace

// By hand: g++ 12 takes what the library does for a mistake.
bool KernelModel::LessKey::operator()(const nft::Bytes& a, const nft::Bytes& b) const {
  if (a.size() != b.size()) return a.size() < b.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) return a[i] < b[i];
  }
  return false;
}

KernelModel::Table KernelModel::make(const nft::TablePlan& plan, const KernelTime& now) {
  Table table;
  for (const nft::Set& set : plan.sets) {
    std::optional<Nanos> end;
    if (set.timeout_ms != 0) end = now.jiffies + std::chrono::milliseconds(set.timeout_ms);
    for (const nft::Bytes& key : set.elements) table.sets[set.name].elements[key] = end;
    table.sets[set.name];
    if (set.name == "load") table.blocks = static_cast<unsigned>(set.elements.size());
  }
  for (const nft::Chain& chain : plan.chains) {
    table.chains[chain.name] = chain.rules;
    for (const nft::Rule& rule : chain.rules) {
      for (const nft::Expression& expression : rule.expressions) {
        if (const auto* hash = std::get_if<nft::Hash>(&expression)) table.seed = hash->seed;
      }
    }
  }
  return table;
}

bool KernelModel::change(const Table& table, Staged& staged, const Operation& operation,
                         const KernelTime& now) {
  const auto set_named = [&](const std::string& name) -> Set* {
    if (const auto done = staged.sets.find(name); done != staged.sets.end()) return &done->second;
    const auto found = table.sets.find(name);
    return found == table.sets.end() ? nullptr : &(staged.sets[name] = found->second);
  };
  if (const auto* add = std::get_if<AddElements>(&operation)) {
    Set* set = set_named(add->set);
    if (set == nullptr) return false;
    std::optional<Nanos> end;
    if (add->timeout != Nanos(0)) {
      end = now.jiffies + std::chrono::floor<std::chrono::milliseconds>(add->timeout);
    }
    for (const nft::Bytes& key : add->keys) {
      auto& known = set->elements.try_emplace(key, end).first->second;
      if (has_run_out(known, now)) known = end;  // one that is there keeps its end
    }
  } else if (const auto* remove = std::get_if<DeleteElements>(&operation)) {
    Set* set = set_named(remove->set);
    if (set == nullptr) return false;
    for (const nft::Bytes& key : remove->keys) {
      const auto found = set->elements.find(key);
      if (found == set->elements.end() || has_run_out(found->second, now)) return false;
      set->elements.erase(found);
    }
  } else if (const auto* flush = std::get_if<FlushSet>(&operation)) {
    if (!table.sets.contains(flush->set)) return false;
    staged.sets[flush->set] = {};
  } else if (const auto* replace = std::get_if<ReplaceRules>(&operation)) {
    if (!table.chains.contains(replace->chain)) return false;
    staged.chains[replace->chain] = replace->rules;
  }
  return true;
}

void KernelModel::finish(Table& table, Staged& staged) {
  for (auto& [name, set] : staged.sets) table.sets[name] = std::move(set);
  for (auto& [name, rules] : staged.chains) table.chains[name] = std::move(rules);
  staged = {};
}

bool KernelModel::commit(const Transaction& transaction, const KernelTime& now) {
  std::optional<Table> made;  // by this transaction
  bool deleted = false;
  Staged staged;
  for (const Operation& operation : transaction) {
    const bool there = made || (table_ && !deleted);
    if (std::holds_alternative<DeleteTable>(operation)) {
      made.reset();
      deleted = true;
      staged = {};
    } else if (const auto* add = std::get_if<AddTable>(&operation)) {
      if (there) return false;
      made = make(add->table, now);
    } else if (!there || !change(made ? *made : *table_, staged, operation, now)) {
      return false;
    }
  }
  if (made || deleted) table_ = std::move(made);
  if (table_) finish(*table_, staged);
  return true;
}

std::optional<std::vector<nft::Bytes>> KernelModel::elements(const std::string& set,
                                                             const KernelTime& now) const {
  if (!table_) return std::nullopt;
  const auto found = table_->sets.find(set);
  if (found == table_->sets.end()) return std::nullopt;
  std::vector<nft::Bytes> keys;
  for (const auto& [key, end] : found->second.elements) {
    if (!has_run_out(end, now)) keys.push_back(key);
  }
  return keys;
}

Accepting KernelModel::accepting() const {
  if (!table_) return Accepting();
  const auto blocks_in = [this](const char* name) {
    BlockSet blocks(table_->blocks);
    const auto set = table_->sets.find(name);
    if (set == table_->sets.end()) return blocks;
    for (const auto& [key, end] : set->second.elements) {
      if (const auto block = nft::key_block(key, table_->blocks)) blocks.insert(*block);
    }
    return blocks;
  };
  return {blocks_in("owned"), blocks_in("lingering"), blocks_in("contested")};
}

std::pair<unsigned, std::uint32_t> KernelModel::cut() const {
  return table_ ? std::pair(table_->blocks, table_->seed) : std::pair(0U, 0U);
}

// The rules as the kernel would carry them out, with one register that matters at a time. An
// expression that is none of those `open` is made of ends the rule, so such a table is not closed
// by it.
bool KernelModel::open(const KernelTime& now) const {
  if (!table_) return false;
  const nft::Bytes family{NFPROTO_IPV4};
  for (const nft::Rule& rule : table_->chains.at("open")) {
    Nanos time{0};
    bool goes_on = true;
    for (const nft::Expression& expression : rule.expressions) {
      if (const auto* meta = std::get_if<nft::LoadMeta>(&expression)) {
        if (meta->key == NFT_META_TIME_NS) time = now.realtime;
      } else if (const auto* compare = std::get_if<nft::Compare>(&expression)) {
        goes_on = compare->op == NFT_CMP_GTE && time >= big64(compare->value);
      } else if (const auto* lookup = std::get_if<nft::Lookup>(&expression)) {
        const auto& set = table_->sets.at(lookup->set).elements;
        const auto found = set.find(family);
        const bool in = found != set.end() && !has_run_out(found->second, now);
        goes_on = in != lookup->absent;
      } else if (const auto* verdict = std::get_if<nft::Verdict>(&expression)) {
        if (verdict->code == NF_DROP) return false;
      }
      if (!goes_on) break;
    }
  }
  return true;
}

std::optional<KernelModel::Until> KernelModel::open_until(const KernelTime& now) const {
  if (!open(now)) return std::nullopt;
  Until until{Nanos::max(), Nanos::max()};
  for (const nft::Rule& rule : table_->chains.at("open")) {
    for (const nft::Expression& expression : rule.expressions) {
      if (const auto* compare = std::get_if<nft::Compare>(&expression)) {
        until.realtime = std::min(until.realtime, big64(compare->value));
      } else if (const auto* lookup = std::get_if<nft::Lookup>(&expression)) {
        const auto& end = table_->sets.at(lookup->set).elements.at({NFPROTO_IPV4});
        if (end) until.jiffies = std::min(until.jiffies, *end);
      }
    }
  }
  return until;
}

Transaction changes(const nft::TableConfig& config, const std::optional<Accepting>& known,
                    const nft::Contents& contents) {
  const auto keys = [&](const BlockSet& set) {
    std::vector<nft::Bytes> all;
    set.for_each([&](BlockId block) { all.push_back(nft::block_key(block, config.blocks)); });
    return all;
  };
  Transaction batch;
  for (const nft::SetOfBlocks& set : nft::sets_of_blocks(config)) {
    const BlockSet& wanted = contents.accepting.*set.blocks;
    if (known) {
      const nft::Difference change = nft::difference((*known).*set.blocks, wanted);
      if (!change.remove.empty()) batch.push_back(DeleteElements{set.name, keys(change.remove)});
      if (!change.add.empty()) batch.push_back(AddElements{set.name, keys(change.add)});
    } else {
      batch.push_back(FlushSet{set.name});
      batch.push_back(AddElements{set.name, keys(wanted)});
    }
  }
  batch.push_back(FlushSet{"lease"});
  if (contents.lease) {
    std::vector<nft::Bytes> families;
    for (const std::uint8_t key : nft::lease_keys(config)) families.push_back({key});
    batch.push_back(AddElements{"lease", families, contents.lease->remaining});
  }
  batch.push_back(ReplaceRules{"open", nft::open_rules(config, contents.lease)});
  return batch;
}

Transaction anew(const nft::TableConfig& config, const nft::Contents& contents) {
  return {DeleteTable{}, AddTable{nft::make_plan(config, contents, {}, false).inet}};
}

}  // namespace saru::sim
