// SPDX-License-Identifier: GPL-2.0-or-later
// libquorum (model v1) on a qb_loop. Like Group it never blocks the loop and connects again by
// itself.
//
// The nodelist and the quorum callback of one ring become one QuorumChanged, given when both are
// there. Rings for which that never happened (a newer one came first) are folded into the next:
// its `joined` holds everyone who was in `joined` of any of them. After connecting nothing is known
// about who came along, so the first QuorumChanged names all other members in `joined`.
// When the connection is lost: QuorumChanged{} (no ring, not quorate, nobody).
#pragma once

#include <qb/qbloop.h>

#include <memory>

#include "agent/core/types.h"
#include "cpg/hooks.h"

namespace saru {

class Quorum {
 public:
  // `loop` must outlive this. Nothing happens before start().
  Quorum(qb_loop_t* loop, NodeId me, Hooks hooks);
  ~Quorum();
  Quorum(Quorum&&) noexcept;
  Quorum& operator=(Quorum&&) noexcept;

  void start();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru
