// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/doctor_cluster.h"

#include <algorithm>
#include <array>

#include "agent/options.h"

namespace saru {
namespace {

using std::string;

std::int64_t ms_of(Nanos span) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(span).count();
}
string ms_text(Nanos span) { return std::to_string(ms_of(span)) + " ms"; }

// What cuts a node's disks or does nothing: its kernel goes on answering.
constexpr std::array kNoPower = {"fence_scsi", "fence_mpath", "fence_dummy", "fence_kdump"};

bool cuts_power(const string& agent) {
  return std::find(kNoPower.begin(), kNoPower.end(), agent) == kNoPower.end();
}

string attribute(const string& tag, const string& name) {
  const string head = " " + name + "=\"";
  const std::size_t at = tag.find(head);
  if (at == string::npos) return "";
  const std::size_t begin = at + head.size();
  return tag.substr(begin, tag.find('"', begin) - begin);
}

}  // namespace

Finding judge_encryption(const ClusterFacts& facts) {
  if (facts.crypto_cipher != "none") {
    return fine("encryption", "corosync encrypts with " + facts.crypto_cipher);
  }
  return doubt("encryption",
               "corosync does not encrypt (crypto_cipher none): who can send to the ring's network "
               "can steer the cluster, and with it the address",
               "crypto_cipher: aes256 and crypto_hash: sha256 in totem {} of corosync.conf on all "
               "nodes, with an authkey (corosync-keygen); or: pcs cluster config update crypto "
               "cipher=aes256 hash=sha256");
}

Findings judge_knet(const ClusterFacts& facts) {
  if (facts.transport != "knet") {
    return {fine("knet", "corosync's transport is " + facts.transport + ", not knet")};
  }
  Findings all;
  if (facts.knet_mtu == 0) {
    all.push_back(
        doubt("knet",
              "corosync.conf gives no knet_mtu: after a link has failed, knet may take half a "
              "minute to bring it back, and the address is dark again and again meanwhile",
              "knet_mtu: 1500 (the smallest MTU of the ring's networks) in totem {} on all nodes"));
  }
  for (const Nanos timeout : facts.knet_ping_timeouts) {
    const string found = "knet_ping_timeout " + ms_text(timeout) + " of corosync.conf, ";
    const string remedy =
        "leave it out (half the token), or set it between a quarter of the token and the token, "
        "together with knet_ping_interval";
    if (timeout >= facts.token) {
      all.push_back(doubt("knet",
                          found + "which is not shorter than the token (" + ms_text(facts.token) +
                              "): a dead link is noticed after the node has been given up",
                          remedy));
    } else if (timeout * 4 < facts.token) {
      all.push_back(doubt("knet",
                          found + "less than a quarter of the token (" + ms_text(facts.token) +
                              "): links fail on a node that is merely busy",
                          remedy));
    }
  }
  if (all.empty()) all.push_back(fine("knet", "knet_mtu " + std::to_string(facts.knet_mtu)));
  return all;
}

Finding judge_lease(const ClusterFacts& facts, std::int64_t lease_ms) {
  const Nanos detection = facts.token + facts.consensus;
  const string found = "the lease is " + std::to_string(lease_ms) + " ms; corosync takes up to " +
                       ms_text(detection) +
                       " (token + consensus) to form a ring without a dead node";
  const std::chrono::milliseconds lease(lease_ms);
  const string remedy = "leave lease_ms out (1.25 x token + consensus), or raise it above " +
                        std::to_string(ms_of(detection) * 5 / 4) + " ms, on all nodes";
  if (lease <= detection) {
    return wrong("lease", found + ": all nodes go dark whenever the ring changes", remedy);
  }
  // A millisecond for rounding.
  if ((lease + std::chrono::milliseconds(1)) * 4 < detection * 5) {
    return doubt("lease", found + ": a busy node may go dark whenever the ring changes", remedy);
  }
  return fine("lease", found);
}

Finding judge_fencing(const ClusterFacts& facts, const FencingSight& sight) {
  if (!sight.enabled) {
    return doubt("fencing", "Pacemaker does not say whether it fences nodes (crm_attribute)",
                 "start Pacemaker (systemctl start pacemaker), or run this as root");
  }
  const bool by_fencing_alone = facts.two_node || facts.last_man_standing || facts.auto_tie_breaker;
  if (!*sight.enabled && by_fencing_alone) {
    return wrong("fencing",
                 "Pacemaker does not fence (stonith-enabled=false), and here a part of the "
                 "cluster can be quorate alone: in a split two nodes answer one packet",
                 "set up fencing of power (pcs stonith create ...), then pcs property set "
                 "stonith-enabled=true");
  }
  if (!*sight.enabled) {
    return doubt("fencing",
                 "Pacemaker does not fence (stonith-enabled=false): this address needs none with "
                 "a quorum of three votes or more, but a node that hangs is not reset, and other "
                 "resources may run twice",
                 "pcs stonith create ..., then pcs property set stonith-enabled=true; or live with "
                 "it: saructl doctor --skip fencing");
  }
  if (!sight.agents) return fine("fencing", "Pacemaker fences nodes");
  if (sight.agents->empty()) {
    return wrong("fencing",
                 "stonith-enabled is true, but there is no fence device: Pacemaker starts nothing",
                 "pcs stonith create ...; or, with three nodes or more, pcs property set "
                 "stonith-enabled=false");
  }
  const auto power = std::find_if(sight.agents->begin(), sight.agents->end(), cuts_power);
  if (power != sight.agents->end()) return fine("fencing", "Pacemaker fences nodes with " + *power);
  const string found = "the only fence devices (" + sight.agents->front() +
                       ") leave a node's power on: its kernel goes on answering";
  const string remedy = "fence by power or reset (IPMI, hypervisor, PDU)";
  return by_fencing_alone ? wrong("fencing", found, remedy) : doubt("fencing", found, remedy);
}

std::vector<string> fence_agents(const string& xml) {
  std::vector<string> agents;
  // A template is what crmsh calls rsc_template.
  for (const string& head : {string("<primitive "), string("<template ")}) {
    for (std::size_t at = xml.find(head); at != string::npos; at = xml.find(head, at + 1)) {
      const string tag = xml.substr(at, xml.find('>', at) - at);
      if (attribute(tag, "class") == "stonith") agents.push_back(attribute(tag, "type"));
    }
  }
  return agents;
}

}  // namespace saru
