// SPDX-License-Identifier: GPL-2.0-or-later
// Captures all links of a setup: one AF_PACKET ring per network namespace and side, bound to every
// interface there, so that a port which vanishes with its node and comes back is seen again from
// its first frame on.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "witness_decode.h"
#include "witness_record.h"
#include "witness_setup.h"

namespace witness {

class Capture {
 public:
  static Result<std::unique_ptr<Capture>> open(const Setup& setup, std::uint32_t ring_kib);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // Waits up to timeout_ms for frames, then takes all that are there.
  void take(int timeout_ms, std::vector<Record>& out);
  // Frames that the kernel could not put into a ring since the last call.
  std::uint64_t take_drops();
  // Names of links whose interface has not been there since open().
  std::vector<std::string> missing_links();
  std::vector<std::string> missing_links_now() const;
  const std::vector<std::uint64_t>& frames_by_link() const { return frames_; }

 private:
  struct Ring;

  explicit Capture(const Setup& setup);
  void take_ring(Ring& ring, std::vector<Record>& out);
  void take_block(Ring& ring, std::uint8_t* block, std::vector<Record>& out);
  std::uint8_t link_of(Ring& ring, int ifindex);
  bool is_present(std::size_t link) const;

  const Setup& setup_;
  Decoder decoder_;
  std::vector<std::unique_ptr<Ring>> rings_;
  std::vector<std::size_t> ring_of_link_;
  std::vector<bool> seen_;
  std::vector<std::uint64_t> frames_;
};

}  // namespace witness
