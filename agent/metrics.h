// SPDX-License-Identifier: GPL-2.0-or-later
// The numbers of one sarud, on their way to `saructl metrics`.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/ownership.h"

namespace saru {

// Makes counters that only ever go up of such as begin anew at times: a table that was built again,
// a copy that was started over.
class Rising {
 public:
  std::uint64_t value(const std::string& name, std::uint64_t read);

 private:
  struct Counter {
    std::uint64_t before = 0;  // up to where it began anew
    std::uint64_t read = 0;
  };
  std::map<std::string, Counter> counters_;
};

// {"views", "lapses", ...: what agent/ownership.h counts,
//  "without_owner": {"handed_over": {"counts": [one for each limit, not summed up], "count",
//                    "sum_ns"}, "lost", "closed"}}
[[nodiscard]] nlohmann::json describe(const Tally& tally);

}  // namespace saru
