// SPDX-License-Identifier: GPL-2.0-or-later
// Makes one QuorumChanged of libquorum's two callbacks for a ring. Pure; see cpg/quorum.h.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "agent/core/core.h"
#include "agent/core/types.h"

namespace saru {

class QuorumMerge {
 public:
  explicit QuorumMerge(NodeId me) : me_(me) {}

  // `left` and `joined` as libquorum gives them: a node can be in both, or in `left` and still be a
  // member; either way it did not come along.
  std::optional<QuorumChanged> nodelist(RingId ring, std::vector<NodeId> members,
                                        const std::vector<NodeId>& joined,
                                        const std::vector<NodeId>& left);
  std::optional<QuorumChanged> quorum(RingId ring, bool quorate);

  // The connection is new: who came along from where is unknown.
  void reset();

 private:
  struct Verdict {
    RingId ring;
    bool quorate = false;
  };
  std::optional<QuorumChanged> merged();

  NodeId me_;
  bool known_ = false;  // something has been given since reset()
  bool fresh_ = false;  // a verdict has not been given yet
  std::optional<RingId> ring_;
  std::vector<NodeId> members_;
  std::optional<Verdict> verdict_;
  std::set<NodeId> newcomers_;  // in any ring since the last event
};

}  // namespace saru
