// SPDX-License-Identifier: GPL-2.0-or-later
// The ownership core: which blocks this member may accept, and until when. Pure: no clock, no I/O,
// no randomness; every event carries its time. ARCHITECTURE.md has the state table and the argument
// why two kernels never accept the same block.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "agent/core/accepting.h"
#include "agent/core/message.h"
#include "agent/core/types.h"

namespace saru {

struct State;  // agent/core/state.h

// ---- Events: what happened, and when
// ---------------------------------------------------------------

// A CPG confchg callback. `members` is the whole group afterwards.
struct GroupChanged {
  std::vector<ProcessId> members;
  std::vector<ProcessId> left;
  std::vector<ProcessId> joined;
};

// A CPG totem callback: the ring that carries everything from here on.
struct RingChanged {
  RingId ring;
  std::vector<NodeId> members;
};

// A libquorum (model v1) nodelist and quorum notification for one ring. `joined` are the nodes that
// did not come along from the ring this node was in before (a node may be in joined and left at
// once).
struct QuorumChanged {
  RingId ring;
  bool quorate = false;
  std::vector<NodeId> members;
  std::vector<NodeId> joined;
};

// A message was delivered. `from` is what CPG says; it has been checked against message.sender.
struct Received {
  ProcessId from;
  Message message;
};

// A message was delivered that says more, or other things, than we can read: its sender has another
// version of saru, or its message was damaged.
struct NotUnderstood {
  ProcessId from;
};

// The answer to the KernelWrite of this `seq`, read back from the kernel after its ACK.
struct KernelDone {
  std::uint64_t seq = 0;
  bool ok = false;        // false: not known to be written
  Accepting accepting{};  // as read back
  std::string error;      // when not ok
};

// Somebody else changed our table, link or addresses (or the clock stepped): write everything
// again.
struct KernelDisturbed {
  std::string what;
};

// No established connection is left in these lingering blocks.
struct LingerEnded {
  BlockSet blocks{};
};

// The flows of these blocks, as the others told them, are in this kernel's conntrack. Answers the
// PlaceFlows of this `ticket`.
struct FlowsPlaced {
  std::uint64_t ticket = 0;
  BlockSet blocks{};
};

// What the other members know of the connections is known here too, or waiting for it is given up.
struct Synced {};

// The group was left and joined again: speak under this name from now on.
struct Joined {
  MemberId me;
};

// Time passed. Needed at next_wakeup() at the latest.
struct Tick {};

struct SetEligible {
  bool eligible = true;
  std::string reason;
};
struct SetWeight {
  std::uint16_t weight = 1;
};
// Hand over all blocks, then say Leave; ends with the action Left.
struct StopRequested {};
// Corosync is gone: close. The adapter connects again and sends Joined.
struct Disconnected {};
// The cluster's quorum votes are others than before (a node was added or removed).
struct VotesChanged {
  std::map<NodeId, unsigned> votes;
  unsigned quorum_votes = 1;
  unsigned expected_votes = 0;
};
// The administrator wants another configuration; the present one stays in force until all members
// of a view want it. The same hash as now: no change is wanted any more.
struct Reconfigure {
  std::uint64_t hash = 0;
  unsigned blocks = kDefaultBlocks;
  Nanos lease{0};
  // Every packet belongs to the same block before and after: nobody need release anything.
  bool keeps_blocks = false;
};
// Pacemaker's fencer says that it has switched this node off, or off and on.
struct Fenced {
  NodeId node;
  Nanos began_after{0};  // own CLOCK_MONOTONIC_RAW: no fencing of it was under way then
  // It ended long ago; but no other node has shared a ring with this one since its corosync began,
  // until after `began_after`.
  bool alone = false;
};
// The administrator says that this node is down, and answers for it.
struct ConfirmedDead {
  NodeId node;
};
// saructl check: multicast an Audit with this token.
struct AuditRequested {
  std::uint64_t token = 0;
};

using EventBody = std::variant<GroupChanged, RingChanged, QuorumChanged, Received, NotUnderstood,
                               KernelDone, KernelDisturbed, LingerEnded, FlowsPlaced, Synced,
                               Joined, Tick, SetEligible, SetWeight, VotesChanged, Reconfigure,
                               StopRequested, Disconnected, Fenced, ConfirmedDead, AuditRequested>;
struct Event {
  Instant now;
  EventBody body;
};

// ---- Actions: what the adapters must do, in this order
// ---------------------------------------------

struct Send {
  Message message;
};

// Make the kernel hold exactly this, in one transaction; answer with KernelDone{seq}. One is under
// way at a time. Without a deadline the address is closed: no lease, all sets empty. The adapter
// turns the deadline into the kernel's clocks *after* reading CLOCK_REALTIME, so that a pause
// between can only shorten it, and writes nothing open when it has already passed.
struct KernelWrite {
  std::uint64_t seq = 0;
  Accepting accepting{};
  std::optional<Instant> deadline;
  bool rebuild = false;  // build the whole table anew, not the difference
  // Build it under the configuration of this hash, which is in force once KernelDone says ok; if it
  // does not, the old one still is.
  std::optional<std::uint64_t> config;
};

// Put the flows of these blocks into this kernel's conntrack, then answer FlowsPlaced: no packet of
// them is accepted before. Each ticket adds to those before it in the same view.
struct PlaceFlows {
  std::uint64_t ticket = 0;
  BlockSet blocks{};
};

// Leave the CPG group, join again under a new nonce, answer with Joined.
struct Rejoin {
  std::string reason;
};

// Everything has been handed over (or given up); leave the group and end.
struct Left {};

// Answer an Audit: read the kernel now and multicast AuditReply{token}.
struct ReplyAudit {
  std::uint64_t token = 0;
  Message envelope;  // sender and view filled in; body is an AuditReply to complete
};
// A reply to our own audit arrived.
struct AuditAnswer {
  ProcessId from;
  AuditReply reply;
};

enum class LogLevel : std::uint8_t { kError, kWarning, kNotice, kInfo, kDebug };
struct Log {
  LogLevel level = LogLevel::kInfo;
  std::string text;
};

using Action =
    std::variant<Send, KernelWrite, PlaceFlows, Rejoin, Left, ReplyAudit, AuditAnswer, Log>;

struct Step;  // agent/core/state.h: {State state; std::vector<Action> actions;}
[[nodiscard]] Step step(State state, const Event& event);

// The moment (CLOCK_MONOTONIC_RAW) at which a Tick must be delivered at the latest.
[[nodiscard]] Nanos next_wakeup(const State& state);

}  // namespace saru
