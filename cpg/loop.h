// SPDX-License-Identifier: GPL-2.0-or-later
// A timer and a watched file descriptor of a qb_loop, which end with their owner.
#pragma once

#include <poll.h>
#include <qb/qbloop.h>
#include <sys/timerfd.h>
#include <unistd.h>

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

// A timer of the kernel's, for what fires often: qb_loop spins through the last millisecond before
// one of its own is due (libqb 2.0.6).
class LoopKernelTimer {
 public:
  LoopKernelTimer(qb_loop_t* loop, std::function<void()> fire)
      : fire_(std::move(fire)), ready_(loop, [this] { fired(); }) {}
  ~LoopKernelTimer() {
    ready_.unwatch();
    if (fd_ >= 0) close(fd_);
  }
  LoopKernelTimer(const LoopKernelTimer&) = delete;
  LoopKernelTimer& operator=(const LoopKernelTimer&) = delete;

  // False when there is no descriptor, or the loop is out of memory. `delay` is more than nothing.
  bool start(std::chrono::nanoseconds delay) { return is_open() && set(delay); }
  void stop() {
    if (fd_ >= 0) set(std::chrono::nanoseconds(0));
    running_ = false;
  }
  bool running() const { return running_; }

 private:
  bool is_open() {
    if (fd_ >= 0) return true;
    fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd_ < 0) return false;
    if (ready_.watch(fd_)) return true;
    close(fd_);
    fd_ = -1;
    return false;
  }
  bool set(std::chrono::nanoseconds delay) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(delay);
    itimerspec spec{};
    spec.it_value = {.tv_sec = seconds.count(), .tv_nsec = (delay - seconds).count()};
    running_ = timerfd_settime(fd_, 0, &spec, nullptr) == 0;
    return running_;
  }
  void fired() {
    std::uint64_t times = 0;
    if (read(fd_, &times, sizeof(times)) != sizeof(times) || !running_) return;
    running_ = false;
    fire_();
  }

  std::function<void()> fire_;
  LoopFd ready_;
  int fd_ = -1;
  bool running_ = false;
};

}  // namespace saru
