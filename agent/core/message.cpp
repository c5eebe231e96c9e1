// SPDX-License-Identifier: GPL-2.0-or-later
// Hello, Leave and Released; the rules by which a message counts.
#include <algorithm>

#include "agent/core/machine.h"

namespace saru {

namespace {

// Exclusions are compared by process: who has not spoken yet has no nonce that all could know.
std::set<ProcessId> processes(const std::vector<MemberId>& members) {
  std::set<ProcessId> result;
  for (const MemberId& member : members) result.insert(member.process);
  return result;
}

bool contains(const std::vector<MemberId>& members, const MemberId& member) {
  return std::find(members.begin(), members.end(), member) != members.end();
}

}  // namespace

bool Machine::names_me(const std::vector<MemberId>& members) const {
  return contains(members, s.me);
}

bool Machine::in_view(const Message& message) const {
  return s.view.open && message.view == s.view.id &&
         processes(message.excluded) == s.view.excluded &&
         s.view.peers.contains(message.sender.process);
}

// Corosync promises one membership to all. Where two members see different groups on one ring it
// did not keep that (it has happened), and nobody may acquire anything until the group changes
// again.
void Machine::check_consistency(const Message& message) {
  if (!s.view.open || s.view.frozen || message.view.ring != s.view.id.ring) return;
  const auto& group = s.group;
  const bool stranger =
      std::find(group.begin(), group.end(), message.sender.process) == group.end();
  const auto* hello = std::get_if<Hello>(&message.body);
  const bool same_view =
      message.view == s.view.id && processes(message.excluded) == s.view.excluded;
  if (!stranger && !(hello != nullptr && same_view && hello->group != view_members(s))) return;
  s.view.frozen = true;
  log(LogLevel::kError,
      name_of(message.sender.process) +
          " and this node see different members on one ring: acquiring nothing; if this "
          "stays, restart corosync on one of the two");
}

bool Machine::is_waived(const Message& message) const {
  return s.view.waived.contains(message.sender.process);
}

void Machine::on(const Received& event) {
  if (s.phase != Phase::kIn) return;
  const Message& message = event.message;
  const bool own = message.sender == s.me;
  if (!own && message.sender.process == s.me.process) return;  // said under an earlier name
  if (own && std::holds_alternative<Beat>(message.body)) {
    // Some may have been replaced by newer ones before they were sent.
    s.beats_in_flight = static_cast<unsigned>(s.beats_sent - std::get<Beat>(message.body).n);
  }
  note_nonce(message.sender);
  note_alive(message.sender.process);
  check_consistency(message);
  if (names_me(message.excluded) && planted() != Plant::kStayWhenExcluded) {
    begin_rejoin(name_of(message.sender.process) + " counts this process as silent");
    return;
  }
  if (const auto* hello = std::get_if<Hello>(&message.body)) {
    on_hello(message, *hello);
  } else if (const auto* beat = std::get_if<Beat>(&message.body)) {
    on_beat(message, *beat);
  } else if (const auto* released = std::get_if<Released>(&message.body)) {
    if (in_view(message) && !is_waived(message)) on_released(message, *released);
  } else if (const auto* done = std::get_if<LingerDone>(&message.body)) {
    if (in_view(message) && !is_waived(message)) on_linger_done(message, *done);
  } else if (std::holds_alternative<Leave>(message.body)) {
    on_leave(message);
  } else if (std::holds_alternative<Round>(message.body)) {
    if (in_view(message) && !is_waived(message))
      next_round(s.view.excluded, name_of(message.sender.process) + " asked for a new round");
  } else if (const auto* audit = std::get_if<Audit>(&message.body)) {
    out.push_back(ReplyAudit{audit->token, make_message(s, AuditReply{})});
  } else if (const auto* reply = std::get_if<AuditReply>(&message.body)) {
    out.push_back(AuditAnswer{message.sender.process, *reply});
  }
}

// It may have been a beat of somebody who owns blocks: as good as not having been there. Whoever
// sent it does not understand us either, counts us as silent, and grants itself its lease: nobody's
// blocks wait until nothing of the kind has been heard for a lease.
void Machine::on(const NotUnderstood& event) {
  if (event.from == s.me.process || planted() == Plant::kIgnoreTheUnreadable) return;
  s.unreadable_until = now.raw + guarded(s.longest_lease);
  if (s.quorate_since) s.quorate_since = now.raw;
  s.view.free_at = std::max(s.view.free_at, s.unreadable_until);
}

// A joiner does not know how often its ring's group has been opened, and rings are sometimes
// announced one member at a time: the highest round among those who see the same group is
// everybody's.
bool Machine::adopt_round(const Message& message, const Hello& hello) {
  if (!s.view.open || message.view.ring != s.view.id.ring ||
      message.view.round <= s.view.id.round || planted() == Plant::kKeepOwnRound) {
    return false;
  }
  auto excluded = processes(message.excluded);
  if (excluded.contains(s.me.process)) return false;  // whoever was here before us under this pid
  std::swap(s.view.excluded, excluded);
  const bool same = view_members(s) == hello.group;
  std::swap(s.view.excluded, excluded);
  if (!same) return false;
  open_view(message.view, std::move(excluded), s.view.reason);
  return true;
}

void Machine::on_hello(const Message& message, const Hello& hello) {
  if (names_me(hello.dropped) && planted() != Plant::kStayWhenExcluded) {
    begin_rejoin(message.sender.process == s.me.process
                     ? "this process dropped itself"
                     : "the members went on without this process");
    return;
  }
  s.longest_lease = std::max(s.longest_lease, hello.longest_lease);
  adopt_round(message, hello);
  const ProcessId sender = message.sender.process;
  if (!in_view(message) || view_members(s) != hello.group) return;
  if (const auto waived = s.view.waived.find(sender); waived != s.view.waived.end()) {
    if (waived->second == message.sender.nonce) return;
    if (s.view.confirmed) {  // somebody new under an old pid came after the table was made
      next_round(s.view.excluded, name_of(sender) + " came back");
      return;
    }
    s.view.waived.erase(waived);
  }
  log(LogLevel::kDebug, "hello of " + hello.node_name + ", holding " + hello.held.to_ranges());
  if (counted_out(hello)) {
    begin_rejoin(hello.node_name + " was in a quorate view without this process");
    return;
  }
  Peer& peer = s.view.peers[sender];
  peer.id = message.sender;
  peer.hello = hello;
  peer.lingering = hello.lingering;
  peer.silent_since.clear();
  waive_dropped(hello);
  confirm_if_complete();
}

// The sender may just have granted a lease to somebody who takes our blocks once our own has run
// out. It says this before its first beat in this view, so before it could help us to a longer one.
bool Machine::counted_out(const Hello& hello) const {
  if (s.config.partner || planted() == Plant::kHoldAmongStrangers) return false;
  if (holds_nothing() && !s.kernel.in_flight) return false;
  return !hello.companions.empty() && !names_me(hello.companions);
}

// Only what Hellos of this view say decides, so that all members waive the same.
void Machine::waive_dropped(const Hello& hello) {
  for (const MemberId& gone : hello.dropped) {
    const auto peer = s.view.peers.find(gone.process);
    if (peer == s.view.peers.end()) continue;
    if (peer->second.id && *peer->second.id != gone) continue;
    s.view.waived[gone.process] = gone.nonce;
    log(LogLevel::kDebug, hello.node_name + " has dropped " + name_of(gone.process) +
                              ": not waiting for it in this view");
  }
}

// A process that speaks under a new nonce never speaks under its old one again.
void Machine::note_nonce(const MemberId& sender) {
  s.nonces[sender.process] = sender.nonce;
  for (auto& [member, heard] : s.heard) {
    if (member.process == sender.process && member != sender) heard.gone = true;
  }
  std::erase_if(s.dropped, [&](const MemberId& gone) {
    return gone.process == sender.process && gone != sender;
  });
}

// The sender's kernel is closed: nothing of it need be waited for, in whatever view it said so. Who
// was excluded and says so only now ends a wait, too.
void Machine::on_leave(const Message& message) {
  s.heard.erase(message.sender);
  const ProcessId sender = message.sender.process;
  if (is_partner(sender)) partner_is_closed("its sarud has left");
  const auto& group = s.group;
  if (!s.view.open || std::find(group.begin(), group.end(), sender) == group.end()) return;
  const std::string reason = name_of(sender) + " left";
  auto excluded = s.view.excluded;
  excluded.insert(sender);
  next_round(std::move(excluded), reason);
}

void Machine::on_released(const Message& message, const Released& released) {
  if (released.blocks.blocks() != s.config.blocks) return;
  Peer& peer = s.view.peers[message.sender.process];
  peer.awaited -= released.blocks;
  if (s.config.stays && peer.lingering.blocks() == s.config.blocks) {
    peer.lingering |= released.blocks;
  }
}

// Everybody that was heard, also who seems present: a Hello of this view may yet have it waived.
// Who speaks for itself in the view is left out when the table is made.
std::vector<Departed> Machine::departed() const {
  std::vector<Departed> result;
  for (const auto& [member, heard] : s.heard) {
    const Nanos left = heard.at + guarded(heard.lease) - now.raw;
    if (left > Nanos(0)) result.push_back({member, left});
  }
  while (result.size() > kMaxDropped) {  // what counts is the longest wait
    const auto shorter = [](const Departed& a, const Departed& b) {
      return a.remaining < b.remaining;
    };
    result.erase(std::min_element(result.begin(), result.end(), shorter));
  }
  return result;
}

// Who went missing while the quorum went on never counts again under the same nonce: whose node is
// not on the ring, who was silent, or who left and is back at once (the mark of a paused corosync).
// Nobody is dropped before ring and quorum agree, or both halves of a split would drop each other.
void Machine::drop_missing() {
  if (!has_quorum(s) || s.config.partner) return;
  const auto has = [](const auto& list, const auto& one) {
    return std::find(list.begin(), list.end(), one) != list.end();
  };
  for (const auto& [member, heard] : s.heard) {
    const auto nonce = s.nonces.find(member.process);
    const bool replaced = nonce != s.nonces.end() && nonce->second != member.nonce;
    if (replaced || has(s.dropped, member)) continue;
    const bool off_ring = !has(s.ring_members, member.process.node);
    const bool silent = s.view.excluded.contains(member.process);
    const bool came_back = s.continuous && heard.gone && has(s.group, member.process);
    if (off_ring || silent || came_back) s.dropped.push_back(member);
  }
  while (s.dropped.size() > kMaxDropped) s.dropped.pop_front();
}

void Machine::send_hello() {
  drop_missing();
  Hello hello;
  hello.group = view_members(s);
  hello.node_name = s.config.node_name;
  hello.config_hash = s.config.config_hash;
  if (s.next) {
    hello.config_next = s.next->hash;
    hello.next_keeps_blocks = s.next->keeps_blocks;
  }
  hello.weight = s.config.weight;
  hello.eligible = s.config.eligible && !s.stopping && !s.kernel.failed;
  // Each node has a device of its own to hear: without it, it is not quorate where others are.
  if (s.config.device_lag > Nanos(0)) hello.eligible = hello.eligible && has_quorum(s);
  hello.synced = !s.config.syncs || s.synced;
  hello.held = s.kernel.held;
  hello.lingering = s.kernel.lingering;
  hello.departed = departed();
  hello.longest_lease = s.longest_lease;
  const Nanos whole = quorum_wait(s.longest_lease);
  hello.since_remaining = whole;
  if (s.quorate_since) {
    const Nanos left = *s.quorate_since + whole - now.raw;
    hello.since_remaining = std::max(Nanos(0), left);
  }
  hello.dropped.assign(s.dropped.begin(), s.dropped.end());
  std::sort(hello.dropped.begin(), hello.dropped.end());
  if (now.raw < s.companions_until) hello.companions = s.companions;
  hello.votes = votes_of(s.config, s.config.node);
  hello.expected_votes = s.config.expected_votes;
  send(std::move(hello));
  s.view.hello_sent = true;
  s.view.round_sent = false;
  s.need_round.reset();
}

}  // namespace saru
