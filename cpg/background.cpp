// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/background.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

namespace saru {
namespace {

// The libraries keep answers of some kilobytes on the stack; with locked memory every byte counts.
constexpr std::size_t kStackBytes = std::size_t{512} * 1024;

void* run_thread(void* work) noexcept {
  const std::unique_ptr<std::function<void()>> owned(static_cast<std::function<void()>*>(work));
  (*owned)();
  return nullptr;
}

}  // namespace

bool run_detached(std::function<void()> work) {
  auto owned = std::make_unique<std::function<void()>>(std::move(work));
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  const sched_param ordinary{};
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
  pthread_attr_setschedparam(&attributes, &ordinary);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread = 0;
  const bool started = pthread_create(&thread, &attributes, &run_thread, owned.get()) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (started) static_cast<void>(owned.release());  // the thread's from here on
  return started;
}

bool run_bounded(std::function<void()> work, std::chrono::milliseconds limit) {
  struct Latch {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
  };
  const auto latch = std::make_shared<Latch>();
  const bool started = run_detached([work = std::move(work), latch] {
    work();
    const std::lock_guard lock(latch->mutex);
    latch->open = true;
    latch->changed.notify_one();
  });
  if (!started) return false;
  std::unique_lock lock(latch->mutex);
  return latch->changed.wait_for(lock, limit, [&] { return latch->open; });
}

struct Background::Job {
  std::function<void()> work;
  int fd = -1;
  ~Job() {
    if (fd >= 0) close(fd);
  }
};

Background::Background(qb_loop_t* loop) : ready_(loop, [this] { finished(); }) {}
Background::~Background() { ready_.unwatch(); }

bool Background::run(std::function<void()> work, std::function<void()> done) {
  auto job = std::make_shared<Job>();
  job->work = std::move(work);
  job->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (job->fd < 0 || !ready_.watch(job->fd)) return false;
  const bool started = run_detached([job] {
    job->work();
    job->work = nullptr;  // what it holds must end here, not on the loop's thread
    const std::uint64_t one = 1;
    static_cast<void>(!write(job->fd, &one, sizeof one));
  });
  if (!started) {
    ready_.unwatch();
    return false;
  }
  job_ = std::move(job);
  done_ = std::move(done);
  return true;
}

void Background::finished() {
  ready_.unwatch();
  job_.reset();
  const std::function<void()> done = std::exchange(done_, nullptr);
  done();
}

}  // namespace saru
