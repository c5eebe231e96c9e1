// SPDX-License-Identifier: GPL-2.0-or-later
// IP and MAC addresses as values: parse, compare, print. Pure.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "nft/result.h"

namespace saru {

// An IPv4 or IPv6 address, in network byte order.
class IpAddress {
 public:
  // "192.168.20.40" or "fd09::1"; nullopt for anything else (no prefix length, no zone).
  static std::optional<IpAddress> parse(std::string_view text);

  // 4 or 16 bytes in network byte order; nullopt for another number.
  static std::optional<IpAddress> from_bytes(std::span<const std::uint8_t> bytes);

  bool is_v4() const { return v4_; }
  std::span<const std::uint8_t> bytes() const { return {bytes_.data(), v4_ ? 4U : 16U}; }
  unsigned max_prefix() const { return v4_ ? 32 : 128; }
  std::string text() const;
  auto operator<=>(const IpAddress&) const = default;

 private:
  bool v4_ = true;
  std::array<std::uint8_t, 16> bytes_{};
};

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  // "02:5a:72:00:00:01"
  static std::optional<MacAddress> parse(std::string_view text);
  std::string text() const;
  bool is_multicast() const { return (bytes[0] & 1) != 0; }
  bool is_zero() const { return *this == MacAddress{}; }
  auto operator<=>(const MacAddress&) const = default;
};

// The shared MAC of a cluster id, where none is configured: locally administered, 02:5a:72:00 + id.
MacAddress derived_shared_mac(std::uint16_t id);

// The one of the same nodes' other side (TableConfig::inside), where another is the outside's: as
// that, locally administered, but for one bit. 02:5a:72:01 + id where the other one is derived.
MacAddress derived_inside_mac(const MacAddress& outside);

// An address that all nodes share, with the prefix length it was given.
struct ServiceAddress {
  IpAddress ip;
  unsigned prefix = 32;

  // "192.168.20.40", "192.168.20.40/24", "fd09::1/64". Without a prefix length: /32 or /128.
  // Refused with a sentence that names the text: what is no address, multicast, loopback,
  // unspecified, link-local IPv6, an IPv4-mapped address, a bad prefix length.
  static nft::Result<ServiceAddress> parse(std::string_view text);
  std::string text() const;
  IpAddress subnet() const;  // its first address: the bits behind the prefix are zero
  auto operator<=>(const ServiceAddress&) const = default;
};

}  // namespace saru
