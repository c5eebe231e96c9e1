// SPDX-License-Identifier: GPL-2.0-or-later
// Answers UDP probes from the address that was asked, whichever addresses the node has just now.
#include <poll.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "probe_common.h"

namespace probe {
namespace {

constexpr unsigned kBatch = 64;
constexpr std::size_t kEchoed = 16;
constexpr std::size_t kPacketMax = 128;

class Responder {
 public:
  Responder(int family, const ServeOptions& options) : family_(family), name_(options.name) {}

  Result<void> open(std::uint16_t port) {
    const bool v6 = family_ == AF_INET6;
    fd_ = Fd(socket(family_, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const Endpoint local = wildcard(family_, port);
    const bool prepared = fd_.valid() && (v6 ? enable(fd_.get(), IPPROTO_IPV6, IPV6_V6ONLY) &&
                                                   enable(fd_.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO)
                                             : enable(fd_.get(), IPPROTO_IP, IP_PKTINFO));
    if (!prepared || bind(fd_.get(), local.get(), local.length) != 0) {
      return tl::unexpected(errno_text("cannot answer on UDP port " + std::to_string(port)));
    }
    // No other means keeps a burst that comes while this process does not run.
    enable(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
    for (unsigned i = 0; i < kBatch; ++i) {
      parts_[i] = {packets_[i].data(), kPacketMax};
      msghdr& header = messages_[i].msg_hdr;
      header.msg_iov = &parts_[i];
      header.msg_iovlen = 1;
      header.msg_name = &peers_[i];
      header.msg_control = controls_[i].data();
    }
    return {};
  }

  int fd() const { return fd_.get(); }

  void answer_all() {
    for (int got = kBatch; got == static_cast<int>(kBatch);) {
      for (unsigned i = 0; i < kBatch; ++i) {
        parts_[i].iov_len = kPacketMax;
        messages_[i].msg_hdr.msg_namelen = sizeof peers_[i];
        messages_[i].msg_hdr.msg_controllen = controls_[i].size();
      }
      got = recvmmsg(fd_.get(), messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
      if (got <= 0) return;
      for (int i = 0; i < got; ++i) prepare(static_cast<unsigned>(i));
      send_batch(static_cast<unsigned>(got));
    }
  }

 private:
  // The received packet information becomes that of the answer: its source is the address that
  // was asked; the way back is the routing table's choice.
  void prepare(unsigned i) {
    msghdr& header = messages_[i].msg_hdr;
    for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
         control = CMSG_NXTHDR(&header, control)) {
      if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
        auto* info = reinterpret_cast<in_pktinfo*>(CMSG_DATA(control));
        info->ipi_spec_dst = info->ipi_addr;
        info->ipi_ifindex = 0;
      } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
        auto* info = reinterpret_cast<in6_pktinfo*>(CMSG_DATA(control));
        if (!IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr)) info->ipi6_ifindex = 0;
      }
    }
    std::size_t length = std::min<std::size_t>(messages_[i].msg_len, kEchoed);
    std::memcpy(packets_[i].data() + length, name_.data(), name_.size());
    parts_[i].iov_len = length + name_.size();
  }

  void send_batch(unsigned count) {
    for (unsigned done = 0; done < count;) {
      const int sent = sendmmsg(fd_.get(), &messages_[done], count - done, 0);
      // One that cannot be sent (no route, no buffer) must not hold up the others.
      done += sent > 0 ? static_cast<unsigned>(sent) : 1;
    }
  }

  int family_;
  std::string name_;
  Fd fd_;
  std::array<std::array<char, kPacketMax>, kBatch> packets_{};
  std::array<sockaddr_storage, kBatch> peers_{};
  std::array<std::array<char, 64>, kBatch> controls_{};
  std::array<iovec, kBatch> parts_{};
  std::array<mmsghdr, kBatch> messages_{};
};

}  // namespace

int respond(const ServeOptions& options) {
  catch_signals();
  if (options.name.size() > 64) {
    std::cerr << "saru-probe: --name is longer than 64 characters\n";
    return kExitUsage;
  }
  Responder v4(AF_INET, options);
  Responder v6(AF_INET6, options);
  for (Responder* responder : {&v4, &v6}) {
    if (auto opened = responder->open(options.port); !opened) {
      std::cerr << "saru-probe: " << opened.error() << "\n";
      return kExitUsage;
    }
  }
  if (auto taken = take_priority(options.priority); !taken) {
    std::cerr << "saru-probe: " << taken.error() << "\n";
    return kExitUsage;
  }
  const std::uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
  const auto length_ns = static_cast<std::uint64_t>(options.seconds * 1e9);
  pollfd waits[] = {{v4.fd(), POLLIN, 0}, {v6.fd(), POLLIN, 0}};
  while (!stop_requested()) {
    if (length_ns != 0 && now_ns(CLOCK_MONOTONIC) - start_ns >= length_ns) break;
    if (poll(waits, 2, 200) <= 0) continue;
    v4.answer_all();
    v6.answer_all();
  }
  return 0;
}

}  // namespace probe
