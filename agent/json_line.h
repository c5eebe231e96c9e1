// SPDX-License-Identifier: GPL-2.0-or-later
// JSON from the other end of the control socket, or from a file that somebody may have written
// into: what could exhaust the stack is refused, and so are numbers that are not whole: neither
// side writes any, and converting one to an integer that has no room for it is undefined.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace saru {

// Arrays and objects inside each other; the library copies and prints them by recursion.
inline constexpr unsigned kMaxNesting = 16;

// One JSON object; nullopt: anything else, or one that nests deeper or has such a number.
[[nodiscard]] std::optional<nlohmann::json> read_object(const std::string& text);

}  // namespace saru
