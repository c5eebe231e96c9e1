// SPDX-License-Identifier: GPL-2.0-or-later
// What the witness was told to look at: links, shared addresses, MACs. Saved as the first line of
// a --records file, so that a later report judges by the same facts.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace witness {

template <class T>
using Result = tl::expected<T, std::string>;

using Mac = std::array<std::uint8_t, 6>;
// An IPv4 address stands in the first four bytes.
struct Address {
  std::array<std::uint8_t, 16> bytes{};
  bool is_v6 = false;
  bool operator==(const Address&) const = default;
};

// kSwitchPort: the switch's end; what enters there was sent by the node behind it.
// kNodePort: the node's own interface; what leaves there was sent by the node. An open capture
// keeps the node's network namespace alive after its processes died: not for crash tests.
enum class Side : std::uint8_t { kSwitchPort, kNodePort };

struct Link {
  std::string name;
  std::string netns;  // path; empty: the namespace of the witness
  std::string interface;
  Side side = Side::kSwitchPort;
  std::optional<Mac> mac;  // what --mac-of said about the node of this name
};

struct Setup {
  std::vector<Link> links;
  std::vector<Address> addresses;
  std::optional<Mac> shared_mac;
  std::uint32_t blocks = 512;
  std::uint16_t probe_port = 7;
  bool connections_move = false;  // connections=sync: a connection may change its node
};

Result<Mac> parse_mac(const std::string& text);
Result<Address> parse_address(const std::string& text);
// NAME=NETNS:IFNAME or NAME=IFNAME; a NETNS without a slash is a name below /run/netns.
Result<Link> parse_link(const std::string& text, Side side);
std::string to_text(const Mac& mac);
std::string to_text(const Address& address);
std::string link_name(const Setup& setup, std::uint8_t link);

nlohmann::ordered_json to_json(const Setup& setup);
Result<Setup> setup_from_json(std::string_view line);

}  // namespace witness
