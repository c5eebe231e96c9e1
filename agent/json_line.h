// SPDX-License-Identifier: GPL-2.0-or-later
// JSON from the other end of the control socket, or from a file that somebody may have written
// into: what could exhaust the stack is refused.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace saru {

// Arrays and objects inside each other; the library copies and prints them by recursion.
inline constexpr unsigned kMaxNesting = 16;

// One JSON object; nullopt: anything else, or one that nests deeper.
[[nodiscard]] std::optional<nlohmann::json> read_object(const std::string& text);

}  // namespace saru
