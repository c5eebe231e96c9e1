// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/record.h"

#include <algorithm>
#include <array>

#include "agent/core/plant.h"

namespace saru::sync {
namespace {

// The first byte of a key.
constexpr unsigned kProtocolBits = 0x07;
constexpr unsigned kIpv6 = 0x08;
constexpr unsigned kZoneShift = 4;
constexpr unsigned kZoneBits = 0x30;
constexpr unsigned kKeyBits = kProtocolBits | kIpv6 | kZoneBits;
// The first byte of a value.
constexpr unsigned kAssured = 0x01;
constexpr unsigned kSeenReply = 0x02;
constexpr unsigned kDestination = 0x04;
constexpr unsigned kSource = 0x08;
constexpr unsigned kMark = 0x10;
constexpr unsigned kLabels = 0x20;
constexpr unsigned kHelper = 0x40;
constexpr unsigned kShifts = 0x80;

constexpr std::size_t kPortSize = 2;
constexpr std::size_t kMarkSize = 4;
constexpr std::size_t kTcpSize = 2;
constexpr std::size_t kShiftsSize = 24;

// The code of each protocol is its place here.
constexpr std::array kProtocols = {kTcp, kUdp, kUdpLite, kIcmp};

std::uint8_t protocol_of(unsigned what) {
  const unsigned code = what & kProtocolBits;
  if (code >= kProtocols.size()) return 0;
  const std::uint8_t protocol = kProtocols[code];
  return protocol == kIcmp && (what & kIpv6) != 0 ? kIcmpV6 : protocol;
}

std::size_t address_size(bool v4) { return v4 ? 4 : 16; }

// ---- The timeout in a byte: exponent << 3 | three bits behind the leading one
// ------------------------------------------------------------------

constexpr unsigned kStepBits = 3;
constexpr unsigned kSteps = 1U << kStepBits;

constexpr std::uint32_t timeout_of(unsigned code) {
  const unsigned exponent = code >> kStepBits;
  const unsigned steps = code % kSteps;
  return exponent == 0 ? steps : (kSteps + steps) << (exponent - 1);
}

constexpr unsigned timeout_code(std::uint32_t timeout_s) {
  const std::uint32_t wanted = std::min(timeout_s, kLongestTimeoutS);
  unsigned code = 0;
  while (timeout_of(code) < wanted) code += timeout_of(code + kSteps) < wanted ? kSteps : 1;
  return code;
}

constexpr unsigned kLongestCode = timeout_code(kLongestTimeoutS);
static_assert(timeout_of(kLongestCode) == kLongestTimeoutS && kLongestCode < 0x100);

// ---- Bytes
// ------------------------------------------------------------------

class Writer {
 public:
  void byte(unsigned value) { bytes_.push_back(static_cast<char>(value)); }
  void number(std::uint32_t value, std::size_t size) {
    while (size > 0) byte(value >> (8 * --size) & 0xff);
  }
  void raw(const AddressBytes& from, std::size_t size) {
    bytes_.append(reinterpret_cast<const char*>(from.data()), size);
  }
  void text(const std::string& text) { bytes_ += text; }
  void translation(const Translation& nat, bool v4) {
    raw(nat.address, address_size(v4));
    number(nat.port, kPortSize);
  }
  void shift(const SequenceShift& shift) {
    for (const std::uint32_t value : {shift.position, shift.before, shift.after}) number(value, 4);
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Past the end it reads zeros, and `short_` says so.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  std::string_view raw(std::size_t size) {
    short_ = short_ || size > rest_.size();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::uint32_t number(std::size_t size) {
    std::uint32_t value = 0;
    for (const char byte : raw(size)) value = value << 8 | static_cast<unsigned char>(byte);
    return value;
  }
  AddressBytes bytes(std::size_t size) {
    AddressBytes into{};
    const std::string_view taken = raw(size);
    std::copy(taken.begin(), taken.end(), into.begin());
    return into;
  }
  std::uint16_t port() { return static_cast<std::uint16_t>(number(kPortSize)); }
  Translation translation(bool v4) {
    const AddressBytes address = bytes(address_size(v4));
    return {.address = address, .port = port()};
  }
  SequenceShift shift() {
    SequenceShift shift;
    for (std::uint32_t* value : {&shift.position, &shift.before, &shift.after}) *value = number(4);
    return shift;
  }

  // Whether exactly what there is has been read.
  bool ended_well() const { return !short_ && (rest_.empty() || planted() == Plant::kAnyTrailer); }

 private:
  std::string_view rest_;
  bool short_ = false;
};

bool is_none(const AddressBytes& labels) { return labels == AddressBytes{}; }

bool is_shifted(const FlowState& state) {
  return state.shift_original != SequenceShift{} || state.shift_reply != SequenceShift{};
}

bool is_helper(std::string_view name) {
  return !name.empty() && name.size() <= FlowState::kMaxHelperSize &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

unsigned what_of(const FlowState& state, std::uint8_t protocol) {
  return (state.assured ? kAssured : 0) | (state.seen_reply ? kSeenReply : 0) |
         (state.destination ? kDestination : 0) | (state.source ? kSource : 0) |
         (state.mark != 0 ? kMark : 0) | (is_none(state.labels) ? 0 : kLabels) |
         (is_helper(state.helper) ? kHelper : 0) |
         (protocol == kTcp && is_shifted(state) ? kShifts : 0);
}

// nullptr: it is one.
const char* read_key(std::string_view bytes, FlowKey& key) {
  Reader in(bytes);
  const unsigned what = in.number(1);
  key.v4 = (what & kIpv6) == 0;
  key.protocol = protocol_of(what);
  if (key.protocol == 0 || (what & ~kKeyBits) != 0) return "a key of an unknown kind";
  key.zone.direction = static_cast<Zone::Direction>((what & kZoneBits) >> kZoneShift);
  if (key.zone.direction != Zone::Direction::kNone) {
    key.zone.id = in.port();
    if (key.zone.id == 0) return "zone 0 is written as none";
  }
  key.source = in.bytes(address_size(key.v4));
  key.destination = in.bytes(address_size(key.v4));
  key.source_port = in.port();
  key.destination_port = in.port();
  return in.ended_well() ? nullptr : "a key of a wrong size";
}

const char* read_tcp(Reader& in, FlowState& state) {
  const unsigned first = in.number(1);
  state.tcp_state = first & 0x0f;
  state.scale_original = static_cast<std::uint8_t>(first >> 4);
  state.scale_reply = static_cast<std::uint8_t>(in.number(1));
  if (state.tcp_state > FlowState::kMaxTcpState) return "an unknown state of TCP";
  const bool scales_good =
      state.scale_original <= FlowState::kMaxScale && state.scale_reply <= FlowState::kMaxScale;
  return scales_good ? nullptr : "a window scale beyond 14";
}

const char* read_rest(Reader& in, unsigned what, bool v4, FlowState& state) {
  if ((what & kDestination) != 0) state.destination = in.translation(v4);
  if ((what & kSource) != 0) state.source = in.translation(v4);
  if ((what & kMark) != 0) {
    state.mark = in.number(kMarkSize);
    if (state.mark == 0) return "mark 0 is written as none";
  }
  if ((what & kLabels) != 0) {
    state.labels = in.bytes(state.labels.size());
    if (is_none(state.labels)) return "no labels are written as none";
  }
  if ((what & kHelper) != 0) {
    state.helper = in.raw(in.number(1));
    if (!is_helper(state.helper)) return "no name of a helper";
  }
  if ((what & kShifts) != 0) {
    state.shift_original = in.shift();
    state.shift_reply = in.shift();
    if (!is_shifted(state)) return "no shifts are written as none";
  }
  return in.ended_well() ? nullptr : "a value of a wrong size";
}

const char* read_value(std::string_view bytes, const FlowKey& key, FlowState& state) {
  Reader in(bytes);
  const unsigned what = in.number(1);
  if ((what & kShifts) != 0 && key.protocol != kTcp) return "shifts of what is not TCP";
  state.assured = (what & kAssured) != 0;
  state.seen_reply = (what & kSeenReply) != 0;
  const unsigned code = in.number(1);
  if (code > kLongestCode) return "a timeout beyond the longest";
  state.timeout_s = timeout_of(code);
  if (key.protocol == kTcp) {
    if (const char* wrong = read_tcp(in, state)) return wrong;
  }
  return read_rest(in, what, key.v4, state);
}

}  // namespace

std::uint32_t rounded_timeout_s(std::uint32_t timeout_s) {
  return timeout_of(timeout_code(timeout_s));
}

std::string encode_key(const FlowKey& key) {
  if (!is_carried(key.v4, key.protocol)) return {};
  const std::uint8_t protocol = key.protocol == kIcmpV6 ? kIcmp : key.protocol;
  const auto code = static_cast<unsigned>(
      std::find(kProtocols.begin(), kProtocols.end(), protocol) - kProtocols.begin());
  const bool zone = key.zone.direction != Zone::Direction::kNone && key.zone.id != 0;
  const unsigned direction = zone ? static_cast<unsigned>(key.zone.direction) : 0;
  Writer out;
  out.byte(code | (key.v4 ? 0 : kIpv6) | direction << kZoneShift);
  if (zone) out.number(key.zone.id, kPortSize);
  out.raw(key.source, address_size(key.v4));
  out.raw(key.destination, address_size(key.v4));
  out.number(key.source_port, kPortSize);
  out.number(key.destination_port, kPortSize);
  return out.take();
}

std::string encode_value(const FlowState& state, bool v4, std::uint8_t protocol) {
  if (!is_carried(v4, protocol)) return {};
  const unsigned what = what_of(state, protocol);
  Writer out;
  out.byte(what);
  out.byte(timeout_code(state.timeout_s));
  if (protocol == kTcp) {
    const unsigned tcp = state.tcp_state <= FlowState::kMaxTcpState ? state.tcp_state : 0;
    out.byte(tcp | std::min(state.scale_original, FlowState::kMaxScale) << 4);
    out.byte(std::min(state.scale_reply, FlowState::kMaxScale));
  }
  if (state.destination) out.translation(*state.destination, v4);
  if (state.source) out.translation(*state.source, v4);
  if ((what & kMark) != 0) out.number(state.mark, kMarkSize);
  if ((what & kLabels) != 0) out.raw(state.labels, state.labels.size());
  if ((what & kHelper) != 0) {
    out.byte(static_cast<unsigned>(state.helper.size()));
    out.text(state.helper);
  }
  if ((what & kShifts) != 0) {
    out.shift(state.shift_original);
    out.shift(state.shift_reply);
  }
  return out.take();
}

tl::expected<Flow, const char*> decode(std::string_view key, std::string_view value) {
  Flow flow;
  if (const char* wrong = read_key(key, flow.key)) return tl::unexpected(wrong);
  if (const char* wrong = read_value(value, flow.key, flow.state)) return tl::unexpected(wrong);
  return flow;
}

tl::expected<FlowKey, const char*> decode_key(std::string_view key) {
  FlowKey result;
  if (const char* wrong = read_key(key, result)) return tl::unexpected(wrong);
  return result;
}

bool differ_in_timeout_only(std::string_view one, std::string_view other) {
  constexpr std::size_t kTimeoutAt = 1;
  return one.size() == other.size() && one.substr(0, kTimeoutAt) == other.substr(0, kTimeoutAt) &&
         one.substr(kTimeoutAt + 1) == other.substr(kTimeoutAt + 1);
}

std::optional<std::size_t> key_size(std::string_view bytes) {
  if (bytes.empty()) return std::nullopt;
  const auto what = static_cast<unsigned char>(bytes.front());
  if (protocol_of(what) == 0 || (what & ~kKeyBits) != 0) return std::nullopt;
  const std::size_t zone = (what & kZoneBits) != 0 ? kPortSize : 0;
  const std::size_t size = 1 + zone + 2 * (address_size((what & kIpv6) == 0) + kPortSize);
  if (size > bytes.size()) return std::nullopt;
  return size;
}

std::optional<std::size_t> value_size(std::string_view bytes, std::string_view key) {
  if (bytes.empty() || !key_size(key)) return std::nullopt;
  const auto of_key = static_cast<unsigned char>(key.front());
  const auto what = static_cast<unsigned char>(bytes.front());
  const std::size_t translation = address_size((of_key & kIpv6) == 0) + kPortSize;
  std::size_t size = 2;
  if (protocol_of(of_key) == kTcp) size += kTcpSize;
  if ((what & kDestination) != 0) size += translation;
  if ((what & kSource) != 0) size += translation;
  if ((what & kMark) != 0) size += kMarkSize;
  if ((what & kLabels) != 0) size += AddressBytes{}.size();
  if ((what & kHelper) != 0) {
    if (size >= bytes.size()) return std::nullopt;
    size += 1 + static_cast<unsigned char>(bytes[size]);
  }
  if ((what & kShifts) != 0) size += kShiftsSize;
  if (size > bytes.size()) return std::nullopt;
  return size;
}

}  // namespace saru::sync
