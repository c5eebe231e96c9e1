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

// The parent's end of the pipe through which a daemon says that it is ready.
class Readiness {
 public:
  // In the foreground: say() prints nothing and keeps nothing.
  Readiness() = default;
  Readiness(Readiness&& other) noexcept;
  Readiness& operator=(Readiness&&) = delete;
  ~Readiness();

  // Forks. The parent waits and never returns from this call: it ends with 0 when the child has
  // said that it is ready, and with the child's code, after printing the sentence, when it failed
  // or died. The child goes on in a session of its own, in /, without a terminal.
  static tl::expected<Readiness, Failure> daemonize();

  void ready();
  void failed(const Failure& failure);
  bool in_background() const { return background_; }

 private:
  void say(const std::string& line);
  int fd_ = -1;
  bool background_ = false;
};

}  // namespace saru
