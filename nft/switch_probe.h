// SPDX-License-Identifier: GPL-2.0-or-later
// What the switch does with the shared MAC, found out from one node (saructl doctor).
//
// Every node's kernel answers who asks for a shared address, with its own MAC as Ethernet source.
// So who answers tells which nodes a question has reached:
//   flooded    questions sent to the shared MAC: it has reached those that the switch floods it to
//   broadcast  the same question, to all: who is there at all, and whose answers come through
//   unknown    asked by broadcast to answer to a MAC that nobody has: whether the switch floods
//              unknown unicast to this node
//   inward     asked for their own address, to answer to the shared MAC: whose frames to it come
//              in here. (For a shared address no answer would leave the node: its macvlan has that
//              MAC itself.)
// Nobody learns anything from these questions: they come from no IP address.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>

#include "nft/address.h"
#include "nft/result.h"

namespace saru::nft {

struct SwitchQuestion {
  unsigned nic = 0;  // its index
  MacAddress own_mac;
  MacAddress shared_mac;
  IpAddress address;  // a shared one
  // Own IPv4 addresses of others on this LAN, where they are known.
  std::map<MacAddress, IpAddress> neighbours;
};

struct SwitchAnswers {
  std::set<MacAddress> flooded, broadcast, unknown, inward;
  bool asked_unknown = false;                 // IPv4 alone can be asked so
  std::set<MacAddress> asked_inward;          // whose own address is known
  bool heard_to_shared = false;               // IP packets of others to the shared MAC came in
  std::set<std::uint16_t> types_from_shared;  // EtherTypes of frames that came in from it
  std::set<MacAddress> claimants;             // who says that the address has its own MAC
};

// Asks up to three times, each time until `expected` others have answered or a third of `patience`
// is over: first to the shared MAC, then by broadcast, then for own addresses; listens for
// `patience` at least.
// kNotPermitted without CAP_NET_RAW.
Result<SwitchAnswers> probe_switch(const SwitchQuestion& question, std::size_t expected,
                                   std::chrono::milliseconds patience);

}  // namespace saru::nft
