// SPDX-License-Identifier: GPL-2.0-or-later
// Small things that the parts of saru-probe share.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace probe {

template <class T>
using Result = tl::expected<T, std::string>;

inline constexpr int kExitUsage = 3;

inline std::uint64_t now_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct Endpoint {
  sockaddr_storage storage{};
  socklen_t length = 0;

  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Result<Endpoint> endpoint(const std::string& address, std::uint16_t port);
Endpoint wildcard(int family, std::uint16_t port);
std::uint16_t port_of(const Endpoint& endpoint);
std::string errno_text(const std::string& what);
// SCHED_FIFO, so that a busy machine does not look like a silent node. 0: stay as we are.
Result<void> take_priority(int priority);
bool enable(int fd, int level, int option, int value = 1);

// True once SIGTERM or SIGINT came, after catch_signals().
void catch_signals();
bool stop_requested();

// Which blocks of ports to use: "all", "N/spread" (N of them, evenly spread) or "0,16,32".
Result<std::vector<std::uint32_t>> parse_blocks(const std::string& text, std::uint32_t blocks);

struct SendOptions {
  std::vector<std::string> addresses;
  std::string source;
  std::string blocks_text = "32/spread";
  std::uint32_t blocks = 512;
  std::uint32_t offset = 64;  // port within the block
  std::uint32_t rate = 1000;  // per block and second
  std::uint16_t port = 7;
  double seconds = 0;
  bool echo = false;
  int priority = 0;
};

struct HttpOptions {
  std::vector<std::string> addresses;
  std::vector<std::string> expected_names;
  std::string source;
  std::string blocks_text = "all";
  std::string log;
  std::uint32_t blocks = 512;
  double rate = 100;
  double seconds = 0;
  double timeout_s = 10;
  std::uint16_t port = 80;
};

struct ServeOptions {
  std::string name;
  std::uint16_t port = 0;
  double seconds = 0;
  int priority = 0;
};

// Each returns the exit status: 0, 1 (http: a request failed) or kExitUsage.
int send_probes(const SendOptions& options);
int respond(const ServeOptions& options);
int load_http(const HttpOptions& options);
int serve_http(const ServeOptions& options);

}  // namespace probe
