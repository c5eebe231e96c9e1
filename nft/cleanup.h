// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nft/result.h"

namespace saru::nft {

// Removes what a dead process of this id left in this network namespace: first the links with their
// addresses, then both tables. Returns what was removed, in words; nothing there is success.
// kConflict when a live process owns the tables (only known where the kernel has table owners).
Result<std::vector<std::string>> cleanup(std::uint16_t id);

}  // namespace saru::nft
