// SPDX-License-Identifier: GPL-2.0-or-later
// Carries out the core's actions and feeds it events, on one qb_loop. The tables are in the kernel
// and closed, and the link guarded, before a Daemon exists.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/audit.h"
#include "agent/control.h"
#include "agent/core/state.h"
#include "agent/eligibility.h"
#include "agent/fencing_news.h"
#include "agent/metrics.h"
#include "agent/options.h"
#include "agent/ownership.h"
#include "agent/reload.h"
#include "agent/report.h"
#include "agent/sync/flow_sync.h"
#include "agent/wishes.h"
#include "cpg/cmap.h"
#include "cpg/group.h"
#include "cpg/loop.h"
#include "cpg/quorum.h"
#include "cpg/shutdown.h"
#include "nft/connections.h"
#include "nft/link.h"
#include "nft/table.h"
#include "nft/watch.h"

namespace saru {

// What decides of a connection's block.
sync::FlowRule flow_rule_of(const Options& options);

class Daemon {
 public:
  struct Kernel {
    nft::Table table;
    nft::Watch watch;
    nft::Link link;
    std::optional<nft::Link> inside = std::nullopt;  // where the table has that side

    nft::Link& link_to(nft::Side side) { return side == nft::Side::kInside ? *inside : link; }
  };
  struct Callbacks {
    // In the group, the gate stands.
    std::function<void()> on_ready;
    // The link and the tables are gone, or could not be removed (errors). `clean`: everything was
    // handed over and said, so the others do not wait for a lease.
    std::function<void(bool clean, std::vector<std::string> errors)> on_end;
    // For the next process of this boot.
    std::function<tl::expected<void, Failure>(const Wishes&)> keep_wishes;
    std::function<tl::expected<void, Failure>(Nanos lease)> keep_lease;
    std::function<tl::expected<void, Failure>(const RingId& ring)> keep_partner_closed;
  };

  // `loop` must outlive the daemon.
  Daemon(qb_loop_t* loop, Options options, Config config, std::map<NodeId, std::string> names,
         Wishes wishes, Kernel kernel, Callbacks callbacks);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Joins the group after `wait`. Until then the address stays closed.
  tl::expected<void, Failure> start(Nanos wait);
  // Hands the blocks over, then ends; asked again, ends without waiting for the others.
  void stop();

  // The longest that this process has ever had.
  Nanos longest_lease() const { return state_.longest_lease; }

  // What saru-fencing says, where there is a partner to be fenced.
  void on_fencing_news(const FencingNews& news);

  // Before start(): takes link and tables away again.
  void abandon();

  // One request of saructl (agent/control.h).
  void on_request(Control& control, ClientId client, const nlohmann::json& request);

  // How long the addresses live unless renewed: a little above the lease, in whole seconds.
  static std::chrono::seconds address_lifetime(Nanos lease);

 private:
  // Stopping goes through these in order; each has a time limit.
  enum class Ending { kNo, kHandingOver, kFlushing, kLeaving, kEnded };
  struct PendingAudit {
    AuditRound round;
    ClientId client;
    Nanos began{0};
  };

  // Events in.
  void feed(EventBody body);
  void on_waited();
  void on_pause_check();
  void on_wakeup();
  void on_clock_step();
  void on_notices();
  void on_carrier(nft::Side side, bool carrier, const std::string& text);
  void on_renewal_due();
  void after_step();
  bool give_up_if_stuck();
  void arm();

  // Actions out.
  void execute(const Send& action);
  void execute(const KernelWrite& action);
  void execute(const PlaceFlows& action);
  void execute(const Rejoin& action);
  void execute(const Left& action);
  void execute(const ReplyAudit& action);
  void execute(const AuditAnswer& action);
  void execute(const Log& action);

  // The kernel besides the table.
  void repair_link(nft::Side side, const std::string& why);
  void look_at_link(nft::Side side, const std::string& why);
  void remake_link(nft::Side side, const std::string& why);
  void tell_warnings(nft::Side side, std::vector<std::string> of_side);
  void announce();
  bool nic_is_up(nft::Side side) const;
  bool nics_are_up() const;
  std::vector<nft::Side> sides() const { return nft::sides_of(kernel_.table.config()); }
  void note_repair(const std::string& what);
  std::vector<std::string> kernel_problems();

  // Requests.
  nlohmann::json describe_now();
  void begin_audit(ClientId client);
  void end_audit();
  nlohmann::json on_weight(const nlohmann::json& request);
  nlohmann::json on_drain(bool drain);
  nlohmann::json on_verify();
  nlohmann::json on_load();
  nlohmann::json on_confirm_dead(const nlohmann::json& request);
  nlohmann::json on_events(const nlohmann::json& request);

  // What the administrator's monitoring wants to know (daemon_metrics.cpp).
  void note_ownership(const Event& event, const std::vector<Action>& actions);
  nlohmann::json on_metrics();
  nlohmann::json on_views();

  // Established connections that stay while their block moves (daemon_linger.cpp).
  void look_at_lingering();
  void on_counted();
  void note_lingering();
  void give_up_counting(const std::string& why);

  // Connections that the members tell each other (daemon_flows.cpp).
  tl::expected<void, Failure> start_flows();
  void on_corosync(EventBody body);
  bool knows_flows() const;
  void note_flows();

  // Another configuration (daemon_reload.cpp).
  nlohmann::json on_reload(const nlohmann::json& request);
  void adopt_own(const Options& wanted);
  nft::Result<nft::Held> build_change(const KernelWrite& action);
  void keep_partner_closed();
  void look_at_fencing_watch();
  void ask_corosync();
  void on_facts(const ClusterFacts& facts);
  tl::expected<void, Failure> keep_lease(Nanos lease);
  void keep_wishes();

  // Ending.
  void on_ending_tick();
  void end(bool clean);

  qb_loop_t* loop_;
  Options options_;
  Kernel kernel_;
  Callbacks callbacks_;
  nft::Clocks clocks_ = nft::Clocks::system();
  State state_;
  Surroundings around_;
  Eligibility eligibility_;
  Wishes wishes_;
  std::optional<Change> change_;  // wanted, not yet in force

  std::deque<EventBody> queue_;
  bool feeding_ = false;
  bool ready_ = false;
  std::optional<ViewId> table_view_;  // of around_.table
  Ending ending_ = Ending::kNo;
  Nanos end_by_{0};
  bool said_leave_ = false;
  std::map<nft::Side, Nanos> link_repaired_;
  std::map<nft::Side, std::vector<std::string>> link_warnings_;
  Nanos armed_for_{0};
  std::optional<PendingAudit> audit_;
  std::optional<ClientId> stop_client_;
  Control* control_ = nullptr;

  // What lingers is counted, time and again, until nothing does.
  struct Counting {
    std::optional<nft::ConnectionCount> conntrack;  // opened when it is first needed
    bool under_way = false;
    BlockSet seen{};     // lingering when last looked at: older than one look
    BlockSet counted{};  // what the count under way decides of
    Nanos next{0};
    Nanos pause{0};
    std::string why;  // the last try failed
  };
  Counting counting_;

  std::unique_ptr<sync::FlowSync> flows_;  // where connections are synchronised
  std::optional<Nanos> member_since_;
  std::string flows_problem_;  // as told last

  Ownership ownership_;
  Rising rising_;  // counters that others keep, and may begin anew
  std::uint64_t repairs_ = 0;
  std::uint64_t unsent_ = 0;
  const Nanos began_ = clocks_.now().raw;

  Nanos join_at_{0};
  std::optional<Nanos> leaving_since_;
  Nanos corosync_asked_{0};
  bool asking_corosync_ = false;
  Nanos kept_lease_{0};  // what callbacks_.keep_lease was told last
  std::optional<RingId> kept_partner_closed_;
  Nanos fencing_heard_{0};
  // What is still to be called back finds out by it whether this object exists.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  int wakeup_timer_ = -1;
  int clock_timer_ = -1;
  LoopFd wakeup_;
  LoopFd clock_step_;
  LoopFd watch_;
  LoopFd counted_;
  LoopTimer renewal_;
  LoopTimer waiting_;
  LoopTimer audit_limit_;
  LoopTimer ending_tick_;

  Group group_;
  Quorum quorum_;
  ShutdownWatch shutdown_;
};

}  // namespace saru
