// SPDX-License-Identifier: GPL-2.0-or-later
// Big-endian numbers to and from bytes, for wire.cpp. A Reader never reads beyond its span: after
// the first error everything it gives is zero and the error stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cpg/wire.h"

namespace saru::wire {

class Writer {
 public:
  template <class Number>
  void number(Number value) {
    for (int shift = static_cast<int>(sizeof(Number) - 1) * 8; shift >= 0; shift -= 8) {
      bytes_.push_back(static_cast<std::byte>(value >> shift & 0xff));
    }
  }
  void u8(std::uint8_t value) { number(value); }
  void u16(std::uint16_t value) { number(value); }
  void u32(std::uint32_t value) { number(value); }
  void u64(std::uint64_t value) { number(value); }
  void characters(const std::string& text) {
    const auto* begin = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), begin, begin + text.size());
  }
  // Overwrites four bytes that were written before.
  void u32_at(std::size_t at, std::uint32_t value) {
    for (int i = 0; i < 4; ++i) bytes_[at + i] = static_cast<std::byte>(value >> (24 - 8 * i));
  }

  std::span<const std::byte> bytes() const { return bytes_; }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  std::uint8_t u8() { return number<std::uint8_t>(); }
  std::uint16_t u16() { return number<std::uint16_t>(); }
  std::uint32_t u32() { return number<std::uint32_t>(); }
  std::uint64_t u64() { return number<std::uint64_t>(); }
  std::string characters(std::size_t count) {
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  // Whether so many entries of so many bytes may follow; room for them may be reserved then.
  bool expects(std::size_t count, std::size_t count_max, std::size_t entry_bytes) {
    if (count > count_max) fail(DecodeError::kTooLong);
    if (count * entry_bytes > rest_.size()) fail(DecodeError::kTooShort);
    return ok();
  }

  // Everything fails from here on; the first error counts.
  void fail(DecodeError error) {
    if (!error_) error_ = error;
    rest_ = {};
  }
  bool ok() const { return !error_; }
  bool at_end() const { return rest_.empty(); }
  DecodeError error() const { return *error_; }

 private:
  std::span<const std::byte> take(std::size_t count) {
    if (count > rest_.size()) fail(DecodeError::kTooShort);
    if (!ok()) return {};
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  template <class Number>
  Number number() {
    Number value = 0;
    for (const std::byte b : take(sizeof(Number))) {
      value = static_cast<Number>(value << 8 | std::to_integer<Number>(b));
    }
    return value;
  }

  std::span<const std::byte> rest_;
  std::optional<DecodeError> error_;
};

}  // namespace saru::wire
