// SPDX-License-Identifier: GPL-2.0-or-later
// How connections=sync stands, as plain data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "agent/core/types.h"

namespace saru::sync {

struct ReplicaCounters {
  std::uint64_t told = 0;      // records sent, without those of whole blocks
  std::uint64_t learned = 0;   // records received from others, those of whole blocks included
  std::uint64_t wholes = 0;    // whole blocks received
  std::uint64_t refused = 0;   // records of blocks that the sender does not own
  std::uint64_t damaged = 0;   // messages that could not be read to the end
  std::uint64_t gaps = 0;      // messages of others that are missing
  std::uint64_t repeated = 0;  // own records that were told again, because a message was lost
};

struct KernelCounters {
  std::uint64_t events = 0;
  std::uint64_t overruns = 0;  // of the kernel's buffer of events
  std::uint64_t injected = 0;
  std::uint64_t replaced = 0;  // of those, in the place of one that was left over
  std::uint64_t removed = 0;
  std::uint64_t failed = 0;  // connections that the kernel did not take
  std::string error;         // why, the last time
};

// For `saructl status`.
struct FlowStatus {
  bool synced = false;
  std::size_t known = 0;          // connections of all members
  std::size_t own = 0;            // of those, in blocks of this node
  std::size_t unsent = 0;         // changes that wait to be told
  unsigned blocks_wanted = 0;     // asked of others, not received yet
  std::vector<NodeId> not_heard;  // members whose connections are still unknown
  bool putting = false;           // connections are being put into conntrack
  bool dumping = false;
  ReplicaCounters replica;
  KernelCounters kernel;
};

}  // namespace saru::sync
