// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/rtnl.h"

#include <net/if.h>
#include <net/if_arp.h>
#include <sys/socket.h>

// After libc's headers, to which they give way.
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace saru::nft {
namespace {

// Of the fallback route: larger than what people and the kernel (256, 1024) choose.
constexpr std::uint32_t kFallbackMetric = 42420;
// Enough for every attribute that we look at.
constexpr std::size_t kAttributes = 64;
using Attributes = std::array<const nlattr*, kAttributes>;

int keep(const nlattr* attribute, void* into) {
  const std::uint16_t type = mnl_attr_get_type(attribute);
  if (type < kAttributes) (*static_cast<Attributes*>(into))[type] = attribute;
  return MNL_CB_OK;
}

Attributes attributes_of(const nlmsghdr* message, std::size_t header) {
  Attributes all{};
  mnl_attr_parse(message, static_cast<unsigned>(header), keep, &all);
  return all;
}

Attributes nested_in(const nlattr* attribute) {
  Attributes all{};
  mnl_attr_parse_nested(attribute, keep, &all);
  return all;
}

std::uint8_t family_of(const IpAddress& ip) { return ip.is_v4() ? AF_INET : AF_INET6; }

template <class Header>
Header* put_header(nlmsghdr* message) {
  return static_cast<Header*>(mnl_nlmsg_put_extra_header(message, sizeof(Header)));
}

void put_route(nlmsghdr* message, unsigned link, const ServiceAddress& address) {
  const IpAddress subnet = address.subnet();
  auto* header = put_header<rtmsg>(message);
  header->rtm_family = family_of(address.ip);
  header->rtm_dst_len = static_cast<std::uint8_t>(address.prefix);
  header->rtm_table = RT_TABLE_MAIN;
  header->rtm_protocol = RTPROT_STATIC;
  header->rtm_scope = address.ip.is_v4() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  header->rtm_type = RTN_UNICAST;
  mnl_attr_put(message, RTA_DST, subnet.bytes().size(), subnet.bytes().data());
  mnl_attr_put_u32(message, RTA_OIF, link);
  mnl_attr_put_u32(message, RTA_PRIORITY, kFallbackMetric);
}

}  // namespace

LinkState decode_link(const nlmsghdr* message) {
  const auto* header = header_of<ifinfomsg>(message);
  if (header == nullptr) return {};
  const Attributes has = attributes_of(message, sizeof *header);
  LinkState link;
  link.index = static_cast<unsigned>(header->ifi_index);
  link.ethernet = header->ifi_type == ARPHRD_ETHER;
  link.up = (header->ifi_flags & IFF_UP) != 0;
  if (has[IFLA_IFNAME] != nullptr) link.name = text_of(has[IFLA_IFNAME]);
  if (has[IFLA_LINK] != nullptr) link.parent = u32_of(has[IFLA_LINK]);
  if (has[IFLA_MTU] != nullptr) link.mtu = u32_of(has[IFLA_MTU]);
  if (has[IFLA_CARRIER] != nullptr) link.carrier = u8_of(has[IFLA_CARRIER]) != 0;
  const nlattr* mac = has[IFLA_ADDRESS];
  if (mac != nullptr && mnl_attr_get_payload_len(mac) == link.mac.bytes.size()) {
    std::memcpy(link.mac.bytes.data(), mnl_attr_get_payload(mac), link.mac.bytes.size());
  }
  if (has[IFLA_LINKINFO] != nullptr) {
    const Attributes info = nested_in(has[IFLA_LINKINFO]);
    if (info[IFLA_INFO_KIND] != nullptr) link.kind = text_of(info[IFLA_INFO_KIND]);
  }
  return link;
}

tl::expected<std::optional<LinkState>, Refusal> read_link(NetlinkSocket& socket,
                                                          const std::string& name) {
  Batch& batch = scratch();
  nlmsghdr* message = batch.add(RTM_GETLINK, 0, "look for interface " + name);
  put_header<ifinfomsg>(message)->ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(message, IFLA_IFNAME, name.c_str());
  std::optional<LinkState> found;
  const auto refusal = socket.query(batch, [&](const nlmsghdr* m) { found = decode_link(m); });
  if (refusal && refusal->code != ENODEV) return tl::unexpected<Refusal>(*refusal);
  return found;
}

std::optional<AddressState> decode_address(const nlmsghdr* message) {
  const auto* header = header_of<ifaddrmsg>(message);
  if (header == nullptr) return std::nullopt;
  const Attributes has = attributes_of(message, sizeof *header);
  // IFA_LOCAL is the address itself; IPv6 has only IFA_ADDRESS unless there is a peer.
  const nlattr* attribute = has[IFA_LOCAL] != nullptr ? has[IFA_LOCAL] : has[IFA_ADDRESS];
  if (attribute == nullptr) return std::nullopt;
  const auto* raw = static_cast<const std::uint8_t*>(mnl_attr_get_payload(attribute));
  const auto ip = IpAddress::from_bytes({raw, mnl_attr_get_payload_len(attribute)});
  if (!ip) return std::nullopt;
  AddressState state{header->ifa_index, *ip, header->ifa_prefixlen, UINT32_MAX};
  const nlattr* times = has[IFA_CACHEINFO];
  if (times != nullptr && mnl_attr_get_payload_len(times) >= sizeof(ifa_cacheinfo)) {
    const auto* life = static_cast<const ifa_cacheinfo*>(mnl_attr_get_payload(times));
    state.valid_seconds = life->ifa_valid;
  }
  return state;
}

tl::expected<std::vector<AddressState>, Refusal> read_addresses(NetlinkSocket& socket) {
  Batch& batch = scratch();
  nlmsghdr* message = batch.add(RTM_GETADDR, NLM_F_DUMP, "list this node's addresses");
  put_header<ifaddrmsg>(message)->ifa_family = AF_UNSPEC;
  std::vector<AddressState> all;
  const auto refusal = socket.query(
      batch,
      [&](const nlmsghdr* m) {
        if (auto state = decode_address(m)) all.push_back(*state);
      },
      [&] { all.clear(); });
  if (refusal) return tl::unexpected<Refusal>(*refusal);
  return all;
}

void put_macvlan(Batch& batch, const std::string& name, const LinkState& parent,
                 const MacAddress& mac) {
  nlmsghdr* message =
      batch.add(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make " + name + " over " + parent.name);
  put_header<ifinfomsg>(message)->ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(message, IFLA_IFNAME, name.c_str());
  mnl_attr_put_u32(message, IFLA_LINK, parent.index);
  mnl_attr_put(message, IFLA_ADDRESS, mac.bytes.size(), mac.bytes.data());
  nlattr* info = mnl_attr_nest_start(message, IFLA_LINKINFO);
  mnl_attr_put_strz(message, IFLA_INFO_KIND, "macvlan");
  nlattr* data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
  mnl_attr_put_u32(message, IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE);
  mnl_attr_nest_end(message, data);
  mnl_attr_nest_end(message, info);
}

void put_delete_link(Batch& batch, unsigned index, const std::string& name) {
  nlmsghdr* message = batch.add(RTM_DELLINK, 0, "delete interface " + name);
  put_header<ifinfomsg>(message)->ifi_index = static_cast<int>(index);
}

void put_link_up(Batch& batch, unsigned index, const std::string& name) {
  nlmsghdr* message = batch.add(RTM_NEWLINK, 0, "set interface " + name + " up");
  auto* header = put_header<ifinfomsg>(message);
  header->ifi_index = static_cast<int>(index);
  header->ifi_flags = IFF_UP;
  header->ifi_change = IFF_UP;
}

void put_address(Batch& batch, unsigned link, const IpAddress& ip, std::chrono::seconds lifetime) {
  nlmsghdr* message =
      batch.add(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, "add address " + ip.text());
  auto* header = put_header<ifaddrmsg>(message);
  header->ifa_family = family_of(ip);
  header->ifa_prefixlen = static_cast<std::uint8_t>(ip.max_prefix());
  header->ifa_scope = RT_SCOPE_UNIVERSE;
  header->ifa_index = link;
  mnl_attr_put(message, IFA_LOCAL, ip.bytes().size(), ip.bytes().data());
  mnl_attr_put(message, IFA_ADDRESS, ip.bytes().size(), ip.bytes().data());
  mnl_attr_put_u32(message, IFA_FLAGS, IFA_F_NOPREFIXROUTE | (ip.is_v4() ? 0 : IFA_F_NODAD));
  ifa_cacheinfo life{};
  life.ifa_valid = static_cast<std::uint32_t>(lifetime.count());
  // A deprecated IPv6 address serves, but is not chosen for what the node itself begins.
  life.ifa_prefered = ip.is_v4() ? life.ifa_valid : 0;
  mnl_attr_put(message, IFA_CACHEINFO, sizeof life, &life);
}

void put_delete_address(Batch& batch, unsigned link, const IpAddress& ip) {
  nlmsghdr* message = batch.add(RTM_DELADDR, 0, "take away address " + ip.text());
  auto* header = put_header<ifaddrmsg>(message);
  header->ifa_family = family_of(ip);
  header->ifa_prefixlen = static_cast<std::uint8_t>(ip.max_prefix());
  header->ifa_index = link;
  mnl_attr_put(message, IFA_LOCAL, ip.bytes().size(), ip.bytes().data());
}

void put_fallback_route(Batch& batch, unsigned link, const ServiceAddress& address) {
  nlmsghdr* message = batch.add(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                                "add a route to the subnet of " + address.text());
  put_route(message, link, address);
  const auto bytes = address.ip.bytes();
  mnl_attr_put(message, RTA_PREFSRC, bytes.size(), bytes.data());
}

void put_delete_fallback_route(Batch& batch, unsigned link, const ServiceAddress& address) {
  put_route(batch.add(RTM_DELROUTE, 0, "take away the route to the subnet of " + address.text()),
            link, address);
}

}  // namespace saru::nft
