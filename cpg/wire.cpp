// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/wire.h"

#include <zlib.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "agent/core/plant.h"
#include "cpg/wire_io.h"

namespace saru {
namespace {

using wire::Reader;
using wire::Writer;

constexpr std::uint32_t kMagic = 0x73617275;  // "saru"
constexpr std::size_t kLengthAt = 8;
constexpr std::size_t kHeaderBytes = 44;
constexpr std::size_t kCrcBytes = 4;
constexpr std::size_t kShortest = kHeaderBytes + 1 + kCrcBytes;
constexpr std::size_t kProcessBytes = 8;
constexpr std::size_t kMemberBytes = 16;
constexpr std::size_t kDepartedBytes = kMemberBytes + 8;
constexpr std::size_t kReportBytes = 16;
constexpr std::size_t kDigestBytes = 14;

// The type byte is the place in the Body variant, counted from 1. A new type goes to the end, and
// the layout of a released type never changes: that takes a new kWireVersion.
static_assert(std::is_same_v<std::variant_alternative_t<0, Body>, Hello>);
static_assert(std::is_same_v<std::variant_alternative_t<1, Body>, Beat>);
static_assert(std::is_same_v<std::variant_alternative_t<2, Body>, Released>);
static_assert(std::is_same_v<std::variant_alternative_t<3, Body>, Round>);
static_assert(std::is_same_v<std::variant_alternative_t<4, Body>, Leave>);
static_assert(std::is_same_v<std::variant_alternative_t<5, Body>, Audit>);
static_assert(std::is_same_v<std::variant_alternative_t<6, Body>, AuditReply>);
static_assert(std::is_same_v<std::variant_alternative_t<7, Body>, LingerDone>);
static_assert(std::is_same_v<std::variant_alternative_t<8, Body>, Flows>);
static_assert(std::is_same_v<std::variant_alternative_t<9, Body>, FlowDigest>);
static_assert(std::is_same_v<std::variant_alternative_t<10, Body>, FlowsWanted>);
static_assert(std::variant_size_v<Body> == 11);

void require(bool promise) {
  if (!promise) std::abort();
}

std::uint32_t crc_of(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

// ---- What is written and checked in both directions --------------------------------------------

bool is_name(const std::string& name) {
  if (name.size() > kMaxNodeName) return false;
  for (const char c : name) {
    if (c < ' ' || c > '~') return false;
  }
  return true;
}

bool is_lease(Nanos span) { return span >= Nanos(0) && span <= kLongestLease; }

bool is_round_reason(std::uint8_t reason) {
  return reason >= static_cast<std::uint8_t>(RoundReason::kLapse) &&
         reason <= static_cast<std::uint8_t>(RoundReason::kConfig);
}

const ProcessId& key(const ProcessId& process) { return process; }
const MemberId& key(const MemberId& member) { return member; }
const MemberId& key(const Departed& departed) { return departed.member; }

template <class Entry>
bool ascends(const std::vector<Entry>& list) {
  for (std::size_t i = 1; i < list.size(); ++i) {
    if (!(key(list[i - 1]) < key(list[i]))) return false;
  }
  return true;
}

// ---- Fields ------------------------------------------------------------------------------------

void write(Writer& out, const ProcessId& process) {
  out.u32(process.node.value);
  out.u32(process.pid);
}
void write(Writer& out, const MemberId& member) {
  write(out, member.process);
  out.u64(member.nonce);
}
void write(Writer& out, Nanos span) { out.u64(static_cast<std::uint64_t>(span.count())); }
void write(Writer& out, bool flag) { out.u8(flag ? 1 : 0); }
void write(Writer& out, const Departed& departed) {
  require(departed.remaining <= kLongestDuration);
  write(out, departed.member);
  write(out, std::max(departed.remaining, Nanos(0)));
}
void write(Writer& out, const BlockSet& set) {
  out.u16(static_cast<std::uint16_t>(set.blocks()));
  for (const std::uint64_t word : set.words()) out.u64(word);
}
void write(Writer& out, const std::string& name) {
  require(is_name(name));
  out.u8(static_cast<std::uint8_t>(name.size()));
  out.characters(name);
}

void read(Reader& in, ProcessId& process) {
  process.node.value = in.u32();
  process.pid = in.u32();
}
void read(Reader& in, MemberId& member) {
  read(in, member.process);
  member.nonce = in.u64();
}
void read(Reader& in, bool& flag) {
  const std::uint8_t value = in.u8();
  if (value > 1) in.fail(DecodeError::kBadValue);
  flag = value == 1;
}
// A duration; `span_max` only tells a moment on the sender's clock, which may be any, from a wait.
void read(Reader& in, Nanos& span, Nanos span_max = kLongestDuration) {
  const std::uint64_t value = in.u64();
  if (value > static_cast<std::uint64_t>(span_max.count())) in.fail(DecodeError::kBadDuration);
  if (in.ok()) span = Nanos(static_cast<std::int64_t>(value));
}
void read(Reader& in, Departed& departed) {
  read(in, departed.member);
  read(in, departed.remaining);
}
void read(Reader& in, BlockSet& set) {
  const unsigned blocks = in.u16();
  if (blocks != 0 && !is_block_count(blocks)) in.fail(DecodeError::kBadBlockCount);
  std::array<std::uint64_t, kMaxBlocks / 64> words{};
  const std::size_t count = in.ok() ? (blocks + 63) / 64 : 0;
  for (std::size_t i = 0; i < count; ++i) words[i] = in.u64();
  if (!in.ok() || blocks == 0) return;
  const auto decoded = BlockSet::from_words(blocks, std::span(words).first(count));
  if (decoded) {
    set = *decoded;
  } else {
    in.fail(DecodeError::kBadBlockCount);
  }
}
void read(Reader& in, std::string& name) {
  const std::size_t size = in.u8();
  if (size > kMaxNodeName) in.fail(DecodeError::kBadName);
  name = in.characters(in.ok() ? size : 0);
  if (!is_name(name) && planted() != Plant::kAnyName) in.fail(DecodeError::kBadName);
}

// A sorted list, with a count of one or two bytes.
template <class Entry>
void write_sorted(Writer& out, const std::vector<Entry>& list, std::size_t count_max) {
  require(list.size() <= count_max && ascends(list));
  if (count_max < 256) {
    out.u8(static_cast<std::uint8_t>(list.size()));
  } else {
    out.u16(static_cast<std::uint16_t>(list.size()));
  }
  for (const Entry& entry : list) write(out, entry);
}
template <class Entry>
void read_sorted(Reader& in, std::vector<Entry>& list, std::size_t count_max,
                 std::size_t entry_bytes) {
  const std::size_t count = count_max < 256 ? in.u8() : in.u16();
  if (!in.ok() || !in.expects(count, count_max, entry_bytes)) return;
  list.resize(count);
  for (Entry& entry : list) read(in, entry);
  if (in.ok() && !ascends(list)) in.fail(DecodeError::kUnsorted);
}

// ---- Bodies ------------------------------------------------------------------------------------

void write(Writer& out, const Hello& hello) {
  require(hello.since_remaining <= kLongestDuration && is_lease(hello.longest_lease));
  write_sorted(out, hello.group, kMaxMembers);
  write(out, hello.node_name);
  out.u64(hello.config_hash);
  out.u64(hello.config_next);
  write(out, hello.next_keeps_blocks);
  out.u16(hello.weight);
  write(out, hello.eligible);
  write(out, hello.synced);
  write(out, hello.held);
  write(out, hello.lingering);
  write_sorted(out, hello.departed, kMaxDropped);
  write(out, std::max(hello.since_remaining, Nanos(0)));
  write(out, hello.longest_lease);
  write_sorted(out, hello.dropped, kMaxDropped);
  write_sorted(out, hello.companions, kMaxMembers);
  out.u32(hello.votes);
  out.u32(hello.expected_votes);
}
void read(Reader& in, Hello& hello) {
  read_sorted(in, hello.group, kMaxMembers, kProcessBytes);
  read(in, hello.node_name);
  hello.config_hash = in.u64();
  hello.config_next = in.u64();
  read(in, hello.next_keeps_blocks);
  hello.weight = in.u16();
  read(in, hello.eligible);
  read(in, hello.synced);
  read(in, hello.held);
  read(in, hello.lingering);
  read_sorted(in, hello.departed, kMaxDropped, kDepartedBytes);
  read(in, hello.since_remaining);
  read(in, hello.longest_lease, kLongestLease);
  read_sorted(in, hello.dropped, kMaxDropped, kMemberBytes);
  read_sorted(in, hello.companions, kMaxMembers, kMemberBytes);
  hello.votes = in.u32();
  hello.expected_votes = in.u32();
}

void write(Writer& out, const Beat& beat) {
  require(is_lease(beat.lease) && beat.t_send >= Nanos(0));
  require(beat.reports.size() <= kMaxMembers);
  out.u64(beat.n);
  write(out, beat.lease);
  write(out, beat.t_send);
  out.u8(static_cast<std::uint8_t>(beat.reports.size()));
  for (const Report& report : beat.reports) {
    out.u64(report.nonce);
    out.u64(report.n);
  }
}
void read(Reader& in, Beat& beat) {
  beat.n = in.u64();
  read(in, beat.lease, kLongestLease);
  read(in, beat.t_send, Nanos::max());
  const std::size_t count = in.u8();
  if (!in.ok() || !in.expects(count, kMaxMembers, kReportBytes)) return;
  beat.reports.resize(count);
  for (Report& report : beat.reports) {
    report.nonce = in.u64();
    report.n = in.u64();
  }
}

void write(Writer& out, const Released& released) {
  write(out, released.blocks);
  out.u64(released.flow_sequence);
}
void read(Reader& in, Released& released) {
  read(in, released.blocks);
  released.flow_sequence = in.u64();
}

void write(Writer& out, const Round& round) { out.u8(static_cast<std::uint8_t>(round.reason)); }
void read(Reader& in, Round& round) {
  const std::uint8_t reason = in.u8();
  if (!is_round_reason(reason)) in.fail(DecodeError::kBadValue);
  if (in.ok()) round.reason = static_cast<RoundReason>(reason);
}

void write(Writer& out, const LingerDone& done) { write(out, done.blocks); }
void read(Reader& in, LingerDone& done) { read(in, done.blocks); }

// Records, with a length of two bytes.
void write_records(Writer& out, const std::string& records) {
  require(records.size() <= kMaxFlowBytes);
  out.u16(static_cast<std::uint16_t>(records.size()));
  out.characters(records);
}
void read_records(Reader& in, std::string& records) {
  const std::size_t size = in.u16();
  if (in.expects(size, kMaxFlowBytes, 1)) records = in.characters(size);
}
void write(Writer& out, const Flows& flows) {
  out.u64(flows.sequence);
  out.u8(static_cast<std::uint8_t>(flows.kind));
  out.u16(flows.block);
  write_records(out, flows.over);
  write_records(out, flows.known);
}
void read(Reader& in, Flows& flows) {
  flows.sequence = in.u64();
  const std::uint8_t kind = in.u8();
  const bool known = kind >= static_cast<std::uint8_t>(Flows::Kind::kChanges) &&
                     kind <= static_cast<std::uint8_t>(Flows::Kind::kOnly);
  if (!known) in.fail(DecodeError::kBadValue);
  if (in.ok()) flows.kind = static_cast<Flows::Kind>(kind);
  flows.block = in.u16();
  if (flows.block >= kMaxBlocks) in.fail(DecodeError::kBadValue);
  read_records(in, flows.over);
  read_records(in, flows.known);
}

void write(Writer& out, const FlowDigest& digest) {
  require(digest.entries.size() <= kMaxBlocks);
  write(out, digest.blocks);
  out.u16(static_cast<std::uint16_t>(digest.entries.size()));
  for (const FlowDigest::Entry& entry : digest.entries) {
    out.u16(entry.block);
    out.u32(entry.flows);
    out.u64(entry.digest);
  }
}
void read(Reader& in, FlowDigest& digest) {
  read(in, digest.blocks);
  const std::size_t count = in.u16();
  if (!in.ok() || !in.expects(count, kMaxBlocks, kDigestBytes)) return;
  digest.entries.resize(count);
  int last = -1;
  for (FlowDigest::Entry& entry : digest.entries) {
    entry = {in.u16(), in.u32(), in.u64()};
    if (entry.block >= digest.blocks.blocks() || !digest.blocks.contains(BlockId{entry.block})) {
      in.fail(DecodeError::kBadValue);
    }
    if (static_cast<int>(entry.block) <= last) in.fail(DecodeError::kUnsorted);
    last = entry.block;
  }
}

void write(Writer& out, const FlowsWanted& wanted) {
  write(out, wanted.from);
  write(out, wanted.blocks);
}
void read(Reader& in, FlowsWanted& wanted) {
  read(in, wanted.from);
  read(in, wanted.blocks);
}

void write(Writer&, const Leave&) {}
void read(Reader&, Leave&) {}

void write(Writer& out, const Audit& audit) { out.u64(audit.token); }
void read(Reader& in, Audit& audit) { audit.token = in.u64(); }

void write(Writer& out, const AuditReply& reply) {
  out.u64(reply.token);
  write(out, reply.held);
  write(out, reply.open);
  write(out, reply.intact);
  write(out, reply.node_name);
}
void read(Reader& in, AuditReply& reply) {
  reply.token = in.u64();
  read(in, reply.held);
  read(in, reply.open);
  read(in, reply.intact);
  read(in, reply.node_name);
}

template <std::size_t... Places>
bool read_body(Reader& in, std::uint8_t type, Body& body, std::index_sequence<Places...>) {
  const auto read_if = [&]<std::size_t Place>(std::integral_constant<std::size_t, Place>) {
    if (type != Place + 1) return false;
    read(in, body.emplace<Place>());
    return true;
  };
  return (read_if(std::integral_constant<std::size_t, Places>{}) || ...);
}

// What can be said of the bytes before their content may be believed.
std::optional<DecodeError> check_envelope(std::span<const std::byte> bytes) {
  if (bytes.size() < kShortest) return DecodeError::kTooShort;
  Reader in(bytes);
  if (in.u32() != kMagic) return DecodeError::kWrongMagic;
  if (in.u8() != kWireVersion) return DecodeError::kOtherVersion;
  Reader length(bytes.subspan(kLengthAt));
  if (length.u32() != bytes.size()) return DecodeError::kWrongLength;
  Reader crc(bytes.last(kCrcBytes));
  if (crc.u32() != crc_of(bytes.first(bytes.size() - kCrcBytes))) return DecodeError::kBadCrc;
  return std::nullopt;
}

}  // namespace

std::string_view text(DecodeError error) {
  switch (error) {
    case DecodeError::kTooShort:
      return "it ends too early";
    case DecodeError::kWrongMagic:
      return "it is not a message of saru";
    case DecodeError::kOtherVersion:
      return "another version of saru wrote it";
    case DecodeError::kWrongLength:
      return "its length is not the one it names";
    case DecodeError::kBadCrc:
      return "it was damaged on the way (CRC-32)";
    case DecodeError::kWrongCluster:
      return "it is for another cluster id";
    case DecodeError::kWrongSender:
      return "its sender is not the process that CPG names";
    case DecodeError::kUnknownType:
      return "its type is unknown";
    case DecodeError::kTooLong:
      return "a list in it is too long";
    case DecodeError::kBadBlockCount:
      return "a set of blocks in it has no valid block count";
    case DecodeError::kUnsorted:
      return "a list in it is not sorted";
    case DecodeError::kBadDuration:
      return "a duration in it is longer than an hour";
    case DecodeError::kBadName:
      return "the node name in it is too long or not printable";
    case DecodeError::kBadValue:
      return "a field of it has a value without meaning";
    case DecodeError::kTrailingBytes:
      return "it has more bytes than its type";
  }
  std::abort();
}

std::vector<std::byte> encode(std::uint16_t cluster_id, const Message& message) {
  Writer out;
  out.u32(kMagic);
  out.u8(kWireVersion);
  out.u8(static_cast<std::uint8_t>(message.body.index() + 1));
  out.u16(cluster_id);
  out.u32(0);  // the length, once it is known
  write(out, message.sender);
  out.u32(message.view.ring.representative.value);
  out.u64(message.view.ring.seq);
  out.u32(message.view.round);
  write_sorted(out, message.excluded, kMaxMembers);
  std::visit([&](const auto& body) { write(out, body); }, message.body);
  out.u32_at(kLengthAt, static_cast<std::uint32_t>(out.bytes().size() + kCrcBytes));
  out.u32(crc_of(out.bytes()));
  return out.take();
}

tl::expected<Message, DecodeError> decode(std::uint16_t cluster_id,
                                          std::span<const std::byte> bytes, ProcessId from) {
  if (const auto error = check_envelope(bytes)) return tl::unexpected(*error);
  Reader in(bytes.first(bytes.size() - kCrcBytes));
  in.u32();  // magic
  in.u8();   // version
  const std::uint8_t type = in.u8();
  if (in.u16() != cluster_id) return tl::unexpected(DecodeError::kWrongCluster);
  in.u32();  // length
  Message message;
  read(in, message.sender);
  if (message.sender.process != from) return tl::unexpected(DecodeError::kWrongSender);
  message.view.ring.representative.value = in.u32();
  message.view.ring.seq = in.u64();
  message.view.round = in.u32();
  read_sorted(in, message.excluded, kMaxMembers, kMemberBytes);
  const auto types = std::make_index_sequence<std::variant_size_v<Body>>();
  if (in.ok() && !read_body(in, type, message.body, types)) in.fail(DecodeError::kUnknownType);
  if (!in.ok()) return tl::unexpected(in.error());
  if (!in.at_end()) return tl::unexpected(DecodeError::kTrailingBytes);
  return message;
}

}  // namespace saru
