// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "nft/address.h"

namespace saru::nft {

struct Claim {
  IpAddress ip;
  MacAddress mac;
};

// Which MAC a received frame says that an address has: ARP, or a neighbour advertisement. Pure.
std::optional<Claim> read_content(std::span<const std::uint8_t> frame);

// What a received frame claims, if it does. A node of ours does not: its frames come from its own
// MAC and speak of the shared one. Pure.
std::optional<Claim> read_claim(std::span<const std::uint8_t> frame);

}  // namespace saru::nft
