// SPDX-License-Identifier: GPL-2.0-or-later
// Turns what the judge found into a verdict, JSON and a few lines of text.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "witness_judge.h"

namespace witness {

enum class Verdict : int { kOk = 0, kViolation = 1, kInconclusive = 2 };

// Why a run cannot be trusted to have seen everything.
struct Doubt {
  std::string text;
  bool blind =
      false;  // there may have been answers that do not count: zero violations prove nothing
};
// Empty: it can.
std::vector<Doubt> doubts(const Totals& totals, const std::vector<std::string>& missing_links,
                          std::uint64_t clock_steps);
// A violation that was seen stays one, also in a run with doubts.
Verdict verdict_of(const Totals& totals, const std::vector<Doubt>& doubts);

nlohmann::ordered_json gap_json(const Setup& setup, const StreamKey& key, const Gap& gap);
nlohmann::ordered_json summary_json(const Setup& setup, const Judge& judge, Verdict verdict,
                                    const std::vector<Doubt>& doubts);
std::string summary_text(const nlohmann::ordered_json& summary);

}  // namespace witness
