// SPDX-License-Identifier: GPL-2.0-or-later
// Random messages, all within the limits of the wire format; the same from the same seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "agent/core/message.h"
#include "agent/core/rng.h"
#include "cpg/wire.h"

namespace saru {

class RandomMessages {
 public:
  explicit RandomMessages(std::uint64_t seed) : random_(seed) {}

  Message message(std::size_t type) {
    Message message{.sender = member(), .view = view(), .excluded = {}, .body = body(type)};
    message.excluded = sorted<MemberId>(kMaxMembers, [&] { return member(); });
    return message;
  }

 private:
  std::uint64_t next() { return random_.next(); }
  bool flag() { return next() % 2 == 0; }
  std::uint32_t u32() { return static_cast<std::uint32_t>(next()); }

  ProcessId process() { return {.node = NodeId{u32()}, .pid = u32()}; }
  MemberId member() { return {.process = process(), .nonce = next()}; }
  ViewId view() {
    return {.ring = {.representative = NodeId{u32()}, .seq = next()}, .round = u32()};
  }
  Nanos duration(Nanos most = kLongestDuration) {
    const auto longest = static_cast<std::uint64_t>(most.count());
    return Nanos(static_cast<std::int64_t>(random_.below(longest + 1)));
  }

  // Few entries mostly, sometimes as many as there may be.
  std::size_t count(std::size_t most) {
    return random_.below(8) == 0 ? most : random_.below(std::min<std::size_t>(most, 9));
  }
  template <class Entry, class Make>
  std::vector<Entry> sorted(std::size_t most, Make make) {
    std::set<Entry> entries;
    const std::size_t size = count(most);
    while (entries.size() < size) entries.insert(make());
    return {entries.begin(), entries.end()};
  }

  BlockSet blocks() {
    if (random_.below(8) == 0) return BlockSet(0);
    BlockSet set(kMinBlocks << random_.below(9));
    const std::uint64_t percent = random_.below(101);
    for (unsigned b = 0; b < set.blocks(); ++b) {
      if (random_.below(100) < percent) set.insert(BlockId{static_cast<std::uint16_t>(b)});
    }
    return set;
  }

  std::string name() {
    std::string name;
    for (std::size_t i = count(kMaxNodeName); i > 0; --i) {
      name.push_back(static_cast<char>(' ' + random_.below('~' - ' ' + 1)));
    }
    return name;
  }

  Hello hello() {
    Hello hello;
    hello.group = sorted<ProcessId>(kMaxMembers, [&] { return process(); });
    hello.node_name = name();
    hello.config_next = next();
    hello.config_hash = next();
    hello.next_keeps_blocks = flag();
    hello.weight = static_cast<std::uint16_t>(next());
    hello.eligible = flag();
    hello.synced = flag();
    hello.held = blocks();
    hello.lingering = blocks();
    for (const MemberId& gone : sorted<MemberId>(kMaxDropped, [&] { return member(); })) {
      hello.departed.push_back({.member = gone, .remaining = duration()});
    }
    hello.since_remaining = duration();
    hello.longest_lease = duration(kLongestLease);
    hello.dropped = sorted<MemberId>(kMaxDropped, [&] { return member(); });
    hello.votes = u32();
    hello.expected_votes = u32();
    return hello;
  }

  Beat beat() {
    Beat beat{.n = next(), .lease = duration(kLongestLease), .t_send = Nanos(0), .reports = {}};
    beat.t_send = Nanos(static_cast<std::int64_t>(next() >> 1));
    for (std::size_t i = count(kMaxMembers); i > 0; --i) {
      beat.reports.push_back({.nonce = next(), .n = next()});
    }
    return beat;
  }

  std::string bytes() {
    std::string bytes;
    for (std::size_t i = count(300); i > 0; --i) bytes.push_back(static_cast<char>(next()));
    return bytes;
  }
  Flows flows() {
    return {.sequence = next(),
            .kind = static_cast<Flows::Kind>(1 + random_.below(5)),
            .block = static_cast<std::uint16_t>(random_.below(kMaxBlocks)),
            .over = bytes(),
            .known = bytes()};
  }
  FlowDigest digest() {
    FlowDigest digest{.blocks = blocks(), .entries = {}};
    digest.blocks.for_each([&](BlockId block) {
      if (flag()) digest.entries.push_back({block.value, u32(), next()});
    });
    return digest;
  }

  Body body(std::size_t type) {
    switch (type) {
      case 0:
        return hello();
      case 1:
        return beat();
      case 2:
        return Released{.blocks = blocks(), .flow_sequence = next()};
      case 3:
        return Round{.reason = static_cast<RoundReason>(1 + random_.below(5))};
      case 4:
        return Leave{};
      case 5:
        return Audit{.token = next()};
      case 6:
        return LingerDone{.blocks = blocks()};
      case 7:
        return flows();
      case 8:
        return digest();
      case 9:
        return FlowsWanted{.from = member(), .blocks = blocks()};
      default:
        break;
    }
    AuditReply reply;
    reply.token = next();
    reply.held = blocks();
    reply.open = flag();
    reply.intact = flag();
    reply.node_name = name();
    return reply;
  }

  SplitMix64 random_;
};

}  // namespace saru
