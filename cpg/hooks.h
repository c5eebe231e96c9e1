// SPDX-License-Identifier: GPL-2.0-or-later
// What the adapters of this room call back. All on the loop's thread, none from within a call that
// the caller makes (a send() never delivers), none after the adapter was destroyed.
#pragma once

#include <functional>
#include <string>

#include "agent/core/core.h"

namespace saru {

struct Hooks {
  // What happened, in the order in which corosync says it. May call any function of the adapter.
  std::function<void(EventBody)> sink;
  // Called first whenever the loop comes back to an adapter, before anything is read from corosync.
  // Here the caller finds out that its own process was paused. To refuse the backlog, call
  // Group::rejoin() here: not one message of it is delivered then.
  std::function<void()> before_dispatch;
  std::function<void(LogLevel, std::string)> log;
};

// Why something that was asked for cannot be had; one sentence for people.
struct CorosyncError {
  std::string text;
};

}  // namespace saru
