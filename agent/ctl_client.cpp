// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/ctl_client.h"

#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <vector>

#include "agent/json_line.h"
#include "agent/lock.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;
using Clock = std::chrono::steady_clock;

// Many times what 4096 blocks and 128 members need.
constexpr std::size_t kMaxAnswer = std::size_t{8} << 20;

struct Socket {
  int fd = -1;
  explicit Socket(int f) : fd(f) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd >= 0) close(fd);
  }
};

string socket_path(std::uint16_t id) {
  return string(kRunDirectory) + "/" + std::to_string(id) + ".sock";
}

bool connect_to(const Socket& socket, std::uint16_t id) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const string path = socket_path(id);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return connect(socket.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

tl::unexpected<Failure> no_answer(std::uint16_t id, const string& why) {
  return tl::unexpected(Failure{
      ExitCode::kFailed, "sarud with id " + std::to_string(id) + " does not answer: " + why});
}

tl::unexpected<Failure> cannot_connect(std::uint16_t id) {
  const int error = errno;
  if (error == ENOENT || error == ECONNREFUSED) {
    return tl::unexpected(Failure{ExitCode::kNotRunning,
                                  "no sarud with id " + std::to_string(id) + " runs on this node"});
  }
  if (error == EACCES || error == EPERM) {
    return tl::unexpected(Failure{ExitCode::kNoPermission, "saructl must be run as root"});
  }
  return no_answer(id, std::strerror(error));
}

std::vector<std::uint16_t> running_ids() {
  std::vector<std::uint16_t> ids = known_ids();
  std::erase_if(ids, [](std::uint16_t id) {
    const Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    // EAGAIN: somebody listens, but is busy. EACCES: it will be refused by name.
    return !connect_to(socket, id) && errno != EAGAIN && errno != EACCES;
  });
  return ids;
}

// What is left until `deadline`, for poll(2).
int left(Clock::time_point deadline) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return ms > 0 ? static_cast<int>(ms) : 0;
}

}  // namespace

std::vector<std::uint16_t> known_ids() {
  std::vector<std::uint16_t> ids;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(kRunDirectory), &closedir);
  if (!directory) return ids;
  while (const dirent* entry = readdir(directory.get())) {
    const string name = entry->d_name;
    const std::size_t dot = name.find(".sock");
    std::uint16_t id = 0;
    if (dot == string::npos || dot + 5 != name.size()) continue;
    const auto [end, error] = std::from_chars(name.data(), name.data() + dot, id);
    if (error == std::errc{} && end == name.data() + dot) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

tl::expected<std::uint16_t, Failure> choose_id(std::optional<std::uint16_t> asked) {
  if (asked) return *asked;
  const auto ids = running_ids();
  if (ids.size() == 1) return ids.front();
  if (ids.empty()) {
    return tl::unexpected(Failure{ExitCode::kNotRunning, "no sarud runs on this node"});
  }
  string list;
  for (const std::uint16_t id : ids) list += (list.empty() ? "" : ", ") + std::to_string(id);
  return tl::unexpected(Failure{ExitCode::kBadHere, "several sarud run on this node (ids " + list +
                                                        "): say which with --id"});
}

tl::expected<json, Failure> ask(std::uint16_t id, const json& request,
                                std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  const Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.fd < 0) return no_answer(id, std::strerror(errno));
  if (!connect_to(socket, id)) return cannot_connect(id);
  const string line = request.dump() + "\n";
  if (send(socket.fd, line.data(), line.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(line.size())) {
    return no_answer(id, std::strerror(errno));
  }
  string text;
  char part[16384];
  for (;;) {
    pollfd ready = {socket.fd, POLLIN, 0};
    const int count = poll(&ready, 1, left(deadline));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return no_answer(id, "nothing came within " + std::to_string(limit.count()) + " ms");
    }
    const ssize_t got = recv(socket.fd, part, sizeof part, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) break;
    text.append(part, static_cast<std::size_t>(got));
    if (text.size() > kMaxAnswer) return no_answer(id, "what it says has no end");
  }
  if (text.empty()) return no_answer(id, "it closed the connection");
  auto answer = read_object(text);
  if (!answer) return no_answer(id, "what it says is not one JSON object");
  if (answer->value("ok", false)) return *answer;
  const auto code =
      static_cast<ExitCode>(answer->value("code", static_cast<int>(ExitCode::kFailed)));
  return tl::unexpected(Failure{code, answer->value("error", "refused")});
}

}  // namespace saru
