// SPDX-License-Identifier: GPL-2.0-or-later
// Copies of all connections, kept equal by messages in one order.
#include "agent/sync/replica.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>

#include "agent/core/rng.h"
#include "agent/sync/flow_blocks.h"
#include "agent/sync/record.h"

namespace saru::sync {
namespace {

constexpr unsigned kBlocks = 16;
constexpr std::size_t kMost = 200;

FlowRule rule(unsigned blocks = kBlocks) {
  FlowRule rule;
  rule.addresses = {*IpAddress::parse("192.0.2.1")};
  rule.blocks = blocks;
  return rule;
}

AddressBytes v4(unsigned a, unsigned b, unsigned c, unsigned d) {
  AddressBytes bytes{};
  bytes[0] = static_cast<std::uint8_t>(a);
  bytes[1] = static_cast<std::uint8_t>(b);
  bytes[2] = static_cast<std::uint8_t>(c);
  bytes[3] = static_cast<std::uint8_t>(d);
  return bytes;
}

// A client's connection to the shared address, from this port.
Flow flow(std::uint16_t port, std::uint16_t mark = 0) {
  Flow flow;
  flow.key.protocol = kTcp;
  flow.key.source = v4(198, 51, 100, 7);
  flow.key.destination = v4(192, 0, 2, 1);
  flow.key.source_port = port;
  flow.key.destination_port = 80;
  flow.state.assured = flow.state.seen_reply = true;
  flow.state.tcp_state = 3;
  flow.state.timeout_s = 432000;
  flow.state.mark = mark;
  flow.state.destination = Translation{v4(10, 2, 0, 11), 8080};
  return flow;
}

std::string key_of(const Flow& flow) { return encode_key(flow.key); }
std::string value_of(const Flow& flow) {
  return encode_value(flow.state, flow.key.v4, flow.key.protocol);
}
BlockId block_of(std::uint16_t port) {
  return BlockId{static_cast<std::uint16_t>(port / (65536 / kBlocks))};
}

// Members whose messages all receive in one order; each owns what `owner` says.
class Bus {
 public:
  explicit Bus(unsigned members) {
    for (unsigned i = 0; i < members; ++i) add();
  }
  unsigned add() {
    const FlowBlocks& blocks = *rules_.emplace_back(std::make_unique<FlowBlocks>(rule()));
    replicas.emplace_back(kBlocks, [&blocks](const Flow& one) { return blocks.block_of(one); });
    present.push_back(true);
    return static_cast<unsigned>(replicas.size() - 1);
  }
  static MemberId name(unsigned member) { return {{NodeId{member + 1}, 1}, member + 1}; }

  void send(unsigned from, Flows message) { queue.emplace_back(from, std::move(message)); }
  void send_all(unsigned from) {
    while (auto message = replicas[from].next(kMost)) send(from, std::move(*message));
  }
  bool deliver_one() {
    if (queue.empty()) return false;
    const auto [from, message] = queue.front();
    queue.pop_front();
    for (unsigned i = 0; i < replicas.size(); ++i) {
      if (!present[i]) continue;
      if (i == from) {
        replicas[i].deliver_own(message, true, owned_by(i));
      } else {
        replicas[i].deliver(message, name(from), owned_by(from));
      }
    }
    return true;
  }
  void settle() {
    for (bool more = true; more;) {
      for (unsigned i = 0; i < replicas.size(); ++i) {
        if (present[i]) send_all(i);
      }
      more = deliver_one();
      while (deliver_one()) {
      }
    }
  }
  BlockSet owned_by(unsigned member) const {
    BlockSet set(kBlocks);
    for (unsigned b = 0; b < kBlocks; ++b) {
      if (owner[b] == member) set.insert(BlockId{static_cast<std::uint16_t>(b)});
    }
    return set;
  }
  void change(unsigned member, const Flow& one) {
    replicas[member].changed(block_of(one.key.source_port), key_of(one), value_of(one));
  }
  void over(unsigned member, const Flow& one) {
    replicas[member].over(block_of(one.key.source_port), key_of(one));
  }
  FlowDigest digest(unsigned member) const {
    BlockSet all(kBlocks);
    all.fill();
    return replicas[member].digest(all);
  }
  // Who is behind asks who is not.
  void heal(unsigned behind, unsigned from) {
    replicas[from].wanted(replicas[behind].differing(digest(from)));
    const auto before = owner;
    owner.fill(from);
    settle();
    owner = before;
  }

  std::vector<std::unique_ptr<FlowBlocks>> rules_;
  std::vector<Replica> replicas;
  std::vector<bool> present;
  std::array<unsigned, kBlocks> owner{};
  std::deque<std::pair<unsigned, Flows>> queue;
};

TEST(Replica, NewsComeToAllAndInOwnCopyOnlyWhenTheyComeBack) {
  Bus bus(3);
  bus.change(0, flow(1000));
  EXPECT_TRUE(bus.replicas[0].has_news());
  bus.send_all(0);
  EXPECT_EQ(bus.replicas[0].store().size(), 0U);
  EXPECT_NE(bus.replicas[0].known(block_of(1000), key_of(flow(1000))), nullptr);
  bus.settle();
  for (const Replica& one : bus.replicas) {
    const std::string* value = one.store().find(block_of(1000), key_of(flow(1000)));
    ASSERT_NE(value, nullptr);
    EXPECT_EQ(*value, value_of(flow(1000)));
  }
  bus.over(0, flow(1000));
  bus.settle();
  for (const Replica& one : bus.replicas) EXPECT_EQ(one.store().size(), 0U);
}

TEST(Replica, WhatSaysNothingNewIsNotTold) {
  Bus bus(2);
  bus.change(0, flow(1000));
  bus.settle();
  Flow later = flow(1000);
  later.state.timeout_s = 300;
  bus.change(0, later);
  EXPECT_FALSE(bus.replicas[0].has_news()) << "the timeout alone is no news";
  later.state.mark = 5;
  bus.change(0, later);
  EXPECT_TRUE(bus.replicas[0].has_news());
}

TEST(Replica, WhatBeganAndEndedBeforeItWasToldIsNotTold) {
  Bus bus(2);
  bus.change(0, flow(1000));
  bus.over(0, flow(1000));
  EXPECT_FALSE(bus.replicas[0].has_news());
  bus.change(0, flow(1000));
  bus.send_all(0);
  bus.over(0, flow(1000));
  bus.over(0, flow(1000));
  EXPECT_TRUE(bus.replicas[0].has_news()) << "the beginning is on its way";
  bus.change(0, flow(1000));
  bus.over(0, flow(1000));
  bus.settle();
  EXPECT_EQ(bus.replicas[1].store().size(), 0U);
}

TEST(Replica, OfABlockThatTheSenderDoesNotOwnNothingIsTaken) {
  Bus bus(2);
  bus.owner.fill(1);
  bus.change(0, flow(1000));
  bus.send_all(0);
  bus.deliver_one();
  EXPECT_EQ(bus.replicas[1].store().size(), 0U);
  EXPECT_EQ(bus.replicas[1].counters().refused, 1U);
}

TEST(Replica, AJoinerIsGivenWholeBlocksThatTakeSeveralMessages) {
  Bus bus(1);
  for (std::uint16_t port = 1024; port < 1324; ++port) bus.change(0, flow(port));
  bus.change(0, flow(60000));
  bus.settle();
  const unsigned joiner = bus.add();
  EXPECT_EQ(bus.replicas[joiner].differing(bus.digest(0)).size(), 2U);
  bus.heal(joiner, 0);
  EXPECT_TRUE(bus.replicas[joiner].differing(bus.digest(0)).empty());
  EXPECT_EQ(bus.replicas[joiner].store().size(), 301U);
  EXPECT_EQ(bus.replicas[joiner].counters().wholes, 2U);
}

TEST(Replica, HalfABlockIsNoBlock) {
  Bus bus(1);
  for (std::uint16_t port = 1024; port < 1324; ++port) bus.change(0, flow(port));
  bus.settle();
  const unsigned joiner = bus.add();
  bus.present[joiner] = false;
  bus.replicas[0].wanted(bus.replicas[joiner].differing(bus.digest(0)));
  bus.send_all(0);
  bus.deliver_one();  // the first part passes by
  bus.present[joiner] = true;
  while (bus.deliver_one()) {
  }
  EXPECT_EQ(bus.replicas[joiner].store().size(), 0U);
  bus.heal(joiner, 0);
  EXPECT_EQ(bus.replicas[joiner].store().size(), 300U);
}

TEST(Replica, ALostPartIsNoticedAndTheRestOfTheBlockIsNotTaken) {
  Bus bus(2);
  for (std::uint16_t port = 1024; port < 1324; ++port) bus.change(0, flow(port));
  bus.settle();
  bus.replicas[0].wanted(bus.owned_by(0));
  bus.send_all(0);
  std::size_t whole = 0, gaps = 0;
  for (std::size_t i = 0; !bus.queue.empty(); ++i) {
    const auto [from, message] = bus.queue.front();
    bus.queue.pop_front();
    if (i == 3) continue;
    const auto result = bus.replicas[1].deliver(message, Bus::name(0), bus.owned_by(0));
    whole += result.whole && *result.whole == block_of(1024) ? 1 : 0;
    gaps += result.gap ? 1 : 0;
  }
  EXPECT_EQ(gaps, 1U);
  EXPECT_EQ(whole, 0U);
  EXPECT_EQ(bus.replicas[1].store().size(), 300U) << "and what was there before stays";
}

TEST(Replica, AWholeBlockEndsWhatTheReceiverAloneKnows) {
  Bus bus(2);
  bus.change(0, flow(1000));
  bus.settle();
  bus.present[1] = false;
  bus.over(0, flow(1000));
  bus.change(0, flow(1001));
  bus.settle();
  bus.present[1] = true;
  bus.heal(1, 0);
  EXPECT_EQ(bus.replicas[1].store().find(block_of(1000), key_of(flow(1000))), nullptr);
  EXPECT_NE(bus.replicas[1].store().find(block_of(1001), key_of(flow(1001))), nullptr);
}

TEST(Replica, WhatWasLostOnItsWayIsToldAgain) {
  Bus bus(2);
  bus.change(0, flow(1000));
  bus.send_all(0);
  bus.queue.clear();  // lost
  bus.change(0, flow(1001));
  bus.settle();
  EXPECT_EQ(bus.replicas[1].store().size(), 2U);
  EXPECT_EQ(bus.replicas[0].counters().repeated, 1U);
}

TEST(Replica, WhatTheOthersDoNotTakeIsToldAgainUnlessTheBlockHasGone) {
  Bus bus(2);
  bus.change(0, flow(1000));
  const auto message = bus.replicas[0].next(kMost);
  bus.replicas[0].deliver_own(*message, false, bus.owned_by(0));
  EXPECT_TRUE(bus.replicas[0].has_news());
  const auto again = bus.replicas[0].next(kMost);
  bus.replicas[0].deliver_own(*again, false, BlockSet(kBlocks));
  EXPECT_FALSE(bus.replicas[0].has_news());
}

TEST(Replica, BeforeABlockIsGivenUpAllNewsOfItAreTaken) {
  Bus bus(2);
  for (std::uint16_t port = 1000; port < 1100; ++port) bus.change(0, flow(port));
  bus.change(0, flow(50000));
  BlockSet gone(kBlocks);
  gone.insert(block_of(1000));
  for (Flows& message : bus.replicas[0].news_of(gone, kMost)) bus.send(0, std::move(message));
  EXPECT_EQ(bus.replicas[0].news(), 1U);
  EXPECT_TRUE(bus.replicas[0].news_of(gone, kMost).empty());
  while (bus.deliver_one()) {
  }
  EXPECT_EQ(bus.replicas[1].store().size(), 100U);
}

TEST(Replica, AllOfSomeBlocksIsAsItWillBeOnceEverythingHasComeBack) {
  Bus bus(2);
  for (const std::uint16_t port : {1000, 1001, 1002, 9000}) bus.change(0, flow(port));
  bus.settle();
  bus.change(0, flow(1000, 7));  // another
  bus.over(0, flow(1001));
  bus.change(0, flow(1003));  // and of a block that is not asked for
  bus.change(0, flow(50000));
  bus.send_all(0);
  BlockSet asked(kBlocks);
  asked.insert(block_of(1000));
  asked.insert(block_of(9000));
  std::multimap<std::string, std::string> found;
  bus.replicas[0].for_each(asked, [&](const std::string& key, const std::string& value, BlockId) {
    found.emplace(key, value);
  });
  std::multimap<std::string, std::string> wanted;
  for (const Flow& one : {flow(1000, 7), flow(1002), flow(1003), flow(9000)}) {
    wanted.emplace(key_of(one), value_of(one));
  }
  EXPECT_EQ(found, wanted);
}

TEST(Replica, ADigestTellsOfWhatIsOnItsWay) {
  Bus bus(2);
  bus.change(0, flow(1000));
  bus.settle();
  bus.change(0, flow(1000, 7));
  bus.change(0, flow(1002));
  bus.over(0, flow(1003));
  bus.send_all(0);
  const FlowDigest digest = bus.digest(0);
  while (bus.deliver_one()) {
  }
  EXPECT_TRUE(bus.replicas[1].differing(digest).empty());
}

TEST(Replica, DamagedRecordsAreCountedAndTheRestIsKept) {
  Bus bus(2);
  bus.change(0, flow(1000));
  auto message = *bus.replicas[0].next(kMost);
  message.known += "\xff garbage";
  bus.replicas[1].deliver(message, Bus::name(0), bus.owned_by(0));
  EXPECT_EQ(bus.replicas[1].store().size(), 1U);
  EXPECT_EQ(bus.replicas[1].counters().damaged, 1U);
  message.kind = Flows::Kind::kOnly;
  message.block = block_of(1000).value;
  ++message.sequence;
  bus.replicas[1].deliver(message, Bus::name(0), bus.owned_by(0));
  EXPECT_EQ(bus.replicas[1].store().size(), 1U) << "a damaged whole takes nothing away";
}

TEST(Replica, CutAnewEverythingStaysUnderItsNewBlock) {
  Bus bus(1);
  for (std::uint16_t port = 1; port < 60000; port += 100) bus.change(0, flow(port));
  bus.settle();
  const FlowBlocks finer(rule(4 * kBlocks));
  bus.replicas[0].cut_anew(4 * kBlocks, [&](const Flow& one) { return finer.block_of(one); });
  EXPECT_EQ(bus.replicas[0].store().size(), 600U);
  EXPECT_EQ(bus.replicas[0].store().blocks(), 4 * kBlocks);
}

// Random news, moving blocks, members that miss messages: once all is quiet and who was away has
// asked, all know the same, and that is what the owners' kernels have.
TEST(Replica, RandomHistoriesEndWithEqualCopies) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SplitMix64 random(seed);
    Bus bus(4);
    std::map<std::uint16_t, std::uint16_t> truth;  // port: mark
    for (auto& owner : bus.owner) owner = static_cast<unsigned>(random.below(4));
    for (unsigned turn = 0; turn < 3000; ++turn) {
      const auto port = static_cast<std::uint16_t>(random.below(2000) * 32);
      const unsigned owner = bus.owner[block_of(port).value];
      const unsigned dice = static_cast<unsigned>(random.below(100));
      if (dice < 50) {
        const auto mark = static_cast<std::uint16_t>(random.below(3));
        truth[port] = mark;
        bus.change(owner, flow(port, mark));
      } else if (dice < 70) {
        truth.erase(port);
        bus.over(owner, flow(port));
      } else if (dice < 80) {
        bus.send_all(static_cast<unsigned>(random.below(4)));
      } else if (dice < 96) {
        bus.deliver_one();
      } else if (dice < 98) {  // a block goes to another member, all news of it before
        const auto block = static_cast<unsigned>(random.below(kBlocks));
        BlockSet gone(kBlocks);
        gone.insert(BlockId{static_cast<std::uint16_t>(block)});
        const unsigned from = bus.owner[block];
        for (Flows& one : bus.replicas[from].news_of(gone, kMost)) bus.send(from, std::move(one));
        while (bus.deliver_one()) {
        }
        bus.owner[block] = static_cast<unsigned>(random.below(4));
      } else {  // somebody asks for what it knows already
        BlockSet some(kBlocks);
        some.insert(block_of(port));
        bus.replicas[owner].wanted(some);
      }
    }
    bus.settle();
    for (unsigned i = 0; i < 4; ++i) {
      ASSERT_EQ(bus.replicas[i].store().size(), truth.size()) << "seed " << seed;
      ASSERT_TRUE(bus.replicas[i].differing(bus.digest(0)).empty()) << "seed " << seed;
      for (const auto& [port, mark] : truth) {
        const std::string* value =
            bus.replicas[i].store().find(block_of(port), key_of(flow(port, mark)));
        ASSERT_NE(value, nullptr) << "seed " << seed << " port " << port;
        ASSERT_EQ(*value, value_of(flow(port, mark))) << "seed " << seed;
      }
    }
  }
}

// ---- Which block
// ---------------------------------------------------------------------------------

TEST(FlowBlocks, BothDirectionsOfAConnectionAreOfTheClientsBlock) {
  FlowRule with_inside = rule(512);
  with_inside.addresses.push_back(*IpAddress::parse("10.2.0.1"));
  with_inside.inside = {*ServiceAddress::parse("10.2.0.1/24")};
  const FlowBlocks blocks(with_inside);
  Flow in = flow(40000);
  EXPECT_EQ(blocks.block_of(in)->value, 40000 / 128);
  Flow out;  // a real server asks somebody outside, under the shared address
  out.key.protocol = kTcp;
  out.key.source = v4(10, 2, 0, 11);
  out.key.destination = v4(203, 0, 113, 5);
  out.key.source_port = 50000;
  out.key.destination_port = 443;
  out.state.source = Translation{v4(192, 0, 2, 1), 1234};
  EXPECT_EQ(blocks.block_of(out)->value, 443 / 128);
  out.state.source.reset();
  EXPECT_EQ(blocks.block_of(out)->value, 443 / 128) << "its key alone tells";
  Flow transit = in;  // to a host inside
  transit.key.destination = v4(10, 2, 0, 77);
  EXPECT_EQ(blocks.block_of(transit)->value, 40000 / 128);
  transit.key.destination = v4(10, 3, 0, 77);
  EXPECT_FALSE(blocks.block_of(transit));
}

TEST(FlowBlocks, OwnConnectionsFromASharedAddressAreOfNoBlock) {
  const FlowBlocks blocks(rule());
  Flow own = flow(40000);
  std::swap(own.key.source, own.key.destination);
  EXPECT_FALSE(blocks.block_of(own));
}

TEST(FlowBlocks, EchoGoesByTheClientsAddress) {
  FlowRule by_port = rule(512);
  const FlowBlocks blocks(by_port);
  Flow echo = flow(77);
  echo.key.protocol = kIcmp;
  echo.key.destination_port = 8 << 8;
  EXPECT_EQ(blocks.block_of(echo)->value, (100 * 256 + 7) / 128);
}

}  // namespace
}  // namespace saru::sync
