// SPDX-License-Identifier: GPL-2.0-or-later
// All reasons why this node may not own blocks at the moment; any one is enough. Pure.
#pragma once

#include <map>
#include <string>

#include "agent/core/core.h"
#include "nft/plan.h"

namespace saru {

struct Eligibility {
  // The interfaces of one network.
  struct Lan {
    std::string nic;
    bool nic_there = true;
    bool carrier = true;     // of the NIC
    bool link_there = true;  // our interface; lost, and cannot be made anew
  };
  std::map<nft::Side, Lan> lans;
  bool drained = false;        // saructl drain
  bool corosync_stays = true;  // no clean shutdown of corosync is under way
  // What keeps two quorate sides from serving one block is what it was at our start.
  bool quorum_as_before = true;

  SetEligible event() const {
    if (!corosync_stays) return {false, "corosync shuts down"};
    for (const auto& [side, lan] : lans) {
      if (!lan.nic_there) return {false, lan.nic + " is gone"};
      if (!lan.carrier) return {false, "carrier lost on " + lan.nic};
      if (!lan.link_there) return {false, "its interface is gone and cannot be made anew"};
    }
    if (!quorum_as_before) {
      return {false, "the rules of quorum or fencing have changed: restart the resource"};
    }
    if (drained) return {false, "drained by the administrator"};
    return {true, ""};
  }
};

}  // namespace saru
