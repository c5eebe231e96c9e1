// SPDX-License-Identifier: GPL-2.0-or-later
// sarud's adapters around the production core, each step of them interruptible: a pause may fall
// between any two actions, and between reading the clocks and the kernel's acting on them.
#include <algorithm>
#include <cstdio>

#include "tests/sim/world.h"

namespace saru::sim {

void World::boot(unsigned node) {
  Node& m = machines_[node];
  if (m.up) return;
  m.up = true;
  m.kernel = KernelModel{};
  m.unclean_end.reset();
  m.longest_lease = Nanos(0);
  m.corosync_paused = m.sarud_paused = false;
  m.last_ring = RingId{NodeId{node + 1}, ++m.boots * 1'000'000'000 + node};
  m.ring.reset();
  m.group.clear();
  m.out.clear();
  trace(node, "boots");
  reform(10 * kMs, 200 * kMs);
  at(now_ + between(50 * kMs, 500 * kMs), [=, this] { start_process(node); });
}

void World::start_process(unsigned node) {
  Node& m = machines_[node];
  if (!m.up || m.process) return;
  m.kernel = KernelModel{};  // a process first closes the kernel
  m.process = std::make_unique<Process>();
  m.process->id = {NodeId{node + 1}, next_pid_++};
  Config config;
  config.node_name = "n" + std::to_string(node + 1);
  config.node = NodeId{node + 1};
  config.blocks = m.version.blocks();
  config.lease = lease(m.version);
  config.config_hash = m.version.hash();
  config.longest_lease = m.longest_lease = std::max(m.longest_lease, config.lease);
  config.quorum_votes = settings_.nodes / 2 + 1;
  for (unsigned i = 0; i < settings_.nodes; ++i) config.votes[NodeId{i + 1}] = 1;
  config.expected_votes = settings_.nodes;
  m.process->state = State(config);
  Time wait = 0;
  if (m.unclean_end && planted() != Plant::kNoRestartWait) {
    wait = std::max<Time>(0, *m.unclean_end + world_span(m, guarded(config.longest_lease)) - now_);
  }
  m.unclean_end = now_;  // until a clean end says otherwise
  const auto pid = m.process->id.pid;
  at(now_ + wait, [=, this] { join(node, pid); });
}

void World::join(unsigned node, std::uint64_t pid) {
  Node& m = machines_[node];
  if (!m.up || !m.process || m.process->id.pid != pid) return;
  if (m.corosync_paused || !m.ring) {  // the call fails or blocks until corosync answers
    at(now_ + 20 * kMs, [=, this] { join(node, pid); });
    return;
  }
  Process& p = *m.process;
  p.in_group = true;
  p.own.push_back({{}, Joined{{p.id, rng_.next()}}});
  std::vector<NodeId> nodes;
  for (unsigned i : rings_.at(*m.ring).members) nodes.push_back(NodeId{i + 1});
  // trackstart with CS_TRACK_CURRENT: the present ring, all of whose members came before us.
  const bool quorate = nodes.size() > settings_.nodes / 2;
  if (!p.tracks_quorum) p.quorum.push_back({{}, QuorumChanged{*m.ring, quorate, nodes, {}}});
  p.tracks_quorum = true;
  trace(node, "joins the group");
  originate(node, {Item::kJoin, p.id, nullptr});
  pump_soon(node, 0);
}

void World::kill_process(unsigned node, bool restart) {
  Node& m = machines_[node];
  if (!m.process) return;
  trace(node, "sarud dies");
  const ProcessId id = m.process->id;
  const bool in_group = m.process->in_group;
  m.process.reset();
  m.sarud_paused = false;
  m.unclean_end = now_;
  if (in_group && m.up) originate(node, {Item::kLeave, id, nullptr});
  if (restart) at(now_ + between(20 * kMs, 2 * kSecond), [=, this] { start_process(node); });
}

void World::crash(unsigned node) {
  Node& m = machines_[node];
  if (!m.up) return;
  trace(node, "crashes");
  kill_process(node, false);
  m.up = false;
  m.kernel = KernelModel{};
  m.ring.reset();
  m.group.clear();
  m.out.clear();
}

void World::pause_sarud(unsigned node, Time span) {
  Node& m = machines_[node];
  if (!m.up || !m.process || m.sarud_paused) return;
  m.sarud_paused = true;
  trace(node, "sarud is paused for " + std::to_string(span / kMs) + " ms");
  resume_at(node, m.process->id.pid, now_ + span);
}

void World::resume_at(unsigned node, std::uint64_t pid, Time when) {
  at(when, [=, this] {
    Node& m = machines_[node];
    if (!m.process || m.process->id.pid != pid) return;
    m.sarud_paused = false;
    trace(node, "sarud goes on");
    pump_soon(node, 0);
  });
}

void World::pause_corosync(unsigned node, Time span) {
  Node& m = machines_[node];
  if (!m.up || m.corosync_paused) return;
  m.corosync_paused = true;
  trace(node, "corosync is paused for " + std::to_string(span / kMs) + " ms");
  if (span > settings_.token) {
    at(now_ + settings_.token, [=, this] { reform(settings_.consensus / 2, settings_.consensus); });
  }
  const auto boots = m.boots;
  at(now_ + span, [=, this] {
    Node& again = machines_[node];
    if (!again.up || again.boots != boots) return;
    again.corosync_paused = false;
    trace(node, "corosync goes on");
    if (again.ring && rings_.contains(*again.ring)) {  // short: the ring never noticed
      const RingId id = *again.ring;
      deliver_rest_soon(rings_[id]);
      auto waiting = std::exchange(again.out, {});
      for (const Item& item : waiting) originate(node, item);
    }
    reform(10 * kMs, 200 * kMs);
  });
}

void World::pump_soon(unsigned node, Time delay) {
  Process* p = machines_[node].process.get();
  if (p == nullptr || p->pump_scheduled) return;
  p->pump_scheduled = true;
  const auto pid = p->id.pid;
  at(now_ + delay, [=, this] {
    Process* still = machines_[node].process.get();
    if (still == nullptr || still->id.pid != pid) return;
    still->pump_scheduled = false;
    pump(node);
  });
}

// One turn of the loop: finish what the last step ordered, else take the next event.
void World::pump(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  if (m.sarud_paused) return;
  if (faults_ && settings_.pauses_at_await_points && chance(0.0004)) {
    pause_sarud(node, between(50 * kMs, 4 * kSecond));
    return;
  }
  if (p.write) {
    write_kernel(node);
  } else if (!p.todo.empty()) {
    const Action action = std::move(p.todo.front());
    p.todo.pop_front();
    carry_out(node, action);
  } else if (p.state) {
    Event event{clock(m), Tick{}};
    std::deque<Event>* from = nullptr;
    if (!p.own.empty()) {
      from = &p.own;
    } else if (!p.quorum.empty() && (p.cpg.empty() || chance(0.5))) {
      from = &p.quorum;
    } else if (!p.cpg.empty()) {
      from = &p.cpg;
    }
    if (from != nullptr) {
      event.body = std::move(from->front().body);
      from->pop_front();
    }
    ++counts.steps;
    Step result = step(std::move(*p.state), event);
    p.state = std::move(result.state);
    m.longest_lease = p.state->longest_lease;
    for (Action& action : result.actions) {
      if (std::holds_alternative<Log>(action)) {
        carry_out(node, action);  // words take no time, so that they change no history
      } else {
        p.todo.push_back(std::move(action));
      }
    }
  }
  if (!m.process) return;
  if (p.write || !p.todo.empty() || !p.own.empty() || !p.quorum.empty() || !p.cpg.empty()) {
    // Now and then the kernel, or the scheduler, takes its time.
    pump_soon(node, faults_ && chance(0.01) ? between(kMs, 30 * kMs) : between(1'000, 50'000));
  }
  schedule_wake(node);
}

void World::schedule_wake(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  const Nanos span = next_wakeup(*p.state) - clock(m).raw;
  const Time when = now_ + std::max<Time>(world_span(m, std::max(span, Nanos(0))), 100'000) + 1000;
  if (p.wake_scheduled > now_ && p.wake_scheduled <= when) return;
  p.wake_scheduled = when;
  const auto pid = p.id.pid;
  at(when, [=, this] {
    Process* still = machines_[node].process.get();
    if (still == nullptr || still->id.pid != pid) return;
    if (still->wake_scheduled == when) still->wake_scheduled = -1;
    pump_soon(node, 0);
  });
}

void World::carry_out(unsigned node, const Action& action) {
  Node& m = machines_[node];
  Process& p = *m.process;
  if (const auto* send = std::get_if<Send>(&action)) {
    if (p.in_group) {
      originate(node, {Item::kMessage, p.id, std::make_shared<const Message>(send->message)});
    }
  } else if (const auto* write = std::get_if<KernelWrite>(&action)) {
    Time left = 0;
    const Instant now = clock(m);
    if (write->deadline) left = std::max<Time>(0, remaining(*write->deadline, now).count());
    p.write = {*write, {now_ + world_span(m, Nanos(left)), world_span(m, Nanos(left))}};
    if (faults_ && settings_.pauses_at_await_points && chance(0.002)) {
      pause_sarud(node, between(50 * kMs, 4 * kSecond));
    }
  } else if (const auto* rejoin = std::get_if<Rejoin>(&action)) {
    ++counts.rejoins;
    trace(node, "rejoins: " + rejoin->reason);
    p.in_group = false;
    p.cpg.clear();
    originate(node, {Item::kLeave, p.id, nullptr});
    const auto pid = p.id.pid;
    at(now_ + between(kMs, 20 * kMs), [=, this] { join(node, pid); });
  } else if (std::holds_alternative<Left>(action)) {
    originate(node, {Item::kLeave, p.id, nullptr});
    trace(node, "has stopped");
    m.process.reset();
    m.unclean_end.reset();
    at(now_ + between(20 * kMs, 3 * kSecond), [=, this] { start_process(node); });
  } else if (const auto* line = std::get_if<Log>(&action)) {
    counts.views += line->text.starts_with("view ");
    counts.acquisitions += line->text.starts_with("takes ");
    counts.lapses += line->text.starts_with("the lease ran out");
    trace(node, line->text);
  }
}

// The kernel executes the write now; the absolute deadline is as it was computed, the timer counts
// from now.
void World::write_kernel(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  const auto [write, times] = *p.write;
  p.write.reset();
  const auto [deadline, span] = times;
  const Version version{
      static_cast<unsigned>(write.config.value_or(p.state->config.config_hash) - Version{}.hash())};
  if (faults_ && chance(0.001)) {
    trace(node, "the kernel refuses a write");
    p.own.push_back(
        {{}, KernelDone{write.seq, false, m.kernel.owned, "No buffer space available"}});
    return;
  }
  if (write.deadline && span > 0) {
    const Time absolute = planted() == Plant::kRelativeDeadline ? now_ + span : deadline;
    m.kernel = {version.cut(), write.owned, absolute, now_ + span};
  } else {
    m.kernel = KernelModel{version.cut(), BlockSet(version.blocks()), -1, -1};
  }
  counts.switches += write.config ? 1 : 0;
  check_owners(node);
  p.own.push_back({{}, KernelDone{write.seq, true, m.kernel.owned, ""}});
}

}  // namespace saru::sim
