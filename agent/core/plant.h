// SPDX-License-Identifier: GPL-2.0-or-later
// Bugs to plant on purpose, so that the simulator (tests/sim) and the fuzzers (tests/fuzz) prove
// that they would find them. Only their own builds have these switches; in the product planted() is
// constant.
//
// What is not here, because breaking it alone harms nobody (another rule catches what it lets by):
// acting on what piled up during one's own pause, reports of another view, a block in two Hellos,
// changing the configuration before all want it.
#pragma once

#include <cstdint>

// X(name, enumerator, what is broken). The build option SARU_PLANT_<name> plants it for good.
#define SARU_PLANT_LIST(X)                                                                      \
  X(RENEW_WITHOUT_QUORUM, kRenewWithoutQuorum, "grants and keeps a lease without quorum")       \
  X(RENEW_BY_OWN_DELIVERY, kRenewByOwnDelivery, "grants by its own delivery, not by reports")   \
  X(RENEW_BY_ONE_REPORT, kRenewByOneReport, "grants when one of the others has reported")       \
  X(RENEW_FROM_NOW, kRenewFromNow, "lease too long: counts from the report, not from sending")  \
  X(GRANT_BY_NEW_LEASE, kGrantByNewLease, "grants the lease in force, not the announced one")   \
  X(LAPSE_UNNOTICED, kLapseUnnoticed, "goes on over a lapse, takes by old beats")               \
  X(NO_WAIT, kNoWait, "takes the blocks of the departed at once")                               \
  X(NO_DRIFT_MARGIN, kNoDriftMargin, "waits a lease by its own clock, without a margin")        \
  X(FORGET_HEARD, kForgetHeard, "forgets at every view whom it had heard")                      \
  X(TRUST_LEFT, kTrustLeft, "takes leaving the group for a clean end")                          \
  X(NO_CONTINUITY, kNoContinuity, "nobody's blocks do not wait for quorate_since")              \
  X(KEEP_SINCE_OVER_JOIN, kKeepSinceOverJoin, "quorate_since goes on through the own join")     \
  X(KEEP_UNPROVEN, kKeepUnproven, "renews where no quorum came along, takes by old beats")      \
  X(TAKE_BY_OLD_BEAT, kTakeByOldBeat, "takes nobody's blocks by a beat from before the wait")   \
  X(ACQUIRE_BEFORE_RELEASE, kAcquireBeforeRelease, "does not wait for Released")                \
  X(ACQUIRE_ACROSS_VIEWS, kAcquireAcrossViews, "goes on acquiring once the view has changed")   \
  X(RELEASE_BEFORE_ACK, kReleaseBeforeAck, "says Released before the kernel has let go")        \
  X(HELLO_OF_OLD_VIEW, kHelloOfOldView, "counts the Hello of the last round")                   \
  X(CONFIRM_BY_MAJORITY, kConfirmByMajority, "does not wait for the last Hellos")               \
  X(WRONG_TIE_BREAK, kWrongTieBreak, "everybody prefers himself among equals")                  \
  X(WEIGHT_OUT_OF_ORDER, kWeightOutOfOrder, "counts its own weight before its Hello says it")   \
  X(EXCLUDE_BY_OWN_CLOCK, kExcludeByOwnClock, "excludes by a local timer, not by the order")    \
  X(NEVER_EXCLUDE, kNeverExclude, "waits for silent members for ever")                          \
  X(STAY_WHEN_EXCLUDED, kStayWhenExcluded, "ignores its own exclusion")                         \
  X(KEEP_OWN_ROUND, kKeepOwnRound, "does not take over the round of those who were there")      \
  X(HOLD_AMONG_STRANGERS, kHoldAmongStrangers, "holds on among members quorate without it")     \
  X(COUNT_THE_DOUBTFUL, kCountTheDoubtful, "takes over from who may not know of its exclusion") \
  X(SWITCH_HOLDING, kSwitchHolding, "changes what a block is while holding some")               \
  X(IGNORE_OTHER_CUT, kIgnoreOtherCut, "acquires while another configuration holds blocks")     \
  X(RELATIVE_DEADLINE, kRelativeDeadline, "the kernel's deadline counts from the write only")   \
  X(CLOCKS_IN_WRONG_ORDER, kClocksInWrongOrder, "reads the wall clock after the others")        \
  X(ACK_UNREAD, kAckUnread, "takes a refused kernel write for done")                            \
  X(NO_RESTART_WAIT, kNoRestartWait, "joins at once after a process that did not end cleanly")  \
  X(IGNORE_THE_UNREADABLE, kIgnoreTheUnreadable, "overhears who speaks another version")        \
  X(NO_FENCE_WAIT, kNoFenceWait, "takes the blocks of a partner that was not fenced")           \
  X(BELIEVE_OLD_FENCES, kBelieveOldFences, "counts a fencing begun before it met the node")     \
  X(KEEP_CLOSED_OVER_JOIN, kKeepClosedOverJoin, "still believes after a join who is closed")    \
  X(KEEP_CLOSED_WHEN_MET, kKeepClosedWhenMet, "takes a node that is back for closed still")     \
  X(DEVICE_WITHOUT_LAG, kDeviceWithoutLag, "who lost a quorum device's vote knows it at once")  \
  X(SAME_NONCE, kSameNonce, "comes back under the name that the others have dropped")           \
  X(FORGET_LINGERERS, kForgetLingerers, "takes a block as if no connection lingered elsewhere") \
  X(UNCONTEST_AT_ONCE, kUncontestAtOnce, "does not wait for lingerers that are missing")        \
  X(LINGER_DONE_BEFORE_ACK, kLingerDoneBeforeAck, "says LingerDone before the kernel let go")   \
  X(TAKE_UNPREPARED, kTakeUnprepared, "takes blocks whose connections are not there yet")       \
  X(COUNT_UNSYNCED, kCountUnsynced, "gives blocks to who has not got the connections yet")

// What only odd bytes from outside tell from the right thing. One for each fuzzer; fuzz_core has
// those above.
#define SARU_FUZZ_PLANT_LIST(Y)                                                         \
  Y(ANY_NAME, kAnyName, "takes any bytes in a message for a node's name")               \
  Y(BELIEVE_LENGTHS, kBelieveLengths, "goes by whatever length a netlink message says") \
  Y(ANY_BLOCK_COUNT, kAnyBlockCount, "takes any number of blocks that somebody says")   \
  Y(UNBOUNDED_LEASE, kUnboundedLease, "believes any lease that a file in /run names")   \
  Y(LEAVE_UNANSWERED, kLeaveUnanswered, "hangs up on a request that is no JSON object") \
  Y(ANY_TRAILER, kAnyTrailer, "takes whatever follows the record of a connection")

namespace saru {

enum class Plant : std::uint8_t {
  kNone,
#define SARU_PLANT_ENUMERATOR(name, enumerator, what) enumerator,
  SARU_PLANT_LIST(SARU_PLANT_ENUMERATOR) SARU_FUZZ_PLANT_LIST(SARU_PLANT_ENUMERATOR)
#undef SARU_PLANT_ENUMERATOR
};

#ifdef SARU_PLANTS
Plant planted();  // defined by the simulator, and by tests/fuzz/plant.cpp
#else
constexpr Plant planted() { return Plant::kNone; }
#endif

}  // namespace saru
