// SPDX-License-Identifier: GPL-2.0-or-later
// What is done to the cluster, and how often it has happened.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// X(enumerator, words)
#define SARU_FAULT_LIST(X)                                           \
  X(kSplit, "network splits")                                        \
  X(kOneWay, "frames lost one way")                                  \
  X(kFlapping, "network flaps")                                      \
  X(kBridge, "two sides reach a third node, not each other")         \
  X(kPauseSarud, "sarud stopped")                                    \
  X(kPauseCorosync, "corosync stopped")                              \
  X(kPauseMachine, "machine stopped, kernel goes on")                \
  X(kSuspend, "machine suspended")                                   \
  X(kTrapEvent, "stopped before an event")                           \
  X(kTrapAction, "stopped between two actions")                      \
  X(kTrapSend, "stopped before sending")                             \
  X(kTrapClocks, "stopped between the readings of two clocks")       \
  X(kTrapCommit, "stopped between the clocks and the kernel")        \
  X(kTrapAck, "stopped before the kernel's answer is read")          \
  X(kKill, "sarud killed")                                           \
  X(kKillWriting, "sarud killed in a transaction")                   \
  X(kKillCorosync, "corosync killed")                                \
  X(kCrash, "machine crashes")                                       \
  X(kReform, "ring reforms for nothing")                             \
  X(kGhost, "ghost stays in the group")                              \
  X(kLeftAndJoined, "left and joined at once")                       \
  X(kOneByOne, "joins told one by one")                              \
  X(kRingFirst, "ring told before the group")                        \
  X(kQuorumFirst, "quorum told before the group")                    \
  X(kQuorumLate, "quorum told late")                                 \
  X(kTryAgain, "TRY_AGAIN storm")                                    \
  X(kRefusedWrite, "kernel refuses a write")                         \
  X(kLostAck, "kernel's answer lost")                                \
  X(kSlowWrite, "kernel slow to write")                              \
  X(kFlush, "somebody empties our sets or deletes our table")        \
  X(kClockStep, "wall clock set")                                    \
  X(kWideDrift, "clocks 5 % off, and the core told so")              \
  X(kDrain, "drain and undrain")                                     \
  X(kWeight, "weight changed")                                       \
  X(kStop, "clean stop")                                             \
  X(kReconfigure, "configuration changed node by node")              \
  X(kMixedConfig, "members of one view with two configurations")     \
  X(kOtherVersion, "one node with another wire version")             \
  X(kHungMajority, "story: hung majority goes away unaware")         \
  X(kUnheardSwitch, "story: helper restarts and changes sides")      \
  X(kChangeStorm, "story: changes while the ring changes")           \
  X(kMassRestart, "story: all but one restart")                      \
  X(kLonelyVersion, "story: left alone with another version")        \
  X(kChangeAndDie, "story: dies with a new, longer lease")           \
  X(kFence, "a node fenced")                                         \
  X(kFenceLate, "fencing told long after")                           \
  X(kFenceFails, "fencing not told at all")                          \
  X(kConfirmDead, "administrator confirms a death")                  \
  X(kOldKnowledge, "story: restarts with what it knew of the other") \
  X(kDeviceVotes, "quorum device chooses a half")                    \
  X(kDeviceTurns, "quorum device turns to the other half")           \
  X(kDeviceAway, "quorum device away")                               \
  X(kDeviceHalf, "one node loses the quorum device alone")           \
  X(kDeviceStory, "story: first one half has the device, then the other")

namespace saru::sim {

enum class Fault : std::uint8_t {
#define SARU_FAULT_ENUMERATOR(enumerator, words) enumerator,
  SARU_FAULT_LIST(SARU_FAULT_ENUMERATOR)
#undef SARU_FAULT_ENUMERATOR
      kCount
};
inline constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::kCount);

const char* words(Fault fault);

struct Counts {
  std::array<std::uint64_t, kFaults> hits{};
  std::uint64_t events = 0, steps = 0, messages = 0, writes = 0;
  std::uint64_t views = 0, acquisitions = 0, lapses = 0, rejoins = 0, switches = 0;
  std::uint64_t membership_changes = 0, membership_changes_min = UINT64_MAX;
  std::int64_t virtual_ns = 0, virtual_ns_min = INT64_MAX, healed_ns_max = 0;

  void add(const Counts& one);
};

}  // namespace saru::sim
