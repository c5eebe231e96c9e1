// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel model by hand, for tests/kernel/nft_model_test.py: one command per line on standard
// input, one JSON object per answer. NS is the time on both clocks.
//   apply NS OWNED [LEASE_MS [LINGERING [CONTESTED]]]
//       as nft::Table::apply(): builds anew if the difference does not fit
//   rebuild NS OWNED [LEASE_MS [LINGERING [CONTESTED]]]
//   batch NS OPERATION...
//       flush=SET  add=SET:KEY[:TIMEOUT_MS]  delete=SET:KEY  drop-table
//   read NS
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/sim/kernel_model.h"

namespace {

using nlohmann::json;
using namespace saru;
using namespace saru::sim;

struct Bench {
  KernelModel kernel;
  nft::TableConfig config;
  std::optional<Accepting> known;

  json read(const KernelTime& now);
  json write(const KernelTime& now, std::istream& words, bool all);
  json batch(const KernelTime& now, std::istream& words);
};

// "0-3,7", as BlockSet::to_ranges() writes it; "none".
BlockSet parse_blocks(const std::string& text, unsigned blocks) {
  BlockSet set(blocks);
  std::istringstream ranges(text == "none" ? "" : text);
  for (std::string range; std::getline(ranges, range, ',');) {
    const auto dash = range.find('-');
    const auto first = std::stoul(range);
    const auto last = dash == std::string::npos ? first : std::stoul(range.substr(dash + 1));
    for (auto b = first; b <= last; ++b) set.insert(BlockId{static_cast<std::uint16_t>(b)});
  }
  return set;
}

json Bench::read(const KernelTime& now) {
  if (!kernel.has_table()) return {{"error", "no table"}};
  known = kernel.accepting();
  json answer{{"owned", known->owned.to_ranges()}, {"open", kernel.open(now)}};
  answer["lingering"] = known->lingering.to_ranges();
  answer["contested"] = known->contested.to_ranges();
  const auto lease = kernel.elements("lease", now);
  answer["leased"] = lease && !lease->empty();
  return answer;
}

json Bench::write(const KernelTime& now, std::istream& words, bool all) {
  std::string owned, lingering = "none", contested = "none";
  long lease_ms = -1;
  words >> owned >> lease_ms >> lingering >> contested;
  nft::Contents contents{Accepting::nothing(config.blocks), std::nullopt};
  if (lease_ms >= 1) {
    const Nanos left = std::chrono::milliseconds(lease_ms);
    contents = {{parse_blocks(owned, config.blocks), parse_blocks(lingering, config.blocks),
                 parse_blocks(contested, config.blocks)},
                nft::Lease{left, now.realtime + left}};
  }
  all = all || !kernel.commit(changes(config, known, contents), now);
  if (all && !kernel.commit(anew(config, contents), now)) return {{"error", "refused"}};
  return read(now);
}

json Bench::batch(const KernelTime& now, std::istream& words) {
  Transaction transaction;
  for (std::string word; words >> word;) {
    std::string verb, set, key, timeout;
    std::istringstream parts(word);
    std::getline(parts, verb, '=');
    std::getline(parts, set, ':');
    std::getline(parts, key, ':');
    std::getline(parts, timeout);
    nft::Bytes bytes;
    if (!key.empty() && set != "lease") {
      bytes = nft::block_key(BlockId{static_cast<std::uint16_t>(std::stoul(key))}, config.blocks);
    } else if (!key.empty()) {
      bytes = {static_cast<std::uint8_t>(std::stoul(key))};
    }
    if (verb == "drop-table") transaction.push_back(DeleteTable{});
    if (verb == "flush") transaction.push_back(FlushSet{set});
    if (verb == "delete") transaction.push_back(DeleteElements{set, {bytes}});
    if (verb != "add") continue;
    const Nanos span = std::chrono::milliseconds(timeout.empty() ? 0 : std::stol(timeout));
    transaction.push_back(AddElements{set, {bytes}, span});
  }
  return {{"done", kernel.commit(transaction, now)}};
}

}  // namespace

int main() {
  Bench bench;
  bench.config.id = 1;
  bench.config.addresses = {*IpAddress::parse("10.9.0.1"), *IpAddress::parse("fd09::1")};
  bench.config.nic = "e0";
  bench.config.stays = true;
  bench.config.link = nft::link_name(1);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    Nanos::rep ns = 0;
    words >> command >> ns;
    const KernelTime now{Nanos(ns), Nanos(ns)};
    json answer{{"error", "unknown command " + command}};
    if (command == "apply") answer = bench.write(now, words, false);
    if (command == "rebuild") answer = bench.write(now, words, true);
    if (command == "batch") answer = bench.batch(now, words);
    if (command == "read") answer = bench.read(now);
    std::cout << answer << std::endl;
  }
  return 0;
}
