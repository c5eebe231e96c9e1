// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "nft/address.h"
#include "nft/result.h"

namespace saru::nft {

struct Announcement {
  unsigned nic = 0;       // interface index
  MacAddress own_mac;     // Ethernet source
  MacAddress shared_mac;  // what the neighbours shall learn
};

// The frames: for IPv4 a gratuitous ARP request and reply, for IPv6 an unsolicited neighbour
// advertisement (RFC 5227, RFC 4861 section 7.2.6).
std::vector<std::vector<std::uint8_t>> announcement_frames(const Announcement& who,
                                                           const IpAddress& ip);
Result<void> send_announcement(const Announcement& who, const std::vector<IpAddress>& addresses);

}  // namespace saru::nft
