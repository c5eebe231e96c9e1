// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/doctor.h"

#include <algorithm>

#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

const char* word_of(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kWarning:
      return "warning";
    case Level::kError:
      break;
  }
  return "error";
}

std::size_t count_of(const Findings& all, Level level) {
  return static_cast<std::size_t>(std::count_if(
      all.begin(), all.end(), [level](const Finding& one) { return one.level == level; }));
}

string counted(std::size_t count, const string& word) {
  return std::to_string(count) + " " + word + (count == 1 ? "" : "s");
}

}  // namespace

Finding fine(const string& check, const string& found) { return {check, Level::kOk, found, ""}; }

Finding doubt(const string& check, const string& found, const string& remedy) {
  return {check, Level::kWarning, found, remedy};
}

Finding wrong(const string& check, const string& found, const string& remedy) {
  return {check, Level::kError, found, remedy};
}

void append(Findings& all, Findings more) {
  for (Finding& one : more) all.push_back(std::move(one));
}

const std::vector<string>& doctor_checks() {
  static const std::vector<string> names = {
      "service",   "blocks",   "version",    "switch",  "arp",       "mac",      "address",
      "kernel",    "bridge",   "saved",      "manager", "conntrack", "firewall", "firewalld",
      "flowtable", "corosync", "encryption", "knet",    "lease",     "fencing",  "clock"};
  return names;
}

Findings without(Findings all, const std::set<string>& skipped) {
  all.erase(std::remove_if(all.begin(), all.end(),
                           [&](const Finding& one) { return skipped.count(one.check) != 0; }),
            all.end());
  return all;
}

bool is_well(const Findings& all) {
  return std::all_of(all.begin(), all.end(),
                     [](const Finding& one) { return one.level == Level::kOk; });
}

string text_of_doctor(const Findings& all) {
  string text;
  for (const Finding& one : all) {
    text += fit(word_of(one.level), 8) + fit(one.check, 11) + one.found;
    text += one.remedy.empty() ? "\n" : ". Do: " + one.remedy + "\n";
  }
  const std::size_t errors = count_of(all, Level::kError);
  const std::size_t warnings = count_of(all, Level::kWarning);
  if (errors + warnings == 0) return text + "nothing wrong found\n";
  return text + counted(errors, "error") + ", " + counted(warnings, "warning") + "\n";
}

json json_of_doctor(const Findings& all) {
  json checks = json::array();
  for (const Finding& one : all) {
    checks.push_back({{"check", one.check},
                      {"level", word_of(one.level)},
                      {"found", one.found},
                      {"remedy", one.remedy.empty() ? json(nullptr) : json(one.remedy)}});
  }
  return {{"errors", count_of(all, Level::kError)},
          {"warnings", count_of(all, Level::kWarning)},
          {"checks", std::move(checks)}};
}

}  // namespace saru
