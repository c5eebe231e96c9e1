// SPDX-License-Identifier: GPL-2.0-or-later
// What others do to the link, its addresses and the kernel settings: put back, or told.
#include <algorithm>

#include "agent/daemon.h"
#include "agent/logging.h"

namespace saru {
namespace {

using std::string;

constexpr std::chrono::seconds kRemakeEvery{1};

bool contains(const std::vector<string>& words, const string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void append(std::vector<string>& words, nft::Result<std::vector<string>> found) {
  if (!found) return words.push_back(found.error().text);
  words.insert(words.end(), found->begin(), found->end());
}

}  // namespace

// For every notice of the kernel (`why`: what it said), and once a second.
void Daemon::look_at_link(nft::Side side, const string& why) {
  std::vector<string> differences;
  append(differences, kernel_.link_to(side).verify());
  bool lost = false;
  if (!differences.empty()) {
    const auto mended = kernel_.link_to(side).mend(address_lifetime(state_.config.lease));
    lost = !mended || mended->lost;
    if (mended) {
      for (const string& what : mended->done) {
        write_log(LogLevel::kWarning, what);
        note_repair(what);
      }
      if (!mended->done.empty() && !lost) announce();
    }
    if (lost) remake_link(side, why.empty() ? differences.front() : why);
    differences.clear();
    append(differences, kernel_.link_to(side).verify());
  }
  append(differences, kernel_.link_to(side).hindrances());
  tell_warnings(side, std::move(differences));
}

void Daemon::remake_link(nft::Side side, const string& why) {
  const Nanos now = clocks_.now().raw;
  Nanos& repaired = link_repaired_[side];
  if (now - repaired < kRemakeEvery) return;  // the next renewal comes back to it
  repaired = now;
  if (!contains(around_.warnings, why)) {
    write_log(LogLevel::kWarning, why + ": making the link anew");
  }
  note_repair(why);
  auto link =
      nft::Link::open(kernel_.table, side,
                      side == nft::Side::kInside ? options_.inside->addresses : options_.addresses,
                      address_lifetime(state_.config.lease));
  if (link) {
    kernel_.link_to(side) = std::move(*link);
    announce();
  } else if (!contains(around_.warnings, why)) {
    write_log(LogLevel::kError, link.error().text);
  }
  bool& there = eligibility_.lans[side].link_there;
  if (there == link.has_value()) return;
  there = link.has_value();
  feed(eligibility_.event());
}

// What only the administrator can put right is said when it comes and when it goes; `saructl
// status` shows it meanwhile.
void Daemon::tell_warnings(nft::Side side, std::vector<string> of_side) {
  link_warnings_[side] = std::move(of_side);
  std::vector<string> now;
  for (const auto& [which, words] : link_warnings_) {
    for (const string& word : words) {
      if (!contains(now, word)) now.push_back(word);
    }
  }
  bool gone = false;
  for (const string& before : around_.warnings) {
    if (contains(now, before)) continue;
    gone = true;
    write_log(LogLevel::kNotice, "no longer so: " + before);
  }
  for (const string& word : now) {
    if (!contains(around_.warnings, word)) write_log(LogLevel::kWarning, word);
  }
  around_.warnings = std::move(now);
  // The neighbours may have learned a wrong MAC meanwhile.
  if (gone) announce();
}

}  // namespace saru
