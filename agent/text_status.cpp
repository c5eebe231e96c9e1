// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdio>
#include <stdexcept>

#include "agent/core/block_set.h"
#include "agent/core/plant.h"
#include "agent/text.h"
#include "agent/version.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

constexpr std::size_t kColumns = 80;

string line(const string& label, const string& text) {
  constexpr std::size_t kLabel = 13;
  string out;
  string rest = text;
  string head = "  " + fit(label, kLabel - 2);
  // Long sentences go on below their own beginning.
  while (head.size() + rest.size() > kColumns) {
    std::size_t cut = rest.rfind(' ', kColumns - head.size());
    if (cut == string::npos || cut == 0) {  // a list of blocks
      const std::size_t comma = rest.rfind(',', kColumns - head.size() - 1);
      cut = comma == string::npos ? kColumns - head.size() : comma + 1;
    }
    out += head + rest.substr(0, cut) + "\n";
    rest.erase(0, rest[cut] == ' ' ? cut + 1 : cut);
    head = string(kLabel, ' ');
  }
  return out + head + rest + "\n";
}

string view_text(const json& status) {
  const json& view = status.at("view");
  const string quorum = status.at("quorate").get<bool>() ? "quorate" : "NOT QUORATE";
  if (!view.at("open").get<bool>()) return "none; " + quorum;
  string text = "ring " + view.at("ring").get<string>() + ", round " +
                std::to_string(view.at("round").get<unsigned>()) + ", " + quorum + ", " +
                (view.at("confirmed").get<bool>() ? "agreed" : "NOT YET AGREED") + ", " +
                age(view.at("age_ms").get<std::int64_t>()) + " old";
  const string reason = view.at("reason").get<string>();
  return reason.empty() ? text : text + ": " + reason;
}

string partner_line(const json& status) {
  const json partner = status.value("partner", json());
  if (!partner.is_object()) return "";
  const string node = partner.at("node").get<string>();
  string text = "takes the blocks of " + node + " only once it is known to be closed";
  if (partner.at("closed").get<bool>()) text = node + " is known to be closed";
  if (partner.at("may_hold").get<bool>()) {
    text = "WAITS: " + node +
           " is not here and may still serve; it must be fenced, or: saructl "
           "confirm-dead " +
           node + " --yes-it-is-down";
  }
  if (!partner.at("blind").is_null()) {
    text += "; WOULD NOT HEAR of its fencing: " + partner.at("blind").get<string>();
  }
  return line("fencing", text);
}

// A sarud that was started before its package was replaced runs on.
string version_line(const json& status) {
  const string runs = status.value("version", "");
  if (runs.empty() || runs == kVersion) return "";
  return line("version", "sarud " + runs + " runs, " + kVersion +
                             " is installed; to change over: saructl drain, restart sarud "
                             "(pcs node standby, unstandby), saructl undrain");
}

// Blocks whose connections stay on the node where they began.
string lingering_lines(const json& status) {
  string text;
  const string lingering = status.value("lingering", "");
  if (!lingering.empty()) {
    const json& count = status.at("lingering_connections");
    text += line("lingering", lingering + ": they went to other nodes; " +
                                  (count.is_null() ? "their connections go on here"
                                                   : std::to_string(count.get<unsigned>()) +
                                                         " of their connections go on here"));
  }
  const string contested = status.value("contested", "");
  if (!contested.empty()) {
    text += line("contested", contested + ": connections of them may go on at other nodes");
  }
  return text;
}

// What the members tell each other of their connections.
string flow_lines(const json& status) {
  const json flows = status.value("flows", json());
  if (!flows.is_object()) return "";
  const auto number = [&](const char* name) {
    return std::to_string(flows.at(name).get<std::uint64_t>());
  };
  string text = number("known") + " known, " + number("own") + " of them this node's";
  if (!flows.at("synced").get<bool>()) {
    text += "; NOT YET all that the others know";
    const auto wanted = flows.at("blocks_wanted").get<std::uint64_t>();
    if (wanted > 0) text += ": " + std::to_string(wanted) + " blocks are missing";
  }
  if (flows.at("putting").get<bool>()) text += "; taking some over";
  if (flows.at("failed").get<std::uint64_t>() > 0)
    text += "; " + number("failed") + " NOT TAKEN by conntrack";
  return line("connections", text);
}

string member_line(const json& member, unsigned blocks, unsigned self) {
  const unsigned owns = member.at("owns").get<unsigned>();
  const json& weight = member.at("weight");
  char head[64];
  std::snprintf(head, sizeof head, "%c %s %5u %6s %7u %7s  ",
                member.at("id").get<unsigned>() == self ? '*' : ' ',
                fit(member.at("node").get<string>(), 16).c_str(), member.at("id").get<unsigned>(),
                weight.is_null() ? "?" : std::to_string(weight.get<unsigned>()).c_str(), owns,
                percent(owns, blocks).c_str());
  const string text = head + fit(member.at("state").get<string>(), kColumns - 50);
  return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
}

}  // namespace

unsigned blocks_in(const json& status) {
  const unsigned blocks = status.at("blocks").get<unsigned>();
  if (is_block_count(blocks) || planted() == Plant::kAnyBlockCount) return blocks;
  throw std::domain_error("blocks: " + std::to_string(blocks));
}

string joined(const json& words) {
  string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word.get<string>();
  return text;
}

string fit(const string& text, std::size_t width) {
  if (text.size() > width) return text.substr(0, width - 1) + "~";
  return text + string(width - text.size(), ' ');
}

string percent(unsigned part, unsigned whole) {
  char text[16];
  std::snprintf(text, sizeof text, "%.1f %%", whole == 0 ? 0.0 : 100.0 * part / whole);
  return text;
}

string age(std::int64_t milliseconds) {
  const std::int64_t s = milliseconds / 1000;
  if (s < 1) return std::to_string(milliseconds) + " ms";
  if (s < 120) return std::to_string(s) + " s";
  if (s < 7200) return std::to_string(s / 60) + " min";
  if (s < 172800) return std::to_string(s / 3600) + " h";
  return std::to_string(s / 86400) + " days";
}

string text_of_status(const json& status) {
  const unsigned blocks = blocks_in(status);
  const unsigned self = status.at("node_id").get<unsigned>();
  const string label = status.at("label").get<string>();
  string text = "saru " + std::to_string(status.at("id").get<unsigned>()) + ": " +
                joined(status.at("addresses")) + " on " + status.at("nic").get<string>() +
                (label.empty() ? "" : " (" + label + ")") + "\n";
  const json inside = status.value("inside", json());
  if (inside.is_object()) {
    text +=
        line("inside", joined(inside.at("addresses")) + " on " + inside.at("nic").get<string>() +
                           ", MAC " + inside.at("mac").get<string>());
  }
  text +=
      line("this node", status.at("node").get<string>() + ", " + status.at("state").get<string>() +
                            "; owns " + std::to_string(status.at("owns").get<unsigned>()) + " of " +
                            std::to_string(blocks) + " blocks");
  text += line("lease", std::to_string(status.at("lease_left_ms").get<std::int64_t>()) + " of " +
                            std::to_string(status.at("lease_ms").get<std::int64_t>()) + " ms left");
  text += line("view", view_text(status));
  text += line("settings", status.at("selector").get<string>() + ", delivery " +
                               status.at("delivery").get<string>() + ", connections " +
                               status.at("connections").get<string>() + ", MAC " +
                               status.at("mac").get<string>());
  text += version_line(status);
  const json& config = status.at("config");
  if (!config.at("next").is_null()) {
    text += line("to come", "other settings, once these nodes have them too: " +
                                joined(config.at("waiting_for")));
  }
  text += partner_line(status);
  text += "\n  node                id weight  blocks   share  state\n";
  for (const json& member : status.at("members")) text += member_line(member, blocks, self);
  unsigned nobodys = 0;
  for (const json& owner : status.at("owners")) nobodys += owner.is_null() ? 1 : 0;
  if (nobodys > 0) {
    text += line("UNOWNED", std::to_string(nobodys) + " of " + std::to_string(blocks) +
                                " blocks have no owner");
  }
  for (const json& warning : status.value("warnings", json::array())) {
    text += line("WARNING", warning.get<string>());
  }
  text += lingering_lines(status);
  text += flow_lines(status);
  if (!status.at("moving").empty()) {
    text += line("moving", std::to_string(status.at("moving").size()) +
                               " blocks to or from this node; saructl map shows which");
  }
  return text;
}

}  // namespace saru
