// SPDX-License-Identifier: GPL-2.0-or-later
// What members say to each other, as values. cpg/wire.* turns them into bytes and back.
// Messages are delivered in the same order to every member (CPG_TYPE_AGREED), among themselves and
// among the membership changes of a ring.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "agent/core/block_set.h"
#include "agent/core/types.h"

namespace saru {

// Who left without saying so, and how long its kernel may still be open (the sender's own clock,
// counted from the moment of sending).
struct Departed {
  MemberId member;
  Nanos remaining{0};
  bool operator==(const Departed&) const = default;
};

// Every member says this once in each view, after its last kernel write was acknowledged.
struct Hello {
  std::vector<ProcessId> group;   // the CPG group as the sender sees it, sorted
  std::string node_name;          // for people: at most kMaxNodeName bytes
  std::uint64_t config_hash = 0;  // of everything all members must agree on, as in force
  // The configuration that the sender was told to change to (0: none). Once every member of a view
  // has it, in force or as the next one, all change: the last Hello of that view is the order.
  std::uint64_t config_next = 0;
  bool next_keeps_blocks = false;  // a packet belongs to the same block before and after
  std::uint16_t weight = 1;
  bool eligible = true;  // may own blocks: not draining, carrier up, kernel writable
  bool synced = true;    // knows the connections that the members know (connections=sync)
  BlockSet held{};       // read back from the kernel, not remembered
  BlockSet lingering{};  // likewise: of these the established connections go on at the sender
  std::vector<Departed> departed;  // sorted by member
  // How long until this member's quorum has lasted a whole lease; nobody's blocks wait for it.
  Nanos since_remaining{0};
  // The longest lease that the sender has had or heard of. Who has left no trace may have it.
  Nanos longest_lease{0};
  std::vector<MemberId> dropped;  // nonces that never count again, sorted
  // The members of the quorate view that the sender confirmed last, itself included; empty when
  // that ended longer than a guarded lease ago. A holder that is not among them closes: its blocks
  // may be given away.
  std::vector<MemberId> companions;
  std::uint32_t votes = 0;
  std::uint32_t expected_votes = 0;
  bool operator==(const Hello&) const = default;
};
inline constexpr std::size_t kMaxNodeName = 64;
inline constexpr std::size_t kMaxDropped = 256;

// The highest beat that the sender has received from one member in this view.
struct Report {
  std::uint64_t nonce = 0;
  std::uint64_t n = 0;
  bool operator==(const Report&) const = default;
};

struct Beat {
  std::uint64_t n = 0;  // counts up from 1 for each nonce
  Nanos lease{0};
  Nanos t_send{0};  // CLOCK_MONOTONIC_RAW of the sender, stamped before sending
  std::vector<Report> reports;
  bool operator==(const Beat&) const = default;
};

// The sender's kernel no longer owns these blocks (its ACK has been read). Where connections stay,
// those that were established go on there, until LingerDone or the sender's next Hello.
struct Released {
  BlockSet blocks{};
  std::uint64_t flow_sequence = 0;
  bool operator==(const Released&) const = default;
};

enum class RoundReason : std::uint8_t {
  kLapse = 1,    // the sender's lease ran out
  kChange = 2,   // weight, eligibility or drain changed
  kQuorum = 3,   // quorum came or went inside one ring
  kFailure = 4,  // the sender's kernel refused a change
  kConfig = 5,   // the sender's configuration changed, or it released another one's blocks
};

// Asks for a new round of Hellos. Opens one where the view is still the sender's.
struct Round {
  RoundReason reason = RoundReason::kChange;
  bool operator==(const Round&) const = default;
};

// The sender's kernel is closed and holds nothing; this nonce never speaks again.
struct Leave {
  bool operator==(const Leave&) const = default;
};

// The sender's kernel accepts nothing of these blocks any more, established connections included
// (its ACK has been read).
struct LingerDone {
  BlockSet blocks{};
  bool operator==(const LingerDone&) const = default;
};

// Connections in the sender's blocks (connections=sync). The core takes no part in these three;
// agent/sync does, and says what the records are (agent/sync/record.h).
struct Flows {
  enum class Kind : std::uint8_t {
    kChanges = 1,  // since the last Flows; `block` says nothing
    // Parts of all that is known of `block`. Connections that none of them had are over.
    kFirst = 2,
    kMiddle = 3,
    kLast = 4,
    kOnly = 5,  // the first and the last
  };
  std::uint64_t sequence = 0;  // counts up from 1 for each nonce
  Kind kind = Kind::kChanges;
  std::uint16_t block = 0;
  std::string over;   // keys of connections that are over, one after the other
  std::string known;  // records, one after the other
  bool operator==(const Flows&) const = default;
};
inline constexpr std::size_t kMaxFlowBytes = 32768;  // of each of the two

// What all members should know of the connections in `blocks`, which the sender answers for.
struct FlowDigest {
  struct Entry {
    std::uint16_t block = 0;
    std::uint32_t flows = 0;
    std::uint64_t digest = 0;
    bool operator==(const Entry&) const = default;
  };
  BlockSet blocks{};
  std::vector<Entry> entries;  // of those with flows, sorted by block
  bool operator==(const FlowDigest&) const = default;
};

// Asks `from` for all that it knows of the connections in these blocks.
struct FlowsWanted {
  MemberId from;
  BlockSet blocks{};
  bool operator==(const FlowsWanted&) const = default;
};

// Asks every member what its kernel holds at this point of the order (saructl check).
struct Audit {
  std::uint64_t token = 0;
  bool operator==(const Audit&) const = default;
};

struct AuditReply {
  std::uint64_t token = 0;
  BlockSet held{};     // read from the kernel for this reply
  bool open = false;   // the lease has not run out
  bool intact = true;  // table, link and addresses are as they should be
  std::string node_name;
  bool operator==(const AuditReply&) const = default;
};

using Body = std::variant<Hello, Beat, Released, Round, Leave, Audit, AuditReply, LingerDone, Flows,
                          FlowDigest, FlowsWanted>;

// One message: who, in which view, without whom, what.
struct Message {
  MemberId sender;
  ViewId view;                     // the sender's view when it sent this
  std::vector<MemberId> excluded;  // members of the group that this view excludes, sorted
  Body body;
  bool operator==(const Message&) const = default;
};

}  // namespace saru
