// SPDX-License-Identifier: GPL-2.0-or-later
// saru-forecast: the table that a set of members would compute. Only 32 blocks can be probed a
// thousand times a second, so whoever measures a move must know beforehand which blocks will move.
//   reads   BLOCKS, then for each member NODEID COUNT BLOCK…   (all of weight 1)
//   prints  the owner of each block, 0 for nobody
#include <cstdint>
#include <iostream>
#include <vector>

#include "agent/core/assign.h"

int main() {
  unsigned blocks = 0;
  if (!(std::cin >> blocks) || !saru::is_block_count(blocks)) {
    std::cerr << "saru-forecast: the first number must be the block count\n";
    return 1;
  }
  std::vector<saru::AssignMember> members;
  std::uint32_t node = 0;
  unsigned count = 0;
  while (std::cin >> node >> count) {
    saru::AssignMember member;
    member.node = saru::NodeId{node};
    member.holds = saru::BlockSet(blocks);
    for (unsigned i = 0; i < count; ++i) {
      unsigned block = 0;
      if (!(std::cin >> block) || block >= blocks) {
        std::cerr << "saru-forecast: node " << node << " has no valid block list\n";
        return 1;
      }
      member.holds.insert(saru::BlockId{static_cast<std::uint16_t>(block)});
    }
    members.push_back(member);
  }
  for (const auto& owner : saru::assign(blocks, members).owner) {
    std::cout << (owner ? owner->value : 0) << "\n";
  }
  return 0;
}
