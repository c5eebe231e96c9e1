// SPDX-License-Identifier: GPL-2.0-or-later
// A connection as conntrack knows it, and as another node needs it to go on with it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace saru::sync {

// IP protocol numbers (IANA) of the connections that are carried.
constexpr std::uint8_t kIcmp = 1;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint8_t kIcmpV6 = 58;
constexpr std::uint8_t kUdpLite = 136;

// Not carried: SCTP and DCCP, whose state another kernel cannot be given whole (verification tags
// and roles are not in a FlowState); GRE, whose keys only the PPTP helper knows; and protocols that
// conntrack has no state of: their next packet makes the same entry anew.
constexpr bool is_carried(bool v4, std::uint8_t protocol) {
  return protocol == kTcp || protocol == kUdp || protocol == kUdpLite ||
         protocol == (v4 ? kIcmp : kIcmpV6);
}

// An IPv4 address is in the first 4 bytes, and the rest is zero. Network order.
using AddressBytes = std::array<std::uint8_t, 16>;

// A conntrack zone: which packets belong to it. Without one the direction is kNone and the id 0; an
// id of 0 means the same, so that with any other direction the id is not 0.
struct Zone {
  enum class Direction : std::uint8_t { kNone, kBoth, kOriginal, kReply };
  Direction direction = Direction::kNone;
  std::uint16_t id = 0;

  bool operator==(const Zone&) const = default;
};

// A connection, named by the tuple of its original direction. Ports are in host order. ICMP and
// ICMPv6: source_port is the id, destination_port is type << 8 | code of the request.
struct FlowKey {
  bool v4 = true;
  std::uint8_t protocol = 0;
  AddressBytes source{};
  AddressBytes destination{};
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  Zone zone;

  bool operator==(const FlowKey&) const = default;
};

// What NAT puts in the place of an address and a port; both are given also where only one changes.
// ICMP and ICMPv6: the port is the id that the packets carry afterwards.
struct Translation {
  AddressBytes address{};
  std::uint16_t port = 0;

  bool operator==(const Translation&) const = default;
};

// What a helper's rewriting has added to TCP's sequence numbers of one direction: `before` up to
// and with `position`, `after` behind it; modulo 2^32 (CTA_SEQADJ_*).
struct SequenceShift {
  std::uint32_t position = 0;
  std::uint32_t before = 0;
  std::uint32_t after = 0;

  bool operator==(const SequenceShift&) const = default;
};

struct FlowState {
  static constexpr std::uint8_t kMaxTcpState = 9;    // TCP_CONNTRACK_SYN_SENT2, the kernel's last
  static constexpr std::uint8_t kMaxScale = 14;      // RFC 7323, 2.3
  static constexpr std::size_t kMaxHelperSize = 15;  // NF_CT_HELPER_NAME_LEN less the zero byte

  bool assured = false;
  bool seen_reply = false;
  std::uint8_t tcp_state = 0;       // TCP_CONNTRACK_*; 0: not TCP, or not known
  std::uint8_t scale_original = 0;  // TCP window scale, of what the client said
  std::uint8_t scale_reply = 0;     // and the server
  std::uint32_t timeout_s = 0;      // until it would end if no packet came
  std::uint32_t mark = 0;
  AddressBytes labels{};                   // label n is bit n % 8 of byte n / 8; all zero: none
  std::optional<Translation> destination;  // DNAT
  std::optional<Translation> source;       // SNAT
  std::string helper;  // "ftp"; "": none. Printable ASCII without blanks, up to kMaxHelperSize
  SequenceShift shift_original{};  // TCP; all zero: none
  SequenceShift shift_reply{};

  bool operator==(const FlowState&) const = default;
};

// An event says of TCP, of labels and of shifts only what is new: the rest of `now` is
// taken from what was known `before`.
inline void keep_unsaid(const FlowState& before, FlowState& now) {
  if (now.tcp_state == 0) {
    now.tcp_state = before.tcp_state;
    now.scale_original = before.scale_original;
    now.scale_reply = before.scale_reply;
  }
  if (now.labels == AddressBytes{}) now.labels = before.labels;
  if (now.shift_original == SequenceShift{} && now.shift_reply == SequenceShift{}) {
    now.shift_original = before.shift_original;
    now.shift_reply = before.shift_reply;
  }
}

struct Flow {
  FlowKey key;
  FlowState state;

  bool operator==(const Flow&) const = default;
};

}  // namespace saru::sync
