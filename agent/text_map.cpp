// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

constexpr unsigned kBlocksPerRow = 64;
constexpr unsigned kBlocksPerGroup = 8;
constexpr char kNobody = '.';
constexpr char kMoving = '*';
constexpr char kFurther = '+';
constexpr char kSymbols[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
constexpr const char* kColours[] = {"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"};

struct Drawn {
  char symbol = kNobody;
  string colour;  // SGR parameters; empty: none
};

// Symbol and colour of each node, by its rank among all that own or may own something.
std::map<unsigned, Drawn> draw_nodes(const json& status) {
  std::set<unsigned> nodes;
  for (const json& member : status.at("members")) nodes.insert(member.at("id").get<unsigned>());
  for (const json& owner : status.at("owners")) {
    if (!owner.is_null()) nodes.insert(owner.get<unsigned>());
  }
  std::map<unsigned, Drawn> drawn;
  for (const unsigned node : nodes) {
    const std::size_t rank = drawn.size();
    const char symbol = rank < sizeof kSymbols - 1 ? kSymbols[rank] : kFurther;
    drawn[node] = {symbol, kColours[rank % std::size(kColours)]};
  }
  return drawn;
}

string paint(const Drawn& drawn, bool colour) {
  if (!colour || drawn.colour.empty()) return string(1, drawn.symbol);
  return "\033[" + drawn.colour + "m" + drawn.symbol + "\033[0m";
}

// "source ports" and the like; what a block is a slice of.
string slices_of(const json& status) {
  const string selector = status.at("selector").get<string>();
  if (selector == "src-port") return "source ports";
  if (selector == "dst-port") return "destination ports";
  if (selector == "src-addr") return "source addresses (low 16 bits)";
  if (selector == "dst-addr") return "destination addresses (low 16 bits)";
  return "hash values of client address and port";
}

string headline(const json& status, const string& what) {
  const unsigned blocks = blocks_in(status);
  return "saru " + std::to_string(status.at("id").get<unsigned>()) + ": " + std::to_string(blocks) +
         " blocks of " + std::to_string(65536 / blocks) + " " + slices_of(status) + ", " + what +
         "\n\n";
}

string draw_grid(const std::vector<Drawn>& cells, bool colour) {
  string text;
  for (std::size_t block = 0; block < cells.size(); ++block) {
    if (block % kBlocksPerRow == 0) {
      char label[32];
      std::snprintf(label, sizeof label, "%s%5zu  ", block == 0 ? "" : "\n", block);
      text += label;
    } else if (block % kBlocksPerGroup == 0) {
      text += ' ';
    }
    text += paint(cells[block], colour);
  }
  return text + "\n";
}

string legend_line(const Drawn& drawn, const string& name, unsigned owns, unsigned blocks,
                   const string& more, bool colour) {
  char text[160];
  std::snprintf(text, sizeof text, "  %s %4u blocks  %7s  ", fit(name, 16).c_str(), owns,
                percent(owns, blocks).c_str());
  const string line = text + fit(more, 34);
  return "    " + paint(drawn, colour) + line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

string legend(const json& status, const std::map<unsigned, Drawn>& nodes, bool colour) {
  const json& owners = status.at("owners");
  const unsigned blocks = blocks_in(status);
  const unsigned self = status.at("node_id").get<unsigned>();
  string text;
  std::set<unsigned> members;
  for (const json& member : status.at("members")) {
    const unsigned id = member.at("id").get<unsigned>();
    members.insert(id);
    const json& weight = member.at("weight");
    text += legend_line(nodes.at(id), member.at("node").get<string>(),
                        member.at("owns").get<unsigned>(), blocks,
                        (weight.is_null() ? "" : "weight " + weight.dump() + ", ") +
                            (id == self ? "this node, " : "") + member.at("state").get<string>(),
                        colour);
  }
  for (const auto& [node, drawn] : nodes) {
    if (members.count(node) != 0) continue;
    const auto owns = std::count(owners.begin(), owners.end(), json(node));
    text += legend_line(drawn, "node " + std::to_string(node), static_cast<unsigned>(owns), blocks,
                        "has left the group", colour);
  }
  return text;
}

string moving_lines(const json& moving, const std::map<unsigned, Drawn>& nodes) {
  std::map<std::pair<char, char>, unsigned> counts;
  const auto symbol = [&nodes](const json& node) {
    const auto found = node.is_null() ? nodes.end() : nodes.find(node.get<unsigned>());
    return found == nodes.end() ? kNobody : found->second.symbol;
  };
  for (const json& move : moving) ++counts[{symbol(move.at("from")), symbol(move.at("to"))}];
  string text;
  for (const auto& [way, count] : counts) {
    text += "    " + string(1, kMoving) + "  moving           " +
            fit(std::to_string(count) + " blocks", 12) + way.first + " -> " + way.second + "\n";
  }
  return text;
}

}  // namespace

string text_of_map(const json& status, bool colour) {
  const json& owners = status.at("owners");
  const unsigned blocks = blocks_in(status);
  string text = headline(status, "as " + status.at("node").get<string>() + " sees them");
  if (owners.empty()) {
    return text + "  No table has been agreed yet. This node: " + status.at("state").get<string>() +
           ".\n";
  }
  const auto nodes = draw_nodes(status);
  const Drawn nobody{kNobody, "1;37;41"};
  std::vector<Drawn> cells;
  unsigned nobodys = 0;
  for (const json& owner : owners) {
    nobodys += owner.is_null() ? 1 : 0;
    cells.push_back(owner.is_null() ? nobody : nodes.at(owner.get<unsigned>()));
  }
  for (const json& move : status.at("moving")) {
    cells.at(move.at("block").get<std::size_t>()) = {kMoving, "1;30;43"};
  }
  text += draw_grid(cells, colour) + "\n" + legend(status, nodes, colour);
  if (nobodys > 0) {
    text += legend_line(nobody, "nobody", nobodys, blocks, "NOT SERVED", colour);
  }
  text += moving_lines(status.at("moving"), nodes);
  if (!status.at("view").at("confirmed").get<bool>()) {
    text += "\n  A new table is being agreed on; this is the last one.\n";
  }
  return text;
}

string text_of_load(const json& status) {
  constexpr std::size_t kBusiest = 5;
  const auto loads = status.at("loads").get<std::vector<std::uint64_t>>();
  const string node = status.at("node").get<string>();
  string text = headline(status, "new connections that " + node + " accepted");
  std::vector<Drawn> cells;
  std::vector<std::size_t> order;
  const std::uint64_t most = loads.empty() ? 0 : *std::max_element(loads.begin(), loads.end());
  std::uint64_t sum = 0;
  for (const std::uint64_t load : loads) {
    const auto tenth = most == 0 ? 0 : static_cast<int>(1 + (load * 9 - 1) / most);
    cells.push_back({load == 0 ? kNobody : static_cast<char>('0' + tenth), ""});
    order.push_back(order.size());
    sum += load;
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return loads[a] > loads[b]; });
  text += draw_grid(cells, false) + "\n    .  none   1..9  by ninths of the busiest block\n";
  text += "    " + std::to_string(sum) + " in all, since sarud's table was made\n";
  for (std::size_t i = 0; i < std::min(kBusiest, order.size()) && loads[order[i]] > 0; ++i) {
    text += "    block " + std::to_string(order[i]) + ": " + std::to_string(loads[order[i]]) + "\n";
  }
  return text;
}

}  // namespace saru
