// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/mend.h"

#include <net/if.h>
#include <sys/socket.h>

// After libc's headers, to which they give way.
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "nft/rtnl.h"

namespace saru::nft {
namespace {

template <class Header>
Header* put_header(nlmsghdr* message) {
  return static_cast<Header*>(mnl_nlmsg_put_extra_header(message, sizeof(Header)));
}

tl::expected<std::optional<LinkState>, Refusal> read_index(NetlinkSocket& socket, unsigned index) {
  Batch& batch = scratch();
  nlmsghdr* message = batch.add(RTM_GETLINK, 0, "look for interface " + std::to_string(index));
  put_header<ifinfomsg>(message)->ifi_index = static_cast<int>(index);
  std::optional<LinkState> found;
  const auto refusal = socket.query(batch, [&](const nlmsghdr* m) { found = decode_link(m); });
  if (refusal && refusal->code != ENODEV) return tl::unexpected<Refusal>(*refusal);
  return found;
}

// One change of an interface; `fill` puts the attributes, or sets flags.
std::optional<Refusal> change(NetlinkSocket& socket, unsigned index, const std::string& doing,
                              const std::function<void(nlmsghdr*, ifinfomsg*)>& fill) {
  Batch batch;
  nlmsghdr* message = batch.add(RTM_NEWLINK, 0, doing);
  auto* header = put_header<ifinfomsg>(message);
  header->ifi_index = static_cast<int>(index);
  fill(message, header);
  return socket.execute(batch);
}

std::optional<Refusal> set_up(NetlinkSocket& socket, unsigned index, const std::string& name,
                              bool up) {
  return change(socket, index, "set interface " + name + (up ? " up" : " down"),
                [up](nlmsghdr*, ifinfomsg* header) {
                  header->ifi_flags = up ? IFF_UP : 0;
                  header->ifi_change = IFF_UP;
                });
}

std::optional<Refusal> rename(NetlinkSocket& socket, unsigned index, const std::string& from,
                              const std::string& to) {
  const auto fill = [&to](nlmsghdr* message, ifinfomsg*) {
    mnl_attr_put_strz(message, IFLA_IFNAME, to.c_str());
  };
  const std::string doing = "rename " + from + " to " + to;
  auto refusal = change(socket, index, doing, fill);
  if (!refusal || refusal->code != EBUSY) return refusal;
  // Before Linux 6.3 only an interface that is down can be renamed; it is set up again with the
  // rest.
  refusal = set_up(socket, index, from, false);
  return refusal ? refusal : change(socket, index, doing, fill);
}

Result<bool> mend_name(NetlinkSocket& socket, const LinkConfig& config, const LinkState& is,
                       Mended& mended) {
  if (is.name == config.link) return true;
  if (!rename(socket, is.index, is.name, config.link)) {
    mended.done.push_back(config.link + " had been renamed to " + is.name + ": renamed back");
    return true;
  }
  Batch batch;
  put_delete_link(batch, is.index, is.name);
  const auto refusal = socket.execute(batch);
  if (refusal && refusal->code != ENODEV) return fail(*refusal);
  mended.done.push_back(config.link + " had been renamed to " + is.name +
                        ", and its name is taken: deleted");
  mended.lost = true;
  return false;
}

Result<void> mend_mac(NetlinkSocket& socket, const LinkConfig& config, const LinkState& is,
                      Mended& mended) {
  const MacAddress& ours = config.shared_mac;
  if (is.mac == ours) return {};
  const auto refusal = change(
      socket, is.index, "set the MAC of " + config.link, [&ours](nlmsghdr* message, ifinfomsg*) {
        mnl_attr_put(message, IFLA_ADDRESS, ours.bytes.size(), ours.bytes.data());
      });
  if (refusal) return fail(*refusal);
  mended.done.push_back("the MAC of " + config.link + " was " + is.mac.text() + ": " + ours.text() +
                        " again");
  return {};
}

Result<void> mend_mtu(NetlinkSocket& socket, const LinkConfig& config, const LinkState& is,
                      unsigned mtu, Mended& mended) {
  if (is.mtu == mtu) return {};
  const auto refusal =
      change(socket, is.index, "set the MTU of " + config.link,
             [mtu](nlmsghdr* message, auto*) { mnl_attr_put_u32(message, IFLA_MTU, mtu); });
  if (refusal) return fail(*refusal);
  mended.done.push_back("the MTU of " + config.link + " was " + std::to_string(is.mtu) + ": " +
                        std::to_string(mtu) + " now, as that of " + config.nic);
  return {};
}

void put_delete_stray(Batch& batch, const AddressState& there, bool twice) {
  nlmsghdr* message = batch.add(RTM_DELADDR, 0, "remove address " + there.ip.text());
  auto* header = put_header<ifaddrmsg>(message);
  header->ifa_family = there.ip.is_v4() ? AF_INET : AF_INET6;
  header->ifa_prefixlen = static_cast<std::uint8_t>(there.prefix);
  header->ifa_index = there.link;
  const auto bytes = there.ip.bytes();
  mnl_attr_put(message, IFA_LOCAL, bytes.size(), bytes.data());
  // The same address may be there twice, with two prefix lengths: only with this the kernel looks
  // at the length.
  if (twice) mnl_attr_put(message, IFA_ADDRESS, bytes.size(), bytes.data());
}

}  // namespace

Result<Mended> mend_link(NetlinkSocket& socket, const LinkConfig& config, unsigned index,
                         unsigned nic) {
  Mended mended;
  const auto found = read_index(socket, index);
  if (!found) return fail(found.error());
  const auto below = read_index(socket, nic);
  if (!below) return fail(below.error());
  mended.lost = !*found || !*below || (*found)->kind != "macvlan" || (*found)->parent != nic;
  if (mended.lost) return mended;
  const LinkState& is = **found;
  const auto named = mend_name(socket, config, is, mended);
  if (!named) return tl::unexpected<Error>(named.error());
  if (!*named) return mended;
  if (auto done = mend_mac(socket, config, is, mended); !done) {
    return tl::unexpected<Error>(done.error());
  }
  if (auto done = mend_mtu(socket, config, is, (*below)->mtu, mended); !done) {
    return tl::unexpected<Error>(done.error());
  }
  const bool was_down = !is.up;
  if (const auto refusal = set_up(socket, index, config.link, true)) return fail(*refusal);
  if (was_down) mended.done.push_back(config.link + " was down: set up again");
  return mended;
}

Result<void> mend_settings(const std::vector<Setting>& settings, Mended& mended) {
  for (const Setting& setting : settings) {
    const auto before = read_setting(setting);
    if (!before || *before == setting.value) continue;
    if (auto done = write_setting(setting); !done) return done;
    mended.done.push_back(setting.name() + " was " + std::to_string(*before) + ": " +
                          std::to_string(setting.value) + " again");
  }
  return {};
}

Result<void> mend_addresses(NetlinkSocket& socket, const LinkConfig& config,
                            const std::vector<IpAddress>& ours, unsigned index, Mended& mended) {
  const auto all = read_addresses(socket);
  if (!all) return fail(all.error());
  auto missing = ours;
  for (const AddressState& there : *all) {
    if (there.link != index) continue;
    const bool shared = std::find(ours.begin(), ours.end(), there.ip) != ours.end();
    if (shared && there.prefix == there.ip.max_prefix()) {
      missing.erase(std::remove(missing.begin(), missing.end(), there.ip), missing.end());
      continue;
    }
    Batch batch;
    put_delete_stray(batch, there, shared);
    const auto refusal = socket.execute(batch);
    if (refusal && refusal->code != EADDRNOTAVAIL) return fail(*refusal);
    mended.done.push_back("address " + there.ip.text() + "/" + std::to_string(there.prefix) +
                          " was on " + config.link + ", which is for shared addresses alone: " +
                          "removed; put it on " + config.nic + " if this node needs it");
  }
  for (const IpAddress& ip : missing) {
    mended.done.push_back("address " + ip.text() + " was not on " + config.link + ": put back");
  }
  return {};
}

}  // namespace saru::nft
