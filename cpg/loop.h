// SPDX-License-Identifier: GPL-2.0-or-later
// A timer and a watched file descriptor of a qb_loop, which end with their owner.
#pragma once

#include <poll.h>
#include <qb/qbloop.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <utility>

namespace saru {

// Calls `fire` once, that long after start(). Starting anew replaces what was started.
class LoopTimer {
 public:
  LoopTimer(qb_loop_t* loop, std::function<void()> fire) : loop_(loop), fire_(std::move(fire)) {}
  ~LoopTimer() { stop(); }
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;

  // False when the loop is out of memory.
  bool start(std::chrono::nanoseconds delay) {
    stop();
    running_ = qb_loop_timer_add(loop_, QB_LOOP_HIGH, static_cast<std::uint64_t>(delay.count()),
                                 this, &LoopTimer::fired, &handle_) == 0;
    return running_;
  }
  void stop() {
    if (running_) qb_loop_timer_del(loop_, handle_);
    running_ = false;
  }
  bool running() const { return running_; }

 private:
  static void fired(void* self) noexcept {
    auto* timer = static_cast<LoopTimer*>(self);
    timer->running_ = false;
    timer->fire_();
  }

  qb_loop_t* loop_;
  std::function<void()> fire_;
  qb_loop_timer_handle handle_ = 0;
  bool running_ = false;
};

// Calls `ready` whenever there is something to read, or the other end is gone.
class LoopFd {
 public:
  LoopFd(qb_loop_t* loop, std::function<void()> ready) : loop_(loop), ready_(std::move(ready)) {}
  ~LoopFd() { unwatch(); }
  LoopFd(const LoopFd&) = delete;
  LoopFd& operator=(const LoopFd&) = delete;

  // False when the loop cannot watch it. Does not own `fd`.
  bool watch(int fd) {
    unwatch();
    if (qb_loop_poll_add(loop_, QB_LOOP_HIGH, fd, POLLIN, this, &LoopFd::fired) != 0) return false;
    fd_ = fd;
    return true;
  }
  void unwatch() {
    if (fd_ >= 0) qb_loop_poll_del(loop_, fd_);
    fd_ = -1;
  }

 private:
  static std::int32_t fired(std::int32_t fd, std::int32_t, void* self) noexcept {
    auto* watched = static_cast<LoopFd*>(self);
    if (watched->fd_ == fd) watched->ready_();
    return 0;
  }

  qb_loop_t* loop_;
  std::function<void()> ready_;
  int fd_ = -1;
};

}  // namespace saru
