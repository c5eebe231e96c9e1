// SPDX-License-Identifier: GPL-2.0-or-later
// Identities and times, shared by every room. Standard library only.
#pragma once

#include <algorithm>
#include <chrono>
#include <compare>
#include <cstdint>
#include <string>

namespace saru {

using Nanos = std::chrono::nanoseconds;

// A cluster node, as Corosync's nodelist numbers it.
struct NodeId {
  std::uint32_t value = 0;
  auto operator<=>(const NodeId&) const = default;
};

// One equal slice of the 16-bit selector value; 0 .. blocks - 1.
struct BlockId {
  std::uint16_t value = 0;
  auto operator<=>(const BlockId&) const = default;
};

inline constexpr unsigned kMinBlocks = 16;
inline constexpr unsigned kMaxBlocks = 4096;
inline constexpr unsigned kDefaultBlocks = 512;
// CPG_MEMBERS_MAX in <corosync/cpg.h>: a larger group is refused by name.
inline constexpr unsigned kMaxMembers = 128;

// A Totem ring. Two partitions can have the same seq; the representative tells them apart.
struct RingId {
  NodeId representative;
  std::uint64_t seq = 0;
  auto operator<=>(const RingId&) const = default;
};

// A process as CPG knows it. A pid comes back; a MemberId does not.
struct ProcessId {
  NodeId node;
  std::uint32_t pid = 0;
  auto operator<=>(const ProcessId&) const = default;
};

// A process between one join and the next: every join draws a new random nonce.
struct MemberId {
  ProcessId process;
  std::uint64_t nonce = 0;
  auto operator<=>(const MemberId&) const = default;
};

// A view: a ring, and how often the group of that ring was opened anew (a process joined, left or
// was excluded, or a member asked for a new round). Messages of another view count for nothing.
struct ViewId {
  RingId ring;
  std::uint32_t round = 0;
  auto operator<=>(const ViewId&) const = default;
};

// One moment on two clocks of one node: CLOCK_MONOTONIC_RAW (no time daemon bends it) and
// CLOCK_BOOTTIME (goes on while the machine is suspended). Never compared between nodes.
struct Instant {
  Nanos raw{0};
  Nanos boot{0};

  friend Instant operator+(Instant at, Nanos span) { return {at.raw + span, at.boot + span}; }
  bool operator==(const Instant&) const = default;
};

// A deadline has passed as soon as either clock says so; a wait is over only when `raw` says so.
inline bool has_passed(const Instant& deadline, const Instant& now) {
  return now.raw >= deadline.raw || now.boot >= deadline.boot;
}

// What is left of a deadline: the smaller of the two clocks' answers.
inline Nanos remaining(const Instant& deadline, const Instant& now) {
  return std::min(deadline.raw - now.raw, deadline.boot - now.boot);
}

}  // namespace saru
