// SPDX-License-Identifier: GPL-2.0-or-later
// Totem, CPG and quorum as far as their promises go: one order per ring, the same for all who stay
// on it; a common cut when it breaks; membership changes that come late, early, one by one or for
// nothing.
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
      whole =
          whole && side(machines_[i].component) == ring.members && !machines_[i].corosync_paused;
    }
    if (whole) {
      ++it;
      continue;
    }
    std::map<unsigned, std::vector<unsigned>> sides;
    for (unsigned i : here) {
      // A paused corosync is a side of its own: it delivers nothing more of this ring.
      const unsigned key = machines_[i].corosync_paused ? 1000 + i : machines_[i].component;
      sides[key].push_back(i);
    }
    for (const auto& [component, part] : sides) {
      std::size_t most = 0;
      for (unsigned i : part) most = std::max(most, ring.delivered[i]);
      for (std::size_t k = 0; k < ring.log.size(); ++k) {
        const bool own =
            std::find(part.begin(), part.end(), ring.log[k].process.node.value - 1) != part.end();
        if (own && component < 1000) most = std::max(most, k + 1);
      }
      if (component < 1000 && chance(0.5)) {
        most = static_cast<std::size_t>(
            between(static_cast<Time>(most), static_cast<Time>(ring.log.size())));
      }
      const auto reaches = [&, here = part](const Item& item) {
        const unsigned sender = item.process.node.value - 1;
        return !item.only_sender_has_it ||
               std::find(here.begin(), here.end(), sender) != here.end();
      };
      std::size_t least = 0;
      for (unsigned i : part) least = std::max(least, ring.delivered[i]);
      for (std::size_t k = least; k < most; ++k) {
        if (!reaches(ring.log[k])) most = k;
      }
      for (unsigned i : part) {
        while (ring.delivered[i] < most) deliver(i, ring.log[ring.delivered[i]++]);
        // Only who has delivered the same messages of the old ring comes along together from it.
        machines_[i].last_ring = RingId{NodeId{100 + part.front()}, ring.id.seq};
        machines_[i].ring.reset();
      }
    }
    it = rings_.erase(it);
  }
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
    const RingId old = *machines_[i].ring;
    Ring& ring = rings_.at(old);
    for (unsigned j : ring.members) {
      if (machines_[j].ring != old) continue;
      while (ring.delivered[j] < ring.log.size()) deliver(j, ring.log[ring.delivered[j]++]);
      machines_[j].last_ring = old;
      machines_[j].ring.reset();
    }
    rings_.erase(old);
  }
  next_seq_ += 4;
  const RingId id{NodeId{members.front() + 1}, next_seq_};
  rings_[id] = Ring{id, members, {}, {}};
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

// The callbacks of one machine when a ring has formed: CPG (all at once or one by one), TOTEM, and
// on the other socket QUORUM. A node that went away and came back stands in left and in joined.
void World::tell_group(Node& m, const std::vector<unsigned>& members,
                       const std::set<unsigned>& along) {
  const std::vector<ProcessId> before = m.group;
  std::vector<ProcessId> left, joined, stay;
  m.group.clear();
  for (unsigned i : members) {  // every corosync tells the others which processes it has
    if (machines_[i].process && machines_[i].process->in_group)
      m.group.push_back(machines_[i].process->id);
  }
  std::sort(m.group.begin(), m.group.end());
  const auto stays = [&](const ProcessId& p, const std::vector<ProcessId>& list) {
    return along.contains(p.node.value - 1) && std::find(list.begin(), list.end(), p) != list.end();
  };
  for (const ProcessId& p : before) (stays(p, m.group) ? stay : left).push_back(p);
  for (const ProcessId& p : m.group) {
    if (!stays(p, before)) joined.push_back(p);
  }
  if (!m.process) return;
  Process& p = *m.process;
  std::vector<NodeId> nodes, new_nodes;
  for (unsigned i : members) {
    nodes.push_back(NodeId{i + 1});
    if (!along.contains(i)) new_nodes.push_back(NodeId{i + 1});
  }
  const bool quorate = members.size() > settings_.nodes / 2;
  const Time delay = between(0, chance(0.1) ? 70 * kMs : 2 * kMs);
  p.quorum_ready = std::max(p.quorum_ready, now_ + delay);  // one socket, one order
  at(p.quorum_ready, [=, this, ring = *m.ring, pid = p.id.pid, index = m.index] {
    Process* still = machines_[index].process.get();
    if (still == nullptr || still->id.pid != pid) return;
    still->quorum.push_back({{}, QuorumChanged{ring, quorate, nodes, new_nodes}});
    pump_soon(index, 0);
  });
  if (!p.in_group) return;
  std::deque<Event> changes;
  if (chance(0.5)) {
    changes.push_back({{}, GroupChanged{m.group, left, joined}});
  } else {
    changes.push_back({{}, GroupChanged{stay, left, {}}});
    auto growing = stay;
    for (const ProcessId& one : joined) {
      growing.push_back(one);
      changes.push_back({{}, GroupChanged{growing, {}, {one}}});
    }
  }
  const Event totem{{}, RingChanged{*m.ring, nodes}};
  if (chance(0.2)) {
    changes.push_front(totem);
  } else {
    changes.push_back(totem);
  }
  p.cpg.insert(p.cpg.end(), changes.begin(), changes.end());
  pump_soon(m.index, between(0, kMs));
}

void World::originate(unsigned node, Item item) {
  Node& m = machines_[node];
  if (!m.up) return;
  if (!m.ring || m.corosync_paused) {
    m.out.push_back(std::move(item));
    return;
  }
  Ring& ring = rings_.at(*m.ring);
  item.only_sender_has_it = node == lossy_node_ && now_ < lossy_until_;
  ring.log.push_back(std::move(item));
  for (unsigned i : ring.members) {
    const Time delay = chance(0.02) ? between(kMs, 20 * kMs) : between(200'000, 2 * kMs);
    at(now_ + delay, [=, this, id = ring.id] { deliver_next(id, i); });
  }
}

void World::deliver_next(RingId id, unsigned node) {
  const auto it = rings_.find(id);
  Node& m = machines_[node];
  if (it == rings_.end() || m.ring != id || m.corosync_paused) return;
  Ring& ring = it->second;
  if (ring.delivered[node] >= ring.log.size()) return;
  const Item& item = ring.log[ring.delivered[node]];
  if (!can_have(node, item))
    return;  // stuck behind a lost frame until its sender or the ring moves
  ++ring.delivered[node];
  deliver(node, item);
}

// A frame that was lost on the way to the others comes from its sender only, while that runs.
bool World::can_have(unsigned node, const Item& item) const {
  const unsigned sender = item.process.node.value - 1;
  if (!item.only_sender_has_it || sender == node) return true;
  return now_ >= lossy_until_ && same_side(machines_[sender], machines_[node]);
}

void World::deliver_rest_soon(const Ring& ring) {
  for (unsigned i : ring.members) {
    const auto seen = ring.delivered.find(i);
    for (std::size_t k = seen == ring.delivered.end() ? 0 : seen->second; k < ring.log.size();
         ++k) {
      at(now_ + between(0, kMs), [=, this, id = ring.id] { deliver_next(id, i); });
    }
  }
}

void World::deliver(unsigned node, const Item& item) {
  Node& m = machines_[node];
  Process* p = m.process.get();
  const bool member = p != nullptr && p->in_group;
  if (item.kind == Item::kMessage) {
    if (member) p->cpg.push_back({{}, Received{item.process, *item.message}});
  } else {
    const auto known = std::find(m.group.begin(), m.group.end(), item.process);
    const bool joins = item.kind == Item::kJoin;
    if (joins == (known != m.group.end())) return;
    if (joins) {
      m.group.push_back(item.process);
      std::sort(m.group.begin(), m.group.end());
    } else {
      m.group.erase(known);
    }
    if (member) {
      GroupChanged change{m.group, {}, {}};
      (joins ? change.joined : change.left).push_back(item.process);
      if (joins && item.process == p->id && m.ring) {  // DELIVER_INITIAL_TOTEM_CONF
        std::vector<NodeId> nodes;
        for (unsigned i : rings_.at(*m.ring).members) nodes.push_back(NodeId{i + 1});
        p->cpg.push_back({{}, RingChanged{*m.ring, nodes}});
      }
      p->cpg.push_back({{}, change});
    }
  }
  if (member) pump_soon(node, between(0, 300'000));
}

}  // namespace saru::sim
