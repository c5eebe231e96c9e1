// SPDX-License-Identifier: GPL-2.0-or-later
// The bytes of a saru::Message. Pure: no I/O, no clock; needs the core's types and zlib's CRC-32.
//
// All numbers are big-endian. Durations are nanoseconds.
//   0  u32  magic "saru"           4  u8   version (kWireVersion)
//   5  u8   type                   6  u16  cluster id
//   8  u32  length of the whole message, this header and the CRC included
//  12  sender    u32 nodeid, u32 pid, u64 nonce
//  28  view      u32 representative, u64 ring seq, u32 round
//  44  excluded  u8 count, then count members like the sender
//      body      see wire.cpp
//      u32  CRC-32 (ISO-HDLC, as in zlib) of everything before it
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "agent/core/message.h"
#include "agent/core/types.h"

namespace saru {

inline constexpr std::uint8_t kWireVersion = 1;

enum class DecodeError : std::uint8_t {
  kTooShort,       // ends before the header, or inside a field
  kWrongMagic,     // not a message of saru
  kOtherVersion,   // written by another version of saru
  kWrongLength,    // the header's length is not the message's
  kBadCrc,         // damaged on the way
  kWrongCluster,   // for another cluster id
  kWrongSender,    // says another sender than CPG does
  kUnknownType,    // no such type
  kTooLong,        // a list has more entries than kMaxMembers or kMaxDropped
  kBadBlockCount,  // neither 0 nor a power of two from kMinBlocks to kMaxBlocks
  kUnsorted,       // a list that must ascend strictly does not
  kBadDuration,    // negative, or longer than kLongestDuration; a lease: kLongestLease
  kBadName,        // longer than kMaxNodeName, or not printable ASCII
  kBadValue,       // a flag that is neither 0 nor 1, or an unknown reason
  kTrailingBytes,  // more bytes than the body has
};
inline constexpr std::size_t kDecodeErrors = 15;
inline constexpr Nanos kLongestDuration = std::chrono::hours(1);  // a lease with its guards, too
inline constexpr Nanos kLongestLease = std::chrono::minutes(10);

// What happened, for people: "damaged on the way (CRC-32 differs)".
[[nodiscard]] std::string_view text(DecodeError error);

// The message must keep the limits that decode() checks (list lengths, sorted lists, durations,
// names): another one is a bug of ours and aborts. What remains of a wait that is over may be
// negative here; it is written as 0. That the group has more members than kMaxMembers is refused
// before it comes to this (cpg/group.h).
[[nodiscard]] std::vector<std::byte> encode(std::uint16_t cluster_id, const Message& message);

// `from` is the process that CPG says has sent the bytes. Reads nothing beyond `bytes`, and
// allocates no more than the limits above allow, whatever the bytes say.
[[nodiscard]] tl::expected<Message, DecodeError> decode(std::uint16_t cluster_id,
                                                        std::span<const std::byte> bytes,
                                                        ProcessId from);

}  // namespace saru
