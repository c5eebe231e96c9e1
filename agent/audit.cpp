// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/audit.h"

#include <algorithm>

namespace saru {

using nlohmann::json;

bool AuditRound::complete() const {
  return std::all_of(asked.begin(), asked.end(),
                     [this](const auto& member) { return replies.count(member.first) != 0; });
}

json describe(const AuditRound& round, std::int64_t waited_ms) {
  json members = json::array();
  std::map<BlockId, std::vector<std::string>> owners;
  BlockSet unowned(round.blocks);
  unowned.fill();
  for (const auto& [process, name] : round.asked) {
    const auto found = round.replies.find(process);
    json member = {{"id", process.node.value}, {"node", name}, {"answered", false}};
    if (found != round.replies.end()) {
      const AuditReply& reply = found->second;
      member["answered"] = true;
      member["open"] = reply.open;
      member["intact"] = reply.intact;
      member["held"] = reply.held.to_ranges();
      member["owns"] = reply.open ? reply.held.size() : 0;
      if (reply.open && reply.held.blocks() == round.blocks) {
        unowned -= reply.held;
        reply.held.for_each([&owners, &name = name](BlockId b) { owners[b].push_back(name); });
      }
    }
    members.push_back(std::move(member));
  }
  json twice = json::array();
  for (const auto& [block, nodes] : owners) {
    if (nodes.size() > 1) twice.push_back({{"block", block.value}, {"nodes", nodes}});
  }
  return {{"ok", true},
          {"blocks", round.blocks},
          {"waited_ms", waited_ms},
          {"members", std::move(members)},
          {"twice", std::move(twice)},
          {"unowned", unowned.to_ranges()},
          {"unowned_count", unowned.size()}};
}

}  // namespace saru
