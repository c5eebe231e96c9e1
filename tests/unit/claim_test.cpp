// SPDX-License-Identifier: GPL-2.0-or-later
// Which frames say that another machine has an address.
#include "nft/claim.h"

#include <gtest/gtest.h>

#include "nft/frame.h"

namespace saru::nft {
namespace {

const MacAddress kHost{{2, 0x77, 0, 0, 0, 9}};
const MacAddress kShared{{2, 0x5a, 0x72, 0, 0, 1}};

Frame arp_reply(const MacAddress& from, const MacAddress& of) {
  Frame frame = ethernet(kBroadcast, from, 0x0806);
  put(frame, std::array<std::uint8_t, 8>{0, 1, 8, 0, 6, 4, 0, 2});
  put(frame, of.bytes);
  put(frame, IpAddress::parse("10.77.0.100")->bytes());
  put(frame, MacAddress{}.bytes);
  put(frame, std::array<std::uint8_t, 4>{});
  return frame;
}

TEST(Claim, HostThatAnswersArpClaimsItsAddress) {
  const auto claim = read_claim(arp_reply(kHost, kHost));
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->ip.text(), "10.77.0.100");
  EXPECT_EQ(claim->mac, kHost);
}

TEST(Claim, NodeThatSpeaksOfTheSharedMacClaimsNothing) {
  EXPECT_FALSE(read_claim(arp_reply(kHost, kShared)));
}

TEST(Claim, HostThatAdvertisesClaimsItsAddress) {
  const auto ip = IpAddress::parse("fd77::100");
  Frame message{136, 0, 0, 0, 0x20, 0, 0, 0};
  put(message, ip->bytes());
  put(message, std::array<std::uint8_t, 2>{2, 1});
  put(message, kHost.bytes);
  Frame frame = ethernet(kBroadcast, kHost, 0x86dd);
  put_icmpv6(frame, Frame(32), message);
  const auto claim = read_claim(frame);
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->ip, *ip);
}

TEST(Claim, CutFramesClaimNothing) {
  const Frame whole = arp_reply(kHost, kHost);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(read_claim(std::span(whole).first(size))) << size;
  }
}

}  // namespace
}  // namespace saru::nft
