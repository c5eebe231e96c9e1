// SPDX-License-Identifier: GPL-2.0-or-later
// What a packet's block is computed from, as values: parse, compare, print. Pure. The computation
// itself is kmod/saru_block.h.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kmod/saru_block.h"
#include "nft/address.h"
#include "nft/result.h"

namespace saru {

enum class Selector : std::uint8_t {
  kSrcPort = SARU_SRC_PORT,
  kDstPort = SARU_DST_PORT,
  kSrcAddr = SARU_SRC_ADDR,
  kDstAddr = SARU_DST_ADDR,
  kSrcAddrPort = SARU_SRC_ADDR_PORT,
};
inline constexpr Selector kSelectors[] = {Selector::kSrcPort, Selector::kDstPort,
                                          Selector::kSrcAddr, Selector::kDstAddr,
                                          Selector::kSrcAddrPort};

const char* selector_name(Selector selector);  // "src-port"
std::optional<Selector> parse_selector(std::string_view name);

// "tcp", "udp", "udplite", "dccp", "sctp": the protocols that have ports.
const char* protocol_name(std::uint8_t protocol);
std::optional<std::uint8_t> parse_ported_protocol(std::string_view name);

// For one destination port another selector than for the rest.
struct Service {
  std::optional<IpAddress> address;      // nullopt: every shared address
  std::optional<std::uint8_t> protocol;  // nullopt: every protocol that has ports
  std::uint16_t port = 0;
  Selector selector = Selector::kSrcPort;

  // "443 by src-addr", "[2001:db8::1]:53/udp by src-addr-port"
  std::string text() const;
  bool operator==(const Service&) const = default;
};

// A list with commas, such as "443 by src-addr, 192.0.2.1:53/udp by src-addr-port"; empty: none.
// In the order in which they are asked (the more special ones first, then by address, protocol and
// port), whatever the order in the text. An error names the part that is wrong; kInvalid.
nft::Result<std::vector<Service>> parse_services(std::string_view text);
std::string to_text(const std::vector<Service>& services);

// Everything that decides the block of a packet, but for the number of blocks. Equal on all nodes.
struct Selection {
  Selector selector = Selector::kSrcPort;
  std::uint32_t seed = 0;  // of src-addr-port
  std::vector<Service> services;

  bool uses(Selector which) const;
  bool operator==(const Selection&) const = default;
};

// The seed of a cluster id where none is given: the same on every node.
std::uint32_t derived_seed(std::uint16_t id);

// A selection as the shared header takes it; it points into the object.
class BlockRule {
 public:
  explicit BlockRule(const Selection& selection);
  BlockRule(const BlockRule&) = delete;
  BlockRule& operator=(const BlockRule&) = delete;
  const saru_selection* get() const { return &rule_; }

 private:
  std::vector<saru_service> services_;
  saru_selection rule_{};
};

}  // namespace saru
