// SPDX-License-Identifier: GPL-2.0-or-later
// Runs another program for what it prints.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace saru {

struct Printed {
  int code = 0;  // 127: there is no such program
  std::string text;
};

// Looks it up in PATH; its errors go to /dev/null. nullopt: it could not be started, did not end
// within `limit` (it is killed), or printed more than 64 MiB.
[[nodiscard]] std::optional<Printed> run_program(const std::vector<std::string>& words,
                                                 std::chrono::milliseconds limit);

}  // namespace saru
