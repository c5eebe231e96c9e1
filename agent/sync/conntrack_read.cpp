// SPDX-License-Identifier: GPL-2.0-or-later
#include <arpa/inet.h>
#include <netinet/in.h>

// After libc's headers, to which they give way.
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <algorithm>
#include <cstring>

#include "agent/sync/conntrack_message.h"
#include "nft/netlink.h"

namespace saru::sync {
namespace {

// What has been read of a tuple, as bits.
constexpr unsigned kSource = 1;
constexpr unsigned kDestination = 2;
constexpr unsigned kProtocol = 4;
constexpr unsigned kSourcePort = 8;
constexpr unsigned kDestinationPort = 16;
constexpr unsigned kType = 32;
constexpr unsigned kCode = 64;
constexpr unsigned kAddresses = kSource | kDestination | kProtocol;

struct Tuple {
  unsigned seen = 0;
  std::uint8_t protocol = 0;
  AddressBytes source{};
  AddressBytes destination{};
  std::uint16_t source_port = 0;  // of ICMP the id
  std::uint16_t destination_port = 0;
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint16_t zone = 0;
};

struct Message {
  bool v4 = true;
  bool has_status = false;
  std::uint32_t status = 0;
  Tuple original, reply;
  std::uint16_t zone = 0;
  FlowState state;
};

bool is_icmp(std::uint8_t protocol) { return protocol == kIcmp || protocol == kIcmpV6; }

template <class Visit>
void each_in(const void* first, const void* tail, Visit visit) {
  const auto* end = static_cast<const char*>(tail);
  const auto* attribute = static_cast<const nlattr*>(first);
  const auto left = [&] { return end - reinterpret_cast<const char*>(attribute); };
  while (mnl_attr_ok(attribute, static_cast<int>(left()))) {
    visit(attribute);
    attribute = mnl_attr_next(attribute);
  }
}

template <class Visit>
void each_nested(const nlattr* nest, Visit visit) {
  each_in(mnl_attr_get_payload(nest),
          static_cast<const char*>(mnl_attr_get_payload(nest)) + mnl_attr_get_payload_len(nest),
          visit);
}

// What is not of exactly its size counts as not there.
template <std::size_t size, class T>
bool take(const nlattr* attribute, T& into) {
  static_assert(sizeof(T) >= size);
  if (mnl_attr_get_payload_len(attribute) != size) return false;
  std::memcpy(&into, mnl_attr_get_payload(attribute), size);
  return true;
}

bool take_port(const nlattr* attribute, std::uint16_t& into) {
  if (!take<2>(attribute, into)) return false;
  into = ntohs(into);
  return true;
}

std::uint32_t number_of(const nlattr* attribute) { return ntohl(nft::u32_of(attribute)); }

void mark_if(bool taken, unsigned bit, unsigned& seen) {
  if (taken) seen |= bit;
}

void read_addresses(const nlattr* nest, bool v4, Tuple& tuple) {
  each_nested(nest, [&](const nlattr* part) {
    const unsigned type = mnl_attr_get_type(part);
    if (v4 && type == CTA_IP_V4_SRC) mark_if(take<4>(part, tuple.source), kSource, tuple.seen);
    if (v4 && type == CTA_IP_V4_DST) {
      mark_if(take<4>(part, tuple.destination), kDestination, tuple.seen);
    }
    if (!v4 && type == CTA_IP_V6_SRC) mark_if(take<16>(part, tuple.source), kSource, tuple.seen);
    if (!v4 && type == CTA_IP_V6_DST) {
      mark_if(take<16>(part, tuple.destination), kDestination, tuple.seen);
    }
  });
}

void read_protocol(const nlattr* nest, Tuple& tuple) {
  each_nested(nest, [&](const nlattr* part) {
    switch (mnl_attr_get_type(part)) {
      case CTA_PROTO_NUM:
        mark_if(take<1>(part, tuple.protocol), kProtocol, tuple.seen);
        break;
      case CTA_PROTO_SRC_PORT:
      case CTA_PROTO_ICMP_ID:
      case CTA_PROTO_ICMPV6_ID:
        mark_if(take_port(part, tuple.source_port), kSourcePort, tuple.seen);
        break;
      case CTA_PROTO_DST_PORT:
        mark_if(take_port(part, tuple.destination_port), kDestinationPort, tuple.seen);
        break;
      case CTA_PROTO_ICMP_TYPE:
      case CTA_PROTO_ICMPV6_TYPE:
        mark_if(take<1>(part, tuple.type), kType, tuple.seen);
        break;
      case CTA_PROTO_ICMP_CODE:
      case CTA_PROTO_ICMPV6_CODE:
        mark_if(take<1>(part, tuple.code), kCode, tuple.seen);
        break;
      default:
        break;
    }
  });
}

void read_tuple(const nlattr* nest, bool v4, Tuple& tuple) {
  each_nested(nest, [&](const nlattr* part) {
    const unsigned type = mnl_attr_get_type(part);
    if (type == CTA_TUPLE_IP) read_addresses(part, v4, tuple);
    if (type == CTA_TUPLE_PROTO) read_protocol(part, tuple);
    if (type == CTA_TUPLE_ZONE) take_port(part, tuple.zone);
  });
}

void read_tcp(const nlattr* nest, FlowState& state) {
  each_nested(nest, [&](const nlattr* part) {
    const std::uint8_t value = nft::u8_of(part);
    switch (mnl_attr_get_type(part)) {
      case CTA_PROTOINFO_TCP_STATE:
        state.tcp_state = value <= FlowState::kMaxTcpState ? value : std::uint8_t{0};
        break;
      case CTA_PROTOINFO_TCP_WSCALE_ORIGINAL:
        state.scale_original = std::min(value, FlowState::kMaxScale);
        break;
      case CTA_PROTOINFO_TCP_WSCALE_REPLY:
        state.scale_reply = std::min(value, FlowState::kMaxScale);
        break;
      default:
        break;
    }
  });
}

void read_protocol_info(const nlattr* nest, FlowState& state) {
  each_nested(nest, [&](const nlattr* part) {
    if (mnl_attr_get_type(part) == CTA_PROTOINFO_TCP) read_tcp(part, state);
  });
}

void read_helper(const nlattr* nest, FlowState& state) {
  each_nested(nest, [&](const nlattr* part) {
    if (mnl_attr_get_type(part) == CTA_HELP_NAME) state.helper = nft::text_of(part);
  });
}

SequenceShift shift_in(const nlattr* nest) {
  SequenceShift shift;
  each_nested(nest, [&](const nlattr* part) {
    const unsigned type = mnl_attr_get_type(part);
    if (type == CTA_SEQADJ_CORRECTION_POS) shift.position = number_of(part);
    if (type == CTA_SEQADJ_OFFSET_BEFORE) shift.before = number_of(part);
    if (type == CTA_SEQADJ_OFFSET_AFTER) shift.after = number_of(part);
  });
  return shift;
}

// The kernel's words are of this machine's byte order, 32 labels each.
AddressBytes labels_in(const nlattr* attribute) {
  AddressBytes labels{};
  std::array<std::uint32_t, 4> words{};
  const std::size_t size = std::min(sizeof words, std::size_t{mnl_attr_get_payload_len(attribute)});
  std::memcpy(words.data(), mnl_attr_get_payload(attribute), size);
  for (std::size_t at = 0; at < labels.size(); ++at) {
    labels.at(at) = static_cast<std::uint8_t>(words.at(at / 4) >> 8 * (at % 4));
  }
  return labels;
}

void read_attribute(const nlattr* attribute, Message& into) {
  switch (mnl_attr_get_type(attribute)) {
    case CTA_TUPLE_ORIG:
      return read_tuple(attribute, into.v4, into.original);
    case CTA_TUPLE_REPLY:
      return read_tuple(attribute, into.v4, into.reply);
    case CTA_STATUS:
      into.has_status = take<4>(attribute, into.status);
      into.status = ntohl(into.status);
      return;
    case CTA_TIMEOUT:
      into.state.timeout_s = number_of(attribute);
      return;
    case CTA_MARK:
      into.state.mark = number_of(attribute);
      return;
    case CTA_PROTOINFO:
      return read_protocol_info(attribute, into.state);
    case CTA_ZONE:
      take_port(attribute, into.zone);
      return;
    case CTA_LABELS:
      into.state.labels = labels_in(attribute);
      return;
    case CTA_HELP:
      return read_helper(attribute, into.state);
    case CTA_SEQ_ADJ_ORIG:
      into.state.shift_original = shift_in(attribute);
      return;
    case CTA_SEQ_ADJ_REPLY:
      into.state.shift_reply = shift_in(attribute);
      return;
    default:
      return;
  }
}

Zone zone_in(const Message& message) {
  using Direction = Zone::Direction;
  if (message.zone != 0) return {.direction = Direction::kBoth, .id = message.zone};
  if (message.original.zone != 0) {
    return {.direction = Direction::kOriginal, .id = message.original.zone};
  }
  if (message.reply.zone != 0) return {.direction = Direction::kReply, .id = message.reply.zone};
  return {};
}

bool is_whole(const Message& message) {
  const std::uint8_t protocol = message.original.protocol;
  const unsigned wanted =
      kAddresses | kSourcePort | (is_icmp(protocol) ? kType | kCode : unsigned{kDestinationPort});
  return is_carried(message.v4, protocol) && message.reply.protocol == protocol &&
         (message.original.seen & wanted) == wanted && (message.reply.seen & wanted) == wanted &&
         message.has_status && (message.status & IPS_CONFIRMED) != 0;
}

// What NAT does shows in the difference between the reply's tuple and the inverse of the original.
// (IPS_SRC_NAT and IPS_DST_NAT say the same, of entries that packets have made.) ICMP has one id in
// both directions: if NAT changes nothing but that, it is the source's.
void find_translations(const Message& message, Flow& flow) {
  const Tuple& reply = message.reply;
  const FlowKey& key = flow.key;
  const bool icmp = is_icmp(key.protocol);
  Translation destination{.address = reply.source, .port = reply.source_port};
  Translation source{.address = reply.destination, .port = reply.destination_port};
  if (icmp) source.port = reply.source_port;
  bool destination_differs = destination.address != key.destination;
  bool source_differs = source.address != key.source;
  if (icmp) {
    source_differs = source_differs || (source.port != key.source_port && !destination_differs);
  } else {
    destination_differs = destination_differs || destination.port != key.destination_port;
    source_differs = source_differs || source.port != key.source_port;
  }
  if (destination_differs) flow.state.destination = destination;
  if (source_differs) flow.state.source = source;
}

}  // namespace

std::optional<Flow> flow_in(const nlmsghdr* message) {
  const auto* generic = nft::header_of<nfgenmsg>(message);
  if (generic == nullptr) return std::nullopt;
  if (generic->nfgen_family != AF_INET && generic->nfgen_family != AF_INET6) return std::nullopt;
  Message read;
  read.v4 = generic->nfgen_family == AF_INET;
  each_in(mnl_nlmsg_get_payload_offset(message, sizeof(nfgenmsg)),
          mnl_nlmsg_get_payload_tail(message),
          [&](const nlattr* attribute) { read_attribute(attribute, read); });
  if (!is_whole(read)) return std::nullopt;
  const Tuple& original = read.original;
  Flow flow;
  flow.key = {.v4 = read.v4,
              .protocol = original.protocol,
              .source = original.source,
              .destination = original.destination,
              .source_port = original.source_port,
              .destination_port = original.destination_port,
              .zone = zone_in(read)};
  if (is_icmp(original.protocol)) {
    flow.key.destination_port = static_cast<std::uint16_t>(original.type << 8 | original.code);
  }
  flow.state = std::move(read.state);
  flow.state.assured = (read.status & IPS_ASSURED) != 0;
  flow.state.seen_reply = (read.status & IPS_SEEN_REPLY) != 0;
  find_translations(read, flow);
  return flow;
}

}  // namespace saru::sync
