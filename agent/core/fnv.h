// SPDX-License-Identifier: GPL-2.0-or-later
// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
// The same on all nodes, whatever the machine and the compiler.
#pragma once

#include <cstdint>
#include <string_view>

namespace saru {

inline constexpr std::uint64_t kFnvBasis = 0xcbf29ce484222325ULL;

// `basis`: the hash of what stood before.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t basis = kFnvBasis) {
  std::uint64_t hash = basis;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace saru
