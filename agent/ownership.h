// SPDX-License-Identifier: GPL-2.0-or-later
// Follows the core from outside: who owned which block, why it moved, and for how long it was
// without an owner before this node took it. For people and their monitoring; nothing is decided by
// it. Pure: the time comes with the event.
//
// The time without an owner runs from the last sign of an owner that this node had to the moment at
// which this node's kernel acknowledged the block. That sign is
//   handed over  the Released of whoever gave the block up; our own: our kernel's ACK
//   lost         the last message of an owner that then went missing without giving it up, so this
//                is longer than the truth, by one beat (a tenth of the lease) or what was left of
//                its lease at most
//   closed       the owner said that it owns it no longer (its lease ran out, no quorum, it left);
//                our own: the end of our lease
// Blocks of which this node has never known an owner have no such time.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/state.h"

namespace saru {

enum class Ended : std::uint8_t { kHandedOver, kLost, kClosed };  // how the last owner ended
inline constexpr std::size_t kEndings = 3;
// "handed_over", "lost", "closed"
[[nodiscard]] const char* word_of(Ended ended);

// How often a span was no longer than each of these limits.
struct Histogram {
  static constexpr std::array<std::int64_t, 13> kLimitsMs = {
      5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000};
  std::array<std::uint64_t, kLimitsMs.size()> within{};  // not summed up: each span counts once
  std::uint64_t count = 0;
  Nanos sum{0};

  void add(Nanos span, std::uint64_t times);
};

// Since this process began; none of them ever goes down.
struct Tally {
  std::uint64_t views = 0;     // agreed on
  std::uint64_t lapses = 0;    // of a lease under which blocks were held
  std::uint64_t excluded = 0;  // members that went silent
  std::uint64_t rejoins = 0;   // of this process, after it had missed something
  std::uint64_t beats = 0;
  std::uint64_t writes = 0;  // of the kernel, acknowledged
  std::uint64_t refusals = 0;
  std::uint64_t disturbances = 0;                 // somebody else wrote into table, link or clock
  std::uint64_t taken_unknown = 0;                // blocks of which no owner was known
  std::uint64_t released = 0;                     // blocks
  std::uint64_t closed = 0;                       // blocks
  std::array<Histogram, kEndings> without_owner;  // by Ended; each counts the blocks taken
};

// Blocks that go from one node to another in one view.
struct Move {
  std::optional<NodeId> from;  // nullopt: nobody that this node knew
  std::optional<NodeId> to;    // nullopt: nobody may own blocks
  BlockSet blocks{};
};
// Blocks that this node's kernel took at one moment.
struct Taking {
  Nanos realtime{0};
  std::optional<NodeId> from;
  std::optional<Ended> ended;  // nullopt: no owner was known, `gap` says nothing
  Nanos gap{0};
  BlockSet blocks{};
};
struct ViewRecord {
  Nanos realtime{0};  // when it was agreed on here
  ViewId id;
  bool quorate = false;
  std::vector<std::string> why;
  std::vector<std::string> members;
  std::vector<Move> moves;
  std::vector<Taking> takings;
};

class Ownership {
 public:
  // The oldest views go first.
  static constexpr std::size_t kMostViews = 200;
  static constexpr std::size_t kMostSets = 2000;  // moves and takings of all views together

  // After each step: what came, what has become of it. Returns what is to be logged.
  std::vector<Log> follow(const Event& event, const State& state,
                          const std::vector<Action>& actions, Nanos realtime);

  const Tally& tally() const { return tally_; }
  const std::deque<ViewRecord>& views() const { return views_; }
  // Views older than the oldest one were forgotten.
  bool is_cut() const { return cut_; }
  std::string name_of(NodeId node) const;

 private:
  struct Track {
    std::optional<MemberId> owner;
    bool heir = false;    // the table's word; it has not said itself that it owns the block
    Nanos not_before{0};  // of an heir: it could not have taken it earlier
    std::optional<NodeId> former;
    std::optional<Nanos> free_since;
    Ended ended = Ended::kLost;
  };
  struct Known {
    MemberId id;
    std::uint16_t weight = 1;
    bool eligible = true;
    bool synced = true;
  };

  void begin_anew(const State& state);
  void note_actions(const std::vector<Action>& actions);
  void note_message(const Received& event, const State& state);
  void note_hello(const MemberId& sender, const Hello& hello);
  void note_released(const MemberId& sender, const BlockSet& blocks, const State& state);
  void note_leave(const MemberId& sender);
  void note_round(const MemberId& sender, RoundReason reason);
  void note_kernel(const State& state);
  void give_up(const BlockSet& gone, Nanos since, Ended ended);
  void take(const BlockSet& fresh, const State& state);
  void note_view(const State& state);
  void note_losses(const State& state);
  void note_moves(const State& state, ViewRecord& record);
  void free_block(Track& track, Nanos since, Ended ended);
  std::vector<std::string> why(const State& state);
  std::string why_gone(NodeId node, const Known& last, const State& state) const;
  void compare_members(NodeId node, const Known& last, const Known& now, const State& state,
                       std::vector<std::string>& words) const;
  void keep(ViewRecord record);
  void shorten();
  void tell(const std::string& text);
  void tell_blocks(const std::string& head, const BlockSet& blocks);

  Nanos now_{0};
  Nanos realtime_{0};
  std::vector<Log> told_;
  std::vector<Track> blocks_;
  MemberId me_;
  BlockSet held_{};
  BlockSet released_{};  // told to the others in this step
  Nanos lease_{0};
  std::optional<Instant> deadline_;  // of the kernel, as last read back
  std::optional<Instant> granted_;
  std::map<MemberId, Nanos> heard_;
  std::map<NodeId, std::string> names_;
  std::map<NodeId, Known> last_members_;  // of the view agreed on last
  std::map<NodeId, Nanos> left_;          // said Leave since then
  std::vector<std::string> asked_;        // why rounds were asked for since then
  std::optional<ViewId> agreed_;
  std::optional<ViewId> counted_;  // of it the excluded have been counted
  std::set<ProcessId> excluded_;
  std::uint64_t config_hash_ = 0;
  bool quorate_ = false;
  std::deque<ViewRecord> views_;
  bool cut_ = false;
  Tally tally_;
};

// "1.24/0"
[[nodiscard]] std::string text_of(const ViewId& id);

}  // namespace saru
