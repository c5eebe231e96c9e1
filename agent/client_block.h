// SPDX-License-Identifier: GPL-2.0-or-later
// Which block a client's packet falls into, for people who ask. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/core/types.h"
#include "nft/address.h"
#include "nft/selector.h"

namespace saru {

enum class Protocol : std::uint8_t {
  kIcmp = SARU_ICMP,  // of either family; queries
  kTcp = SARU_TCP,
  kUdp = SARU_UDP,
  kDccp = SARU_DCCP,
  kSctp = SARU_SCTP,
  kUdplite = SARU_UDPLITE,
};

struct ClientPacket {
  IpAddress address;
  std::optional<std::uint16_t> port;
  Protocol protocol = Protocol::kTcp;
  // Where it goes: asked only where a selector or a service looks at it.
  std::optional<IpAddress> server;
  std::optional<std::uint16_t> server_port;
};

// `address`: "192.0.2.7:4711", "[2001:db8::7]:4711", "192.0.2.7", "2001:db8::7"; `protocol`: "tcp",
// "udp", "udplite", "dccp", "sctp", "icmp", "icmpv6" or empty (tcp); `to`: "443",
// "192.0.2.1:443", "[2001:db8::1]:443", or empty. The error is a sentence.
tl::expected<ClientPacket, std::string> parse_client(const std::string& address,
                                                     const std::string& protocol,
                                                     const std::string& to = {});

// How the shared addresses are served.
struct Served {
  Selection selection;
  unsigned blocks = kDefaultBlocks;
  std::vector<IpAddress> addresses;  // where there is one of the client's family, `to` may omit it
};

struct ClientBlock {
  BlockId block;
  Selector selector = Selector::kSrcPort;  // that it was computed by
};

// By kmod/saru_block.h. The error is a sentence that says what else must be given.
tl::expected<ClientBlock, std::string> block_of(const ClientPacket& packet, const Served& served);

// "192.0.2.7:4711 tcp", "192.0.2.7:4711 tcp to 192.0.2.1:443"
std::string to_text(const ClientPacket& packet);

}  // namespace saru
