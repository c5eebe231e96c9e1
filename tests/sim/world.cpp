// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>

#include "tests/sim/plants.h"

namespace saru::sim {

const char* words(Fault fault) {
  static constexpr const char* kWords[] = {
#define SARU_FAULT_WORDS(enumerator, words) words,
      SARU_FAULT_LIST(SARU_FAULT_WORDS)
#undef SARU_FAULT_WORDS
  };
  return kWords[static_cast<std::size_t>(fault)];
}

void Counts::add(const Counts& one) {
  for (std::size_t i = 0; i < kFaults; ++i) hits[i] += one.hits[i];
  events += one.events;
  steps += one.steps;
  messages += one.messages;
  writes += one.writes;
  views += one.views;
  acquisitions += one.acquisitions;
  lapses += one.lapses;
  rejoins += one.rejoins;
  switches += one.switches;
  membership_changes += one.membership_changes;
  membership_changes_min = std::min(membership_changes_min, one.membership_changes);
  virtual_ns += one.virtual_ns;
  virtual_ns_min = std::min(virtual_ns_min, one.virtual_ns);
  healed_ns_max = std::max(healed_ns_max, one.healed_ns_max);
}

// The cut is in the rules themselves, as a seed: so the checker can read it there.
nft::TableConfig Version::table() const {
  nft::TableConfig config;
  config.id = kCluster;
  config.addresses = {*IpAddress::parse("192.0.2.1")};
  config.blocks = blocks();
  config.selection.selector = Selector::kSrcAddrPort;
  config.selection.seed = cut();
  config.shared_mac = derived_shared_mac(kCluster);
  config.nic = "eth0";
  config.link = nft::link_name(kCluster);
  return config;
}

Version version_of(std::uint64_t hash) {
  return Version{static_cast<unsigned>(hash - Version{}.hash())};
}

World::World(Settings settings)
    : settings_(settings), rng_(settings.seed), lingers_(~settings.seed) {
  machines_.resize(settings_.nodes);
  loss_until_.resize(std::size_t{kMostNodes} * kMostNodes);
  set_drift(settings_.drift);
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    machines_[i].index = i;
    machines_[i].rate = 1.0 + (rng_.unit() * 2 - 1) * settings_.rate_error;
    machines_[i].offset = between(1, 1000) * kSecond;
    machines_[i].wall_offset = 1'700'000'000 * kSecond + between(0, kSecond);
  }
}

void World::at(Time when, std::function<void()> what) {
  planned_.push_back({std::max(when, now_), order_++, 0, {}, std::move(what)});
  std::push_heap(planned_.begin(), planned_.end(), std::greater<>());
}

void World::later(Time when, std::function<void()> what) {
  at(when, [this, act = std::move(what)] {
    if (!healing_) act();
  });
}

void World::soon(Time when, unsigned node, RingId ring) {
  planned_.push_back({when, order_++, node, ring, nullptr});
  std::push_heap(planned_.begin(), planned_.end(), std::greater<>());
}

void World::run_until(Time end) {
  while (!failed() && !planned_.empty() && planned_.front().when <= end) {
    std::pop_heap(planned_.begin(), planned_.end(), std::greater<>());
    const Planned next = std::move(planned_.back());
    planned_.pop_back();
    now_ = next.when;
    ++counts.events;
    if (next.what) {
      next.what();
    } else {
      deliver_next(next.ring, next.node);
    }
  }
  if (!failed()) now_ = end;
}

void World::fail(const std::string& what) {
  if (failure_.empty()) failure_ = "at " + std::to_string(now_ / 1000) + " us: " + what;
  if (settings_.trace)
    std::printf("%12.6f FAILED %s\n", static_cast<double>(now_) / kSecond, what.c_str());
}

void World::trace(unsigned node, const std::string& text) {
  if (!settings_.trace) return;
  std::printf("%12.6f n%u %s\n", static_cast<double>(now_) / kSecond, node + 1, text.c_str());
}

Time World::between(Time low, Time high) {
  return low + static_cast<Time>(rng_.below(static_cast<std::uint64_t>(high - low + 1)));
}

Time World::own_time(const Node& m) const {
  return static_cast<Time>(static_cast<double>(now_) * m.rate);
}

Instant World::clock(const Node& m) const {
  const Time t = own_time(m) + m.offset;
  return {Nanos(t - m.slept), Nanos(t)};
}

KernelTime World::kernel_time(const Node& m) const {
  return {Nanos(own_time(m) + m.wall_offset), Nanos(own_time(m) - m.slept)};
}

Time World::world_span(const Node& m, Nanos span) const {
  return static_cast<Time>(static_cast<double>(span.count()) / m.rate);
}

nft::TableConfig World::table(Version version) const {
  nft::TableConfig config = version.table();
  config.stays = settings_.stays;
  return config;
}

// Later versions have longer leases. (A shorter one that is not agreed upon, but
// begun with after a boot, is known not to be safe while a node is paused: ARCHITECTURE.md.)
Nanos World::lease(Version version) const {
  constexpr double kFactors[] = {1.0, 1.25, 1.5, 2.0, 2.5};
  // Nor is one that a node changed to while its partner was away, to be killed when that one boots.
  const unsigned longer = settings_.fencing ? 0 : std::min(version.number, 4U);
  const double factor = kLeaseFactor * kFactors[longer];
  return Nanos(
      static_cast<Time>(factor * static_cast<double>(settings_.token + settings_.consensus)));
}

unsigned World::owners(unsigned block) const {
  unsigned count = 0;
  for (const Node& m : machines_) {
    count += accepts(m) && block < m.accepts.blocks() &&
             m.accepts.contains(BlockId{static_cast<std::uint16_t>(block)});
  }
  return count;
}

// To be called after everything that changes a kernel or its clocks: so every instant at which two
// accept the same packet is seen.
void World::look_at_kernel(unsigned node) {
  Node& m = machines_[node];
  const KernelTime now = kernel_time(m);
  const Accepting accepting = m.kernel.accepting();
  m.accepts = accepting.owned;
  m.lingers = accepting.lingering;
  m.contested = accepting.contested;
  m.open_until = -1;
  if (const auto until = m.kernel.open_until(now)) {
    const Nanos left = std::min(until->realtime - now.realtime, until->jiffies - now.jiffies);
    m.open_until = now_ + world_span(m, left);
  }
  const auto nothing = [](const Node& one) { return one.accepts.empty() && one.lingers.empty(); };
  if (!accepts(m) || nothing(m)) return;
  for (const Node& other : machines_) {
    if (other.index == node || !accepts(other) || nothing(other)) continue;
    const auto both = [&] {
      return "n" + std::to_string(std::min(node, other.index) + 1) + " and n" +
             std::to_string(std::max(node, other.index) + 1);
    };
    if (m.kernel.cut() != other.kernel.cut()) {
      fail(both() + " accept packets by different cuts");
    } else if (m.accepts.intersects(other.accepts)) {
      fail(both() + " both accept blocks " + (m.accepts & other.accepts).to_ranges());
    } else if (m.lingers.intersects(other.accepts - other.contested)) {
      fail(both() + ": lingers at the one, not contested at the other: " +
           (m.lingers & (other.accepts - other.contested)).to_ranges());
    } else if (other.lingers.intersects(m.accepts - m.contested)) {
      fail(both() + ": lingers at the one, not contested at the other: " +
           (other.lingers & (m.accepts - m.contested)).to_ranges());
    }
  }
}

}  // namespace saru::sim
