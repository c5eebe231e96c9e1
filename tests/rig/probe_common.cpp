// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe_common.h"

#include <arpa/inet.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace probe {
namespace {

volatile std::sig_atomic_t stop = 0;

bool parse_number(const std::string& text, std::uint32_t& value) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  return parsed.ec == std::errc{} && parsed.ptr == end;
}

}  // namespace

Result<Endpoint> endpoint(const std::string& address, std::uint16_t port) {
  Endpoint result;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  if (inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    result.length = sizeof *v4;
  } else if (inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    result.length = sizeof *v6;
  } else {
    return tl::unexpected("'" + address + "' is neither an IPv4 nor an IPv6 address");
  }
  return result;
}

Endpoint wildcard(int family, std::uint16_t port) {
  return *endpoint(family == AF_INET6 ? "::" : "0.0.0.0", port);
}

std::uint16_t port_of(const Endpoint& endpoint) {
  return ntohs(endpoint.family() == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&endpoint.storage)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&endpoint.storage)->sin_port);
}

std::string errno_text(const std::string& what) { return what + ": " + std::strerror(errno); }

Result<void> take_priority(int priority) {
  const sched_param parameter{priority};
  if (priority > 0 && sched_setscheduler(0, SCHED_FIFO, &parameter) != 0) {
    return tl::unexpected(errno_text("cannot get real-time priority"));
  }
  return {};
}

bool enable(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool stop_requested() { return stop != 0; }

Result<std::vector<std::uint32_t>> parse_blocks(const std::string& text, std::uint32_t blocks) {
  std::vector<std::uint32_t> list;
  const auto slash = text.find("/spread");
  std::uint32_t count = 0;
  if (text == "all") {
    for (std::uint32_t block = 0; block < blocks; ++block) list.push_back(block);
    return list;
  }
  if (slash != std::string::npos && parse_number(text.substr(0, slash), count)) {
    if (count == 0 || count > blocks || slash + 7 != text.size()) {
      return tl::unexpected("--blocks " + text + ": 1 to " + std::to_string(blocks) + " blocks");
    }
    for (std::uint32_t i = 0; i < count; ++i) list.push_back(i * blocks / count);
    return list;
  }
  std::size_t start = 0;
  while (start <= text.size()) {
    const auto end = std::min(text.find(',', start), text.size());
    std::uint32_t block = 0;
    if (!parse_number(text.substr(start, end - start), block) || block >= blocks) {
      return tl::unexpected("--blocks " + text +
                            ": must be 'all', 'N/spread' or block numbers from 0 to " +
                            std::to_string(blocks - 1));
    }
    list.push_back(block);
    start = end + 1;
  }
  return list;
}

}  // namespace probe
