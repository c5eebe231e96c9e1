// SPDX-License-Identifier: GPL-2.0-or-later
// The shared header against the golden packets: the same file that tests/kernel sends through nft,
// with the answers of an independent reference.
#include <gtest/gtest.h>

#include "tests/unit/golden_packets.h"

namespace saru {
namespace {

std::string answer(const Golden& golden, const Selection& selection) {
  const BlockRule rule(selection);
  const saru_packet packet{golden.packet.data(), static_cast<saru_u32>(golden.packet.size())};
  const saru_s32 value = saru_packet_value(&packet, rule.get());
  if (value == SARU_NOBODY) return "nobody";
  if (value == SARU_EVERYBODY) return "all";
  return std::to_string(value);
}

TEST(Block, GoldenPacketsHaveTheValuesThatTheReferenceSays) {
  const Book book = read_book();
  ASSERT_GE(book.packets.size(), 500U);
  ASSERT_EQ(book.selections.size(), 8U);
  for (const Golden& golden : book.packets) {
    ASSERT_EQ(golden.answers.size(), book.selections.size()) << golden.name;
    if (!golden.whole) continue;
    for (std::size_t i = 0; i < book.selections.size(); ++i) {
      EXPECT_EQ(answer(golden, book.selections[i]), golden.answers[i])
          << golden.name << ", selection " << i;
    }
  }
}

TEST(Block, NoPacketIsReadBeyondItsEnd) {
  // Every golden packet, cut at every length, in memory of exactly that length (for ASan).
  const Book book = read_book();
  for (const Golden& golden : book.packets) {
    for (std::size_t size = 0; size < golden.packet.size() && size < 200; ++size) {
      const std::vector<std::uint8_t> cut(
          golden.packet.begin(), golden.packet.begin() + static_cast<std::ptrdiff_t>(size));
      const saru_packet packet{cut.data(), static_cast<saru_u32>(size)};
      const BlockRule rule(book.selections.back());
      EXPECT_LT(saru_packet_value(&packet, rule.get()), SARU_SELECTOR_VALUES);
    }
  }
}

TEST(Block, ALaterFragmentIsNobodys) {
  const Book book = read_book();
  Golden golden = book.packets.front();
  ASSERT_EQ(golden.packet[0], 0x45);
  EXPECT_EQ(answer(golden, book.selections[0]), golden.answers[0]);
  golden.packet[7] = 1;
  EXPECT_EQ(answer(golden, book.selections[0]), "nobody");
}

}  // namespace
}  // namespace saru
