// SPDX-License-Identifier: GPL-2.0-or-later
// What a fuzzer would not guess: magic, version, cluster id, length and checksum of a message.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "agent/core/types.h"
#include "cpg/wire.h"

namespace saru::fuzz {

inline constexpr std::uint16_t kClusterId = 7;

inline void put_number(std::vector<std::byte>& bytes, std::size_t at, std::uint64_t value,
                       std::size_t width) {
  for (std::size_t i = 0; i < width && at + i < bytes.size(); ++i) {
    bytes[at + i] = static_cast<std::byte>(value >> (8 * (width - 1 - i)) & 0xff);
  }
}

inline std::uint32_t number_at(const std::vector<std::byte>& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4 && at + i < bytes.size(); ++i) {
    value = value << 8 | std::to_integer<std::uint32_t>(bytes[at + i]);
  }
  return value;
}

inline ProcessId sender_in(const std::vector<std::byte>& bytes) {
  return {.node = NodeId{number_at(bytes, 12)}, .pid = number_at(bytes, 16)};
}

// The same message with a right head (type, sender, view and the rest stay), and a checksum behind.
inline std::vector<std::byte> sealed(std::vector<std::byte> bytes) {
  constexpr std::size_t kHead = 45;
  if (bytes.size() < kHead) bytes.resize(kHead);
  put_number(bytes, 0, 0x73617275, 4);  // "saru"
  put_number(bytes, 4, kWireVersion, 1);
  put_number(bytes, 6, kClusterId, 2);
  put_number(bytes, 8, bytes.size() + 4, 4);
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<unsigned>(bytes.size()));
  bytes.resize(bytes.size() + 4);
  put_number(bytes, bytes.size() - 4, crc, 4);
  return bytes;
}

}  // namespace saru::fuzz
