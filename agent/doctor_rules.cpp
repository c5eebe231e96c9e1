// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/doctor_rules.h"

#include <algorithm>

#include "agent/rule_walk.h"

namespace saru {
namespace {

using std::string;

// saru's own chains stand there (nft/plan.h).
constexpr int kOwnPriority = -310;
constexpr int kDnatPriority = -100;

constexpr const char* kAddService =
    "firewall-cmd --permanent --zone=public --add-service=SERVICE "
    "--add-service=high-availability; firewall-cmd --reload";

bool is_ours(const BaseChain& chain) { return chain.table.starts_with("saru_"); }

bool sees(const BaseChain& chain, const IpAddress& address) {
  if (chain.family == "inet" || chain.family == "netdev") return true;
  return chain.family == (address.is_v4() ? "ip" : "ip6");
}

bool has_device(const BaseChain& chain, const string& device) {
  return std::find(chain.devices.begin(), chain.devices.end(), device) != chain.devices.end();
}

// What this chain gets to see of the service; empty: nothing. `port`: of the service, if known.
std::vector<Packet> packets_for(const BaseChain& chain, const RulesSight& sight,
                                const IpAddress& address, std::optional<unsigned> port) {
  Packet in{address, true, false, sight.link, "", sight.mac, port};
  Packet out{address, false, false, "", sight.nic, "", port};
  if (chain.family == "arp") {
    Packet arp = in;
    arp.arp = true;
    return address.is_v4() && chain.hook == "input" ? std::vector{arp} : std::vector<Packet>{};
  }
  if (!sees(chain, address)) return {};
  if (chain.hook == "prerouting" || chain.hook == "input") return {in};
  if (chain.hook == "output" || chain.hook == "postrouting") return {out};
  if (chain.hook == "egress" && has_device(chain, sight.nic)) return {out};
  if (chain.hook != "ingress") return {};
  if (has_device(chain, sight.link)) return {in};
  in.iif = sight.nic;
  return has_device(chain, sight.nic) ? std::vector{in} : std::vector<Packet>{};
}

string remedy_for(const BaseChain& chain, const RulesSight& sight) {
  if (chain.table == "firewalld") {
    return "firewall-cmd --permanent --zone=public --add-interface=" + sight.nic +
           " --add-interface=" + sight.link + "; " + kAddService;
  }
  return "let the service in there, and its answers out; packets come in on " + sight.link +
         ", not on " + sight.nic;
}

class Judge {
 public:
  explicit Judge(const RulesSight& sight) : sight_(sight), rules_(sight.ruleset, sight.chains) {}

  Findings all() {
    for (const BaseChain& chain : rules_.base_chains()) {
      if (is_ours(chain)) continue;
      if (sight_.inside && chain.hook == "input") continue;
      for (const IpAddress& address : sight_.addresses) {
        if (!drops_all(chain, address) && !drops_asked(chain, address)) drops_any(chain, address);
        rewrites(chain, address);
      }
    }
    reverse_path();
    if (found_.empty()) {
      found_.push_back(fine(
          "firewall", "no chain of others drops all that comes to the addresses" + ports_text()));
    }
    zones();
    flowtables();
    return found_;
  }

 private:
  string ports_text() const {
    string text;
    for (const unsigned port : sight_.ports) {
      text += (text.empty() ? ", nor port " : ", ") + std::to_string(port);
    }
    return text;
  }

  // By which rule the chain surely drops it; empty: it does not.
  string dropped_by(const BaseChain& chain, const IpAddress& address,
                    std::optional<unsigned> port) const {
    for (Packet& packet : packets_for(chain, sight_, address, port)) {
      const bool after_nat =
          chain.hook == "input" || (chain.hook == "prerouting" && chain.priority > kDnatPriority);
      if (after_nat && rules_.may_translate(packet)) {
        if (chain.hook == "input") return "";  // it may be forwarded instead
        packet.translated = true;
        packet.port.reset();
      }
      const Fates fates = rules_.walk(chain, packet);
      if (fates.surely_drops()) return fates.dropped_by;
    }
    return "";
  }

  void say(const BaseChain& chain, const IpAddress& address, const string& ports,
           const string& by) {
    const bool answers =
        chain.hook == "output" || chain.hook == "postrouting" || chain.hook == "egress";
    const string what = chain.family == "arp" ? "ARP for " : answers ? "answers of " : "all to ";
    found_.push_back(wrong("firewall",
                           chain.text() + " (" + chain.hook + ", priority " +
                               std::to_string(chain.priority) + ") drops " + what + ports +
                               address.text() + ": " + by,
                           remedy_for(chain, sight_)));
  }

  bool drops_all(const BaseChain& chain, const IpAddress& address) {
    const string by = dropped_by(chain, address, std::nullopt);
    if (!by.empty()) say(chain, address, "", by);
    return !by.empty();
  }

  bool drops_asked(const BaseChain& chain, const IpAddress& address) {
    bool any = false;
    for (const unsigned port : sight_.ports) {
      const string by = dropped_by(chain, address, port);
      if (by.empty()) continue;
      say(chain, address, "port " + std::to_string(port) + " of ", by);
      any = true;
    }
    return any;
  }

  void drops_any(const BaseChain& chain, const IpAddress& address) {
    if (!sight_.ports.empty() || sight_.any_ports.empty()) return;
    string by;
    string list;
    for (const unsigned port : sight_.any_ports) {
      by = dropped_by(chain, address, port);
      if (by.empty()) return;
      list += (list.empty() ? "" : ", ") + std::to_string(port);
    }
    say(chain, address, "every port that something listens on (" + list + ") of ", by);
  }

  void rewrites(const BaseChain& chain, const IpAddress& address) {
    const bool early =
        chain.hook == "ingress" || (chain.hook == "prerouting" && chain.priority < kOwnPriority);
    if (!early) return;
    for (const Packet& packet : packets_for(chain, sight_, address, std::nullopt)) {
      const string rule = rules_.rewriting(chain, packet);
      if (rule.empty()) continue;
      found_.push_back(wrong("firewall",
                             chain.text() + " (" + chain.hook + ", priority " +
                                 std::to_string(chain.priority) + ") takes packets to " +
                                 address.text() + " past saru's rules, on every node: " + rule,
                             "do it in a nat chain (dnat, redirect), or later than priority " +
                                 std::to_string(kOwnPriority)));
    }
  }

  void reverse_path() {
    const bool v6 = std::any_of(sight_.addresses.begin(), sight_.addresses.end(),
                                [](const IpAddress& one) { return !one.is_v4(); });
    const auto table = v6 ? rules_.reverse_path_filter() : std::nullopt;
    if (!table) return;
    found_.push_back(wrong("firewall",
                           *table +
                               " drops IPv6 packets whose way back is over another "
                               "interface: they come in on " +
                               sight_.link + " and answers leave by " + sight_.nic,
                           "IPv6_rpfilter=no in /etc/firewalld/firewalld.conf and firewall-cmd "
                           "--reload; elsewhere take the rule (fib saddr . iif) away"));
  }

  void zones() {
    if (!rules_.has_table("firewalld")) {
      return found_.push_back(fine("firewalld", "firewalld has no rules on this node"));
    }
    if (rules_.names_interface("firewalld", sight_.link)) {
      return found_.push_back(fine("firewalld", sight_.link + " is in a zone"));
    }
    found_.push_back(doubt("firewalld",
                           "no zone has " + sight_.link +
                               ", on which packets come in: the default "
                               "zone decides of them",
                           "firewall-cmd --permanent --zone=public --add-interface=" + sight_.nic +
                               " --add-interface=" + sight_.link + "; " + kAddService));
  }

  void flowtables() {
    const auto found = rules_.flowtables({sight_.nic, sight_.link});
    for (const string& one : found) {
      found_.push_back(wrong("flowtable",
                             one + " takes packets at " + sight_.nic + " or " + sight_.link +
                                 " past saru's rules: a connection goes on here after its block "
                                 "has moved, and two nodes forward it",
                             "take these devices out of the flowtable"));
    }
    if (found.empty()) found_.push_back(fine("flowtable", "no flowtable has " + sight_.nic));
  }

  const RulesSight& sight_;
  RuleWalk rules_;
  Findings found_;
};

}  // namespace

Findings judge_rules(const RulesSight& sight) { return Judge(sight).all(); }

}  // namespace saru
