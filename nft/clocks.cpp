// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/clocks.h"

#include <sys/timex.h>
#include <time.h>

#include <algorithm>

namespace saru::nft {
namespace {

Nanos read_clock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return std::chrono::seconds(now.tv_sec) + Nanos(now.tv_nsec);
}

constexpr double kMostSlowness = 0.1;

double read_slowness() {
  timex now{};
  return adjtimex(&now) < 0 ? kMostSlowness : slowness_of(now.tick, now.freq);
}

}  // namespace

double slowness_of(long tick_us, long frequency) {
  constexpr double kMicrosPerTick = 10'000, kPerPartPerMillion = 65'536e6;
  const double rate = static_cast<double>(tick_us) / kMicrosPerTick +
                      static_cast<double>(frequency) / kPerPartPerMillion;
  return std::clamp(1 - rate, 0.0, kMostSlowness);
}

bool Clocks::tells_slowness() {
  timex now{};
  return adjtimex(&now) >= 0;
}

Clocks Clocks::system() {
  return {[] { return read_clock(CLOCK_REALTIME); }, [] { return read_clock(CLOCK_BOOTTIME); },
          [] { return read_clock(CLOCK_MONOTONIC_RAW); }, read_slowness, [] {}};
}

Instant Clocks::now() const { return {monotonic_raw(), boottime()}; }

}  // namespace saru::nft
