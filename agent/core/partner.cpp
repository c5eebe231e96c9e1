// SPDX-License-Identifier: GPL-2.0-or-later
// Two nodes that can both be quorate alone (Config::partner): then a lease proves nothing of the
// other one, which may grant itself another. Its blocks are taken once it is known to be closed.
// ARCHITECTURE, "Two nodes", has the argument.
#include <algorithm>

#include "agent/core/machine.h"

namespace saru {

std::optional<RingId> closed_on(const State& state) {
  const bool alone = state.ring && state.ring_members == std::vector{state.config.node};
  return alone && state.partner.closed ? state.ring : std::nullopt;
}

bool partner_may_hold(const State& state) {
  if (!state.config.partner || state.partner.closed || planted() == Plant::kNoFenceWait) {
    return false;
  }
  const auto members = effective_members(state);
  return std::none_of(members.begin(), members.end(), [&](const ProcessId& process) {
    return process.node == *state.config.partner;
  });
}

bool Machine::is_partner(const ProcessId& process) const {
  return process.node == s.config.partner;
}

// At our join. While we were not in the group, the partner may have seen that and gone on without
// us; unless it was not on our ring then and is not now.
void Machine::forget_partner() {
  if (s.ring) s.closed_before_join = closed_on(s);
  s.partner = {};
  s.joined_at = now.raw;
}

void Machine::note_ring(const RingChanged& event) {
  s.partner.bare.reset();
  if (!s.closed_before_join) return;
  const bool same = s.closed_before_join == event.ring && event.members.size() == 1;
  s.partner.closed = same || planted() == Plant::kKeepClosedOverJoin;
  s.closed_before_join.reset();
}

// A process of it in our group may get blocks with our consent.
void Machine::note_group(const std::vector<ProcessId>& before,
                         const std::vector<ProcessId>& joined) {
  const auto has = [](const auto& list, const ProcessId& process) {
    return std::find(list.begin(), list.end(), process) != list.end();
  };
  for (const ProcessId& process : s.group) {
    if (!is_partner(process) || (has(before, process) && !has(joined, process))) continue;
    s.partner.met = now.raw;
    s.partner.fenced = false;
    if (planted() != Plant::kKeepClosedWhenMet) s.partner.closed = false;
  }
}

void Machine::partner_is_closed(const std::string& why) {
  if (s.partner.closed) return;
  s.partner.closed = true;
  std::erase_if(s.heard, [&](const auto& entry) { return is_partner(entry.first.process); });
  log(LogLevel::kNotice, name_of({*s.config.partner, 0}) + " holds nothing: " + why);
}

// A fencing may have been told before corosync noticed that the node is gone. And on our ring, with
// no sarud in the group for a lease, no process of it is in another group, and whatever the last
// one was granted has ended.
void Machine::look_for_partner() {
  if (!s.config.partner) return;
  const bool in_group =
      std::any_of(s.group.begin(), s.group.end(),
                  [this](const ProcessId& process) { return is_partner(process); });
  const auto& ring = s.ring_members;
  const bool on_ring = std::find(ring.begin(), ring.end(), *s.config.partner) != ring.end();
  if (!in_group && s.partner.fenced) partner_is_closed("it was fenced");
  if (in_group || !on_ring || !s.view.open) {
    s.partner.bare.reset();
    return;
  }
  if (!s.partner.bare) s.partner.bare = now.raw;
  if (now.raw >= *s.partner.bare + guarded(s.longest_lease)) {
    partner_is_closed("it has been on this node's ring for a lease without sarud");
  }
}

// One that began before the node came into our group, or before we joined, may have been followed
// by a start in which it got blocks.
void Machine::on(const Fenced& event) {
  if (event.node != s.config.partner || s.phase != Phase::kIn) return;
  const Nanos since = s.partner.met.value_or(s.joined_at);
  const bool counts = event.alone ? !s.partner.met : event.began_after > since;
  if (counts || planted() == Plant::kBelieveOldFences) {
    s.partner.fenced = true;
    return;
  }
  log(LogLevel::kWarning, "a fencing of " + name_of({event.node, 0}) +
                              " does not count: it may have begun before that node got blocks");
}

void Machine::on(const ConfirmedDead& event) {
  const auto& ring = s.ring_members;
  const bool here = std::find(ring.begin(), ring.end(), event.node) != ring.end();
  if (event.node != s.config.partner || s.phase != Phase::kIn || here) return;
  partner_is_closed("the administrator says so");
}

}  // namespace saru
