// SPDX-License-Identifier: GPL-2.0-or-later
// What the switch does with the shared MAC, found out from one node (saructl doctor).
//
// Every node's kernel answers who asks for a shared address, with its own MAC as Ethernet source.
// So who answers tells which nodes a question has reached:
//   flooded    questions sent to the shared MAC: it has reached those that the switch floods it to
//   broadcast  the same question, to all: who is there at all, and whose answers come through
//   inward     asked by broadcast to answer to the shared MAC: whose frames to it come in here
// Nobody learns anything from these questions: they come from no IP address.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>

#include "nft/address.h"
#include "nft/result.h"

namespace saru::nft {

struct SwitchQuestion {
  unsigned nic = 0;  // its index
  MacAddress own_mac;
  MacAddress shared_mac;
  IpAddress address;  // a shared one
};

struct SwitchAnswers {
  std::set<MacAddress> flooded, broadcast, inward;
  bool asked_inward = false;                  // IPv4 alone can be asked so
  bool heard_to_shared = false;               // IP packets of others to the shared MAC came in
  std::set<std::uint16_t> types_from_shared;  // EtherTypes of frames that came in from it
  std::set<MacAddress> claimants;             // who says that the address has its own MAC
};

// Asks up to three times, each time until `expected` others have answered or a third of `patience`
// is over, first to the shared MAC, then by broadcast; listens for `patience` at least.
// kNotPermitted without CAP_NET_RAW.
Result<SwitchAnswers> probe_switch(const SwitchQuestion& question, std::size_t expected,
                                   std::chrono::milliseconds patience);

}  // namespace saru::nft
