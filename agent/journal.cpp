// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/journal.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace saru {
namespace {

using std::string;

const char* word(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kNotice:
      return "notice";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      break;
  }
  return "debug";
}

}  // namespace

string rfc3339(Nanos realtime) {
  const std::time_t seconds = realtime.count() / 1'000'000'000;
  const auto ms = static_cast<int>(realtime.count() / 1'000'000 % 1000);
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  char text[48];
  std::snprintf(text, sizeof text, "%s.%03dZ", date, ms);
  return text;
}

void Journal::add(Nanos realtime, LogLevel level, const string& text) {
  if (level == LogLevel::kDebug) return;
  lines_.push_back({realtime, level, text});
  if (lines_.size() > kMost) lines_.pop_front();
}

nlohmann::json Journal::last(std::size_t count) const {
  nlohmann::json lines = nlohmann::json::array();
  for (std::size_t i = lines_.size() - std::min(count, lines_.size()); i < lines_.size(); ++i) {
    const Line& line = lines_[i];
    lines.push_back(
        {{"time", rfc3339(line.realtime)}, {"level", word(line.level)}, {"text", line.text}});
  }
  return lines;
}

}  // namespace saru
