// SPDX-License-Identifier: GPL-2.0-or-later
// The Hellos of all members are here: everybody computes the same table.
#include <algorithm>

#include "agent/core/assign.h"
#include "agent/core/machine.h"

namespace saru {

void Machine::confirm_if_complete() {
  if (!s.view.open || s.view.confirmed) return;
  if (planted() == Plant::kConfirmByMajority) waive_the_slow();
  for (const ProcessId& process : effective_members(s)) {
    if (!s.view.peers[process].hello) return;
  }
  s.view.confirmed = true;
  s.view.confirm_beat = s.beats_sent;
  remember_companions();
  s.view.config_hash = wanted_config();
  s.switching = s.next && s.next->hash == s.view.config_hash;
  forget_longer_leases();
  assign_blocks();
  log_view();
  send_beat();
}

// A planted bug.
void Machine::waive_the_slow() {
  std::vector<ProcessId> slow;
  const auto members = effective_members(s);
  for (const ProcessId& process : members) {
    if (!s.view.peers[process].hello) slow.push_back(process);
  }
  if (slow.size() * 2 >= members.size() || !s.view.peers[s.me.process].hello) return;
  for (const ProcessId& process : slow) s.view.waived[process] = 0;
}

void Machine::remember_companions() {
  if (!has_quorum(s)) return;
  s.view.confirmed_quorate = true;
  s.companions.clear();
  for (const ProcessId& process : effective_members(s)) {
    s.companions.push_back(*s.view.peers[process].id);
  }
}

// The configuration that everybody has or was told to change to; without one, the active one.
std::uint64_t Machine::wanted_config() {
  const auto members = effective_members(s);
  std::set<std::uint64_t> wanted;
  for (const ProcessId& process : members) {
    const std::uint64_t next = s.view.peers.at(process).hello->config_next;
    if (next != 0) wanted.insert(next);
  }
  for (const std::uint64_t hash : wanted) {
    bool keeps = true;
    const bool all = std::all_of(members.begin(), members.end(), [&](ProcessId process) {
      const Hello& hello = *s.view.peers.at(process).hello;
      keeps = keeps && (hello.config_next != hash || hello.next_keeps_blocks);
      return hello.config_hash == hash || hello.config_next == hash;
    });
    // What all release at once is nobody's, and would wait for everybody who is missed.
    const Nanos wait = wait_for_departed();
    if (all && !keeps && wait > Nanos(0)) {
      s.view.change_at = now.raw + wait;
    } else if (all) {
      return hash;
    }
  }
  return active_config();
}

// The configuration under which somebody can serve; of several that of those who hold the most
// blocks, then of the most members, then the lowest.
std::uint64_t Machine::active_config() const {
  struct Standing {
    bool serves = false;
    unsigned held = 0;
    unsigned members = 0;
    auto operator<=>(const Standing&) const = default;
  };
  std::map<std::uint64_t, Standing> standings;
  for (const ProcessId& process : effective_members(s)) {
    const Hello& hello = *s.view.peers.at(process).hello;
    Standing& standing = standings[hello.config_hash];
    standing.serves = standing.serves || (hello.eligible && hello.weight > 0);
    standing.held += hello.held.size();
    ++standing.members;
  }
  auto best = standings.begin();
  for (auto it = standings.begin(); it != standings.end(); ++it) {
    if (it->second > best->second) best = it;
  }
  return best->first;
}

// Every node of the cluster is here, under one configuration: nobody has another lease.
void Machine::forget_longer_leases() {
  std::vector<NodeId> nodes;
  for (const ProcessId& process : effective_members(s)) {
    const Hello& hello = *s.view.peers.at(process).hello;
    if (hello.config_hash != s.config.config_hash || hello.config_next != 0) return;
    nodes.push_back(process.node);
  }
  if (are_all_nodes(nodes) && has_quorum(s)) s.longest_lease = s.config.lease;
}

// Beside these there is no node in the cluster.
bool Machine::are_all_nodes(const std::vector<NodeId>& nodes) const {
  return !s.config.votes.empty() &&
         std::all_of(s.config.votes.begin(), s.config.votes.end(), [&](const auto& entry) {
           return std::find(nodes.begin(), nodes.end(), entry.first) != nodes.end();
         });
}

// Whether a packet belongs to the same block there as under the view's configuration.
bool Machine::shares_blocks(const Hello& hello) const {
  const std::uint64_t hash = s.view.config_hash;
  if (planted() == Plant::kSwitchHolding && hello.config_next == hash) return true;
  return hello.config_hash == hash || (hello.config_next == hash && hello.next_keeps_blocks);
}

// For how long a quorum must have lasted until no other one's lease can be left. Beside a quorum
// device another half may go on in the belief that it has the vote, and its sarud may not run
// meanwhile, for half a lease at most: a longer pause is noticed.
Nanos Machine::quorum_wait(Nanos lease) const {
  if (s.config.device_lag == Nanos(0) || planted() == Plant::kDeviceWithoutLag) {
    return guarded(lease);
  }
  return guarded(lease + lease / 2 + s.config.device_lag);
}

// Nobody's blocks may still be open in the kernel of somebody who left without a word (known to a
// member by name), or of somebody whom no member of this view ever knew (outlasted by
// quorum_since).
Nanos Machine::wait_for_departed() const {
  Nanos wait{0};
  Nanos since = Nanos::max();
  Nanos longest{0};
  const auto members = effective_members(s);
  for (const ProcessId& process : members) {
    longest = std::max(longest, s.view.peers.at(process).hello->longest_lease);
  }
  for (const ProcessId& process : members) {
    const Hello& hello = *s.view.peers.at(process).hello;
    // Whom no member ever heard may have the longest lease that one of them has heard of.
    const Nanos more = quorum_wait(longest) - quorum_wait(hello.longest_lease);
    since = std::min(since, hello.since_remaining + more);
    for (const Departed& gone : hello.departed) {
      const auto peer = s.view.peers.find(gone.member.process);
      const bool speaks_for_itself = peer != s.view.peers.end() && peer->second.id == gone.member &&
                                     !s.view.waived.contains(gone.member.process);
      if (!speaks_for_itself) wait = std::max(wait, gone.remaining);
    }
  }
  if (s.config.partner) since = Nanos(0);  // nobody is unknown
  if (partner_may_hold(s)) wait = std::max(wait, s.config.lease);
  if (planted() == Plant::kNoWait) wait = Nanos(0);
  if (planted() == Plant::kNoContinuity) since = Nanos(0);
  return std::max(wait, since);
}

// Planted bugs.
void Machine::plant_in_table(AssignMember& me) const {
  if (planted() == Plant::kWrongTieBreak) me.node = NodeId{0};
  if (planted() == Plant::kWeightOutOfOrder) me.weight = s.config.weight;
}

void Machine::assign_blocks() {
  View& view = s.view;
  std::vector<AssignMember> members;
  BlockSet claimed(s.config.blocks);
  BlockSet twice(s.config.blocks);
  for (const ProcessId& process : effective_members(s)) {
    const Hello& hello = *view.peers[process].hello;
    if (process == s.me.process) view.foreign = !shares_blocks(hello);
    if (!shares_blocks(hello) || hello.held.blocks() != s.config.blocks) {
      const bool holds = !hello.held.empty() || !hello.lingering.empty();
      view.frozen = view.frozen || (holds && planted() != Plant::kIgnoreOtherCut);
      continue;
    }
    const bool takes_part = hello.eligible && counts_as_synced(hello);
    members.push_back({process.node, hello.weight, takes_part, hello.held});
    if (process == s.me.process) plant_in_table(members.back());
    twice |= claimed & hello.held;
    claimed |= hello.held;
  }
  Assignment table;
  table.owner.resize(s.config.blocks);
  if (!view.foreign) table = assign(s.config.blocks, members);
  for (auto& owner : table.owner) {
    if (planted() == Plant::kWrongTieBreak && owner == NodeId{0}) owner = s.me.process.node;
  }
  view.owner = std::move(table.owner);
  view.moved = table.moved;
  view.mine = BlockSet(s.config.blocks);
  if (!view.foreign) {
    for (unsigned b = 0; b < s.config.blocks; ++b) {
      if (view.owner[b] == s.me.process.node)
        view.mine.insert(BlockId{static_cast<std::uint16_t>(b)});
    }
  } else if (s.switching) {
    log(LogLevel::kNotice,
        "all members have the new configuration, in which the blocks mean other packets: this node "
        "releases its " +
            std::to_string(s.holding.size()) + " blocks before it changes");
  } else {
    log(LogLevel::kError,
        "this node's saru configuration differs from that of the nodes that hold the blocks: it "
        "owns nothing; give all nodes the same parameters");
  }
  if (view.foreign) forget_lingering();
  plan_release(twice);
  plan_acquire(claimed);
}

void Machine::plan_release(const BlockSet& twice) {
  View& view = s.view;
  view.to_release = s.holding - view.mine;
  if (planted() == Plant::kLapseUnnoticed) return;
  view.to_release |= s.holding & twice;
}

void Machine::plan_acquire(const BlockSet& claimed) {
  View& view = s.view;
  view.to_free = view.mine - claimed;
  view.free_at = now.raw + wait_for_departed();
  view.to_acquire = (view.mine & claimed) - (s.holding - view.to_release);
  if (planted() == Plant::kAcquireBeforeRelease) return;
  for (auto& [process, peer] : view.peers) {
    if (!peer.hello || peer.hello->held.blocks() != s.config.blocks) continue;
    peer.awaited = peer.hello->held & view.to_acquire;
  }
}

void Machine::log_view() const {
  const View& view = s.view;
  std::string names;
  for (const ProcessId& process : effective_members(s)) names += " " + name_of(process);
  std::string text =
      "view " + std::to_string(view.id.ring.representative.value) + "." +
      std::to_string(view.id.ring.seq) + "/" + std::to_string(view.id.round) + " (" + view.reason +
      "): members" + names + "; mine " + std::to_string(view.mine.size()) + " of " +
      std::to_string(s.config.blocks) + " blocks, moved " + std::to_string(view.moved) +
      ", release " + std::to_string(view.to_release.size()) + ", take over " +
      std::to_string(view.to_acquire.size()) + ", free " + std::to_string(view.to_free.size());
  if (!view.to_free.empty()) {
    const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(view.free_at - now.raw);
    text += partner_may_hold(s) ? " once the other node is known to be closed"
                                : " in " + std::to_string(wait.count()) + " ms";
  }
  if (!has_quorum(s)) {
    text += "; no quorum";
  } else if (lacks_votes(s)) {
    text += "; corosync says quorum, but these nodes have not its votes: takes nothing over";
  }
  out.push_back(Log{LogLevel::kNotice, std::move(text)});
}

}  // namespace saru
