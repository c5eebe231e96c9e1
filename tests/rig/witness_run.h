// SPDX-License-Identifier: GPL-2.0-or-later
// The two things saru-witness does: watch links, and judge a file of records again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "witness_setup.h"

namespace witness {

inline constexpr int kExitUsage = 3;

struct WatchOptions {
  Setup setup;
  std::uint64_t max_gap_ms = 0;
  std::uint32_t ring_kib = 65536;
  double seconds = 0;   // 0: until SIGTERM or SIGINT
  int priority = 0;     // SCHED_FIFO; 0: none
  std::string output;   // JSON lines; empty: stdout
  std::string records;  // binary records for `report`; empty: none
};

struct EventMark {
  std::string name;
  std::uint64_t at_ns = 0;
};

struct ReportOptions {
  std::string records;
  std::vector<EventMark> events;  // none: the whole file as one
  std::uint64_t before_ms = 1000;
  std::uint64_t after_ms = 5000;
  std::uint64_t max_gap_ms = 0;
};

// Both return the exit status: 0 all right, 1 a violation, 2 inconclusive, 3 could not run.
int watch(const WatchOptions& options);
int report(const ReportOptions& options);

}  // namespace witness
