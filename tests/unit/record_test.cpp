// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/record.h"

#include <gtest/gtest.h>

#include "tests/unit/record_random.h"

namespace saru::sync {
namespace {

constexpr unsigned kFlows = 20000;

std::string value_of(const Flow& flow) {
  return encode_value(flow.state, flow.key.v4, flow.key.protocol);
}

Flow web() {
  Flow flow;
  flow.key.protocol = kTcp;
  flow.key.source = {198, 51, 100, 7};
  flow.key.destination = {192, 168, 20, 40};
  flow.key.source_port = 40123;
  flow.key.destination_port = 80;
  flow.state.assured = flow.state.seen_reply = true;
  flow.state.tcp_state = 3;
  flow.state.scale_original = flow.state.scale_reply = 7;
  flow.state.timeout_s = 432000;
  flow.state.destination = Translation{.address = {10, 0, 0, 5}, .port = 8080};
  return flow;
}

// Refused, or these very bytes.
void expect_canonical(const std::string& key, const std::string& value) {
  const auto flow = decode(key, value);
  if (!flow) {
    EXPECT_STRNE(flow.error(), "");
    return;
  }
  EXPECT_EQ(encode_key(flow->key), key);
  EXPECT_EQ(value_of(*flow), value);
  EXPECT_EQ(key_size(key), key.size());
  EXPECT_EQ(value_size(value, key), value.size());
}

TEST(Record, FlowsOfEveryKindComeBack) {
  RandomFlows random(7);
  for (unsigned i = 0; i < kFlows; ++i) {
    const Flow flow = random.flow();
    const auto again = decode(encode_key(flow.key), value_of(flow));
    ASSERT_TRUE(again) << again.error();
    ASSERT_EQ(*again, flow) << "flow " << i << " of seed 7";
  }
}

TEST(Record, ItSaysWhereItEnds) {
  RandomFlows random(8);
  for (unsigned i = 0; i < kFlows; ++i) {
    const Flow flow = random.flow();
    const std::string key = encode_key(flow.key);
    const std::string value = value_of(flow);
    ASSERT_EQ(key_size(key + value), key.size());
    ASSERT_EQ(value_size(value + key, key), value.size());
    for (std::size_t size = 0; size < key.size(); ++size) {
      ASSERT_EQ(key_size(key.substr(0, size)), std::nullopt);
    }
    for (std::size_t size = 0; size < value.size(); ++size) {
      ASSERT_EQ(value_size(value.substr(0, size), key), std::nullopt);
    }
  }
}

TEST(Record, CutShortOrContinuedItIsRefused) {
  RandomFlows random(9);
  for (unsigned i = 0; i < kFlows; ++i) {
    const Flow flow = random.flow();
    const std::string key = encode_key(flow.key);
    const std::string value = value_of(flow);
    for (std::size_t size = 0; size < key.size(); ++size) {
      ASSERT_FALSE(decode(key.substr(0, size), value));
    }
    for (std::size_t size = 0; size < value.size(); ++size) {
      ASSERT_FALSE(decode(key, value.substr(0, size)));
    }
    ASSERT_FALSE(decode(key + '\0', value));
    ASSERT_FALSE(decode(key, value + '\0'));
    ASSERT_FALSE(decode({}, value));
  }
}

TEST(Record, AChangedByteIsRefusedOrMeansAnotherFlow) {
  RandomFlows random(10);
  for (unsigned i = 0; i < 300; ++i) {
    const Flow flow = random.flow();
    const std::string key = encode_key(flow.key);
    const std::string value = value_of(flow);
    for (int byte = 0; byte < 256; ++byte) {
      for (std::size_t at = 0; at < key.size(); ++at) {
        std::string other = key;
        other[at] = static_cast<char>(byte);
        expect_canonical(other, value);
      }
      for (std::size_t at = 0; at < value.size(); ++at) {
        std::string other = value;
        other[at] = static_cast<char>(byte);
        expect_canonical(key, other);
      }
    }
    ASSERT_FALSE(HasFailure()) << "flow " << i << " of seed 10";
  }
}

TEST(Record, TheUsualFlowFitsIntoTwoSmallStrings) {
  const Flow flow = web();
  EXPECT_EQ(encode_key(flow.key).size(), 13U);
  EXPECT_EQ(value_of(flow).size(), 10U);
  // So that an empty std::string holds them without asking for memory.
  EXPECT_LE(13U, std::string().capacity());
}

TEST(Record, TimeoutsAreRoundedUpByLessThanAnEighth) {
  for (std::uint32_t timeout_s = 0; timeout_s <= kLongestTimeoutS; ++timeout_s) {
    const std::uint32_t rounded = rounded_timeout_s(timeout_s);
    ASSERT_GE(rounded, timeout_s);
    ASSERT_LT(rounded - timeout_s, timeout_s / 8 + 1);
    ASSERT_TRUE(timeout_s > 16 || rounded == timeout_s);
    ASSERT_EQ(rounded_timeout_s(rounded), rounded);
  }
  EXPECT_EQ(rounded_timeout_s(kLongestTimeoutS + 1), kLongestTimeoutS);
  EXPECT_EQ(rounded_timeout_s(0xffffffff), kLongestTimeoutS);
}

TEST(Record, EqualFlowsHaveEqualBytes) {
  Flow one = web();
  Flow two = web();
  one.state.timeout_s = 431999;
  two.key.zone.direction = Zone::Direction::kBoth;  // of id 0: none
  EXPECT_EQ(value_of(one), value_of(two));
  EXPECT_EQ(encode_key(one.key), encode_key(two.key));
}

TEST(Record, WhatIsNotCarriedIsNotWritten) {
  for (const bool v4 : {true, false}) {
    for (unsigned protocol = 0; protocol < 256; ++protocol) {
      Flow flow = web();
      flow.key.v4 = v4;
      flow.key.protocol = static_cast<std::uint8_t>(protocol);
      const bool carried = is_carried(v4, flow.key.protocol);
      EXPECT_EQ(encode_key(flow.key).empty(), !carried) << protocol;
      EXPECT_EQ(value_of(flow).empty(), !carried) << protocol;
    }
  }
  EXPECT_FALSE(is_carried(true, kIcmpV6));
  EXPECT_FALSE(is_carried(false, kIcmp));
}

TEST(Record, WhatIsBeyondTheLimitsIsBroughtWithinThem) {
  Flow flow = web();
  flow.state.tcp_state = 10;
  flow.state.scale_original = flow.state.scale_reply = 15;
  flow.state.helper = "a name of many letters";
  const auto again = decode(encode_key(flow.key), value_of(flow));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->state.tcp_state, 0);
  EXPECT_EQ(again->state.scale_original, FlowState::kMaxScale);
  EXPECT_EQ(again->state.scale_reply, FlowState::kMaxScale);
  EXPECT_EQ(again->state.helper, "");
  flow.state.shift_reply.after = 3;
  flow.key.protocol = kUdp;  // which has neither state nor scales nor sequence numbers
  const auto udp = decode(encode_key(flow.key), value_of(flow));
  EXPECT_EQ(udp->state.scale_reply, 0);
  EXPECT_EQ(udp->state.shift_reply, SequenceShift{});
}

TEST(Record, WhatAnEventDoesNotSayIsKept) {
  const FlowState before = web().state;
  FlowState labelled = before;
  labelled.shift_reply.after = 3;
  labelled.labels = {4};
  FlowState now;
  now.timeout_s = 5;
  keep_unsaid(labelled, now);
  EXPECT_EQ(now.tcp_state, 3);
  EXPECT_EQ(now.scale_reply, 7);
  EXPECT_EQ(now.labels, labelled.labels);
  EXPECT_EQ(now.shift_reply.after, 3U);
  EXPECT_EQ(now.timeout_s, 5U);
  EXPECT_FALSE(now.assured);
  now.tcp_state = 4;
  now.scale_reply = 2;
  keep_unsaid(before, now);
  EXPECT_EQ(now.tcp_state, 4);
  EXPECT_EQ(now.scale_reply, 2);
}

}  // namespace
}  // namespace saru::sync
