// SPDX-License-Identifier: GPL-2.0-or-later
// The last lines that sarud logged, for `saructl events`.
#pragma once

#include <deque>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/core/core.h"

namespace saru {

// "2026-01-31T12:00:00.123Z", of CLOCK_REALTIME.
[[nodiscard]] std::string rfc3339(Nanos realtime);

class Journal {
 public:
  static constexpr std::size_t kMost = 500;

  // `realtime`: CLOCK_REALTIME. Lines for debugging are not kept; of kMost the oldest goes.
  void add(Nanos realtime, LogLevel level, const std::string& text);

  // [{"time": "2026-01-31T12:00:00.123Z", "level": "notice", "text"}], oldest first; the last
  // `count` of them.
  [[nodiscard]] nlohmann::json last(std::size_t count) const;

 private:
  struct Line {
    Nanos realtime{0};
    LogLevel level = LogLevel::kNotice;
    std::string text;
  };
  std::deque<Line> lines_;
};

}  // namespace saru
