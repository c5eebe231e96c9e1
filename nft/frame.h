// SPDX-License-Identifier: GPL-2.0-or-later
// Pieces of the frames that go out through a packet socket.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "nft/address.h"

namespace saru::nft {

using Frame = std::vector<std::uint8_t>;

inline void put(Frame& frame, std::span<const std::uint8_t> bytes) {
  frame.insert(frame.end(), bytes.begin(), bytes.end());
}
inline void put16(Frame& frame, unsigned value) {
  frame.push_back(static_cast<std::uint8_t>(value >> 8));
  frame.push_back(static_cast<std::uint8_t>(value & 0xff));
}

inline Frame ethernet(const MacAddress& to, const MacAddress& from, unsigned type) {
  Frame frame;
  put(frame, to.bytes);
  put(frame, from.bytes);
  put16(frame, type);
  return frame;
}

// RFC 1071, over the pseudo header of RFC 8200 section 8.1 and the message.
inline std::uint16_t icmpv6_checksum(std::span<const std::uint8_t> source_and_target,
                                     std::span<const std::uint8_t> message) {
  std::uint32_t sum = static_cast<std::uint32_t>(message.size()) + IPPROTO_ICMPV6;
  const auto add = [&](std::span<const std::uint8_t> bytes) {
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) sum += bytes[i] * 256U + bytes[i + 1];
  };
  add(source_and_target);
  add(message);
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// An IPv6 packet with an ICMPv6 message, whose checksum is filled in. `addresses`: source and
// target, 32 bytes.
inline void put_icmpv6(Frame& frame, std::span<const std::uint8_t> addresses, Frame message) {
  const std::uint16_t checksum = icmpv6_checksum(addresses, message);
  message[2] = static_cast<std::uint8_t>(checksum >> 8);
  message[3] = static_cast<std::uint8_t>(checksum & 0xff);
  put(frame, std::array<std::uint8_t, 4>{0x60, 0, 0, 0});
  put16(frame, static_cast<unsigned>(message.size()));
  frame.push_back(IPPROTO_ICMPV6);
  frame.push_back(255);  // hop limit: neighbours ignore anything less
  put(frame, addresses);
  put(frame, message);
}

inline constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

}  // namespace saru::nft
