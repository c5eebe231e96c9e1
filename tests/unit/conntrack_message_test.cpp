// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/conntrack_message.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

// After libc's headers, to which they give way.
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <cstring>
#include <vector>

#include "agent/sync/record.h"
#include "tests/unit/record_random.h"

namespace saru::sync {
namespace {

constexpr unsigned kZerosBehind = 64;  // as NetlinkSocket::receive leaves them

class Made {
 public:
  explicit Made(bool v4) : room_(kMessageRoom + kZerosBehind) {
    mnl_nlmsg_put_header(room_.data());
    auto* generic = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(get(), sizeof(nfgenmsg)));
    generic->nfgen_family = v4 ? AF_INET : AF_INET6;
  }

  nlmsghdr* get() { return reinterpret_cast<nlmsghdr*>(room_.data()); }
  std::uint32_t size() { return get()->nlmsg_len; }
  // Only what is said to be there, and zeros.
  void cut(std::uint32_t size) {
    std::fill(room_.begin() + size, room_.end(), '\0');
    get()->nlmsg_len = size;
  }
  char& byte(std::size_t at) { return room_.at(at); }

 private:
  std::vector<char> room_;
};

Made message_of(const Flow& flow) {
  Made made(flow.key.v4);
  EXPECT_TRUE(put_flow(made.get(), flow, true));
  return made;
}

// A message tells the kernel of NAT in other words than the kernel tells us, and of a state
// whatever is not known; all else is the same in both.
Flow without_nat(RandomFlows& random) {
  Flow flow = random.flow();
  if (flow.key.protocol == kIcmp) flow.key.destination_port = 8 << 8;
  if (flow.key.protocol == kIcmpV6) flow.key.destination_port = 128 << 8;
  flow.state.destination = flow.state.source = std::nullopt;
  flow.state.timeout_s = std::max(flow.state.timeout_s, 1U);
  if (flow.key.protocol == kTcp && flow.state.tcp_state == 0) flow.state.tcp_state = 3;
  return flow;
}

TEST(ConntrackMessage, WhatIsPutIsRead) {
  RandomFlows random(11);
  for (unsigned i = 0; i < 5000; ++i) {
    const Flow flow = without_nat(random);
    Made made = message_of(flow);
    ASSERT_LE(made.size(), kMessageRoom);
    ASSERT_EQ(flow_in(made.get()), flow) << "flow " << i << " of seed 11";
  }
}

TEST(ConntrackMessage, NatIsTheDifferenceOfTheTuples) {
  RandomFlows random(12);
  for (unsigned i = 0; i < 1000; ++i) {
    Flow flow = without_nat(random);
    if (flow.key.protocol == kIcmp || flow.key.protocol == kIcmpV6) continue;
    // The reply's tuple belongs to the inverse of another flow: that is what NAT looks like.
    Made made = message_of(flow);
    Flow other = flow;
    other.key.destination_port ^= 1;
    other.key.source[3] ^= 1;
    Made of_other = message_of(other);
    const auto tuple_of = [](Made& from) {
      nlattr* found = nullptr;
      auto* at = static_cast<nlattr*>(mnl_nlmsg_get_payload_offset(from.get(), sizeof(nfgenmsg)));
      while (mnl_attr_get_type(at) != CTA_TUPLE_REPLY) at = mnl_attr_next(at);
      found = at;
      return found;
    };
    std::memcpy(tuple_of(made), tuple_of(of_other), mnl_attr_get_len(tuple_of(made)));
    flow.state.destination = {.address = flow.key.destination, .port = other.key.destination_port};
    flow.state.source = {.address = other.key.source, .port = flow.key.source_port};
    ASSERT_EQ(flow_in(made.get()), flow) << "flow " << i << " of seed 12";
  }
}

TEST(ConntrackMessage, HoweverBrokenItIsNoFlowOrOneThatARecordCanSay) {
  RandomFlows random(13);
  for (unsigned i = 0; i < 20; ++i) {
    const Flow flow = without_nat(random);
    const Made whole = message_of(flow);
    const auto expect_good = [&](Made& made) {
      auto read = flow_in(made.get());
      if (!read) return;
      const std::string key = encode_key(read->key);
      const std::string value = encode_value(read->state, read->key.v4, read->key.protocol);
      const auto again = decode(key, value);
      ASSERT_TRUE(again) << again.error() << ", flow " << i << " of seed 13";
      ASSERT_EQ(again->key, read->key);
    };
    Made made = whole;
    for (std::uint32_t size = made.size() - 1; size >= sizeof(nlmsghdr); --size) {
      made.cut(size);
      expect_good(made);
    }
    made = whole;
    for (std::size_t at = sizeof(nlmsghdr); at < made.size(); ++at) {
      const char before = made.byte(at);
      for (int byte = 0; byte < 256; ++byte) {
        made.byte(at) = static_cast<char>(byte);
        expect_good(made);
      }
      made.byte(at) = before;
    }
  }
}

TEST(ConntrackMessage, WhatIsNotConfirmedOrNotCarriedIsNoFlow) {
  RandomFlows random(14);
  const Flow flow = without_nat(random);
  Made made = message_of(flow);
  ASSERT_TRUE(flow_in(made.get()));
  Made bare(flow.key.v4);
  ASSERT_TRUE(put_key(bare.get(), flow.key));
  EXPECT_FALSE(flow_in(bare.get()));
  auto* at = static_cast<nlattr*>(mnl_nlmsg_get_payload_offset(made.get(), sizeof(nfgenmsg)));
  while (mnl_attr_get_type(at) != CTA_STATUS) at = mnl_attr_next(at);
  std::uint32_t status = 0;
  std::memcpy(&status, mnl_attr_get_payload(at), sizeof status);
  status &= ~htonl(IPS_CONFIRMED);
  std::memcpy(mnl_attr_get_payload(at), &status, sizeof status);
  EXPECT_FALSE(flow_in(made.get()));
  Flow other = flow;
  other.key.protocol = 253;
  Made none(other.key.v4);
  EXPECT_FALSE(put_flow(none.get(), other, true));
  EXPECT_FALSE(put_key(none.get(), other.key));
}

}  // namespace
}  // namespace saru::sync
