// SPDX-License-Identifier: GPL-2.0-or-later
// connections=sync: the members tell each other their connections (agent/sync/flow_sync.h).
#include "agent/daemon.h"
#include "agent/logging.h"

namespace saru {

namespace {

// A node that has just come is ready once it knows the connections, so that Pacemaker takes the
// next one down no earlier; but not later than this.
constexpr std::chrono::seconds kLongestWait{15};
// Of the queue of own messages; the rest is for those that the lease and the blocks need.
constexpr std::size_t kShareOfQueue = Group::kMaxQueued - 1024;

bool is_about_flows(const EventBody& body) {
  const auto* received = std::get_if<Received>(&body);
  if (received == nullptr) return false;
  const Body& said = received->message.body;
  return std::holds_alternative<Flows>(said) || std::holds_alternative<FlowDigest>(said) ||
         std::holds_alternative<FlowsWanted>(said);
}

}  // namespace

sync::FlowRule flow_rule_of(const Options& options) {
  sync::FlowRule rule;
  for (const ServiceAddress& one : options.addresses) rule.addresses.push_back(one.ip);
  if (options.inside) {
    rule.inside = options.inside->addresses;
    for (const ServiceAddress& one : rule.inside) rule.addresses.push_back(one.ip);
  }
  rule.selection = options.selection;
  rule.blocks = options.blocks;
  return rule;
}

tl::expected<void, Failure> Daemon::start_flows() {
  if (!options_.syncs()) return {};
  flows_ = std::make_unique<sync::FlowSync>(
      loop_, flow_rule_of(options_),
      sync::FlowHost{[this]() -> const State& { return state_; },
                     [this](Body body) {
                       if (group_.waiting() >= kShareOfQueue) return false;
                       return group_.send(make_message(state_, std::move(body))).has_value();
                     },
                     [this] { return group_.waiting(); },
                     [this](EventBody body) { feed(std::move(body)); }, write_log,
                     [this] { return clocks_.now().raw; }});
  if (const auto started = flows_->start(); !started) {
    return tl::unexpected(Failure{ExitCode::kFailed, started.error().text});
  }
  return {};
}

void Daemon::on_corosync(EventBody body) {
  if (!is_about_flows(body)) return feed(std::move(body));
  if (flows_ && ending_ != Ending::kEnded) flows_->deliver(std::get<Received>(body).message);
}

void Daemon::execute(const PlaceFlows& action) { flows_->prepare(action); }

bool Daemon::knows_flows() const {
  if (!flows_ || state_.synced || !has_quorum(state_)) return true;
  return member_since_ && clocks_.now().raw - *member_since_ >= kLongestWait;
}

// For status, and once in the log when it changes.
void Daemon::note_flows() {
  if (!flows_) return;
  const std::string problem = flows_->problem();
  if (!problem.empty() && problem != flows_problem_) write_log(LogLevel::kWarning, problem);
  if (problem.empty() && !flows_problem_.empty()) {
    write_log(LogLevel::kNotice, "no longer so: " + flows_problem_);
  }
  flows_problem_ = problem;
}

}  // namespace saru
