// SPDX-License-Identifier: GPL-2.0-or-later
// Which of the things that Pacemaker's fencer says mean that one node, the partner, was cut off.
// Pure. What ended before an answer is judged by the question before: it may have begun before the
// later one was asked.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/fencing_news.h"

namespace saru {

struct FencingDeed {
  enum class State { kUnderWay, kDone, kFailed } state = State::kUnderWay;
  std::string target;  // a node's name
  std::string action;  // "off", "reboot", "on", "list" ...
};

class FencingJudge {
 public:
  explicit FencingJudge(std::string partner) : partner_(std::move(partner)) {}

  // A new connection: what was under way before is not known.
  void begin() {
    idle_ = Nanos(0);
    next_.reset();
  }

  // The fencer's history, asked for at `asked` (raw). True: the partner was fenced at some time.
  // Hand over all ends that came before it, then settle(): from there on ends count by this answer.
  bool read(const std::vector<FencingDeed>& history, Nanos asked);
  void settle();

  // The end of a fencing, as told at once.
  std::optional<FencingNews> on_end(const FencingDeed& deed) const;

 private:
  bool is_partner(const std::string& node) const;

  std::string partner_;
  Nanos idle_{0};              // when no fencing of the partner was under way, as last asked
  std::optional<Nanos> next_;  // ... as the answer says that is not settled yet
};

}  // namespace saru
