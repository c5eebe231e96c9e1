// SPDX-License-Identifier: GPL-2.0-or-later
// Frames that ask who has an address, from nobody: whoever hears them learns nothing from them.
#pragma once

#include <net/ethernet.h>
#include <netinet/icmp6.h>

#include "nft/frame.h"

namespace saru::nft {

// An ARP probe (RFC 5227) to this MAC, from the own one. `asker` stands in its content: Linux sends
// the answer there.
inline Frame arp_probe(const MacAddress& to, const MacAddress& own, const MacAddress& asker,
                       const IpAddress& ip) {
  Frame frame = ethernet(to, own, ETHERTYPE_ARP);
  put(frame, std::array<std::uint8_t, 8>{0, 1, 8, 0, 6, 4, 0, 1});  // Ethernet, IPv4, request
  put(frame, asker.bytes);
  put(frame, std::array<std::uint8_t, 4>{});  // no sender: nobody shall learn anything from it
  put(frame, MacAddress{}.bytes);
  put(frame, ip.bytes());
  return frame;
}

// The solicited-node group of the address, as a MAC (RFC 2464 section 7).
inline MacAddress solicited_group(const IpAddress& ip) {
  const auto target = ip.bytes();
  return {{0x33, 0x33, 0xff, target[13], target[14], target[15]}};
}

// A neighbour solicitation (RFC 4862 section 5.4.2) to this MAC; the answer goes to all nodes.
inline Frame solicitation(const MacAddress& to, const MacAddress& own, const IpAddress& ip) {
  const auto target = ip.bytes();
  Frame addresses(16);  // from nobody
  put(addresses, std::array<std::uint8_t, 13>{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff});
  put(addresses, target.subspan(13));
  Frame message{ND_NEIGHBOR_SOLICIT, 0, 0, 0, 0, 0, 0, 0};
  put(message, target);
  Frame frame = ethernet(to, own, ETHERTYPE_IPV6);
  put_icmpv6(frame, addresses, std::move(message));
  return frame;
}

}  // namespace saru::nft
