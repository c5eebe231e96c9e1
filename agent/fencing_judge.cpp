// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/fencing_judge.h"

#include <strings.h>

namespace saru {

namespace {
bool cuts_off(const FencingDeed& deed) {
  const bool off = deed.action == "off" || deed.action == "reboot";
  return deed.state == FencingDeed::State::kDone && off;
}
}  // namespace

// Pacemaker's names of nodes have no case.
bool FencingJudge::is_partner(const std::string& node) const {
  return strcasecmp(partner_.c_str(), node.c_str()) == 0;
}

bool FencingJudge::read(const std::vector<FencingDeed>& history, Nanos asked) {
  bool under_way = false, was_fenced = false;
  for (const FencingDeed& deed : history) {
    if (!is_partner(deed.target)) continue;
    // Whatever its action is at the moment: a reboot may be an "off" and then an "on".
    under_way = under_way || deed.state == FencingDeed::State::kUnderWay;
    was_fenced = was_fenced || cuts_off(deed);
  }
  next_.reset();
  if (!under_way) next_ = asked;
  return was_fenced;
}

void FencingJudge::settle() {
  if (next_) idle_ = *next_;
  next_.reset();
}

std::optional<FencingNews> FencingJudge::on_end(const FencingDeed& deed) const {
  if (!is_partner(deed.target) || !cuts_off(deed)) return std::nullopt;
  return FencingNews{FencingNews::Kind::kFenced, "", idle_, false};
}

}  // namespace saru
