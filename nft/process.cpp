// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/process.h"

#include <linux/netlink.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace saru::nft {
namespace {

namespace fs = std::filesystem;

// The inode of the socket, from /proc/net/netlink: "sk Eth Pid Groups Rmem Wmem Dump Locks Drops
// Inode".
std::string inode_of_port(std::uint32_t port) {
  std::ifstream table("/proc/self/net/netlink");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::istringstream words(line);
    std::string address, groups, rmem, wmem, dump, locks, drops, inode;
    int protocol = -1;
    std::uint32_t line_port = 0;
    words >> address >> protocol >> line_port >> groups >> rmem >> wmem >> dump >> locks >> drops >>
        inode;
    if (words && protocol == NETLINK_NETFILTER && line_port == port) return inode;
  }
  return {};
}

bool holds(const fs::path& process, const std::string& socket) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(process / "fd", error)) {
    std::error_code gone;
    if (fs::read_symlink(entry.path(), gone) == socket) return true;
  }
  return false;
}

}  // namespace

std::string process_of_port(std::uint32_t port) {
  const std::string inode = inode_of_port(port);
  if (!inode.empty()) {
    const std::string socket = "socket:[" + inode + "]";
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("/proc", error)) {
      const std::string pid = entry.path().filename().string();
      if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
      if (!holds(entry.path(), socket)) continue;
      std::ifstream file(entry.path() / "comm");
      std::string name;
      std::getline(file, name);
      return std::string("process ").append(pid).append(" (").append(name).append(")");
    }
  }
  return "a process that cannot be seen from here (netlink port " + std::to_string(port) + ")";
}

}  // namespace saru::nft
