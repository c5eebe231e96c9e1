// SPDX-License-Identifier: GPL-2.0-or-later
// One thing that goes wrong, or one thing that an administrator does.
#include <algorithm>

#include "tests/sim/world.h"

namespace saru::sim {

void World::inject_faults(Time until) {
  if (now_ >= until) return;
  // The last ones of this list are rarer than the others.
  static constexpr Fault kKinds[] = {
      Fault::kSplit,         Fault::kSplit,         Fault::kOneWay,       Fault::kOneWay,
      Fault::kFlapping,      Fault::kBridge,        Fault::kPauseSarud,   Fault::kPauseCorosync,
      Fault::kPauseMachine,  Fault::kPauseMachine,  Fault::kSuspend,      Fault::kTrapEvent,
      Fault::kTrapAction,    Fault::kTrapSend,      Fault::kTrapClocks,   Fault::kTrapCommit,
      Fault::kTrapCommit,    Fault::kTrapAck,       Fault::kKill,         Fault::kKill,
      Fault::kKillWriting,   Fault::kKillCorosync,  Fault::kCrash,        Fault::kCrash,
      Fault::kReform,        Fault::kReform,        Fault::kGhost,        Fault::kTryAgain,
      Fault::kRefusedWrite,  Fault::kLostAck,       Fault::kSlowWrite,    Fault::kFlush,
      Fault::kClockStep,     Fault::kDrain,         Fault::kWeight,       Fault::kStop,
      Fault::kReconfigure,   Fault::kReconfigure,   Fault::kOtherVersion, Fault::kHungMajority,
      Fault::kUnheardSwitch, Fault::kUnheardSwitch, Fault::kChangeStorm,  Fault::kMassRestart,
      Fault::kLonelyVersion, Fault::kChangeAndDie,
  };
  const bool story = settings_.fencing && chance(0.03);
  if (settings_.device) {
    if (chance(0.05)) lose_device(any_node(), between(100 * kMs, 10 * kSecond));
    if (chance(0.05)) turn_device();
  }
  inject(story ? Fault::kOldKnowledge : kKinds[rng_.below(std::size(kKinds))], any_node());
  const Time next = chance(0.4) ? between(kMs, 300 * kMs) : between(300 * kMs, 2500 * kMs);
  later(now_ + next, [=, this] { inject_faults(until); });
}

void World::inject(Fault fault, unsigned node) {
  const Time full = settings_.token + settings_.consensus;
  bool done = true;
  switch (fault) {
    case Fault::kSplit:
      split();
      break;
    case Fault::kOneWay:
      lose_frames(node);
      break;
    case Fault::kFlapping:
      flap();
      break;
    case Fault::kBridge:
      bridge();
      break;
    case Fault::kPauseCorosync:
      done = stop_corosync(
          node, chance(0.5) ? between(50 * kMs, 600 * kMs) : between(600 * kMs, 6 * kSecond));
      break;
    case Fault::kPauseMachine:
      done = stop_machine(node, between(100 * kMs, 5 * kSecond));
      break;
    case Fault::kSuspend:
      done = suspend(node, between(100 * kMs, 5 * kSecond));
      break;
    case Fault::kKillCorosync:
      done = kill_corosync(node, between(50 * kMs, 4 * kSecond));
      break;
    case Fault::kCrash:
      done = crash(node);
      reform(full * 8 / 10, full);
      later(now_ + between(500 * kMs, 5 * kSecond), [=, this] { boot(node); });
      break;
    case Fault::kReform:  // a membership change without a token loss
      trace(node, "the ring reforms for nothing");
      form_later(machines_[node].component, between(10 * kMs, 100 * kMs));
      break;
    case Fault::kHungMajority:
      done = hung_majority(node);
      break;
    case Fault::kUnheardSwitch:
      done = unheard_switch(node);
      break;
    case Fault::kChangeStorm:
      change_storm(node);
      break;
    case Fault::kMassRestart:
      mass_restart(node);
      break;
    case Fault::kLonelyVersion:
      done = lonely_version(node);
      break;
    case Fault::kChangeAndDie:
      change_and_die(node);
      break;
    case Fault::kReconfigure:
      reconfigure();
      break;
    case Fault::kOldKnowledge:
      old_knowledge(node);
      break;
    default:
      inject_at_process(fault, node);
      return;
  }
  if (done) hit(fault);
}

// Those that need a process; they count themselves where they may come to nothing.
void World::inject_at_process(Fault fault, unsigned node) {
  Node& m = machines_[node];
  if (!m.process) return;
  bool done = true;
  switch (fault) {
    case Fault::kPauseSarud:  // short and long, around the limits that matter
      done = stop_sarud(
          node, chance(0.5) ? between(50 * kMs, 500 * kMs) : between(500 * kMs, 5 * kSecond));
      break;
    case Fault::kKill:
      kill_process(node, between(5 * kMs, 2 * kSecond));
      break;
    case Fault::kGhost:
      kill_process(node, between(5 * kMs, 2 * kSecond), true);
      return;
    case Fault::kTryAgain:
      try_again(node, between(10 * kMs, 600 * kMs));
      break;
    case Fault::kRefusedWrite:
      m.refusals = static_cast<unsigned>(between(1, 4));
      return;
    case Fault::kLostAck:
      m.lost_acks = static_cast<unsigned>(between(1, 2));
      return;
    case Fault::kSlowWrite:
      m.slow_until = now_ + between(100 * kMs, 3 * kSecond);
      return;
    case Fault::kFlush:
      done = disturb_kernel(node);
      break;
    case Fault::kClockStep:
      set_wall_clock(node);
      return;
    case Fault::kDrain:
      drain_for_a_while(node);
      break;
    case Fault::kWeight:
      change_weight(node);
      break;
    case Fault::kStop:
      order(node, StopRequested{});
      break;
    case Fault::kOtherVersion:
      done = use_other_version(node);
      break;
    default:
      set_trap(node, fault);
      return;
  }
  if (done) hit(fault);
}

bool World::stop_machine(unsigned node, Time span) {
  const bool sarud = stop_sarud(node, span);
  return stop_corosync(node, span) || sarud;
}

void World::try_again(unsigned node, Time span) {
  Process* p = machines_[node].process.get();
  if (p == nullptr) return;
  p->try_again_until = now_ + span;
  trace(node, "TRY_AGAIN");
  later(p->try_again_until, [=, this, pid = p->id.pid] {
    if (process_of(node, pid) != nullptr) flush_outbox(node);
  });
}

void World::split() {
  const Time full = settings_.token + settings_.consensus;
  const auto ways = static_cast<unsigned>(between(1, 3));
  for (Node& m : machines_) m.component = static_cast<unsigned>(rng_.below(ways));
  trace(0, "the network splits");
  reform(full * 8 / 10, full);
  later(now_ + between(200 * kMs, 6 * kSecond), [this] { heal_network(); });
}

// From one to all, from all to one, or between two; shorter than the token can take, or the ring
// breaks. Afterwards the machine may stop, so that nobody can say again what was lost.
void World::lose_frames(unsigned node) {
  const bool token_lost = chance(0.3);
  const Time span =
      token_lost ? settings_.token : between(settings_.token / 5, settings_.token * 4 / 5);
  const auto kind = rng_.below(4);
  const unsigned other = any_node();
  const Time until = now_ + span;
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    if (kind != 1) {
      if (kind != 2 || i == other) loss_until_[node * kMostNodes + i] = until;
    } else {
      loss_until_[i * kMostNodes + node] = until;
    }
  }
  trace(node, "frames are lost one way for " + std::to_string(span / kMs) + " ms");
  if (token_lost) {
    later(until, [=, this] {
      machines_[node].component = next_component_++;
      reform(settings_.consensus / 2, settings_.consensus);
      later(now_ + between(200 * kMs, 4 * kSecond), [this] { heal_network(); });
    });
  } else if (chance(0.7)) {
    const Time stop = between(kSecond, 4 * kSecond);
    later(until - kMs, [=, this] {
      stop_sarud(node, stop);
      stop_corosync(node, stop);
    });
  }
}

void World::flap() {
  trace(0, "the network flaps");
  Time when = now_;
  for (Time k = between(2, 6); k > 0; --k) {
    later(when, [this] {
      for (Node& m : machines_) m.component = static_cast<unsigned>(rng_.below(2));
      reform(10 * kMs, settings_.consensus);
    });
    when += between(30 * kMs, 900 * kMs);
  }
  later(when, [this] { heal_network(); });
}

// A node that reaches both sides belongs now to one, now to the other.
void World::bridge() {
  const unsigned node = any_node();
  trace(node, "is the only one that reaches both sides");
  const unsigned left = next_component_++, right = next_component_++;
  for (Node& m : machines_) m.component = chance(0.5) ? left : right;
  Time when = now_;
  for (Time k = between(2, 6); k > 0; --k) {
    later(when, [=, this] {
      machines_[node].component = k % 2 == 0 ? left : right;
      reform(10 * kMs, settings_.token + settings_.consensus);
    });
    when += between(200 * kMs, 2 * kSecond);
  }
  later(when, [this] { heal_network(); });
}

void World::set_trap(unsigned node, Fault fault) {
  Point point = Point::kCommit;
  if (fault == Fault::kTrapEvent) point = Point::kEvent;
  if (fault == Fault::kTrapAction) point = Point::kAction;
  if (fault == Fault::kTrapSend) point = Point::kSend;
  if (fault == Fault::kTrapClocks) point = Point::kClocks;
  if (fault == Fault::kTrapAck) point = Point::kAck;
  static constexpr Blow kBlows[] = {Blow::kStopSarud, Blow::kStopSarud, Blow::kStopMachine,
                                    Blow::kSuspend};
  const Blow blow = fault == Fault::kKillWriting ? Blow::kKill : kBlows[rng_.below(4)];
  if (fault == Fault::kKillWriting && chance(0.3)) point = Point::kAck;
  machines_[node].trap = Trap{point, blow, between(50 * kMs, 4 * kSecond)};
}

// Closes more than we wanted, and tells us a little later. (Nobody can open: the tables are ours
// alone where the kernel can do that, and elsewhere their twins are.)
bool World::disturb_kernel(unsigned node) {
  Node& m = machines_[node];
  static const Transaction ways[] = {{FlushSet{"owned"}}, {FlushSet{"lease"}}, {DeleteTable{}}};
  if (!m.kernel.commit(ways[rng_.below(3)], kernel_time(m))) return false;
  trace(node, "somebody empties our sets");
  look_at_kernel(node);
  const Time notice = between(200'000, 5 * kMs);
  later(now_ + notice, [=, this, pid = m.process->id.pid] {
    if (process_of(node, pid) != nullptr) order(node, KernelDisturbed{"somebody was here"});
  });
  return true;
}

// Back only where that is known to be safe (ARCHITECTURE.md): no write is stopped, and one has gone
// through since the machine slept.
void World::set_wall_clock(unsigned node) {
  Node& m = machines_[node];
  const bool back = !m.process->writing && !m.sarud_paused && !m.has_slept && chance(0.5);
  hit(Fault::kClockStep);
  m.wall_offset += back ? -between(kMs, 5 * kSecond) : between(kMs, 5 * kSecond);
  m.set_back = m.set_back || back;
  trace(node, back ? "the wall clock is set back" : "the wall clock is set forward");
  look_at_kernel(node);
  order(node, KernelDisturbed{"the wall clock was set"});
}

void World::drain_for_a_while(unsigned node) {
  const bool eligible = !machines_[node].process->state->config.eligible;
  order(node, SetEligible{eligible, "drain"});
  if (eligible) return;
  later(now_ + between(kSecond, 4 * kSecond), [=, this] { order(node, SetEligible{true, ""}); });
}

void World::change_weight(unsigned node) {
  static constexpr std::uint16_t kWeights[] = {0, 1, 1, 2, 3, 10};
  machines_[node].weight = kWeights[rng_.below(6)];
  order(node, SetWeight{machines_[node].weight});
}

// Node by node, as administrators (and Pacemaker) do it; one may be forgotten for long.
void World::reconfigure() {
  ++newest_.number;
  trace(0, "configuration " + std::to_string(newest_.number) + " is wanted");
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    Time when = now_ + (chance(0.5) ? between(0, 50 * kMs) : between(0, 3 * kSecond));
    if (chance(0.05)) when += 6 * kSecond;
    later(when, [=, this, version = newest_] {
      if (machines_[i].version.number < version.number) machines_[i].version = version;
      reload(i, version);
    });
  }
}

// As sarud's adapter does: until the process has it or waits for the others to have it.
void World::reload(unsigned node, Version version) {
  const Node& m = machines_[node];
  if (m.version.number != version.number) return;
  if (m.process) {
    const State& state = *m.process->state;
    const bool waiting = state.next && state.next->hash == version.hash();
    if (!state.switching && !waiting && state.config.config_hash != version.hash()) {
      const Version now = version_of(state.config.config_hash);
      if (state.view.confirmed && effective_members(state).size() > 1) hit(Fault::kMixedConfig);
      order(node, Reconfigure{version.hash(), version.blocks(), lease(version),
                              now.cut() == version.cut()});
    }
  }
  at(now_ + 500 * kMs, [=, this] { reload(node, version); });
}

// One node is upgraded to a version that writes other messages, and back again later.
bool World::use_other_version(unsigned node) {
  const auto others = std::count_if(machines_.begin(), machines_.end(),
                                    [](const Node& m) { return m.wire_version != kWireVersion; });
  if (others > 0) return false;
  machines_[node].wire_version = kWireVersion + 1;
  trace(node, "gets another wire version");
  kill_process(node, between(5 * kMs, 500 * kMs));
  later(now_ + between(2 * kSecond, 10 * kSecond), [=, this] {
    if (machines_[node].wire_version == kWireVersion) return;
    machines_[node].wire_version = kWireVersion;
    kill_process(node, between(5 * kMs, 500 * kMs));
  });
  return true;
}

}  // namespace saru::sim
