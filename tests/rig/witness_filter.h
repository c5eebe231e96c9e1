// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel-side filter of a capture: keeps frames from or to a shared address and frames with
// the shared MAC as their source, and cuts each to kSnapLength bytes.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "witness_setup.h"

namespace witness {

inline constexpr std::uint32_t kSnapLength = 112;

std::vector<sock_filter> build_filter(const Setup& setup, Side side);

}  // namespace witness
