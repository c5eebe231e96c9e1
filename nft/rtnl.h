// SPDX-License-Identifier: GPL-2.0-or-later
// The rtnetlink requests that the link needs, as functions of a socket.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "nft/address.h"
#include "nft/netlink.h"

namespace saru::nft {

struct LinkState {
  unsigned index = 0;
  std::string name;
  std::string kind;     // "macvlan"; empty for a physical interface
  unsigned parent = 0;  // index of the interface below
  MacAddress mac;
  unsigned mtu = 0;
  bool ethernet = false;
  bool up = false;
  bool carrier = false;
};
// What a notification or an answer (RTM_NEWLINK, RTM_DELLINK) says.
LinkState decode_link(const nlmsghdr* message);
// nullopt inside: there is none of this name.
tl::expected<std::optional<LinkState>, Refusal> read_link(NetlinkSocket& socket,
                                                          const std::string& name);

struct AddressState {
  unsigned link = 0;
  IpAddress ip;
  unsigned prefix = 0;
  std::uint32_t valid_seconds = 0;  // UINT32_MAX: for ever
};
// nullopt: neither IPv4 nor IPv6. RTM_NEWADDR, RTM_DELADDR.
std::optional<AddressState> decode_address(const nlmsghdr* message);
tl::expected<std::vector<AddressState>, Refusal> read_addresses(NetlinkSocket& socket);

void put_macvlan(Batch& batch, const std::string& name, const LinkState& parent,
                 const MacAddress& mac);
void put_delete_link(Batch& batch, unsigned index, const std::string& name);
void put_link_up(Batch& batch, unsigned index, const std::string& name);
// As a host address (/32, /128) that ends after `lifetime`; again: lives on from now.
void put_address(Batch& batch, unsigned link, const IpAddress& ip, std::chrono::seconds lifetime);
void put_delete_address(Batch& batch, unsigned link, const IpAddress& ip);
// A way to the address's subnet for a node that has no other: loses to every other route.
void put_fallback_route(Batch& batch, unsigned link, const ServiceAddress& address);
void put_delete_fallback_route(Batch& batch, unsigned link, const ServiceAddress& address);

}  // namespace saru::nft
