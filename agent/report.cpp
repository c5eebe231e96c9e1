// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/report.h"

#include <unistd.h>

#include <algorithm>

#include "agent/membership.h"
#include "agent/version.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

std::int64_t to_ms(Nanos span) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(span).count();
}

string name_of(const Surroundings& around, NodeId node) {
  const auto found = around.names.find(node);
  return found == around.names.end() || found->second.empty() ? "node " + std::to_string(node.value)
                                                              : found->second;
}

bool is_open(const State& state, const Instant& now) {
  return state.kernel.deadline && !has_passed(*state.kernel.deadline, now) &&
         !state.kernel.held.empty();
}

const std::vector<std::optional<NodeId>>& table_of(const State& state, const Surroundings& around) {
  return state.view.confirmed ? state.view.owner : around.table.owner;
}

unsigned count_of(const std::vector<std::optional<NodeId>>& owner, NodeId node) {
  return static_cast<unsigned>(std::count(owner.begin(), owner.end(), std::optional(node)));
}

string member_state(const State& state, ProcessId member, const string& own_state) {
  if (member == state.me.process) return own_state;
  if (state.view.excluded.count(member) != 0) return "silent: excluded";
  if (state.view.waived.count(member) != 0) return "leaving";
  const auto peer = state.view.peers.find(member);
  if (peer == state.view.peers.end() || !peer->second.hello) return "has not answered yet";
  const Hello& hello = *peer->second.hello;
  if (state.view.confirmed && hello.config_hash != state.view.config_hash) {
    return hello.config_next == state.view.config_hash ? "changing over" : "configured differently";
  }
  if (!hello.eligible) return "idle: not eligible";
  if (!state.view.confirmed) return "answered";
  return hello.weight == 0 ? "idle: weight 0" : "serving";
}

json describe_members(const State& state, const Surroundings& around, const string& own_state) {
  const auto& owner = table_of(state, around);
  json members = json::array();
  for (const ProcessId& member : state.group) {
    const auto peer = state.view.peers.find(member);
    const bool known = peer != state.view.peers.end() && peer->second.hello;
    json entry = {{"id", member.node.value},
                  {"node", name_of(around, member.node)},
                  {"owns", count_of(owner, member.node)},
                  {"weight", nullptr},
                  {"state", member_state(state, member, own_state)}};
    if (known) entry["weight"] = peer->second.hello->weight;
    if (member == state.me.process) entry["weight"] = state.config.weight;
    members.push_back(std::move(entry));
  }
  return members;
}

// What this node was told to change to, and who was not yet.
json describe_config(const State& state) {
  json waiting_for = json::array();
  json next = nullptr;
  if (state.next) {
    next = hash_text(state.next->hash);
    for (const auto& [process, peer] : state.view.peers) {
      const bool has = peer.hello && (peer.hello->config_hash == state.next->hash ||
                                      peer.hello->config_next == state.next->hash);
      if (!has && process != state.me.process) {
        waiting_for.push_back(peer.hello ? peer.hello->node_name
                                         : "node " + std::to_string(process.node.value));
      }
    }
  }
  return {
      {"hash", hash_text(state.config.config_hash)}, {"next", next}, {"waiting_for", waiting_for}};
}

json describe_view(const State& state, const Instant& now) {
  const View& view = state.view;
  return {{"open", view.open},
          {"ring", std::to_string(view.id.ring.representative.value) + "." +
                       std::to_string(view.id.ring.seq)},
          {"round", view.id.round},
          {"confirmed", view.confirmed},
          {"reason", view.reason},
          {"age_ms", view.open ? to_ms(now.raw - view.opened) : 0},
          {"moved", view.moved}};
}

// What this node still waits for or gives up; other nodes' exchanges are not its business.
json describe_moving(const State& state) {
  json moving = json::array();
  const View& view = state.view;
  if (!view.confirmed) return moving;
  const std::uint32_t me = state.config.node.value;
  BlockSet awaited(state.config.blocks);
  for (const auto& [member, peer] : view.peers) {
    if (peer.awaited.blocks() == 0) continue;
    awaited |= peer.awaited;
    peer.awaited.for_each([&, from = member.node.value](BlockId block) {
      moving.push_back({{"block", block.value}, {"from", from}, {"to", me}});
    });
  }
  if (view.to_release.blocks() != 0) {
    view.to_release.for_each([&](BlockId block) {
      json to = nullptr;
      if (block.value < view.owner.size() && view.owner[block.value]) {
        to = view.owner[block.value]->value;
      }
      moving.push_back({{"block", block.value}, {"from", me}, {"to", to}});
    });
  }
  if (view.mine.blocks() != 0 && state.kernel.held.blocks() == view.mine.blocks()) {
    (view.mine - state.kernel.held - awaited).for_each([&](BlockId block) {
      moving.push_back({{"block", block.value}, {"from", nullptr}, {"to", me}});
    });
  }
  return moving;
}

json describe_repair(const Surroundings& around, const Instant& now) {
  if (!around.repair) return nullptr;
  return {{"ms_ago", to_ms(now.raw - around.repair->when)}, {"what", around.repair->what}};
}

// Blocks wait for its fencing; not where it is on our ring without sarud, which a lease settles.
bool waits_for(const State& state, NodeId partner) {
  const auto& ring = state.ring_members;
  return state.view.confirmed && partner_may_hold(state) && !state.view.to_free.empty() &&
         std::find(ring.begin(), ring.end(), partner) == ring.end();
}

json texts_of(const std::vector<ServiceAddress>& addresses) {
  json texts = json::array();
  for (const ServiceAddress& address : addresses) texts.push_back(address.ip.text());
  return texts;
}

json describe_inside(const Options& options) {
  if (!options.inside) return nullptr;
  return {{"addresses", texts_of(options.inside->addresses)},
          {"nic", options.inside->nic},
          {"mac", options.inside->mac.text()}};
}

// The other one of two nodes that can both be quorate alone.
json describe_partner(const State& state, const Surroundings& around) {
  if (!state.config.partner) return nullptr;
  return {{"node", name_of(around, *state.config.partner)},
          {"closed", state.partner.closed},
          {"may_hold", waits_for(state, *state.config.partner)},
          {"blind", around.blind.empty() ? json(nullptr) : json(around.blind)}};
}

json describe_flows(const std::optional<sync::FlowStatus>& flows) {
  if (!flows) return nullptr;
  json not_heard = json::array();
  for (const NodeId& node : flows->not_heard) not_heard.push_back(node.value);
  const sync::ReplicaCounters& replica = flows->replica;
  const sync::KernelCounters& kernel = flows->kernel;
  return {{"synced", flows->synced},
          {"known", flows->known},
          {"own", flows->own},
          {"unsent", flows->unsent},
          {"blocks_wanted", flows->blocks_wanted},
          {"not_heard", std::move(not_heard)},
          {"putting", flows->putting},
          {"told", replica.told},
          {"learned", replica.learned},
          {"wholes", replica.wholes},
          {"refused", replica.refused},
          {"damaged", replica.damaged},
          {"gaps", replica.gaps},
          {"repeated", replica.repeated},
          {"events", kernel.events},
          {"overruns", kernel.overruns},
          {"injected", kernel.injected},
          {"replaced", kernel.replaced},
          {"removed", kernel.removed},
          {"failed", kernel.failed}};
}

std::vector<string> warnings_of(const Surroundings& around) {
  std::vector<string> warnings = around.warnings;
  if (!around.flows_problem.empty()) warnings.push_back(around.flows_problem);
  return warnings;
}

}  // namespace

string state_word(const State& state, const Surroundings& around, const Instant& now) {
  if (!around.gate_stands) return "closed: no rules in the kernel";
  if (state.stopping || state.phase == Phase::kLeaving) return "leaving";
  if (state.phase == Phase::kOut) return "closed: not in the group";
  if (state.kernel.failed) return "closed: the kernel refused";
  if (!has_quorum(state)) return "closed: no quorum";
  if (around.draining) return state.kernel.held.empty() ? "drained" : "draining";
  if (!state.config.eligible) return "idle: " + state.ineligible_reason;
  if (is_open(state, now)) return state.view.confirmed ? "open" : "open, agreeing on a new view";
  if (!state.view.confirmed) return "closed: waiting for the others";
  if (state.switching) return "closed: changing over";
  if (state.config.config_hash != state.view.config_hash) return "closed: configured differently";
  if (state.view.frozen) return "closed: others must release";
  if (state.config.weight == 0) return "idle: weight 0";
  return state.kernel.held.empty() ? "idle: owns nothing yet" : "closed: the lease ran out";
}

json describe(const State& state, const Options& options, const Surroundings& around,
              const Instant& now) {
  const string own_state = state_word(state, around, now);
  json owners = json::array();
  for (const auto& owner : table_of(state, around)) {
    owners.push_back(owner ? json(owner->value) : json(nullptr));
  }
  const Nanos left =
      state.kernel.deadline ? std::max(remaining(*state.kernel.deadline, now), Nanos(0)) : Nanos(0);
  return {{"ok", true},
          {"version", kVersion},
          {"id", options.id},
          {"label", options.label},
          {"pid", getpid()},
          {"node", state.config.node_name},
          {"node_id", state.config.node.value},
          {"addresses", texts_of(options.addresses)},
          {"nic", options.nic},
          {"mac", options.mac.text()},
          {"inside", describe_inside(options)},
          {"blocks", options.blocks},
          {"selector", selector_name(options.selection.selector)},
          {"services", to_text(options.selection.services)},
          {"seed", options.selection.seed},
          {"delivery", options.delivery},
          {"connections", options.connections},
          {"lease_ms", to_ms(state.config.lease)},
          {"lease_left_ms", to_ms(left)},
          {"weight", state.config.weight},
          {"eligible", state.config.eligible},
          {"draining", around.draining},
          {"gate", around.gate_stands},
          {"quorate", has_quorum(state)},
          {"state", own_state},
          {"warnings", warnings_of(around)},
          {"owns", is_open(state, now) ? state.kernel.held.size() : 0},
          {"held", state.kernel.held.to_ranges()},
          {"lingering", state.kernel.lingering.to_ranges()},
          {"contested", state.kernel.contested.to_ranges()},
          {"lingering_connections",
           around.lingering_connections ? json(*around.lingering_connections) : json(nullptr)},
          {"flows", describe_flows(around.flows)},
          {"restored", describe_repair(around, now)},
          {"config", describe_config(state)},
          {"view", describe_view(state, now)},
          {"partner", describe_partner(state, around)},
          {"members", describe_members(state, around, own_state)},
          {"owners", std::move(owners)},
          {"moving", describe_moving(state)}};
}

}  // namespace saru
