// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/announce.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "nft/packet_socket.h"

namespace saru::nft {
namespace {

Frame arp(const Announcement& who, const IpAddress& ip, bool reply) {
  Frame frame = ethernet(kBroadcast, who.own_mac, ETHERTYPE_ARP);
  put16(frame, 1);  // Ethernet
  put16(frame, ETHERTYPE_IP);
  frame.push_back(6);
  frame.push_back(4);
  put16(frame, reply ? 2 : 1);
  put(frame, who.shared_mac.bytes);
  put(frame, ip.bytes());
  put(frame, reply ? kBroadcast.bytes : MacAddress{}.bytes);
  put(frame, ip.bytes());
  return frame;
}

Frame advertisement(const Announcement& who, const IpAddress& ip) {
  constexpr std::uint8_t kAllNodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  constexpr MacAddress kAllNodesMac{{0x33, 0x33, 0, 0, 0, 1}};
  Frame message{ND_NEIGHBOR_ADVERT, 0, 0, 0, 0x20, 0, 0, 0};  // flag: override
  put(message, ip.bytes());
  message.push_back(ND_OPT_TARGET_LINKADDR);
  message.push_back(1);  // in units of 8 bytes
  put(message, who.shared_mac.bytes);

  Frame addresses;
  put(addresses, ip.bytes());
  put(addresses, kAllNodes);

  Frame frame = ethernet(kAllNodesMac, who.own_mac, ETHERTYPE_IPV6);
  put_icmpv6(frame, addresses, std::move(message));
  return frame;
}

}  // namespace

std::vector<std::vector<std::uint8_t>> announcement_frames(const Announcement& who,
                                                           const IpAddress& ip) {
  if (ip.is_v4()) return {arp(who, ip, false), arp(who, ip, true)};
  return {advertisement(who, ip)};
}

Result<void> send_announcement(const Announcement& who, const std::vector<IpAddress>& addresses) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return fail(errno == EPERM ? ErrorKind::kNotPermitted : ErrorKind::kFailed,
                std::string("cannot announce the shared addresses: ") + std::strerror(errno) +
                    (errno == EPERM ? "; run as root or with CAP_NET_RAW" : ""));
  }
  Result<void> result;
  for (const IpAddress& ip : addresses) {
    for (const Frame& frame : announcement_frames(who, ip)) {
      if (!send_frame(fd, who.nic, frame)) {
        result =
            fail(ErrorKind::kFailed, "cannot announce " + ip.text() + ": " + std::strerror(errno));
      }
    }
  }
  close(fd);
  return result;
}

}  // namespace saru::nft
