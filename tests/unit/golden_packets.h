// SPDX-License-Identifier: GPL-2.0-or-later
// tests/kernel/golden/packets.txt, read.
#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "nft/selector.h"

namespace saru {

struct Golden {
  std::string name;
  bool whole = true;  // it comes as far as the rules, as one packet
  std::vector<std::string> answers;
  std::vector<std::uint8_t> packet;
};

struct Book {
  std::vector<Selection> selections;
  std::vector<Golden> packets;
};

inline std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, by);) parts.push_back(part);
  return parts;
}

// "# 6: --selector src-port --seed 7 --services 443 by src-addr, …"
inline Selection parse_selection(const std::string& line) {
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

inline Book read_book() {
  Book book;
  std::ifstream file(SARU_GOLDEN_PACKETS);
  for (std::string line; std::getline(file, line);) {
    if (line.front() == '#') {
      book.selections.push_back(parse_selection(line));
      continue;
    }
    const auto fields = split(line, '\t');
    Golden golden{fields.at(0), fields.at(1) != "ip", split(fields.at(2), ','), {}};
    // Fragments that never come together.
    for (const char* name : {"fragments: ", "fragments that"}) {
      if (golden.name.find(name) != std::string::npos) golden.whole = false;
    }
    for (std::size_t at = 0; at + 1 < fields.at(3).size(); at += 2) {
      golden.packet.push_back(
          static_cast<std::uint8_t>(std::stoul(fields.at(3).substr(at, 2), nullptr, 16)));
    }
    book.packets.push_back(std::move(golden));
  }
  return book;
}

}  // namespace saru
