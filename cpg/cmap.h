// SPDX-License-Identifier: GPL-2.0-or-later
// What corosync's configuration map says about this cluster (libcmap).
#pragma once

#include <qb/qbloop.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/core/types.h"
#include "cpg/hooks.h"

namespace saru {

struct ClusterNode {
  NodeId id;
  std::string name;     // empty where the nodelist has none
  std::string address;  // ring0_addr
  std::uint32_t votes = 1;
};

struct ClusterFacts {
  NodeId local;
  std::string cluster_name;
  // As they are in force (runtime.config.totem.*), which is what a node waits for another one.
  Nanos token{0};
  Nanos consensus{0};
  std::vector<ClusterNode> nodes;  // sorted by id
  // As votequorum has them in force, which may differ from the configuration.
  std::uint32_t votes = 0;  // of this node
  std::uint32_t expected_votes = 0;
  bool two_node = false;
  bool last_man_standing = false;
  bool auto_tie_breaker = false;
  bool quorum_device = false;    // configured or registered
  bool device_halves = false;    // ... of the algorithm ffsplit: it votes for one of two halves
  Nanos device_timeout{0};       // for how long its last vote counts (quorum.device.timeout)
  bool quorum_provider = false;  // quorum.provider is corosync_votequorum
  std::string crypto_cipher;     // "none" where nothing is encrypted
  std::string transport;         // "knet" unless another is given
  std::uint32_t knet_mtu = 0;    // as configured; 0: knet measures it
  std::vector<Nanos> knet_ping_timeouts;  // as configured, of each link that has one

  // Whether two quorate sides of this cluster need not share a node.
  bool quorate_sides_may_differ() const {
    return two_node || last_man_standing || auto_tie_breaker || quorum_device;
  }
  const ClusterNode* find(NodeId id) const;
};

// Waits for corosync, but not longer than `limit`. The error says what is wrong and what to do:
// corosync does not run, does not answer, is too old, or may not be asked by this user.
[[nodiscard]] tl::expected<ClusterFacts, CorosyncError> read_facts(
    std::chrono::milliseconds limit = std::chrono::seconds(6));

// The same without waiting: `done` is called from the loop, once, unless corosync never answers.
void read_facts(qb_loop_t* loop,
                std::function<void(tl::expected<ClusterFacts, CorosyncError>)> done);

}  // namespace saru
