// SPDX-License-Identifier: GPL-2.0-or-later
// Who owns which block: a pure function of the members and of what each holds now, so that all
// members of a view compute the same table without asking each other. Standard library only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "agent/core/block_set.h"
#include "agent/core/types.h"

namespace saru {

// One member as its Hello describes it.
struct AssignMember {
  NodeId node;
  std::uint16_t weight = 1;  // 0: gets no block
  bool eligible = true;      // false: gets no block
  BlockSet holds;            // what its kernel holds now
};

struct Assignment {
  std::vector<std::optional<NodeId>> owner;  // by block; nobody if no member may own anything
  // Blocks that one member alone holds and that go to another, or to nobody. A block that nobody
  // holds, or that two hold, is placed but does not move.
  unsigned moved = 0;

  BlockSet of(NodeId node) const;
  bool operator==(const Assignment&) const = default;
};

// Takes part: a member that is eligible, with weight > 0. `blocks` satisfies is_block_count().
//
// Balance   Each block has exactly one owner, a member that takes part; nobody if none does. With
//           equal weights the owned counts differ by at most 1; otherwise each has the whole part
//           of blocks * weight / sum of weights, and the largest remainders get one more
//           (Hamilton's method). Equal remainders: first who holds more than its whole part, then
//           the lower id.
// Movement  `moved` is the least that any assignment of that balance allows.
// Spread    What one member gives up or gains is a random choice, fixed by its node id, in equal
//           slices: slices of what it held, or of all blocks to be placed. Among the first m of
//             - the h blocks that a loser held, it gives up k*m/h blocks for k in all, off by at
//               most 1;
//             - the f blocks to be placed, a member gains g*m/f blocks for g in all, off by at most
//               1 + (1 + 1/2 + ... + 1/(n-1)) for n members that gain: 2 for two, 4.4 for 16.
//           So N new members of equal weight each get 3 to 5 of any 4N blocks from a multiple of 4N
//           on, and never more than two in a row if N > 2 (tested for every N and three counts).
//           The choice within a slice keeps a member from getting, say, every even block: clients
//           use some halves of their /24 networks more than others.
// Same everywhere: the order of `members` does not matter, nor the machine or the compiler.
//
// A block held by two members counts as held by neither: both must close it before its owner, who
// may be one of them, opens it. Members that share one node id (there should be none), and
// members whose set has another block count than `blocks`, take no part; the latter's set, whose
// blocks are not ours, is ignored. An empty set may have block count 0.
Assignment assign(unsigned blocks, std::span<const AssignMember> members);

}  // namespace saru
