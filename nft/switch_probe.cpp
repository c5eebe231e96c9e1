// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/switch_probe.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

#include "nft/claim.h"
#include "nft/packet_socket.h"
#include "nft/questions.h"

namespace saru::nft {
namespace {

using Clock = std::chrono::steady_clock;
using Filter = std::vector<sock_filter>;

constexpr int kTries = 3;
// Switches that inspect ARP may shut a port that sends more than 15 in a second.
constexpr std::size_t kMostNeighbours = 4;

std::uint32_t high_of(const MacAddress& mac) {
  return static_cast<std::uint32_t>(mac.bytes[0]) << 24 | mac.bytes[1] << 16 | mac.bytes[2] << 8 |
         mac.bytes[3];
}
std::uint32_t low_of(const MacAddress& mac) {
  return static_cast<std::uint32_t>(mac.bytes[4]) << 8 | mac.bytes[5];
}

sock_filter load(std::uint16_t size, std::uint32_t at) {
  return {static_cast<std::uint16_t>(BPF_LD | size | BPF_ABS), 0, 0, at};
}
sock_filter jump_if(std::uint32_t value, std::uint8_t yes, std::uint8_t no) {
  return {BPF_JMP | BPF_JEQ | BPF_K, yes, no, value};
}
sock_filter end_with(std::uint32_t bytes) { return {BPF_RET | BPF_K, 0, 0, bytes}; }

constexpr std::uint32_t kAll = 0xffff;

// Answers, and whatever comes from the shared MAC.
Filter answers_filter(const MacAddress& shared) {
  return {load(BPF_H, 12),
          jump_if(ETHERTYPE_ARP, 8, 0),
          jump_if(ETHERTYPE_IPV6, 0, 2),
          load(BPF_B, 54),  // the type, where the message follows the header at once
          jump_if(ND_NEIGHBOR_ADVERT, 5, 0),
          load(BPF_W, 6),
          jump_if(high_of(shared), 0, 2),
          load(BPF_H, 10),
          jump_if(low_of(shared), 1, 0),
          end_with(0),
          end_with(kAll)};
}

// What clients send: it may be much, and must not displace answers.
Filter traffic_filter(const MacAddress& shared) {
  return {load(BPF_W, 0),
          jump_if(high_of(shared), 0, 5),
          load(BPF_H, 4),
          jump_if(low_of(shared), 0, 3),
          load(BPF_H, 12),
          jump_if(ETHERTYPE_IP, 2, 0),
          jump_if(ETHERTYPE_IPV6, 1, 0),
          end_with(0),
          end_with(kAll)};
}

// Receives what the filter lets through of all that comes in; -1: not to be had.
int open_with(unsigned nic, Filter filter) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  sockaddr_ll from{};
  from.sll_family = AF_PACKET;
  from.sll_protocol = htons(ETH_P_ALL);
  from.sll_ifindex = static_cast<int>(nic);
  const sock_fprog program{static_cast<std::uint16_t>(filter.size()), filter.data()};
  if (fd < 0 || (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0 &&
                 bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from) == 0)) {
    return fd;
  }
  close(fd);
  return -1;
}

// One frame that came in from outside; empty: there is none.
std::span<const std::uint8_t> receive(int fd, std::span<std::uint8_t> buffer) {
  for (;;) {
    sockaddr_ll from{};
    socklen_t size = sizeof from;
    const ssize_t got = recvfrom(fd, buffer.data(), buffer.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&from), &size);
    if (got < ETH_HLEN) return {};
    if (from.sll_pkttype != PACKET_OUTGOING) return buffer.first(static_cast<std::size_t>(got));
  }
}

class Asking {
 public:
  Asking(const SwitchQuestion& question, std::size_t expected)
      : question_(question),
        expected_(expected),
        answers_socket_(open_with(question.nic, answers_filter(question.shared_mac))),
        traffic_socket_(open_with(question.nic, traffic_filter(question.shared_mac))) {
    answers_.asked_unknown = question.address.is_v4();
    nobody_.bytes = {0x02, 0x5a, 0x72, 0xff, 0, 0};
    for (std::size_t at : {4U, 5U}) {
      nobody_.bytes[at] = static_cast<std::uint8_t>(Clock::now().time_since_epoch().count() >> at);
    }
    // Its frames shall come in through the NIC's filter. Where that fails, the NIC lets all in.
    packet_mreq wanted{};
    wanted.mr_ifindex = static_cast<int>(question.nic);
    wanted.mr_type = PACKET_MR_UNICAST;
    wanted.mr_alen = 6;
    std::copy(nobody_.bytes.begin(), nobody_.bytes.end(), wanted.mr_address);
    (void)setsockopt(answers_socket_.fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &wanted, sizeof wanted);
  }

  bool open() const { return answers_socket_.fd >= 0 && traffic_socket_.fd >= 0; }

  // First to the shared MAC: an answer that is late then counts as one to the broadcast, which
  // says less.
  Result<SwitchAnswers> ask(std::chrono::milliseconds patience) {
    const auto end = Clock::now() + patience;
    const auto complete = [this](const std::set<MacAddress>& macs) {
      return macs.size() >= expected_;
    };
    const auto share = patience / kTries;
    for (int attempt = 0; attempt < kTries && !complete(answers_.flooded); ++attempt) {
      if (!send(to_shared())) return cannot_send();
      listen(answers_.flooded, Clock::now() + share, [&] { return complete(answers_.flooded); });
    }
    const auto all_heard = [&] {
      return complete(answers_.broadcast) &&
             (!answers_.asked_unknown || complete(answers_.unknown));
    };
    for (int attempt = 0; attempt < kTries && !all_heard(); ++attempt) {
      if (!send(to_all())) return cannot_send();
      if (answers_.asked_unknown && !send(to_nobody())) return cannot_send();
      listen(answers_.broadcast, Clock::now() + share, all_heard);
    }
    const auto all_inward = [&] { return answers_.inward.size() >= answers_.asked_inward.size(); };
    for (int attempt = 0; attempt < kTries && (attempt == 0 || !all_inward()); ++attempt) {
      if (!ask_inward()) return cannot_send();
      listen(answers_.broadcast, Clock::now() + share, all_inward);
    }
    listen(answers_.broadcast, end, [] { return false; });
    return answers_;
  }

 private:
  Frame to_shared() const {
    const SwitchQuestion& q = question_;
    return q.address.is_v4() ? arp_probe(q.shared_mac, q.own_mac, q.own_mac, q.address)
                             : solicitation(q.shared_mac, q.own_mac, q.address);
  }
  Frame to_all() const {
    const SwitchQuestion& q = question_;
    return q.address.is_v4() ? arp_probe(kBroadcast, q.own_mac, q.own_mac, q.address)
                             : solicitation(solicited_group(q.address), q.own_mac, q.address);
  }
  Frame to_nobody() const {
    const SwitchQuestion& q = question_;
    return arp_probe(kBroadcast, q.own_mac, nobody_, q.address);
  }

  // Those that have answered something, for the address that is known to be theirs.
  bool ask_inward() {
    for (const auto& [mac, ip] : question_.neighbours) {
      const bool answers = answers_.broadcast.count(mac) != 0 || answers_.flooded.count(mac) != 0;
      if (!answers || answers_.inward.count(mac) != 0) continue;
      const bool known = answers_.asked_inward.count(mac) != 0;
      if (!known && answers_.asked_inward.size() >= kMostNeighbours) continue;
      answers_.asked_inward.insert(mac);
      if (!send(arp_probe(kBroadcast, question_.own_mac, question_.shared_mac, ip))) return false;
    }
    return true;
  }

  bool send(const Frame& frame) const {
    return send_frame(answers_socket_.fd, question_.nic, frame);
  }

  static tl::unexpected<Error> cannot_send() {
    return fail(ErrorKind::kFailed, std::string("cannot send: ") + std::strerror(errno));
  }

  // Notes who answers, until `enough`, or that is over. Answers to this node go to `to_own`.
  void listen(std::set<MacAddress>& to_own, Clock::time_point until,
              const std::function<bool()>& enough) {
    std::array<pollfd, 2> sockets{
        {{answers_socket_.fd, POLLIN, 0}, {traffic_socket_.fd, POLLIN, 0}}};
    while (!enough()) {
      if (answers_.heard_to_shared) sockets[1].fd = -1;
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return;
      if (poll(sockets.data(), sockets.size(), static_cast<int>(left)) < 0) return;
      while (Clock::now() < until) {
        const auto frame = receive(answers_socket_.fd, buffer_);
        if (frame.empty()) break;
        note(frame, to_own);
      }
      if (!answers_.heard_to_shared) {
        answers_.heard_to_shared = !receive(traffic_socket_.fd, buffer_).empty();
      }
    }
  }

  void note(std::span<const std::uint8_t> frame, std::set<MacAddress>& to_own) {
    MacAddress to;
    MacAddress from;
    std::copy_n(frame.begin(), 6, to.bytes.begin());
    std::copy_n(frame.begin() + 6, 6, from.bytes.begin());
    if (from == question_.shared_mac) {
      answers_.types_from_shared.insert(static_cast<std::uint16_t>(frame[12] << 8 | frame[13]));
      return;
    }
    const auto content = read_content(frame);
    if (!content || from == question_.own_mac) return;
    const bool v4 = content->ip.is_v4();
    if (v4 && frame[21] == ARPOP_REQUEST && content->mac != from) return;
    if (content->ip != question_.address) {
      const auto asked = question_.neighbours.find(from);
      if (to == question_.shared_mac && asked != question_.neighbours.end() &&
          asked->second == content->ip) {
        answers_.inward.insert(from);
      }
      return;
    }
    if (content->mac == from) {
      answers_.claimants.insert(from);
      return;
    }
    if (content->mac != question_.shared_mac) return;
    // To all: an advertisement is an answer, a gratuitous ARP of sarud's is none.
    if (to == question_.own_mac || (to.is_multicast() && !v4)) to_own.insert(from);
    if (to == nobody_) answers_.unknown.insert(from);
  }

  SwitchQuestion question_;
  std::size_t expected_;
  MacAddress nobody_;  // a MAC that no machine has
  PacketSocket answers_socket_;
  PacketSocket traffic_socket_;
  SwitchAnswers answers_;
  std::array<std::uint8_t, 2048> buffer_{};
};

}  // namespace

Result<SwitchAnswers> probe_switch(const SwitchQuestion& question, std::size_t expected,
                                   std::chrono::milliseconds patience) {
  Asking asking(question, expected);
  if (asking.open()) return asking.ask(patience);
  return fail(errno == EPERM ? ErrorKind::kNotPermitted : ErrorKind::kFailed,
              std::string("cannot ask the LAN: ") + std::strerror(errno));
}

}  // namespace saru::nft
