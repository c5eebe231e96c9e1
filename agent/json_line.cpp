// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/json_line.h"

namespace saru {

using nlohmann::json;

std::optional<json> read_object(const std::string& text) {
  bool refused = false;
  const auto look = [&refused](int depth, json::parse_event_t, json& value) {
    refused = refused || depth > static_cast<int>(kMaxNesting) || value.is_number_float();
    return !refused;
  };
  json read = json::parse(text, look, false);
  if (refused || !read.is_object()) return std::nullopt;
  return read;
}

}  // namespace saru
