// SPDX-License-Identifier: GPL-2.0-or-later
// A virtual world for the production core: one clock, N machines with clocks of their own speed, a
// model of Totem/CPG/quorum (totem.cpp), of sarud's adapters and the kernel (process.cpp), and a
// checker that reads nothing but the modelled kernels. One seed is one history, always the same.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "agent/core/machine.h"
#include "agent/core/rng.h"
#include "agent/core/state.h"

namespace saru::sim {

using Time = std::int64_t;  // nanoseconds of the world's clock
inline constexpr Time kMs = 1'000'000;
inline constexpr Time kSecond = 1000 * kMs;

void plant(Plant which);
std::optional<Plant> plant_by_name(const std::string& name);
const std::vector<std::pair<std::string, Plant>>& plant_names();
const std::vector<std::pair<std::string, Plant>>& rare_plant_names();

struct Settings {
  std::uint64_t seed = 1;
  unsigned nodes = 3;
  Time token = 500 * kMs;
  Time consensus = 600 * kMs;
  bool trace = false;
  bool pauses_at_await_points = true;
};

// The configurations that administrators go through, one after the other. Two with the same `cut`
// agree on which packet belongs to which block.
struct Version {
  unsigned number = 0;
  std::uint64_t hash() const { return 42 + number; }
  unsigned cut() const { return number / 2; }
  unsigned blocks() const { return cut() % 2 == 0 ? kMinBlocks : 2 * kMinBlocks; }
};

// What nft holds, in world time. Accepts a block while it is owned and neither guard has run out.
struct KernelModel {
  unsigned cut = 0;
  BlockSet owned{kMinBlocks};
  Time deadline = -1;  // the absolute rule
  Time timer = -1;     // the timed element: counts from the write
  bool open(Time now) const { return now < deadline && now < timer; }
};

// An item in a ring's total order.
struct Item {
  enum Kind { kMessage, kJoin, kLeave } kind = kMessage;
  ProcessId process;
  std::shared_ptr<const Message> message;
  bool only_sender_has_it = false;  // the others' copies were lost: it must send them again
};

struct Ring {
  RingId id;
  std::vector<unsigned> members;
  std::vector<Item> log;
  std::map<unsigned, std::size_t> delivered;
};

// A sarud process: the core and its adapters.
struct Process {
  ProcessId id;
  std::optional<State> state;
  std::deque<Event> cpg;     // callbacks not yet dispatched, in order
  std::deque<Event> quorum;  // another socket: its order against cpg is open
  std::deque<Event> own;     // KernelDone, Joined, commands
  std::deque<Action> todo;   // of the last step, not yet carried out
  std::optional<std::pair<KernelWrite, std::pair<Time, Time>>>
      write;  // clocks read, not yet written
  bool in_group = false;
  bool tracks_quorum = false;
  Time quorum_ready = 0;
  bool pump_scheduled = false;
  Time wake_scheduled = -1;
};

struct Node {
  unsigned index = 0;
  bool up = false;
  unsigned component = 0;
  bool corosync_paused = false;
  bool sarud_paused = false;
  double rate = 1.0;  // of its CLOCK_MONOTONIC_RAW against the world's clock
  Time offset = 0;
  std::uint64_t boots = 0;
  KernelModel kernel;
  std::unique_ptr<Process> process;
  std::optional<Time> unclean_end;  // of the last process on this boot
  Nanos longest_lease{0};           // that any process of this boot has known
  Version version;                  // that its administrator wants
  // corosync
  std::optional<RingId> ring;
  RingId last_ring;
  std::vector<ProcessId> group;
  std::deque<Item> out;
};

class World {
 public:
  explicit World(Settings settings);

  // scenario.cpp
  void run_history();
  void run_crash();
  void run_changes();
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  struct Counts {
    unsigned views = 0, acquisitions = 0, lapses = 0, rejoins = 0, steps = 0, switches = 0;
  } counts;

 private:
  // world.cpp
  void at(Time when, std::function<void()> what);
  void run_until(Time end);
  void fail(const std::string& what);
  void trace(unsigned node, const std::string& text);
  Time between(Time low, Time high);
  bool chance(double p) { return rng_.unit() < p; }
  Instant clock(const Node& m) const;
  Time world_span(const Node& m, Nanos span) const;
  void check_owners(unsigned node);
  unsigned owners(unsigned block) const;
  Nanos lease(Version version) const;

  // totem.cpp
  void reform(Time delay_low, Time delay_high);
  void stop_broken_rings();
  void form(unsigned component, std::uint64_t generation);
  void tell_group(Node& m, const std::vector<unsigned>& members, const std::set<unsigned>& along);
  void originate(unsigned node, Item item);
  void deliver_next(RingId ring, unsigned node);
  void deliver_rest_soon(const Ring& ring);
  bool can_have(unsigned node, const Item& item) const;
  void deliver(unsigned node, const Item& item);
  bool same_side(const Node& a, const Node& b) const;
  std::vector<unsigned> side(unsigned component) const;

  // process.cpp
  void boot(unsigned node);
  void start_process(unsigned node);
  void join(unsigned node, std::uint64_t pid);
  void kill_process(unsigned node, bool restart);
  void crash(unsigned node);
  void pause_sarud(unsigned node, Time span);
  void pause_corosync(unsigned node, Time span);
  void pump_soon(unsigned node, Time delay);
  void pump(unsigned node);
  void carry_out(unsigned node, const Action& action);
  void write_kernel(unsigned node);
  void schedule_wake(unsigned node);
  void resume_at(unsigned node, std::uint64_t pid, Time when);

  // scenario.cpp
  void inject_fault(Time until);
  void lose_frames(unsigned node);
  void drain_for_a_while(unsigned node);
  void reconfigure();
  void reload(unsigned node, Version version);
  void retransmit();
  void heal_all();
  void demand_all_owned(const std::string& when);
  void demand_all_agree();

  struct Planned {
    Time when;
    std::uint64_t order;
    std::function<void()> what;
    bool operator>(const Planned& o) const {
      return when != o.when ? when > o.when : order > o.order;
    }
  };

  Settings settings_;
  SplitMix64 rng_;
  Time now_ = 0;
  std::uint64_t order_ = 0;
  std::priority_queue<Planned, std::vector<Planned>, std::greater<>> planned_;
  std::vector<Node> machines_;
  std::map<RingId, Ring> rings_;
  std::map<unsigned, std::uint64_t> generation_;
  std::uint64_t next_seq_ = 4;
  std::uint32_t next_pid_ = 100;
  unsigned lossy_node_ = 0;
  Time lossy_until_ = 0;
  Version newest_;
  bool faults_ = false;
  std::string failure_;
};

}  // namespace saru::sim
