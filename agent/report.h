// SPDX-License-Identifier: GPL-2.0-or-later
// What sarud tells saructl: the core's state as JSON. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/state.h"
#include "agent/options.h"
#include "agent/sync/flow_status.h"

namespace saru {

// The last table that all members agreed on. The core forgets it when a view changes, while the
// blocks stay where they are until the next one is agreed on: people want to see it meanwhile.
struct LastTable {
  std::vector<std::optional<NodeId>> owner;  // by block; empty before the first one
  unsigned moved = 0;
  std::string reason;
};

// The last time that sarud mended the rules or the link in the kernel.
struct Repair {
  Nanos when{0};  // CLOCK_MONOTONIC_RAW
  std::string what;
};

// What the core does not know.
struct Surroundings {
  bool gate_stands = false;
  bool draining = false;
  LastTable table;
  std::optional<Repair> repair;
  std::map<NodeId, std::string> names;
  std::optional<unsigned> lingering_connections;  // as last counted; nullopt: nothing lingers
  std::optional<sync::FlowStatus> flows;          // where connections are synchronised
  std::string flows_problem;
  std::string blind;  // why nothing would be heard of a fencing; empty: it would, or need not
  std::vector<std::string> warnings;  // what is wrong with the link and sarud cannot put right
};

// "open", or why this node accepts nothing; for people.
[[nodiscard]] std::string state_word(const State& state, const Surroundings& around,
                                     const Instant& now);

// Everything that `saructl status`, `map` and `owner` show:
// {"ok", "version", "id", "label", "node", "node_id", "pid", "addresses", "nic", "mac", "blocks",
//  "inside": null or {"addresses", "nic", "mac"}, "selector", "delivery", "connections",
//  "lease_ms", "lease_left_ms", "weight", "eligible", "draining", "gate", "quorate", "state",
//  "owns", "held", "lingering", "contested", "lingering_connections": null or a number,
//  "flows": null or {"synced", "known", "own", "unsent", "blocks_wanted", "not_heard": [node id],
//   "putting", "told", "learned", "wholes", "refused", "damaged", "gaps", "repeated", "events",
//   "overruns", "injected", "replaced", "removed", "failed"},
//  "restored": null or {"ms_ago", "what"},
//  "config": {"hash", "next": null or hash, "waiting_for": [node]},
//  "view": {"open", "ring", "round", "confirmed", "reason", "age_ms", "moved"},
//  "partner": null or {"node", "closed", "may_hold", "blind": null or reason},
//  "members": [{"id", "node", "owns", "weight", "state"}], "warnings": [sentence],
//  "owners": [node id or null, by block], "moving": [{"block", "from", "to"}]}
[[nodiscard]] nlohmann::json describe(const State& state, const Options& options,
                                      const Surroundings& around, const Instant& now);

}  // namespace saru
