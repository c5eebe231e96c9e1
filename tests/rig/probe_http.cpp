// SPDX-License-Identifier: GPL-2.0-or-later
// HTTP load: fresh connections at a steady rate, each from another source port, so that all blocks
// get their even share. Every request is judged: which node's page came, how long it took.
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unordered_map>

#include "probe_common.h"

namespace probe {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kAnswerMax = 16384;
constexpr std::size_t kFailuresListed = 100;
constexpr std::uint64_t kBehindNs = 200'000'000;

struct Request {
  Fd fd;
  const Endpoint* target = nullptr;
  std::uint16_t source_port = 0;
  std::uint64_t start_ns = 0;  // CLOCK_MONOTONIC
  std::uint64_t start_realtime_ns = 0;
  std::uint64_t body_ns = 0;  // the page was complete
  std::uint32_t syn_retransmits = 0;
  bool connected = false;
  std::string answer;
};

class Load {
 public:
  explicit Load(const HttpOptions& options) : options_(options) {}
  Result<void> open();
  void run();
  Json result() const;
  bool failed() const { return failed_ != 0; }

 private:
  void start_one();
  bool start_from(std::uint16_t port, const Endpoint& target);
  std::uint16_t next_port();
  void handle(int fd, std::uint32_t events);
  void connected(Request& request);
  void read_some(Request& request);
  std::optional<std::string> page(const Request& request) const;
  void end(Request& request, const std::string& result);
  void end_by_answer(Request& request, const std::string& otherwise);
  void end_overdue(std::uint64_t now);
  void write_log(const Request& request, std::uint64_t end_ns, const std::string& node,
                 const std::string& result);

  const HttpOptions& options_;
  std::vector<Endpoint> targets_;
  std::vector<std::uint32_t> blocks_;
  Fd epoll_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> log_{nullptr, &std::fclose};
  std::unordered_map<int, Request> open_;
  std::deque<std::pair<std::uint64_t, int>> deadlines_;  // start_ns and fd, oldest first
  std::uint64_t port_turn_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t skipped_ports_ = 0;
  std::uint64_t skipped_starts_ = 0;
  std::uint64_t syn_retransmits_ = 0;
  std::uint64_t requests_with_syn_retransmits_ = 0;
  std::uint64_t elapsed_ns_ = 0;
  std::map<std::string, std::uint64_t> by_node_;
  std::map<std::string, std::uint64_t> by_result_;
  std::vector<std::uint64_t> latencies_;
  Json failures_ = Json::array();
};

Result<void> Load::open() {
  for (const std::string& address : options_.addresses) {
    auto target = endpoint(address, options_.port);
    if (!target) return tl::unexpected(target.error());
    targets_.push_back(*target);
  }
  auto blocks = parse_blocks(options_.blocks_text, options_.blocks);
  if (!blocks) return tl::unexpected(blocks.error());
  blocks_ = std::move(*blocks);
  epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return tl::unexpected(errno_text("epoll"));
  if (options_.log.empty()) return {};
  log_.reset(std::fopen(options_.log.c_str(), "we"));
  if (!log_) return tl::unexpected(errno_text("cannot write " + options_.log));
  return {};
}

// Goes round the blocks and takes another port of each block in every round. Neighbours in time are
// far apart in the range, so that a short disturbance is not seen by one node's blocks alone.
std::uint16_t Load::next_port() {
  const std::uint64_t count = blocks_.size();
  const std::uint64_t round = port_turn_ / count;
  std::uint64_t stride = count * 5 / 8 | 1;
  while (std::gcd(stride, count) != 1) stride += 2;
  const std::uint64_t block = blocks_[port_turn_ % count * stride % count];
  ++port_turn_;
  const std::uint64_t size = 65536 / options_.blocks;
  const std::uint64_t port = block * size + round % size;
  return static_cast<std::uint16_t>(port);
}

bool Load::start_from(std::uint16_t port, const Endpoint& target) {
  Request request;
  request.target = &target;
  request.source_port = port;
  request.fd = Fd(socket(target.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int fd = request.fd.get();
  if (fd < 0) return false;
  enable(fd, SOL_SOCKET, SO_REUSEADDR);
  if (target.family() == AF_INET6) enable(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  Endpoint local = wildcard(target.family(), port);
  if (!options_.source.empty()) {
    const auto source = endpoint(options_.source, port);
    if (source && source->family() == target.family()) local = *source;
  }
  if (bind(fd, local.get(), local.length) != 0) return false;
  request.start_realtime_ns = now_ns(CLOCK_REALTIME);
  request.start_ns = now_ns(CLOCK_MONOTONIC);
  const bool begun = connect(fd, target.get(), target.length) == 0 || errno == EINPROGRESS;
  if (!begun && (errno == EADDRNOTAVAIL || errno == EADDRINUSE)) return false;
  ++requests_;
  if (!begun) {
    end(request, std::string("cannot connect: ") + std::strerror(errno));
    return true;
  }
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    end(request, "epoll failed");
    return true;
  }
  deadlines_.emplace_back(request.start_ns, fd);
  open_[fd] = std::move(request);
  return true;
}

void Load::start_one() {
  const Endpoint& target = targets_[requests_ % targets_.size()];
  for (int tries = 0; tries < 64; ++tries) {
    const std::uint16_t port = next_port();
    if (port != 0 && start_from(port, target)) return;
    if (port != 0) ++skipped_ports_;  // in use by another program or an earlier connection
  }
}

void Load::connected(Request& request) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(request.fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    end(request, error == ECONNREFUSED ? "refused"
                 : error == ECONNRESET ? "reset while connecting"
                                       : std::string("cannot connect: ") + std::strerror(error));
    return;
  }
  tcp_info info{};
  length = sizeof info;
  if (getsockopt(request.fd.get(), IPPROTO_TCP, TCP_INFO, &info, &length) == 0) {
    request.syn_retransmits = info.tcpi_total_retrans;  // nothing but the SYN was sent so far
  }
  request.connected = true;
  static const std::string get = "GET / HTTP/1.1\r\nHost: shared\r\nConnection: close\r\n\r\n";
  if (send(request.fd.get(), get.data(), get.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(get.size())) {
    end(request, errno == ECONNRESET || errno == EPIPE ? "reset" : "cannot send");
    return;
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = request.fd.get();
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, request.fd.get(), &event);
}

// The page, once it is complete by its own Content-Length.
std::optional<std::string> Load::page(const Request& request) const {
  const auto blank = request.answer.find("\r\n\r\n");
  const auto field = request.answer.find("Content-Length: ");
  if (blank == std::string::npos || field == std::string::npos || field > blank) return {};
  const auto length =
      static_cast<std::size_t>(std::strtoul(request.answer.c_str() + field + 16, nullptr, 10));
  if (request.answer.size() < blank + 4 + length) return {};
  return request.answer.substr(blank + 4, length);
}

void Load::end_by_answer(Request& request, const std::string& otherwise) {
  const auto body = page(request);
  if (!body) {
    end(request, otherwise);
    return;
  }
  const std::string name = body->substr(0, body->find('\n'));
  const auto& expected = options_.expected_names;
  const bool known =
      expected.empty() || std::find(expected.begin(), expected.end(), name) != expected.end();
  const bool good = known && !name.empty() && name.size() <= 64 && *body == name + "\n" &&
                    request.answer.rfind("HTTP/1.1 200 ", 0) == 0;
  end(request, good ? "ok" : "wrong body");
}

void Load::read_some(Request& request) {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = recv(request.fd.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) {
      end_by_answer(request, errno == ECONNRESET ? "reset" : std::strerror(errno));
      return;
    }
    if (got == 0) {
      end_by_answer(request, "closed before the page was complete");
      return;
    }
    request.answer.append(buffer.data(), static_cast<std::size_t>(got));
    if (request.answer.size() > kAnswerMax) {
      end(request, "wrong body");
      return;
    }
    if (request.body_ns == 0 && page(request)) request.body_ns = now_ns(CLOCK_MONOTONIC);
  }
}

void Load::handle(int fd, std::uint32_t events) {
  const auto place = open_.find(fd);
  if (place == open_.end()) return;
  if (!place->second.connected) {
    connected(place->second);
  } else if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    read_some(place->second);
  }
  if (!place->second.fd.valid()) open_.erase(place);
}

// Counts the request and closes it; the caller removes it from open_.
void Load::end(Request& request, const std::string& result) {
  const std::uint64_t now = now_ns(CLOCK_MONOTONIC);
  const std::uint64_t end_ns = request.body_ns != 0 ? request.body_ns : now;
  std::string node;
  ++by_result_[result];
  syn_retransmits_ += request.syn_retransmits;
  if (request.syn_retransmits != 0) ++requests_with_syn_retransmits_;
  if (result == "ok") {
    const auto body = page(request);
    node = body->substr(0, body->size() - 1);
    ++by_node_[node];
    latencies_.push_back(end_ns - request.start_ns);
  } else {
    ++failed_;
    if (failures_.size() < kFailuresListed) {
      failures_.push_back({{"start_ns", request.start_realtime_ns},
                           {"end_ns", request.start_realtime_ns + (end_ns - request.start_ns)},
                           {"address_family", request.target->family() == AF_INET6 ? 6 : 4},
                           {"source_port", request.source_port},
                           {"block", request.source_port / (65536 / options_.blocks)},
                           {"result", result}});
    }
  }
  write_log(request, end_ns, node, result);
  request.fd = Fd();
}

void Load::write_log(const Request& request, std::uint64_t end_ns, const std::string& node,
                     const std::string& result) {
  if (!log_) return;
  const std::uint64_t length = end_ns - request.start_ns;
  std::fprintf(log_.get(),
               "{\"start_ns\":%llu,\"end_ns\":%llu,\"start_monotonic_ns\":%llu,"
               "\"address_family\":%d,\"source_port\":%u,\"block\":%u,\"node\":\"%s\","
               "\"result\":\"%s\",\"syn_retransmits\":%u}\n",
               static_cast<unsigned long long>(request.start_realtime_ns),
               static_cast<unsigned long long>(request.start_realtime_ns) + length,
               static_cast<unsigned long long>(request.start_ns),
               request.target->family() == AF_INET6 ? 6 : 4, request.source_port,
               request.source_port / (65536U / options_.blocks), node.c_str(), result.c_str(),
               request.syn_retransmits);
}

void Load::end_overdue(std::uint64_t now) {
  const auto limit_ns = static_cast<std::uint64_t>(options_.timeout_s * 1e9);
  while (!deadlines_.empty() && deadlines_.front().first + limit_ns <= now) {
    const auto [start_ns, fd] = deadlines_.front();
    deadlines_.pop_front();
    const auto place = open_.find(fd);
    // The number may belong to a younger connection by now.
    if (place == open_.end() || place->second.start_ns != start_ns) continue;
    end_by_answer(place->second,
                  place->second.connected ? "timeout, no page" : "timeout, not connected");
    open_.erase(place);
  }
}

void Load::run() {
  const std::uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
  const auto length_ns = static_cast<std::uint64_t>(options_.seconds * 1e9);
  const double per_ns = options_.rate / 1e9;
  const auto behind = static_cast<std::uint64_t>(per_ns * kBehindNs) + 1;
  std::uint64_t started = 0;
  std::array<epoll_event, 256> events{};
  for (;;) {
    std::uint64_t now = now_ns(CLOCK_MONOTONIC);
    const bool opening = now - start_ns < length_ns && !stop_requested();
    if (opening) {
      const auto due = static_cast<std::uint64_t>(static_cast<double>(now - start_ns) * per_ns);
      if (due > started + behind) {
        skipped_starts_ += due - started - behind;
        started = due - behind;
      }
      for (; started < due; ++started) start_one();
      elapsed_ns_ = now - start_ns;
    } else if (open_.empty()) {
      break;
    }
    const int got = epoll_wait(epoll_.get(), events.data(), events.size(), opening ? 1 : 20);
    for (int i = 0; i < got; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      handle(event.data.fd, event.events);
    }
    now = now_ns(CLOCK_MONOTONIC);
    end_overdue(now);
    if (log_) std::fflush(log_.get());
  }
}

Json Load::result() const {
  auto sorted = latencies_;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = [&](std::size_t percent) {
    if (sorted.empty()) return Json(nullptr);
    return Json(static_cast<double>(sorted[(sorted.size() * percent + 99) / 100 - 1]) / 1e6);
  };
  const double seconds = static_cast<double>(elapsed_ns_) / 1e9;
  Json json;
  json["requests"] = requests_;
  json["failed"] = failed_;
  json["by_node"] = by_node_;
  json["by_result"] = by_result_;
  json["latency_ms"] = {{"p50", rank(50)}, {"p99", rank(99)}, {"max", rank(100)}};
  json["syn_retransmits"] = syn_retransmits_;
  json["requests_with_syn_retransmits"] = requests_with_syn_retransmits_;
  json["rate_wanted"] = options_.rate;
  json["rate_achieved"] = seconds > 0 ? static_cast<double>(requests_) / seconds : 0;
  json["skipped_starts"] = skipped_starts_;
  json["skipped_ports"] = skipped_ports_;
  json["failures"] = failures_;
  return json;
}

}  // namespace

int load_http(const HttpOptions& options) {
  catch_signals();
  Load load(options);
  if (auto opened = load.open(); !opened) {
    std::cerr << "saru-probe: " << opened.error() << "\n";
    return kExitUsage;
  }
  load.run();
  std::cout << load.result().dump() << std::endl;
  return load.failed() ? 1 : 0;
}

}  // namespace probe
