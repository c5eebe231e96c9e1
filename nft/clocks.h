// SPDX-License-Identifier: GPL-2.0-or-later
// The clocks that a lease in the kernel is counted by.
#pragma once

#include <functional>

#include "agent/core/types.h"

namespace saru::nft {

// The slowness of a clock by what adjtimex says: the length of a tick in us (10000 where nothing
// bends it), and a frequency in 2^-16 parts per million. From 0 to 0.1, the most that the kernel
// takes.
double slowness_of(long tick_us, long frequency);

// The clocks of this machine; a test may pass its own, to pause between two readings.
struct Clocks {
  std::function<Nanos()> realtime;
  std::function<Nanos()> boottime;
  std::function<Nanos()> monotonic_raw;
  // By which part CLOCK_REALTIME, and with it the kernel's timers, runs slower than
  // CLOCK_MONOTONIC_RAW because a time daemon bends it (chronyd: up to 1/12); 0: it does not.
  std::function<double()> slowness;
  std::function<void()> before_write;  // after the last reading, before the kernel is told

  // Warn of it where this is false: slowness() then says the most that there can be, a tenth.
  static bool tells_slowness();
  static Clocks system();
  Instant now() const;  // CLOCK_MONOTONIC_RAW and CLOCK_BOOTTIME
};

}  // namespace saru::nft
