// SPDX-License-Identifier: GPL-2.0-or-later
// Steady probes: UDP from one source port per block, or echo requests.
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "probe_common.h"

namespace probe {
namespace {

constexpr std::uint64_t kTickNs = 250'000;
constexpr std::uint64_t kDrainNs = 40'000'000;
// Falling behind further than this, the probes that were due are left out and counted, instead of
// being sent in a burst that no longer probes the time it stands for.
constexpr std::uint64_t kBehindNs = 20'000'000;
constexpr unsigned kReceiveBatch = 64;
constexpr std::size_t kPayload = 16;  // serial and time sent, both big-endian

void put_u64(std::uint8_t* at, std::uint64_t value) {
  for (int i = 7; i >= 0; --i) {
    at[i] = static_cast<std::uint8_t>(value);
    value >>= 8;
  }
}

struct Channel {
  Fd fd;
  Endpoint target;
  std::uint32_t block = 0;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t last_send_ns = 0;
  std::uint64_t interval_max_ns = 0;
};

class Sender {
 public:
  explicit Sender(const SendOptions& options) : options_(options) {}
  Result<void> open();
  void run();
  nlohmann::ordered_json result() const;

 private:
  Result<void> open_udp(const std::string& address);
  Result<void> open_echo(const std::string& address);
  void send_one(Channel& channel);
  void drain(Channel& channel);
  std::size_t build(const Channel& channel, std::array<std::uint8_t, 32>& packet);

  const SendOptions& options_;
  std::vector<Channel> channels_;
  std::uint64_t serial_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t send_errors_ = 0;
  std::uint64_t skipped_ = 0;
  std::uint64_t start_ns_ = 0;
  std::uint64_t elapsed_ns_ = 0;
  std::map<std::string, std::uint64_t> answers_;
  std::string first_error_;
};

Result<void> Sender::open_udp(const std::string& address) {
  auto blocks = parse_blocks(options_.blocks_text, options_.blocks);
  if (!blocks) return tl::unexpected(blocks.error());
  auto target = endpoint(address, options_.port);
  if (!target) return tl::unexpected(target.error());
  const std::uint32_t size = 65536 / options_.blocks;
  for (const std::uint32_t block : *blocks) {
    Channel channel;
    channel.block = block;
    channel.target = *target;
    channel.fd = Fd(socket(target->family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto port =
        static_cast<std::uint16_t>(std::max(1U, block * size + options_.offset % size));
    Endpoint local = wildcard(target->family(), port);
    if (!options_.source.empty()) {
      auto source = endpoint(options_.source, port);
      if (!source) return tl::unexpected(source.error());
      if (source->family() == target->family()) local = *source;
    }
    if (target->family() == AF_INET6) enable(channel.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY);
    if (!channel.fd.valid() || bind(channel.fd.get(), local.get(), local.length) != 0) {
      return tl::unexpected(errno_text("cannot use source port " + std::to_string(port)));
    }
    if (connect(channel.fd.get(), target->get(), target->length) != 0) {
      return tl::unexpected(errno_text("no way to " + address));
    }
    enable(channel.fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20);
    channels_.push_back(std::move(channel));
  }
  return {};
}

Result<void> Sender::open_echo(const std::string& address) {
  auto target = endpoint(address, 0);
  if (!target) return tl::unexpected(target.error());
  const bool v6 = target->family() == AF_INET6;
  Channel channel;
  channel.target = *target;
  channel.fd = Fd(socket(target->family(), SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                         v6 ? int{IPPROTO_ICMPV6} : int{IPPROTO_ICMP}));
  if (!channel.fd.valid()) return tl::unexpected(errno_text("cannot open a raw ICMP socket"));
  if (v6) {
    icmp6_filter filter;
    ICMP6_FILTER_SETBLOCKALL(&filter);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
    setsockopt(channel.fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter);
  } else {
    const std::uint32_t all_but_reply = ~(1U << ICMP_ECHOREPLY);
    setsockopt(channel.fd.get(), SOL_RAW, 1 /* ICMP_FILTER */, &all_but_reply,
               sizeof all_but_reply);
  }
  if (connect(channel.fd.get(), target->get(), target->length) != 0) {
    return tl::unexpected(errno_text("no way to " + address));
  }
  channels_.push_back(std::move(channel));
  return {};
}

Result<void> Sender::open() {
  for (const std::string& address : options_.addresses) {
    auto opened = options_.echo ? open_echo(address) : open_udp(address);
    if (!opened) return opened;
  }
  // Ids of this run differ from those of an earlier one on the same ports.
  serial_ = now_ns(CLOCK_REALTIME);
  return {};
}

std::size_t Sender::build(const Channel& channel, std::array<std::uint8_t, 32>& packet) {
  const std::uint64_t now = now_ns(CLOCK_REALTIME);
  ++serial_;
  if (!options_.echo) {
    put_u64(packet.data(), serial_);
    put_u64(packet.data() + 8, now);
    return kPayload;
  }
  const bool v6 = channel.target.family() == AF_INET6;
  const auto id = static_cast<std::uint16_t>(getpid());
  const auto sequence = static_cast<std::uint16_t>(channel.sent);
  packet.fill(0);
  packet[0] = v6 ? 128 : 8;
  packet[4] = static_cast<std::uint8_t>(id >> 8);
  packet[5] = static_cast<std::uint8_t>(id);
  packet[6] = static_cast<std::uint8_t>(sequence >> 8);
  packet[7] = static_cast<std::uint8_t>(sequence);
  put_u64(packet.data() + 8, serial_);
  put_u64(packet.data() + 16, now);
  if (v6) return 24;  // the kernel fills in the checksum of ICMPv6
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < 24; i += 2)
    sum += static_cast<std::uint32_t>(packet[i] << 8 | packet[i + 1]);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  packet[2] = static_cast<std::uint8_t>(~sum >> 8);
  packet[3] = static_cast<std::uint8_t>(~sum);
  return 24;
}

void Sender::send_one(Channel& channel) {
  std::array<std::uint8_t, 32> packet{};
  const std::size_t length = build(channel, packet);
  const std::uint64_t now = now_ns(CLOCK_MONOTONIC);
  if (channel.last_send_ns != 0) {
    channel.interval_max_ns = std::max(channel.interval_max_ns, now - channel.last_send_ns);
  }
  channel.last_send_ns = now;
  ssize_t done = send(channel.fd.get(), packet.data(), length, 0);
  // A connected socket first hands out the error that an earlier ICMP message left behind.
  if (done < 0 && errno == ECONNREFUSED) done = send(channel.fd.get(), packet.data(), length, 0);
  if (done == static_cast<ssize_t>(length)) {
    ++channel.sent;
    ++sent_;
    return;
  }
  ++send_errors_;
  if (first_error_.empty()) first_error_ = std::strerror(errno);
}

void Sender::drain(Channel& channel) {
  std::array<std::array<char, 128>, kReceiveBatch> buffers;
  std::array<iovec, kReceiveBatch> parts{};
  std::array<mmsghdr, kReceiveBatch> messages{};
  const std::size_t header = options_.echo ? 0 : kPayload;
  for (unsigned i = 0; i < kReceiveBatch; ++i) {
    parts[i] = {buffers[i].data(), buffers[i].size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  for (int got = kReceiveBatch; got == static_cast<int>(kReceiveBatch);) {
    got = recvmmsg(channel.fd.get(), messages.data(), kReceiveBatch, MSG_DONTWAIT, nullptr);
    if (got <= 0) return;
    channel.received += static_cast<std::uint64_t>(got);
    if (options_.echo) continue;
    for (int i = 0; i < got; ++i) {
      const auto index = static_cast<std::size_t>(i);
      if (messages[index].msg_len <= header) continue;
      ++answers_[std::string(buffers[index].data() + header, messages[index].msg_len - header)];
    }
  }
}

void Sender::run() {
  start_ns_ = now_ns(CLOCK_MONOTONIC);
  const auto length_ns = static_cast<std::uint64_t>(options_.seconds * 1e9);
  const double per_ns = static_cast<double>(options_.rate * channels_.size()) / 1e9;
  const auto behind = static_cast<std::uint64_t>(per_ns * kBehindNs) + 1;
  std::uint64_t due_done = 0;
  std::size_t next = 0;
  std::size_t next_drain = 0;
  std::uint64_t drained_ns = start_ns_;
  std::uint64_t tick = start_ns_;
  while (!stop_requested()) {
    const std::uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (now - start_ns_ >= length_ns) break;
    const auto due = static_cast<std::uint64_t>(static_cast<double>(now - start_ns_) * per_ns);
    if (due - due_done > behind) {
      skipped_ += due - due_done - behind;
      due_done = due - behind;
    }
    for (; due_done < due; ++due_done) {
      send_one(channels_[next]);
      next = (next + 1) % channels_.size();
    }
    // Reading the answers of a few channels per tick spreads that work too.
    const std::uint64_t share = kDrainNs / channels_.size();
    while (now - drained_ns >= share) {
      drain(channels_[next_drain]);
      next_drain = (next_drain + 1) % channels_.size();
      drained_ns += share;
    }
    tick = std::max(tick + kTickNs, now);
    const timespec until{static_cast<time_t>(tick / 1'000'000'000),
                         static_cast<long>(tick % 1'000'000'000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
  }
  elapsed_ns_ = now_ns(CLOCK_MONOTONIC) - start_ns_;
  usleep(100'000);  // answers under way
  for (Channel& channel : channels_) drain(channel);
}

nlohmann::ordered_json Sender::result() const {
  std::uint64_t received = 0;
  std::uint64_t interval_max = 0;
  for (const Channel& channel : channels_) {
    received += channel.received;
    interval_max = std::max(interval_max, channel.interval_max_ns);
  }
  const double seconds = static_cast<double>(elapsed_ns_) / 1e9;
  nlohmann::ordered_json json;
  json["protocol"] = options_.echo ? "echo" : "udp";
  json["seconds"] = seconds;
  json["channels"] = channels_.size();
  json["rate_wanted"] = options_.rate * channels_.size();
  json["rate_achieved"] = seconds > 0 ? static_cast<double>(sent_) / seconds : 0;
  json["sent"] = sent_;
  json["skipped"] = skipped_;
  json["send_errors"] = send_errors_;
  if (!first_error_.empty()) json["first_error"] = first_error_;
  json["received"] = received;
  json["answers"] = answers_;
  json["cpu_s"] = static_cast<double>(now_ns(CLOCK_PROCESS_CPUTIME_ID)) / 1e9;
  json["send_interval_max_ms"] = static_cast<double>(interval_max) / 1e6;
  return json;
}

}  // namespace

int send_probes(const SendOptions& options) {
  catch_signals();
  Sender sender(options);
  if (auto opened = sender.open(); !opened) {
    std::cerr << "saru-probe: " << opened.error() << "\n";
    return kExitUsage;
  }
  if (auto taken = take_priority(options.priority); !taken) {
    std::cerr << "saru-probe: " << taken.error() << "\n";
    return kExitUsage;
  }
  sender.run();
  std::cout << sender.result().dump() << std::endl;
  return 0;
}

}  // namespace probe
