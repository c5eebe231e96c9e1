// SPDX-License-Identifier: GPL-2.0-or-later
// What the witness keeps of one frame. A record is written as it stands to the --records file, so
// its layout is fixed and checked below; the file is read back on the same machine only.
#pragma once

#include <cstdint>
#include <type_traits>

namespace witness {

enum class Kind : std::uint8_t {
  kClientAddress = 1,  // defines the index `client`: the 16 bytes stand in id, seq and ack
  kDrops = 2,          // the kernel dropped `id` frames since the last such record
  kOther = 3,          // kept only for its source MAC; `length` is the ethertype
  kTcpFromClient = 4,
  kTcpFromNode = 5,
  kUdpQuestion = 6,
  kUdpAnswer = 7,
  kEchoRequest = 8,
  kEchoReply = 9,
};

enum Note : std::uint8_t {
  kNoteSharedMac = 1,  // the Ethernet source was the shared MAC
  kNoteWrongMac = 2,   // an answer whose Ethernet source is not the MAC of the link's node
};

inline constexpr std::uint8_t kTcpFin = 1;
inline constexpr std::uint8_t kTcpSyn = 2;
inline constexpr std::uint8_t kTcpRst = 4;
inline constexpr std::uint8_t kTcpAck = 16;

inline constexpr std::uint8_t kNoLink = 0xff;

struct Record {
  std::uint64_t time_ns = 0;  // the kernel's stamp, CLOCK_REALTIME
  std::uint64_t id = 0;       // UDP: first 8 payload bytes; echo: identifier << 16 | sequence
  std::uint32_t seq = 0;      // TCP, host order
  std::uint32_t ack = 0;
  std::uint16_t client = 0;  // index of the client's address, see kClientAddress
  std::uint16_t client_port = 0;
  std::uint16_t service_port = 0;
  std::uint16_t length = 0;  // TCP payload bytes
  Kind kind = Kind::kOther;
  std::uint8_t link = kNoLink;  // the link on which the frame entered the switch
  std::uint8_t address = 0;     // index of the shared address
  std::uint8_t tcp_flags = 0;
  std::uint8_t notes = 0;
  std::uint8_t reserved[3] = {};
};
static_assert(sizeof(Record) == 40 && std::is_trivially_copyable_v<Record>);

}  // namespace witness
