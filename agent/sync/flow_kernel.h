// SPDX-License-Identifier: GPL-2.0-or-later
// Conntrack on the daemon's loop: tells what happens to connections, and makes and removes some, a
// slice at a time, so that a lease can be renewed in between.
#pragma once

#include <qb/qbloop.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/core.h"
#include "agent/sync/conntrack.h"
#include "agent/sync/flow_status.h"
#include "cpg/loop.h"

namespace saru::sync {

class FlowKernel {
 public:
  struct Callbacks {
    // Of a connection that is carried; not what this object caused itself.
    std::function<void(Change, Flow&&)> on_change;
    std::function<void()> on_lost;  // some changes were missed: take a dump
    std::function<void(LogLevel, std::string)> log;
  };
  using Counters = KernelCounters;

  FlowKernel(qb_loop_t* loop, Callbacks callbacks);

  // Opens the sockets. Nothing else may be called before.
  nft::Result<void> start();

  // Listens anew where that has failed; to be called now and then.
  void mend();

  // Tells of all that has changed until now.
  void drain();

  // As it is now, with what no event tells; nothing if it is gone.
  std::optional<Flow> current(const FlowKey& key);

  // Calls each() for every connection, then done(false) if they were not all. One at a time.
  void dump(std::function<void(Flow&&)> each, std::function<void(bool)> done);
  bool dumping() const { return static_cast<bool>(each_); }

  // In the order in which they are asked for. make() is called when its turn has come; done() once
  // its connections are in the kernel, or refused.
  void remove(std::vector<FlowKey> keys);
  void inject(std::function<std::vector<Flow>()> make, std::function<void()> done);
  bool idle() const { return jobs_.empty(); }

  const Counters& counters() const { return counters_; }

 private:
  struct Job {
    std::vector<FlowKey> gone;
    std::function<std::vector<Flow>()> make;
    std::vector<Flow> flows;
    std::function<void()> done;
    std::size_t at = 0;  // so many of them are done
  };

  nft::Result<void> open_events();
  bool read_events(std::size_t most);
  void on_events();
  void on_dump();
  void end_dump(bool complete);
  void work();
  void hear_of_new(bool wanted);
  void note(const ConntrackWriter::Outcome& outcome);

  Callbacks callbacks_;
  std::optional<ConntrackEvents> events_;
  bool hears_of_new_ = true;
  std::optional<ConntrackDump> dump_;
  std::optional<ConntrackWriter> writer_;
  std::function<void(Flow&&)> each_;
  std::function<void(bool)> done_;
  std::deque<Job> jobs_;
  Counters counters_;
  LoopFd events_ready_;
  LoopKernelTimer events_rest_;  // running: events_ready_ is not watched
  LoopFd dump_ready_;
  LoopTimer turn_;
};

}  // namespace saru::sync
