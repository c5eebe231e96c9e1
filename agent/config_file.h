// SPDX-License-Identifier: GPL-2.0-or-later
// The file that sarud --config reads, saru.conf(5): lines "name = value", with the names of
// options.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "agent/exit_code.h"

namespace saru {

// By name. What is said in several lines (lists) has them joined by commas, and the last one's
// number.
struct ConfigValue {
  std::string text;
  unsigned line = 0;
};
using ConfigValues = std::map<std::string, ConfigValue>;

// What a name is.
enum class ConfigName {
  kUnknown,
  kValue,       // once per file
  kList,        // as often as one likes
  kNotInFiles,  // an option that says what this run is for
};
using NameJudge = ConfigName (*)(std::string_view name);

// Pure. `path` is for the sentences: each failure is kBadConfiguration and begins with "PATH:LINE:
// ".
tl::expected<ConfigValues, Failure> parse_config(const std::string& path, std::string_view content,
                                                 NameJudge judge);

// Refuses what is no ordinary file, is larger than 64 KiB, belongs neither to root nor to whoever
// asks, or can be written by others.
tl::expected<ConfigValues, Failure> read_config(const std::string& path, NameJudge judge);

}  // namespace saru
