// SPDX-License-Identifier: GPL-2.0-or-later
// One IPC connection to corosync through one of its libraries (their handles are all alike): opened
// and closed in the background, dispatched from the loop in small portions, opened again when lost.
#pragma once

#include <corosync/corotypes.h>
#include <qb/qbloop.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cpg/background.h"
#include "cpg/hooks.h"
#include "cpg/loop.h"

namespace saru {

// "CS_ERR_LIBRARY (2)" and the like, for logs.
[[nodiscard]] std::string name_of(cs_error_t error);

class Connection {
 public:
  using Handle = std::uint64_t;

  struct Opened {
    cs_error_t error = CS_ERR_LIBRARY;
    std::string what;  // which call failed, or why it is no use
    Handle handle = 0;
    int fd = -1;
    NodeId node;  // where the library tells
  };
  // What differs between the libraries.
  struct Library {
    std::string name;
    std::function<Opened()> open;                    // in the background; all or nothing
    std::function<void(Handle)> close;               // in the background
    std::function<cs_error_t(Handle)> dispatch_one;  // CS_DISPATCH_ONE_NONBLOCKING
  };
  struct Callbacks {
    std::function<void(const Opened&)> on_up;
    std::function<void()> on_down;  // lost; not after restart() or stop()
  };

  Connection(qb_loop_t* loop, Library library, Callbacks callbacks, Hooks hooks);
  // Closes in the background; waits for it 200 ms at most.
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  // Closes and opens; nothing is dispatched from the old one any more. No-op unless up.
  void restart();
  void stop(std::function<void()> done);
  // The caller has seen that the handle is dead. on_down follows from the loop.
  void lost(const std::string& why);

  bool up() const { return state_ == State::kUp && !pending_; }
  Handle handle() const { return handle_; }
  // To be called first in every other callback of the loop that hands out events.
  void before_dispatch() const;

 private:
  // kBusy: something runs in the background, and when it ends `wanted_` says what comes next.
  enum class State { kDown, kWaiting, kBusy, kUp };
  struct Attempt;

  void dispatch();
  void settle();
  void open();
  void close();
  void opened(const Opened& opened);
  void closed();
  void wait(std::chrono::milliseconds delay);
  void retry();
  void waited();

  Library library_;
  Callbacks callbacks_;
  Hooks hooks_;
  State state_ = State::kDown;
  bool wanted_ = false;
  bool in_dispatch_ = false;
  bool pending_ = false;  // this handle is not to be used any more; settle() acts on it
  bool restart_ = false;  // because the caller wants another one
  Handle handle_ = 0;
  std::optional<Handle> stale_;  // still to be closed
  std::string trouble_;          // what was logged last
  std::chrono::milliseconds backoff_;
  std::function<void()> stopped_;
  std::shared_ptr<Attempt> attempt_;
  Background background_;
  LoopFd readable_;
  LoopTimer timer_;
};

}  // namespace saru
