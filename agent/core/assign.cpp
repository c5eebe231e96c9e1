// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/core/assign.h"

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "agent/core/rng.h"

namespace saru {
namespace {

using Blocks = std::vector<BlockId>;  // ascending

// A member that takes part.
struct Share {
  NodeId node;
  std::uint64_t weight = 0;
  BlockSet keeps;               // held by it alone, and not given up
  unsigned quota = 0;           // blocks it shall own
  std::uint64_t remainder = 0;  // of blocks * weight / sum of weights
  bool holds_more() const { return keeps.size() > quota; }
};

bool same_world(const AssignMember& member, unsigned blocks) {
  return member.holds.blocks() == blocks || member.holds.blocks() == 0;
}

// The blocks that exactly one of the members holds.
BlockSet held_by_one(unsigned blocks, std::span<const AssignMember> members) {
  BlockSet once(blocks);
  BlockSet twice(blocks);
  for (const AssignMember& member : members) {
    if (member.holds.blocks() != blocks) continue;
    twice |= once & member.holds;
    once |= member.holds;
  }
  return once - twice;
}

// Who takes part, by node id, with what each alone holds.
std::vector<Share> shares_of(unsigned blocks, std::span<const AssignMember> members,
                             const BlockSet& undisputed) {
  std::vector<Share> shares;
  for (const AssignMember& member : members) {
    const auto twins = std::count_if(members.begin(), members.end(),
                                     [&](const AssignMember& m) { return m.node == member.node; });
    if (twins > 1 || !member.eligible || member.weight == 0) continue;
    if (!same_world(member, blocks)) continue;
    BlockSet keeps(blocks);
    if (member.holds.blocks() != 0) keeps = member.holds & undisputed;
    shares.push_back({.node = member.node, .weight = member.weight, .keeps = keeps});
  }
  std::sort(shares.begin(), shares.end(),
            [](const Share& a, const Share& b) { return a.node < b.node; });
  return shares;
}

// Hamilton's method. Among equal remainders an extra block goes where it saves a move.
void set_quotas(unsigned blocks, std::vector<Share>& shares) {
  std::uint64_t total = 0;
  for (const Share& share : shares) total += share.weight;
  unsigned left = blocks;
  std::vector<Share*> order;
  order.reserve(shares.size());
  for (Share& share : shares) {
    share.quota = static_cast<unsigned>(blocks * share.weight / total);
    share.remainder = blocks * share.weight % total;
    left -= share.quota;
    order.push_back(&share);
  }
  std::sort(order.begin(), order.end(), [](const Share* a, const Share* b) {
    return std::tuple(b->remainder, b->holds_more(), a->node) <
           std::tuple(a->remainder, a->holds_more(), b->node);
  });
  for (unsigned i = 0; i < left; ++i) ++order[i]->quota;
}

// Cuts `from` in `count` slices of equal length (off by at most one) and takes one block of each,
// at random but fixed by `node`.
BlockSet take_spread(unsigned blocks, const Blocks& from, unsigned count, NodeId node) {
  BlockSet taken(blocks);
  SplitMix64 random(node.value);
  for (unsigned slice = 0; slice < count; ++slice) {
    const std::size_t begin = from.size() * slice / count;
    const std::size_t end = from.size() * (slice + 1) / count;
    taken.insert(from[begin + random.below(end - begin)]);
  }
  return taken;
}

Blocks list(const BlockSet& set) {
  Blocks blocks;
  blocks.reserve(set.size());
  set.for_each([&](BlockId block) { blocks.push_back(block); });
  return blocks;
}

// Everyone gives up what exceeds its quota; the result is all blocks without an owner.
BlockSet give_up(unsigned blocks, std::vector<Share>& shares) {
  BlockSet free(blocks);
  free.fill();
  for (Share& share : shares) {
    if (share.holds_more()) {
      const unsigned surplus = share.keeps.size() - share.quota;
      share.keeps -= take_spread(blocks, list(share.keeps), surplus, share.node);
    }
    free -= share.keeps;
  }
  return free;
}

// Hands out the free blocks. The greatest need goes first: each choice leaves the rest a little
// less even, and a small need meets a small part of that (the bound in the header needs this
// order).
void hand_out(unsigned blocks, BlockSet free, std::vector<Share>& shares) {
  std::vector<Share*> order;
  order.reserve(shares.size());
  for (Share& share : shares) order.push_back(&share);
  const auto need = [](const Share* share) { return share->quota - share->keeps.size(); };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Share* a, const Share* b) { return need(a) > need(b); });
  for (Share* share : order) {
    if (need(share) == 0) break;
    const BlockSet gained = take_spread(blocks, list(free), need(share), share->node);
    free -= gained;
    share->keeps |= gained;
  }
}

}  // namespace

BlockSet Assignment::of(NodeId node) const {
  BlockSet owned(static_cast<unsigned>(owner.size()));
  for (std::size_t block = 0; block < owner.size(); ++block) {
    if (owner[block] == node) owned.insert(BlockId{static_cast<std::uint16_t>(block)});
  }
  return owned;
}

Assignment assign(unsigned blocks, std::span<const AssignMember> members) {
  if (!is_block_count(blocks)) std::abort();
  Assignment result{.owner = std::vector<std::optional<NodeId>>(blocks), .moved = 0};
  const BlockSet undisputed = held_by_one(blocks, members);
  std::vector<Share> shares = shares_of(blocks, members, undisputed);
  BlockSet stays(blocks);
  if (!shares.empty()) {
    set_quotas(blocks, shares);
    const BlockSet free = give_up(blocks, shares);
    stays.fill();
    stays -= free;
    hand_out(blocks, free, shares);
  }
  for (const Share& share : shares) {
    share.keeps.for_each([&](BlockId block) { result.owner[block.value] = share.node; });
  }
  result.moved = (undisputed - stays).size();
  return result;
}

}  // namespace saru
