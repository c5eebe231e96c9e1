// SPDX-License-Identifier: GPL-2.0-or-later
// Beats: what grants the lease, and what shows that a member is silent.
#include <algorithm>

#include "agent/core/machine.h"

namespace saru {

void Machine::send_beat() {
  Beat beat;
  beat.n = ++s.beats_sent;
  beat.lease = s.config.lease;
  beat.t_send = now.raw;
  for (const auto& [process, peer] : s.view.peers) {
    if (peer.id && peer.newest_beat > 0) beat.reports.push_back({peer.id->nonce, peer.newest_beat});
  }
  s.sent.push_back({beat.n, now, s.view.id, beat.lease});
  while (s.sent.size() > 1 && has_passed(s.sent.front().at + s.sent.front().lease, now))
    s.sent.pop_front();
  ++s.beats_in_flight;
  s.last_beat = now.raw;
  // The lowest member sets the pace; the others answer it, and go on by themselves should it be
  // late.
  const Nanos interval = pace();
  s.next_beat = now.raw + (is_pacemaker(s.me.process) ? interval : interval * 5 / 4);
  send(std::move(beat));
}

// All beat as often as the shortest lease among them needs it, or those who have it would take the
// others for silent. (Leases differ while configurations do.)
Nanos Machine::pace() const {
  Nanos shortest = s.config.lease;
  for (const auto& [process, peer] : s.view.peers) {
    if (peer.lease > Nanos(0)) shortest = std::min(shortest, peer.lease);
  }
  return beat_interval(shortest);
}

bool Machine::is_pacemaker(ProcessId process) const {
  const auto members = effective_members(s);
  return !members.empty() && members.front() == process;
}

// All beat together, once per interval, and as soon as everybody has been heard all beat again to
// report it: so no grant is older than one interval, and corosync's token comes to rest in between.
void Machine::answer_beat(ProcessId sender) {
  if (!s.view.hello_sent) return;
  const Nanos interval = pace();
  if (is_pacemaker(sender) && sender != s.me.process && now.raw - s.last_beat >= interval / 2) {
    send_beat();
  }
  const auto members = effective_members(s);
  for (const ProcessId& process : members) {
    if (process == s.me.process) continue;
    // What is left of the last time would have us report before the others have spoken, each time.
    const auto& fresh = s.view.peers[process].fresh;
    if (!fresh || now.raw - *fresh > interval * 3 / 4) return;
  }
  if (members.size() < 2) return;
  for (auto& [process, peer] : s.view.peers) peer.fresh.reset();
  ++s.view.prompt_reports;
  send_beat();
}

void Machine::on_beat(const Message& message, const Beat& beat) {
  const bool own = message.sender == s.me;
  if (own) s.self_delivered = std::max(s.self_delivered, beat.n);
  if (!own) {
    Heard& heard = s.heard[message.sender];
    heard.at = now.raw;
    heard.lease = std::max(heard.lease, beat.lease);
    s.longest_lease = std::max(s.longest_lease, beat.lease);
  }
  if (!in_view(message) || is_waived(message)) return;
  Peer& peer = s.view.peers[message.sender.process];
  if (!peer.id) return;  // a beat before the Hello of the same view says nothing
  peer.newest_beat = std::max(peer.newest_beat, beat.n);
  peer.lease = beat.lease;
  for (const Report& report : beat.reports) {
    if (report.nonce == s.me.nonce) peer.reported = std::max(peer.reported, report.n);
  }
  const bool counts = count_silence(message.sender.process, beat);
  exclude_silent();
  if (s.phase != Phase::kIn || !in_view(message)) return;
  if (!own && (counts || s.view.prompt_reports < kPromptReports)) {
    peer.fresh = now.raw;
    answer_beat(message.sender.process);
  }
  renew();
}

// Every member counts the same beats in the same order. Beats closer together than half the
// interval do not count: a burst from a queue is not time that has passed.
bool Machine::count_silence(ProcessId sender, const Beat& beat) {
  Peer& peer = s.view.peers[sender];
  peer.silent_since.clear();
  const Nanos least = beat_interval(beat.lease) / 2;
  if (peer.counted_t_send && beat.t_send - *peer.counted_t_send < least) return false;
  peer.counted_t_send = beat.t_send;
  for (auto& [process, other] : s.view.peers) {
    if (process != sender) ++other.silent_since[sender];
  }
  return true;
}

void Machine::exclude_silent() {
  const auto members = effective_members(s);
  std::set<ProcessId> silent;
  for (const ProcessId& process : members) {
    std::size_t waiting = 0;
    for (const auto& [other, beats] : s.view.peers[process].silent_since) {
      const bool counts = std::find(members.begin(), members.end(), other) != members.end();
      waiting += counts && beats >= kSilentBeats ? 1 : 0;
    }
    if (waiting >= 1 && waiting * 2 >= members.size() - 1) silent.insert(process);
  }
  if (planted() == Plant::kNeverExclude) silent.clear();
  if (planted() == Plant::kExcludeByOwnClock) {
    silent.clear();
    for (const auto& [member, heard] : s.heard) {
      const bool counts =
          std::find(members.begin(), members.end(), member.process) != members.end();
      if (counts && now.raw - std::max(heard.at, s.view.opened) > s.config.lease / 2) {
        silent.insert(member.process);
      }
    }
  }
  if (silent.empty()) return;
  if (silent.contains(s.me.process) && planted() != Plant::kStayWhenExcluded) {
    begin_rejoin("the members did not hear this process for half a lease");
    return;
  }
  std::string names;
  for (const ProcessId& process : silent) names += " " + name_of(process);
  auto excluded = s.view.excluded;
  excluded.insert(silent.begin(), silent.end());
  next_round(std::move(excluded), "silent:" + names);
}

bool Machine::holds_nothing() const { return wanted().empty() && in_kernel().empty(); }

// Where every node is on this ring there is no other one, and who stayed behind without its
// corosync has no beat to take anything by. Else: a member whose quorum has lasted a whole lease
// was in every quorate ring of that time; whoever may take what we hold is one of its companions,
// and where we are none of them its Hello closes us.
bool Machine::vouched_for() const {
  if (!s.view.confirmed) return false;
  if (are_all_nodes(s.ring_members)) return true;
  return std::any_of(s.view.peers.begin(), s.view.peers.end(), [this](const auto& entry) {
    const auto& [process, peer] = entry;
    const bool counts = process != s.me.process && !s.view.waived.contains(process);
    return counts && peer.hello && peer.hello->since_remaining == Nanos(0);
  });
}

// Accept until t_send(n) + lease, n the newest beat that every other member of this view has
// reported in this view: each of them then waits at least as long before it takes what is ours.
void Machine::renew() {
  if (!has_quorum(s) && planted() != Plant::kRenewWithoutQuorum) return;
  if (s.unproven && !holds_nothing() && !vouched_for()) return;
  s.unproven = false;
  // Else those who are not counted, and whose reports are not asked for, can be a quorum elsewhere.
  if (!doubtful_are_outvoted()) return;
  std::uint64_t n = s.self_delivered;
  bool alone = true;
  if (planted() != Plant::kRenewByOwnDelivery) {
    for (const ProcessId& process : effective_members(s)) {
      if (process == s.me.process) continue;
      alone = false;
      n = std::min(n, s.view.peers[process].reported);
    }
    if (planted() == Plant::kRenewByOneReport) {
      for (const auto& [process, peer] : s.view.peers) n = std::max(n, peer.reported);
    }
    if (alone && !s.view.confirmed) return;
  }
  for (const SentBeat& beat : s.sent) {
    if (beat.n != n) continue;
    if (beat.view != s.view.id) return;
    const bool plant = planted() == Plant::kGrantByNewLease;
    const Instant from = planted() == Plant::kRenewFromNow ? now : beat.at;
    const Instant deadline = from + (plant ? s.config.lease : beat.lease);
    if (has_passed(deadline, now)) return;
    if (!s.granted || deadline.raw > s.granted->raw) s.granted = deadline;
    s.view.granted_from = std::max(s.view.granted_from, beat.at.raw);
    // Who has reported a beat that we sent after the last Hello has seen all Hellos, too.
    if (s.view.confirmed && beat.n > s.view.confirm_beat) s.view.granted = true;
  }
}

void Machine::close_now() {
  s.holding.clear();
  s.releasing.clear();
  s.lingering.clear();
  s.ending.clear();
  s.contested.clear();
  s.granted.reset();
  if (s.view.hello_sent) s.view.tainted = true;
}

// A lease that ran out empties the set; a new round must say so before anything opens again.
void Machine::check_lapse() {
  if (!s.granted || !has_passed(*s.granted, now)) return;
  s.granted.reset();
  s.view.granted = false;
  if (s.config.device_lag > Nanos(0) && s.quorate_since) {
    // While nothing came the device's vote may have gone to others, and the news be on its way.
    s.quorate_since = now.raw;
    if (s.view.hello_sent && !s.view.to_free.empty()) s.need_round = RoundReason::kLapse;
  }
  if (wanted().empty() || planted() == Plant::kLapseUnnoticed) return;
  log(LogLevel::kWarning, "the lease ran out: this node closed its " +
                              std::to_string(s.holding.size()) +
                              " blocks; the other members were not heard in time");
  close_now();
  if (s.view.hello_sent) s.need_round = RoundReason::kLapse;
}

void Machine::forget_expired() {
  std::erase_if(s.heard, [&](const auto& entry) {
    return entry.second.at + guarded(entry.second.lease) < now.raw;
  });
}

}  // namespace saru
