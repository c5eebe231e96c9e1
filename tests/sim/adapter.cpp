// SPDX-License-Identifier: GPL-2.0-or-later
// sarud's adapters around the production core: one turn of the loop at a time, so that a stop may
// fall between any two of them, also between reading two clocks and before the kernel acts.
#include <algorithm>

#include "tests/sim/plants.h"
#include "tests/sim/world.h"

namespace saru::sim {

void World::pump_soon(unsigned node, Time delay) {
  Process* p = machines_[node].process.get();
  if (p == nullptr || p->pump_scheduled) return;
  p->pump_scheduled = true;
  at(now_ + delay, [=, this, pid = p->id.pid] {
    Process* still = process_of(node, pid);
    if (still == nullptr) return;
    still->pump_scheduled = false;
    pump(node);
  });
}

// One turn of the loop: finish what the last step ordered, else take the next event.
void World::pump(unsigned node) {
  Node& m = machines_[node];
  if (m.sarud_paused || m.asleep) return;
  const auto pid = m.process->id.pid;
  if (m.process->writing) {
    go_on_writing(node);
  } else if (!m.process->todo.empty()) {
    Process& p = *m.process;
    const bool sends = std::holds_alternative<Send>(p.todo.front());
    if (spring(node, sends ? Point::kSend : Point::kAction)) return;
    const Action action = std::move(p.todo.front());
    p.todo.pop_front();
    carry_out(node, action);
  } else {
    if (spring(node, Point::kEvent)) return;
    dispatch(node);
  }
  Process* still = process_of(node, pid);
  if (still == nullptr) return;
  const Process& p = *still;
  if (p.writing || !p.todo.empty() || !p.own.empty() || !p.quorum.empty() || !p.cpg.empty()) {
    Time delay = between(1'000, 50'000);
    if (p.writing && now_ < m.slow_until) {
      hit(Fault::kSlowWrite);
      delay = between(kMs, 60 * kMs);
    }
    pump_soon(node, delay);
  }
  schedule_wake(node);
}

// Steps on the next event, or on a Tick.
void World::dispatch(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  Event event{clock(m), Tick{}};
  if (!p.own.empty()) {
    event.body = std::move(p.own.front());
    p.own.pop_front();
  } else if (!p.quorum.empty() || !p.cpg.empty()) {
    const bool from_quorum = !p.quorum.empty() && (p.cpg.empty() || chance(0.5));
    if (from_quorum && !p.cpg.empty()) hit(Fault::kQuorumFirst);
    std::deque<Callback>& queue = from_quorum ? p.quorum : p.cpg;
    const Callback next = std::move(queue.front());
    queue.pop_front();
    if (next.body) {
      event.body = std::move(*next.body);
    } else {
      if (next.from == p.id) (void)p.outbox.came_back(next.frame->bytes);
      flush_outbox(node);
      if (next.frame->version == m.wire_version) {
        event.body = Received{next.from, next.frame->message};
      } else {  // decode() says kOtherVersion
        event.body = NotUnderstood{next.from};
      }
    }
  }
  ++counts.steps;
  Step result = step(std::move(*p.state), event);
  p.state = std::move(result.state);
  if (settings_.syncs) sync_soon(node);
  m.longest_lease = p.state->longest_lease;
  m.partner_closed = closed_on(*p.state);
  for (Action& action : result.actions) {
    if (const auto* line = std::get_if<Log>(&action)) {
      note(node, *line);  // words take no time, so that they change no history
    } else {
      p.todo.push_back(std::move(action));
    }
  }
}

void World::schedule_wake(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  const Nanos span = next_wakeup(*p.state) - clock(m).raw;
  const Time when = now_ + std::max<Time>(world_span(m, std::max(span, Nanos(0))), 100'000) + 1000;
  if (p.wake_scheduled > now_ && p.wake_scheduled <= when) return;
  p.wake_scheduled = when;
  at(when, [=, this, pid = p.id.pid] {
    Process* still = process_of(node, pid);
    if (still == nullptr) return;
    if (still->wake_scheduled == when) still->wake_scheduled = -1;
    pump_soon(node, 0);
  });
}

void World::note(unsigned node, const Log& line) {
  counts.views += line.text.starts_with("view ");
  counts.acquisitions += line.text.starts_with("takes ");
  counts.lapses += line.text.starts_with("the lease ran out");
  trace(node, line.text);
}

void World::carry_out(unsigned node, const Action& action) {
  if (const auto* one = std::get_if<Send>(&action)) {
    send(node, one->message);
  } else if (const auto* write = std::get_if<KernelWrite>(&action)) {
    begin_write(node, *write);
  } else if (const auto* flows = std::get_if<PlaceFlows>(&action)) {
    prepare(node, *flows);
  } else if (const auto* again = std::get_if<Rejoin>(&action)) {
    trace(node, "rejoins: " + again->reason);
    rejoin(node);
  } else if (std::holds_alternative<Left>(action)) {
    machines_[node].process->ending = true;
    leave(node, now_ + 500 * kMs);
  }
}

// What waits in either direction is dropped.
void World::rejoin(unsigned node) {
  Process& p = *machines_[node].process;
  ++counts.rejoins;
  if (!p.in_group) return;
  p.in_group = false;
  p.joining = true;
  p.cpg.clear();
  p.outbox.clear();
  originate(node, {Item::kLeave, p.id, nullptr});
  at(now_ + between(kMs, 20 * kMs), [=, this, pid = p.id.pid] { join(node, pid); });
}

// Ends once everything has been said and come back, or it takes too long.
void World::leave(unsigned node, Time give_up) {
  Node& m = machines_[node];
  Process& p = *m.process;
  const bool clean = p.in_group && p.outbox.queued() == 0 && p.outbox.in_flight() == 0;
  if ((p.in_group && !clean && now_ < give_up) || m.sarud_paused || m.asleep) {
    at(now_ + 5 * kMs, [=, this, pid = p.id.pid] {
      if (process_of(node, pid) != nullptr) leave(node, give_up);
    });
    return;
  }
  if (p.in_group) originate(node, {Item::kLeave, p.id, nullptr});
  trace(node, clean ? "has stopped" : "has stopped, but could not say so");
  m.process.reset();
  m.kernel = KernelModel{};  // the addresses first, then the table
  look_at_kernel(node);
  m.unclean_end.reset();
  if (!clean) m.unclean_end = now_;
  at(now_ + between(20 * kMs, 3 * kSecond), [=, this] { start_process(node); });
}

// Through the production codec and outbox.
void World::send(unsigned node, const Message& message) {
  Process& p = *machines_[node].process;
  if (!p.in_group) return;
  if (message.sender.nonce != p.nonce) return;  // Group::send() refuses it
  if (p.outbox.push(message, encode(kCluster, message)) == Outbox::Queued::kFull) {
    trace(node, "the outbox is full");
  }
  flush_outbox(node);
}

void World::flush_outbox(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  if (now_ < p.try_again_until || !p.in_group) return;
  while (const std::vector<std::byte>* bytes = p.outbox.next()) {
    auto decoded = decode(kCluster, *bytes, p.id);
    if (!decoded) {
      fail("the codec refuses its own message: " + std::string(text(decoded.error())));
      return;
    }
    ++counts.messages;
    auto frame = std::make_shared<Frame>(Frame{*bytes, m.wire_version, std::move(*decoded)});
    p.outbox.sent();
    originate(node, {Item::kMessage, p.id, std::move(frame)});
  }
}

// ---- The kernel
// ----------------------------------------------------------------------------------

void World::begin_write(unsigned node, const KernelWrite& write) {
  Process& p = *machines_[node].process;
  ++counts.writes;
  const std::uint64_t hash = write.config.value_or(p.state->config.config_hash);
  p.writing = Writing{.write = write, .version = version_of(hash), .rebuild = write.rebuild};
}

// As nft::Table does: CLOCK_REALTIME, the others, one batch, its answer; each may be long in
// coming.
void World::go_on_writing(unsigned node) {
  Node& m = machines_[node];
  Writing& writing = *m.process->writing;
  const bool swapped = planted() == Plant::kClocksInWrongOrder;
  const auto left = [&] {
    return writing.write.deadline ? remaining(*writing.write.deadline, clock(m)) : Nanos(0);
  };
  switch (writing.stage) {
    case Writing::kWallClock:
      (swapped ? writing.left : writing.realtime) = swapped ? left() : kernel_time(m).realtime;
      writing.stage = Writing::kOtherClocks;
      break;
    case Writing::kOtherClocks:
      if (spring(node, Point::kClocks)) return;
      (swapped ? writing.realtime : writing.left) = swapped ? kernel_time(m).realtime : left();
      writing.stage = Writing::kCommit;
      break;
    case Writing::kCommit:
      if (spring(node, Point::kCommit)) return;
      commit(node);
      break;
    case Writing::kAck:
      if (spring(node, Point::kAck)) return;
      if (writing.refused) {
        answer_write(node, planted() == Plant::kAckUnread, "No buffer space available");
      } else if (m.lost_acks > 0) {
        --m.lost_acks;
        hit(Fault::kLostAck);
        m.process->known.reset();
        answer_write(node, false, "no answer of the kernel");
      } else {
        answer_write(node, true, "");
      }
      break;
  }
}

nft::Contents World::contents_for(const Node& m, const Writing& writing) const {
  nft::Contents closed{Accepting::nothing(writing.version.blocks()), std::nullopt};
  if (!writing.write.deadline || writing.left < std::chrono::milliseconds(10)) return closed;
  const bool relative = planted() == Plant::kRelativeDeadline;
  const Nanos from = relative ? kernel_time(m).realtime : writing.realtime;
  return {writing.write.accepting, nft::Lease{writing.left, from + writing.left}};
}

// The kernel executes the batch now: the absolute deadline is as it was computed, timers count from
// here.
void World::commit(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  Writing& writing = *p.writing;
  const nft::TableConfig config = table(writing.version);
  writing.stage = Writing::kAck;
  if (m.refusals > 0) {
    --m.refusals;
    hit(Fault::kRefusedWrite);
    trace(node, "the kernel refuses a write");
    writing.refused = true;
    return;
  }
  const nft::Contents contents = contents_for(m, writing);
  const Transaction batch =
      writing.rebuild ? anew(config, contents) : changes(config, p.known, contents);
  if (m.kernel.commit(batch, kernel_time(m))) {
    if (settings_.syncs) look_at_taken(node);
    m.set_back = m.has_slept = false;
    counts.switches += writing.write.config ? 1 : 0;
    look_at_kernel(node);
    return;
  }
  // Somebody has changed the table: look again, build it anew.
  p.known.reset();
  writing.rebuild = true;
  writing.stage = Writing::kWallClock;
  if (++writing.tries == 8) fail("the kernel refuses even a new table");
}

void World::answer_write(unsigned node, bool ok, const std::string& error) {
  Node& m = machines_[node];
  Process& p = *m.process;
  const KernelWrite write = p.writing->write;
  p.writing.reset();
  if (!ok || !m.kernel.has_table()) {  // gone again: it cannot be read back
    p.known.reset();
    p.own.push_back(
        KernelDone{write.seq, false, Accepting::nothing(write.accepting.blocks()), error});
    return;
  }
  Accepting held = m.kernel.accepting();
  if (planted() == Plant::kAckUnread) held = write.accepting;
  p.known = held;
  p.own.push_back(KernelDone{write.seq, true, held, ""});
  end_lingering(node);
}

// The connections that linger end one after the other.
void World::end_lingering(unsigned node) {
  Node& m = machines_[node];
  const BlockSet lingering = m.kernel.accepting().lingering;
  if (lingering.empty() || m.lingering_ends > now_) return;
  m.lingering_ends = now_ + static_cast<Time>(1 + lingers_.below(2000)) * kMs;
  const unsigned odd = static_cast<unsigned>(lingers_.below(4));
  at(m.lingering_ends, [=, this, pid = m.process->id.pid] {
    Process* still = process_of(node, pid);
    if (still == nullptr || machines_[node].asleep) return;
    LingerEnded ended{BlockSet(still->state->config.blocks)};
    if (lingering.blocks() != ended.blocks.blocks()) return;
    lingering.for_each([&](BlockId block) {
      if (odd == 0 || block.value % 4 == odd) ended.blocks.insert(block);
    });
    still->own.push_back(ended);
    pump_soon(node, 0);
  });
}

// ---- Connections that are told to the others ---------------------------------------------------

// Some take long: many connections, or a busy machine.
void World::prepare(unsigned node, const PlaceFlows& action) {
  const unsigned longest = lingers_.below(16) == 0 ? 800 : 60;
  const Time takes = static_cast<Time>(lingers_.below(longest)) * kMs;
  at(now_ + takes, [=, this, pid = machines_[node].process->id.pid] {
    Process* still = process_of(node, pid);
    if (still == nullptr) return;
    if (action.blocks.blocks() == still->state->config.blocks) {
      if (still->prepared.blocks() != action.blocks.blocks()) still->prepared = action.blocks;
      still->prepared |= action.blocks;
    }
    still->own.push_back(FlowsPlaced{action.ticket, action.blocks});
    pump_soon(node, 0);
  });
}

void World::sync_soon(unsigned node) {
  Process& p = *machines_[node].process;
  if (p.syncing || p.state->synced || !p.state->view.confirmed) return;
  p.syncing = true;
  const unsigned longest = !healing_ && lingers_.below(8) == 0 ? 1500 : 300;
  at(now_ + static_cast<Time>(lingers_.below(longest)) * kMs, [=, this, pid = p.id.pid] {
    Process* still = process_of(node, pid);
    if (still == nullptr) return;
    still->syncing = false;
    still->own.push_back(Synced{});
    pump_soon(node, 0);
  });
}

// What others took out of the kernel, and comes back, was ours all the time.
void World::look_at_taken(unsigned node) {
  Node& m = machines_[node];
  Process& p = *m.process;
  const BlockSet owned = m.kernel.accepting().owned;
  const BlockSet taken = p.written.blocks() == owned.blocks() ? owned - p.written : owned;
  p.written = owned;
  const bool known = p.prepared.blocks() == owned.blocks();
  if (!taken.empty() && (!known || !(taken - p.prepared).empty())) {
    fail("n" + std::to_string(node + 1) + " takes blocks whose connections are not there");
  }
  if (known) p.prepared -= owned;
  if (taken.empty() || p.state->synced) return;
  for (const ProcessId& process : effective_members(*p.state)) {
    const auto& hello = p.state->view.peers.at(process).hello;
    if (hello && hello->synced && hello->eligible && hello->weight > 0 &&
        hello->config_hash == p.state->view.config_hash) {
      fail("n" + std::to_string(node + 1) + " takes blocks before it knows the connections that " +
           hello->node_name + " knows");
    }
  }
}

}  // namespace saru::sim
