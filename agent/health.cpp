// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/health.h"

#include <algorithm>
#include <chrono>

namespace saru {
namespace {

using nlohmann::json;
using std::string;

// Long enough for a recurring monitor of the usual interval to see it.
constexpr std::chrono::minutes kRememberRepairs{1};

std::optional<Shortcoming> find_repair(const json& status) {
  const json repair = status.value("restored", json());
  if (!repair.is_object()) return std::nullopt;
  const std::chrono::milliseconds ago(repair.at("ms_ago").get<std::int64_t>());
  if (ago > kRememberRepairs) return std::nullopt;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(ago).count();
  return Shortcoming{"the kernel's rules or link had to be restored " + std::to_string(seconds) +
                         " s ago: " + repair.at("what").get<string>(),
                     false};
}

// Pacemaker tells one node after the other; each opens a new view, which then is young.
std::optional<Shortcoming> find_waiting_change(const json& status) {
  constexpr std::chrono::seconds kRolling{30};
  const json& config = status.at("config");
  const std::chrono::milliseconds age(status.at("view").at("age_ms").get<std::int64_t>());
  if (config.at("next").is_null() || age <= kRolling) return std::nullopt;
  string nodes;
  for (const json& node : config.at("waiting_for")) {
    nodes += (nodes.empty() ? "" : ", ") + node.get<string>();
  }
  return Shortcoming{"new parameters are not in force: these nodes do not have them: " + nodes,
                     false};
}

std::optional<Shortcoming> find_fencing_trouble(const json& status) {
  const json partner = status.value("partner", json());
  if (!partner.is_object()) return std::nullopt;
  const string node = partner.at("node").get<string>();
  if (partner.at("may_hold").get<bool>()) {
    return Shortcoming{"waits for the fencing of " + node + " (is it down? saructl confirm-dead " +
                           node + " --yes-it-is-down)",
                       false};
  }
  if (partner.at("blind").is_null()) return std::nullopt;
  return Shortcoming{"would not hear of fencing: " + partner.at("blind").get<string>(), false};
}

// After a start nobody knows who served before, so all wait for a lease, which with Corosync's
// default token takes some seconds.
bool waits_for_a_lease(const json& status, const string& state) {
  constexpr std::int64_t kToFormMs = 3000;
  constexpr std::int64_t kLongestMs = 60'000;
  const auto lease_ms = status.at("lease_ms").get<std::int64_t>();
  return state == "idle: owns nothing yet" &&
         status.at("age_ms").get<std::int64_t>() <=
             std::min(lease_ms + lease_ms / 10 + kToFormMs, kLongestMs);
}

}  // namespace

std::optional<Shortcoming> find_shortcoming(const json& status) {
  const string state = status.at("state").get<string>();
  if (status.at("draining").get<bool>()) return std::nullopt;
  // Of which no waiting makes an end.
  if (!status.at("eligible").get<bool>()) return Shortcoming{"takes no blocks: " + state, false};
  const json warnings = status.value("warnings", json::array());
  if (!warnings.empty()) return Shortcoming{warnings.front().get<string>(), false};
  if (auto repair = find_repair(status)) return repair;
  if (!status.at("quorate").get<bool>() || !status.at("view").at("confirmed").get<bool>()) {
    return Shortcoming{"the nodes have not agreed on who owns what: " + state, true};
  }
  if (auto waiting = find_waiting_change(status)) return waiting;
  if (auto trouble = find_fencing_trouble(status)) return trouble;
  const bool wants_blocks = status.at("weight").get<unsigned>() > 0;
  if (wants_blocks && status.at("owns").get<unsigned>() == 0 && !waits_for_a_lease(status, state)) {
    return Shortcoming{"serves nothing: " + state, true};
  }
  return std::nullopt;
}

}  // namespace saru
