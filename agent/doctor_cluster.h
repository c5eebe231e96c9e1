// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: what corosync.conf and Pacemaker say of the cluster. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/doctor.h"
#include "cpg/cmap.h"

namespace saru {

[[nodiscard]] Finding judge_encryption(const ClusterFacts& facts);
[[nodiscard]] Findings judge_knet(const ClusterFacts& facts);
// `lease_ms`: the one in force.
[[nodiscard]] Finding judge_lease(const ClusterFacts& facts, std::int64_t lease_ms);

struct FencingSight {
  std::optional<bool> enabled;  // stonith-enabled; nullopt: Pacemaker does not say
  // The agents of the configured devices; nullopt: Pacemaker does not say.
  std::optional<std::vector<std::string>> agents;
};
[[nodiscard]] Finding judge_fencing(const ClusterFacts& facts, const FencingSight& sight);

// The agents (type="...") of the fence devices in Pacemaker's XML.
[[nodiscard]] std::vector<std::string> fence_agents(const std::string& xml);

}  // namespace saru
