// SPDX-License-Identifier: GPL-2.0-or-later
// Whether another machine of the LAN has an address that is to be shared.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "nft/address.h"
#include "nft/announce.h"
#include "nft/claim.h"
#include "nft/result.h"

namespace saru::nft {

// Asks by ARP probe (RFC 5227) and neighbour solicitation (RFC 4862 section 5.4), twice, and waits
// for `patience` altogether. The nodes that serve the address already claim nothing.
Result<std::optional<Claim>> find_claim(const Announcement& who,
                                        const std::vector<IpAddress>& addresses,
                                        std::chrono::milliseconds patience);

}  // namespace saru::nft
