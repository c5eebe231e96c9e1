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
#include <span>

namespace saru::nft {
namespace {

using Frame = std::vector<std::uint8_t>;

void put(Frame& frame, std::span<const std::uint8_t> bytes) {
  frame.insert(frame.end(), bytes.begin(), bytes.end());
}
void put16(Frame& frame, unsigned value) {
  frame.push_back(static_cast<std::uint8_t>(value >> 8));
  frame.push_back(static_cast<std::uint8_t>(value & 0xff));
}

Frame ethernet(const MacAddress& to, const MacAddress& from, unsigned type) {
  Frame frame;
  put(frame, to.bytes);
  put(frame, from.bytes);
  put16(frame, type);
  return frame;
}

constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

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

// RFC 1071, over the pseudo header of RFC 8200 section 8.1 and the message.
std::uint16_t icmpv6_checksum(std::span<const std::uint8_t> source_and_target,
                              std::span<const std::uint8_t> message) {
  std::uint32_t sum = static_cast<std::uint32_t>(message.size()) + IPPROTO_ICMPV6;
  const auto add = [&](std::span<const std::uint8_t> bytes) {
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) sum += bytes[i] * 256U + bytes[i + 1];
  };
  add(source_and_target);
  add(message);
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
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
  const std::uint16_t checksum = icmpv6_checksum(addresses, message);
  message[2] = static_cast<std::uint8_t>(checksum >> 8);
  message[3] = static_cast<std::uint8_t>(checksum & 0xff);

  Frame frame = ethernet(kAllNodesMac, who.own_mac, ETHERTYPE_IPV6);
  put(frame, std::array<std::uint8_t, 4>{0x60, 0, 0, 0});
  put16(frame, static_cast<unsigned>(message.size()));
  frame.push_back(IPPROTO_ICMPV6);
  frame.push_back(255);  // hop limit: neighbours ignore anything less
  put(frame, addresses);
  put(frame, message);
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
      sockaddr_ll to{};
      to.sll_family = AF_PACKET;
      to.sll_ifindex = static_cast<int>(who.nic);
      to.sll_halen = 6;
      std::memcpy(to.sll_addr, frame.data(), 6);
      std::memcpy(&to.sll_protocol, frame.data() + 12, 2);
      if (sendto(fd, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                 sizeof to) < 0) {
        result =
            fail(ErrorKind::kFailed, "cannot announce " + ip.text() + ": " + std::strerror(errno));
      }
    }
  }
  close(fd);
  return result;
}

}  // namespace saru::nft
