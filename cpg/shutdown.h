// SPDX-License-Identifier: GPL-2.0-or-later
// Clean shutdown of corosync (libcfg). `corosync-cfgtool -H`, and systemd's stop of corosync, ask
// every registered process and wait up to 5 s for the answers, so there is time to hand the blocks
// over. Never blocks the loop; connects again by itself.
#pragma once

#include <qb/qbloop.h>

#include <chrono>
#include <functional>
#include <memory>

#include "cpg/hooks.h"

namespace saru {

class ShutdownWatch {
 public:
  struct Callbacks {
    // Corosync wants to end: release, then call agree(), within kTimeToRelease.
    std::function<void()> on_shutdown;
    // It did not end after all (another process said no): the blocks may come back.
    std::function<void()> on_cancelled;
  };
  static constexpr std::chrono::milliseconds kTimeToRelease{3000};

  // Only before_dispatch and log of the hooks are used.
  ShutdownWatch(qb_loop_t* loop, Callbacks callbacks, Hooks hooks);
  ~ShutdownWatch();
  ShutdownWatch(ShutdownWatch&&) noexcept;
  ShutdownWatch& operator=(ShutdownWatch&&) noexcept;

  void start();
  // Answers yes. Without on_shutdown before it nothing happens; after kTimeToRelease it is said
  // without us.
  void agree();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru
