// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/daemon.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/logging.h"

namespace saru {
namespace {

using std::string;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kEndingTick{5};
constexpr seconds kStopLimit{3};  // beyond the core's own limit of one lease
constexpr milliseconds kFlushLimit{500};
constexpr milliseconds kLeaveLimit{500};
constexpr seconds kRenewEvery{1};

itimerspec after(Nanos delay) {
  delay = std::max(delay, Nanos(1));
  itimerspec spec = {};
  spec.it_value.tv_sec = delay.count() / 1000000000;
  spec.it_value.tv_nsec = delay.count() % 1000000000;
  return spec;
}

// Never expires, but read() fails with ECANCELED when somebody sets the wall clock.
void watch_for_clock_steps(int fd) {
  itimerspec never = {};
  never.it_value.tv_sec = 1LL << 40;
  timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, nullptr);
}

}  // namespace

seconds Daemon::address_lifetime(Nanos lease) {
  return std::chrono::ceil<seconds>(lease) + kRenewEvery + seconds(1);
}

Daemon::Daemon(qb_loop_t* loop, Options options, Config config, std::map<NodeId, string> names,
               Wishes wishes, Kernel kernel, Callbacks callbacks)
    : loop_(loop),
      options_(std::move(options)),
      kernel_(std::move(kernel)),
      callbacks_(std::move(callbacks)),
      state_(std::move(config)),
      wishes_(wishes),
      wakeup_(loop, [this] { on_wakeup(); }),
      clock_step_(loop, [this] { on_clock_step(); }),
      watch_(loop, [this] { on_notices(); }),
      counted_(loop, [this] { on_counted(); }),
      renewal_(loop, [this] { on_renewal_due(); }),
      waiting_(loop, [this] { on_waited(); }),
      audit_limit_(loop, [this] { end_audit(); }),
      ending_tick_(loop, [this] { on_ending_tick(); }),
      group_(loop, options_.id,
             Hooks{[this](EventBody body) { on_corosync(std::move(body)); },
                   [this] { on_pause_check(); }, write_log}),
      quorum_(loop, state_.config.node,
              Hooks{[this](EventBody body) { feed(std::move(body)); }, [this] { on_pause_check(); },
                    write_log}),
      shutdown_(loop,
                {[this] {
                   eligibility_.corosync_stays = false;
                   feed(eligibility_.event());
                 },
                 [this] {
                   eligibility_.corosync_stays = true;
                   feed(eligibility_.event());
                 }},
                Hooks{{}, [this] { on_pause_check(); }, write_log}) {
  eligibility_.lans[nft::Side::kOutside].nic = options_.nic;
  if (options_.inside) eligibility_.lans[nft::Side::kInside].nic = options_.inside->nic;
  for (auto& [side, lan] : eligibility_.lans) {
    lan.carrier = kernel_.link_to(side).carrier().value_or(false);
  }
  eligibility_.drained = wishes_.drained;
  const SetEligible start = eligibility_.event();
  state_.config.eligible = start.eligible;
  state_.ineligible_reason = start.reason;
  state_.config.weight = wishes_.weight_for(options_.weight);
  around_.names = std::move(names);
  around_.gate_stands = true;
  if (state_.config.partner) around_.blind = "Pacemaker's fencer has not answered yet";
}

Daemon::~Daemon() {
  wakeup_.unwatch();
  clock_step_.unwatch();
  if (wakeup_timer_ >= 0) close(wakeup_timer_);
  if (clock_timer_ >= 0) close(clock_timer_);
}

tl::expected<void, Failure> Daemon::start(Nanos wait) {
  wakeup_timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  clock_timer_ = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
  if (wakeup_timer_ < 0 || clock_timer_ < 0 || !wakeup_.watch(wakeup_timer_) ||
      !clock_step_.watch(clock_timer_) || !watch_.watch(kernel_.watch.fd())) {
    return tl::unexpected(
        Failure{ExitCode::kFailed, string("cannot set up timers: ") + std::strerror(errno)});
  }
  if (auto started = start_flows(); !started) return started;
  watch_for_clock_steps(clock_timer_);
  renewal_.start(kRenewEvery);
  join_at_ = clocks_.now().raw + wait;
  waiting_.start(wait);
  announce();
  feed(Tick{});
  return {};
}

// ---- Events in ---------------------------------------------------------------------------------

// The loop's timers count by a clock that a time daemon may hurry.
void Daemon::on_waited() {
  const Nanos left = join_at_ - clocks_.now().raw;
  if (left > Nanos(0)) {
    waiting_.start(left);
    return;
  }
  quorum_.start();
  shutdown_.start();
  group_.join();
}

void Daemon::feed(EventBody body) {
  queue_.push_back(std::move(body));
  if (feeding_ || ending_ == Ending::kEnded) return;
  feeding_ = true;
  while (!queue_.empty()) {
    const Event event{clocks_.now(), std::move(queue_.front())};
    queue_.pop_front();
    Step next = step(std::move(state_), event);
    state_ = std::move(next.state);
    if (std::holds_alternative<KernelDone>(event.body)) note_lingering();
    for (const Action& action : next.actions) {
      std::visit([this](const auto& one) { execute(one); }, action);
    }
    note_ownership(event, next.actions);
  }
  feeding_ = false;
  after_step();
  arm();
}

// What piled up while this process did not run is of another time: the core decides, before any of
// it is read.
void Daemon::on_pause_check() {
  if (state_.phase != Phase::kIn) return;
  if (clocks_.now().raw - state_.last_event > pause_limit(state_.config.lease)) feed(Tick{});
}

void Daemon::on_wakeup() {
  std::uint64_t times = 0;
  [[maybe_unused]] const ssize_t got = read(wakeup_timer_, &times, sizeof times);
  armed_for_ = Nanos(0);
  if (clocks_.now().raw >= next_wakeup(state_)) return feed(Tick{});
  arm();
}

// Each event moves the next wake-up; a timer that is set for an earlier moment is left alone.
void Daemon::arm() {
  if (ending_ == Ending::kEnded) return;
  const Nanos wake = next_wakeup(state_);
  if (armed_for_ != Nanos(0) && armed_for_ <= wake) return;
  const itimerspec spec = after(wake - clocks_.now().raw);
  timerfd_settime(wakeup_timer_, 0, &spec, nullptr);
  armed_for_ = wake;
}

void Daemon::on_clock_step() {
  std::uint64_t times = 0;
  const bool was_set = read(clock_timer_, &times, sizeof times) < 0 && errno == ECANCELED;
  watch_for_clock_steps(clock_timer_);
  if (was_set) feed(KernelDisturbed{"the wall clock was set"});
}

void Daemon::on_notices() {
  std::optional<string> table;
  std::map<nft::Side, string> links;  // what is said of them, first of all
  for (const nft::Notice& notice : kernel_.watch.read()) {
    switch (notice.what) {
      case nft::Disturbance::kTable:
        if (!table) table = notice.text;
        break;
      case nft::Disturbance::kLink:
      case nft::Disturbance::kAddress:
      case nft::Disturbance::kSettings:
        links.try_emplace(notice.side, notice.text);
        break;
      case nft::Disturbance::kOverrun:
        table = notice.text;
        for (const nft::Side side : sides()) links[side] = notice.text;
        break;
      case nft::Disturbance::kCarrierLost:
      case nft::Disturbance::kCarrierBack:
        on_carrier(notice.side, notice.what == nft::Disturbance::kCarrierBack, notice.text);
        if (eligibility_.lans[notice.side].carrier && !kernel_problems().empty()) {
          table = links[notice.side] = notice.text;
        }
        break;
    }
  }
  if (ending_ == Ending::kEnded) return;
  for (const auto& [side, text] : links) {
    auto& lan = eligibility_.lans[side];
    // One that goes loses its carrier first.
    lan.nic_there = nft::find_nic(lan.nic).has_value();
    // Its link went with it; another NIC of the name may not do, so it must stand before blocks
    // come.
    if (!lan.nic_there) lan.link_there = false;
    if (!lan.carrier) feed(eligibility_.event());
  }
  // The rules first: while they are gone, the address must not be reachable.
  if (table && nics_are_up()) {
    note_repair(*table);
    feed(KernelDisturbed{*table});
  }
  for (const auto& [side, text] : links) repair_link(side, text);
}

void Daemon::on_carrier(nft::Side side, bool carrier, const string& text) {
  auto& lan = eligibility_.lans[side];
  lan.carrier = carrier;
  if (carrier) lan.nic_there = true;
  write_log(LogLevel::kNotice, text);
  feed(eligibility_.event());
}

void Daemon::on_renewal_due() {
  if (ending_ == Ending::kEnded) return;
  // A kernel that refuses our rules must not keep our address.
  if (!state_.kernel.failed) {
    for (const nft::Side side : sides()) {
      const auto renewed = kernel_.link_to(side).renew(address_lifetime(state_.config.lease));
      // Most kernel settings change without a notice: look at them anyway.
      repair_link(side, renewed ? "" : renewed.error().text);
    }
  }
  look_at_fencing_watch();
  look_at_lingering();
  note_flows();
  ask_corosync();
  if (give_up_if_stuck()) return;
  renewal_.start(kRenewEvery);
}

void Daemon::after_step() {
  if (flows_) flows_->follow();
  const View& view = state_.view;
  if (view.confirmed && (!table_view_ || *table_view_ != view.id)) {
    table_view_ = view.id;
    around_.table = {view.owner, view.moved, view.reason};
    ask_corosync();
    if (const auto kept = keep_lease(state_.longest_lease); !kept) {
      write_log(LogLevel::kWarning, kept.error().sentence);
    }
    for (const auto& [process, peer] : view.peers) {
      if (peer.hello) around_.names[process.node] = peer.hello->node_name;
    }
  }
  const bool member =
      std::find(state_.group.begin(), state_.group.end(), state_.me.process) != state_.group.end();
  keep_partner_closed();
  if (member && !member_since_) member_since_ = clocks_.now().raw;
  if (!ready_ && state_.phase == Phase::kIn && member && knows_flows()) {
    ready_ = true;
    callbacks_.on_ready();
  }
  if (state_.phase != Phase::kLeaving) {
    leaving_since_.reset();
  } else if (!leaving_since_) {
    leaving_since_ = clocks_.now().raw;
  }
  if (!eligibility_.corosync_stays && state_.kernel.held.empty() && state_.releasing.empty()) {
    shutdown_.agree();
  }
}

// A member that the others do not count, but whose process is still in the group, keeps their
// leases from growing where they are no quorum by themselves. It stays until its kernel has said
// that it is closed; one that refuses is closed by its lease, and out of the group only if we end.
bool Daemon::give_up_if_stuck() {
  const bool stuck = leaving_since_ && state_.kernel.failed && ending_ == Ending::kNo;
  if (!stuck || clocks_.now().raw < *leaving_since_ + guarded(state_.longest_lease)) return false;
  write_log(LogLevel::kError,
            "the kernel goes on refusing to be written: this process ends, so that the other nodes "
            "can serve; mend what stands above, then start it again");
  end(false);
  return true;
}

// ---- Actions out -------------------------------------------------------------------------------

void Daemon::execute(const Send& action) {
  const auto* released = std::get_if<Released>(&action.message.body);
  if (flows_ && released != nullptr) flows_->give_up(released->blocks);
  const auto sent = group_.send(action.message);
  if (sent) return;
  ++unsent_;
  write_log(LogLevel::kInfo, "a message was not sent: " + sent.error().text);
}

void Daemon::execute(const KernelWrite& action) {
  const bool was_empty = state_.kernel.held.empty();
  const auto held = action.config    ? build_change(action)
                    : action.rebuild ? kernel_.table.rebuild(action.accepting, action.deadline)
                                     : kernel_.table.apply(action.accepting, action.deadline);
  if (!held) {
    const Accepting nothing = Accepting::nothing(options_.blocks);
    queue_.push_back(KernelDone{action.seq, false, nothing, held.error().text});
    return;
  }
  if (was_empty && !held->accepting.owned.empty()) announce();
  queue_.push_back(KernelDone{action.seq, true, held->accepting, ""});
  if (held->strange) queue_.push_back(KernelDisturbed{"somebody wrote into the set of blocks"});
}

void Daemon::execute(const Rejoin& action) {
  write_log(LogLevel::kNotice, "leaves the group and joins anew: " + action.reason);
  group_.rejoin();
}

void Daemon::execute(const Left&) {
  if (ending_ >= Ending::kFlushing) return;
  ending_ = Ending::kFlushing;
  end_by_ = clocks_.now().raw + kFlushLimit;
  ending_tick_.start(Nanos(0));
}

void Daemon::execute(const ReplyAudit& action) {
  AuditReply reply;
  reply.token = action.token;
  reply.node_name = state_.config.node_name;
  reply.held = BlockSet(options_.blocks);
  const auto held = kernel_.table.read();
  if (held) {
    reply.held = held->accepting.owned;
    reply.open = held->lease_left && *held->lease_left > Nanos(0);
  }
  reply.intact = held && !held->strange && kernel_problems().empty();
  Message message = action.envelope;
  message.body = std::move(reply);
  execute(Send{std::move(message)});
}

void Daemon::execute(const AuditAnswer& action) {
  if (!audit_ || action.reply.token != audit_->round.token) return;
  audit_->round.replies.insert_or_assign(action.from, action.reply);
  if (audit_->round.complete()) end_audit();
}

void Daemon::execute(const Log& action) { write_log(action.level, action.text); }

// ---- The kernel besides the table --------------------------------------------------------------

// What hangs on a NIC that is gone or down went with it, and comes back with its carrier.
bool Daemon::nic_is_up(nft::Side side) const {
  const auto nic = nft::find_nic(eligibility_.lans.at(side).nic);
  return nic && nic->up;
}

bool Daemon::nics_are_up() const {
  const auto all = sides();
  return std::all_of(all.begin(), all.end(), [this](nft::Side side) { return nic_is_up(side); });
}

void Daemon::repair_link(nft::Side side, const string& why) {
  if (state_.kernel.failed || !nic_is_up(side)) return;  // no gate, no address
  look_at_link(side, why);
}

void Daemon::announce() {
  for (const nft::Side side : sides()) {
    const auto announced = kernel_.link_to(side).announce();
    if (announced) continue;
    write_log(LogLevel::kWarning, "the neighbours were not told: " + announced.error().text);
  }
}

void Daemon::note_repair(const string& what) {
  around_.repair = {clocks_.now().raw, what};
  ++repairs_;
}

std::vector<string> Daemon::kernel_problems() {
  std::vector<string> problems;
  const auto add = [&problems](const nft::Result<std::vector<string>>& found) {
    if (!found) return problems.push_back(found.error().text);
    problems.insert(problems.end(), found->begin(), found->end());
  };
  add(kernel_.table.verify());
  for (const nft::Side side : sides()) add(kernel_.link_to(side).verify());
  return problems;
}

// ---- Ending ------------------------------------------------------------------------------------

void Daemon::stop() {
  if (ending_ == Ending::kEnded) return;
  if (ending_ == Ending::kNo) {
    write_log(LogLevel::kNotice, "stops: hands its blocks over first");
    ending_ = Ending::kHandingOver;
    waiting_.stop();
    end_by_ = clocks_.now().raw + state_.config.lease + kStopLimit;
    ending_tick_.start(kEndingTick);
  }
  feed(StopRequested{});
}

void Daemon::abandon() {
  callbacks_.on_end = [](bool, const std::vector<string>&) {};
  end(false);
}

void Daemon::on_ending_tick() {
  const bool late = clocks_.now().raw >= end_by_;
  if (ending_ == Ending::kHandingOver && late) return end(false);
  if (ending_ == Ending::kFlushing) {
    said_leave_ = group_.joined() && group_.flushed();
    if (!group_.joined()) return end(false);
    if (said_leave_ || late) {
      ending_ = Ending::kLeaving;
      end_by_ = clocks_.now().raw + kLeaveLimit;
      group_.leave([this] { end(said_leave_); });
    }
  } else if (ending_ == Ending::kLeaving && late) {
    return end(said_leave_);
  }
  if (ending_ != Ending::kEnded) ending_tick_.start(kEndingTick);
}

void Daemon::end(bool clean) {
  if (ending_ == Ending::kEnded) return;
  ending_ = Ending::kEnded;
  around_.gate_stands = false;
  watch_.unwatch();
  counted_.unwatch();
  wakeup_.unwatch();
  renewal_.stop();
  // First the addresses: without the rules they would be open.
  std::vector<string> errors;
  for (const nft::Side side : sides()) {
    const auto unlinked = kernel_.link_to(side).remove();
    if (!unlinked) errors.push_back(unlinked.error().text);
  }
  const auto removed = errors.empty() ? kernel_.table.remove() : nft::Result<void>();
  if (!removed) errors.push_back(removed.error().text);
  if (stop_client_ && control_ != nullptr) {
    if (errors.empty()) {
      control_->reply(*stop_client_, {{"ok", true}, {"clean", clean}});
    } else {
      control_->refuse(*stop_client_, errors.front());
    }
  }
  callbacks_.on_end(clean, std::move(errors));
}

}  // namespace saru
