// SPDX-License-Identifier: GPL-2.0-or-later
// A virtual world for the production core, wire codec, outbox and nft plan: one clock, N machines
// with clocks of their own speed, a model of Totem/CPG/quorum (totem.cpp, callbacks.cpp), of
// sarud's adapters (process.cpp, adapter.cpp) and of the kernel (kernel_model.h), and a checker
// that reads nothing but the modelled kernels. One seed is one history, always the same.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/core/machine.h"
#include "agent/core/rng.h"
#include "agent/core/state.h"
#include "cpg/outbox.h"
#include "cpg/wire.h"
#include "tests/sim/fault.h"
#include "tests/sim/kernel_model.h"

namespace saru::sim {

using Time = std::int64_t;  // nanoseconds of the world's clock
inline constexpr Time kMs = 1'000'000;
inline constexpr Time kSecond = 1000 * kMs;
inline constexpr unsigned kMostNodes = 32;
inline constexpr std::uint16_t kCluster = 1;
inline constexpr Time kKnowledgeAway = 6 * kSecond;  // and three leases: World::old_knowledge()
inline constexpr Time kDeviceLag = 3 * kSecond;      // how long a lost vote may count

struct Settings {
  std::uint64_t seed = 1;
  unsigned nodes = 3;
  Time token = 500 * kMs;
  Time consensus = 600 * kMs;
  double rate_error = 0.0045;  // of each node's clocks, at most
  double drift = kDrift;       // that the core allows for
  bool fencing = false;        // two nodes, each quorate alone; Pacemaker fences whom it misses
  bool device = false;         // an even number of nodes, and a quorum device
  bool stays = false;          // established connections stay where they are
  bool syncs = false;          // the members tell each other their connections
  bool trace = false;
};

// The configurations that administrators go through, one after the other. Two with the same `cut`
// agree on which packet belongs to which block.
struct Version {
  unsigned number = 0;
  std::uint64_t hash() const { return 42 + number; }
  unsigned cut() const { return number / 2; }
  unsigned blocks() const { return cut() % 2 == 0 ? kMinBlocks : 2 * kMinBlocks; }
  nft::TableConfig table() const;
};
Version version_of(std::uint64_t hash);

// A message on its way, as bytes; decoded once, since all get the same bytes.
struct Frame {
  std::vector<std::byte> bytes;
  unsigned version = kWireVersion;
  Message message;
};

// An item in a ring's total order.
struct Item {
  enum Kind { kMessage, kJoin, kLeave } kind = kMessage;
  ProcessId process;
  std::shared_ptr<const Frame> frame;
  std::uint32_t missing = 0;  // bit i: node i's copy was lost, somebody must send it again
};

struct Ring {
  RingId id;
  std::vector<unsigned> members;
  std::vector<Item> log;
  std::map<unsigned, std::size_t> delivered;
};

// A callback that waits to be dispatched: a message, or something else.
struct Callback {
  ProcessId from;
  std::shared_ptr<const Frame> frame;
  std::unique_ptr<EventBody> body;
};

// A kernel write under way.
struct Writing {
  enum Stage { kWallClock, kOtherClocks, kCommit, kAck } stage = kWallClock;
  KernelWrite write;
  Version version;
  bool rebuild = false;
  bool refused = false;
  unsigned tries = 0;
  Nanos realtime{0};
  Nanos left{0};
};

// A sarud process: the core and its adapters.
struct Process {
  ProcessId id;
  std::optional<State> state;
  std::deque<Callback> cpg;     // callbacks not yet dispatched, in order
  std::deque<Callback> quorum;  // another socket: its order against cpg is open
  std::deque<EventBody> own;    // KernelDone, Joined, commands
  std::deque<Action> todo;      // of the last step, not yet carried out
  std::optional<Writing> writing;
  BlockSet prepared{};   // their connections are in the kernel; taken since: no longer in here
  BlockSet written{};    // owned, as this process wrote it last
  bool syncing = false;  // Synced is on its way
  std::optional<Accepting> known;  // what the sets held when last read
  Outbox outbox{1024, 50};
  Time try_again_until = 0;
  std::uint64_t nonce = 0;
  bool in_group = false;
  Time joined_at = 0;
  bool joining = false;
  bool tracks_quorum = false;
  bool ending = false;
  Time quorum_ready = 0;
  bool pump_scheduled = false;
  Time wake_scheduled = -1;
};

// Where a process can be stopped; what then happens to it.
enum class Point : std::uint8_t { kEvent, kAction, kSend, kClocks, kCommit, kAck };
enum class Blow : std::uint8_t { kStopSarud, kStopMachine, kSuspend, kKill };
struct Trap {
  Point point;
  Blow blow;
  Time span;
};

struct Node {
  unsigned index = 0;
  bool up = false;
  unsigned component = 0;
  bool corosync_paused = false;  // or not running
  bool sarud_paused = false;
  bool asleep = false;  // suspended: its kernel does nothing either
  double rate = 1.0;    // of its clocks against the world's
  Time offset = 0;
  Time wall_offset = 0;
  // Since the kernel's deadline was written last:
  bool set_back = false;  // the wall clock
  bool has_slept = false;
  Time slept = 0;  // in its own nanoseconds
  Time fell_asleep = 0;
  std::uint64_t boots = 0;
  std::uint64_t stops = 0;  // a later stop is not ended by an earlier one's end
  std::uint64_t corosync_stops = 0;
  KernelModel kernel;
  // Read from the kernel after each change of it:
  BlockSet accepts, lingers, contested;
  Time open_until = -1;
  std::unique_ptr<Process> process;
  std::optional<Time> unclean_end;  // of the last process on this boot
  Nanos longest_lease{0};           // that any process of this boot has known
  // Two nodes with fencing:
  std::optional<RingId> partner_closed;  // what the last process of this boot left behind
  std::optional<Nanos> idle;  // when no fencing of the other was under way, as last asked (raw)
  bool fences = false;        // the other, at the moment
  bool has_fenced = false, has_shared_a_ring = false;  // since corosync began here
  bool stays_off = false;                              // until the end, once it is down
  std::optional<RingId> device_vote;                   // for which ring, as its corosync believes
  Version version;                                     // that its administrator wants
  std::uint16_t weight = 1;
  unsigned wire_version = kWireVersion;
  std::optional<Trap> trap;
  unsigned refusals = 0, lost_acks = 0;  // of the next kernel writes
  Time lingering_ends = 0;               // when some of its connections will have ended
  Time slow_until = 0;
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
  Counts counts;

 private:
  // world.cpp
  void at(Time when, std::function<void()> what);
  void later(Time when, std::function<void()> what);  // only while things may still go wrong
  void soon(Time when, unsigned node, RingId ring);   // deliver_next
  void run_until(Time end);
  void fail(const std::string& what);
  void trace(unsigned node, const std::string& text);
  void hit(Fault fault) { ++counts.hits[static_cast<std::size_t>(fault)]; }
  Time between(Time low, Time high);
  bool chance(double p) { return rng_.unit() < p; }
  unsigned any_node() { return static_cast<unsigned>(rng_.below(settings_.nodes)); }
  unsigned majority() const { return settings_.nodes / 2 + 1; }
  Time own_time(const Node& m) const;
  Instant clock(const Node& m) const;
  KernelTime kernel_time(const Node& m) const;
  Time world_span(const Node& m, Nanos span) const;
  void look_at_kernel(unsigned node);
  bool accepts(const Node& m) const { return m.up && !m.asleep && now_ < m.open_until; }
  unsigned owners(unsigned block) const;
  Nanos lease(Version version) const;
  nft::TableConfig table(Version version) const;

  // totem.cpp
  void reform(Time delay_low, Time delay_high);
  void stop_broken_rings();
  void split_ring(Ring& ring, const std::vector<unsigned>& here);
  void deliver_cut(Ring& ring, const std::vector<unsigned>& part, bool running);
  void form(unsigned component, std::uint64_t generation);
  void form_later(unsigned component, Time delay);
  void originate(unsigned node, Item item);
  void deliver_next(RingId ring, unsigned node);
  void deliver_rest_soon(const Ring& ring);
  void retransmit();
  bool loses(unsigned from, unsigned to) const;
  bool can_have(const Ring& ring, unsigned node, std::size_t place) const;
  bool same_side(const Node& a, const Node& b) const;
  std::vector<unsigned> side(unsigned component) const;

  // callbacks.cpp
  void tell_group(Node& m, const std::vector<unsigned>& members, const std::set<unsigned>& along);
  void tell_quorum(Node& m, const std::vector<unsigned>& members, const std::set<unsigned>& along);
  void deliver(unsigned node, const Item& item);
  void push(std::deque<Callback>& queue, EventBody body);

  // process.cpp
  void boot(unsigned node);
  bool learn_of_longer_lease(Node& m) const;
  void start_process(unsigned node);
  void join(unsigned node, std::uint64_t pid);
  void kill_process(unsigned node, Time restart_after, bool ghost = false);
  bool crash(unsigned node);
  bool stop_sarud(unsigned node, Time span);
  bool stop_corosync(unsigned node, Time span);
  bool stop_machine(unsigned node, Time span);
  void start_corosync(unsigned node);
  bool kill_corosync(unsigned node, Time span);
  bool suspend(unsigned node, Time span);
  void wake(unsigned node);
  bool spring(unsigned node, Point point);
  Process* process_of(unsigned node, std::uint64_t pid);
  void order(unsigned node, EventBody body);

  // adapter.cpp
  void pump_soon(unsigned node, Time delay);
  void pump(unsigned node);
  void dispatch(unsigned node);
  void carry_out(unsigned node, const Action& action);
  void rejoin(unsigned node);
  void leave(unsigned node, Time give_up);
  void note(unsigned node, const Log& line);
  void send(unsigned node, const Message& message);
  void flush_outbox(unsigned node);
  void begin_write(unsigned node, const KernelWrite& write);
  void go_on_writing(unsigned node);
  nft::Contents contents_for(const Node& m, const Writing& writing) const;
  void commit(unsigned node);
  void answer_write(unsigned node, bool ok, const std::string& error);
  void end_lingering(unsigned node);
  void prepare(unsigned node, const PlaceFlows& action);
  void sync_soon(unsigned node);
  void look_at_taken(unsigned node);
  void schedule_wake(unsigned node);

  // faults.cpp
  void inject_faults(Time until);
  void inject(Fault fault, unsigned node);
  void inject_at_process(Fault fault, unsigned node);
  void try_again(unsigned node, Time span);
  void split();
  void lose_frames(unsigned node);
  void flap();
  void bridge();
  void set_trap(unsigned node, Fault fault);
  bool disturb_kernel(unsigned node);
  void set_wall_clock(unsigned node);
  void drain_for_a_while(unsigned node);
  void change_weight(unsigned node);
  void reconfigure();
  void reload(unsigned node, Version version);
  bool use_other_version(unsigned node);

  // device.cpp
  bool quorate(const Node& m, std::size_t members) const;
  bool is_half(const Ring& ring) const;
  void ask_device(RingId id);
  void give_vote(RingId id);
  void withdraw_vote();
  void lose_vote(unsigned node, RingId id, Time delay);
  void tell_vote(Node& m);
  void turn_device();
  void lose_device(unsigned node, Time span);

  // fencer.cpp
  void miss_the_other(const std::vector<unsigned>& members);
  void fence(unsigned by);
  void cut_power(unsigned by);
  void tell_fenced(unsigned by);
  void ask_fencer(unsigned node);
  void old_knowledge(unsigned node);
  void lose_one_for_good();
  void fence_when_ready(unsigned by, Time when);

  // stories.cpp
  bool hung_majority(unsigned node);
  bool unheard_switch(unsigned node);
  void change_storm(unsigned node);
  void mass_restart(unsigned node);
  bool lonely_version(unsigned node);
  void change_and_die(unsigned node);
  void die_with(unsigned node, Version version, Time limit);
  void part(const std::set<unsigned>& away, Time away_delay, Time rest_delay);

  // scenario.cpp
  void heal_network();
  void heal_everything();
  Nanos longest_lease_now() const;
  std::string unowned() const;
  std::string disagreement() const;

  struct Planned {
    Time when;
    std::uint64_t order;
    unsigned node;
    RingId ring;  // when `what` is empty: deliver_next(ring, node)
    std::function<void()> what;
    bool operator>(const Planned& o) const {
      return when != o.when ? when > o.when : order > o.order;
    }
  };
  struct Ghost {
    ProcessId process;
    Time until;
  };

  Settings settings_;
  SplitMix64 rng_;
  SplitMix64 lingers_;  // its own, so that the other histories stay what they were
  Time now_ = 0;
  std::uint64_t order_ = 0;
  std::vector<Planned> planned_;  // a heap
  std::vector<Node> machines_;
  std::map<RingId, Ring> rings_;
  std::map<unsigned, std::uint64_t> generation_;
  std::uint64_t next_seq_ = 4;
  std::uint32_t next_pid_ = 100;
  unsigned next_component_ = 1;
  std::vector<Time> loss_until_;  // [from * kMostNodes + to]
  std::vector<Ghost> ghosts_;
  std::optional<RingId> device_for_;  // the ring that it votes for
  Time device_away_until_ = 0;
  Version newest_;
  bool healing_ = false;
  std::string failure_;
};

}  // namespace saru::sim
