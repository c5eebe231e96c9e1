// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/flow_blocks.h"

#include <algorithm>
#include <utility>

namespace saru::sync {
namespace {

std::span<const std::uint8_t> bytes_of(bool v4, const AddressBytes& address) {
  return std::span(address).first(v4 ? 4 : 16);
}

bool begins_alike(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b, unsigned bits) {
  const unsigned whole = bits / 8;
  if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
  if (bits % 8 == 0) return true;
  const unsigned mask = 0xff00U >> bits % 8;
  return ((a[whole] ^ b[whole]) & mask & 0xff) == 0;
}

}  // namespace

FlowBlocks::FlowBlocks(FlowRule rule) : rule_(std::move(rule)), block_rule_(rule_.selection) {}

bool FlowBlocks::is_shared(bool v4, const AddressBytes& address) const {
  const auto bytes = bytes_of(v4, address);
  return std::any_of(rule_.addresses.begin(), rule_.addresses.end(), [&](const IpAddress& ip) {
    return ip.is_v4() == v4 && std::equal(bytes.begin(), bytes.end(), ip.bytes().begin());
  });
}

bool FlowBlocks::is_inside(bool v4, const AddressBytes& address) const {
  const auto bytes = bytes_of(v4, address);
  return std::any_of(rule_.inside.begin(), rule_.inside.end(), [&](const ServiceAddress& one) {
    return one.ip.is_v4() == v4 && begins_alike(bytes, one.ip.bytes(), one.prefix);
  });
}

// The client is who is outside: the source of what comes to a shared address, or in an inside
// subnet; the destination of what leaves under a shared address, or comes from an inside subnet.
std::optional<BlockId> FlowBlocks::block_of(const Flow& flow) const {
  const FlowKey& key = flow.key;
  // Where the key alone tells, what NAT makes of the source tells nothing else.
  const bool comes = is_shared(key.v4, key.destination) || is_inside(key.v4, key.destination);
  const bool leaves =
      is_inside(key.v4, key.source) ||
      (!comes && flow.state.source && is_shared(key.v4, flow.state.source->address));
  if (!leaves && (!comes || is_shared(key.v4, key.source))) return std::nullopt;
  saru_flow packet{};
  packet.version = key.v4 ? 4 : 6;
  packet.protocol = key.protocol;
  const AddressBytes& client = leaves ? key.destination : key.source;
  const AddressBytes& server =
      leaves ? (flow.state.source ? flow.state.source->address : key.source) : key.destination;
  std::copy(client.begin(), client.end(), packet.client_address);
  std::copy(server.begin(), server.end(), packet.server_address);
  packet.client_port = leaves ? key.destination_port : key.source_port;
  packet.server_port = leaves ? key.source_port : key.destination_port;
  if (leaves && flow.state.source) packet.server_port = flow.state.source->port;
  packet.has = SARU_HAS_CLIENT_ADDRESS | SARU_HAS_SERVER_ADDRESS | SARU_HAS_CLIENT_PORT |
               SARU_HAS_SERVER_PORT;
  // Of ICMP only what asks, and its answer, is a connection: by the client's address, always.
  const bool has_ports = saru_has_ports(key.protocol) != 0;
  const saru_s32 value = has_ports ? saru_flow_value(&packet, block_rule_.get())
                                   : saru_low16(packet.client_address, packet.version);
  if (value < 0) return std::nullopt;
  const saru_u32 block = saru_block_of(static_cast<saru_u32>(value), rule_.blocks);
  return BlockId{static_cast<std::uint16_t>(block)};
}

}  // namespace saru::sync
