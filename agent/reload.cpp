// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/reload.h"

#include <algorithm>

#include "agent/membership.h"

namespace saru {
namespace {

using std::string;

string inside_nic(const Options& options) {
  return options.inside ? options.inside->nic : string();
}

std::vector<ServiceAddress> inside_addresses(const Options& options) {
  if (!options.inside) return {};
  auto addresses = options.inside->addresses;
  std::sort(addresses.begin(), addresses.end());
  return addresses;
}

// What the links, the tables and the run files are built upon.
std::optional<string> fixed_that_differs(const Options& running, const Options& wanted) {
  if (running.id != wanted.id) return "id";
  if (running.nic != wanted.nic) return "nic";
  if (running.mac != wanted.mac) return "mac";
  if (running.delivery != wanted.delivery) return "delivery";
  if (running.label != wanted.label) return "label";
  if (inside_nic(running) != inside_nic(wanted)) return "inside-nic";
  if (inside_addresses(running) != inside_addresses(wanted)) return "inside-ip";
  if (running.connections != wanted.connections) return "connections";
  return std::nullopt;
}

}  // namespace

tl::expected<Change, Failure> plan_change(const Options& running, Options wanted, Nanos lease) {
  if (const auto name = fixed_that_differs(running, wanted)) {
    return tl::unexpected(Failure{ExitCode::kBadConfiguration,
                                  *name + " cannot change while sarud runs: stop the resource on "
                                          "all nodes, change it, start it again"});
  }
  Change change;
  change.agreed.hash = hash_of(wanted, lease);
  change.agreed.blocks = wanted.blocks;
  change.agreed.lease = lease;
  change.agreed.keeps_blocks =
      running.blocks == wanted.blocks && running.selection == wanted.selection;
  change.options = std::move(wanted);
  return change;
}

}  // namespace saru
