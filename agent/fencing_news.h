// SPDX-License-Identifier: GPL-2.0-or-later
// What saru-fencing tells sarud, one line each. Pure.
//   watching                 it has reached Pacemaker's fencer
//   blind REASON             it has not, or has lost it
//   fenced RAW               the partner was fenced; at RAW (nanoseconds of CLOCK_MONOTONIC_RAW) no
//                            fencing of it was under way yet
//   fenced alone RAW         it was, and no other node has shared a ring with this one since its
//                            corosync began, until after RAW
#pragma once

#include <optional>
#include <string>

#include "agent/core/types.h"

namespace saru {

struct FencingNews {
  enum class Kind { kWatching, kBlind, kFenced } kind = Kind::kBlind;
  std::string reason;    // of kBlind
  Nanos began_after{0};  // of kFenced
  bool alone = false;    // of kFenced: began_after is "until after"
  bool operator==(const FencingNews&) const = default;
};

// Without the line feed. nullopt: it is none of these lines.
std::optional<FencingNews> parse_fencing_news(const std::string& line);
// With the line feed.
std::string to_line(const FencingNews& news);

}  // namespace saru
