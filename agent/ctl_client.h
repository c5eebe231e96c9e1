// SPDX-License-Identifier: GPL-2.0-or-later
// How saructl finds a sarud and asks it something.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/exit_code.h"

namespace saru {

// Every sarud that was started here and has not ended in order, whether it answers or not; sorted.
std::vector<std::uint16_t> known_ids();

// The id that was asked for; otherwise the only one that answers on this node. kNotRunning when
// none does, kBadHere when several do.
tl::expected<std::uint16_t, Failure> choose_id(std::optional<std::uint16_t> asked);

// Sends one request and waits for the answer, `limit` at most. An answer with "ok": false is a
// failure with its sentence.
tl::expected<nlohmann::json, Failure> ask(std::uint16_t id, const nlohmann::json& request,
                                          std::chrono::milliseconds limit);

}  // namespace saru
