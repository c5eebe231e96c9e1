// SPDX-License-Identifier: GPL-2.0-or-later
// Totem as far as its promises go: one order per ring, the same for all who stay on it; lost frames
// that come again as long as somebody who has them can be reached; a common cut when a ring breaks.
#include <algorithm>

#include "tests/sim/world.h"

namespace saru::sim {

bool World::same_side(const Node& a, const Node& b) const {
  return a.up && b.up && !a.corosync_paused && !b.corosync_paused && a.component == b.component;
}

std::vector<unsigned> World::side(unsigned component) const {
  std::vector<unsigned> members;
  for (const Node& m : machines_) {
    if (m.up && !m.corosync_paused && m.component == component) members.push_back(m.index);
  }
  return members;
}

bool World::loses(unsigned from, unsigned to) const {
  return now_ < loss_until_[from * kMostNodes + to];
}

// A ring whose members can no longer all reach each other (or that others want to join) stops, and
// each side delivers up to a cut of its own.
void World::stop_broken_rings() {
  for (auto it = rings_.begin(); it != rings_.end();) {
    Ring& ring = it->second;
    std::vector<unsigned> here;
    for (unsigned i : ring.members) {
      if (machines_[i].up && machines_[i].ring == ring.id) here.push_back(i);
    }
    bool whole = here.size() == ring.members.size();
    for (unsigned i : here) {
      const Node& m = machines_[i];
      whole = whole && !m.corosync_paused && side(m.component) == ring.members;
    }
    if (whole) {
      ++it;
      continue;
    }
    split_ring(ring, here);
    it = rings_.erase(it);
  }
}

void World::split_ring(Ring& ring, const std::vector<unsigned>& here) {
  std::map<std::pair<bool, unsigned>, std::vector<unsigned>> sides;
  for (unsigned i : here) {
    // A stopped corosync is a side of its own: it delivers nothing more of this ring.
    const Node& m = machines_[i];
    sides[{m.corosync_paused, m.corosync_paused ? i : m.component}].push_back(i);
  }
  for (const auto& [key, part] : sides) deliver_cut(ring, part, !key.first);
}

// What at least one of them has got, all of them deliver, up to the first message that none of them
// has; how much had been sent when the ring broke is open, but everybody has his own.
void World::deliver_cut(Ring& ring, const std::vector<unsigned>& part, bool running) {
  const auto is_here = [&](unsigned node) {
    return std::find(part.begin(), part.end(), node) != part.end();
  };
  std::size_t least = 0;
  for (unsigned i : part) least = std::max(least, ring.delivered[i]);
  std::size_t most = least;
  if (running) {
    for (std::size_t k = least; k < ring.log.size(); ++k) {
      if (is_here(ring.log[k].process.node.value - 1)) most = k + 1;
    }
    if (chance(0.5)) {
      most = static_cast<std::size_t>(
          between(static_cast<Time>(most), static_cast<Time>(ring.log.size())));
    }
  }
  for (std::size_t k = least; k < most; ++k) {
    const Item& item = ring.log[k];
    const bool somebody_has_it = is_here(item.process.node.value - 1) ||
                                 std::any_of(part.begin(), part.end(), [&](unsigned i) {
                                   return (item.missing >> i & 1U) == 0;
                                 });
    if (!somebody_has_it) most = k;
  }
  for (unsigned i : part) {
    while (ring.delivered[i] < most) deliver(i, ring.log[ring.delivered[i]++]);
    // Only who has delivered the same messages of the old ring comes along together from it.
    machines_[i].last_ring = RingId{NodeId{100 + part.front()}, ring.id.seq};
    machines_[i].ring.reset();
  }
}

// Whatever was to form there before does not.
void World::form_later(unsigned component, Time delay) {
  const auto generation = ++generation_[component];
  later(now_ + delay, [=, this] { form(component, generation); });
}

void World::reform(Time delay_low, Time delay_high) {
  stop_broken_rings();
  std::set<unsigned> components;
  for (const Node& m : machines_) {
    if (m.up && !m.corosync_paused && !m.ring) components.insert(m.component);
  }
  for (unsigned component : components) {
    const std::uint64_t generation = ++generation_[component];
    at(now_ + between(delay_low, delay_high), [=, this] { form(component, generation); });
  }
}

void World::form(unsigned component, std::uint64_t generation) {
  if (generation_[component] != generation) return;
  const std::vector<unsigned> members = side(component);
  if (members.empty()) return;
  for (unsigned i : members) {  // a ring that is still running (a join, a merge) stops here
    if (!machines_[i].ring) continue;
    Ring& ring = rings_.at(*machines_[i].ring);
    std::vector<unsigned> here;
    for (unsigned j : ring.members) {
      if (machines_[j].ring == ring.id) here.push_back(j);
    }
    const RingId old = ring.id;
    split_ring(ring, here);
    rings_.erase(old);
  }
  next_seq_ += 4;
  const RingId id{NodeId{members.front() + 1}, next_seq_};
  rings_[id] = Ring{id, members, {}, {}};
  ++counts.membership_changes;
  if (settings_.fencing) miss_the_other(members);
  if (settings_.device) ask_device(id);
  for (unsigned i : members) {
    std::set<unsigned> along;
    for (unsigned j : members) {
      if (machines_[j].last_ring == machines_[i].last_ring) along.insert(j);
    }
    machines_[i].ring = id;
    rings_[id].delivered[i] = 0;
    tell_group(machines_[i], members, along);
  }
  for (unsigned i : members) {
    auto waiting = std::exchange(machines_[i].out, {});
    for (const Item& item : waiting) originate(i, item);
  }
}

void World::originate(unsigned node, Item item) {
  Node& m = machines_[node];
  if (!m.up) return;
  if (!m.ring || m.corosync_paused) {
    m.out.push_back(std::move(item));
    return;
  }
  Ring& ring = rings_.at(*m.ring);
  for (unsigned i : ring.members) {
    if (i != node && loses(node, i)) item.missing |= 1U << i;
  }
  ring.log.push_back(std::move(item));
  for (unsigned i : ring.members) {
    const Time delay = chance(0.02) ? between(kMs, 20 * kMs) : between(200'000, 2 * kMs);
    soon(now_ + delay, i, ring.id);
  }
}

void World::deliver_next(RingId id, unsigned node) {
  const auto it = rings_.find(id);
  Node& m = machines_[node];
  if (it == rings_.end() || m.ring != id || m.corosync_paused) return;
  Ring& ring = it->second;
  const std::size_t place = ring.delivered[node];
  if (place >= ring.log.size()) return;
  // Else stuck behind a lost frame until somebody sends it again, or the ring changes.
  if (!can_have(ring, node, place)) return;
  ++ring.delivered[node];
  deliver(node, ring.log[place]);
}

// A frame that was lost on the way comes again from anybody who has it and can be heard.
bool World::can_have(const Ring& ring, unsigned node, std::size_t place) const {
  const Item& item = ring.log[place];
  if ((item.missing >> node & 1U) == 0) return true;
  const unsigned sender = item.process.node.value - 1;
  return std::any_of(ring.members.begin(), ring.members.end(), [&](unsigned i) {
    if (i == node || loses(i, node) || !same_side(machines_[i], machines_[node])) return false;
    return i == sender || ((item.missing >> i & 1U) == 0 && machines_[i].ring == ring.id);
  });
}

void World::deliver_rest_soon(const Ring& ring) {
  for (unsigned i : ring.members) {
    const auto seen = ring.delivered.find(i);
    for (std::size_t k = seen == ring.delivered.end() ? 0 : seen->second; k < ring.log.size();
         ++k) {
      soon(now_ + between(0, kMs), i, ring.id);
    }
  }
}

// Lost frames are asked for again until they come.
void World::retransmit() {
  for (const auto& [id, ring] : rings_) deliver_rest_soon(ring);
  at(now_ + 50 * kMs, [this] { retransmit(); });
}

}  // namespace saru::sim
