// SPDX-License-Identifier: GPL-2.0-or-later
// What agent/ownership.h knows, as JSON. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "agent/ownership.h"

namespace saru {

// Oldest first:
// [{"time", "view", "quorate", "why": [sentence], "members": [node],
//   "moves": [{"from": node or null, "to": node or null, "blocks": "0-15,32"}],
//   "taken": [{"time", "from": node or null, "ended": "handed_over", "lost", "closed" or null,
//              "without_owner_us": number or null, "blocks"}]}]
[[nodiscard]] nlohmann::json describe(const Ownership& ownership);

}  // namespace saru
