// SPDX-License-Identifier: GPL-2.0-or-later
// Several things that go wrong in an order that random faults seldom come in, each aimed at one
// rule. The times are drawn around those at which the rule decides.
#include <algorithm>

#include "tests/sim/world.h"

namespace saru::sim {

// These nodes against the rest, each side with its own delay until its ring stands.
void World::part(const std::set<unsigned>& away, Time away_delay, Time rest_delay) {
  const unsigned there = next_component_++, here = next_component_++;
  for (Node& m : machines_) m.component = away.contains(m.index) ? there : here;
  stop_broken_rings();
  form_later(there, away_delay);
  form_later(here, rest_delay);
}

// The sarud of a majority hang just long enough to be excluded. What says so never reaches them:
// frames are lost, then the ring breaks, and they go on as a quorate ring of their own. Nobody may
// take their blocks meanwhile. (Machine::doubtful_are_outvoted)
bool World::hung_majority(unsigned node) {
  std::set<unsigned> hung;
  for (unsigned i = 0; i < majority(); ++i) hung.insert((node + i) % settings_.nodes);
  if (hung.size() == settings_.nodes) return false;
  trace(node, "a majority hangs, and goes away unaware");
  const Time span = lease(newest_).count();
  const bool mute = chance(0.5);  // they run, but what they say does not go out
  for (unsigned i : hung) {
    const Time silent = between(span * 55 / 100, span * 75 / 100);
    if (mute) try_again(i, silent);
    if (!mute && chance(0.9)) stop_sarud(i, silent);
  }
  later(now_ + between(span * 30 / 100, span * 50 / 100), [=, this] {
    for (unsigned from = 0; from < settings_.nodes; ++from) {
      for (unsigned to : hung) {
        if (!hung.contains(from)) loss_until_[from * kMostNodes + to] = now_ + span * 4 / 10;
      }
    }
  });
  later(now_ + between(span * 58 / 100, span * 80 / 100),
        [=, this] { part(hung, between(kMs, 50 * kMs), settings_.token + settings_.consensus); });
  later(now_ + span + between(kSecond, 3 * kSecond), [this] { heal_network(); });
  return true;
}

// D's corosync stops until the others have just gone on without it; then one of them changes to
// D's side, perhaps as a new process that remembers nothing, before the rest notices.
// (Companions, the wait of a restarted process, quorate_since.)
bool World::unheard_switch(unsigned node) {
  trace(node, "is missed; its helpers change sides");
  std::set<unsigned> side{node};
  // Without it they are a quorum, too, or not.
  const unsigned size = majority() + (settings_.nodes > 3 && chance(0.5) ? 1 : 0);
  for (unsigned i = 1; side.size() < size; ++i) side.insert((node + i) % settings_.nodes);
  if (side.size() == settings_.nodes) return false;
  const Time noticed = settings_.token + settings_.consensus;
  const Time back = between(noticed * 85 / 100, noticed * 125 / 100);
  stop_corosync(node, back);
  if (chance(0.3)) stop_sarud(node, back - between(0, 50 * kMs));
  const bool restart = chance(0.5);
  const bool leaves = chance(0.3);
  if (restart) {
    later(now_ + back - between(0, 150 * kMs), [=, this] {
      for (unsigned i : side) {
        if (i != node) kill_process(i, between(kMs, 30 * kMs));
      }
    });
  }
  later(now_ + back + kMs, [=, this] {
    part(side, between(kMs, 100 * kMs), leaves ? between(10 * kMs, 100 * kMs) : noticed);
  });
  later(now_ + back + between(kSecond, 3 * kSecond), [this] { heal_network(); });
  return true;
}

// Weights, drains, stops and reforming rings within a few hundred milliseconds, with kernels that
// are slow or refuse.
void World::change_storm(unsigned node) {
  trace(node, "a storm of changes");
  Time when = now_;
  for (Time k = between(4, 12); k > 0; --k) {
    static constexpr Fault kKinds[] = {Fault::kWeight,     Fault::kDrain,        Fault::kReform,
                                       Fault::kSlowWrite,  Fault::kRefusedWrite, Fault::kKill,
                                       Fault::kTrapAction, Fault::kWeight,       Fault::kStop};
    const Fault kind = kKinds[rng_.below(std::size(kKinds))];
    later(when, [=, this, victim = any_node()] { inject(kind, victim); });
    when += between(0, 60 * kMs);
  }
}

// A node with another wire version has been there for long; then all others die, and their kernels
// are open. (Machine::on(NotUnderstood))
bool World::lonely_version(unsigned node) {
  trace(node, "will be left alone with another wire version");
  const bool changed = use_other_version(node);
  const Time until = now_ + 3 * longest_lease_now().count();
  later(until, [=, this] {
    // Of a longer lease that the others have and this node was not told of, it cannot know.
    if (machines_[node].version.number < newest_.number) return;
    for (unsigned i = 0; i < settings_.nodes; ++i) {
      if (i != node) kill_process(i, between(100 * kMs, kSecond));
    }
  });
  return changed;
}

// All take up a longer lease at once, and one is stopped or killed as soon as it has it.
// (SentBeat::lease)
void World::change_and_die(unsigned node) {
  reconfigure();
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    machines_[i].version = newest_;
    reload(i, newest_);
  }
  trace(node, "will die with the new lease");
  die_with(node, newest_, now_ + 2 * kSecond);
}

void World::die_with(unsigned node, Version version, Time limit) {
  later(now_ + 200'000, [=, this] {
    const Process* p = machines_[node].process.get();
    if (p == nullptr || now_ > limit) return;
    if (p->state->config.config_hash != version.hash()) return die_with(node, version, limit);
    later(now_ + between(0, 8 * kMs), [=, this] {
      if (chance(0.5)) return kill_process(node, between(2 * kSecond, 4 * kSecond));
      stop_sarud(node, 3 * longest_lease_now().count());
    });
  });
}

// Everybody who had heard this node is gone; whoever comes instead knows nothing of it, and its
// kernel is still open. (Machine::on(QuorumChanged), wait_for_departed)
void World::mass_restart(unsigned node) {
  trace(node, "all others restart");
  const Time span = between(kSecond, 4 * kSecond);
  stop_sarud(node, span);
  stop_corosync(node, span);
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    if (i == node) continue;
    later(now_ + between(0, 200 * kMs), [=, this] {
      if (chance(0.5)) {
        kill_process(i, between(5 * kMs, 300 * kMs));
      } else {
        crash(i);
        reform(10 * kMs, 300 * kMs);
        later(now_ + between(50 * kMs, 500 * kMs), [=, this] { boot(i); });
      }
    });
  }
}

}  // namespace saru::sim
