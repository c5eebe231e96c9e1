// SPDX-License-Identifier: GPL-2.0-or-later
// The small words that the plan's rules are written in. Pure; for plan*.cpp alone.
#pragma once

#include <netinet/in.h>

// After <netinet/in.h>: the kernel's headers give way to libc's, not the other way round.
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "nft/plan.h"

namespace saru::nft {

// NF_IP_PRI_RAW - 10: after defragmentation (-400), before connection tracking (-200).
inline constexpr std::int32_t kPriority = -310;

// NF_IP_PRI_CONNTRACK + 10: before the NAT of destinations (-100).
inline constexpr std::int32_t kBehindConntrack = -190;

inline constexpr std::uint32_t kNetwork = NFT_PAYLOAD_NETWORK_HEADER;
inline constexpr std::uint32_t kTransport = NFT_PAYLOAD_TRANSPORT_HEADER;

using Expressions = std::vector<Expression>;

inline Expressions operator+(Expressions a, const Expressions& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

template <class T>
Bytes host_bytes(T value) {
  const auto* begin = reinterpret_cast<const std::uint8_t*>(&value);
  return Bytes(begin, begin + sizeof value);
}
inline Bytes big16(unsigned value) {
  return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value & 0xff)};
}

inline Expression equals(Bytes value) { return Compare{NFT_CMP_EQ, std::move(value)}; }
inline Expression drop() { return Verdict{NF_DROP, ""}; }
inline Expression accept() { return Verdict{NF_ACCEPT, ""}; }
inline Expression go_to(std::string chain) { return Verdict{NFT_GOTO, std::move(chain)}; }
inline Expression jump(std::string chain) { return Verdict{NFT_JUMP, std::move(chain)}; }

inline Expressions family(bool v4) {
  const auto nfproto = static_cast<std::uint8_t>(v4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
  return {LoadMeta{NFT_META_NFPROTO}, equals({nfproto})};
}
inline Expressions protocol(std::uint8_t l4proto) {
  return {LoadMeta{NFT_META_L4PROTO}, equals({l4proto})};
}
inline Expressions bytes_are(std::uint32_t base, std::uint32_t offset, Bytes value) {
  const auto length = static_cast<std::uint32_t>(value.size());
  return {LoadPayload{base, offset, length}, equals(std::move(value))};
}

inline bool has_family(const TableConfig& config, bool v4) {
  const auto is_in = [&](const std::vector<IpAddress>& addresses) {
    return std::any_of(addresses.begin(), addresses.end(),
                       [&](const IpAddress& ip) { return ip.is_v4() == v4; });
  };
  return is_in(config.addresses) || (config.inside && is_in(config.inside->addresses));
}

// ---- Where a packet has its values (plan_value.cpp)
// ---------------------------------------------------------------------------------------------

// Which way the packet went that is looked at: from a client to us; from us to a client; the same
// two, but quoted in an ICMP error of somebody on the way.
enum class Way { kIn, kOut, kQuotedIn, kQuoted };

// Where one family's IP header and the ports are.
struct Place {
  bool v4 = true;
  Way way = Way::kIn;

  bool quoted() const { return way == Way::kQuotedIn || way == Way::kQuoted; }
  std::uint32_t ip_base() const { return quoted() ? kTransport : kNetwork; }
  std::uint32_t ip() const { return quoted() ? std::uint32_t{SARU_ICMP_HEADER} : 0U; }
  std::uint32_t ip_size() const { return v4 ? 4 : 16; }
  std::uint32_t address(bool client) const {
    if (v4) return ip() + (is_source(client) ? SARU_V4_SOURCE : SARU_V4_DESTINATION);
    return ip() + (is_source(client) ? SARU_V6_SOURCE : SARU_V6_DESTINATION);
  }
  std::uint32_t port(bool client) const {
    const std::uint32_t header = v4 ? SARU_V4_HEADER : SARU_V6_HEADER;
    return (quoted() ? ip() + header : 0U) +
           (is_source(client) ? SARU_PORT_SOURCE : SARU_PORT_DESTINATION);
  }
  bool is_source(bool client) const { return client == (way == Way::kIn || way == Way::kQuotedIn); }
};

// The masked value is an element of this set: of some of our blocks, or of all, which count.
Expressions value_in(const TableConfig& config, Selector selector, const Place& place,
                     const char* set);
// The same rule for every family of the configuration; once, where the selector reads no address.
void add_by_value(Chain& chain, const TableConfig& config, Selector selector, const char* set,
                  const Expressions& then, const std::string& comment, Way way = Way::kIn);
// A quoted packet that tells its connection, and whose protocol is this: see SARU_V4_PLAIN. The
// next header of IPv6 says by itself that there is no extension.
Expressions quoted_protocol(bool v4, const Expressions& is);
// An ICMP type. The protocol is known, but without it nft does not print the type by its name.
Expressions type_in(std::uint8_t l4proto, const char* set);
std::vector<Rule> to_shared(const TableConfig& config, bool as_source, const std::string& chain);

std::string chain_name(const char* what, Selector selector);  // "what_src_port"
const char* meaning(Selector selector);

// To the chain of its selector, by the service's address, protocol and port: "<by>_<selector>".
struct ByService {
  std::string name;
  std::string comment;
  std::string by;
  Way way = Way::kIn;
  std::optional<bool> v4 = std::nullopt;  // of this family alone
  bool tcp = false;                       // all that comes there is TCP
};
Chain by_service(const TableConfig& config, const ByService& words);

struct IcmpNames {
  std::uint8_t l4proto;
  const char* chain;
  const char* error_chain;
  const char* quoted_chain;
  const char* queries;
  const char* errors;
};
inline constexpr IcmpNames kIcmp4{IPPROTO_ICMP, "by_icmp",    "icmp_error",
                                  "quoted4",    "icmp_query", "icmp_error"};
inline constexpr IcmpNames kIcmp6{IPPROTO_ICMPV6, "by_icmpv6",    "icmpv6_error",
                                  "quoted6",      "icmpv6_query", "icmpv6_error"};
// Of what comes from inside.
inline constexpr IcmpNames kInsideIcmp4{IPPROTO_ICMP,     "inside_icmp", "inside_icmp_error",
                                        "inside_quoted4", "icmp_query",  "icmp_error"};
inline constexpr IcmpNames kInsideIcmp6{IPPROTO_ICMPV6,   "inside_icmpv6", "inside_icmpv6_error",
                                        "inside_quoted6", "icmpv6_query",  "icmpv6_error"};

// TCP segments with exactly these of the flags FIN, SYN, RST, ACK.
inline constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kRst = 0x04;
inline Expressions tcp_flags(std::uint8_t flags) {
  constexpr std::uint8_t kLookedAt = 0x17;
  return protocol(IPPROTO_TCP) +
         Expressions{LoadPayload{kTransport, 13, 1}, Mask{{kLookedAt}}, equals({flags})};
}

// By the interface that this meta key tells: NFT_META_IIF, NFT_META_OIF.
inline Rule over_loopback(std::uint32_t key, const char* comment) {
  constexpr std::uint32_t kLoopbackIndex = 1;  // in every network namespace
  return {comment, {LoadMeta{key}, equals(host_bytes(kLoopbackIndex)), accept()}};
}

// Unicast that came in through this link, wherever it goes to.
Rule through_link(const std::string& link, const std::string& chain, const char* comment);

inline Rule under_lease() { return {"only as long as the lease lasts", {jump("open")}}; }
inline Expressions answered() { return {Count{"accepted"}, accept()}; }
inline Rule foreign_drop(const char* comment) { return {comment, {Count{"foreign"}, drop()}}; }

// The chains between `prerouting` and `open`: whose packet is it? The first one is `shared`; where
// there is an inside, what comes from there begins in `inside`.
std::vector<Chain> ownership_chains(const TableConfig& config);
// Where connections stay (TableConfig::stays): what happens behind conntrack, and on the way out.
std::vector<Chain> connection_chains(const TableConfig& config);

// Where the members tell each other their connections.
std::vector<Chain> event_chains(const TableConfig& config);

}  // namespace saru::nft
