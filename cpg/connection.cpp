// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/connection.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace saru {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBackoffFirst{20};
constexpr milliseconds kBackoffLongest{1000};
constexpr milliseconds kPatienceAtEnd{200};
// Messages per portion: between portions the loop serves its timers and its other descriptors.
constexpr int kPortion = 32;

}  // namespace

std::string name_of(cs_error_t error) {
  return std::string(cs_strerror(error)) + " (" + std::to_string(error) + ")";
}

// What is opened in the background belongs to nobody until the loop has taken it.
struct Connection::Attempt {
  std::mutex mutex;
  bool abandoned = false;
  Opened result;
};

Connection::Connection(qb_loop_t* loop, Library library, Callbacks callbacks, Hooks hooks)
    : library_(std::move(library)),
      callbacks_(std::move(callbacks)),
      hooks_(std::move(hooks)),
      backoff_(kBackoffFirst),
      background_(loop),
      readable_(loop, [this] { dispatch(); }),
      timer_(loop, [this] { waited(); }) {}

Connection::~Connection() {
  readable_.unwatch();
  if (state_ == State::kUp) stale_ = handle_;
  if (attempt_) {
    const std::lock_guard lock(attempt_->mutex);
    attempt_->abandoned = true;
    if (attempt_->result.error == CS_OK) stale_ = attempt_->result.handle;
  }
  if (!stale_) return;
  const bool in_time =
      run_bounded([close = library_.close, stale = *stale_] { close(stale); }, kPatienceAtEnd);
  if (!in_time && hooks_.log) {
    hooks_.log(LogLevel::kWarning, "corosync did not confirm the end of " + library_.name +
                                       "'s connection in " +
                                       std::to_string(kPatienceAtEnd.count()) + " ms");
  }
}

void Connection::before_dispatch() const {
  if (hooks_.before_dispatch) hooks_.before_dispatch();
}

void Connection::start() {
  wanted_ = true;
  if (state_ == State::kDown) open();
}

void Connection::restart() {
  if (!up()) return;
  restart_ = true;
  pending_ = true;
  if (!in_dispatch_) settle();
}

void Connection::stop(std::function<void()> done) {
  wanted_ = false;
  stopped_ = std::move(done);
  if (state_ == State::kUp) {
    pending_ = true;
    if (!in_dispatch_) settle();
  } else if (state_ != State::kBusy) {
    wait(milliseconds(0));
  }
}

void Connection::lost(const std::string& why) {
  if (!up()) return;
  if (hooks_.log) {
    hooks_.log(LogLevel::kWarning, "lost corosync (" + library_.name + ": " + why + ")");
  }
  pending_ = true;
  if (!in_dispatch_) timer_.start(milliseconds(0));
}

void Connection::dispatch() {
  in_dispatch_ = true;
  for (int i = 0; i < kPortion && up(); ++i) {
    before_dispatch();
    if (!up()) break;
    const cs_error_t error = library_.dispatch_one(handle_);
    if (error == CS_ERR_TRY_AGAIN) break;
    if (error != CS_OK) lost(name_of(error));
  }
  in_dispatch_ = false;
  settle();
}

// Parts with the handle, if something has happened that asks for it.
void Connection::settle() {
  if (!pending_) return;
  pending_ = false;
  const bool restart = std::exchange(restart_, false);
  readable_.unwatch();
  timer_.stop();
  stale_ = handle_;
  state_ = State::kDown;
  if (!wanted_) {
    close();
  } else if (restart) {
    open();
  } else {
    retry();
    callbacks_.on_down();
  }
}

void Connection::open() {
  auto attempt = std::make_shared<Attempt>();
  const bool started = background_.run(
      [library = library_, stale = stale_, attempt] {
        if (stale) library.close(*stale);
        Opened result = library.open();
        const std::lock_guard lock(attempt->mutex);
        if (!attempt->abandoned) {
          attempt->result = std::move(result);
        } else if (result.error == CS_OK) {
          library.close(result.handle);
        }
      },
      [this] {
        const std::shared_ptr<Attempt> ended = std::exchange(attempt_, nullptr);
        before_dispatch();
        opened(ended->result);
      });
  if (!started) return retry();
  state_ = State::kBusy;
  stale_.reset();
  attempt_ = std::move(attempt);
}

void Connection::opened(const Opened& opened) {
  const bool usable = opened.error == CS_OK;
  if (!wanted_) {
    if (usable) stale_ = opened.handle;
    return close();
  }
  if (!usable || !readable_.watch(opened.fd)) {
    if (usable) stale_ = opened.handle;
    std::string trouble = usable ? "cannot watch its socket" : opened.what;
    if (trouble != trouble_ && hooks_.log) {
      hooks_.log(LogLevel::kWarning, "no connection to corosync: " + trouble + "; trying again");
    }
    trouble_ = std::move(trouble);
    return retry();
  }
  trouble_.clear();
  backoff_ = kBackoffFirst;
  handle_ = opened.handle;
  state_ = State::kUp;
  callbacks_.on_up(opened);
}

void Connection::close() {
  if (!stale_) return closed();
  const bool started = background_.run([close = library_.close, stale = *stale_] { close(stale); },
                                       [this] {
                                         before_dispatch();
                                         closed();
                                       });
  if (!started) return retry();
  state_ = State::kBusy;
  stale_.reset();
}

void Connection::closed() {
  state_ = State::kDown;
  if (wanted_) return open();
  const std::function<void()> stopped = std::exchange(stopped_, nullptr);
  if (stopped) stopped();
}

void Connection::wait(milliseconds delay) {
  state_ = State::kWaiting;
  timer_.start(delay);
}

void Connection::retry() {
  wait(backoff_);
  backoff_ = std::min(backoff_ * 2, kBackoffLongest);
}

void Connection::waited() {
  before_dispatch();
  if (pending_) return settle();
  if (state_ != State::kWaiting) return;
  if (wanted_) return open();
  close();
}

}  // namespace saru
