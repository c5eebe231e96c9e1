// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: what the answers of the other nodes say of the switch. Pure.
//   switch   frames to the shared MAC reach every node
//   arp      every node's ARP (or neighbour discovery) for the shared address comes through
//   mac      nobody sends from the shared MAC
//   address  nobody else claims the address
#pragma once

#include <map>
#include <string>

#include "agent/doctor.h"
#include "nft/switch_probe.h"

namespace saru {

struct SwitchSight {
  std::string nic;
  MacAddress shared_mac;
  std::string address;                      // that was asked for
  std::size_t expected = 0;                 // other nodes that should answer
  std::map<MacAddress, std::string> names;  // of the nodes whose MAC is known
  nft::SwitchAnswers answers;
};

[[nodiscard]] Findings judge_switch(const SwitchSight& sight);

}  // namespace saru
