// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/claim.h"

#include <net/ethernet.h>
#include <netinet/icmp6.h>

#include <algorithm>

namespace saru::nft {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv6 = 40;

MacAddress mac_at(std::span<const std::uint8_t> frame, std::size_t at) {
  MacAddress mac;
  std::copy_n(frame.begin() + static_cast<std::ptrdiff_t>(at), 6, mac.bytes.begin());
  return mac;
}

}  // namespace

std::optional<Claim> read_content(std::span<const std::uint8_t> frame) {
  if (frame.size() < kEthernet) return std::nullopt;
  const unsigned type = frame[12] * 256U + frame[13];
  if (type == ETHERTYPE_ARP && frame.size() >= kEthernet + 28) {
    // Requests speak of their sender, too.
    const auto sender = IpAddress::from_bytes(frame.subspan(kEthernet + 14, 4));
    return Claim{*sender, mac_at(frame, kEthernet + 8)};
  }
  constexpr std::size_t kMessage = kEthernet + kIpv6;
  const bool advertises = type == ETHERTYPE_IPV6 && frame.size() >= kMessage + 32 &&
                          frame[kEthernet + 6] == IPPROTO_ICMPV6 && frame[kEthernet + 7] == 255 &&
                          frame[kMessage] == ND_NEIGHBOR_ADVERT &&
                          frame[kMessage + 24] == ND_OPT_TARGET_LINKADDR;
  if (!advertises) return std::nullopt;
  const auto target = IpAddress::from_bytes(frame.subspan(kMessage + 8, 16));
  return Claim{*target, mac_at(frame, kMessage + 26)};
}

std::optional<Claim> read_claim(std::span<const std::uint8_t> frame) {
  const auto claim = read_content(frame);
  return claim && claim->mac == mac_at(frame, 6) ? claim : std::nullopt;
}

}  // namespace saru::nft
