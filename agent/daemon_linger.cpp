// SPDX-License-Identifier: GPL-2.0-or-later
// Which lingering blocks no established connection holds any more. Conntrack is asked time and
// again while any linger, the more seldom the less changes; the answer is read in pieces.
#include "agent/daemon.h"
#include "agent/logging.h"

namespace saru {

namespace {
constexpr Nanos kFirstPause = std::chrono::seconds(1);
constexpr Nanos kLongestPause = std::chrono::seconds(16);
}  // namespace

// A connection may have begun just before its block was given up, and be in no count yet: only what
// has lingered since the last look, a second ago, is decided of.
void Daemon::look_at_lingering() {
  const BlockSet& lingering = state_.kernel.lingering;
  if (lingering.empty()) {
    around_.lingering_connections.reset();
    counting_.seen = lingering;
    counting_.pause = kFirstPause;
    return;
  }
  const bool same = counting_.seen.blocks() == lingering.blocks();
  const BlockSet settled = same ? lingering & counting_.seen : BlockSet(lingering.blocks());
  if (!same || !(lingering - counting_.seen).empty()) counting_.pause = kFirstPause;
  counting_.seen = lingering;
  const Nanos now = clocks_.now().raw;
  if (counting_.under_way || settled.empty() || now < counting_.next) return;
  if (!counting_.conntrack) {
    auto opened = nft::ConnectionCount::open();
    if (!opened) return give_up_counting(opened.error().text);
    counting_.conntrack = std::move(*opened);
    if (!counted_.watch(counting_.conntrack->fd())) return give_up_counting("no memory");
  }
  if (const auto begun = counting_.conntrack->begin(kernel_.table.config()); !begun) {
    return give_up_counting(begun.error().text);
  }
  counting_.counted = settled;
  counting_.under_way = true;
}

// Until the next try what lingers goes on lingering.
void Daemon::give_up_counting(const std::string& why) {
  if (counting_.why != why) write_log(LogLevel::kWarning, why + ": tried again");
  counting_.why = why;
  counted_.unwatch();
  counting_.conntrack.reset();
  counting_.under_way = false;
  counting_.pause = std::min(counting_.pause * 2, kLongestPause);
  counting_.next = clocks_.now().raw + counting_.pause;
}

// What came back, or means other packets now, is not decided of by a count that began before.
void Daemon::note_lingering() {
  const BlockSet& lingering = state_.kernel.lingering;
  for (BlockSet* set : {&counting_.seen, &counting_.counted}) {
    if (set->blocks() != lingering.blocks()) {
      *set = BlockSet(lingering.blocks());
    } else {
      *set &= lingering;
    }
  }
}

void Daemon::on_counted() {
  const auto counts = counting_.conntrack->read();
  if (!counts) return give_up_counting(counts.error().text);
  if (!*counts || !counting_.under_way) return;
  counting_.under_way = false;
  counting_.why.clear();
  LingerEnded ended{BlockSet(state_.config.blocks)};
  unsigned connections = 0;
  if ((*counts)->size() == state_.config.blocks &&
      counting_.counted.blocks() == state_.config.blocks) {
    state_.kernel.lingering.for_each([&](BlockId block) {
      const unsigned count = (**counts)[block.value];
      connections += count;
      if (count == 0 && counting_.counted.contains(block)) ended.blocks.insert(block);
    });
  }
  around_.lingering_connections = connections;
  counting_.pause =
      ended.blocks.empty() ? std::min(counting_.pause * 2, kLongestPause) : kFirstPause;
  counting_.next = clocks_.now().raw + counting_.pause;
  if (!ended.blocks.empty()) feed(ended);
}

}  // namespace saru
