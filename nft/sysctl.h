// SPDX-License-Identifier: GPL-2.0-or-later
// Kernel settings of network interfaces, /proc/sys/net.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nft/result.h"

namespace saru::nft {

// "ipv4", "eth0", "arp_ignore": /proc/sys/net/ipv4/conf/eth0/arp_ignore, also for names with dots.
struct Setting {
  std::string family;
  std::string link;
  std::string key;
  long value = 0;

  std::string name() const;  // "net.ipv4.conf.eth0.arp_ignore"
};

// nullopt when there is no such setting.
std::optional<long> read_setting(const Setting& setting);
Result<void> write_setting(const Setting& setting);

// What the macvlan and the NIC need so that the neighbours learn the shared MAC for a shared
// address, and nothing else. Reads the settings for all interfaces, with which the kernel combines
// them. `forwards`: what comes in through the link is for other hosts, too; then it must have an
// address for that (IPv4 alone; with the addresses that end).
std::vector<Setting> settings_of_link(const std::string& link, bool v4, bool v6, bool forwards);
std::vector<Setting> settings_of_nic(const std::string& nic, bool v4);

// What the administrator has set for all interfaces, or for the NIC, and stands in the way: one
// sentence each. That is not ours to change.
std::vector<std::string> obstacles(const std::string& nic, bool v4, bool v6);

// The same for what has to be forwarded between two links.
std::vector<std::string> forwarding_obstacles(const std::string& link, bool v4, bool v6);

}  // namespace saru::nft
