// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/fencing_news.h"

#include <gtest/gtest.h>

namespace saru {
namespace {

using Kind = FencingNews::Kind;

TEST(FencingNews, IsReadAsItWasWritten) {
  for (const FencingNews& news :
       {FencingNews{Kind::kWatching, "", Nanos(0), false},
        FencingNews{Kind::kBlind, "Pacemaker's fencer has gone", Nanos(0), false},
        FencingNews{Kind::kFenced, "", Nanos(1234567890123), false},
        FencingNews{Kind::kFenced, "", Nanos(77), true}}) {
    std::string line = to_line(news);
    ASSERT_EQ(line.back(), '\n');
    line.pop_back();
    EXPECT_EQ(parse_fencing_news(line), news) << line;
  }
}

TEST(FencingNews, WhatIsNoneOfItsLinesSaysNothing) {
  for (const char* line : {"", "fenced", "fenced ", "fenced -1", "fenced 1x", "fenced 1 ",
                           "Fenced 1", "fenced alone", "fenced alone ", "fenced alone x",
                           "fenced alone -1", "fenced 9223372036854775808", "watching ", "blind"}) {
    EXPECT_EQ(parse_fencing_news(line), std::nullopt) << line;
  }
}

}  // namespace
}  // namespace saru
