// SPDX-License-Identifier: GPL-2.0-or-later
// What saructl asks of a running sarud.
#include <sys/random.h>

#include <algorithm>

#include "agent/daemon.h"
#include "agent/logging.h"
#include "agent/version.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

constexpr std::chrono::seconds kAuditLimit{2};

json refusal(const string& sentence) { return {{"ok", false}, {"error", sentence}}; }

string name_of(const Surroundings& around, NodeId node) {
  const auto found = around.names.find(node);
  return found == around.names.end() || found->second.empty() ? "node " + std::to_string(node.value)
                                                              : found->second;
}

}  // namespace

void Daemon::on_request(Control& control, ClientId client, const json& request) {
  control_ = &control;
  const string command =
      request.value("command", json()).is_string() ? request["command"].get<string>() : string();
  if (command == "status") return control.reply(client, describe_now());
  if (command == "check") return begin_audit(client);
  if (command == "verify") return control.reply(client, on_verify());
  if (command == "weight") return control.reply(client, on_weight(request));
  if (command == "confirm-dead") return control.reply(client, on_confirm_dead(request));
  if (command == "load") return control.reply(client, on_load());
  if (command == "events") return control.reply(client, on_events(request));
  if (command == "views") return control.reply(client, on_views());
  if (command == "metrics") return control.reply(client, on_metrics());
  if (command == "reload") return control.reply(client, on_reload(request));
  if (command == "drain") return control.reply(client, on_drain(true));
  if (command == "undrain") return control.reply(client, on_drain(false));
  if (command == "stop") {
    stop_client_ = client;
    return stop();
  }
  control.refuse(client, "this sarud (version " + std::string(kVersion) +
                             ") does not know the command \"" + command +
                             "\"; saructl and sarud must be of one version");
}

json Daemon::describe_now() {
  around_.draining = eligibility_.drained;
  if (flows_) around_.flows = flows_->status();
  around_.flows_problem = flows_problem_;
  const Instant now = clocks_.now();
  json answer = describe(state_, options_, around_, now);
  answer["age_ms"] =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.raw - began_).count();
  return answer;
}

void Daemon::begin_audit(ClientId client) {
  if (audit_) return control_->refuse(client, "another check is under way; try again");
  if (state_.phase != Phase::kIn || !state_.view.open) {
    return control_->refuse(
        client, "this node is not in the group: " + state_word(state_, around_, clocks_.now()));
  }
  PendingAudit audit;
  audit.client = client;
  audit.began = clocks_.now().raw;
  audit.round.blocks = options_.blocks;
  if (getrandom(&audit.round.token, sizeof audit.round.token, GRND_NONBLOCK) < 0) {
    audit.round.token = static_cast<std::uint64_t>(audit.began.count());
  }
  for (const ProcessId& member : state_.group) {
    audit.round.asked[member] = name_of(around_, member.node);
  }
  const std::uint64_t token = audit.round.token;
  audit_ = std::move(audit);
  audit_limit_.start(kAuditLimit);
  feed(AuditRequested{token});
}

void Daemon::end_audit() {
  audit_limit_.stop();
  if (!audit_) return;
  const Nanos waited = clocks_.now().raw - audit_->began;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(waited).count();
  json verdict = describe(audit_->round, ms);
  verdict["agreed"] = state_.view.confirmed && state_.view.owner.size() == options_.blocks;
  if (control_ != nullptr) control_->reply(audit_->client, verdict);
  audit_.reset();
}

json Daemon::on_weight(const json& request) {
  const json weight = request.value("weight", json());
  if (!weight.is_number_unsigned() || weight.get<std::uint64_t>() > 0xffff) {
    return refusal("weight must be a number from 0 to 65535");
  }
  write_log(LogLevel::kNotice, "weight set to " + weight.dump() + " by saructl");
  wishes_.weight = {weight.get<std::uint16_t>(), options_.weight};
  keep_wishes();
  feed(SetWeight{weight.get<std::uint16_t>()});
  return describe_now();
}

json Daemon::on_drain(bool drain) {
  write_log(LogLevel::kNotice, drain ? "drained by saructl" : "undrained by saructl");
  eligibility_.drained = wishes_.drained = drain;
  keep_wishes();
  feed(eligibility_.event());
  return describe_now();
}

// {"command": "confirm-dead", "node": NAME}
json Daemon::on_confirm_dead(const json& request) {
  const json node = request.value("node", json());
  if (!state_.config.partner) {
    return refusal(
        "this cluster does not wait for the fencing of a node: nothing is to be confirmed");
  }
  const NodeId partner = *state_.config.partner;
  const string name = name_of(around_, partner);
  if (node != name) return refusal("the other node of this cluster is " + name);
  const auto& ring = state_.ring_members;
  if (std::find(ring.begin(), ring.end(), partner) != ring.end()) {
    return refusal(name + " is not down: corosync on this node sees it; stop corosync there first");
  }
  if (state_.phase != Phase::kIn || !state_.ring) {
    return refusal("this node is not in the group: try again when saructl status says that it is");
  }
  write_log(LogLevel::kWarning,
            "saructl confirm-dead: somebody answers for it that " + name + " is down");
  feed(ConfirmedDead{partner});
  return describe_now();
}

json Daemon::on_load() {
  const auto loads = kernel_.table.loads();
  if (!loads) return refusal(loads.error().text);
  json answer = describe_now();
  answer["loads"] = *loads;
  return answer;
}

json Daemon::on_events(const json& request) {
  const json count = request.value("count", json());
  const std::size_t wanted = count.is_number_unsigned() ? count.get<std::size_t>() : Journal::kMost;
  return {{"ok", true}, {"node", state_.config.node_name}, {"events", recent_log(wanted)}};
}

// Compares the kernel with what was written last; what differs is mended, and compared again.
json Daemon::on_verify() {
  std::vector<string> problems = kernel_problems();
  const std::vector<string> found = problems;
  if (!problems.empty() && ending_ == Ending::kNo && nics_are_up()) {
    for (const string& problem : problems) write_log(LogLevel::kWarning, problem);
    note_repair(problems.front());
    feed(KernelDisturbed{"saructl monitor found: " + problems.front()});
    for (const nft::Side side : sides()) repair_link(side, problems.front());
    problems = kernel_problems();
  }
  // Without a NIC nobody reaches what cannot be mended; the state says that it is gone.
  if (!nics_are_up()) problems.clear();
  json answer = describe_now();
  answer["problems"] = problems;
  answer["mended"] = problems.empty() ? found : std::vector<string>{};
  return answer;
}

}  // namespace saru
