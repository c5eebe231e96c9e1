// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/control.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/core/plant.h"
#include "agent/json_line.h"

namespace saru {

using nlohmann::json;

struct Control::Client {
  Control* control = nullptr;
  ClientId id;
  int fd = -1;
  qb_loop_timer_handle timer = 0;
  std::string in;
  std::string out;
  bool asked = false;
};

namespace {

tl::unexpected<Failure> socket_failure(const std::string& path) {
  return tl::unexpected(
      Failure{ExitCode::kFailed, "cannot listen on " + path + ": " + std::strerror(errno)});
}

bool somebody_answers(const sockaddr_un& address) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool answers =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno == EAGAIN;
  close(fd);
  return answers;
}

}  // namespace

tl::expected<std::unique_ptr<Control>, Failure> Control::open(qb_loop_t* loop,
                                                              const std::string& path,
                                                              Handler handler) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return socket_failure(path);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (somebody_answers(address)) {
    return tl::unexpected(
        Failure{ExitCode::kBadConfiguration,
                "another sarud with this id answers on " + path +
                    ", probably in another network namespace that shares /run; give each network "
                    "namespace a /run of its own, or another id"});
  }
  unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return socket_failure(path);
  const mode_t mask = umask(0177);
  const bool bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  umask(mask);
  if (!bound || listen(fd, static_cast<int>(kMaxClients)) != 0) {
    auto failure = socket_failure(path);
    close(fd);
    return failure;
  }
  std::unique_ptr<Control> control(new Control(loop, path, fd, std::move(handler)));
  if (qb_loop_poll_add(loop, QB_LOOP_LOW, fd, POLLIN, control.get(), &Control::on_connect) != 0) {
    return socket_failure(path);
  }
  return control;
}

Control::Control(qb_loop_t* loop, std::string path, int fd, Handler handler)
    : loop_(loop), path_(std::move(path)), fd_(fd), handler_(std::move(handler)) {}

Control::~Control() {
  while (!clients_.empty()) drop(*clients_.begin()->second);
  qb_loop_poll_del(loop_, fd_);
  close(fd_);
  unlink(path_.c_str());
}

int Control::on_connect(int32_t, int32_t, void* self) {
  static_cast<Control*>(self)->accept_one();
  return 0;
}

int Control::on_client(int32_t, int32_t events, void* data) {
  auto& client = *static_cast<Client*>(data);
  Control& control = *client.control;
  if ((events & POLLOUT) != 0) {
    control.write_to(client);
  } else if ((events & POLLIN) != 0 && !client.asked) {
    control.read_from(client);
  } else {
    control.drop(client);  // hung up
  }
  return 0;
}

void Control::on_timeout(void* data) {
  auto& client = *static_cast<Client*>(data);
  client.timer = 0;
  client.control->drop(client);
}

void Control::accept_one() {
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (clients_.size() >= kMaxClients) {
    static constexpr char kFull[] = "{\"ok\":false,\"error\":\"too many clients; try again\"}\n";
    [[maybe_unused]] const ssize_t sent = send(fd, kFull, sizeof kFull - 1, MSG_NOSIGNAL);
    close(fd);
    return;
  }
  auto client = std::make_unique<Client>();
  client->control = this;
  client->id = ClientId{++last_};
  client->fd = fd;
  if (!limit(*client, kAskSeconds) ||
      qb_loop_poll_add(loop_, QB_LOOP_LOW, fd, POLLIN, client.get(), &Control::on_client) != 0) {
    if (client->timer != 0) qb_loop_timer_del(loop_, client->timer);
    close(fd);
    return;
  }
  clients_.emplace(client->id, std::move(client));
}

// From now on the client has so long.
bool Control::limit(Client& client, unsigned seconds) {
  if (client.timer != 0) qb_loop_timer_del(loop_, client.timer);
  client.timer = 0;
  return qb_loop_timer_add(loop_, QB_LOOP_LOW, std::uint64_t{seconds} * 1000000000U, &client,
                           &Control::on_timeout, &client.timer) == 0;
}

void Control::read_from(Client& client) {
  char part[1024];
  const ssize_t got = recv(client.fd, part, sizeof part, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return drop(client);
  client.in.append(part, static_cast<std::size_t>(got));
  const std::size_t end = client.in.find('\n');
  if (end == std::string::npos) {
    if (client.in.size() < kMaxRequest) return;
    client.asked = true;
    return refuse(client.id, "the request is longer than 16384 bytes");
  }
  client.asked = true;
  limit(client, kReplySeconds);
  const auto request = read_object(client.in.substr(0, end));
  if (!request && planted() == Plant::kLeaveUnanswered) return drop(client);
  if (!request) return refuse(client.id, "the request is not one flat JSON object in a line");
  const ClientId id = client.id;
  try {
    handler_(id, *request);
  } catch (const std::exception& error) {  // a question must never end the service
    refuse(id, std::string("sarud cannot answer that: ") + error.what());
  }
}

void Control::reply(ClientId id, const json& answer) {
  const auto found = clients_.find(id);
  if (found == clients_.end() || !found->second->out.empty()) return;
  Client& client = *found->second;
  client.out = answer.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  write_to(client);
}

void Control::refuse(ClientId id, const std::string& sentence) {
  reply(id, json{{"ok", false}, {"error", sentence}});
}

void Control::write_to(Client& client) {
  while (!client.out.empty()) {
    const ssize_t sent = send(client.fd, client.out.data(), client.out.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      qb_loop_poll_mod(loop_, QB_LOOP_LOW, client.fd, POLLOUT, &client, &Control::on_client);
      return;
    }
    if (sent <= 0) break;
    client.out.erase(0, static_cast<std::size_t>(sent));
  }
  drop(client);
}

void Control::drop(Client& client) {
  qb_loop_poll_del(loop_, client.fd);
  if (client.timer != 0) qb_loop_timer_del(loop_, client.timer);
  close(client.fd);
  clients_.erase(client.id);  // ends `client`
}

}  // namespace saru
