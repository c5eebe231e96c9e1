// SPDX-License-Identifier: GPL-2.0-or-later
// Machines, corosync and sarud as things that start, stop, sleep and die.
#include <algorithm>

#include "tests/sim/plants.h"
#include "tests/sim/world.h"

namespace saru::sim {

Process* World::process_of(unsigned node, std::uint64_t pid) {
  Process* p = machines_[node].process.get();
  return p != nullptr && p->id.pid == pid ? p : nullptr;
}

void World::order(unsigned node, EventBody body) {
  Process* p = machines_[node].process.get();
  if (p == nullptr) return;
  p->own.push_back(std::move(body));
  pump_soon(node, 0);
}

void World::boot(unsigned node) {
  Node& m = machines_[node];
  if (m.up || m.stays_off) return;
  m.up = true;
  ++m.boots;
  m.kernel = KernelModel{};
  look_at_kernel(node);
  m.unclean_end.reset();
  m.longest_lease = Nanos(0);
  m.partner_closed.reset();
  m.corosync_paused = m.sarud_paused = m.asleep = false;
  m.trap.reset();
  m.refusals = m.lost_acks = 0;
  start_corosync(node);
  trace(node, "boots");
  at(now_ + between(50 * kMs, 500 * kMs), [=, this] { start_process(node); });
}

// As one that nobody knows: with a ring of its own behind it.
void World::start_corosync(unsigned node) {
  Node& m = machines_[node];
  m.corosync_paused = false;
  m.last_ring = RingId{NodeId{node + 1}, ++m.corosync_stops * 1'000'000'000 + node};
  m.ring.reset();
  m.group.clear();
  m.out.clear();
  m.has_fenced = m.has_shared_a_ring = false;
  std::erase_if(ghosts_, [&](const Ghost& g) { return g.process.node.value == node + 1; });
  reform(10 * kMs, 200 * kMs);
}

// A lease that is shorter than one of which nobody could tell this node is known not to be safe
// (ARCHITECTURE.md): then its administrator has given it the longer one before it joins.
bool World::learn_of_longer_lease(Node& m) const {
  Nanos told = std::max(m.longest_lease, lease(m.version)), untold{0};
  for (const Node& other : machines_) {
    if (!other.up) continue;
    const bool heard = other.process && other.process->in_group && !other.sarud_paused &&
                       !other.corosync_paused && other.component == m.component;
    Nanos& where = heard ? told : untold;
    where = std::max(where, other.longest_lease);
  }
  if (untold <= told) return false;
  while (lease(m.version) < untold) ++m.version.number;
  return true;
}

void World::start_process(unsigned node) {
  Node& m = machines_[node];
  if (!m.up || m.process) return;
  if (m.asleep) {
    at(now_ + 50 * kMs, [=, this] { start_process(node); });
    return;
  }
  m.process = std::make_unique<Process>();
  Process& p = *m.process;
  p.id = {NodeId{node + 1}, next_pid_++};
  // A process first closes the kernel, whatever it finds there.
  const nft::Contents closed{Accepting::nothing(m.version.blocks()), std::nullopt};
  if (!m.kernel.commit(anew(table(m.version), closed), kernel_time(m))) fail("cannot close");
  m.set_back = m.has_slept = false;
  p.known = closed.accepting;
  look_at_kernel(node);
  Config config;
  config.node_name = "n" + std::to_string(node + 1);
  config.node = NodeId{node + 1};
  config.blocks = m.version.blocks();
  config.lease = lease(m.version);
  config.config_hash = m.version.hash();
  config.weight = m.weight;
  config.longest_lease = m.longest_lease = std::max(m.longest_lease, config.lease);
  config.quorum_votes = settings_.fencing ? 1 : majority();
  if (settings_.fencing) config.partner = NodeId{2 - node};
  config.partner_closed = m.partner_closed;
  for (unsigned i = 0; i < settings_.nodes; ++i) config.votes[NodeId{i + 1}] = 1;
  config.expected_votes = settings_.nodes + (settings_.device ? 1 : 0);
  if (settings_.device) config.device_lag = Nanos(kDeviceLag);
  config.stays = settings_.stays;
  config.syncs = settings_.syncs;
  p.state = State(config);
  Time wait = 0;
  if (m.unclean_end && planted() != Plant::kNoRestartWait) {
    wait = std::max<Time>(0, *m.unclean_end + world_span(m, guarded(config.longest_lease)) - now_);
  }
  m.unclean_end = now_;  // until a clean end says otherwise
  p.joining = true;
  at(now_ + wait, [=, this, pid = p.id.pid] { join(node, pid); });
}

void World::join(unsigned node, std::uint64_t pid) {
  Node& m = machines_[node];
  Process* p = process_of(node, pid);
  if (!m.up || p == nullptr || p->in_group || !p->joining) return;
  if (m.corosync_paused || !m.ring || m.sarud_paused) {  // the call fails or blocks until then
    at(now_ + 20 * kMs, [=, this] { join(node, pid); });
    return;
  }
  if (learn_of_longer_lease(m)) return kill_process(node, between(5 * kMs, 50 * kMs));
  p->in_group = true;
  p->joined_at = now_;
  p->joining = false;
  p->outbox.clear();
  if (p->nonce == 0 || planted() != Plant::kSameNonce) p->nonce = rng_.next() | 1;
  p->own.push_back(Joined{{p->id, p->nonce}});
  std::vector<NodeId> nodes;
  for (unsigned i : rings_.at(*m.ring).members) nodes.push_back(NodeId{i + 1});
  if (!p->tracks_quorum) {
    // trackstart with CS_TRACK_CURRENT: nothing says who came along from where.
    std::vector<NodeId> others = nodes;
    std::erase(others, NodeId{node + 1});
    push(p->quorum, QuorumChanged{*m.ring, quorate(m, nodes.size()), nodes, others});
  }
  p->tracks_quorum = true;
  trace(node, "joins the group");
  ++counts.membership_changes;
  if (settings_.fencing) ask_fencer(node);
  originate(node, {Item::kJoin, p->id, nullptr});
  pump_soon(node, 0);
}

void World::kill_process(unsigned node, Time restart_after, bool ghost) {
  Node& m = machines_[node];
  if (!m.process) return;
  trace(node, ghost ? "sarud dies and stays in the group" : "sarud dies");
  if (m.process->writing && m.process->writing->stage == Writing::kCommit && chance(0.5)) {
    commit(node);  // the kernel had the batch already
  }
  const ProcessId id = m.process->id;
  const bool in_group = m.process->in_group;
  m.process.reset();
  m.sarud_paused = false;
  m.trap.reset();
  m.unclean_end = now_;
  if (in_group && m.up) {
    ++counts.membership_changes;
    if (ghost) {
      hit(Fault::kGhost);
      ghosts_.push_back({id, now_ + between(kSecond, 60 * kSecond)});
      at(ghosts_.back().until, [=, this] {
        if (std::erase_if(ghosts_, [&](const Ghost& g) { return g.process == id; }) != 0) {
          originate(node, {Item::kLeave, id, nullptr});
        }
      });
    } else {
      originate(node, {Item::kLeave, id, nullptr});
    }
  }
  if (restart_after >= 0) at(now_ + restart_after, [=, this] { start_process(node); });
}

bool World::crash(unsigned node) {
  Node& m = machines_[node];
  if (!m.up) return false;
  trace(node, "crashes");
  wake(node);
  kill_process(node, -1);
  m.up = false;
  ++m.corosync_stops;
  m.kernel = KernelModel{};
  look_at_kernel(node);
  m.ring.reset();
  m.group.clear();
  m.out.clear();
  std::erase_if(ghosts_, [&](const Ghost& g) { return g.process.node.value == node + 1; });
  return true;
}

bool World::stop_sarud(unsigned node, Time span) {
  Node& m = machines_[node];
  if (!m.up || !m.process || m.sarud_paused) return false;
  m.sarud_paused = true;
  trace(node, "sarud is stopped for " + std::to_string(span / kMs) + " ms");
  at(now_ + span, [=, this, pid = m.process->id.pid, stop = ++m.stops] {
    Node& again = machines_[node];
    if (process_of(node, pid) == nullptr || again.stops != stop) return;
    again.sarud_paused = false;
    trace(node, "sarud goes on");
    pump_soon(node, 0);
  });
  return true;
}

bool World::stop_corosync(unsigned node, Time span) {
  Node& m = machines_[node];
  if (!m.up || m.corosync_paused) return false;
  m.corosync_paused = true;
  trace(node, "corosync is stopped for " + std::to_string(span / kMs) + " ms");
  if (span > settings_.token) {
    at(now_ + settings_.token, [=, this] { reform(settings_.consensus / 2, settings_.consensus); });
  }
  at(now_ + span, [=, this, stop = ++m.corosync_stops] {
    Node& again = machines_[node];
    if (!again.up || again.corosync_stops != stop) return;
    again.corosync_paused = false;
    trace(node, "corosync goes on");
    if (again.ring && rings_.contains(*again.ring)) {  // short: the ring never noticed
      deliver_rest_soon(rings_.at(*again.ring));
      auto waiting = std::exchange(again.out, {});
      for (const Item& item : waiting) originate(node, item);
    }
    reform(10 * kMs, 200 * kMs);
  });
  return true;
}

// Its node leaves the ring, with all processes, while its kernel goes on as it was.
bool World::kill_corosync(unsigned node, Time span) {
  Node& m = machines_[node];
  if (!m.up || m.asleep) return false;
  trace(node, "corosync dies");
  m.corosync_paused = true;
  m.ring.reset();
  m.group.clear();
  m.out.clear();
  if (Process* p = m.process.get(); p != nullptr) {
    p->in_group = p->tracks_quorum = false;
    p->cpg.clear();
    p->quorum.clear();
    p->outbox.clear();
    p->own.push_back(Disconnected{});
    pump_soon(node, 0);
    p->joining = true;
    at(now_ + between(kMs, 100 * kMs), [=, this, pid = p->id.pid] { join(node, pid); });
  }
  const Time full = settings_.token + settings_.consensus;
  reform(full * 8 / 10, full);
  at(now_ + span, [=, this, stop = ++m.corosync_stops] {
    if (machines_[node].up && machines_[node].corosync_stops == stop) start_corosync(node);
  });
  return true;
}

// CLOCK_MONOTONIC_RAW and the jiffies stand still, CLOCK_BOOTTIME and CLOCK_REALTIME do not.
bool World::suspend(unsigned node, Time span) {
  Node& m = machines_[node];
  if (!m.up || m.asleep || m.set_back) return false;
  stop_corosync(node, span);
  m.asleep = m.has_slept = true;
  m.fell_asleep = own_time(m);
  trace(node, "the machine sleeps");
  at(now_ + span, [=, this, boots = m.boots] {
    if (machines_[node].boots == boots) wake(node);
  });
  return true;
}

void World::wake(unsigned node) {
  Node& m = machines_[node];
  if (!m.asleep) return;
  m.asleep = false;
  m.slept += own_time(m) - m.fell_asleep;
  trace(node, "the machine wakes");
  look_at_kernel(node);
  pump_soon(node, 0);
}

// Whether a trap that was set for this point closes now: then the process does not go on.
bool World::spring(unsigned node, Point point) {
  Node& m = machines_[node];
  if (!m.trap || m.trap->point != point) return false;
  if (m.set_back && m.trap->blow == Blow::kSuspend) return false;
  static constexpr Fault kHits[] = {Fault::kTrapEvent,  Fault::kTrapAction, Fault::kTrapSend,
                                    Fault::kTrapClocks, Fault::kTrapCommit, Fault::kTrapAck};
  const Trap trap = *m.trap;
  m.trap.reset();
  if (trap.blow == Blow::kKill) {
    if (m.process->writing) hit(Fault::kKillWriting);
    kill_process(node, between(20 * kMs, 2 * kSecond));
    return true;
  }
  hit(kHits[static_cast<std::size_t>(point)]);
  if (trap.blow == Blow::kSuspend) {
    suspend(node, trap.span);
    return true;
  }
  stop_sarud(node, trap.span);
  if (trap.blow == Blow::kStopMachine) stop_corosync(node, trap.span);
  return true;
}

}  // namespace saru::sim
