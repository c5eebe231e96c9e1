// SPDX-License-Identifier: GPL-2.0-or-later
// What saructl prints, made from sarud's JSON (agent/report.h). Pure; 80 columns; nothing depends
// on colour alone.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/client_block.h"

namespace saru {

// ASCII that fits the column: cut, with '~' at the end, or padded.
[[nodiscard]] std::string fit(const std::string& text, std::size_t width);
// "171/512" and the like, 33.4 % with one decimal.
[[nodiscard]] std::string percent(unsigned part, unsigned whole);
// "850 ms", "12 s", "3 min", "5 h", "2 days"
[[nodiscard]] std::string age(std::int64_t milliseconds);

// Of what sarud says; throws, as json does, when it is no number of blocks.
[[nodiscard]] unsigned blocks_in(const nlohmann::json& status);

// "n2, n3"
[[nodiscard]] std::string joined(const nlohmann::json& words);

[[nodiscard]] std::string text_of_status(const nlohmann::json& status);
// Of saructl events: time, level, text.
[[nodiscard]] std::string text_of_events(const nlohmann::json& answer);
// Of saructl events --views: each view, why it came, which blocks moved.
[[nodiscard]] std::string text_of_views(const nlohmann::json& answer);
// Of saructl events --block: who has owned this one block.
[[nodiscard]] nlohmann::json story_of_block(const nlohmann::json& answer, unsigned block);
[[nodiscard]] std::string text_of_story(const nlohmann::json& answer, unsigned block);
[[nodiscard]] std::string text_of_map(const nlohmann::json& status, bool colour);

// With "loads" (new connections by block) in the status: how they spread over the blocks.
[[nodiscard]] std::string text_of_load(const nlohmann::json& status);

// One sarud of this node, as `saructl metrics` found it.
struct Scraped {
  unsigned id = 0;
  std::string node;
  nlohmann::json answer;  // null: it does not answer
};
// Prometheus's text format; `open_metrics`: OpenMetrics, which names counters differently.
[[nodiscard]] std::string text_of_metrics(const std::vector<Scraped>& saruds, bool open_metrics);

// What `saructl owner`, `check` and `monitor` say, and how they end.
struct Answer {
  std::string text;
  bool good = true;
};
// Good: somebody owns the block and it does not move.
[[nodiscard]] Answer text_of_owner(const nlohmann::json& status, const ClientPacket& packet);
// The block of this packet, or why it has none.
[[nodiscard]] tl::expected<unsigned, std::string> find_block(const nlohmann::json& status,
                                                             const ClientPacket& packet);
// Good: each block is accepted by exactly one node, and every node answered.
[[nodiscard]] Answer text_of_check(const nlohmann::json& audit);

}  // namespace saru
