// SPDX-License-Identifier: GPL-2.0-or-later
// A quorum device beside an even number of nodes: exactly half of them are quorate while it votes
// for them. It votes for one ring at a time, but it changes its mind and goes away; who has lost
// its vote learns it late, each node for itself; and a node may lose it alone.
#include "tests/sim/world.h"

namespace saru::sim {

bool World::quorate(const Node& m, std::size_t members) const {
  const bool by_device = settings_.device && m.ring && m.device_vote == m.ring;
  return settings_.fencing || members >= majority() || by_device;
}

bool World::is_half(const Ring& ring) const { return 2 * ring.members.size() == settings_.nodes; }

// Half of the nodes ask as long as their ring stands and they have no vote.
void World::ask_device(RingId id) {
  const auto ring = rings_.find(id);
  if (ring == rings_.end() || !is_half(ring->second) || device_for_ == id) return;
  const bool taken = device_for_ && rings_.contains(*device_for_);
  if (now_ >= device_away_until_ && (!taken || chance(0.2))) {
    if (taken) hit(Fault::kDeviceTurns);
    withdraw_vote();
    give_vote(id);
    return;
  }
  later(now_ + between(20 * kMs, 2 * kSecond), [=, this] { ask_device(id); });
}

void World::give_vote(RingId id) {
  device_for_ = id;
  hit(Fault::kDeviceVotes);
  for (unsigned i : rings_.at(id).members) {
    Node& m = machines_[i];
    trace(i, "has the device's vote");
    m.device_vote = id;
    if (m.ring == id) tell_vote(m);  // else with all else that is new
  }
}

void World::withdraw_vote() {
  if (!device_for_) return;
  const RingId id = *device_for_;
  device_for_.reset();
  const auto ring = rings_.find(id);
  if (ring == rings_.end()) return;  // broken, and the nodes know it
  for (unsigned i : ring->second.members) {
    lose_vote(i, id, chance(0.5) ? between(0, 100 * kMs) : between(0, kDeviceLag));
  }
  later(now_ + between(kMs, kSecond), [=, this] { ask_device(id); });
}

// Who does not run learns it when it runs again.
void World::lose_vote(unsigned node, RingId id, Time delay) {
  at(now_ + delay, [=, this] {
    Node& m = machines_[node];
    if (m.device_vote != id || m.ring != id || device_for_ == id) return;
    if (m.corosync_paused) return lose_vote(node, id, 5 * kMs);
    trace(node, "has lost the device's vote");
    m.device_vote.reset();
    tell_vote(m);
  });
}

// As votequorum does: the same ring and the same nodes, nobody new.
void World::tell_vote(Node& m) {
  if (!m.process || !m.process->tracks_quorum) return;
  const auto& members = rings_.at(*m.ring).members;
  tell_quorum(m, members, {members.begin(), members.end()});
}

// Two halves, of which first one and then the other has the vote, long enough to take everything.
void World::turn_device() {
  trace(0, "halves: first one has the device's vote, then the other");
  hit(Fault::kDeviceStory);
  std::set<unsigned> half;
  while (2 * half.size() < settings_.nodes) half.insert(any_node());
  part(half, between(kMs, 50 * kMs), between(kMs, 50 * kMs));
  later(now_ + between(kSecond, 4 * kSecond), [this] {
    for (const auto& [id, ring] : rings_) {
      if (!is_half(ring) || device_for_ == id) continue;
      hit(Fault::kDeviceTurns);
      withdraw_vote();
      return give_vote(id);
    }
  });
  later(now_ + between(8 * kSecond, 14 * kSecond), [this] { heal_network(); });
}

// The device, or one node's way to it.
void World::lose_device(unsigned node, Time span) {
  const auto ring = device_for_ ? rings_.find(*device_for_) : rings_.end();
  if (ring == rings_.end()) return;
  if (chance(0.5)) {
    hit(Fault::kDeviceAway);
    device_away_until_ = now_ + span;
    withdraw_vote();
  } else if (machines_[node].ring == ring->first) {
    hit(Fault::kDeviceHalf);
    trace(node, "has lost the device alone");
    machines_[node].device_vote.reset();
    tell_vote(machines_[node]);
  }
}

}  // namespace saru::sim
