// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/ownership_report.h"

#include "agent/journal.h"

namespace saru {

using nlohmann::json;

json describe(const Ownership& ownership) {
  const auto name = [&](const std::optional<NodeId>& node) {
    return node ? json(ownership.name_of(*node)) : json(nullptr);
  };
  json views = json::array();
  for (const ViewRecord& view : ownership.views()) {
    json moves = json::array();
    for (const Move& move : view.moves) {
      moves.push_back(
          {{"from", name(move.from)}, {"to", name(move.to)}, {"blocks", move.blocks.to_ranges()}});
    }
    json taken = json::array();
    for (const Taking& one : view.takings) {
      const auto us = std::chrono::duration_cast<std::chrono::microseconds>(one.gap).count();
      taken.push_back({{"time", rfc3339(one.realtime)},
                       {"from", name(one.from)},
                       {"ended", one.ended ? json(word_of(*one.ended)) : json(nullptr)},
                       {"without_owner_us", one.ended ? json(us) : json(nullptr)},
                       {"blocks", one.blocks.to_ranges()}});
    }
    views.push_back({{"time", rfc3339(view.realtime)},
                     {"view", text_of(view.id)},
                     {"quorate", view.quorate},
                     {"why", view.why},
                     {"members", view.members},
                     {"moves", std::move(moves)},
                     {"taken", std::move(taken)}});
  }
  return views;
}

}  // namespace saru
