// SPDX-License-Identifier: GPL-2.0-or-later
#include <charconv>

#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

// Whether "0-15,32" has it.
bool has_block(const string& ranges, unsigned block) {
  const char* at = ranges.data();
  const char* const end = at + ranges.size();
  while (at < end) {
    unsigned first = 0;
    at = std::from_chars(at, end, first).ptr;
    unsigned last = first;
    if (at < end && *at == '-') at = std::from_chars(at + 1, end, last).ptr;
    if (first <= block && block <= last) return true;
    if (at < end) ++at;
  }
  return false;
}

string name_or_nobody(const json& node) { return node.is_null() ? "nobody" : node.get<string>(); }

string semicolons(const json& words) {
  string text;
  for (const json& word : words) text += (text.empty() ? "" : "; ") + word.get<string>();
  return text;
}

string gap_text(const json& taken) {
  if (taken.at("ended").is_null()) return "no owner was known before";
  const auto us = taken.at("without_owner_us").get<std::int64_t>();
  const string ended = taken.at("ended").get<string>();
  const string how = ended == "lost"     ? "the owner was lost"
                     : ended == "closed" ? "the owner had closed it"
                                         : "handed over";
  return "without an owner for " + std::to_string(us / 1000) + "." + std::to_string(us / 100 % 10) +
         " ms (" + how + ")";
}

string since_text(const json& answer) {
  const json& views = answer.at("views");
  if (views.empty()) return "";
  const string first = views.front().at("time").get<string>();
  return answer.value("cut", false)
             ? "  older views than that of " + first + " are forgotten; the system log has them\n"
             : "  this sarud agreed on its first view at " + first +
                   "; the system log has what was before\n";
}

}  // namespace

string text_of_views(const json& answer) {
  string text;
  for (const json& view : answer.at("views")) {
    text += view.at("time").get<string>() + " view " + view.at("view").get<string>() + ": " +
            semicolons(view.at("why")) + "\n  members: " + joined(view.at("members")) +
            (view.at("quorate").get<bool>() ? "" : "; NOT QUORATE") + "\n";
    for (const json& move : view.at("moves")) {
      text += "  " + name_or_nobody(move.at("from")) + " -> " + name_or_nobody(move.at("to")) +
              ": " + move.at("blocks").get<string>() + "\n";
    }
    for (const json& taken : view.at("taken")) {
      text += "  " + taken.at("time").get<string>() + " taken here, " + gap_text(taken) + ": " +
              taken.at("blocks").get<string>() + "\n";
    }
  }
  return text + since_text(answer);
}

json story_of_block(const json& answer, unsigned block) {
  json story = json::array();
  for (const json& view : answer.at("views")) {
    json entry = nullptr;
    const auto begin = [&] {
      entry = {{"time", view.at("time")}, {"view", view.at("view")},
               {"why", view.at("why")},   {"from", nullptr},
               {"to", nullptr},           {"taken", nullptr},
               {"ended", nullptr},        {"without_owner_us", nullptr}};
    };
    for (const json& move : view.at("moves")) {
      if (!has_block(move.at("blocks").get_ref<const string&>(), block)) continue;
      begin();
      entry["from"] = move.at("from");
      entry["to"] = move.at("to");
    }
    for (const json& taken : view.at("taken")) {
      if (!has_block(taken.at("blocks").get_ref<const string&>(), block)) continue;
      if (entry.is_null()) begin();
      if (entry["from"].is_null()) entry["from"] = taken.at("from");
      entry["to"] = answer.at("node");
      entry["taken"] = taken.at("time");
      entry["ended"] = taken.at("ended");
      entry["without_owner_us"] = taken.at("without_owner_us");
    }
    if (!entry.is_null()) story.push_back(std::move(entry));
  }
  return story;
}

string text_of_story(const json& answer, unsigned block) {
  const json story = story_of_block(answer, block);
  string text = "block " + std::to_string(block) + ", as " + answer.at("node").get<string>() +
                " knows it:\n" + since_text(answer);
  for (const json& entry : story) {
    text += "  " + entry.at("time").get<string>() + " " + name_or_nobody(entry.at("from")) +
            " -> " + name_or_nobody(entry.at("to")) + ", view " + entry.at("view").get<string>() +
            ": " + semicolons(entry.at("why")) + "\n";
    if (!entry.at("taken").is_null()) {
      text += "  " + entry.at("taken").get<string>() + " taken here, " + gap_text(entry) + "\n";
    }
  }
  const json& owners = answer.at("owners");
  if (story.empty()) text += "  has not moved since\n";
  if (block >= owners.size()) return text;
  const json& owner = owners.at(block);
  string name = owner.is_null() ? "nobody" : "node " + owner.dump();
  for (const json& member : answer.at("members")) {
    if (member.at("id") == owner) name = member.at("node").get<string>();
  }
  return text + "  now: " + name + "\n";
}

}  // namespace saru
