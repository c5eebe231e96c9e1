// SPDX-License-Identifier: GPL-2.0-or-later
// What libcpg and libquorum call in a process: membership changes that come late, early, one by one
// or for nothing, with ghosts in them, and in an order of their own.
#include <algorithm>

#include "tests/sim/world.h"

namespace saru::sim {

namespace {

std::vector<NodeId> node_ids(const std::vector<unsigned>& members) {
  std::vector<NodeId> nodes;
  nodes.reserve(members.size());
  for (unsigned i : members) nodes.push_back(NodeId{i + 1});
  return nodes;
}

}  // namespace

void World::push(std::deque<Callback>& queue, EventBody body) {
  queue.push_back({{}, nullptr, std::make_unique<EventBody>(std::move(body))});
}

// The callbacks of one machine when a ring has formed: CPG (all at once or one by one), TOTEM, and
// on the other socket QUORUM. A node that went away and came back stands in left and in joined.
void World::tell_group(Node& m, const std::vector<unsigned>& members,
                       const std::set<unsigned>& along) {
  const std::vector<ProcessId> before = m.group;
  m.group.clear();
  for (unsigned i : members) {  // every corosync tells the others which processes it has
    if (machines_[i].process && machines_[i].process->in_group)
      m.group.push_back(machines_[i].process->id);
    for (const Ghost& ghost : ghosts_) {
      if (ghost.process.node.value == i + 1) m.group.push_back(ghost.process);
    }
  }
  std::sort(m.group.begin(), m.group.end());
  const auto stays = [&](const ProcessId& p, const std::vector<ProcessId>& list) {
    return along.contains(p.node.value - 1) && std::find(list.begin(), list.end(), p) != list.end();
  };
  std::vector<ProcessId> left, joined, stay;
  for (const ProcessId& p : before) (stays(p, m.group) ? stay : left).push_back(p);
  for (const ProcessId& p : m.group) {
    if (!stays(p, before)) joined.push_back(p);
  }
  if (!m.process) return;
  tell_quorum(m, members, along);
  Process& p = *m.process;
  if (!p.in_group) return;
  for (const ProcessId& one : left) {
    if (std::find(joined.begin(), joined.end(), one) != joined.end()) hit(Fault::kLeftAndJoined);
  }
  const bool ring_first = chance(0.2);
  const RingChanged totem{*m.ring, node_ids(members)};
  if (ring_first) {
    hit(Fault::kRingFirst);
    push(p.cpg, totem);
  }
  if (chance(0.5)) {
    push(p.cpg, GroupChanged{m.group, left, joined});
  } else {
    if (joined.size() > 1) hit(Fault::kOneByOne);
    push(p.cpg, GroupChanged{stay, left, {}});
    auto growing = stay;
    for (const ProcessId& one : joined) {
      growing.push_back(one);
      push(p.cpg, GroupChanged{growing, {}, {one}});
    }
  }
  if (!ring_first) push(p.cpg, totem);
  pump_soon(m.index, between(0, kMs));
}

void World::tell_quorum(Node& m, const std::vector<unsigned>& members,
                        const std::set<unsigned>& along) {
  Process& p = *m.process;
  std::vector<NodeId> new_nodes;
  for (unsigned i : members) {
    if (!along.contains(i)) new_nodes.push_back(NodeId{i + 1});
  }
  const QuorumChanged change{*m.ring, quorate(m, members.size()), node_ids(members), new_nodes};
  const bool late = chance(0.1);
  if (late) hit(Fault::kQuorumLate);
  const Time delay = between(0, late ? 70 * kMs : 2 * kMs);
  p.quorum_ready = std::max(p.quorum_ready, now_ + delay);  // one socket, one order
  at(p.quorum_ready, [=, this, pid = p.id.pid, index = m.index] {
    Process* still = process_of(index, pid);
    if (still == nullptr || !still->tracks_quorum) return;
    push(still->quorum, change);
    pump_soon(index, 0);
  });
}

void World::deliver(unsigned node, const Item& item) {
  Node& m = machines_[node];
  Process* p = m.process.get();
  const bool member = p != nullptr && p->in_group;
  if (item.kind == Item::kMessage) {
    if (member) p->cpg.push_back({item.process, item.frame, nullptr});
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
        push(p->cpg, RingChanged{*m.ring, node_ids(rings_.at(*m.ring).members)});
      }
      push(p->cpg, change);
    }
  }
  if (member) pump_soon(node, between(0, 300'000));
}

}  // namespace saru::sim
