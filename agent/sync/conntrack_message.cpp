// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/conntrack_message.h"

#include <arpa/inet.h>
#include <netinet/in.h>

// After libc's headers, to which they give way.
#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "nft/netlink.h"

namespace saru::sync {
namespace {

using Conntrack = std::unique_ptr<nf_conntrack, nft::Free<nfct_destroy>>;

// The attributes of one version of IP.
struct Names {
  nf_conntrack_attr source, destination, reply_source, reply_destination;
};
constexpr Names kV4 = {ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV4_DST, ATTR_REPL_IPV4_SRC,
                       ATTR_REPL_IPV4_DST};
constexpr Names kV6 = {ATTR_ORIG_IPV6_SRC, ATTR_ORIG_IPV6_DST, ATTR_REPL_IPV6_SRC,
                       ATTR_REPL_IPV6_DST};

constexpr unsigned kMostLabels = 128;

bool is_icmp(std::uint8_t protocol) { return protocol == kIcmp || protocol == kIcmpV6; }

// ---- What a message says
// ------------------------------------------------------------------

bool has(const nf_conntrack* ct, std::initializer_list<nf_conntrack_attr> wanted) {
  return std::all_of(wanted.begin(), wanted.end(),
                     [&](nf_conntrack_attr one) { return nfct_attr_is_set(ct, one) > 0; });
}

AddressBytes address_in(const nf_conntrack* ct, nf_conntrack_attr name, bool v4) {
  AddressBytes bytes{};
  const void* from = nfct_get_attr(ct, name);
  if (from != nullptr) std::memcpy(bytes.data(), from, v4 ? 4 : 16);
  return bytes;
}

std::uint16_t port_in(const nf_conntrack* ct, nf_conntrack_attr name) {
  return ntohs(nfct_get_attr_u16(ct, name));
}

Zone zone_in(const nf_conntrack* ct) {
  using Direction = Zone::Direction;
  constexpr std::array kZones = {std::pair{ATTR_ZONE, Direction::kBoth},
                                 std::pair{ATTR_ORIG_ZONE, Direction::kOriginal},
                                 std::pair{ATTR_REPL_ZONE, Direction::kReply}};
  for (const auto& [name, direction] : kZones) {
    const std::uint16_t id = nfct_get_attr_u16(ct, name);  // in host order
    if (id != 0) return {.direction = direction, .id = id};
  }
  return {};
}

AddressBytes labels_in(const nf_conntrack* ct) {
  AddressBytes labels{};
  const auto* bits = static_cast<const nfct_bitmask*>(nfct_get_attr(ct, ATTR_CONNLABELS));
  if (bits == nullptr) return labels;
  const unsigned most = std::min(nfct_bitmask_maxbit(bits), kMostLabels - 1);
  for (unsigned label = 0; label <= most; ++label) {
    if (nfct_bitmask_test_bit(bits, label) > 0) labels.at(label / 8) |= 1U << label % 8;
  }
  return labels;
}

std::string helper_in(const nf_conntrack* ct) {
  if (!has(ct, {ATTR_HELPER_NAME})) return {};
  const auto* name = static_cast<const char*>(nfct_get_attr(ct, ATTR_HELPER_NAME));
  return {name, strnlen(name, FlowState::kMaxHelperSize)};
}

// The attributes of a shift.
struct ShiftNames {
  nf_conntrack_attr position, before, after;
};
constexpr ShiftNames kShiftOriginal = {ATTR_ORIG_NAT_SEQ_CORRECTION_POS,
                                       ATTR_ORIG_NAT_SEQ_OFFSET_BEFORE,
                                       ATTR_ORIG_NAT_SEQ_OFFSET_AFTER};
constexpr ShiftNames kShiftReply = {ATTR_REPL_NAT_SEQ_CORRECTION_POS,
                                    ATTR_REPL_NAT_SEQ_OFFSET_BEFORE,
                                    ATTR_REPL_NAT_SEQ_OFFSET_AFTER};

SequenceShift shift_in(const nf_conntrack* ct, const ShiftNames& names) {
  return {.position = nfct_get_attr_u32(ct, names.position),
          .before = nfct_get_attr_u32(ct, names.before),
          .after = nfct_get_attr_u32(ct, names.after)};
}

void set_shift(nf_conntrack* ct, const ShiftNames& names, const SequenceShift& shift) {
  if (shift == SequenceShift{}) return;
  nfct_set_attr_u32(ct, names.position, shift.position);
  nfct_set_attr_u32(ct, names.before, shift.before);
  nfct_set_attr_u32(ct, names.after, shift.after);
}

struct Found {
  std::uint16_t type;  // of the innermost attribute
  std::optional<std::uint16_t> value;
};

int find_reply_id(const nlattr* part, void* into) {
  const std::uint16_t type = mnl_attr_get_type(part);
  auto* found = static_cast<Found*>(into);
  if (type != found->type || mnl_attr_get_payload_len(part) != sizeof(std::uint16_t)) {
    return MNL_CB_OK;
  }
  found->value = ntohs(mnl_attr_get_u16(part));
  return MNL_CB_OK;
}

int find_reply_protocol(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) != CTA_TUPLE_PROTO) return MNL_CB_OK;
  return mnl_attr_parse_nested(part, find_reply_id, into);
}

int find_reply(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) != CTA_TUPLE_REPLY) return MNL_CB_OK;
  return mnl_attr_parse_nested(part, find_reply_protocol, into);
}

// The id of ICMP in the reply's tuple.
std::optional<std::uint16_t> reply_id(const nlmsghdr* message, bool v4) {
  Found found{.type = v4 ? std::uint16_t{CTA_PROTO_ICMP_ID} : std::uint16_t{CTA_PROTO_ICMPV6_ID},
              .value = {}};
  mnl_attr_parse(message, sizeof(nfgenmsg), find_reply, &found);
  return found.value;
}

bool read_key(const nf_conntrack* ct, FlowKey& key) {
  key.v4 = nfct_get_attr_u8(ct, ATTR_ORIG_L3PROTO) == AF_INET;
  key.protocol = nfct_get_attr_u8(ct, ATTR_ORIG_L4PROTO);
  if (!is_carried(key.v4, key.protocol)) return false;
  const Names& names = key.v4 ? kV4 : kV6;
  if (!has(ct, {names.source, names.destination, names.reply_source, names.reply_destination})) {
    return false;
  }
  key.source = address_in(ct, names.source, key.v4);
  key.destination = address_in(ct, names.destination, key.v4);
  key.zone = zone_in(ct);
  if (is_icmp(key.protocol)) {
    if (!has(ct, {ATTR_ICMP_ID, ATTR_ICMP_TYPE, ATTR_ICMP_CODE})) return false;
    key.source_port = port_in(ct, ATTR_ICMP_ID);
    key.destination_port = static_cast<std::uint16_t>(nfct_get_attr_u8(ct, ATTR_ICMP_TYPE) << 8 |
                                                      nfct_get_attr_u8(ct, ATTR_ICMP_CODE));
    return true;
  }
  if (!has(ct, {ATTR_ORIG_PORT_SRC, ATTR_ORIG_PORT_DST, ATTR_REPL_PORT_SRC, ATTR_REPL_PORT_DST})) {
    return false;
  }
  key.source_port = port_in(ct, ATTR_ORIG_PORT_SRC);
  key.destination_port = port_in(ct, ATTR_ORIG_PORT_DST);
  return true;
}

// What NAT does shows in the difference between the reply's tuple and the inverse of the original.
// (IPS_SRC_NAT and IPS_DST_NAT say the same, of entries that packets have made.) ICMP has one id in
// both directions: if NAT changes nothing but that, it is the source's.
bool read_translations(const nlmsghdr* message, const nf_conntrack* ct, Flow& flow) {
  const FlowKey& key = flow.key;
  const Names& names = key.v4 ? kV4 : kV6;
  Translation destination{.address = address_in(ct, names.reply_source, key.v4)};
  Translation source{.address = address_in(ct, names.reply_destination, key.v4)};
  bool destination_differs = destination.address != key.destination;
  bool source_differs = source.address != key.source;
  if (is_icmp(key.protocol)) {
    const auto id = reply_id(message, key.v4);
    if (!id) return false;
    destination.port = source.port = *id;
    source_differs = source_differs || (*id != key.source_port && !destination_differs);
  } else {
    destination.port = port_in(ct, ATTR_REPL_PORT_SRC);
    source.port = port_in(ct, ATTR_REPL_PORT_DST);
    destination_differs = destination_differs || destination.port != key.destination_port;
    source_differs = source_differs || source.port != key.source_port;
  }
  if (destination_differs) flow.state.destination = destination;
  if (source_differs) flow.state.source = source;
  return true;
}

void read_state(const nf_conntrack* ct, FlowState& state) {
  const std::uint32_t status = nfct_get_attr_u32(ct, ATTR_STATUS);
  state.assured = (status & IPS_ASSURED) != 0;
  state.seen_reply = (status & IPS_SEEN_REPLY) != 0;
  const std::uint8_t tcp = nfct_get_attr_u8(ct, ATTR_TCP_STATE);
  state.tcp_state = tcp <= FlowState::kMaxTcpState ? tcp : std::uint8_t{0};
  const auto scale = [&](nf_conntrack_attr name) {
    return std::min(nfct_get_attr_u8(ct, name), FlowState::kMaxScale);
  };
  state.scale_original = scale(ATTR_TCP_WSCALE_ORIG);
  state.scale_reply = scale(ATTR_TCP_WSCALE_REPL);
  state.timeout_s = nfct_get_attr_u32(ct, ATTR_TIMEOUT);
  state.mark = nfct_get_attr_u32(ct, ATTR_MARK);
  state.labels = labels_in(ct);
  state.helper = helper_in(ct);
  state.shift_original = shift_in(ct, kShiftOriginal);
  state.shift_reply = shift_in(ct, kShiftReply);
}

// ---- What a message is told
// ------------------------------------------------------------------

void set_address(nf_conntrack* ct, nf_conntrack_attr name, const AddressBytes& from, bool v4) {
  std::array<std::uint32_t, 4> aligned{};
  std::memcpy(aligned.data(), from.data(), v4 ? 4 : 16);
  nfct_set_attr(ct, name, aligned.data());
}

void set_key(nf_conntrack* ct, const FlowKey& key) {
  const Names& names = key.v4 ? kV4 : kV6;
  nfct_set_attr_u8(ct, ATTR_ORIG_L3PROTO, key.v4 ? AF_INET : AF_INET6);
  nfct_set_attr_u8(ct, ATTR_ORIG_L4PROTO, key.protocol);
  set_address(ct, names.source, key.source, key.v4);
  set_address(ct, names.destination, key.destination, key.v4);
  if (is_icmp(key.protocol)) {
    nfct_set_attr_u16(ct, ATTR_ICMP_ID, htons(key.source_port));
    nfct_set_attr_u8(ct, ATTR_ICMP_TYPE, static_cast<std::uint8_t>(key.destination_port >> 8));
    nfct_set_attr_u8(ct, ATTR_ICMP_CODE, static_cast<std::uint8_t>(key.destination_port));
  } else {
    nfct_set_attr_u16(ct, ATTR_ORIG_PORT_SRC, htons(key.source_port));
    nfct_set_attr_u16(ct, ATTR_ORIG_PORT_DST, htons(key.destination_port));
  }
  if (key.zone.direction == Zone::Direction::kBoth) {
    nfct_set_attr_u16(ct, ATTR_ZONE, key.zone.id);
  } else if (key.zone.direction == Zone::Direction::kOriginal) {
    nfct_set_attr_u16(ct, ATTR_ORIG_ZONE, key.zone.id);
  }
}

void set_tcp(nf_conntrack* ct, const FlowState& state) {
  const auto unknown = state.seen_reply ? TCP_CONNTRACK_ESTABLISHED : TCP_CONNTRACK_SYN_SENT;
  constexpr std::uint8_t kFlags = IP_CT_TCP_FLAG_BE_LIBERAL | IP_CT_TCP_FLAG_WINDOW_SCALE;
  nfct_set_attr_u8(ct, ATTR_TCP_STATE,
                   state.tcp_state != 0 ? state.tcp_state : static_cast<std::uint8_t>(unknown));
  nfct_set_attr_u8(ct, ATTR_TCP_WSCALE_ORIG, state.scale_original);
  nfct_set_attr_u8(ct, ATTR_TCP_WSCALE_REPL, state.scale_reply);
  for (const auto name :
       {ATTR_TCP_FLAGS_ORIG, ATTR_TCP_FLAGS_REPL, ATTR_TCP_MASK_ORIG, ATTR_TCP_MASK_REPL}) {
    nfct_set_attr_u8(ct, name, kFlags);
  }
  set_shift(ct, kShiftOriginal, state.shift_original);
  set_shift(ct, kShiftReply, state.shift_reply);
}

void set_labels(nf_conntrack* ct, const AddressBytes& labels) {
  if (labels == AddressBytes{}) return;
  nfct_bitmask* bits = nfct_bitmask_new(kMostLabels - 1);
  if (bits == nullptr) return;
  for (unsigned label = 0; label < kMostLabels; ++label) {
    if ((labels.at(label / 8) >> label % 8 & 1) != 0) nfct_bitmask_set_bit(bits, label);
  }
  nfct_set_attr(ct, ATTR_CONNLABELS, bits);  // `ct` owns them now
}

// The reply's tuple is the plain inverse, and NAT is told beside it: with a translated one the
// kernel would translate once more.
void set_state(nf_conntrack* ct, const Flow& flow, bool with_helper) {
  const FlowState& state = flow.state;
  nfct_setobjopt(ct, NFCT_SOPT_SETUP_REPLY);
  if (flow.key.zone.direction == Zone::Direction::kReply) {
    nfct_set_attr_u16(ct, ATTR_REPL_ZONE, flow.key.zone.id);
  }
  std::uint32_t status = IPS_CONFIRMED;
  if (state.assured) status |= IPS_ASSURED;
  if (state.seen_reply) status |= IPS_SEEN_REPLY;
  nfct_set_attr_u32(ct, ATTR_STATUS, status);
  nfct_set_attr_u32(ct, ATTR_TIMEOUT, std::max(state.timeout_s, 1U));
  if (state.mark != 0) nfct_set_attr_u32(ct, ATTR_MARK, state.mark);
  if (flow.key.protocol == kTcp) set_tcp(ct, state);
  set_labels(ct, state.labels);
  if (with_helper && !state.helper.empty()) {
    nfct_set_attr(ct, ATTR_HELPER_NAME, state.helper.c_str());
  }
}

void put_translation(nlmsghdr* message, std::uint16_t type, const FlowKey& key,
                     const Translation& nat) {
  nlattr* whole = mnl_attr_nest_start(message, type);
  const std::size_t size = key.v4 ? 4 : 16;
  mnl_attr_put(message, key.v4 ? CTA_NAT_V4_MINIP : CTA_NAT_V6_MINIP, size, nat.address.data());
  mnl_attr_put(message, key.v4 ? CTA_NAT_V4_MAXIP : CTA_NAT_V6_MAXIP, size, nat.address.data());
  nlattr* protocol = mnl_attr_nest_start(message, CTA_NAT_PROTO);
  mnl_attr_put_u16(message, CTA_PROTONAT_PORT_MIN, htons(nat.port));
  mnl_attr_put_u16(message, CTA_PROTONAT_PORT_MAX, htons(nat.port));
  mnl_attr_nest_end(message, protocol);
  mnl_attr_nest_end(message, whole);
}

}  // namespace

std::optional<Flow> flow_in(const nlmsghdr* message) {
  const auto* generic = nft::header_of<nfgenmsg>(message);
  if (generic == nullptr) return std::nullopt;
  if (generic->nfgen_family != AF_INET && generic->nfgen_family != AF_INET6) return std::nullopt;
  const Conntrack ct(nfct_new());
  if (!ct || nfct_nlmsg_parse(message, ct.get()) < 0) return std::nullopt;
  Flow flow;
  if (!has(ct.get(), {ATTR_STATUS, ATTR_ORIG_L4PROTO}) || !read_key(ct.get(), flow.key)) {
    return std::nullopt;
  }
  if ((nfct_get_attr_u32(ct.get(), ATTR_STATUS) & IPS_CONFIRMED) == 0) return std::nullopt;
  read_state(ct.get(), flow.state);
  if (!read_translations(message, ct.get(), flow)) return std::nullopt;
  return flow;
}

bool put_key(nlmsghdr* message, const FlowKey& key) {
  const Conntrack ct(nfct_new());
  if (!ct || !is_carried(key.v4, key.protocol)) return false;
  set_key(ct.get(), key);
  return nfct_nlmsg_build(message, ct.get()) == 0;
}

bool put_flow(nlmsghdr* message, const Flow& flow, bool with_helper) {
  const Conntrack ct(nfct_new());
  if (!ct || !is_carried(flow.key.v4, flow.key.protocol)) return false;
  set_key(ct.get(), flow.key);
  set_state(ct.get(), flow, with_helper);
  if (nfct_nlmsg_build(message, ct.get()) != 0) return false;
  if (flow.state.destination) {
    put_translation(message, CTA_NAT_DST, flow.key, *flow.state.destination);
  }
  if (flow.state.source) put_translation(message, CTA_NAT_SRC, flow.key, *flow.state.source);
  return true;
}

}  // namespace saru::sync
