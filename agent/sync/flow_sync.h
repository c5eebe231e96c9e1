// SPDX-License-Identifier: GPL-2.0-or-later
// connections=sync: every member tells the others of the connections in its blocks, and whoever
// takes a block puts them into its own conntrack before. Follows the core's state; the core decides
// nothing by what this does but when a block may be taken (PlaceFlows) and who counts (Synced).
#pragma once

#include <qb/qbloop.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "agent/core/state.h"
#include "agent/sync/flow_blocks.h"
#include "agent/sync/flow_kernel.h"
#include "agent/sync/flow_status.h"
#include "agent/sync/replica.h"
#include "cpg/loop.h"

namespace saru::sync {

// What the daemon does for it.
struct FlowHost {
  std::function<const State&()> state;
  std::function<bool(Body)> send;        // to all members; false: refused
  std::function<std::size_t()> waiting;  // own messages that have not come back yet
  std::function<void(EventBody)> feed;   // to the core
  std::function<void(LogLevel, std::string)> log;
  std::function<Nanos()> now;  // CLOCK_MONOTONIC_RAW
};

class FlowSync {
 public:
  FlowSync(qb_loop_t* loop, FlowRule rule, FlowHost host);

  nft::Result<void> start();

  // After every step of the core.
  void follow();
  // Before Released is sent: what is still to be told of these blocks goes first.
  void give_up(const BlockSet& blocks);
  void prepare(const PlaceFlows& action);
  // Flows, FlowDigest or FlowsWanted was delivered.
  void deliver(const Message& message);
  // The configuration in force is another one.
  void cut_anew(FlowRule rule);

  FlowStatus status() const;
  // What the administrator should know, as a sentence; empty: nothing.
  std::string problem() const;

 private:
  struct Waiting {
    std::uint64_t ticket = 0;
    BlockSet blocks{};
    Nanos since{0};
  };
  // Of one PlaceFlows: what is in place and not answered yet.
  struct Placing {
    std::uint64_t ticket = 0;
    BlockSet placed{};
    std::size_t flows = 0;
  };
  // A dump under way, or being compared with what is known.
  struct Resync {
    bool is_over(const std::string& key) const;

    BlockSet blocks{};  // that were ours all the time, and are still to be compared
    std::unordered_set<std::uint64_t> seen;
    std::unordered_set<std::uint64_t> touched;  // events have told of them since
  };

  // What the core has come to.
  void note_join();
  void note_ring();
  void note_blocks();
  void on_view();
  void note_synced();

  // The kernel's news.
  void on_change(Change change, Flow&& flow);
  void take_up(BlockId block, const Flow& flow);
  void take_up_the_rest(const BlockSet& blocks);
  void look_at_leftovers();
  void remove_leftovers();
  void resync(const std::string& why);
  void end_resync(bool complete);
  void compare_some();
  void remove_what_is_nobodys();
  void remove_from_kernel(const BlockSet& blocks);

  // Messages.
  void pump();
  void pump_soon();
  void flush();
  BlockSet entitled(const MemberId& sender) const;
  bool is_of_now(const Message& message) const;
  void on(const Flows& flows, const Message& message);
  void on(const FlowDigest& digest, const Message& message);
  void on(const FlowsWanted& wanted, const Message& message);
  std::map<ProcessId, BlockSet> authors() const;
  bool nobody_knows_more() const;
  bool is_held(BlockId block) const;
  void tell_digest(const BlockSet& blocks);
  void ask(const MemberId& from, const BlockSet& blocks);

  // Waiting for what the others know.
  bool waits_for_others() const;
  void look_whether_synced();
  void ask_again();
  void go_on_preparing();
  void put(const Waiting& one);
  std::vector<Flow> flows_of(BlockId block);

  void on_tick();
  void on_soon();

  FlowHost host_;
  std::unique_ptr<FlowBlocks> rule_;
  Replica replica_;
  FlowKernel kernel_;

  MemberId me_;
  std::optional<RingId> ring_, ring_before_;
  std::optional<ViewId> view_;
  BlockSet mine_;                             // we tell of these
  BlockSet there_;                            // their connections are in our conntrack
  std::vector<std::uint64_t> there_version_;  // ... as of then

  bool synced_ = false;
  bool said_synced_ = false;             // to the core
  bool told_nothing_ = false;            // ... in a view where nobody knew more than others
  std::set<ProcessId> not_heard_;        // whose digest of this view is missing
  std::map<MemberId, BlockSet> wanted_;  // asked for, not received
  Nanos progress_{0};                    // when something of it came last
  Nanos asked_{0};
  std::vector<Waiting> preparing_;

  std::vector<std::pair<BlockId, FlowKey>> leftovers_;  // in conntrack before we began
  std::optional<Resync> resync_;
  std::optional<Nanos> resync_at_;
  Nanos resynced_{0};
  Nanos told_digest_{0};
  std::optional<BlockSet> untold_;  // of these the digest could not be sent

  std::optional<Nanos> failed_at_;  // when the kernel refused a connection last
  std::uint64_t failed_ = 0;        // of kernel_'s counters at that time

  // Answered, but not yet worth telling; told all the same when the block goes away.
  struct HalfOpen {
    BlockId block;
    std::string value;
  };
  std::unordered_map<std::string, HalfOpen> half_open_;

  std::size_t due_ = 0;  // messages with news that have waited long enough
  LoopKernelTimer flush_;
  LoopTimer compare_;
  LoopTimer tick_;
  LoopTimer soon_;
};

}  // namespace saru::sync
