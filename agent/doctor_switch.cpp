// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/doctor_switch.h"

#include <algorithm>
#include <cstdio>

namespace saru {
namespace {

using std::string;
using Macs = std::set<MacAddress>;

string name_of(const SwitchSight& sight, const MacAddress& mac) {
  const auto found = sight.names.find(mac);
  return found == sight.names.end() ? mac.text() : found->second + " (" + mac.text() + ")";
}

string list(const SwitchSight& sight, const Macs& macs) {
  string text;
  for (const MacAddress& mac : macs) text += (text.empty() ? "" : ", ") + name_of(sight, mac);
  return text;
}

Macs all_of(const nft::SwitchAnswers& answers) {
  Macs all = answers.broadcast;
  all.insert(answers.flooded.begin(), answers.flooded.end());
  all.insert(answers.unknown.begin(), answers.unknown.end());
  return all;
}

Macs without_those(const Macs& all, const Macs& those) {
  Macs rest;
  std::set_difference(all.begin(), all.end(), those.begin(), those.end(),
                      std::inserter(rest, rest.end()));
  return rest;
}

string frames(const SwitchSight& sight) { return "frames to " + sight.shared_mac.text(); }

constexpr const char* kUnpin =
    "remove the address from the switch's table (it ages out, often after 5 minutes, unless "
    "somebody goes on sending from it), and port security or a static entry for it";
constexpr const char* kFlood =
    "let the switch flood unknown unicast on the nodes' ports: no blocking, no storm control, no "
    "suppression of it";

constexpr const char* kPinned = ": the switch has learned or pinned the address at ";

// Frames to the shared MAC reach none of the others.
Finding reach_none(const SwitchSight& sight) {
  const nft::SwitchAnswers& answers = sight.answers;
  const string head = frames(sight) + " reach no other node from here";
  if (!answers.asked_unknown) {
    return wrong("switch",
                 head +
                     ": the switch suppresses unknown unicast, or has learned or pinned the "
                     "address at some port",
                 string(kFlood) + "; or " + kUnpin);
  }
  if (answers.unknown.empty()) {
    return wrong("switch",
                 head + ", and none to an unknown address come in at " + sight.nic +
                     ": the switch suppresses unknown unicast",
                 kFlood);
  }
  if (!answers.inward.empty()) {
    return wrong("switch", head + ", those of others come in here" + kPinned + "this node's port",
                 kUnpin);
  }
  if (!answers.asked_inward.empty()) {
    return wrong("switch", head + ", and none come in" + kPinned + "a port of none of the nodes",
                 kUnpin);
  }
  return wrong("switch", head + kPinned + "this node's port, or one of none of the nodes", kUnpin);
}

// They reach some of the others.
Finding reach_some(const SwitchSight& sight, const Macs& missed) {
  const nft::SwitchAnswers& answers = sight.answers;
  const bool one = answers.flooded.size() == 1;
  if (one && answers.inward.empty()) {
    const string or_suppressed =
        answers.asked_inward.empty() ? ", or does not flood it to " + list(sight, missed) : "";
    return wrong("switch",
                 frames(sight) + " reach " + list(sight, answers.flooded) + " alone" + kPinned +
                     "that port" + or_suppressed,
                 answers.asked_inward.empty() ? string(kUnpin) + "; or " + kFlood : kUnpin);
  }
  return wrong("switch",
               frames(sight) + " do not reach " + list(sight, missed) +
                   ": the switch does not flood unknown unicast to their ports",
               kFlood);
}

Finding inspected(const SwitchSight& sight, const string& found) {
  return wrong("arp", found + ": the switch inspects ARP at this node's port",
               "switch ARP inspection (DAI, ARP spoofing protection) off at the nodes' ports, or "
               "allow " +
                   sight.address + " at " + sight.shared_mac.text() + " there");
}

// Those of this node reach the others, but what others send to an unknown MAC does not come in.
Finding not_inward(const SwitchSight& sight) {
  if (sight.answers.heard_to_shared) {
    return inspected(sight,
                     "ARP of this node that names another MAC than its own does not come through, "
                     "while packets to " +
                         sight.shared_mac.text() + " do come in at " + sight.nic);
  }
  return wrong("switch",
               "frames to an unknown address do not come in at " + sight.nic +
                   ", while those of "
                   "this node to " +
                   sight.shared_mac.text() +
                   " reach the others: the switch "
                   "does not flood unknown unicast to this node's port, or drops ARP of it that "
                   "names another MAC",
               string(kFlood) + "; and no ARP inspection there");
}

// Unknown unicast comes in, but nothing that is asked for to the shared MAC.
Finding not_shared(const SwitchSight& sight) {
  // Two nodes get what goes to it: then the switch has it at no port.
  if (sight.answers.flooded.size() > 1) {
    return inspected(
        sight, "ARP of this node that names " + sight.shared_mac.text() + " does not come through");
  }
  return wrong("switch",
               frames(sight) + " do not come in at " + sight.nic +
                   ", while those to an unknown "
                   "address do" +
                   kPinned + "another port, or inspects ARP at this one",
               string(kUnpin) + "; and no ARP inspection there");
}

Findings judge_flooding(const SwitchSight& sight) {
  const nft::SwitchAnswers& answers = sight.answers;
  const Macs all = all_of(answers);
  if (all.empty()) {
    return {doubt("switch",
                  "no other node answers at " + sight.nic + ", so nothing is known of the switch",
                  "see arp")};
  }
  const Macs missed = without_those(all, answers.flooded);
  if (answers.flooded.empty()) return {reach_none(sight)};
  if (!missed.empty()) return {reach_some(sight, missed)};
  if (!answers.asked_unknown) {
    return {fine("switch", frames(sight) + " reach " + list(sight, all) +
                               "; whether they come in here, only IPv4 can tell")};
  }
  if (answers.unknown.empty()) return {not_inward(sight)};
  const Macs unheard = without_those(all, answers.unknown);
  if (!unheard.empty()) {
    return {wrong("switch",
                  "frames of " + list(sight, unheard) +
                      " to an unknown address do not come in at " + sight.nic +
                      ": some switch between does not flood them",
                  kFlood)};
  }
  if (!answers.asked_inward.empty() && answers.inward.empty()) return {not_shared(sight)};
  const bool seen = answers.inward == all;
  return {fine("switch", frames(sight) + " reach " + list(sight, all) +
                             (seen ? ", and come in at " : ", and unknown unicast comes in at ") +
                             sight.nic)};
}

Finding judge_arp(const SwitchSight& sight) {
  const Macs all = all_of(sight.answers);
  const string question = sight.answers.asked_unknown ? "ARP" : "neighbour discovery";
  if (all.size() >= sight.expected) {
    return fine("arp", "all other nodes (" + std::to_string(all.size()) + ") answer " + question +
                           " for " + sight.address + " at " + sight.nic);
  }
  string missing;
  for (const auto& [mac, name] : sight.names) {
    if (all.count(mac) == 0) missing += (missing.empty() ? "" : ", ") + name;
  }
  const string which = missing.empty() ? "" : "; silent: " + missing;
  return wrong("arp",
               std::to_string(sight.expected - all.size()) + " of " +
                   std::to_string(sight.expected) + " other nodes do not answer " + question +
                   " for " + sight.address + " at " + sight.nic + which,
               "look at saructl doctor there; if all is well there, the switch drops what names " +
                   sight.shared_mac.text() +
                   ": switch ARP inspection (DAI, ARP spoofing protection, " +
                   "forged transmits of a hypervisor) off at the nodes' ports");
}

string type_name(std::uint16_t type) {
  if (type == 0x8035) return "RARP, as hypervisors send after a migration";
  if (type == 0x0806) return "ARP";
  if (type == 0x0800) return "IPv4";
  if (type == 0x86dd) return "IPv6";
  char text[16];
  std::snprintf(text, sizeof text, "type 0x%04x", static_cast<unsigned>(type));
  return text;
}

Finding judge_source(const SwitchSight& sight) {
  const auto& types = sight.answers.types_from_shared;
  if (types.empty()) {
    return fine("mac", "nothing comes in at " + sight.nic + " from " + sight.shared_mac.text());
  }
  string kinds;
  for (const std::uint16_t type : types) kinds += (kinds.empty() ? "" : "; ") + type_name(type);
  return wrong("mac",
               "frames from the shared MAC " + sight.shared_mac.text() + " come in at " +
                   sight.nic + " (" + kinds + "): the switch learns the address from them",
               "find who sends them: a hypervisor that announces the MAC (turn that off: "
               "notify-switches, RARP), another cluster with the same id in this LAN (give it "
               "another), or a node without saru's rules (saructl check)");
}

Finding judge_claims(const SwitchSight& sight) {
  const Macs& who = sight.answers.claimants;
  if (who.empty()) return fine("address", "nobody else claims " + sight.address);
  return wrong("address",
               sight.address + " is also claimed by " + list(sight, who) +
                   ", with its own MAC: "
                   "clients that learn it meet that machine alone",
               "take the address away there, or set net.ipv4.conf.NIC.arp_ignore=1 for all its "
               "NICs in this LAN");
}

}  // namespace

Findings judge_switch(const SwitchSight& sight) {
  if (sight.expected == 0) {
    return {fine("switch", "no other node serves now, so the switch was not asked")};
  }
  Findings all = judge_flooding(sight);
  all.push_back(judge_arp(sight));
  all.push_back(judge_source(sight));
  all.push_back(judge_claims(sight));
  return all;
}

}  // namespace saru
