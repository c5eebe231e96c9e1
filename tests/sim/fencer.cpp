// SPDX-License-Identifier: GPL-2.0-or-later
// Two nodes and Pacemaker's fencing, at its worst: both fence each other, fence for nothing, tell
// it late or never. What is told is true: the power was cut after the fencing began and before it
// was told, and a node takes longer to start than its fencing to be told.
#include <algorithm>

#include "tests/sim/world.h"

namespace saru::sim {

namespace {
unsigned other(unsigned node) { return 1 - node; }
}  // namespace

// A ring has formed: who is not on it is to be fenced, unless it comes back in time.
void World::miss_the_other(const std::vector<unsigned>& members) {
  if (members.size() > 1) {
    for (unsigned i : members) machines_[i].has_shared_a_ring = true;
    return;
  }
  const unsigned by = members.front();
  if (!chance(0.5)) return;
  later(now_ + between(50 * kMs, 4 * kSecond), [=, this] {
    if (machines_[by].up && !same_side(machines_[by], machines_[other(by)])) fence(by);
  });
}

void World::fence(unsigned by) {
  if (machines_[by].fences) return;
  machines_[by].fences = true;
  trace(by, "fences the other node");
  at(now_ + between(20 * kMs, 1500 * kMs), [=, this] { cut_power(by); });
}

// The device works also when who gave the order is gone.
void World::cut_power(unsigned by) {
  const unsigned target = other(by);
  Node& m = machines_[target];
  if (healing_ && !m.stays_off) {  // it fails
    machines_[by].fences = false;
    return;
  }
  hit(Fault::kFence);
  if (m.up) {
    crash(target);
    const Time full = settings_.token + settings_.consensus;
    reform(full * 8 / 10, full);
  }
  if (!healing_ && !machines_[by].stays_off && chance(0.1)) m.stays_off = true;
  if (!m.stays_off) later(now_ + between(2 * kSecond, 5 * kSecond), [=, this] { boot(target); });
  at(now_ + between(0, 1500 * kMs), [=, this] { tell_fenced(by); });
}

// The fencer learns of it at once, sarud when it comes to read it.
void World::tell_fenced(unsigned by) {
  Node& m = machines_[by];
  m.fences = false;
  if (!m.up || (!healing_ && chance(0.15))) return hit(Fault::kFenceFails);
  m.has_fenced = true;
  if (!m.process) return;
  const bool late = !healing_ && chance(0.1);
  if (late) hit(Fault::kFenceLate);
  const Fenced event{NodeId{other(by) + 1}, m.idle.value_or(Nanos(0)), false};
  at(now_ + (late ? between(kSecond, 20 * kSecond) : between(kMs, 50 * kMs)),
     [=, this, pid = m.process->id.pid] {
       if (process_of(by, pid) != nullptr) order(by, event);
     });
}

// Once a second. A new process is also told what was done before it began.
void World::ask_fencer(unsigned node) {
  Node& m = machines_[node];
  const NodeId partner{other(node) + 1};
  if (!m.sarud_paused && !m.asleep) {
    if (!m.fences) m.idle = clock(m).raw;
    if (m.has_fenced && !m.has_shared_a_ring) order(node, Fenced{partner, clock(m).raw, true});
    if (machines_[other(node)].stays_off && !machines_[other(node)].up && chance(0.1)) {
      hit(Fault::kConfirmDead);
      order(node, ConfirmedDead{partner});
    }
  }
  at(now_ + kSecond, [=, this, pid = m.process->id.pid] {
    if (process_of(node, pid) != nullptr) ask_fencer(node);
  });
}

// A node has fenced the other; while its sarud is away that one comes back, sees it, and takes
// everything. Then it is cut off again, and starts with what its last process knew.
void World::old_knowledge(unsigned node) {
  trace(node, "is away while the node comes back that it had fenced");
  part({node}, between(kMs, 50 * kMs), between(kMs, 50 * kMs));
  fence(node);
  const Time away = 3 * lease(newest_).count() + kKnowledgeAway;
  later(now_ + 5 * kSecond, [=, this] {
    kill_process(node, away);
    heal_network();
  });
  later(now_ + 5 * kSecond + away - between(0, 300 * kMs),
        [=, this] { part({node}, between(kMs, 50 * kMs), between(kMs, 50 * kMs)); });
  later(now_ + 10 * kSecond + away, [this] { heal_network(); });
}

// When all is healed, one dies and is fenced: the other must serve everything. (A fencing that is
// told while no sarud runs counts for nothing: then the administrator must say it.)
void World::lose_one_for_good() {
  if (!chance(0.5)) return;
  const unsigned target = any_node();
  machines_[target].stays_off = true;
  crash(target);
  fence_when_ready(other(target), now_ + between(kSecond, 4 * kSecond));
}

void World::fence_when_ready(unsigned by, Time when) {
  at(when, [=, this] {
    const Process* p = machines_[by].process.get();
    const bool ready = p != nullptr && p->in_group && p->joined_at + 2 * kSecond < now_;
    if (!ready) return fence_when_ready(by, now_ + 500 * kMs);
    fence(by);
  });
}

}  // namespace saru::sim
