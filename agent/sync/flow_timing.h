// SPDX-License-Identifier: GPL-2.0-or-later
// How often, how much, how long: connections=sync.
#pragma once

#include <chrono>
#include <cstddef>

namespace saru::sync {

// Records in one message: with its envelope (at most 100 bytes without excluded members) and
// Totem's and knet's own headers it fits an Ethernet frame.
inline constexpr std::size_t kMessageBytes = 1200;
// A flood of handshakes is not remembered beyond so many.
inline constexpr std::size_t kMostHalfOpen = 50'000;
// Own messages of all kinds on their way, beyond which no connections are told: what the lease
// needs never waits behind more than these. Fewer than Totem sends each time that it has the token
// (corosync.conf(5): max_messages, 17).
inline constexpr std::size_t kOnTheirWay = 16;
// Of a usual record of a connection.
inline constexpr std::size_t kRecordBytes = 24;
// News wait so long for more.
inline constexpr std::chrono::milliseconds kGather{30};
// What takes longer than some milliseconds goes on in the next turn of the loop.
inline constexpr std::chrono::microseconds kNextTurn{1};
inline constexpr std::size_t kComparedATurn = 2000;
// The kernel's events are read no more often than this: the news wait all the same.
inline constexpr std::chrono::milliseconds kEventsRest{5};
inline constexpr std::chrono::seconds kTick{1};
inline constexpr std::chrono::milliseconds kRetry{20};
// Everything is compared with the kernel, and with the others, this often, whatever happens.
inline constexpr std::chrono::seconds kResyncEvery{60};
inline constexpr std::chrono::seconds kDigestEvery{30};
// Blocks that only we can serve are taken after this, whatever is still on its way to us.
inline constexpr std::chrono::seconds kLongestHold{2};
// Without any progress for so long, what is missing is given up, and said.
inline constexpr std::chrono::seconds kLongestSilence{5};

// So many connections in place are worth an answer, and with it a write of the table.
inline constexpr std::size_t kFlowsAnAnswer = 5000;
// A refused connection is a warning for so long.
inline constexpr std::chrono::minutes kRememberFailures{1};

}  // namespace saru::sync
