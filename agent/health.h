// SPDX-License-Identifier: GPL-2.0-or-later
// Whether a sarud that runs, and whose kernel holds what it should, is also all that it could be.
// Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace saru {

// Of the description in agent/report.h. What is the administrator's plain will is no shortcoming: a
// node that was drained or has weight 0 owns nothing and is well.
struct Shortcoming {
  std::string sentence;     // what is not as it should be
  bool may_settle = false;  // a start, a reload or a view change shows it too, for a moment
};
[[nodiscard]] std::optional<Shortcoming> find_shortcoming(const nlohmann::json& status);

}  // namespace saru
