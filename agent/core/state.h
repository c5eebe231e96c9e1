// SPDX-License-Identifier: GPL-2.0-or-later
// What the core knows. Plain data: adapters and tools may read all of it, only step() changes it.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/core/core.h"
#include "agent/core/plant.h"

namespace saru {

// ---- Times, all in parts of the lease
// ----------------------------------------------------------------

// The lease is this much longer than Corosync's own detection (token + consensus), so that
// survivors do not go dark while the ring reforms.
inline constexpr double kLeaseFactor = 1.25;
inline constexpr int kBeatsPerLease = 10;
// A member is silent when half of the others have sent this many beats since its last one.
inline constexpr unsigned kSilentBeats = 5;
// Clocks (CLOCK_MONOTONIC_RAW) of two nodes differ in speed by at most this.
inline constexpr double kDrift = 0.01;
#ifdef SARU_PLANTS
double drift();  // the simulator also runs clusters with clocks that are worse
#else
constexpr double drift() { return kDrift; }
#endif
inline constexpr Nanos kEpsilon = std::chrono::milliseconds(5);
// Own beats not yet delivered back: more say nothing new. No more than this also because a Corosync
// that wakes from a pause can still send and deliver what waits in it, on a ring that the others
// have left: those beats must be too old to grant anything by then (ARCHITECTURE, "Fresh proof").
inline constexpr unsigned kMaxBeatsInFlight = 4;
// A new view needs two rounds of beats; more at once would be a storm.
inline constexpr unsigned kPromptReports = 4;

inline Nanos beat_interval(Nanos lease) { return lease / kBeatsPerLease; }
// A gap this long between two events is a pause of this process: it does not act on what piled up.
inline Nanos pause_limit(Nanos lease) { return lease / 2; }
// How long another node waits for a lease to have run out.
inline Nanos guarded(Nanos lease) {
  if (planted() == Plant::kNoDriftMargin) return lease;
  return lease + Nanos(static_cast<Nanos::rep>(static_cast<double>(lease.count()) * drift())) +
         kEpsilon;
}

// ---- State
// -----------------------------------------------------------------------------------------------

struct Config {
  std::string node_name;
  NodeId node;
  unsigned blocks = kDefaultBlocks;
  Nanos lease{0};
  Nanos longest_lease{0};  // that an earlier process of this boot had or heard of
  std::uint64_t config_hash = 0;
  std::uint16_t weight = 1;
  bool eligible = true;
  // Quorum votes by node (1 where absent), how many make a quorum, how many are expected: from
  // cmap.
  std::map<NodeId, unsigned> votes;
  unsigned quorum_votes = 1;
  unsigned expected_votes = 1;
  // For how long Corosync may count a quorum device's vote that others have got meanwhile: what a
  // ring that no quorum of nodes came along to may take waits longer. 0: there is no device.
  Nanos device_lag{0};
  // Where there is no device and no partner: nobody's blocks are taken only while the nodes on the
  // ring have the votes of a quorum. False: Corosync's word is enough (fencing=ignore).
  bool votes_decide = true;
  // The other one of two nodes that can both be quorate alone: what it may hold is taken only once
  // it is known to be closed.
  std::optional<NodeId> partner;
  std::optional<RingId> partner_closed;  // what the last process here left behind: closed_on()
  // Established TCP stays on its node while its block moves between live nodes.
  bool stays = false;
  // The members tell each other their connections, and whoever takes a block goes on with them.
  bool syncs = false;
};

enum class Phase : std::uint8_t {
  kOut,      // not in the group; kernel closed
  kIn,       // a member, or about to be one
  kLeaving,  // closing the kernel; then Leave, then kOut
};

// One beat that was sent, until it is too old to grant anything.
struct SentBeat {
  std::uint64_t n = 0;
  Instant at;
  ViewId view;
  Nanos lease{0};  // what it announced: nobody waits longer
};

// When a member was last heard, for as long as its lease may run after that.
struct Heard {
  Nanos at{0};  // own CLOCK_MONOTONIC_RAW
  Nanos lease{0};
  bool gone = false;  // its process left the group; a later process there has another nonce
};

// A member of the open view, as its messages in this view describe it.
struct Peer {
  std::optional<MemberId> id;  // known from its Hello
  std::optional<Hello> hello;
  std::uint64_t newest_beat = 0;
  std::optional<Nanos> counted_t_send;         // of its last beat that counted
  std::optional<Nanos> fresh;                  // ... when we read it, until we report it
  Nanos lease{0};                              // as its last beat announced it
  std::uint64_t reported = 0;                  // newest of *our* beats that it has reported
  std::map<ProcessId, unsigned> silent_since;  // counted beats of each other member since its last
  BlockSet awaited{};                          // blocks that it must release before we take them
  BlockSet lingering{};                        // blocks whose connections go on there
};

struct View {
  bool open = false;
  ViewId id;
  std::set<ProcessId> excluded;  // in the group, but silent or gone by its own word
  // In the group, but some member has dropped the nonce; a Hello under another nonce ends that.
  std::map<ProcessId, std::uint64_t> waived;
  std::map<ProcessId, Peer> peers;
  Nanos opened{0};
  std::string reason;
  bool hello_sent = false;
  bool confirmed = false;
  bool confirmed_quorate = false;
  bool tainted = false;  // our Hello no longer says what our kernel holds: acquire nothing
  // Another configuration holds blocks, or two members see different groups: acquire nothing.
  bool frozen = false;
  bool foreign = false;  // we have another configuration than the active one: own nothing
  bool round_sent = false;
  unsigned prompt_reports = 0;     // beats sent at once, because all had been heard
  std::uint64_t confirm_beat = 0;  // our beats up to here were sent before the view was confirmed
  bool granted = false;    // every other member has reported a beat that we sent once confirmed
  Nanos granted_from{-1};  // when the newest beat that all had reported was sent (raw)
  // Set when confirmed:
  std::uint64_t config_hash = 0;             // of the members that may own blocks
  std::vector<std::optional<NodeId>> owner;  // by block
  unsigned moved = 0;
  BlockSet mine{};                 // what the table gives us
  BlockSet to_acquire{};           // of those, what another must release first
  BlockSet to_release{};           // what we hold and another gets
  BlockSet to_free{};              // of ours, what is in nobody's Hello
  Nanos free_at{0};                // ... and may be taken from here on (raw)
  std::optional<Nanos> change_at;  // a change was put off until nobody's lease must be waited for
};

// What is known of config.partner (partner.cpp).
struct Partner {
  bool closed = false;          // it holds nothing, and gets nothing while we are in the group
  std::optional<Nanos> fenced;  // told then (raw), but corosync still has its process in the group
  std::optional<Nanos> met;     // when a process of it came into our group last (raw)
  std::optional<Nanos> bare;    // it is on our ring without a process, since when (raw)
};

// What was known at our last join, alone on that ring.
struct BeforeJoin {
  RingId ring;
  Partner partner;
  std::optional<Nanos> joined_at;
};

struct Kernel {
  std::uint64_t next_seq = 1;
  BlockSet held{};       // owned, as last read back
  BlockSet lingering{};  // likewise
  BlockSet contested{};
  std::optional<Instant> deadline;  // as last written
  std::optional<KernelWrite> in_flight;
  bool rebuild = false;
  bool failed = false;  // refused a write: owns nothing until recover_at
  Nanos retry_at{0};
  Nanos recover_at{0};
};

struct State {
  explicit State(Config config);

  Config config;
  Phase phase = Phase::kOut;
  MemberId me;
  Nanos last_event{-1};
  bool stopping = false;
  bool ended = false;  // Left was said
  Nanos stop_by{0};
  std::string leaving_reason;
  std::string ineligible_reason;
  std::optional<Reconfigure> next;  // wanted, not yet in force
  bool switching = false;  // all members want it: it comes into force before our next Hello
  Nanos longest_lease{0};  // that this node has had or heard of (Hello)

  std::vector<ProcessId> group;
  std::optional<RingId> ring;
  Nanos ring_since{0};  // when it was told (raw)
  std::vector<NodeId> ring_members;
  std::optional<QuorumChanged> quorum;
  // Since when quorum has lasted: through ring changes that enough votes came along with.
  std::optional<Nanos> quorate_since;
  bool continuous = false;    // it did through the last ring change
  Nanos unreadable_until{0};  // a lease after the last message that we could not read (raw)
  // We hold blocks over a change of the ring by which no quorum came along with us: another quorate
  // ring may stand beside this one, unnoticed. No lease grows until somebody vouches for the ring.
  // Not so where only a quorum device makes the quorum and nobody joined: no ring was left behind.
  bool unproven = false;

  View view;
  std::optional<RoundReason> need_round;

  std::uint64_t beats_sent = 0;
  unsigned beats_in_flight = 0;
  Nanos last_beat{0};
  Nanos next_beat{0};
  std::deque<SentBeat> sent;
  std::uint64_t self_delivered = 0;

  std::map<MemberId, Heard> heard;
  std::map<ProcessId, std::uint64_t> nonces;  // of everyone in the group that has spoken
  std::deque<MemberId> dropped;               // oldest first
  Partner partner;
  Nanos joined_at{0};
  std::optional<BeforeJoin> before_join;
  std::optional<Fenced> told_fenced;  // while we were not in the group

  std::vector<MemberId> companions;  // of the quorate view confirmed last
  Nanos companions_until{0};         // ... which counts until here, unless it is open

  std::optional<Instant> granted;  // accept until here
  BlockSet holding{};              // what the kernel is to own
  BlockSet releasing{};            // gone from `holding`, Released not yet sent
  BlockSet lingering{};            // of what others own: the connections that go on here
  BlockSet ending{};               // gone from `lingering`, LingerDone not yet sent
  BlockSet contested{};            // of `holding`: their connections may go on elsewhere
  bool synced = false;             // we know the connections that the other members know
  std::uint64_t next_ticket = 1;
  std::uint64_t first_ticket = 1;  // of this view: older answers speak of another one
  BlockSet preparing{};            // asked for in this view
  BlockSet prepared{};             // ... and answered
  Kernel kernel;
};

struct Step {
  State state;
  std::vector<Action> actions;
};

// ---- Questions
// --------------------------------------------------------------------------------------------

// Of this node, as far as we know.
[[nodiscard]] unsigned votes_of(const Config& config, NodeId node);
// Corosync may say quorum, but the nodes on our ring have not the votes of one, and it must be
// theirs (Config::votes_decide): nobody's blocks may be taken.
[[nodiscard]] bool lacks_votes(const State& state);
// Quorate, as libquorum says of the ring that carries our messages.
[[nodiscard]] bool has_quorum(const State& state);
// In the group, on the ring and not excluded; sorted. What a Hello calls its group.
[[nodiscard]] std::vector<ProcessId> view_members(const State& state);
// Those without the waived: the members whose word is needed.
[[nodiscard]] std::vector<ProcessId> effective_members(const State& state);
// The ring on which this node is alone and knows its partner to be closed, if so. Whoever joins
// here later, on the very same ring, knows it too.
[[nodiscard]] std::optional<RingId> closed_on(const State& state);
// The partner is not in this view, and may hold blocks.
[[nodiscard]] bool partner_may_hold(const State& state);
// A message under our present name and view.
[[nodiscard]] Message make_message(const State& state, Body body);

}  // namespace saru
