// SPDX-License-Identifier: GPL-2.0-or-later
// Connections that whoever takes their block goes on with (Config::syncs). The adapter keeps what
// the members tell each other of them; the core decides when that is needed: who does not know them
// yet gets no block while somebody does, and no block is taken before its connections are in the
// kernel.
#include <algorithm>

#include "agent/core/machine.h"

namespace saru {

// A member that has just come waits until it knows what the others know; where none of them could
// serve, it does not.
bool Machine::counts_as_synced(const Hello& hello) const {
  if (hello.synced || planted() == Plant::kCountUnsynced) return true;
  const auto members = effective_members(s);
  return std::none_of(members.begin(), members.end(), [this](const ProcessId& process) {
    const Hello& other = *s.view.peers.at(process).hello;
    return other.synced && other.eligible && other.weight > 0 && shares_blocks(other);
  });
}

void Machine::on(const Synced&) {
  if (s.synced || s.phase != Phase::kIn) return;
  s.synced = true;
  s.need_round = RoundReason::kChange;
}

// Once for each block in a view: what a member that gave it up told last came before its Released.
void Machine::prepare(const BlockSet& blocks) {
  if (!s.config.syncs) return;
  const BlockSet wanted = blocks - s.preparing;
  if (wanted.empty()) return;
  s.preparing |= wanted;
  out.push_back(PlaceFlows{s.next_ticket++, wanted});
}

BlockSet Machine::prepared_of(const BlockSet& ready) const {
  if (!s.config.syncs || planted() == Plant::kTakeUnprepared) return ready;
  return ready & s.prepared;
}

// Nobody's blocks change no more: their connections are put in place while their wait lasts.
void Machine::prepare_what_comes() {
  if (s.view.confirmed && has_quorum(s) && !s.stopping) prepare(s.view.to_free);
}

void Machine::on(const FlowsPlaced& event) {
  if (event.ticket < s.first_ticket || event.blocks.blocks() != s.config.blocks) return;
  s.prepared |= event.blocks;
}

}  // namespace saru
