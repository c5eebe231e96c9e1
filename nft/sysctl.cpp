// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/sysctl.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace saru::nft {
namespace {

std::string path_of(const Setting& setting) {
  return "/proc/sys/net/" + setting.family + "/conf/" + setting.link + "/" + setting.key;
}

long for_all(const char* key) { return read_setting({"ipv4", "all", key, 0}).value_or(0); }

// The kernel uses the larger one of `all` and the interface's own value.
std::vector<Setting> arp_settings(const std::string& link) {
  return {{"ipv4", link, "arp_ignore", 1}, {"ipv4", link, "arp_announce", 2}};
}

}  // namespace

std::string Setting::name() const { return "net." + family + ".conf." + link + "." + key; }

std::optional<long> read_setting(const Setting& setting) {
  const int fd = open(path_of(setting).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char text[32] = {};
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return std::nullopt;
  return std::strtol(text, nullptr, 10);
}

Result<void> write_setting(const Setting& setting) {
  const std::string text = std::to_string(setting.value);
  const int fd = open(path_of(setting).c_str(), O_WRONLY | O_CLOEXEC);
  const bool written =
      fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int code = errno;
  if (fd >= 0) close(fd);
  if (written) return {};
  return fail(code == EACCES || code == EPERM || code == EROFS ? ErrorKind::kNotPermitted
                                                               : ErrorKind::kFailed,
              "cannot set " + setting.name() + " to " + text + ": " + std::strerror(code));
}

std::vector<Setting> settings_of_link(const std::string& link, bool v4, bool v6, bool forwards) {
  std::vector<Setting> all;
  if (v4) {
    all = arp_settings(link);
    // Packets come in here and answers may leave elsewhere. The larger one of `all` and this
    // counts, and 2 (loose) is larger than 1 (strict), under which nothing would come in.
    // Under 2 nothing is forwarded either that comes in where there is no address (any more), from
    // elsewhere (__fib_validate_source(), net/ipv4/fib_frontend.c).
    all.push_back({"ipv4", link, "rp_filter", for_all("rp_filter") == 0 && !forwards ? 0 : 2});
    all.push_back({"ipv4", link, "arp_filter", 0});  // else no answer: the way back is over the NIC
    // A medium of its own: with proxy_arp (often set for all interfaces) the macvlan would answer
    // for the NIC's whole subnet, with the shared MAC. Not so from medium -1 (arp_fwd_proxy(),
    // net/ipv4/arp.c).
    all.push_back({"ipv4", link, "medium_id", -1});
    all.push_back({"ipv4", link, "proxy_arp_pvlan", 0});
  }
  if (read_setting({"ipv6", link, "disable_ipv6", 0})) {
    if (v6) {
      all.push_back({"ipv6", link, "addr_gen_mode", 1});  // no link-local address of its own
      all.push_back({"ipv6", link, "accept_dad", 0});
      all.push_back({"ipv6", link, "dad_transmits", 0});
      all.push_back({"ipv6", link, "accept_ra", 0});
      all.push_back({"ipv6", link, "autoconf", 0});
    }
    // Last: an interface that is up gets its addresses when this becomes 0.
    all.push_back({"ipv6", link, "disable_ipv6", v6 ? 0 : 1});
  }
  return all;
}

std::vector<Setting> settings_of_nic(const std::string& nic, bool v4) {
  // Otherwise the NIC too answers ARP requests for the shared address, with its own MAC: it would
  // draw all clients to this node.
  if (!v4) return {};
  std::vector<Setting> all = arp_settings(nic);
  for (Setting& setting : all) {
    setting.value = std::max(setting.value, read_setting(setting).value_or(0));
  }
  return all;
}

std::vector<std::string> obstacles(const std::string& nic, bool v4, bool v6) {
  std::vector<std::string> words;
  const auto say = [&words](const Setting& setting, const char* why) {
    words.push_back(setting.name() + " is " + std::to_string(read_setting(setting).value_or(0)) +
                    ": " + why + std::to_string(setting.value));
  };
  const Setting ignore{"ipv4", "all", "arp_ignore", 1};
  const Setting filter{"ipv4", "all", "arp_filter", 0};
  if (v4 && read_setting(ignore).value_or(0) > 1) {
    say(ignore, "this node does not answer ARP for the shared addresses; set it to 0 or ");
  }
  if (v4 && read_setting(filter).value_or(0) != 0) {
    say(filter, "this node may not answer ARP for the shared addresses; set it to ");
  }
  const Setting disabled{"ipv6", nic, "disable_ipv6", 0};
  if (v6 && read_setting(disabled).value_or(1) != 0) {
    say(disabled, "answers to IPv6 clients have no way out over this interface; set it to ");
  }
  return words;
}

std::vector<std::string> forwarding_obstacles(const std::string& link, bool v4, bool v6) {
  std::vector<std::string> words;
  const Setting ipv4{"ipv4", link, "forwarding", 1};
  const Setting ipv6{"ipv6", "all", "forwarding", 1};
  if (v4 && read_setting(ipv4) == 0) {
    words.push_back(ipv4.name() +
                    " is 0: nothing goes between the outside and the inside; set "
                    "net.ipv4.ip_forward to 1");
  }
  if (v6 && read_setting(ipv6) == 0) {
    words.push_back(ipv6.name() +
                    " is 0: nothing goes between the outside and the inside; set it "
                    "to 1");
  }
  return words;
}

}  // namespace saru::nft
