// SPDX-License-Identifier: GPL-2.0-or-later
// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014):
// the same numbers from the same seed with every compiler and library, which the standard
// distributions do not promise. For spreading, simulation and tests; never for secrets or nonces.
#pragma once

#include <cstdint>

namespace saru {

class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // Each of 0 .. n - 1 equally likely; n must not be 0.
  std::uint64_t below(std::uint64_t n) {
    // Numbers under 2^64 mod n are drawn again: without them n divides what is left.
    const std::uint64_t unfair = (0 - n) % n;
    std::uint64_t drawn = next();
    while (drawn < unfair) drawn = next();
    return drawn % n;
  }

  // At least 0, below 1, in steps of 2^-53.
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

}  // namespace saru
