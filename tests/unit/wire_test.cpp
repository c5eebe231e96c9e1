// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/wire.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "agent/core/rng.h"
#include "tests/unit/wire_random.h"

namespace saru {

// For gtest's messages.
void PrintTo(DecodeError error, std::ostream* out) { *out << text(error); }

namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint16_t kCluster = 0x1234;
constexpr std::size_t kBodyAt = 45;  // when nobody is excluded

// ---- One small fixed message of each type
// ---------------------------------------------------------

Message fixed(Body body) {
  return {.sender = {.process = {.node = NodeId{1}, .pid = 4242}, .nonce = 0x0102030405060708},
          .view = {.ring = {.representative = NodeId{2}, .seq = 0x1c}, .round = 3},
          .excluded = {},
          .body = std::move(body)};
}

BlockSet some_blocks() {
  BlockSet set(64);
  set.insert(BlockId{0});
  set.insert(BlockId{10});
  set.insert(BlockId{63});
  return set;
}

MemberId member(std::uint32_t node, std::uint64_t nonce) {
  return {.process = {.node = NodeId{node}, .pid = 7}, .nonce = nonce};
}

Message fixed_hello() {
  Hello hello;
  hello.group = {{.node = NodeId{1}, .pid = 4242}, {.node = NodeId{2}, .pid = 7}};
  hello.node_name = "n1";
  hello.config_next = 5;
  hello.config_hash = 0xabcdef;
  hello.next_keeps_blocks = true;
  hello.weight = 100;
  hello.eligible = true;
  hello.synced = false;
  hello.held = some_blocks();
  hello.lingering = BlockSet(16);
  hello.departed = {{.member = member(3, 9), .remaining = std::chrono::milliseconds(250)}};
  hello.since_remaining = std::chrono::seconds(1);
  hello.longest_lease = std::chrono::seconds(2);
  hello.dropped = {member(3, 8), member(3, 9)};
  hello.companions = {member(1, 5), member(2, 6)};
  hello.votes = 1;
  hello.expected_votes = 3;
  return fixed(hello);
}

Message fixed_beat() {
  return fixed(Beat{.n = 77,
                    .lease = std::chrono::milliseconds(1375),
                    .t_send = std::chrono::seconds(1000),
                    .reports = {{.nonce = 11, .n = 76}, {.nonce = 12, .n = 80}}});
}

Message fixed_reply() {
  AuditReply reply;
  reply.token = 99;
  reply.held = some_blocks();
  reply.open = true;
  reply.intact = false;
  reply.node_name = "node-1.example";
  return fixed(reply);
}

std::string hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte b : bytes) {
    text.push_back(kDigits[std::to_integer<unsigned>(b) >> 4]);
    text.push_back(kDigits[std::to_integer<unsigned>(b) & 15]);
  }
  return text;
}

// Why the bytes are refused; nothing if they are not.
std::optional<DecodeError> error_of(std::span<const std::byte> bytes, ProcessId from) {
  const auto decoded = decode(kCluster, bytes, from);
  if (decoded) return std::nullopt;
  return decoded.error();
}

// Length and CRC put right again after a change elsewhere.
Bytes sealed(Bytes bytes) {
  const auto put = [&](std::size_t at, std::uint64_t value) {
    for (int i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (24 - 8 * i));
  };
  put(8, bytes.size());
  put(bytes.size() - 4, crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size() - 4));
  return bytes;
}

// A message with `value` written big-endian in `width` bytes at `at`.
Bytes altered(const Message& message, std::size_t at, std::uint64_t value, unsigned width) {
  Bytes bytes = encode(kCluster, message);
  for (unsigned i = 0; i < width; ++i) {
    bytes.at(at + i) = static_cast<std::byte>(value >> (8 * (width - 1 - i)) & 0xff);
  }
  return sealed(std::move(bytes));
}

std::optional<DecodeError> error_when(const Message& message, std::size_t at, std::uint64_t value,
                                      unsigned width) {
  return error_of(altered(message, at, value, width), message.sender.process);
}

// ---- What is sent arrives
// ---------------------------------------------------------------------------

TEST(Wire, EveryTypeComesBackAsItWasSent) {
  for (std::size_t type = 0; type < std::variant_size_v<Body>; ++type) {
    for (std::uint64_t seed = 0; seed < 500; ++seed) {
      const Message sent = RandomMessages(seed).message(type);
      const auto received = decode(kCluster, encode(kCluster, sent), sent.sender.process);
      ASSERT_TRUE(received.has_value())
          << "type " << type << " seed " << seed << ": " << text(received.error());
      ASSERT_EQ(*received, sent) << "type " << type << " seed " << seed;
    }
  }
}

TEST(Wire, AWaitThatIsOverIsWrittenAsZero) {
  Hello hello;
  hello.since_remaining = Nanos(-5);
  hello.departed = {{.member = member(3, 9), .remaining = Nanos(-1)}};
  const Message sent = fixed(hello);
  const auto received = decode(kCluster, encode(kCluster, sent), sent.sender.process);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(std::get<Hello>(received->body).since_remaining, Nanos(0));
  EXPECT_EQ(std::get<Hello>(received->body).departed[0].remaining, Nanos(0));
}

TEST(Wire, BeatsAndHellosAreSmall) {
  Beat beat;
  beat.reports.resize(3);
  EXPECT_LE(encode(kCluster, fixed(beat)).size(), 130u);
  Hello hello;
  hello.group = {
      {.node = NodeId{1}, .pid = 1}, {.node = NodeId{2}, .pid = 1}, {.node = NodeId{3}, .pid = 1}};
  hello.held = BlockSet(kDefaultBlocks);
  hello.lingering = BlockSet(kDefaultBlocks);
  EXPECT_LE(encode(kCluster, fixed(hello)).size(), 280u);
}

// The longest message there can be fits one CPG message with room to spare.
TEST(Wire, NothingIsLongerThan32KiB) {
  std::size_t longest = 0;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    longest = std::max(longest, encode(kCluster, RandomMessages(seed).message(0)).size());
  }
  EXPECT_LT(longest, 32u * 1024);
}

// These bytes were written by version 1 and must be read by every later build of it.
TEST(Wire, TheFormatOfVersion1IsFixed) {
  const std::pair<Message, std::string> golden[] = {
      {fixed_hello(),
       "7361727501011234000000e30000000100001092010203040506070800000002000000000000001c0000"
       "0003000200000001000010920000000200000007026e310000000000abcdef0000000000000005010064"
       "010000408000000000000401001000000000000000000001000000030000000700000000000000090000"
       "00000ee6b280000000003b9aca0000000000773594000002000000030000000700000000000000080000"
       "000300000007000000000000000902000000010000000700000000000000050000000200000007000000"
       "000000000600000001000000031d51e2fe"},
      {fixed_beat(),
       "73617275010212340000006a0000000100001092010203040506070800000002000000000000001c0000"
       "000300000000000000004d0000000051f4d5c0000000e8d4a5100002000000000000000b000000000000"
       "004c000000000000000c0000000000000050a2ea470c"},
      {fixed(Released{.blocks = some_blocks(), .flow_sequence = 6}),
       "7361727501031234000000430000000100001092010203040506070800000002000000000000001c0000"
       "0003000040800000000000040100000000000000062473df2b"},
      {fixed(Round{.reason = RoundReason::kQuorum}),
       "7361727501041234000000320000000100001092010203040506070800000002000000000000001c0000"
       "00030003c631fc5e"},
      {fixed(Leave{}),
       "7361727501051234000000310000000100001092010203040506070800000002000000000000001c0000"
       "000300f08dfd02"},
      {fixed(LingerDone{.blocks = some_blocks()}),
       "73617275010812340000003b0000000100001092010203040506070800000002000000000000001c0000"
       "000300004080000000000004016fec5e76"},
      {fixed(Flows{
           .sequence = 7, .kind = Flows::Kind::kLast, .block = 5, .over = "k", .known = "xy"}),
       "7361727501091234000000430000000100001092010203040506070800000002000000000000001c0000"
       "000300000000000000000704000500016b00027879fc2bef36"},
      {fixed(FlowDigest{.blocks = some_blocks(), .entries = {{0, 3, 0x1122334455667788}}}),
       "73617275010a12340000004b0000000100001092010203040506070800000002000000000000001c0000"
       "0003000040800000000000040100010000000000031122334455667788a90a207b"},
      {fixed(FlowsWanted{.from = member(2, 21), .blocks = some_blocks()}),
       "73617275010b12340000004b0000000100001092010203040506070800000002000000000000001c0000"
       "000300000000020000000700000000000000150040800000000000040108fe6550"},
      {fixed(Audit{.token = 99}),
       "7361727501061234000000390000000100001092010203040506070800000002000000000000001c0000"
       "00030000000000000000635346e567"},
      {fixed_reply(),
       "7361727501071234000000540000000100001092010203040506070800000002000000000000001c0000"
       "00030000000000000000630040800000000000040101000e6e6f64652d312e6578616d706c6575df5e3d"},
  };
  for (const auto& [message, bytes] : golden) EXPECT_EQ(hex(encode(kCluster, message)), bytes);
}

TEST(Wire, TheExcludedAreWrittenBeforeTheBody) {
  Message message = fixed(Leave{});
  message.excluded = {member(2, 21), member(3, 31)};
  EXPECT_EQ(hex(encode(kCluster, message)),
            "7361727501051234000000510000000100001092010203040506070800000002000000000000001c0000"
            "000302000000020000000700000000000000150000000300000007000000000000001f00a24b6e");
}

// ---- What is damaged is refused
// -----------------------------------------------------------------------

TEST(Wire, EveryTruncationIsRefused) {
  for (std::size_t type = 0; type < std::variant_size_v<Body>; ++type) {
    const Message message = RandomMessages(type + 1).message(type);
    const Bytes whole = encode(kCluster, message);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      // A buffer of exactly this size, so that a sanitizer sees a read beyond it.
      const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      ASSERT_FALSE(decode(kCluster, part, message.sender.process).has_value()) << size;
    }
  }
}

TEST(Wire, EveryTruncationWithARightCrcIsRefused) {
  for (std::size_t type = 0; type < std::variant_size_v<Body>; ++type) {
    const Message message = RandomMessages(type + 1).message(type);
    const Bytes whole = encode(kCluster, message);
    for (std::size_t size = kBodyAt + 4; size < whole.size(); ++size) {
      const Bytes part = sealed(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
      ASSERT_EQ(error_of(part, message.sender.process), DecodeError::kTooShort) << size;
    }
  }
}

TEST(Wire, EverySingleFlippedBitIsRefused) {
  for (const Message& message : {fixed_hello(), fixed_beat(), fixed_reply(), fixed(Leave{})}) {
    Bytes bytes = encode(kCluster, message);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      const auto mask = static_cast<std::byte>(1 << bit % 8);
      bytes[bit / 8] ^= mask;
      ASSERT_FALSE(decode(kCluster, bytes, message.sender.process).has_value()) << "bit " << bit;
      bytes[bit / 8] ^= mask;
    }
  }
}

// Whatever the bytes are: an answer, and never a message that cannot be sent on as it is.
TEST(Wire, RandomChangesWithARightCrcNeverMakeAMessageThatCannotBeEncoded) {
  SplitMix64 random(2024);
  unsigned accepted = 0;
  for (unsigned round = 0; round < 40'000; ++round) {
    const Message message =
        RandomMessages(random.next()).message(round % std::variant_size_v<Body>);
    Bytes bytes = encode(kCluster, message);
    for (std::uint64_t changes = 1 + random.below(3); changes > 0; --changes) {
      // Mostly in the front part, where lengths and counts are.
      const std::size_t range = std::min<std::size_t>(bytes.size() - 4, 4 + random.below(300));
      bytes[random.below(range)] = static_cast<std::byte>(random.next() & 0xff);
    }
    bytes = sealed(std::move(bytes));
    const auto decoded = decode(kCluster, bytes, message.sender.process);
    if (!decoded) continue;
    ++accepted;
    ASSERT_EQ(encode(kCluster, *decoded), bytes);
  }
  EXPECT_GT(accepted, 1000u);  // the test reaches what it is about
}

TEST(Wire, GarbageIsRefused) {
  SplitMix64 random(7);
  for (unsigned round = 0; round < 10'000; ++round) {
    Bytes bytes(random.below(200));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.next() & 0xff);
    ASSERT_FALSE(decode(kCluster, bytes, {}).has_value());
  }
}

// ---- Each error has its name
// ------------------------------------------------------------------------

const ProcessId kFrom{.node = NodeId{1}, .pid = 4242};

TEST(WireError, TooShortForAHeader) {
  EXPECT_EQ(error_of({}, kFrom), DecodeError::kTooShort);
  const Bytes bytes = encode(kCluster, fixed(Leave{}));
  EXPECT_EQ(error_of(std::span(bytes).first(48), kFrom), DecodeError::kTooShort);
}

TEST(WireError, WrongMagicVersionLengthCrc) {
  EXPECT_EQ(error_when(fixed(Leave{}), 0, 0x73617274, 4), DecodeError::kWrongMagic);
  EXPECT_EQ(error_when(fixed(Leave{}), 4, kWireVersion + 1, 1), DecodeError::kOtherVersion);
  EXPECT_EQ(error_when(fixed(Leave{}), 4, kWireVersion - 1, 1), DecodeError::kOtherVersion);
  Bytes bytes = encode(kCluster, fixed(Leave{}));
  bytes.push_back(std::byte{0});
  EXPECT_EQ(error_of(bytes, kFrom), DecodeError::kWrongLength);
  bytes = encode(kCluster, fixed_beat());
  bytes[50] ^= std::byte{1};
  EXPECT_EQ(error_of(bytes, kFrom), DecodeError::kBadCrc);
}

TEST(WireError, WrongClusterSenderType) {
  const Bytes bytes = encode(kCluster, fixed(Leave{}));
  EXPECT_EQ(decode(kCluster + 1, bytes, kFrom).error(), DecodeError::kWrongCluster);
  EXPECT_EQ(error_of(bytes, {.node = NodeId{2}, .pid = 4242}), DecodeError::kWrongSender);
  EXPECT_EQ(error_of(bytes, {.node = NodeId{1}, .pid = 4243}), DecodeError::kWrongSender);
  EXPECT_EQ(error_when(fixed(Leave{}), 5, 0, 1), DecodeError::kUnknownType);
  EXPECT_EQ(error_when(fixed(Leave{}), 5, 12, 1), DecodeError::kUnknownType);
  EXPECT_EQ(error_when(fixed(Leave{}), 5, 255, 1), DecodeError::kUnknownType);
}

TEST(WireError, ListsLongerThanAllowed) {
  EXPECT_EQ(error_when(fixed(Leave{}), 44, kMaxMembers + 1, 1), DecodeError::kTooLong);
  EXPECT_EQ(error_when(fixed_hello(), kBodyAt, kMaxMembers + 1, 1), DecodeError::kTooLong);
  EXPECT_EQ(error_when(fixed_beat(), kBodyAt + 24, 255, 1), DecodeError::kTooLong);
  const std::size_t departed_at = kBodyAt + 1 + 16 + 3 + 17 + 2 + 2 + 10 + 10;
  EXPECT_EQ(error_when(fixed_hello(), departed_at, kMaxDropped + 1, 2), DecodeError::kTooLong);
  EXPECT_EQ(error_when(fixed_hello(), departed_at + 2 + 24 + 8 + 8, 0xffff, 2),
            DecodeError::kTooLong);
}

TEST(WireError, BlockCountsThatAreNone) {
  const Message released = fixed(Released{.blocks = BlockSet(64), .flow_sequence = 0});
  for (const unsigned blocks : {1u, 8u, 15u, 17u, 63u, 100u, 4095u, 4097u, 8192u, 65535u}) {
    EXPECT_EQ(error_when(released, kBodyAt, blocks, 2), DecodeError::kBadBlockCount) << blocks;
  }
  // A block beyond the last one.
  const Message sixteen = fixed(Released{.blocks = BlockSet(16), .flow_sequence = 0});
  EXPECT_EQ(error_when(sixteen, kBodyAt + 2, 1 << 16, 8), DecodeError::kBadBlockCount);
}

TEST(WireError, ListsThatDoNotAscend) {
  // The first process of the group, made equal to and larger than the second.
  EXPECT_EQ(error_when(fixed_hello(), kBodyAt + 1, (2ull << 32) + 7, 8), DecodeError::kUnsorted);
  EXPECT_EQ(error_when(fixed_hello(), kBodyAt + 1, 9ull << 32, 8), DecodeError::kUnsorted);
  const std::size_t first_dropped_nonce =
      kBodyAt + 1 + 16 + 3 + 17 + 2 + 2 + 10 + 10 + 26 + 8 + 8 + 10;
  EXPECT_EQ(error_when(fixed_hello(), first_dropped_nonce, 9, 8), DecodeError::kUnsorted);
  Message message = fixed(Leave{});
  message.excluded = {member(2, 21), member(3, 31)};
  EXPECT_EQ(error_when(message, 45, 4, 4), DecodeError::kUnsorted);
}

TEST(WireError, DurationsThatCannotBe) {
  const auto longest = static_cast<std::uint64_t>(kLongestDuration.count());
  const auto lease = static_cast<std::uint64_t>(kLongestLease.count());
  EXPECT_TRUE(decode(kCluster, altered(fixed_beat(), kBodyAt + 8, lease, 8), kFrom).has_value());
  EXPECT_EQ(error_when(fixed_beat(), kBodyAt + 8, lease + 1, 8), DecodeError::kBadDuration);
  EXPECT_EQ(error_when(fixed_beat(), kBodyAt + 8, ~0ull, 8), DecodeError::kBadDuration);
  EXPECT_EQ(error_when(fixed_beat(), kBodyAt + 16, 1ull << 63, 8), DecodeError::kBadDuration);
  const std::size_t remaining_at = kBodyAt + 1 + 16 + 3 + 17 + 2 + 2 + 10 + 10 + 2 + 16;
  EXPECT_EQ(error_when(fixed_hello(), remaining_at, ~0ull, 8), DecodeError::kBadDuration);
  EXPECT_EQ(error_when(fixed_hello(), remaining_at + 8, longest + 1, 8), DecodeError::kBadDuration);
  EXPECT_EQ(error_when(fixed_hello(), remaining_at + 16, lease + 1, 8), DecodeError::kBadDuration);
}

TEST(WireError, NamesThatCannotBe) {
  const std::size_t name_at = kBodyAt + 1 + 16;
  EXPECT_EQ(error_when(fixed_hello(), name_at, kMaxNodeName + 1, 1), DecodeError::kBadName);
  for (const unsigned character : {0u, 10u, 27u, 31u, 127u, 128u, 255u}) {
    EXPECT_EQ(error_when(fixed_hello(), name_at + 1, character, 1), DecodeError::kBadName);
  }
}

TEST(WireError, ValuesWithoutMeaning) {
  EXPECT_EQ(error_when(fixed(Round{}), kBodyAt, 0, 1), DecodeError::kBadValue);
  EXPECT_EQ(error_when(fixed(Round{}), kBodyAt, 6, 1), DecodeError::kBadValue);
  const std::size_t eligible_at = kBodyAt + 1 + 16 + 3 + 17 + 2;
  EXPECT_EQ(error_when(fixed_hello(), eligible_at, 2, 1), DecodeError::kBadValue);
  EXPECT_EQ(error_when(fixed_hello(), eligible_at + 1, 255, 1), DecodeError::kBadValue);
  const std::size_t keeps_at = eligible_at - 2 - 1;
  EXPECT_EQ(error_when(fixed_hello(), keeps_at, 2, 1), DecodeError::kBadValue);
}

TEST(WireError, BytesAfterTheEnd) {
  for (const Message& message : {fixed_hello(), fixed_beat(), fixed_reply(), fixed(Leave{})}) {
    Bytes bytes = encode(kCluster, message);
    bytes.push_back(std::byte{0});
    EXPECT_EQ(error_of(sealed(bytes), kFrom), DecodeError::kTrailingBytes);
  }
}

TEST(WireError, EachHasItsOwnSentence) {
  std::set<std::string_view> sentences;
  for (std::size_t i = 0; i < kDecodeErrors; ++i) {
    sentences.insert(text(static_cast<DecodeError>(i)));
  }
  EXPECT_EQ(sentences.size(), kDecodeErrors);
}

// Our own mistakes are not sent.
TEST(WireDeathTest, AMessageBeyondTheLimitsAborts) {
  Hello hello;
  hello.node_name = std::string(kMaxNodeName + 1, 'x');
  EXPECT_DEATH(static_cast<void>(encode(kCluster, fixed(hello))), "");
  Hello unsorted;
  unsorted.dropped = {member(3, 9), member(3, 8)};
  EXPECT_DEATH(static_cast<void>(encode(kCluster, fixed(unsorted))), "");
  Beat beat;
  beat.lease = kLongestLease + Nanos(1);
  EXPECT_DEATH(static_cast<void>(encode(kCluster, fixed(beat))), "");
}

}  // namespace
}  // namespace saru
