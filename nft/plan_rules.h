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
  return std::any_of(config.addresses.begin(), config.addresses.end(),
                     [&](const IpAddress& ip) { return ip.is_v4() == v4; });
}

inline Rule foreign_drop(const char* comment) { return {comment, {Count{"foreign"}, drop()}}; }

// The chains between `prerouting` and `open`: whose packet is it? The first one is `shared`.
std::vector<Chain> ownership_chains(const TableConfig& config);

}  // namespace saru::nft
