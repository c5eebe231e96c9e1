// SPDX-License-Identifier: GPL-2.0-or-later
// A web server of one page: the node's name. It listens on the wildcard addresses, so a shared
// address that comes and goes needs no restart.
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <unordered_map>

#include "probe_common.h"

namespace probe {
namespace {

constexpr int kBacklog = 4096;
constexpr std::size_t kRequestMax = 8192;
constexpr std::uint64_t kIdleNs = 30'000'000'000;
constexpr std::size_t kConnectionsMax = 16000;

class Server {
 public:
  explicit Server(const ServeOptions& options) : options_(options) {
    const std::string body = options.name + "\n";
    answer_ = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
  }

  Result<void> open() {
    epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
    for (const int family : {AF_INET, AF_INET6}) {
      Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const Endpoint local = wildcard(family, options_.port);
      const bool prepared = fd.valid() && enable(fd.get(), SOL_SOCKET, SO_REUSEADDR) &&
                            enable(fd.get(), IPPROTO_IP, IP_FREEBIND) &&
                            (family == AF_INET || enable(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY));
      if (!prepared || bind(fd.get(), local.get(), local.length) != 0 ||
          listen(fd.get(), kBacklog) != 0 || !watch(fd.get())) {
        return tl::unexpected(
            errno_text("cannot serve on TCP port " + std::to_string(options_.port)));
      }
      listeners_.push_back(std::move(fd));
    }
    return {};
  }

  void run() {
    const std::uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
    const auto length_ns = static_cast<std::uint64_t>(options_.seconds * 1e9);
    std::array<epoll_event, 128> events{};
    std::uint64_t sweep_ns = start_ns;
    while (!stop_requested()) {
      const int got = epoll_wait(epoll_.get(), events.data(), events.size(), 200);
      const std::uint64_t now = now_ns(CLOCK_MONOTONIC);
      if (length_ns != 0 && now - start_ns >= length_ns) break;
      for (int i = 0; i < got; ++i) handle(events[static_cast<std::size_t>(i)].data.fd, now);
      if (now - sweep_ns < 1'000'000'000) continue;
      sweep_ns = now;
      std::erase_if(connections_,
                    [&](const auto& entry) { return now - entry.second.since_ns > kIdleNs; });
    }
  }

 private:
  struct Connection {
    Fd fd;
    std::string request;
    std::uint64_t since_ns = 0;
    bool answered = false;
  };

  bool watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }

  void handle(int fd, std::uint64_t now) {
    for (const Fd& listener : listeners_) {
      if (listener.get() == fd) {
        accept_all(fd, now);
        return;
      }
    }
    const auto place = connections_.find(fd);
    if (place != connections_.end() && !read_some(place->second)) connections_.erase(place);
  }

  void accept_all(int listener, std::uint64_t now) {
    while (connections_.size() < kConnectionsMax) {
      Fd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd.valid()) return;
      const int number = fd.get();
      if (!watch(number)) continue;
      connections_[number] = Connection{std::move(fd), {}, now, false};
    }
  }

  // False when the connection is over.
  bool read_some(Connection& connection) {
    std::array<char, 2048> buffer;
    for (;;) {
      const ssize_t got = recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
      if (got == 0) return false;
      if (got < 0) return errno == EAGAIN || errno == EINTR;
      if (connection.answered) continue;
      connection.request.append(buffer.data(), static_cast<std::size_t>(got));
      if (connection.request.size() > kRequestMax) return false;
      if (connection.request.find("\r\n\r\n") == std::string::npos) continue;
      connection.answered = true;
      // A fresh socket's send buffer always has room for this one small answer.
      const ssize_t sent = send(connection.fd.get(), answer_.data(), answer_.size(), MSG_NOSIGNAL);
      if (sent != static_cast<ssize_t>(answer_.size())) return false;
      // The server closes first, so that the client keeps no TIME_WAIT on its source port.
      shutdown(connection.fd.get(), SHUT_WR);
    }
  }

  const ServeOptions& options_;
  std::string answer_;
  Fd epoll_;
  std::vector<Fd> listeners_;
  std::unordered_map<int, Connection> connections_;
};

}  // namespace

int serve_http(const ServeOptions& options) {
  catch_signals();
  Server server(options);
  if (auto opened = server.open(); !opened) {
    std::cerr << "saru-probe: " << opened.error() << "\n";
    return kExitUsage;
  }
  if (auto taken = take_priority(options.priority); !taken) {
    std::cerr << "saru-probe: " << taken.error() << "\n";
    return kExitUsage;
  }
  server.run();
  return 0;
}

}  // namespace probe
