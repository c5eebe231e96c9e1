// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

string name_of(const json& status, const json& node) {
  if (node.is_null()) return "nobody";
  for (const json& member : status.at("members")) {
    if (member.at("id") == node) return member.at("node").get<string>();
  }
  return "node " + node.dump() + " (has left the group)";
}

Served served_of(const json& status) {
  Served served;
  served.blocks = blocks_in(status);
  served.selection.selector =
      parse_selector(status.at("selector").get<string>()).value_or(Selector::kSrcPort);
  served.selection.seed = status.value("seed", std::uint32_t{0});
  if (auto services = parse_services(status.value("services", ""))) {
    served.selection.services = std::move(*services);
  }
  for (const json& text : status.at("addresses")) {
    if (const auto address = IpAddress::parse(text.get<string>())) {
      served.addresses.push_back(*address);
    }
  }
  return served;
}

const char* name_of_values(Selector selector) {
  switch (selector) {
    case Selector::kSrcPort:
      return "source ports ";
    case Selector::kDstPort:
      return "destination ports ";
    case Selector::kSrcAddr:
      return "low 16 bits of the source address ";
    case Selector::kDstAddr:
      return "low 16 bits of the destination address ";
    case Selector::kSrcAddrPort:
      break;
  }
  return "hash of source address and port ";
}

string blocks_text(const json& count) { return count == 1 ? "1 block" : count.dump() + " blocks"; }

}  // namespace

tl::expected<unsigned, string> find_block(const json& status, const ClientPacket& packet) {
  const auto found = block_of(packet, served_of(status));
  if (!found) return tl::unexpected(found.error());
  return found->block.value;
}

Answer text_of_owner(const json& status, const ClientPacket& packet) {
  const Served served = served_of(status);
  const auto found = block_of(packet, served);
  if (!found) return {found.error() + "\n", false};
  const BlockId block = found->block;
  const unsigned width = SARU_SELECTOR_VALUES / served.blocks;
  const unsigned first = block.value * width;
  const string range = std::to_string(first) + "-" + std::to_string(first + width - 1);
  const string head = to_text(packet) + " is block " + std::to_string(block.value) + " (" +
                      name_of_values(found->selector) + range + "): ";
  const json& owners = status.at("owners");
  if (owners.empty()) return {head + "no table has been agreed yet\n", false};
  for (const json& move : status.at("moving")) {
    if (move.at("block").get<unsigned>() != block.value) continue;
    return {head + "moving from " + name_of(status, move.at("from")) + " to " +
                name_of(status, move.at("to")) + "\n",
            false};
  }
  const json& owner = owners.at(block.value);
  return {head + name_of(status, owner) + "\n", !owner.is_null()};
}

Answer text_of_check(const json& audit) {
  Answer answer;
  const auto complain = [&answer](const string& text) {
    answer.text += text + "\n";
    answer.good = false;
  };
  for (const json& member : audit.at("members")) {
    const string node = member.at("node").get<string>();
    if (!member.at("answered").get<bool>()) {
      complain(node + ": did not answer within " + age(audit.at("waited_ms").get<std::int64_t>()));
    } else if (!member.at("intact").get<bool>()) {
      complain(node + ": its kernel does not hold what sarud wrote; see its log");
    }
  }
  for (const json& twice : audit.at("twice")) {
    string nodes;
    for (const json& node : twice.at("nodes")) {
      nodes += (nodes.empty() ? "" : " and ") + node.get<string>();
    }
    complain("block " + twice.at("block").dump() + ": owned by " + nodes);
  }
  if (audit.at("unowned_count") != 0) {
    complain(blocks_text(audit.at("unowned_count")) +
             " owned by nobody: " + audit.at("unowned").get<string>());
  }
  if (answer.good) {
    answer.text = "each of " + audit.at("blocks").dump() +
                  " blocks is accepted by exactly one of " +
                  std::to_string(audit.at("members").size()) + " nodes\n";
  }
  return answer;
}

}  // namespace saru
