// SPDX-License-Identifier: GPL-2.0-or-later
// Which block a client's packet falls into, for people who ask. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "agent/core/types.h"
#include "nft/address.h"

namespace saru {

enum class Protocol { kTcp, kUdp, kIcmp };

struct ClientPacket {
  IpAddress address;
  std::optional<std::uint16_t> port;
  Protocol protocol = Protocol::kTcp;
};

// "192.0.2.7:4711", "[2001:db8::7]:4711", "192.0.2.7", "2001:db8::7"; protocol "tcp", "udp",
// "icmp", "icmpv6" or empty (tcp). The error is a sentence.
tl::expected<ClientPacket, std::string> parse_client(const std::string& address,
                                                     const std::string& protocol);

// Selector src-port (DESIGN.md 2): TCP and UDP by source port, ICMP by the low 16 bits of the
// source address. TCP and UDP need a port.
BlockId block_of(const ClientPacket& packet, unsigned blocks);

// "192.0.2.7:4711 tcp"
std::string to_text(const ClientPacket& packet);

}  // namespace saru
