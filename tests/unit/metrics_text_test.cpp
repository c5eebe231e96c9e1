// SPDX-License-Identifier: GPL-2.0-or-later
// What saructl metrics prints, and the stories of saructl events.
#include <gtest/gtest.h>

#include <sstream>

#include "agent/metrics.h"
#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

json answer_of(const Tally& tally) {
  json answer = {
      {"version", "1.2"},
      {"id", 1},
      {"node", "n1"},
      {"node_id", 1},
      {"age_ms", 61005},
      {"quorate", true},
      {"eligible", true},
      {"draining", false},
      {"weight", 3},
      {"blocks", 16},
      {"owns", 6},
      {"lease_ms", 1375},
      {"lease_left_ms", 1300},
      {"lingering", "0-3,7"},
      {"contested", ""},
      {"lingering_connections", nullptr},
      {"flows", nullptr},
      {"repairs", 2},
      {"warnings", {"a", "b"}},
      {"config", {{"next", nullptr}}},
      {"view", {{"ring", "1.24"}, {"round", 3}, {"confirmed", true}, {"age_ms", 12340}}},
      {"partner", {{"node", "n2"}, {"may_hold", true}, {"blind", "no \"answer\""}}},
      {"members", {{{"id", 1}, {"node", "n1"}}, {{"id", 2}, {"node", "n2"}}}},
      {"owners", {1, 1, 2, nullptr}},
      {"moving", {{{"block", 1}, {"from", nullptr}, {"to", 1}}}},
      {"messages", {{"sent", 5}, {"received", 7}, {"refused", 0}, {"lost", 0}, {"unsent", 1}}},
      {"packets", {{"accepted", 10}, {"foreign", 20}, {"late", 0}}},
      {"lans", {{{"nic", "eth0"}, {"carrier", true}}}},
  };
  answer["tally"] = describe(tally);
  return answer;
}

Tally some_tally() {
  Tally tally;
  tally.views = 4;
  tally.taken_unknown = 6;
  tally.without_owner[static_cast<std::size_t>(Ended::kLost)].add(std::chrono::milliseconds(1234),
                                                                  85);
  tally.without_owner[static_cast<std::size_t>(Ended::kLost)].add(std::chrono::seconds(61), 1);
  tally.without_owner[static_cast<std::size_t>(Ended::kHandedOver)].add(
      std::chrono::microseconds(4200), 3);
  return tally;
}

bool has_line(const string& text, const string& wanted) {
  return ("\n" + text).find("\n" + wanted + "\n") != string::npos;
}

TEST(MetricsText, StatesAndCountersAreSamplesWithIdAndNode) {
  const string text = text_of_metrics({{1, "n1", answer_of(some_tally())}}, false);
  for (const char* line :
       {"saru_up{id=\"1\",node=\"n1\"} 1",
        "saru_build_info{id=\"1\",node=\"n1\",version=\"1.2\"} 1",
        "# TYPE saru_views_total counter", "saru_views_total{id=\"1\",node=\"n1\"} 4",
        "# TYPE saru_blocks_owned gauge", "saru_blocks_owned{id=\"1\",node=\"n1\"} 6",
        "# UNIT saru_lease_seconds seconds", "saru_lease_seconds{id=\"1\",node=\"n1\"} 1.375",
        "saru_uptime_seconds{id=\"1\",node=\"n1\"} 61.005",
        "saru_ring_sequence{id=\"1\",node=\"n1\"} 24",
        "saru_blocks_lingering{id=\"1\",node=\"n1\"} 5",
        "saru_blocks_waiting{id=\"1\",node=\"n1\"} 1",
        "saru_blocks_unowned{id=\"1\",node=\"n1\"} 1",
        "saru_fencing_waiting{id=\"1\",node=\"n1\"} 1",
        "saru_fencing_blind{id=\"1\",node=\"n1\"} 1",
        "saru_nic_carrier{id=\"1\",node=\"n1\",nic=\"eth0\"} 1",
        "saru_packets_total{id=\"1\",node=\"n1\",verdict=\"foreign\"} 20",
        "saru_blocks_taken_total{id=\"1\",node=\"n1\",former=\"lost\"} 86",
        "saru_blocks_taken_total{id=\"1\",node=\"n1\",former=\"unknown\"} 6"}) {
    EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
  }
  EXPECT_EQ(text.find("saru_flows"), string::npos) << "no connections are synchronised";
}

TEST(MetricsText, TheHistogramIsSummedUp) {
  const string text = text_of_metrics({{1, "n1", answer_of(some_tally())}}, false);
  const string name = "saru_block_without_owner_seconds";
  const string lost = "{id=\"1\",node=\"n1\",former=\"lost\"";
  EXPECT_TRUE(has_line(text, name + "_bucket" + lost + ",le=\"1.0\"} 0")) << text;
  EXPECT_TRUE(has_line(text, name + "_bucket" + lost + ",le=\"2.5\"} 85"));
  EXPECT_TRUE(has_line(text, name + "_bucket" + lost + ",le=\"60.0\"} 85"));
  EXPECT_TRUE(has_line(text, name + "_bucket" + lost + ",le=\"+Inf\"} 86"));
  EXPECT_TRUE(has_line(text, name + "_count" + lost + "} 86"));
  EXPECT_TRUE(has_line(text, name + "_sum" + lost + "} 165.89"));  // 85 * 1.234 + 61
  EXPECT_TRUE(
      has_line(text, name + "_bucket{id=\"1\",node=\"n1\",former=\"handed_over\",le=\"0.005\"} 3"));
}

TEST(MetricsText, OneThatDoesNotAnswerIsDown) {
  const string text =
      text_of_metrics({{1, "n1", answer_of(some_tally())}, {7, "n1", json(nullptr)}}, false);
  EXPECT_TRUE(has_line(text, "saru_up{id=\"1\",node=\"n1\"} 1"));
  EXPECT_TRUE(has_line(text, "saru_up{id=\"7\",node=\"n1\"} 0"));
  EXPECT_EQ(text.find("id=\"7\""), text.rfind("id=\"7\"")) << "nothing else is known of it";
}

// In OpenMetrics a counter is called without _total, its sample with it.
TEST(MetricsText, EverySampleStandsBelowItsOwnFamily) {
  for (const bool open_metrics : {false, true}) {
    const string text = text_of_metrics(
        {{1, "n1", answer_of(some_tally())}, {2, "n1", answer_of({})}}, open_metrics);
    ASSERT_TRUE(text.ends_with("\n# EOF\n"));
    std::istringstream lines(text);
    std::set<string> seen;
    string family, type, word, name;
    unsigned samples = 0;
    for (string line; std::getline(lines, line);) {
      std::istringstream words(line);
      words >> word >> name;
      if (word == "#" && name == "HELP") {
        words >> family;
        EXPECT_TRUE(seen.insert(family).second) << family << " comes twice";
      } else if (word == "#" && name == "TYPE") {
        words >> word >> type;
        EXPECT_EQ(word, family);
        EXPECT_EQ(family.ends_with("_total"), type == "counter" && !open_metrics) << line;
      } else if (word != "#") {
        const string called = line.substr(0, line.find('{'));
        const string suffix = called.substr(std::min(family.size(), called.size()));
        EXPECT_TRUE(called.starts_with(family)) << line << " below " << family;
        const string wanted = type == "counter" && open_metrics ? "_total" : "";
        EXPECT_TRUE(type == "histogram" || suffix == wanted) << line;
        EXPECT_EQ(line.find("} -"), string::npos) << "negative: " << line;
        ++samples;
      }
    }
    EXPECT_GT(samples, 100U);
  }
}

TEST(MetricsText, LabelsAreEscaped) {
  const string text = text_of_metrics({{1, "a\"b\\c\nd", json(nullptr)}}, false);
  EXPECT_TRUE(has_line(text, R"(saru_up{id="1",node="a\"b\\c\nd"} 0)")) << text;
}

TEST(MetricsText, CountersThatBeginAnewGoOnRising) {
  Rising rising;
  EXPECT_EQ(rising.value("a", 5), 5U);
  EXPECT_EQ(rising.value("a", 9), 9U);
  EXPECT_EQ(rising.value("a", 2), 11U);
  EXPECT_EQ(rising.value("a", 2), 11U);
  EXPECT_EQ(rising.value("b", 1), 1U);
  EXPECT_EQ(rising.value("a", 0), 11U);
  EXPECT_EQ(rising.value("a", 4), 15U);
}

json views() {
  return {{"node", "n1"},
          {"owners", {1, 1, 2, 2}},
          {"members", {{{"id", 1}, {"node", "n1"}}, {{"id", 2}, {"node", "n2"}}}},
          {"cut", false},
          {"views",
           {{{"time", "T1"},
             {"view", "1.4/0"},
             {"quorate", true},
             {"why", {"this node joined", "n2 is here"}},
             {"members", {"n1", "n2"}},
             {"moves", json::array()},
             {"taken", json::array()}},
            {{"time", "T2"},
             {"view", "1.8/0"},
             {"quorate", true},
             {"why", {"n3 was lost"}},
             {"members", {"n1", "n2"}},
             {"moves",
              {{{"from", "n3"}, {"to", "n1"}, {"blocks", "0-1"}},
               {{"from", "n3"}, {"to", "n2"}, {"blocks", "2,13"}}}},
             {"taken",
              {{{"time", "T3"},
                {"from", "n3"},
                {"ended", "lost"},
                {"without_owner_us", 1012345},
                {"blocks", "0-1"}}}}}}}};
}

TEST(Views, EachTellsWhyItCameAndWhatMoved) {
  EXPECT_EQ(text_of_views(views()),
            "T1 view 1.4/0: this node joined; n2 is here\n"
            "  members: n1, n2\n"
            "T2 view 1.8/0: n3 was lost\n"
            "  members: n1, n2\n"
            "  n3 -> n1: 0-1\n"
            "  n3 -> n2: 2,13\n"
            "  T3 taken here, without an owner for 1012.3 ms (the owner was lost): 0-1\n"
            "  this sarud agreed on its first view at T1; the system log has what was before\n");
}

TEST(Views, OneBlockHasAStory) {
  EXPECT_EQ(text_of_story(views(), 1),
            "block 1, as n1 knows it:\n"
            "  this sarud agreed on its first view at T1; the system log has what was before\n"
            "  T2 n3 -> n1, view 1.8/0: n3 was lost\n"
            "  T3 taken here, without an owner for 1012.3 ms (the owner was lost)\n"
            "  now: n1\n");
  const json story = story_of_block(views(), 2);
  ASSERT_EQ(story.size(), 1U);
  EXPECT_EQ(story[0].at("to"), "n2");
  EXPECT_TRUE(story[0].at("taken").is_null());
  EXPECT_TRUE(story_of_block(views(), 3).empty()) << "13 is not 3";
}

}  // namespace
}  // namespace saru
