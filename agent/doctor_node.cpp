// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/doctor_node.h"

#include <algorithm>
#include <sstream>

#include "agent/health.h"
#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

string list(const std::vector<string>& words) {
  string text;
  for (const string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

Findings judge_service(const json& status) {
  Findings all;
  bool kernel = false;
  bool service = false;
  const auto say = [&](const string& found, const string& remedy) {
    // As nft/sysctl.h names settings.
    const bool setting = found.find("net.ipv") != string::npos;
    (setting ? kernel : service) = true;
    all.push_back(setting ? doubt("kernel", found,
                                  remedy + "; find what sets it (/etc/sysctl.d, tuned, a network "
                                           "manager)")
                          : doubt("service", found, remedy));
  };
  for (const json& warning : status.value("warnings", json::array())) {
    say(warning.get<string>(), "what it says, see docs/neighbours.md");
  }
  json rest = status;
  rest["warnings"] = json::array();
  if (const auto found = find_shortcoming(rest)) {
    say(found->sentence, "look at saructl status and saructl events");
  }
  if (!service) {
    all.insert(all.begin(),
               fine("service", status.at("state").get<string>() + ", owns " +
                                   std::to_string(status.at("owns").get<unsigned>()) + " of " +
                                   std::to_string(blocks_in(status)) + " blocks"));
  }
  if (!kernel) {
    all.push_back(fine("kernel",
                       "sarud finds arp_ignore, arp_announce, rp_filter and the like as they "
                       "should be"));
  }
  return all;
}

Findings judge_blocks(const json& audit) {
  const Answer answer = text_of_check(audit);
  Findings all;
  std::istringstream lines(answer.text);
  string line;
  while (std::getline(lines, line)) {
    all.push_back(
        answer.good ? fine("blocks", line)
                    : wrong("blocks", line, "saructl status on the nodes that it names says why"));
  }
  return all;
}

Finding judge_version(const string& daemon, const string& own) {
  if (daemon == own) return fine("version", "sarud and saructl are of version " + own);
  return doubt("version",
               "sarud is of version " + daemon + ", saructl of " + own +
                   ": it was installed while sarud ran",
               "pcs node standby and unstandby this node, one node after the other, so that sarud "
               "starts anew");
}

Finding judge_bridge(const BridgeSight& sight) {
  if (sight.ports.size() < 2) {
    return fine("bridge",
                sight.nic + (sight.ports.empty() ? " is no bridge" : " is a bridge with one port"));
  }
  if (sight.calls.empty()) {
    return fine("bridge", "the rules do not see what passes " + sight.nic + " from port to port");
  }
  string set;
  for (const string& call : sight.calls) set += (set.empty() ? "sysctl -w " : " ") + call + "=0";
  return doubt("bridge",
               sight.nic + " is a bridge with the ports " + list(sight.ports) + ", and " +
                   list(sight.calls) +
                   " is 1: this node drops what is for a member behind it, "
                   "such as a virtual machine of this cluster",
               set + ", and in /etc/sysctl.d; or keep members out from behind it");
}

Finding judge_saved(const std::vector<string>& files) {
  if (files.empty()) return fine("saved", "no saved ruleset has tables of saru");
  return wrong("saved",
               list(files) +
                   " has tables of saru (saru_*): nft 1.0.6 refuses the whole file, and "
                   "the node boots without its firewall",
               "take the tables saru_* out of it (nft list ruleset | sed '/^table [a-z0-9]* "
               "saru_/,/^}/d'), and try it with nft -c -f");
}

Finding judge_managers(const std::vector<ManagerSight>& managers) {
  string good;
  for (const ManagerSight& one : managers) {
    if (!one.running) continue;
    if (!one.told) {
      return doubt("manager",
                   one.name +
                       " runs and is not told to leave the interfaces saru* alone: it may "
                       "change them, and sarud has to put them back",
                   "install " + one.file + " (docs/neighbours.md), then " + one.reload);
    }
    good += (good.empty() ? "" : ", ") + one.name;
  }
  return fine("manager", good.empty() ? "no network manager runs here"
                                      : good + " leaves the interfaces saru* alone");
}

Finding judge_conntrack(const ConntrackSight& sight) {
  if (sight.connections == "none" || !sight.count || !sight.max || *sight.max <= 0) {
    return fine("conntrack", sight.connections == "none" ? "not needed (connections none)"
                                                         : "its table does not say how full it is");
  }
  const string found = std::to_string(*sight.count) + " of " + std::to_string(*sight.max) +
                       " connections (nf_conntrack_max)";
  if (*sight.count * 10 < *sight.max * 9) return fine("conntrack", found);
  return doubt("conntrack", found + ": when it is full, new connections are dropped",
               "raise net.netfilter.nf_conntrack_max on all nodes");
}

Finding judge_clock(const ClockSight& sight) {
  const auto has = [&](const char* name) {
    return std::find(sight.available.begin(), sight.available.end(), name) != sight.available.end();
  };
  const string remedy =
      "look for \"clocksource\" in dmesg; on a virtual machine choose the hypervisor's clock "
      "(kvm-clock, hyperv, xen) or a host with a stable TSC";
  const string found = "the clock source is " + (sight.source.empty() ? "not known" : sight.source);
  if (sight.source == "jiffies" || sight.source == "pit" || sight.source == "refined-jiffies") {
    return wrong("clock", found + ": its rate may be wrong by more than the 1 % that leases allow",
                 remedy);
  }
  if ((sight.source == "hpet" || sight.source == "acpi_pm") && !has("tsc")) {
    return doubt("clock", found + ", since the kernel found the TSC unstable: it is slow to read",
                 remedy);
  }
  return fine("clock", found + (sight.synchronised
                                    ? "; the wall clock is synchronised"
                                    : "; the wall clock is not synchronised: leases do not need "
                                      "it, but the logs of the nodes do not match"));
}

}  // namespace saru
