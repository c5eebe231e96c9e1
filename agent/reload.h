// SPDX-License-Identifier: GPL-2.0-or-later
// New parameters for a running sarud (sarud --reload): what may change, and how. Pure.
#pragma once

#include <tl/expected.hpp>

#include "agent/core/core.h"
#include "agent/options.h"

namespace saru {

// What the members must agree on before it comes into force; the rest (weight, log) is this node's
// own affair.
struct Change {
  Options options;
  Reconfigure agreed;
};

// kBadConfiguration when a parameter differs that a running sarud cannot change.
[[nodiscard]] tl::expected<Change, Failure> plan_change(const Options& running, Options wanted,
                                                        Nanos lease);

}  // namespace saru
