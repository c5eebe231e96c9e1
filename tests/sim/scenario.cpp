// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/world.h"

namespace saru::sim {

// What it sends is lost on the way to the others, not to itself; then the machine may stop.
void World::lose_frames(unsigned node) {
  if (now_ < lossy_until_) return;
  lossy_node_ = node;
  lossy_until_ = now_ + between(100 * kMs, 400 * kMs);
  trace(node, "its frames are lost");
  const Time span = chance(0.8) ? between(kSecond, 4 * kSecond) : 0;
  at(lossy_until_ - kMs, [=, this] {
    if (span == 0) return;
    pause_sarud(node, span);
    pause_corosync(node, span);
  });
}

void World::drain_for_a_while(unsigned node) {
  Process* p = machines_[node].process.get();
  if (p == nullptr || !p->in_group) return;
  const bool eligible = !p->state->config.eligible;
  p->own.push_back({{}, SetEligible{eligible, "drain"}});
  pump_soon(node, 0);
  if (eligible) return;
  at(now_ + between(kSecond, 4 * kSecond), [=, this, pid = p->id.pid] {
    Process* still = machines_[node].process.get();
    if (still == nullptr || still->id.pid != pid) return;
    still->own.push_back({{}, SetEligible{true, ""}});
    pump_soon(node, 0);
  });
}

// Node by node, as administrators (and Pacemaker) do it.
void World::reconfigure() {
  ++newest_.number;
  trace(0, "configuration " + std::to_string(newest_.number) + " is wanted");
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    const Time when = now_ + (chance(0.5) ? between(0, 50 * kMs) : between(0, 3 * kSecond));
    at(when, [=, this, version = newest_] {
      if (machines_[i].version.number < version.number) machines_[i].version = version;
      reload(i, version);
    });
  }
}

// As sarud's adapter does: until the process has it or waits for the others to have it.
void World::reload(unsigned node, Version version) {
  const Node& m = machines_[node];
  if (m.version.number != version.number) return;
  Process* p = m.process.get();
  if (p != nullptr) {
    const State& state = *p->state;
    const bool waiting = state.next && state.next->hash == version.hash();
    if (!state.switching && !waiting && state.config.config_hash != version.hash()) {
      const Version now{static_cast<unsigned>(state.config.config_hash - Version{}.hash())};
      p->own.push_back({{},
                        Reconfigure{version.hash(), version.blocks(), lease(version),
                                    now.cut() == version.cut()}});
      pump_soon(node, 0);
    }
  }
  at(now_ + 500 * kMs, [=, this] { reload(node, version); });
}

void World::inject_fault(Time until) {
  if (now_ >= until) return;
  const unsigned node = static_cast<unsigned>(rng_.below(settings_.nodes));
  const Time full = settings_.token + settings_.consensus;
  switch (rng_.below(12)) {
    case 0:
    case 1: {  // partition
      const auto ways = static_cast<unsigned>(between(1, 3));
      for (Node& m : machines_) m.component = static_cast<unsigned>(rng_.below(ways));
      trace(node, "the network splits");
      reform(full * 8 / 10, full);
      at(now_ + between(200 * kMs, 6 * kSecond), [this] { heal_all(); });
      break;
    }
    case 2:  // short and long, around the limits that matter
      pause_sarud(node,
                  chance(0.5) ? between(50 * kMs, 500 * kMs) : between(500 * kMs, 5 * kSecond));
      break;
    case 3:
      pause_corosync(node,
                     chance(0.5) ? between(50 * kMs, 600 * kMs) : between(600 * kMs, 6 * kSecond));
      break;
    case 4: {  // the whole machine
      const Time span = between(100 * kMs, 5 * kSecond);
      pause_sarud(node, span);
      pause_corosync(node, span);
      break;
    }
    case 5:
      kill_process(node, true);
      break;
    case 6:
      crash(node);
      reform(full * 8 / 10, full);
      at(now_ + between(500 * kMs, 5 * kSecond), [=, this] { boot(node); });
      break;
    case 7: {  // a membership change without a token loss
      trace(node, "the ring reforms for nothing");
      const unsigned component = machines_[node].component;
      const auto generation = ++generation_[component];
      at(now_ + between(10 * kMs, 100 * kMs), [=, this] { form(component, generation); });
      break;
    }
    case 8:
      lose_frames(node);
      break;
    case 9:
      drain_for_a_while(node);
      break;
    case 10:
      reconfigure();
      break;
    default:
      if (Process* p = machines_[node].process.get(); p != nullptr && p->in_group) {
        p->own.push_back({{}, StopRequested{}});
        pump_soon(node, 0);
      }
  }
  const Time next = chance(0.4) ? between(kMs, 300 * kMs) : between(300 * kMs, 2500 * kMs);
  at(now_ + next, [=, this] { inject_fault(until); });
}

void World::heal_all() {
  for (Node& m : machines_) m.component = 0;
  reform(10 * kMs, 300 * kMs);
}

void World::demand_all_owned(const std::string& when) {
  if (failed()) return;
  std::string missing;
  for (unsigned b = 0; b < newest_.blocks(); ++b) {
    if (owners(b) != 1) missing += " " + std::to_string(b);
  }
  if (!missing.empty()) fail(when + ": nobody accepts blocks" + missing);
}

// Safe, but stuck, is not healed.
void World::demand_all_agree() {
  for (const Node& m : machines_) {
    if (failed()) return;
    const std::string name = "n" + std::to_string(m.index + 1);
    if (!m.process) {
      fail(name + " has no process in the end");
      continue;
    }
    const State& state = *m.process->state;
    if (!state.view.confirmed) fail(name + " is in no confirmed view in the end");
    if (state.view.frozen) fail(name + " is in a frozen view in the end");
    if (state.config.config_hash != newest_.hash() || state.next) {
      fail(name + " does not have the newest configuration in the end");
    }
  }
}

// Lost frames are asked for again until they come.
void World::retransmit() {
  for (const auto& [id, ring] : rings_) deliver_rest_soon(ring);
  at(now_ + 50 * kMs, [this] { retransmit(); });
}

// Phase one hurts, phase two heals and then demands that every block has its owner, and keeps it.
void World::run_history() {
  const Time hurt = 40 * kSecond;
  retransmit();
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    at(between(0, kSecond), [=, this] { boot(i); });
  }
  at(3 * kSecond, [=, this] {
    faults_ = true;
    inject_fault(hurt);
  });
  run_until(hurt);
  faults_ = false;
  heal_all();
  // The longest pause, the longest restart, an unclean restart's wait, an exclusion, a wait for the
  // departed.
  run_until(hurt + 6 * kSecond + 5 * kSecond + 5 * lease({4}).count());
  demand_all_owned("healed");
  demand_all_agree();
  for (int k = 0; k < 300 && !failed(); ++k) {
    run_until(now_ + 10 * kMs);
    demand_all_owned("quiet");
  }
}

// Nothing but one change of the configuration after the other: each must come to its end by itself.
void World::run_changes() {
  for (unsigned i = 0; i < settings_.nodes; ++i) boot(i);
  run_until(8 * kSecond);
  for (unsigned k = 0; k < 8 && !failed(); ++k) {
    reconfigure();
    run_until(now_ + 3 * kSecond + 3 * lease(newest_).count());
    demand_all_owned("after change " + std::to_string(k + 1));
    demand_all_agree();
  }
}

// One machine dies in a healthy cluster. The others' blocks are never without their owner; the dead
// one's have another within 1.3 times the lease.
void World::run_crash() {
  for (unsigned i = 0; i < settings_.nodes; ++i) boot(i);
  run_until(6 * kSecond + between(0, kSecond));
  demand_all_owned("before the crash");
  if (failed()) return;
  const auto victim = static_cast<unsigned>(rng_.below(settings_.nodes));
  const BlockSet lost = machines_[victim].kernel.owned;
  const Time full = settings_.token + settings_.consensus;
  const Time died = now_;
  crash(victim);
  reform(full * 9 / 10, full);
  while (!failed() && now_ < died + 3 * kSecond) {
    run_until(now_ + kMs);
    for (unsigned b = 0; b < newest_.blocks(); ++b) {
      const bool its = lost.contains(BlockId{static_cast<std::uint16_t>(b)});
      const bool late = now_ > died + lease(newest_).count() * 13 / 10;
      if (owners(b) == 1 || (its && !late)) continue;
      fail((its ? "the dead node's block " : "a survivor's block ") + std::to_string(b) +
           " has no owner, " + std::to_string((now_ - died) / kMs) + " ms after the crash");
    }
  }
}

}  // namespace saru::sim
