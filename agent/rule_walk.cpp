// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/rule_walk.h"

#include <algorithm>
#include <sstream>

#include "agent/rule_match.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

// The kernel's NFT_JUMP_STACK_SIZE.
constexpr unsigned kDeepest = 16;

// What may come of a rule or a chain; several bits: it is not known which.
enum : unsigned { kAccept = 1, kDrop = 2, kReturn = 4, kGoOn = 8 };

string text_or(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<string>() : "";
}

std::vector<string> words_of(const json& one_or_many) {
  if (one_or_many.is_string()) return {one_or_many.get<string>()};
  std::vector<string> words;
  if (!one_or_many.is_array()) return words;
  for (const json& word : one_or_many) {
    if (word.is_string()) words.push_back(word.get<string>());
  }
  return words;
}

// The words between `device` or `devices =` and `priority`.
std::vector<string> devices_in(const string& line) {
  std::vector<string> devices;
  const std::size_t begin = line.find(" device");
  const std::size_t end = line.find(" priority", begin == string::npos ? 0 : begin);
  if (begin == string::npos || end == string::npos) return devices;
  string part = line.substr(begin, end - begin);
  for (char& c : part) {
    if (c == '"' || c == '{' || c == '}' || c == ',' || c == '=') c = ' ';
  }
  std::istringstream words(part);
  string word;
  while (words >> word) {
    if (word != "device" && word != "devices") devices.push_back(word);
  }
  return devices;
}

bool intersect(const std::vector<string>& a, const std::vector<string>& b) {
  return std::any_of(a.begin(), a.end(), [&](const string& one) {
    return std::find(b.begin(), b.end(), one) != b.end();
  });
}

bool contains(const json& where, const json& what) {
  if (where == what) return true;
  if (!where.is_structured()) return false;
  return std::any_of(where.begin(), where.end(),
                     [&](const json& part) { return contains(part, what); });
}

}  // namespace

// One packet on its way; what a chain does to it is found once.
class RuleWalk::Walker {
 public:
  Walker(const RuleWalk& rules, const Packet& packet, string family, string table)
      : rules_(rules), packet_(packet), family_(std::move(family)), table_(std::move(table)) {}

  // kAccept, kDrop, kReturn (at its end).
  unsigned chain(const string& name, unsigned depth) {
    const auto known = done_.find(name);
    if (known != done_.end()) return known->second;
    const auto found = rules_.rules_.find({family_, table_, name});
    if (depth > kDeepest || found == rules_.rules_.end()) return kAccept | kDrop | kReturn;
    unsigned all = 0;
    bool goes_on = true;
    for (const json& rule : found->second) {
      const unsigned result = one_rule(rule, depth);
      all |= result & (kAccept | kDrop | kReturn);
      if ((result & kDrop) != 0) note_drop(rule, name);
      goes_on = (result & kGoOn) != 0;
      if (!goes_on) break;
    }
    if (goes_on) all |= kReturn;
    done_[name] = all;
    return all;
  }

  // Whether the packet may come so far in the rule as to have its destination rewritten.
  bool rewrites(const json& rule) const {
    return comes_to(rule, [](const string& kind, const json& what) {
      if (kind == "fwd") return true;
      if (kind != "mangle" || !what.is_object()) return false;
      const json payload = what.value("key", json::object()).value("payload", json::object());
      const string protocol = text_or(payload, "protocol");
      return (protocol == "ip" || protocol == "ip6") && text_or(payload, "field") == "daddr";
    });
  }

  bool translates(const json& rule) const {
    return comes_to(rule, [](const string& kind, const json& what) {
      return kind == "dnat" || kind == "redirect" || contains(what, "DNAT") ||
             contains(what, "REDIRECT");
    });
  }

  const string& dropped_by() const { return dropped_by_; }

 private:
  // Whether the packet may come to a statement of the rule for which wanted(kind, what) holds.
  template <class Wanted>
  bool comes_to(const json& rule, Wanted wanted) const {
    Fits fit = Fits::kYes;
    for (const json& statement : rule.value("expr", json::array())) {
      if (!statement.is_object() || statement.empty()) continue;
      const string kind = statement.begin().key();
      const json& what = statement.begin().value();
      if (kind == "match") fit = both(fit, fits(what, packet_, elements()));
      if (fit == Fits::kNo) return false;
      if (wanted(kind, what)) return true;
    }
    return false;
  }

  Elements elements() const {
    return [this](const string& name) {
      const auto found = rules_.sets_.find({family_, table_, name});
      return found == rules_.sets_.end() ? json(nullptr) : found->second;
    };
  }

  void note_drop(const json& rule, const string& chain_name) {
    if (!dropped_by_.empty()) return;
    dropped_by_ = "rule " + std::to_string(rule.value("handle", 0)) + " of chain " + chain_name;
  }

  unsigned verdict(const string& kind, const json& what, unsigned depth) {
    if (kind == "accept" || kind == "redirect" || kind == "dnat" || kind == "snat" ||
        kind == "masquerade" || kind == "synproxy") {
      return kAccept;
    }
    if (kind == "drop" || kind == "reject" || kind == "fwd") return kDrop;
    if (kind == "queue") return kAccept | kDrop;
    if (kind == "return") return kReturn;
    if (kind != "jump" && kind != "goto") return kGoOn;
    const unsigned inside = chain(text_or(what, "target"), depth + 1);
    if (kind == "goto" || (inside & kReturn) == 0) return inside;
    return (inside & ~kReturn) | kGoOn;
  }

  unsigned verdict_map(const json& map, unsigned depth) {
    const json key = map.value("key", json());
    json data = map.value("data", json());
    if (data.is_string()) data = elements()(data.get<string>().substr(1));
    if (data.is_object()) data = data.value("set", json());
    if (!data.is_array()) return kAccept | kDrop | kReturn | kGoOn;
    unsigned all = kGoOn;
    for (const json& entry : data) {
      if (!entry.is_array() || entry.size() != 2 || !entry[1].is_object() || entry[1].empty()) {
        continue;
      }
      const Fits fit = has_value(key, entry[0], packet_, elements());
      if (fit == Fits::kNo) continue;
      const unsigned result = verdict(entry[1].begin().key(), entry[1].begin().value(), depth);
      if (fit == Fits::kYes) return result;
      all |= result;
    }
    return all;
  }

  // What a rule may do; kGoOn: the next one is looked at.
  unsigned one_rule(const json& rule, unsigned depth) {
    Fits fit = Fits::kYes;
    for (const json& statement : rule.value("expr", json::array())) {
      if (!statement.is_object() || statement.empty()) {
        fit = both(fit, Fits::kMaybe);
        continue;
      }
      const string kind = statement.begin().key();
      const json& what = statement.begin().value();
      unsigned result = kGoOn;
      if (kind == "match") {
        fit = both(fit, fits(what, packet_, elements()));
      } else if (kind == "xt" || kind == "limit" || kind == "quota" || kind == "ct count") {
        fit = both(fit, Fits::kMaybe);
      } else {
        result = kind == "vmap" ? verdict_map(what, depth) : verdict(kind, what, depth);
      }
      if (fit == Fits::kNo) return kGoOn;
      if (result != kGoOn) return fit == Fits::kYes ? result : result | kGoOn;
    }
    return kGoOn;
  }

  const RuleWalk& rules_;
  const Packet& packet_;
  string family_, table_;
  std::map<string, unsigned> done_;
  string dropped_by_;
};

RuleWalk::RuleWalk(const json& ruleset, const string& chains) {
  for (const json& part : ruleset.at("nftables")) {
    if (!part.is_object() || part.empty()) continue;
    const string kind = part.begin().key();
    const json& what = part.begin().value();
    if (!what.is_object()) continue;
    const string family = text_or(what, "family");
    const string table = text_or(what, "table");
    if (kind == "table") tables_.push_back(text_or(what, "name"));
    if (kind == "flowtable") flowtables_.push_back(what);
    if (kind == "rule") rules_[{family, table, text_or(what, "chain")}].push_back(what);
    // What a program or a rule adds to a set, this knows nothing of.
    if ((kind == "set" || kind == "map") && !contains(what.value("flags", json()), "dynamic")) {
      sets_[{family, table, text_or(what, "name")}] = what.value("elem", json::array());
    }
    if (kind != "chain") continue;
    const string name = text_or(what, "name");
    rules_[{family, table, name}];
    if (!what.contains("hook")) continue;
    base_chains_.push_back({family, table, name, text_or(what, "hook"), what.value("prio", 0),
                            text_or(what, "policy") == "drop",
                            words_of(what.value("dev", json()))});
  }
  std::istringstream lines(chains);
  string line, family, table, chain;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    string first, second, third;
    words >> first >> second >> third;
    if (first == "table") family = second, table = third;
    if (first == "chain") chain = second;
    if (first != "type") continue;
    for (BaseChain& base : base_chains_) {
      const bool same = base.family == family && base.table == table && base.name == chain;
      if (same && base.devices.empty()) base.devices = devices_in(line);
    }
  }
}

Fates RuleWalk::walk(const BaseChain& chain, const Packet& packet) const {
  Walker walker(*this, packet, chain.family, chain.table);
  const unsigned result = walker.chain(chain.name, 0);
  Fates fates;
  const bool by_policy = (result & kReturn) != 0;
  fates.passes = (result & kAccept) != 0 || (by_policy && !chain.drops);
  fates.drops = (result & kDrop) != 0 || (by_policy && chain.drops);
  fates.dropped_by = walker.dropped_by();
  if (by_policy && chain.drops) fates.dropped_by = "its policy, drop";
  return fates;
}

string RuleWalk::rewriting(const BaseChain& chain, const Packet& packet) const {
  const Walker walker(*this, packet, chain.family, chain.table);
  const auto found = rules_.find({chain.family, chain.table, chain.name});
  if (found == rules_.end()) return "";
  for (const json& rule : found->second) {
    if (walker.rewrites(rule)) return "rule " + std::to_string(rule.value("handle", 0));
  }
  return "";
}

bool RuleWalk::may_translate(const Packet& packet) const {
  return std::any_of(rules_.begin(), rules_.end(), [&](const auto& chain) {
    const Walker walker(*this, packet, std::get<0>(chain.first), std::get<1>(chain.first));
    return std::any_of(chain.second.begin(), chain.second.end(),
                       [&](const json& rule) { return walker.translates(rule); });
  });
}

std::optional<string> RuleWalk::reverse_path_filter() const {
  for (const auto& [key, rules] : rules_) {
    const auto& [family, table, chain] = key;
    if (family != "inet" && family != "ip6") continue;
    for (const json& rule : rules) {
      const json expressions = rule.value("expr", json::array());
      bool asks = false;
      bool drops = false;
      for (const json& statement : expressions) {
        if (!statement.is_object() || statement.empty()) continue;
        drops = drops || statement.begin().key() == "drop";
        if (statement.begin().key() != "match") continue;
        const json left = statement.begin().value().value("left", json::object());
        const json fib = left.is_object() ? left.value("fib", json()) : json();
        if (!fib.is_object()) continue;
        const json flags = fib.value("flags", json());
        asks = asks || (contains(flags, "saddr") && contains(flags, "iif"));
      }
      if (asks && drops) return std::string("table ").append(family).append(" ").append(table);
    }
  }
  return std::nullopt;
}

bool RuleWalk::has_table(const string& name) const {
  return std::find(tables_.begin(), tables_.end(), name) != tables_.end();
}

bool RuleWalk::names_interface(const string& table, const string& interface) const {
  return std::any_of(rules_.begin(), rules_.end(), [&](const auto& chain) {
    return std::get<1>(chain.first) == table &&
           std::any_of(chain.second.begin(), chain.second.end(), [&](const json& rule) {
             return contains(rule.value("expr", json()), interface);
           });
  });
}

std::vector<string> RuleWalk::flowtables(const std::vector<string>& devices) const {
  std::vector<string> found;
  for (const json& one : flowtables_) {
    if (!intersect(words_of(one.value("dev", json())), devices)) continue;
    found.push_back("table " + text_or(one, "family") + " " + text_or(one, "table") +
                    ", flowtable " + text_or(one, "name"));
  }
  return found;
}

}  // namespace saru
