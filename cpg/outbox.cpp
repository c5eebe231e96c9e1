// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/outbox.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace saru {

Outbox::Queued Outbox::push(const Message& message, std::vector<std::byte> bytes) {
  const bool beat = std::holds_alternative<Beat>(message.body);
  Queued result = Queued::kYes;
  if (beat) {
    const auto older = std::find_if(queue_.begin(), queue_.end(), [&](const Waiting& waiting) {
      return waiting.beat && waiting.view == message.view;
    });
    if (older != queue_.end()) {
      queue_.erase(older);
      result = Queued::kInPlaceOfABeat;
    }
  }
  if (queue_.size() >= queued_max_) return Queued::kFull;
  queue_.push_back({.bytes = std::move(bytes), .view = message.view, .beat = beat});
  return result;
}

const std::vector<std::byte>* Outbox::next() const {
  if (queue_.empty() || in_flight_.size() >= in_flight_max_) return nullptr;
  return &queue_.front().bytes;
}

void Outbox::sent() {
  in_flight_.push_back(mark_of(queue_.front().bytes));
  queue_.pop_front();
}

std::size_t Outbox::came_back(std::span<const std::byte> bytes) {
  const auto found = std::find(in_flight_.begin(), in_flight_.end(), mark_of(bytes));
  if (found == in_flight_.end()) return 0;
  const auto lost = static_cast<std::size_t>(found - in_flight_.begin());
  in_flight_.erase(in_flight_.begin(), found + 1);
  return lost;
}

void Outbox::clear() {
  queue_.clear();
  in_flight_.clear();
}

Outbox::Mark Outbox::mark_of(std::span<const std::byte> bytes) {
  Mark mark{.size = bytes.size()};
  for (const std::byte b : bytes.last(std::min<std::size_t>(bytes.size(), 4))) {
    mark.crc = mark.crc << 8 | std::to_integer<std::uint32_t>(b);
  }
  return mark;
}

}  // namespace saru
