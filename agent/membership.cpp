// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/membership.h"

#include <algorithm>
#include <cstdio>

#include "agent/core/fnv.h"

namespace saru {
namespace {

using std::string;

// ";ADDRESS" of each, in no order of the list.
string sorted_text(const std::vector<ServiceAddress>& list) {
  std::vector<string> addresses;
  addresses.reserve(list.size());
  for (const ServiceAddress& address : list) addresses.push_back(address.text());
  std::sort(addresses.begin(), addresses.end());
  string all;
  for (const string& address : addresses) all += ";" + address;
  return all;
}

tl::unexpected<Failure> refuse(const string& sentence) {
  return tl::unexpected(Failure{ExitCode::kBadConfiguration, sentence});
}

// What waits for a lost vote is said in Hellos, which know no longer wait than an hour.
constexpr std::chrono::minutes kLongestDeviceTimeout{30};

bool may_wait(const ClusterFacts& facts, const Options& options) {
  const bool wanted = options.fencing == Fencing::kWait ||
                      (options.fencing == Fencing::kAuto && facts.quorate_sides_may_differ());
  return wanted && facts.nodes.size() == 2;
}

// The sentences stand in Pacemaker's status, which shows little more than a hundred characters.
tl::expected<void, Failure> check_fencing(const ClusterFacts& facts, const Options& options) {
  if (options.fencing == Fencing::kIgnore) return {};
  const bool waits = options.fencing == Fencing::kWait;
  if (waits && facts.nodes.size() != 2) {
    return refuse("fencing=wait is for two nodes, and here are " +
                  std::to_string(facts.nodes.size()) + ": use fencing=auto");
  }
  if (may_wait(facts, options) && !options.stonith) {
    return tl::unexpected(
        Failure{ExitCode::kFailed,
                "Pacemaker does not say whether it fences nodes (crm_attribute): is it up?"});
  }
  if (const auto partner = partner_of(facts, options)) {
    if (!node_names(facts)[*partner].empty()) return {};
    return refuse("to wait for fencing, give the nodes names in corosync.conf (nodelist)");
  }
  if (waits || facts.two_node) {
    return refuse(
        "two nodes without fencing can both serve one block: set stonith-enabled=true, "
        "or accept that: fencing=ignore");
  }
  if (facts.last_man_standing) {
    return refuse(
        "with last_man_standing two sides can serve one block: remove it, "
        "or accept that: fencing=ignore");
  }
  if (facts.auto_tie_breaker) {
    return refuse(
        "with auto_tie_breaker two sides can serve one block: remove it, "
        "or accept that: fencing=ignore");
  }
  if (facts.quorum_device && !facts.device_halves) {
    return refuse(
        "with this quorum device two sides can serve one block: give it the algorithm ffsplit, "
        "or accept that: fencing=ignore");
  }
  return {};
}

}  // namespace

tl::expected<void, Failure> check_cluster(const ClusterFacts& facts, const Options& options) {
  if (!facts.quorum_provider) {
    return refuse(
        "corosync has no quorum: set quorum.provider to corosync_votequorum in corosync.conf");
  }
  if (facts.nodes.size() > kMaxMembers) {
    return refuse("the cluster has " + std::to_string(facts.nodes.size()) +
                  " nodes; a corosync process group, and so saru, has at most " +
                  std::to_string(kMaxMembers));
  }
  if (lease_of(facts, options) > std::chrono::milliseconds(kMaxLeaseMs)) {
    return refuse("corosync's token and consensus give a lease of more than " +
                  std::to_string(kMaxLeaseMs / 60000) +
                  " minutes: lower totem.token, or give lease-ms");
  }
  if (facts.quorum_device && facts.device_timeout > kLongestDeviceTimeout) {
    return refuse("quorum.device.timeout is " +
                  std::to_string(facts.device_timeout / std::chrono::milliseconds(1)) +
                  " ms: nobody's blocks would wait that long; lower it to " +
                  std::to_string(kLongestDeviceTimeout / std::chrono::milliseconds(1)) +
                  " at most in corosync.conf");
  }
  return check_fencing(facts, options);
}

std::optional<NodeId> partner_of(const ClusterFacts& facts, const Options& options) {
  if (!may_wait(facts, options) || !options.stonith.value_or(false)) return std::nullopt;
  return facts.nodes.front().id == facts.local ? facts.nodes.back().id : facts.nodes.front().id;
}

Nanos device_lag_of(const ClusterFacts& facts) {
  return facts.quorum_device ? std::max(facts.device_timeout, Nanos(1)) : Nanos(0);
}

Nanos lease_of(const ClusterFacts& facts, const Options& options) {
  if (options.lease_ms) return std::chrono::milliseconds(*options.lease_ms);
  const double detection = static_cast<double>((facts.token + facts.consensus).count());
  return Nanos(static_cast<Nanos::rep>(kLeaseFactor * detection));
}

std::uint64_t hash_of(const Options& options, Nanos lease) {
  string all = std::to_string(options.blocks) + ";" + selector_name(options.selection.selector) +
               ";" + to_text(options.selection.services) + ";" +
               std::to_string(options.selection.seed) + ";" + options.delivery + ";" +
               options.connections + ";" + options.mac.text() + ";" + std::to_string(lease.count());
  all += sorted_text(options.addresses);
  if (options.inside) {
    all += ";inside;" + options.inside->mac.text() + sorted_text(options.inside->addresses);
  }
  if (options.fencing == Fencing::kIgnore) all += ";ignore";
  return fnv1a(all);
}

string hash_text(std::uint64_t hash) {
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash));
  return hex;
}

VotesChanged votes_of(const ClusterFacts& facts) {
  VotesChanged all;
  unsigned sum = 0;
  for (const ClusterNode& node : facts.nodes) {
    all.votes[node.id] = node.votes;
    sum += node.votes;
  }
  all.expected_votes = facts.expected_votes != 0 ? facts.expected_votes : sum;
  all.quorum_votes = facts.two_node ? 1 : all.expected_votes / 2 + 1;
  return all;
}

Config make_config(const ClusterFacts& facts, const Options& options, const string& host_name) {
  Config config;
  config.node = facts.local;
  config.node_name = node_names(facts)[facts.local];
  if (config.node_name.empty()) config.node_name = host_name;
  if (config.node_name.size() > kMaxNodeName) config.node_name.resize(kMaxNodeName);
  // Messages carry printable ASCII; what else a name may have is only for people.
  for (char& c : config.node_name) {
    if (c < ' ' || c > '~') c = '?';
  }
  config.blocks = options.blocks;
  config.lease = lease_of(facts, options);
  config.config_hash = hash_of(options, config.lease);
  config.weight = options.weight;
  const VotesChanged votes = votes_of(facts);
  config.votes = votes.votes;
  config.quorum_votes = votes.quorum_votes;
  config.expected_votes = votes.expected_votes;
  config.partner = partner_of(facts, options);
  config.device_lag = device_lag_of(facts);
  config.stays = options.stays();
  config.syncs = options.syncs();
  config.votes_decide = options.fencing != Fencing::kIgnore;
  return config;
}

std::map<NodeId, string> node_names(const ClusterFacts& facts) {
  std::map<NodeId, string> names;
  for (const ClusterNode& node : facts.nodes) names[node.id] = node.name;
  return names;
}

}  // namespace saru
