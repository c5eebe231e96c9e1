// SPDX-License-Identifier: GPL-2.0-or-later
// Every promise of agent/core/assign.h, judged by code that shares nothing with it: `audit` and
// `least_moves` know the definitions of balance and movement, not how assign() reaches them.
#include "agent/core/assign.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "agent/core/rng.h"

namespace saru {
namespace {

using Members = std::vector<AssignMember>;
using Counts = std::vector<unsigned>;

BlockId id(std::uint64_t value) { return BlockId{static_cast<std::uint16_t>(value)}; }

Members fresh_members(unsigned count, unsigned blocks) {
  Members members;
  for (std::uint32_t n = 1; n <= count; ++n) {
    members.push_back({.node = NodeId{n}, .holds = BlockSet(blocks)});
  }
  return members;
}

void adopt(Members& members, const Assignment& table) {
  for (AssignMember& member : members) member.holds = table.of(member.node);
}

// ---- The judge -------------------------------------------------------------------------------

bool takes_part(const AssignMember& member) { return member.eligible && member.weight > 0; }

// By block: the one member (index) that holds it, or -1 for none or several.
std::vector<int> sole_holders(unsigned blocks, const Members& members) {
  std::vector<int> holder(blocks, -1);
  std::vector<int> claims(blocks, 0);
  for (std::size_t m = 0; m < members.size(); ++m) {
    for (unsigned b = 0; b < blocks; ++b) {
      if (!members[m].holds.contains(id(b))) continue;
      holder[b] = ++claims[b] == 1 ? static_cast<int>(m) : -1;
    }
  }
  return holder;
}

// The case in the judge's terms: those that take part, and how many blocks the others hold.
struct Case {
  unsigned blocks = 0;
  std::vector<std::size_t> part;           // indices of members that take part
  Counts held;                             // by position in `part`
  unsigned lost = 0;                       // held alone by a member that takes no part: must move
  std::vector<std::uint64_t> whole, rest;  // of blocks * weight / total

  Case(unsigned count, const Members& members) : blocks(count) {
    Counts by_member(members.size());
    for (const int m : sole_holders(blocks, members)) {
      if (m >= 0) ++by_member[static_cast<std::size_t>(m)];
    }
    std::uint64_t total = 0;
    for (const AssignMember& member : members) total += takes_part(member) ? member.weight : 0;
    for (std::size_t m = 0; m < members.size(); ++m) {
      if (!takes_part(members[m])) {
        lost += by_member[m];
        continue;
      }
      part.push_back(m);
      held.push_back(by_member[m]);
      const std::uint64_t product = std::uint64_t{blocks} * members[m].weight;
      whole.push_back(product / total);
      rest.push_back(product % total);
    }
  }
  std::uint64_t extras() const {
    return blocks - std::accumulate(whole.begin(), whole.end(), std::uint64_t{0});
  }
};

// Hamilton's definition, pair by pair: nobody gets an extra block before a larger remainder has
// one.
bool is_balanced(const Case& c, const Counts& owned) {
  if (std::accumulate(owned.begin(), owned.end(), 0u) != c.blocks) return false;
  for (std::size_t i = 0; i < owned.size(); ++i) {
    if (owned[i] != c.whole[i] && owned[i] != c.whole[i] + 1) return false;
    for (std::size_t j = 0; j < owned.size(); ++j) {
      if (owned[i] > c.whole[i] && owned[j] == c.whole[j] && c.rest[j] > c.rest[i]) return false;
    }
  }
  return true;
}

// The least movement over all balanced counts: for each possible cut remainder, those above it
// get an extra block, those below none, and a table over (members, extras) tries all choices.
unsigned least_moves(const Case& c) {
  if (c.part.empty()) return c.lost;
  constexpr unsigned kNever = 1u << 30;
  unsigned least = kNever;
  std::vector<std::uint64_t> cuts(c.rest);
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  const auto extras = static_cast<std::size_t>(c.extras());
  for (const std::uint64_t cut : cuts) {
    const auto reach =
        std::count_if(c.rest.begin(), c.rest.end(), [&](auto r) { return r >= cut; });
    const auto above = std::count_if(c.rest.begin(), c.rest.end(), [&](auto r) { return r > cut; });
    const auto wanted = static_cast<std::ptrdiff_t>(extras);
    if (wanted < above || wanted > reach) continue;
    Counts best(extras + 1, kNever);
    best[0] = 0;
    for (std::size_t i = 0; i < c.part.size(); ++i) {
      Counts next(extras + 1, kNever);
      for (unsigned extra = c.rest[i] > cut ? 1 : 0; extra <= (c.rest[i] >= cut ? 1u : 0u);
           ++extra) {
        const auto quota = static_cast<unsigned>(c.whole[i]) + extra;
        const unsigned cost = c.held[i] > quota ? c.held[i] - quota : 0;
        for (std::size_t e = extra; e <= extras; ++e) {
          next[e] = std::min(next[e], best[e - extra] + cost);
        }
      }
      best = next;
    }
    least = std::min(least, best[extras]);
  }
  return c.lost + least;
}

// The same by force, without the thought that a member moves what exceeds its count: walks the
// blocks, tries every owner for each, and keeps the cheapest way to every vector of counts.
unsigned least_moves_by_force(const Case& c, const Members& members) {
  std::map<Counts, unsigned> reached = {{Counts(c.part.size()), 0}};
  for (const int holder : sole_holders(c.blocks, members)) {
    std::map<Counts, unsigned> next;
    for (const auto& [counts, moves] : reached) {
      for (std::size_t i = 0; i < c.part.size(); ++i) {
        Counts more = counts;
        ++more[i];
        const bool moved = holder >= 0 && static_cast<std::size_t>(holder) != c.part[i];
        const auto [at, added] = next.try_emplace(more, moves + (moved ? 1 : 0));
        if (!added) at->second = std::min(at->second, moves + (moved ? 1 : 0));
      }
    }
    reached = std::move(next);
  }
  unsigned least = c.blocks + 1;
  for (const auto& [counts, moves] : reached) {
    if (is_balanced(c, counts)) least = std::min(least, moves);
  }
  return least;
}

// The largest distance between "how many of the first m are chosen" and the even share of m.
double unevenness(const std::vector<bool>& chosen) {
  const double rate = static_cast<double>(std::count(chosen.begin(), chosen.end(), true)) /
                      static_cast<double>(std::max<std::size_t>(chosen.size(), 1));
  double worst = 0;
  double balance = 0;
  for (const bool is_chosen : chosen) {
    balance += (is_chosen ? 1 : 0) - rate;
    worst = std::max(worst, std::abs(balance));
  }
  return worst;
}

double harmonic(std::size_t n) {
  return n == 0 ? 0 : harmonic(n - 1) + 1.0 / static_cast<double>(n);
}

void audit_spread(const Case& c, const Members& members, const Assignment& table) {
  const std::vector<int> holder = sole_holders(c.blocks, members);
  const auto stays = [&](unsigned b) {
    return holder[b] >= 0 && table.owner[b] == members[static_cast<std::size_t>(holder[b])].node;
  };
  std::map<NodeId, unsigned> gains;
  std::vector<unsigned> placed;
  for (unsigned b = 0; b < c.blocks; ++b) {
    if (stays(b)) continue;
    placed.push_back(b);
    ++gains[*table.owner[b]];
  }
  for (const auto& [node, count] : gains) {
    std::vector<bool> gained;
    gained.reserve(placed.size());
    for (const unsigned b : placed) gained.push_back(table.owner[b] == node);
    ASSERT_LE(unevenness(gained), 1 + harmonic(gains.size() - 1) + 1e-6)
        << "gained by " << node.value;
  }
  for (const std::size_t m : c.part) {
    std::vector<bool> lost;
    for (unsigned b = 0; b < c.blocks; ++b) {
      if (holder[b] == static_cast<int>(m)) lost.push_back(!stays(b));
    }
    ASSERT_LE(unevenness(lost), 1 + 1e-6) << "lost by " << members[m].node.value;
  }
}

// Every promise at once.
void audit(unsigned blocks, const Members& members, const Assignment& table) {
  const Case c(blocks, members);
  ASSERT_EQ(table.owner.size(), blocks);
  Counts owned(c.part.size());
  unsigned moved = 0;
  const std::vector<int> holder = sole_holders(blocks, members);
  for (unsigned b = 0; b < blocks; ++b) {
    const auto owner = std::find_if(c.part.begin(), c.part.end(), [&](std::size_t m) {
      return table.owner[b] == members[m].node;
    });
    ASSERT_EQ(owner != c.part.end(), !c.part.empty()) << "block " << b;
    if (c.part.empty()) {
      ASSERT_FALSE(table.owner[b]) << "block " << b;
    }
    if (owner != c.part.end()) ++owned[static_cast<std::size_t>(owner - c.part.begin())];
    if (holder[b] < 0) continue;
    moved += table.owner[b] == members[static_cast<std::size_t>(holder[b])].node ? 0 : 1;
  }
  ASSERT_EQ(table.moved, moved);
  ASSERT_EQ(moved, least_moves(c));
  if (c.part.empty()) return;
  ASSERT_TRUE(is_balanced(c, owned));
  const auto [least, most] = std::minmax_element(owned.begin(), owned.end());
  const bool equal = std::all_of(c.part.begin(), c.part.end(), [&](std::size_t m) {
    return members[m].weight == members[c.part[0]].weight;
  });
  if (equal) {
    ASSERT_LE(*most - *least, 1u);
  }
  audit_spread(c, members, table);
}

// ---- Random histories ------------------------------------------------------------------------

class History {
 public:
  History(std::uint64_t seed, unsigned blocks, unsigned nodes_max)
      : random_(seed), blocks_(blocks), nodes_max_(nodes_max) {
    // Half of all histories begin in a full cluster, where a random walk seldom arrives.
    while (seed % 2 == 0 && members_.size() < nodes_max_) join();
  }

  // Something happens; everyone computes; the members carry it out, or are interrupted half-way.
  void step() {
    happen();
    const Assignment table = assign(blocks_, members_);
    ASSERT_NO_FATAL_FAILURE(audit(blocks_, members_, table));
    shuffle();
    ASSERT_EQ(assign(blocks_, members_), table) << "depends on the order of the members";
    const bool interrupted = random_.below(4) == 0;
    carry_out(table, interrupted);
    const Assignment again = assign(blocks_, members_);
    ASSERT_NO_FATAL_FAILURE(audit(blocks_, members_, again));
    if (!interrupted) {
      ASSERT_EQ(again.owner, table.owner) << "a settled table changes by itself";
    }
    if (!interrupted) {
      ASSERT_EQ(again.moved, 0u);
    }
  }

  const Members& members() const { return members_; }

 private:
  void happen() {
    if (members_.empty() || random_.below(3) == 0) return join();
    AssignMember& member = members_[random_.below(members_.size())];
    switch (random_.below(6)) {
      case 0:
      case 1:  // crash, or gone for good
        std::swap(member, members_.back());
        return members_.pop_back();
      case 2:
        member.weight = random_weight();
        return;
      case 3:
        member.eligible = !member.eligible;
        return;
      case 4:  // claims what others hold, too
        for (std::uint64_t n = random_.below(blocks_); n > 0; --n) {
          member.holds.insert(id(random_.below(blocks_)));
        }
        return;
      default:  // its kernel was emptied
        member.holds.clear();
    }
  }

  void join() {
    if (members_.size() >= nodes_max_) return;
    const std::uint64_t range = random_.below(2) == 0 ? 400 : std::uint64_t{1} << 32;
    const NodeId node{static_cast<std::uint32_t>(random_.below(range))};
    for (const AssignMember& member : members_) {
      if (member.node == node) return;
    }
    const std::uint16_t weight = random_.below(4) == 0 ? random_weight() : std::uint16_t{1};
    members_.push_back({.node = node, .weight = weight, .holds = BlockSet(blocks_)});
  }

  std::uint16_t random_weight() {
    const std::uint64_t limits[] = {1, 2, 4, 10, 100, 65536};
    return static_cast<std::uint16_t>(random_.below(limits[random_.below(6)]));
  }

  void shuffle() {
    for (std::size_t n = members_.size(); n > 1; --n) {
      std::swap(members_[n - 1], members_[random_.below(n)]);
    }
  }

  // Whoever loses a block has closed it; interrupted, only some of the new owners have opened.
  void carry_out(const Assignment& table, bool interrupted) {
    for (AssignMember& member : members_) {
      const BlockSet gained = table.of(member.node) - member.holds;
      member.holds = table.of(member.node);
      gained.for_each([&](BlockId block) {
        if (interrupted && random_.below(2) == 0) member.holds.erase(block);
      });
    }
  }

  SplitMix64 random_;
  unsigned blocks_;
  unsigned nodes_max_;
  Members members_;
};

void run_histories(unsigned count, unsigned blocks, unsigned nodes_max, unsigned steps) {
  for (unsigned seed = 1; seed <= count; ++seed) {
    History history(seed, blocks, nodes_max);
    for (unsigned n = 0; n < steps; ++n) {
      SCOPED_TRACE(testing::Message()
                   << "seed " << seed << ", step " << n << ", blocks " << blocks);
      ASSERT_NO_FATAL_FAILURE(history.step());
    }
  }
}

TEST(AssignHistories, KeepEveryPromiseWithFewBlocks) { run_histories(3000, 16, 6, 20); }
TEST(AssignHistories, KeepEveryPromiseWithMoreMembersThanBlocks) { run_histories(200, 16, 40, 60); }
TEST(AssignHistories, KeepEveryPromiseWithTheUsualBlocks) { run_histories(400, 512, 12, 20); }
TEST(AssignHistories, KeepEveryPromiseWithManyMembers) { run_histories(5, 1024, 255, 80); }
TEST(AssignHistories, KeepEveryPromiseWithManyBlocks) { run_histories(20, 4096, 8, 20); }

TEST(Assign, MovesWhatBruteForceFindsToBeTheLeast) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    History history(seed, 16, 4);
    for (unsigned n = 0; n < 12; ++n) {
      ASSERT_NO_FATAL_FAILURE(history.step());
      const Case c(16, history.members());
      if (c.part.empty()) continue;
      ASSERT_EQ(assign(16, history.members()).moved, least_moves_by_force(c, history.members()));
    }
  }
}

// Settled histories seldom leave remainder ties to choose from: here everyone holds anything.
TEST(Assign, MovesTheLeastFromAnyHoldings) {
  SplitMix64 random(3);
  for (unsigned round = 0; round < 400; ++round) {
    Members members = fresh_members(2 + static_cast<unsigned>(random.below(3)), 16);
    for (AssignMember& member : members) {
      member.weight = static_cast<std::uint16_t>(1 + random.below(3));
      member.eligible = random.below(6) != 0;
    }
    for (unsigned b = 0; b < 16; ++b) {
      // Low indices are likelier, so that holdings are lopsided; some blocks nobody holds.
      const std::uint64_t m = random.below(1 + random.below(members.size() + 1));
      if (m < members.size()) members[m].holds.insert(id(b));
    }
    const Assignment table = assign(16, members);
    ASSERT_NO_FATAL_FAILURE(audit(16, members, table));
    const Case c(16, members);
    if (!c.part.empty()) {
      ASSERT_EQ(table.moved, least_moves_by_force(c, members));
    }
  }
}

// ---- Single promises -------------------------------------------------------------------------

TEST(Assign, MovesOneThirdWhenTwoBecomeThree) {
  Members members = fresh_members(2, 512);
  adopt(members, assign(512, members));
  members.push_back({.node = NodeId{3}, .holds = BlockSet(512)});
  const Assignment table = assign(512, members);
  EXPECT_EQ(table.moved, 512u / 3);
  EXPECT_EQ(table.of(NodeId{3}).size(), 512u / 3);
}

TEST(Assign, GrowsToTheLargestClusterAndBackWithTheLeastMovement) {
  for (const unsigned blocks : {16u, 512u, 4096u}) {
    Members members = fresh_members(1, blocks);
    adopt(members, assign(blocks, members));
    for (std::uint32_t n = 2; n <= 255; ++n) {
      members.push_back({.node = NodeId{n}, .holds = BlockSet(blocks)});
      const Assignment table = assign(blocks, members);
      ASSERT_EQ(table.moved, blocks / n);
      ASSERT_NO_FATAL_FAILURE(audit(blocks, members, table));
      adopt(members, table);
    }
    for (std::uint32_t n = 255; n > 1; --n) {
      const bool planned = n % 2 == 0;
      const unsigned held = members.back().holds.size();
      if (planned) members.back().eligible = false;
      if (!planned) members.pop_back();
      const Assignment table = assign(blocks, members);
      ASSERT_EQ(table.moved, planned ? held : 0);
      ASSERT_NO_FATAL_FAILURE(audit(blocks, members, table));
      if (planned) members.pop_back();
      adopt(members, table);
    }
    EXPECT_EQ(members[0].holds.size(), blocks);
  }
}

TEST(Assign, LeavesAllToNobodyWhenNobodyTakesPart) {
  EXPECT_EQ(assign(16, {}).owner, std::vector<std::optional<NodeId>>(16));
  Members members = fresh_members(2, 16);
  members[0].weight = 0;
  members[0].holds.fill();
  members[1].eligible = false;
  const Assignment table = assign(16, members);
  EXPECT_EQ(table.owner, std::vector<std::optional<NodeId>>(16));
  EXPECT_EQ(table.moved, 16u);
}

TEST(Assign, CountsABlockHeldTwiceAsHeldByNeither) {
  Members members = fresh_members(2, 16);
  for (AssignMember& member : members) member.holds.fill();
  const Assignment table = assign(16, members);
  EXPECT_EQ(table.moved, 0u);
  EXPECT_EQ(table.owner, assign(16, fresh_members(2, 16)).owner);
}

TEST(Assign, GivesNothingToTwoMembersOfOneNodeId) {
  Members members = fresh_members(3, 16);
  members[1].node = members[0].node;
  EXPECT_EQ(assign(16, members).of(NodeId{3}).size(), 16u);
}

TEST(Assign, GivesNothingToAMemberWithAnotherBlockCount) {
  Members members = fresh_members(2, 16);
  members[0].holds = BlockSet(32);
  members[0].holds.fill();
  const Assignment table = assign(16, members);
  EXPECT_EQ(table.of(NodeId{2}).size(), 16u);
  EXPECT_EQ(table.moved, 0u);
  members[0].holds = BlockSet();
  EXPECT_EQ(assign(16, members).of(NodeId{1}).size(), 8u);
}

TEST(AssignDeathTest, AbortsOnACountThatIsNone) { EXPECT_DEATH(assign(100, {}), ""); }

}  // namespace
}  // namespace saru
