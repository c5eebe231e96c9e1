// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/in_use.h"

#include <net/ethernet.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "nft/packet_socket.h"
#include "nft/questions.h"

namespace saru::nft {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kProbes = 2;

void ask(int fd, unsigned nic, const Frame& frame) {
  // One that does not go out is as one that nobody answers.
  static_cast<void>(send_frame(fd, nic, frame));
}

// Reads what has come by `until`; the first claim that is not ours.
std::optional<Claim> listen(std::array<pollfd, 2> sockets, const Announcement& who,
                            const std::vector<IpAddress>& addresses, Clock::time_point until) {
  std::array<std::uint8_t, 2048> buffer;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0 || poll(sockets.data(), sockets.size(), static_cast<int>(left)) <= 0) {
      return std::nullopt;
    }
    for (const pollfd& socket : sockets) {
      const ssize_t got = recv(socket.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got <= 0) continue;
      const auto claim = read_claim({buffer.data(), static_cast<std::size_t>(got)});
      if (!claim || claim->mac == who.shared_mac || claim->mac == who.own_mac) continue;
      if (std::find(addresses.begin(), addresses.end(), claim->ip) != addresses.end()) return claim;
    }
  }
}

// Receives what comes in through the NIC of this type; -1: not allowed.
int open_for(unsigned nic, unsigned type) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  sockaddr_ll from{};
  from.sll_family = AF_PACKET;
  from.sll_protocol = htons(static_cast<std::uint16_t>(type));
  from.sll_ifindex = static_cast<int>(nic);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from) == 0) return fd;
  close(fd);
  return -1;
}

}  // namespace

Result<std::optional<Claim>> find_claim(const Announcement& who,
                                        const std::vector<IpAddress>& addresses,
                                        std::chrono::milliseconds patience) {
  const PacketSocket v4(open_for(who.nic, ETHERTYPE_ARP));
  const PacketSocket v6(open_for(who.nic, ETHERTYPE_IPV6));
  if (v4.fd < 0 || v6.fd < 0) {
    return fail(ErrorKind::kFailed, std::string("cannot ask the LAN for the shared addresses: ") +
                                        std::strerror(errno));
  }
  const std::array<pollfd, 2> sockets{{{v4.fd, POLLIN, 0}, {v6.fd, POLLIN, 0}}};
  for (int probe = 0; probe < kProbes; ++probe) {
    for (const IpAddress& ip : addresses) {
      ask(v4.fd, who.nic,
          ip.is_v4() ? arp_probe(kBroadcast, who.own_mac, who.own_mac, ip)
                     : solicitation(solicited_group(ip), who.own_mac, ip));
    }
    if (auto claim = listen(sockets, who, addresses, Clock::now() + patience / kProbes)) {
      return claim;
    }
  }
  return std::optional<Claim>();
}

}  // namespace saru::nft
