// SPDX-License-Identifier: GPL-2.0-or-later
// Group, ring and quorum callbacks become views.
#include <algorithm>
#include <utility>

#include "agent/core/machine.h"

namespace saru {

// From here on nobody gets a lease from us in the view that was open; those it gave run out.
void Machine::leave_view() {
  if (s.view.confirmed_quorate) {
    s.companions_until = std::max(s.companions_until, now.raw + guarded(s.longest_lease));
  }
}

void Machine::open_view(ViewId id, std::set<ProcessId> excluded, const std::string& reason) {
  leave_view();
  View view;
  view.open = true;
  view.id = id;
  view.excluded = std::move(excluded);
  view.opened = now.raw;
  view.reason = reason;
  view.mine = view.to_acquire = view.to_free = view.to_release = BlockSet(s.config.blocks);
  const View last = std::exchange(s.view, std::move(view));
  s.releasing.clear();
  s.preparing = s.prepared = BlockSet(s.config.blocks);
  s.first_ticket = s.next_ticket;
  s.ending.clear();  // what the kernel still holds of it, and of them, the next Hello says
  s.need_round.reset();
  if (planted() == Plant::kForgetHeard) s.heard.clear();
  for (const ProcessId& process : effective_members(s)) {
    Peer& peer = s.view.peers[process];
    peer.awaited = peer.lingering = BlockSet(s.config.blocks);
  }
  plant_remains(last);
  if (!s.view.peers.contains(s.me.process)) s.view.open = false;
}

// Planted bugs: what a new view must not take over from the last one.
void Machine::plant_remains(const View& last) {
  if (last.id.ring != s.view.id.ring) return;
  if (planted() == Plant::kAcquireAcrossViews) {
    s.view.to_free = last.to_free;
    s.view.free_at = last.free_at;
  }
  if (planted() != Plant::kHelloOfOldView) return;
  for (auto& [process, peer] : s.view.peers) {
    const auto before = last.peers.find(process);
    if (before == last.peers.end() || !before->second.hello || process == s.me.process) continue;
    peer.id = before->second.id;
    peer.hello = before->second.hello;
  }
}

void Machine::next_round(std::set<ProcessId> excluded, const std::string& reason) {
  open_view({s.view.id.ring, s.view.id.round + 1}, std::move(excluded), reason);
}

// The process has left the group (or said so): whoever comes under its pid is somebody else.
void Machine::note_gone(ProcessId process) {
  for (auto& [member, heard] : s.heard) {
    if (member.process == process) heard.gone = true;
  }
  s.nonces.erase(process);
  if (planted() != Plant::kTrustLeft) return;
  std::erase_if(s.heard, [&](const auto& entry) { return entry.first.process == process; });
}

void Machine::on(const GroupChanged& event) {
  if (s.phase == Phase::kOut) return;
  const auto before = view_members(s);
  const auto in_group = [this] {
    return std::find(s.group.begin(), s.group.end(), s.me.process) != s.group.end();
  };
  const bool was_in = in_group();
  auto group = event.members;
  std::sort(group.begin(), group.end());
  std::swap(s.group, group);
  note_group(group, event.joined);
  // What was said before our own join was ordered we did not hear: our quorum proves nothing of it.
  // (A join that a ring change overtakes is not always announced as one.)
  const auto& joined = event.joined;
  const bool own_join = std::find(joined.begin(), joined.end(), s.me.process) != joined.end();
  const bool anew = own_join || (!was_in && in_group());
  if (anew && s.quorate_since && planted() != Plant::kKeepSinceOverJoin) {
    s.quorate_since = now.raw;
  }
  auto excluded = s.view.excluded;
  bool again = false;  // somebody left and came back: the same list, other processes
  for (const ProcessId& process : event.left) {
    if (process == s.me.process && s.phase == Phase::kIn) {
      begin_rejoin("corosync says that this process left the group");
    }
    note_gone(process);
    excluded.erase(process);
    again = again || std::find(s.group.begin(), s.group.end(), process) != s.group.end();
  }
  for (const ProcessId& process : joined) excluded.erase(process);
  if (s.group.size() > kMaxMembers) {
    log(LogLevel::kError, "the group has " + std::to_string(s.group.size()) +
                              " members; saru (as CPG) serves at most " +
                              std::to_string(kMaxMembers) +
                              ": the address is closed; stop saru on some nodes");
    close_now();
    s.view.open = false;
    return;
  }
  if (!s.ring || s.phase != Phase::kIn) return;
  std::swap(s.view.excluded, excluded);
  // A view has one list of excluded, or messages under way in it would count for nobody.
  const bool changed =
      view_members(s) != before || s.view.excluded != excluded || again || !s.view.open;
  std::swap(s.view.excluded, excluded);
  if (!changed) {
    s.view.excluded = std::move(excluded);
    return;
  }
  s.view.id.ring = *s.ring;
  next_round(std::move(excluded), event.joined.empty() ? "a member left" : "a member joined");
}

void Machine::on(const RingChanged& event) {
  note_ring(event);
  if (s.ring == event.ring && s.view.open) return;  // a joiner is told the ring it is already in
  s.ring = event.ring;
  s.ring_since = now.raw;
  s.ring_members = event.members;
  s.beats_in_flight = 0;  // those of the old ring have come, or never will
  leave_view();
  s.view = View{};
  if (s.phase != Phase::kIn || s.group.empty()) return;
  open_view({event.ring, 0}, {}, "the ring changed");
}

void Machine::on(const QuorumChanged& event) {
  const bool had = has_quorum(s);
  unsigned votes_here = 0;
  unsigned came_along = 0;
  bool all_known = true;  // a node that was added since makes the quorum we know of too small
  for (const NodeId& node : event.members) {
    all_known = all_known && (s.config.votes.empty() || s.config.votes.contains(node));
    const unsigned votes = votes_of(s.config, node);
    votes_here += votes;
    if (std::find(event.joined.begin(), event.joined.end(), node) != event.joined.end()) continue;
    came_along += votes;
  }
  // Of who was not understood, the last beats may be among what we did not get of the last ring.
  const bool all_read = now.raw >= s.unreadable_until;
  s.continuous = event.quorate && s.quorate_since && all_known && all_read &&
                 came_along >= s.config.quorum_votes;
  const bool new_ring = !s.quorum || s.quorum->ring != event.ring;
  if (new_ring && !s.continuous) s.synced = false;  // the others said more than came here
  if (!event.quorate) {
    s.quorate_since.reset();
  } else if (!s.continuous) {
    s.quorate_since = now.raw;
  }
  // Where a quorum device makes up for missing votes and nobody joined, no ring was left behind.
  const bool by_device = votes_here < s.config.quorum_votes && came_along == votes_here;
  if (event.quorate && came_along < s.config.quorum_votes && !by_device && !holds_nothing() &&
      !s.config.partner && planted() != Plant::kKeepUnproven) {
    s.unproven = true;
  }
  s.quorum = event;
  if (!event.quorate && planted() != Plant::kRenewWithoutQuorum) {
    if (!s.holding.empty()) {
      log(LogLevel::kWarning,
          "quorum is lost: this node closes its " + std::to_string(s.holding.size()) + " blocks");
    }
    close_now();
  }
  if (had != has_quorum(s) && s.view.hello_sent) s.need_round = RoundReason::kQuorum;
}

void Machine::on(const Joined& event) {
  forget_partner();
  s.me = event.me;
  s.phase = Phase::kIn;
  s.synced = false;  // what was said meanwhile went by
  s.group.clear();
  s.nonces.clear();
  leave_view();
  s.view = View{};
  s.sent.clear();
  s.beats_sent = s.self_delivered = 0;
  s.beats_in_flight = 0;
  s.granted.reset();
  s.leaving_reason.clear();
  s.next_beat = now.raw;
}

void Machine::on(const Disconnected&) {
  log(LogLevel::kError,
      "the connection to corosync is lost: the address is closed on this node until it is back");
  close_now();
  s.partner = {};
  s.before_join.reset();
  s.phase = Phase::kOut;
  leave_view();
  s.view = View{};
  s.group.clear();
  s.ring.reset();
  s.quorum.reset();
  s.quorate_since.reset();
  s.need_round.reset();
}

void Machine::begin_rejoin(const std::string& reason) {
  if (s.phase != Phase::kIn) return;
  log(LogLevel::kWarning, reason + ": closing, leaving the group and coming back under a new name");
  s.phase = Phase::kLeaving;
  s.leaving_reason = reason;
  close_now();
}

// The kernel is closed and has said so: nothing of this nonce is left.
void Machine::finish_leaving() {
  send(Leave{});
  s.phase = Phase::kOut;
  leave_view();
  s.view = View{};
  s.granted.reset();
  s.group.clear();
  if (s.stopping) {
    s.ended = true;
    out.push_back(Left{});
  } else {
    out.push_back(Rejoin{s.leaving_reason});
  }
}

}  // namespace saru
