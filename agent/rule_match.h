// SPDX-License-Identifier: GPL-2.0-or-later
// Whether a packet fits one condition of a rule in nft's JSON. Pure.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "agent/rule_walk.h"

namespace saru {

enum class Fits { kNo, kMaybe, kYes };

inline Fits both(Fits a, Fits b) { return a < b ? a : b; }

// The elements of a named set or map; null: not known, or they change by themselves.
using Elements = std::function<nlohmann::json(const std::string& name)>;

// {"match": {"op", "left", "right"}}
[[nodiscard]] Fits fits(const nlohmann::json& match, const Packet& packet,
                        const Elements& elements);

// Whether what `left` means has this value, for the entries of a verdict map.
[[nodiscard]] Fits has_value(const nlohmann::json& left, const nlohmann::json& value,
                             const Packet& packet, const Elements& elements);

}  // namespace saru
