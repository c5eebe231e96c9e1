// SPDX-License-Identifier: GPL-2.0-or-later
// The shared header against the golden packets: the same file that tests/kernel sends through nft,
// with the answers of an independent reference.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "nft/selector.h"

namespace saru {
namespace {

struct Golden {
  std::string name;
  bool ip_input = false;  // refused by the kernel's IP input; the header is not asked
  std::vector<std::string> answers;
  std::vector<std::uint8_t> packet;
};

struct Book {
  std::vector<Selection> selections;
  std::vector<Golden> packets;
};

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, by);) parts.push_back(part);
  return parts;
}

// "# 6: --selector src-port --seed 7 --services 443 by src-addr, …"
Selection parse_selection(const std::string& line) {
  Selection selection;
  std::istringstream words(line.substr(line.find("--")));
  for (std::string name, value; words >> name >> value;) {
    if (name == "--selector") selection.selector = *parse_selector(value);
    if (name == "--seed") selection.seed = static_cast<std::uint32_t>(std::stoul(value));
    if (name != "--services") continue;
    std::string rest;
    std::getline(words, rest);
    selection.services = *parse_services(value + rest);
  }
  return selection;
}

Book read_book() {
  Book book;
  std::ifstream file(SARU_GOLDEN_PACKETS);
  for (std::string line; std::getline(file, line);) {
    if (line.front() == '#') {
      book.selections.push_back(parse_selection(line));
      continue;
    }
    const auto fields = split(line, '\t');
    Golden golden{fields.at(0), fields.at(1) == "ip", split(fields.at(2), ','), {}};
    for (std::size_t at = 0; at + 1 < fields.at(3).size(); at += 2) {
      golden.packet.push_back(
          static_cast<std::uint8_t>(std::stoul(fields.at(3).substr(at, 2), nullptr, 16)));
    }
    book.packets.push_back(std::move(golden));
  }
  return book;
}

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
    // Fragments that never come together are nobody's packet; the header sees whole ones.
    if (golden.ip_input || golden.name.find("fragments: ") != std::string::npos ||
        golden.name.find("fragments that") != std::string::npos) {
      continue;
    }
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
