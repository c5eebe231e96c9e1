// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "agent/core/machine.h"

namespace saru {

State::State(Config c)
    : config(std::move(c)),
      longest_lease(std::max(config.lease, config.longest_lease)),
      holding(config.blocks),
      releasing(config.blocks),
      lingering(config.blocks),
      ending(config.blocks),
      contested(config.blocks),
      preparing(config.blocks),
      prepared(config.blocks) {
  kernel.held = kernel.lingering = kernel.contested = BlockSet(config.blocks);
  if (config.partner_closed) {
    before_join = BeforeJoin{*config.partner_closed, Partner{}, std::nullopt};
    before_join->partner.closed = true;
  }
}

bool has_quorum(const State& state) {
  return state.ring && state.quorum && state.quorum->ring == *state.ring && state.quorum->quorate;
}

unsigned votes_of(const Config& config, NodeId node) {
  const auto found = config.votes.find(node);
  return found == config.votes.end() ? 1 : found->second;
}

bool lacks_votes(const State& state) {
  const Config& config = state.config;
  if (!config.votes_decide || config.partner || config.device_lag > Nanos(0)) return false;
  unsigned votes = 0;
  for (const NodeId& node : state.ring_members) votes += votes_of(config, node);
  return votes < config.quorum_votes;
}

std::vector<ProcessId> view_members(const State& state) {
  std::vector<ProcessId> members;
  for (const ProcessId& process : state.group) {
    const auto& nodes = state.ring_members;
    if (std::find(nodes.begin(), nodes.end(), process.node) == nodes.end()) continue;
    if (!state.view.excluded.contains(process)) members.push_back(process);
  }
  return members;
}

std::vector<ProcessId> effective_members(const State& state) {
  auto members = view_members(state);
  std::erase_if(members, [&](ProcessId p) { return state.view.waived.contains(p); });
  return members;
}

Message make_message(const State& state, Body body) {
  Message message{state.me, state.view.id, {}, std::move(body)};
  for (const ProcessId& process : state.view.excluded) {
    const auto nonce = state.nonces.find(process);
    message.excluded.push_back({process, nonce == state.nonces.end() ? 0 : nonce->second});
  }
  return message;
}

void Machine::log(LogLevel level, std::string text) { out.push_back(Log{level, std::move(text)}); }

void Machine::send(Body body) { out.push_back(Send{make_message(s, std::move(body))}); }

std::string Machine::name_of(ProcessId process) const {
  const auto peer = s.view.peers.find(process);
  if (peer != s.view.peers.end() && peer->second.hello) return peer->second.hello->node_name;
  return "node " + std::to_string(process.node.value);
}

void Machine::on(const SetEligible& event) {
  s.ineligible_reason = event.eligible ? "" : event.reason;
  if (s.config.eligible == event.eligible) return;
  s.config.eligible = event.eligible;
  s.need_round = RoundReason::kChange;
}

void Machine::on(const SetWeight& event) {
  if (s.config.weight == event.weight) return;
  s.config.weight = event.weight;
  s.need_round = RoundReason::kChange;
}

// What quorum meant so far proves nothing about rings that need other votes.
void Machine::on(const VotesChanged& event) {
  s.config.votes = event.votes;
  s.config.quorum_votes = event.quorum_votes;
  s.config.expected_votes = event.expected_votes;
  s.continuous = false;
  if (s.quorate_since) s.quorate_since = now.raw;
}

void Machine::on(const Reconfigure& event) {
  if (s.switching) return;  // decided by all; the adapter asks again afterwards
  s.next.reset();
  s.longest_lease = std::max(s.longest_lease, event.lease);  // others may have it already
  if (event.hash != s.config.config_hash) s.next = event;
  s.need_round = RoundReason::kConfig;
}

void Machine::on(const StopRequested&) {
  if (s.stopping) {
    s.stop_by = now.raw;  // asked twice: do not wait for the others any longer
    return;
  }
  s.stopping = true;
  s.stop_by = now.raw + s.config.lease;
  s.need_round = RoundReason::kChange;
}

void Machine::on(const AuditRequested& event) { send(Audit{event.token}); }

Step step(State state, const Event& event) {
  Step result{std::move(state), {}};
  State& s = result.state;
  Machine machine{s, event.now, result.actions};
  if (s.phase == Phase::kIn && s.last_event >= Nanos(0) &&
      event.now.raw - s.last_event > pause_limit(s.config.lease)) {
    const auto gap =
        std::chrono::duration_cast<std::chrono::milliseconds>(event.now.raw - s.last_event);
    machine.begin_rejoin("this process did not run for " + std::to_string(gap.count()) + " ms");
  }
  s.last_event = event.now.raw;
  machine.check_lapse();
  std::visit([&](const auto& body) { machine.on(body); }, event.body);
  machine.settle();
  return result;
}

Nanos next_wakeup(const State& state) {
  Nanos wake = state.last_event + beat_interval(state.config.lease);
  // Only moments to come: what is past and still undone waits for something else than time.
  const auto at = [&](Nanos moment) {
    if (moment > state.last_event) wake = std::min(wake, moment);
  };
  if (state.view.open && state.view.hello_sent) at(state.next_beat);
  const bool waits = !state.view.to_free.empty() || !state.contested.empty();
  if (state.view.confirmed && waits) at(state.view.free_at);
  if (state.partner.bare) at(*state.partner.bare + guarded(state.longest_lease));
  const bool accepts = !state.holding.empty() || !state.lingering.empty();
  if (state.granted && accepts) at(state.granted->raw);
  if (state.stopping) at(state.stop_by);
  if (state.view.change_at) at(*state.view.change_at);
  return wake;
}

}  // namespace saru
