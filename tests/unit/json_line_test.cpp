// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/json_line.h"

#include <gtest/gtest.h>

namespace saru {
namespace {

TEST(JsonLine, OneObjectIsRead) {
  const auto read = read_object(R"({"a":[1,-2,18446744073709551615],"b":{"c":null}})");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->at("a").size(), 3U);
}

TEST(JsonLine, WhatIsNoObjectIsRefused) {
  for (const char* text : {"", "1", "[]", "null", "{", "{}}", "{}{}"}) {
    EXPECT_FALSE(read_object(text)) << text;
  }
}

TEST(JsonLine, DeepNestingIsRefused) {
  const auto nested = [](std::size_t depth) {
    return R"({"a":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_TRUE(read_object(nested(kMaxNesting - 1)));
  EXPECT_FALSE(read_object(nested(kMaxNesting + 1)));
  EXPECT_FALSE(read_object(nested(100000)));
}

// Found by tests/fuzz: a number of blocks of 2.5e22.
TEST(JsonLine, NumbersThatAreNotWholeOrTooLargeAreRefused) {
  for (const char* number : {"2.5e22", "1.5", "-0.0", "18446744073709551616"}) {
    EXPECT_FALSE(read_object(R"({"a":)" + std::string(number) + "}")) << number;
    EXPECT_FALSE(read_object(R"({"a":[{"b":)" + std::string(number) + "}]}")) << number;
  }
}

}  // namespace
}  // namespace saru
