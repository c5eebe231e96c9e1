// SPDX-License-Identifier: GPL-2.0-or-later
// What makes sarud a process that a busy machine cannot starve, and how it goes to the background.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/exit_code.h"

namespace saru {

// Locks the memory, asks for a real-time priority just under Corosync's, and takes the process out
// of the OOM killer's reach. What the machine refuses is returned as one sentence each: sarud runs
// without it, but a busy CPU may then let a healthy node's lease run out.
[[nodiscard]] std::vector<std::string> protect_process();

// Through which a daemon says that it is ready: a pipe to the command that was called, or systemd's
// socket (sd_notify(3)).
class Readiness {
 public:
  // Nobody waits: say() prints nothing and keeps nothing.
  Readiness() = default;
  Readiness(Readiness&& other) noexcept;
  Readiness& operator=(Readiness&&) = delete;
  ~Readiness();

  // Forks. The parent waits and never returns from this call: it ends with 0 when the child has
  // said that it is ready, and with the child's code, after printing the sentence, when it failed
  // or died. The child goes on in a session of its own, in /, without a terminal.
  static tl::expected<Readiness, Failure> daemonize();

  // In the foreground. Opens the socket that NOTIFY_SOCKET names, if a service manager has set it:
  // where that is not possible, it fails, for the manager would wait in vain.
  static tl::expected<Readiness, Failure> in_foreground();

  void ready();
  void failed(const Failure& failure);
  // A service manager keeps what is said on stderr beside the system log.
  bool is_managed() const { return managed_; }

 private:
  void say(const std::string& line);
  int fd_ = -1;
  bool managed_ = false;
};

}  // namespace saru
