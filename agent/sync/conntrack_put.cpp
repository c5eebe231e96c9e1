// SPDX-License-Identifier: GPL-2.0-or-later
#include <arpa/inet.h>
#include <netinet/in.h>

#include "agent/sync/conntrack_message.h"

// After libc's headers, to which they give way.
#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "nft/netlink.h"

namespace saru::sync {
namespace {

using Conntrack = std::unique_ptr<nf_conntrack, nft::Free<nfct_destroy>>;

constexpr unsigned kMostLabels = 128;

bool is_icmp(std::uint8_t protocol) { return protocol == kIcmp || protocol == kIcmpV6; }

void set_address(nf_conntrack* ct, nf_conntrack_attr name, const AddressBytes& from, bool v4) {
  std::array<std::uint32_t, 4> aligned{};
  std::memcpy(aligned.data(), from.data(), v4 ? 4 : 16);
  nfct_set_attr(ct, name, aligned.data());
}

void set_key(nf_conntrack* ct, const FlowKey& key) {
  nfct_set_attr_u8(ct, ATTR_ORIG_L3PROTO, key.v4 ? AF_INET : AF_INET6);
  nfct_set_attr_u8(ct, ATTR_ORIG_L4PROTO, key.protocol);
  set_address(ct, key.v4 ? ATTR_ORIG_IPV4_SRC : ATTR_ORIG_IPV6_SRC, key.source, key.v4);
  set_address(ct, key.v4 ? ATTR_ORIG_IPV4_DST : ATTR_ORIG_IPV6_DST, key.destination, key.v4);
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

void set_shift(nf_conntrack* ct, const ShiftNames& names, const SequenceShift& shift) {
  if (shift == SequenceShift{}) return;
  nfct_set_attr_u32(ct, names.position, shift.position);
  nfct_set_attr_u32(ct, names.before, shift.before);
  nfct_set_attr_u32(ct, names.after, shift.after);
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
