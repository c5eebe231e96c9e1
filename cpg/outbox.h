// SPDX-License-Identifier: GPL-2.0-or-later
// The queue of our own messages: in order, bounded, and never more than so many on their way. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "agent/core/message.h"

namespace saru {

class Outbox {
 public:
  Outbox(std::size_t queued_max, std::size_t in_flight_max)
      : queued_max_(queued_max), in_flight_max_(in_flight_max) {}

  enum class Queued { kYes, kInPlaceOfABeat, kFull };
  // A beat makes an older one of the same view, if it still waits here, superfluous. Its successor
  // goes to the end: it must not overtake what was said between the two.
  Queued push(const Message& message, std::vector<std::byte> bytes);

  // What may be sent now; null when nothing waits or enough is on its way.
  const std::vector<std::byte>* next() const;
  // next() has been handed over.
  void sent();

  // A message of ours came back. Messages come back in the order in which they were sent, so those
  // before it that did not are lost; returns how many. Nothing happens if it is none of ours.
  std::size_t came_back(std::span<const std::byte> bytes);

  // Everything that waits or is on its way is forgotten.
  void clear();

  std::size_t queued() const { return queue_.size(); }
  std::size_t in_flight() const { return in_flight_.size(); }

 private:
  struct Waiting {
    std::vector<std::byte> bytes;
    ViewId view;
    bool beat = false;
  };
  // Length and CRC: enough to know a message again in the order in which it was sent.
  struct Mark {
    std::size_t size = 0;
    std::uint32_t crc = 0;
    bool operator==(const Mark&) const = default;
  };
  static Mark mark_of(std::span<const std::byte> bytes);

  std::size_t queued_max_;
  std::size_t in_flight_max_;
  std::deque<Waiting> queue_;
  std::deque<Mark> in_flight_;
};

}  // namespace saru
