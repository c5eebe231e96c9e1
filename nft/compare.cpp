// SPDX-License-Identifier: GPL-2.0-or-later
// What differs between the tables we want and the tables there are, in words.
#include <linux/netfilter.h>

#include <algorithm>

#include "nft/plan.h"

namespace saru::nft {
namespace {

using Words = std::vector<std::string>;

std::string quoted(const std::string& comment) {
  return comment.empty() ? "" : " (\"" + comment + "\")";
}

template <class T>
const T* find(const std::vector<T>& all, const std::string& name) {
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const T& one) { return one.name == name; });
  return at == all.end() ? nullptr : &*at;
}

std::string key_text(const Bytes& key) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (const std::uint8_t byte : key) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// The elements of `a` that `b` lacks; both sorted.
std::vector<Bytes> lacking(const std::vector<Bytes>& a, const std::vector<Bytes>& b) {
  std::vector<Bytes> rest;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(rest));
  return rest;
}

void say_elements(Words& words, const std::string& where, const std::vector<Bytes>& keys,
                  const char* what) {
  if (keys.empty()) return;
  words.push_back(where + std::to_string(keys.size()) +
                  (keys.size() == 1 ? " element " : " elements ") + what + ", the first is " +
                  key_text(keys.front()));
}

void compare_sets(Words& words, const std::string& table, const Set& planned, const Set& found) {
  const std::string where = table + ": set " + planned.name + ": ";
  if (planned.key_length != found.key_length || planned.flags != found.flags ||
      planned.size != found.size || planned.counts != found.counts) {
    words.push_back(where + "is of another type");
    return;
  }
  say_elements(words, where, lacking(planned.elements, found.elements), "missing");
  say_elements(words, where, lacking(found.elements, planned.elements), "added by somebody");
}

void compare_rules(Words& words, const std::string& where, const Chain& planned,
                   const Chain& found) {
  // The first difference says enough; what follows it is only shifted.
  const std::size_t both = std::min(planned.rules.size(), found.rules.size());
  for (std::size_t i = 0; i < both; ++i) {
    const Rule& want = planned.rules[i];
    const Rule& have = found.rules[i];
    if (want.expressions == have.expressions) continue;
    const bool shifted =
        i + 1 < planned.rules.size() && planned.rules[i + 1].expressions == have.expressions;
    words.push_back(where + "rule " + std::to_string(i + 1) + quoted(want.comment) +
                    (shifted ? " is missing" : " differs"));
    return;
  }
  if (planned.rules.size() > both) {
    words.push_back(where + "rule " + std::to_string(both + 1) +
                    quoted(planned.rules[both].comment) + " is missing");
  } else if (found.rules.size() > both) {
    words.push_back(where + "has " + std::to_string(found.rules.size() - both) +
                    " rules more than we put there");
  }
}

std::string hook_text(const std::optional<Hook>& hook) {
  if (!hook) return "no hook";
  return "hook " + std::to_string(hook->number) + " priority " + std::to_string(hook->priority) +
         (hook->device.empty() ? "" : " device " + hook->device) +
         (hook->accepts ? " policy accept" : " policy drop");
}

void compare_chains(Words& words, const std::string& table, const Chain& planned,
                    const Chain& found) {
  const std::string where = table + ": chain " + planned.name + ": ";
  if (planned.hook != found.hook) {
    words.push_back(where + "has " + hook_text(found.hook) + " instead of " +
                    hook_text(planned.hook));
  }
  compare_rules(words, where, planned, found);
}

// Compares what both have, and names what only one of them has.
template <class T, class Compare>
void compare_named(Words& words, const std::string& table, const char* kind,
                   const std::vector<T>& planned, const std::vector<T>& found,
                   Compare&& compare_one) {
  for (const T& want : planned) {
    const T* have = find(found, want.name);
    if (have == nullptr) {
      words.push_back(table + ": " + kind + " " + want.name + " is missing");
    } else {
      compare_one(words, table, want, *have);
    }
  }
  for (const T& have : found) {
    if (find(planned, have.name) == nullptr) {
      words.push_back(table + ": " + kind + " " + have.name + " was added by somebody");
    }
  }
}

}  // namespace

std::vector<std::string> compare(const TablePlan& planned, const TablePlan& found) {
  Words words;
  const std::string table =
      std::string("table ") + (planned.family == NFPROTO_INET ? "inet " : "netdev ") + planned.name;
  for (const std::string& counter : planned.counters) {
    if (std::find(found.counters.begin(), found.counters.end(), counter) == found.counters.end()) {
      words.push_back(table);
      words.back().append(": counter ").append(counter).append(" is missing");
    }
  }
  compare_named(words, table, "set", planned.sets, found.sets, compare_sets);
  compare_named(words, table, "chain", planned.chains, found.chains, compare_chains);
  return words;
}

}  // namespace saru::nft
