// SPDX-License-Identifier: GPL-2.0-or-later
// A packet socket (packet(7)), and whole frames that go out through it.
#pragma once

#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "nft/frame.h"

namespace saru::nft {

// Closes what it holds; negative: nothing.
struct PacketSocket {
  int fd;
  explicit PacketSocket(int f) : fd(f) {}
  PacketSocket(const PacketSocket&) = delete;
  PacketSocket& operator=(const PacketSocket&) = delete;
  ~PacketSocket() {
    if (fd >= 0) close(fd);
  }
};

// False, and errno, if it did not go out. The frame has its Ethernet header.
inline bool send_frame(int fd, unsigned nic, const Frame& frame) {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(nic);
  to.sll_halen = 6;
  std::memcpy(to.sll_addr, frame.data(), 6);
  std::memcpy(&to.sll_protocol, frame.data() + 12, 2);
  return sendto(fd, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                sizeof to) >= 0;
}

}  // namespace saru::nft
