// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/text.h"

namespace saru {

// One line each, as long as it is: these are searched and cut by other programs.
std::string text_of_events(const nlohmann::json& answer) {
  std::string text;
  for (const nlohmann::json& event : answer.at("events")) {
    text += event.at("time").get<std::string>() + " " +
            fit(event.at("level").get<std::string>(), 7) + " " +
            event.at("text").get<std::string>() + "\n";
  }
  return text;
}

}  // namespace saru
