// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/fencing_news.h"

#include <charconv>
#include <string_view>

namespace saru {
namespace {
constexpr std::string_view kFenced = "fenced ";
constexpr std::string_view kAlone = "fenced alone ";
}  // namespace

std::optional<FencingNews> parse_fencing_news(const std::string& line) {
  using Kind = FencingNews::Kind;
  if (line == "watching") return FencingNews{Kind::kWatching, "", Nanos(0), false};
  if (line.starts_with("blind ")) return FencingNews{Kind::kBlind, line.substr(6), Nanos(0), false};
  const bool alone = line.starts_with(kAlone);
  const std::string_view begin = alone ? kAlone : kFenced;
  if (!line.starts_with(begin)) return std::nullopt;
  std::int64_t raw = 0;
  const char* last = line.data() + line.size();
  const auto [end, error] = std::from_chars(line.data() + begin.size(), last, raw);
  if (error != std::errc{} || end != last || raw < 0) return std::nullopt;
  return FencingNews{Kind::kFenced, "", Nanos(raw), alone};
}

std::string to_line(const FencingNews& news) {
  switch (news.kind) {
    case FencingNews::Kind::kWatching:
      return "watching\n";
    case FencingNews::Kind::kBlind:
      return "blind " + news.reason + "\n";
    case FencingNews::Kind::kFenced:
      break;
  }
  return std::string(news.alone ? kAlone : kFenced) + std::to_string(news.began_after.count()) +
         "\n";
}

}  // namespace saru
