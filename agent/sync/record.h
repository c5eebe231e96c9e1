// SPDX-License-Identifier: GPL-2.0-or-later
// Flows as bytes, for the network and for a store. A record is a key and a value, both of which say
// where they end. Equal flows have equal bytes, so that keys and values can be compared as strings.
// All numbers are in network order.
//
//   key    what, 1 byte: protocol (bits 0-2: 0 TCP, 1 UDP, 2 UDP-Lite, 3 ICMP or ICMPv6), IPv6
//          (bit 3), direction of the zone (bits 4-5), 0
//          zone, 2 bytes, if there is one
//          source and destination address (4 or 16 bytes each), source and destination port
//   value  what, 1 byte: assured, seen_reply, destination, source, mark, labels, helper, shifts
//          timeout, 1 byte
//          TCP: state | scale_original << 4, scale_reply
//          the following where `what` names it:
//          destination, source (address and port each), mark (4 bytes), labels (16),
//          helper (its size in one byte, then the name), shifts (of TCP: position, before and
//          after, 4 bytes each, of the original direction and of the reply's)
//
// TCP over IPv4 with DNAT takes 13 + 10 bytes, over IPv6 37 + 22.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "agent/sync/flow.h"

namespace saru::sync {

// What a record says of a timeout: up to 16 s exactly; above that rounded up to the next of eight
// steps for each power of two (by less than an eighth); everything longer as kLongestTimeoutS, 10.6
// days. Twice the same.
constexpr std::uint32_t kLongestTimeoutS = 14U << 16;
std::uint32_t rounded_timeout_s(std::uint32_t timeout_s);

// Of a flow that keeps to what flow.h says; "" for a protocol that is not carried. encode_value
// rounds the timeout, leaves out what is not of the protocol (TCP state, scales) and what is beyond
// the limits of FlowState: such a state counts as 0, a scale as kMaxScale, a helper as none.
std::string encode_key(const FlowKey& key);
std::string encode_value(const FlowState& state, bool v4, std::uint8_t protocol);

// The flow that these two were written of. The error says what is wrong with them: nothing that
// encode_* would not have written is taken.
tl::expected<Flow, const char*> decode(std::string_view key, std::string_view value);
tl::expected<FlowKey, const char*> decode_key(std::string_view key);

// Whether two values (of one connection) differ in nothing but their timeout, which every packet
// moves.
bool differ_in_timeout_only(std::string_view one, std::string_view other);

// How many bytes of the front are a key, or the value that belongs to `key`. Nothing if they end
// before that, or cannot be one. What they say is not checked: decode() does.
std::optional<std::size_t> key_size(std::string_view bytes);
std::optional<std::size_t> value_size(std::string_view bytes, std::string_view key);

}  // namespace saru::sync
