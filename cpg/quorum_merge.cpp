// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/quorum_merge.h"

#include <algorithm>
#include <utility>

namespace saru {

std::optional<QuorumChanged> QuorumMerge::nodelist(RingId ring, std::vector<NodeId> members,
                                                   const std::vector<NodeId>& joined,
                                                   const std::vector<NodeId>& left) {
  std::sort(members.begin(), members.end());
  ring_ = ring;
  members_ = std::move(members);
  newcomers_.insert(joined.begin(), joined.end());
  newcomers_.insert(left.begin(), left.end());
  return merged();
}

std::optional<QuorumChanged> QuorumMerge::quorum(RingId ring, bool quorate) {
  verdict_ = Verdict{.ring = ring, .quorate = quorate};
  fresh_ = true;
  return merged();
}

std::optional<QuorumChanged> QuorumMerge::merged() {
  if (!fresh_ || !ring_ || !verdict_ || verdict_->ring != *ring_) return std::nullopt;
  fresh_ = false;
  QuorumChanged event{
      .ring = *ring_, .quorate = verdict_->quorate, .members = members_, .joined = {}};
  for (const NodeId node : members_) {
    const bool came_along = known_ ? !newcomers_.contains(node) : node == me_;
    if (!came_along) event.joined.push_back(node);
  }
  known_ = true;
  newcomers_.clear();
  return event;
}

void QuorumMerge::reset() { *this = QuorumMerge(me_); }

}  // namespace saru
