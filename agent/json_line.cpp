// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/json_line.h"

namespace saru {

using nlohmann::json;

std::optional<json> read_object(const std::string& text) {
  bool too_deep = false;
  const auto look = [&too_deep](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > static_cast<int>(kMaxNesting);
    return !too_deep;
  };
  json read = json::parse(text, look, false);
  if (too_deep || !read.is_object()) return std::nullopt;
  return read;
}

}  // namespace saru
