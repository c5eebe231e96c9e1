// SPDX-License-Identifier: GPL-2.0-or-later
// What the members' kernels hold together (saructl check). Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/core/message.h"

namespace saru {

struct AuditRound {
  std::uint64_t token = 0;
  unsigned blocks = 0;
  std::map<ProcessId, std::string> asked;  // who must answer, and what it is called
  std::map<ProcessId, AuditReply> replies;

  bool complete() const;
};

// {"ok", "blocks", "waited_ms", "members": [{"id", "node", "answered", "open", "intact", "held",
//  "owns"}], "twice": [{"block", "nodes"}], "unowned": ranges, "unowned_count"}. A closed kernel
// accepts nothing, whatever it holds.
[[nodiscard]] nlohmann::json describe(const AuditRound& round, std::int64_t waited_ms);

}  // namespace saru
