// SPDX-License-Identifier: GPL-2.0-or-later
// One step of the core while it runs: the state being changed, the time, the actions so far.
// Internal to agent/core. Each group of functions lives in the file named above it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "agent/core/assign.h"
#include "agent/core/plant.h"
#include "agent/core/state.h"

namespace saru {

struct Machine {
  State& s;
  Instant now;
  std::vector<Action>& out;

  // step.cpp
  void log(LogLevel level, std::string text);
  void send(Body body);
  std::string name_of(ProcessId process) const;

  // membership.cpp: who is there
  void on(const GroupChanged& event);
  void on(const RingChanged& event);
  void on(const QuorumChanged& event);
  void on(const Joined& event);
  void on(const Disconnected& event);
  void begin_rejoin(const std::string& reason);
  void finish_leaving();
  void open_view(ViewId id, std::set<ProcessId> excluded, const std::string& reason);
  void next_round(std::set<ProcessId> excluded, const std::string& reason);
  void leave_view();
  void plant_remains(const View& last);
  void note_gone(ProcessId process);

  // message.cpp: what they say
  void on(const Received& event);
  void on(const NotUnderstood& event);
  bool in_view(const Message& message) const;
  bool is_waived(const Message& message) const;
  void check_consistency(const Message& message);
  void note_nonce(const MemberId& sender);
  bool names_me(const std::vector<MemberId>& members) const;
  bool adopt_round(const Message& message, const Hello& hello);
  void on_hello(const Message& message, const Hello& hello);
  void waive_dropped(const Hello& hello);
  bool counted_out(const Hello& hello) const;
  void on_leave(const Message& message);
  void on_released(const Message& message, const Released& released);
  void send_hello();
  std::vector<Departed> departed() const;
  void drop_missing();

  // confirm.cpp: who owns what
  void confirm_if_complete();
  void remember_companions();
  void waive_the_slow();
  void plant_in_table(AssignMember& me) const;
  void forget_longer_leases();
  bool are_all_nodes(const std::vector<NodeId>& nodes) const;
  std::uint64_t wanted_config();
  std::uint64_t active_config() const;
  bool shares_blocks(const Hello& hello) const;
  Nanos quorum_wait(Nanos lease) const;
  Nanos wait_for_departed() const;
  void assign_blocks();
  void plan_release(const BlockSet& twice);
  void plan_acquire(const BlockSet& claimed);
  void log_view() const;

  // partner.cpp: where two nodes can both be quorate alone, whether the other one is closed
  bool is_partner(const ProcessId& process) const;
  void note_group(const std::vector<ProcessId>& before, const std::vector<ProcessId>& joined);
  void note_ring(const RingChanged& event);
  void forget_partner();
  void partner_is_closed(const std::string& why);
  void look_for_partner();
  void note_alive(const ProcessId& sender);
  void on(const Fenced& event);
  void on(const ConfirmedDead& event);

  // lease.cpp: how long
  void on_beat(const Message& message, const Beat& beat);
  void send_beat();
  void answer_beat(ProcessId sender);
  Nanos pace() const;
  bool is_pacemaker(ProcessId process) const;
  bool count_silence(ProcessId sender, const Beat& beat);
  void exclude_silent();
  bool holds_nothing() const;
  bool vouched_for() const;
  void renew();
  void check_lapse();
  void close_now();
  void forget_expired();

  // kernel.cpp: what the kernel holds, and what follows once it does
  void on(const KernelDone& event);
  void on(const KernelDisturbed& event);
  void settle();
  bool free_ones_are_free() const;
  bool beat_is_due() const;
  bool doubtful_are_outvoted() const;
  void acquire_what_is_ready();
  void release_what_must_go();
  void say_released();
  void prepare_switch();
  bool keeps_holding(const Reconfigure& next) const;
  bool switch_is_due() const;
  void finish_switch();
  void shorten_lease(Nanos lease);
  void write_kernel();
  Accepting wanted() const;
  Accepting in_kernel() const;
  bool kernel_idle() const;
  bool may_acquire() const;

  // linger.cpp: established connections that stay while their block moves
  void on(const LingerEnded& event);
  void on_linger_done(const Message& message, const LingerDone& done);
  bool lets_linger() const;
  bool nobody_else_has_any() const;
  BlockSet lingering_elsewhere() const;
  void contest(const BlockSet& taken);
  void look_at_contested();
  void forget_lingering();
  void say_linger_done();

  // flows.cpp: connections that whoever takes their block goes on with
  void on(const FlowsPlaced& event);
  void on(const Synced& event);
  bool counts_as_synced(const Hello& hello) const;
  void prepare(const BlockSet& blocks);
  BlockSet prepared_of(const BlockSet& ready) const;
  void prepare_what_comes();

  // step.cpp: what the administrator asks
  void on(const Tick&) {}
  void on(const SetEligible& event);
  void on(const SetWeight& event);
  void on(const VotesChanged& event);
  void on(const Reconfigure& event);
  void on(const StopRequested& event);
  void on(const AuditRequested& event);
};

}  // namespace saru
