// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/fencing_judge.h"

#include <gtest/gtest.h>

namespace saru {
namespace {

using State = FencingDeed::State;
constexpr Nanos at(int seconds) { return std::chrono::seconds(seconds); }

TEST(FencingJudge, ADeedThatEndsCountsFromTheLastQuestionThatFoundNothingUnderWay) {
  FencingJudge judge("n2");
  judge.begin();
  EXPECT_FALSE(judge.read({}, at(1)));
  judge.settle();
  EXPECT_FALSE(judge.read({{State::kUnderWay, "n2", "reboot"}}, at(2)));
  judge.settle();
  const auto news = judge.on_end({State::kDone, "n2", "reboot"});
  ASSERT_TRUE(news);
  EXPECT_EQ(*news, (FencingNews{FencingNews::Kind::kFenced, "", at(1), false}));
}

TEST(FencingJudge, WhatEndsBeforeTheAnswerIsReadCountsFromTheQuestionBefore) {
  FencingJudge judge("n2");
  judge.begin();
  judge.read({}, at(1));
  judge.settle();
  judge.read({}, at(2));
  EXPECT_EQ(judge.on_end({State::kDone, "n2", "off"})->began_after, at(1));
  judge.settle();
  EXPECT_EQ(judge.on_end({State::kDone, "n2", "off"})->began_after, at(2));
}

TEST(FencingJudge, ANewConnectionKnowsNothing) {
  FencingJudge judge("n2");
  judge.begin();
  judge.read({}, at(5));
  judge.settle();
  judge.begin();
  EXPECT_EQ(judge.on_end({State::kDone, "n2", "off"})->began_after, Nanos(0));
}

TEST(FencingJudge, OnlyTheEndOfThePartnersPowerCounts) {
  const FencingJudge judge("n2");
  EXPECT_TRUE(judge.on_end({State::kDone, "N2", "off"})) << "names have no case";
  EXPECT_FALSE(judge.on_end({State::kFailed, "n2", "off"}));
  EXPECT_FALSE(judge.on_end({State::kUnderWay, "n2", "off"}));
  EXPECT_FALSE(judge.on_end({State::kDone, "n2", "on"}));
  EXPECT_FALSE(judge.on_end({State::kDone, "n2", "list"}));
  EXPECT_FALSE(judge.on_end({State::kDone, "n1", "off"}));
  EXPECT_FALSE(judge.on_end({State::kDone, "", "off"}));
}

TEST(FencingJudge, TheHistoryTellsWhetherThePartnerWasEverFenced) {
  FencingJudge judge("n2");
  EXPECT_TRUE(judge.read({{State::kFailed, "n2", "off"}, {State::kDone, "n2", "reboot"}}, at(1)));
  EXPECT_FALSE(judge.read({{State::kFailed, "n2", "off"}, {State::kDone, "n3", "off"}}, at(1)));
  EXPECT_FALSE(judge.read({{State::kDone, "n2", "on"}, {State::kUnderWay, "n2", "off"}}, at(1)));
}

// A reboot is an "off" and then an "on": while it is an "on", it is still under way.
TEST(FencingJudge, AnythingUnderWayAtThePartnerKeepsTheMomentBefore) {
  FencingJudge judge("n2");
  judge.read({}, at(1));
  judge.settle();
  judge.read({{State::kUnderWay, "n2", "on"}, {State::kDone, "n2", "off"}}, at(2));
  judge.settle();
  EXPECT_EQ(judge.on_end({State::kDone, "n2", "reboot"})->began_after, at(1));
  judge.read({{State::kUnderWay, "n3", "off"}}, at(3));
  judge.settle();
  EXPECT_EQ(judge.on_end({State::kDone, "n2", "reboot"})->began_after, at(3));
}

}  // namespace
}  // namespace saru
