// SPDX-License-Identifier: GPL-2.0-or-later
// For calls that may never return: those of corosync's libraries that wait for an answer have no
// time limit, and a stopped corosync does not answer. They run on a thread of their own, with
// ordinary priority, a small stack and all signals blocked.
#pragma once

#include <qb/qbloop.h>

#include <chrono>
#include <functional>
#include <memory>

#include "cpg/loop.h"

namespace saru {

// Runs `work` on a new thread that nobody joins. False when no thread can be had.
[[nodiscard]] bool run_detached(std::function<void()> work);

// Runs `work` likewise, and waits until it has returned, but not longer than `limit`. False when it
// has not; it goes on by itself, so it must own whatever it touches.
[[nodiscard]] bool run_bounded(std::function<void()> work, std::chrono::milliseconds limit);

// One piece of work at a time; its end comes back through the loop.
class Background {
 public:
  explicit Background(qb_loop_t* loop);
  // A piece of work still running goes on by itself; its `done` is never called.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  bool busy() const { return job_ != nullptr; }
  // Not while busy. False when no thread can be had; then neither is called.
  [[nodiscard]] bool run(std::function<void()> work, std::function<void()> done);

 private:
  struct Job;
  void finished();

  std::shared_ptr<Job> job_;
  std::function<void()> done_;
  LoopFd ready_;
};

}  // namespace saru
