// SPDX-License-Identifier: GPL-2.0-or-later
// What a fuzzer's bytes mean: numbers and pieces, taken from the front. What is not there is zero,
// or empty.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

namespace saru::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }
  std::size_t size() const { return rest_.size(); }

  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    for (const std::uint8_t byte : take(bytes)) value = value << 8 | byte;
    return value;
  }
  std::uint8_t byte() { return static_cast<std::uint8_t>(number(1)); }

  std::span<const std::uint8_t> take(std::size_t bytes) {
    const auto taken = rest_.first(std::min(bytes, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  // A piece that says its own length in two bytes.
  std::span<const std::uint8_t> piece() { return take(number(2)); }
  // Up to the end of a line, without it.
  std::span<const std::uint8_t> line() {
    const auto end = std::find(rest_.begin(), rest_.end(), '\n');
    const auto found = take(static_cast<std::size_t>(end - rest_.begin()));
    take(1);
    return found;
  }
  std::span<const std::uint8_t> all() { return take(rest_.size()); }

 private:
  std::span<const std::uint8_t> rest_;
};

inline std::string text_of(std::span<const std::uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}

// Something that must hold for every input does not: libFuzzer keeps the input.
inline void must(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace saru::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
