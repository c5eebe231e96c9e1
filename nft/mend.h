// SPDX-License-Identifier: GPL-2.0-or-later
// Puts back what others have changed on the macvlan, without an interruption of what it serves.
#pragma once

#include <string>
#include <vector>

#include "nft/netlink.h"
#include "nft/plan.h"
#include "nft/result.h"
#include "nft/sysctl.h"

namespace saru::nft {

struct Mended {
  std::vector<std::string> done;  // what was put back, one sentence each
  bool lost = false;              // the macvlan is gone, or not ours any more: make it anew
};

// Name, MAC, MTU and up state of the macvlan with this index over the NIC with index `nic`. One
// whose name another interface has taken meanwhile is deleted: lost.
Result<Mended> mend_link(NetlinkSocket& socket, const LinkConfig& config, unsigned index,
                         unsigned nic);

// Writes those settings that are not as they should be.
Result<void> mend_settings(const std::vector<Setting>& settings, Mended& mended);

// Addresses on the macvlan that are not among `ours` go; says which of those are missing, for
// whoever renews them next.
Result<void> mend_addresses(NetlinkSocket& socket, const LinkConfig& config,
                            const std::vector<IpAddress>& ours, unsigned index, Mended& mended);

}  // namespace saru::nft
