// SPDX-License-Identifier: GPL-2.0-or-later
// Brings the kernel to what the rules allow, one write at a time, and says what follows from its
// answers.
#include <algorithm>

#include "agent/core/machine.h"

namespace saru {

namespace {
constexpr Nanos kRetryAfter = std::chrono::milliseconds(200);
// After a refused write this node owns nothing for so long, or it would open and fail in turn.
constexpr Nanos kRecoverAfter = std::chrono::seconds(5);
}  // namespace

Accepting Machine::wanted() const { return {s.holding, s.lingering, s.contested & s.holding}; }

Accepting Machine::in_kernel() const {
  return {s.kernel.held, s.kernel.lingering, s.kernel.contested};
}

// What the kernel holds is what we want it to hold, and it has said so.
bool Machine::kernel_idle() const {
  return !s.kernel.in_flight && !s.kernel.rebuild && !s.switching && in_kernel() == wanted() &&
         (wanted().empty() ? !s.kernel.deadline : s.kernel.deadline.has_value());
}

bool Machine::may_acquire() const {
  const View& view = s.view;
  const bool quorum = has_quorum(s) || planted() == Plant::kRenewWithoutQuorum;
  if (planted() == Plant::kAcquireAcrossViews && s.granted && quorum && !view.to_free.empty()) {
    return s.phase == Phase::kIn && !s.stopping && !s.kernel.failed;
  }
  return s.phase == Phase::kIn && view.open && view.confirmed && view.granted && !view.tainted &&
         !view.frozen && !s.stopping && !s.kernel.failed && quorum && s.granted;
}

// Somebody in the group whom this view does not count (silent, or dropped) may not have learned of
// it, go to another ring and be granted a longer lease there. Whoever grants it must then be one of
// our members, and a quorum of those makes it so; or it must have left the group.
bool Machine::doubtful_are_outvoted() const {
  const View& view = s.view;
  const bool doubtful = std::any_of(s.group.begin(), s.group.end(), [&](ProcessId process) {
    return view.excluded.contains(process) || view.waived.contains(process);
  });
  if (!doubtful || s.config.partner || planted() == Plant::kCountTheDoubtful) return true;
  unsigned votes = 0;
  for (const ProcessId& process : effective_members(s)) {
    votes += votes_of(s.config, process.node);
  }
  return votes >= s.config.quorum_votes;
}

// By a beat that was sent since: so our ring still stood then, and with it what the wait was for. A
// process that its corosync has left behind has no such beat.
bool Machine::free_ones_are_free() const {
  if (s.partner.closed) return true;  // nobody else can hold any
  // What else Corosync may count, the other side may count too (or its rules have just changed).
  if (lacks_votes(s)) return false;
  const bool plant = planted() == Plant::kTakeByOldBeat || planted() == Plant::kKeepUnproven ||
                     planted() == Plant::kLapseUnnoticed;  // which this rule makes up for
  const Nanos proven = plant ? now.raw : s.view.granted_from;
  return proven >= s.view.free_at && !partner_may_hold(s);
}

bool Machine::beat_is_due() const {
  if (!s.view.hello_sent) return false;
  const bool waited = s.view.confirmed && !s.view.to_free.empty() && now.raw >= s.view.free_at;
  return now.raw >= s.next_beat || (waited && s.last_beat < s.view.free_at);
}

void Machine::acquire_what_is_ready() {
  if (!may_acquire()) return;
  View& view = s.view;
  BlockSet ready = view.to_acquire;
  for (const auto& [process, peer] : view.peers) {
    if (peer.awaited.blocks() == s.config.blocks) ready -= peer.awaited;
  }
  if (free_ones_are_free() && doubtful_are_outvoted()) ready |= view.to_free;
  prepare(ready);
  ready = prepared_of(ready);
  if (ready.empty()) return;
  view.to_acquire -= ready;
  view.to_free -= ready;
  s.holding |= ready;
  s.lingering -= ready;
  contest(ready);
  const auto after = std::chrono::duration_cast<std::chrono::microseconds>(now.raw - view.opened);
  log(LogLevel::kInfo, "takes " + std::to_string(ready.size()) + " blocks, " +
                           std::to_string(after.count()) + " us after the view opened");
}

// A loser goes on serving until the lease has been granted in this view: then the winners have, or
// are about to have, theirs, and the blocks are dark for one message only.
void Machine::release_what_must_go() {
  View& view = s.view;
  if (!view.confirmed || view.to_release.empty() || (!view.granted && s.granted)) return;
  const BlockSet gone = s.holding & view.to_release;
  view.to_release.clear();
  s.holding -= gone;
  s.releasing |= gone;
  if (lets_linger()) s.lingering |= gone;
  if (planted() == Plant::kReleaseBeforeAck) send(Released{gone, 0});
}

void Machine::say_released() {
  if (s.kernel.in_flight || s.kernel.rebuild || s.releasing.empty() ||
      s.kernel.held.intersects(s.releasing)) {
    return;
  }
  if (planted() != Plant::kReleaseBeforeAck) send(Released{s.releasing, 0});
  s.releasing.clear();
  // Who waits for another configuration's blocks is not told whose they become: a new table says.
  if (s.view.foreign && !s.switching) s.need_round = RoundReason::kConfig;
}

bool Machine::keeps_holding(const Reconfigure& next) const {
  const bool plant = planted() == Plant::kSwitchHolding && next.blocks == s.config.blocks;
  return next.keeps_blocks || plant;
}

// What a block is must not change while we hold any. They are released in order, so that the others
// lose no time; if the view is gone, at once.
void Machine::prepare_switch() {
  if (!s.switching || keeps_holding(*s.next)) return;
  forget_lingering();
  const bool in_order = s.view.confirmed && !s.view.to_release.empty();
  if (!in_order) s.holding.clear();
}

bool Machine::switch_is_due() const {
  if (!s.switching) return false;
  if (keeps_holding(*s.next)) return true;
  return s.holding.empty() && s.releasing.empty() && in_kernel().empty();
}

// The kernel has the new configuration.
void Machine::finish_switch() {
  const Reconfigure next = *s.next;
  s.next.reset();
  s.switching = false;
  s.config.config_hash = next.hash;
  s.config.lease = next.lease;
  s.longest_lease = std::max(s.longest_lease, next.lease);
  s.need_round = RoundReason::kConfig;
  if (s.view.foreign) s.synced = false;  // what was told of other blocks went by
  if (s.config.blocks == next.blocks) return;
  // Nothing is held, and the sets of the open view mean nothing any more.
  const BlockSet none(next.blocks);
  s.config.blocks = next.blocks;
  s.holding = s.releasing = s.kernel.held = none;
  s.lingering = s.ending = s.contested = s.kernel.lingering = s.kernel.contested = none;
  s.preparing = s.prepared = none;
  View& view = s.view;
  view.frozen = view.frozen || view.hello_sent;  // its Hello spoke of the old blocks
  view.owner.assign(next.blocks, std::nullopt);
  view.mine = view.to_acquire = view.to_release = view.to_free = none;
  for (auto& [process, peer] : view.peers) {
    const bool known = peer.hello && peer.hello->lingering.blocks() == next.blocks;
    peer.awaited = none;
    peer.lingering = known ? peer.hello->lingering : none;
  }
}

// What was granted before the switch ends no later than what will be granted after it: once all
// have switched, nobody waits for the old lease any more (forget_longer_leases).
void Machine::shorten_lease(Nanos lease) {
  const Instant most = now + lease;
  if (s.granted && most.raw < s.granted->raw) s.granted = most;
  for (SentBeat& beat : s.sent) beat.lease = std::min(beat.lease, lease);
}

void Machine::write_kernel() {
  if (s.kernel.in_flight) return;
  if (s.kernel.failed && now.raw < s.kernel.retry_at) return;
  if (switch_is_due()) shorten_lease(s.next->lease);
  std::optional<Instant> deadline;
  const Accepting accepting = wanted();
  if (!accepting.empty()) deadline = s.granted;
  const bool plant = planted() == Plant::kLapseUnnoticed && !s.holding.empty() && !s.granted;
  if (plant) return;
  if (switch_is_due()) {
    s.kernel.in_flight = KernelWrite{
        s.kernel.next_seq++, accepting.empty() ? Accepting::nothing(s.next->blocks) : accepting,
        deadline, true, s.next->hash};
    s.kernel.rebuild = false;
    out.push_back(*s.kernel.in_flight);
    return;
  }
  if (!s.kernel.rebuild && in_kernel() == accepting && s.kernel.deadline == deadline) return;
  KernelWrite write{s.kernel.next_seq++, accepting, deadline, s.kernel.rebuild, std::nullopt};
  s.kernel.in_flight = write;
  s.kernel.rebuild = false;
  out.push_back(write);
}

void Machine::on(const KernelDone& event) {
  if (!s.kernel.in_flight || s.kernel.in_flight->seq != event.seq) return;
  const KernelWrite write = *s.kernel.in_flight;
  s.kernel.in_flight.reset();
  if (!event.ok) {
    log(LogLevel::kError,
        "the kernel refused a change (" + event.error + "): this node closes and owns nothing");
    s.kernel.retry_at = s.kernel.failed ? now.raw + kRetryAfter : now.raw;
    s.kernel.failed = true;
    s.kernel.recover_at = now.raw + kRecoverAfter;
    s.kernel.rebuild = true;
    close_now();
    s.need_round = RoundReason::kFailure;
    if (write.config) {  // once refused, it is not tried again until the administrator says so
      s.switching = false;
      s.next.reset();
    }
    return;
  }
  if (write.config) finish_switch();
  s.kernel.held = event.accepting.owned;
  s.kernel.lingering = event.accepting.lingering;
  s.kernel.contested = event.accepting.contested;
  s.kernel.deadline = write.deadline;
  const auto is_within = [](const BlockSet& part, const BlockSet& whole) {
    return (part - whole).empty();
  };
  const Accepting& is = event.accepting;
  const Accepting& told = write.accepting;
  if (!is_within(is.owned, told.owned) || !is_within(is.lingering, told.lingering) ||
      is.contested != (told.contested & is.owned)) {
    s.kernel.rebuild = true;  // somebody else wrote into our sets
  } else if (is != told) {
    // The deadline had passed when the kernel was to be written: it was closed instead.
    s.kernel.deadline.reset();
    close_now();
    if (s.view.hello_sent) s.need_round = RoundReason::kLapse;
  }
}

void Machine::on(const KernelDisturbed& event) {
  log(LogLevel::kWarning, event.what + ": writing the whole table again");
  s.kernel.rebuild = true;
}

void Machine::settle() {
  forget_expired();
  if (s.kernel.failed && kernel_idle() && now.raw >= s.kernel.recover_at) {
    s.kernel.failed = false;
    s.need_round = RoundReason::kChange;
  }
  if (s.phase == Phase::kIn) {
    look_for_partner();
    release_what_must_go();
    prepare_what_comes();
    acquire_what_is_ready();
    look_at_contested();
  }
  prepare_switch();
  say_released();
  say_linger_done();
  write_kernel();
  say_released();
  say_linger_done();
  const bool idle = kernel_idle();
  if (s.phase == Phase::kLeaving) {
    if (idle && holds_nothing()) finish_leaving();
    return;
  }
  if (s.phase == Phase::kOut) {
    if (s.stopping && !s.ended && idle) {
      s.ended = true;
      out.push_back(Left{});
    }
    return;
  }
  if (s.view.change_at && now.raw >= *s.view.change_at) {
    s.view.change_at.reset();
    if (s.next) s.need_round = RoundReason::kConfig;
  }
  const bool told = s.quorum && s.ring && s.quorum->ring == *s.ring;
  if (s.view.open && !s.view.hello_sent && told && idle) send_hello();
  if (s.view.open && s.need_round && s.view.hello_sent && !s.view.round_sent) {
    s.view.round_sent = true;
    send(Round{*s.need_round});
  }
  if (beat_is_due()) {
    if (s.beats_in_flight < kMaxBeatsInFlight) {
      if (now.raw < s.next_beat) s.view.prompt_reports = 0;  // others wait for the same moment
      send_beat();
    } else {
      s.next_beat = now.raw + pace();
    }
  }
  if (!s.stopping) return;
  const bool handed_over =
      s.view.confirmed && s.holding.empty() && s.releasing.empty() && idle && !s.need_round;
  if (handed_over || !s.view.open || now.raw >= s.stop_by) {
    s.phase = Phase::kLeaving;
    s.leaving_reason = "asked to stop";
    close_now();
    write_kernel();
    if (kernel_idle()) finish_leaving();
  }
}

}  // namespace saru
