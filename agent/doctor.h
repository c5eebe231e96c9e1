// SPDX-License-Identifier: GPL-2.0-or-later
// What saructl doctor finds, and how it says it. Pure. Each check has its judge in a doctor_*.h;
// agent/doctor_read.h reads what they judge.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace saru {

enum class Level { kOk, kWarning, kError };

struct Finding {
  std::string check;  // one word that stays the same from version to version
  Level level = Level::kOk;
  std::string found;   // what, and where
  std::string remedy;  // what to do; empty where all is well
};
using Findings = std::vector<Finding>;

Finding fine(const std::string& check, const std::string& found);
Finding doubt(const std::string& check, const std::string& found, const std::string& remedy);
Finding wrong(const std::string& check, const std::string& found, const std::string& remedy);

void append(Findings& all, Findings more);

// The words of --skip, and of each line: every check there is.
[[nodiscard]] const std::vector<std::string>& doctor_checks();

// Without those of the checks that the administrator does not want to hear of.
[[nodiscard]] Findings without(Findings all, const std::set<std::string>& skipped);

[[nodiscard]] bool is_well(const Findings& all);

// One line each, "LEVEL CHECK found. Remedy", and a last one that counts.
[[nodiscard]] std::string text_of_doctor(const Findings& all);

// {"errors", "warnings", "checks": [{"check", "level", "found", "remedy": null or sentence}]}
[[nodiscard]] nlohmann::json json_of_doctor(const Findings& all);

}  // namespace saru
