// SPDX-License-Identifier: GPL-2.0-or-later
// The door for saructl: a UNIX stream socket, one line of JSON in, one line of JSON out, then
// closed. Nothing here waits: a slow, silent or oversized client costs a buffer until its time is
// over.
#pragma once

#include <qb/qbloop.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tl/expected.hpp>

#include "agent/exit_code.h"

namespace saru {

struct ClientId {
  std::uint64_t value = 0;
  auto operator<=>(const ClientId&) const = default;
};

class Control {
 public:
  static constexpr std::size_t kMaxClients = 32;
  static constexpr std::size_t kMaxRequest = 16384;
  // From connecting to the end of the request, and from there to the last byte of the reply.
  // `saructl stop` waits longest.
  static constexpr unsigned kAskSeconds = 3;
  static constexpr unsigned kReplySeconds = 30;

  // Gets each request once; whoever handles it calls reply() then or later.
  using Handler = std::function<void(ClientId, const nlohmann::json&)>;

  // Listens at `path` (mode 0600). Fails with kBadConfiguration when another process answers there.
  static tl::expected<std::unique_ptr<Control>, Failure> open(qb_loop_t* loop,
                                                              const std::string& path,
                                                              Handler handler);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // Does nothing when the client has gone.
  void reply(ClientId client, const nlohmann::json& answer);
  // {"ok": false, "error": sentence}
  void refuse(ClientId client, const std::string& sentence);

 private:
  struct Client;

  Control(qb_loop_t* loop, std::string path, int fd, Handler handler);
  static int on_connect(int32_t fd, int32_t events, void* self);
  static int on_client(int32_t fd, int32_t events, void* client);
  static void on_timeout(void* client);
  void accept_one();
  void read_from(Client& client);
  void write_to(Client& client);
  bool limit(Client& client, unsigned seconds);
  void drop(Client& client);

  qb_loop_t* loop_;
  std::string path_;
  int fd_;
  Handler handler_;
  std::uint64_t last_ = 0;
  std::map<ClientId, std::unique_ptr<Client>> clients_;
};

}  // namespace saru
