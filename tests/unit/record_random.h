// SPDX-License-Identifier: GPL-2.0-or-later
// Random flows of every kind, such that a record can say all of them; the same from the same seed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "agent/core/rng.h"
#include "agent/sync/record.h"

namespace saru::sync {

class RandomFlows {
 public:
  explicit RandomFlows(std::uint64_t seed) : random_(seed) {}

  Flow flow() {
    Flow flow;
    FlowKey& key = flow.key;
    key.v4 = flag();
    const std::uint8_t icmp = key.v4 ? kIcmp : kIcmpV6;
    key.protocol = std::array{kTcp, kUdp, kUdpLite, icmp}.at(random_.below(4));
    key.source = address(key.v4);
    key.destination = address(key.v4);
    key.source_port = u16();
    key.destination_port = u16();
    key.zone.direction = static_cast<Zone::Direction>(random_.below(4));
    if (key.zone.direction != Zone::Direction::kNone) key.zone.id = 1 + random_.below(0xffff);
    fill(key, flow.state);
    return flow;
  }

 private:
  bool flag() { return random_.below(2) == 0; }
  std::uint16_t u16() { return static_cast<std::uint16_t>(random_.next()); }
  std::uint8_t below(unsigned most) { return static_cast<std::uint8_t>(random_.below(most)); }

  AddressBytes bytes(std::size_t size) {
    AddressBytes made{};
    for (std::size_t i = 0; i < size; ++i) made.at(i) = below(256);
    return made;
  }
  AddressBytes address(bool v4) { return bytes(v4 ? 4 : 16); }
  Translation translation(bool v4) {
    const AddressBytes where = address(v4);
    return {.address = where, .port = u16()};
  }

  void fill(const FlowKey& key, FlowState& state) {
    state.assured = flag();
    state.seen_reply = flag();
    if (key.protocol == kTcp) {
      state.tcp_state = below(FlowState::kMaxTcpState + 1);
      state.scale_original = below(FlowState::kMaxScale + 1);
      state.scale_reply = below(FlowState::kMaxScale + 1);
    }
    const auto any = static_cast<std::uint32_t>(random_.next());
    state.timeout_s = rounded_timeout_s(any >> random_.below(32));
    if (flag()) state.mark = static_cast<std::uint32_t>(random_.next());
    if (random_.below(4) == 0) state.labels = bytes(16);
    if (flag()) state.destination = translation(key.v4);
    if (flag()) state.source = translation(key.v4);
    if (key.protocol == kTcp && flag()) {
      for (SequenceShift* shift : {&state.shift_original, &state.shift_reply}) {
        const auto any32 = [&] { return static_cast<std::uint32_t>(random_.next()); };
        *shift = {.position = any32(), .before = any32(), .after = any32()};
      }
    }
    if (random_.below(4) == 0) {
      state.helper.assign(1 + random_.below(FlowState::kMaxHelperSize), 'a');
      for (char& c : state.helper) c = static_cast<char>('!' + random_.below('~' - '!' + 1));
    }
  }

  SplitMix64 random_;
};

}  // namespace saru::sync
