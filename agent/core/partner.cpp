// SPDX-License-Identifier: GPL-2.0-or-later
// Two nodes that can both be quorate alone (Config::partner): then a lease proves nothing of the
// other one, which may grant itself another. Its blocks are taken once it is known to be closed.
// ARCHITECTURE, "Two nodes", has the argument.
#include <algorithm>
#include <utility>

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
  const bool alone = s.ring && s.ring_members == std::vector{s.config.node};
  if (s.ring) s.before_join.reset();
  if (alone) s.before_join = BeforeJoin{*s.ring, s.partner, s.joined_at};
  s.partner = {};
  s.joined_at = now.raw;
}

void Machine::note_ring(const RingChanged& event) {
  s.partner.bare.reset();
  if (s.before_join) {
    const bool same = s.before_join->ring == event.ring && event.members.size() == 1;
    if (same || planted() == Plant::kKeepClosedOverJoin) {
      s.partner = s.before_join->partner;
      s.joined_at = s.before_join->joined_at.value_or(s.joined_at);
    }
    s.before_join.reset();
  }
  if (const auto told = std::exchange(s.told_fenced, std::nullopt)) on(*told);
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
    s.partner.fenced.reset();
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
  Nanos longest = s.longest_lease;
  for (const auto& [member, heard] : s.heard) {
    if (is_partner(member.process)) longest = std::max(longest, heard.lease);
  }
  if (now.raw >= *s.partner.bare + guarded(longest)) {
    partner_is_closed("it has been on this node's ring for a lease without sarud");
  }
}

// One that began before the node came into our group, or before we joined, may have been followed
// by a start in which it got blocks.
void Machine::on(const Fenced& event) {
  if (event.node != s.config.partner || s.partner.closed) return;
  const bool known = s.phase == Phase::kIn && s.ring;
  // "Alone" is said again every second. Who comes after it was said comes with another ring.
  const bool alone =
      known && !s.partner.met && s.ring_members.size() == 1 && event.began_after > s.ring_since;
  if (event.alone && !alone) return;
  if (!known) {  // judged once the next ring is known
    s.told_fenced = event;
    return;
  }
  const Nanos since = s.partner.met.value_or(s.joined_at);
  const bool counts = event.alone || event.began_after > since;
  if (counts || planted() == Plant::kBelieveOldFences) {
    s.partner.fenced = now.raw;
    return;
  }
  log(LogLevel::kWarning, "a fencing of " + name_of({event.node, 0}) +
                              " does not count: it may have begun before that node got blocks; "
                              "if it is down: saructl confirm-dead");
}

// What was fenced speaks no more, not for long at least.
void Machine::note_alive(const ProcessId& sender) {
  if (!is_partner(sender) || !s.partner.fenced) return;
  if (now.raw <= *s.partner.fenced + guarded(s.longest_lease)) return;
  s.partner.fenced.reset();
  log(LogLevel::kWarning, name_of(sender) +
                              " was reported as fenced, but goes on speaking: its "
                              "fencing does not count");
}

void Machine::on(const ConfirmedDead& event) {
  const auto& ring = s.ring_members;
  const bool here = std::find(ring.begin(), ring.end(), event.node) != ring.end();
  if (event.node != s.config.partner || s.phase != Phase::kIn || here) return;
  partner_is_closed("the administrator says so");
}

}  // namespace saru
