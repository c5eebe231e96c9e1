// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "tests/sim/world.h"

namespace saru::sim {

namespace {
constexpr Time kHurt = 45 * kSecond;
constexpr Time kQuiet = 4 * kSecond;
constexpr unsigned kLeastChanges = 20;
}  // namespace

void World::heal_network() {
  for (Node& m : machines_) m.component = 0;
  reform(10 * kMs, 300 * kMs);
}

// From here on nothing goes wrong any more. Ghosts may stay: half of the time they do.
void World::heal_everything() {
  healing_ = true;
  std::fill(loss_until_.begin(), loss_until_.end(), 0);
  for (Node& m : machines_) {
    const unsigned i = m.index;
    m.trap.reset();
    m.refusals = m.lost_acks = 0;
    m.slow_until = 0;
    wake(i);
    m.sarud_paused = false;
    pump_soon(i, 0);
    m.stays_off = false;
    if (!m.up) boot(i);
    if (m.corosync_paused) {
      const bool dead = !m.ring;
      ++m.corosync_stops;
      m.corosync_paused = false;
      if (dead) {
        start_corosync(i);
      } else if (rings_.contains(*m.ring)) {
        auto waiting = std::exchange(m.out, {});
        for (const Item& item : waiting) originate(i, item);
      }
    }
    if (m.wire_version != kWireVersion) {
      m.wire_version = kWireVersion;
      kill_process(i, 10 * kMs);
    }
    if (m.process) {
      m.process->try_again_until = 0;
      flush_outbox(i);
    }
    m.weight = static_cast<std::uint16_t>(std::max<unsigned>(m.weight, 1));
    order(i, SetWeight{m.weight});
    order(i, SetEligible{true, ""});
    reload(i, m.version = newest_);
  }
  if (chance(0.5)) {
    for (const Ghost& ghost : std::exchange(ghosts_, {})) {
      originate(ghost.process.node.value - 1, {Item::kLeave, ghost.process, nullptr});
    }
  }
  if (settings_.fencing) lose_one_for_good();
  heal_network();
}

Nanos World::longest_lease_now() const {
  Nanos longest{0};
  for (const Node& m : machines_) longest = std::max(longest, m.longest_lease);
  return std::max(longest, lease(newest_));
}

std::string World::unowned() const {
  std::string missing;
  for (unsigned b = 0; b < newest_.blocks(); ++b) {
    if (owners(b) != 1) missing += " " + std::to_string(b);
  }
  return missing.empty() ? "" : "nobody accepts blocks" + missing;
}

// Safe, but stuck, is not healed.
std::string World::disagreement() const {
  for (const Node& m : machines_) {
    const std::string name = "n" + std::to_string(m.index + 1);
    if (m.stays_off) continue;
    if (!m.process) return name + " has no process";
    const State& state = *m.process->state;
    if (!state.view.confirmed) return name + " is in no confirmed view";
    if (state.view.frozen) return name + " is in a frozen view";
    if (state.kernel.failed) return name + " owns nothing yet, after a refused write";
    if (state.config.config_hash != newest_.hash() || state.next) {
      return name + " does not have the newest configuration";
    }
  }
  return "";
}

// Phase one hurts, phase two heals and then demands that every block has its owner within
// 5 leases + 8 s (the longest restart takes 3 s, a refused write 5 s, then come the wait of a
// restarted process, an exclusion, the wait for the departed and a change of the configuration),
// and keeps it.
void World::run_history() {
  retransmit();
  if (settings_.drift > kDrift) hit(Fault::kWideDrift);
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    at(between(0, kSecond), [=, this] { boot(i); });
  }
  at(3 * kSecond, [this] { inject_faults(kHurt); });
  run_until(kHurt);
  while (!failed() && counts.membership_changes < kLeastChanges) {
    inject(Fault::kReform, any_node());
    run_until(now_ + between(100 * kMs, kSecond));
  }
  if (chance(0.3)) {  // hurt once more, without anything that would open views anew by itself
    const unsigned victim = any_node();
    run_until(now_ + 8 * kSecond);
    inject(chance(0.5) ? Fault::kPauseSarud : Fault::kWeight, victim);
    run_until(now_ + between(0, 3 * kSecond));
  }
  heal_everything();
  const Time healed = now_;
  Time bound = 5 * longest_lease_now().count() + 8 * kSecond;
  if (settings_.device) bound += longest_lease_now().count() + 2 * kDeviceLag;
  // Who is kept away by old_knowledge() comes back later than others, and only then fences.
  if (settings_.fencing) bound += kKnowledgeAway + 3 * longest_lease_now().count();
  Time agreed = -1;
  while (!failed() && now_ < healed + bound) {
    run_until(now_ + 100 * kMs);
    const bool good = unowned().empty() && disagreement().empty();
    if (good && agreed < 0) agreed = now_;
    if (!good) agreed = -1;
    if (agreed >= 0 && now_ >= agreed + 2 * kSecond) break;
  }
  if (!failed() && agreed < 0) fail("not healed in time: " + unowned() + " " + disagreement());
  counts.healed_ns_max = agreed - healed;
  const Time end = std::max(now_ + kQuiet, 61 * kSecond);
  while (!failed() && now_ < end) {
    run_until(now_ + 20 * kMs);
    const std::string missing = unowned();
    if (!failed() && !missing.empty()) fail("quiet: " + missing);
  }
  counts.virtual_ns = counts.virtual_ns_min = now_;
}

// Nothing but one change of the configuration after the other: each must come to its end by itself.
void World::run_changes() {
  for (unsigned i = 0; i < settings_.nodes; ++i) boot(i);
  run_until(8 * kSecond);
  for (unsigned k = 0; k < 8 && !failed(); ++k) {
    reconfigure();
    run_until(now_ + 10 * kSecond + 3 * lease(newest_).count());
    const std::string wrong = unowned() + disagreement();
    if (!failed() && !wrong.empty()) fail("after change " + std::to_string(k + 1) + ": " + wrong);
  }
  counts.virtual_ns = counts.virtual_ns_min = now_;
}

// One machine dies in a healthy cluster. The others' blocks are never without their owner; the dead
// one's have another within 1.3 times the lease.
void World::run_crash() {
  for (unsigned i = 0; i < settings_.nodes; ++i) boot(i);
  run_until(5 * kSecond + 3 * lease(newest_).count() + between(0, kSecond));
  if (!failed() && !unowned().empty()) fail("before the crash: " + unowned());
  if (failed()) return;
  const unsigned victim = any_node();
  const BlockSet lost = machines_[victim].accepts;
  const Time full = settings_.token + settings_.consensus;
  const Time died = now_;
  crash(victim);
  reform(full * 9 / 10, full);
  while (!failed() && now_ < died + 2 * lease(newest_).count()) {
    run_until(now_ + kMs);
    for (unsigned b = 0; b < newest_.blocks(); ++b) {
      const bool its = lost.contains(BlockId{static_cast<std::uint16_t>(b)});
      const bool late = now_ > died + lease(newest_).count() * 13 / 10;
      if (owners(b) == 1 || (its && !late)) continue;
      fail((its ? "the dead node's block " : "a survivor's block ") + std::to_string(b) +
           " has no owner, " + std::to_string((now_ - died) / kMs) + " ms after the crash");
    }
  }
  counts.virtual_ns = counts.virtual_ns_min = now_;
}

}  // namespace saru::sim
