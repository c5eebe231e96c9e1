// SPDX-License-Identifier: GPL-2.0-or-later
// From what corosync and the options say to the core's configuration. Pure.
#pragma once

#include <map>
#include <string>
#include <tl/expected.hpp>

#include "agent/core/state.h"
#include "agent/exit_code.h"
#include "agent/options.h"
#include "cpg/cmap.h"

namespace saru {

// Refuses clusters without quorum, more nodes than a CPG group can have, and those in which two
// quorate sides need not share a node and nothing keeps them from serving the same block (unless
// that is accepted in so many words).
tl::expected<void, Failure> check_cluster(const ClusterFacts& facts, const Options& options);

// The node whose fencing is waited for, in a cluster that check_cluster() accepts.
std::optional<NodeId> partner_of(const ClusterFacts& facts, const Options& options);

// For how long a lost vote of the quorum device may count; 0 without one.
Nanos device_lag_of(const ClusterFacts& facts);

// kLeaseFactor x (token + consensus), unless given.
Nanos lease_of(const ClusterFacts& facts, const Options& options);

// Equal on two nodes exactly when they may serve the address together.
std::uint64_t hash_of(const Options& options, Nanos lease);

// A configuration's hash as status shows it: 16 hexadecimal digits.
std::string hash_text(std::uint64_t hash);

// The votes as the core takes them.
VotesChanged votes_of(const ClusterFacts& facts);

Config make_config(const ClusterFacts& facts, const Options& options, const std::string& host_name);
std::map<NodeId, std::string> node_names(const ClusterFacts& facts);

}  // namespace saru
