// SPDX-License-Identifier: GPL-2.0-or-later
// A few members of the core that hear each other at once, for tests of single rules.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/core/state.h"

namespace saru {

using std::chrono::milliseconds;

inline constexpr Nanos kLease = milliseconds(1000);
inline constexpr unsigned kBlockCount = 16;

inline Config config_of(std::uint32_t node, unsigned nodes) {
  Config config;
  config.node_name = "n" + std::to_string(node);
  config.node = NodeId{node};
  config.blocks = kBlockCount;
  config.lease = kLease;
  config.config_hash = 7;
  config.quorum_votes = nodes / 2 + 1;
  config.expected_votes = nodes;
  return config;
}

// N members on one ring; messages reach all in one order, kernels answer at once unless told
// otherwise.
class Cluster {
 public:
  explicit Cluster(unsigned nodes) {
    for (std::uint32_t n = 1; n <= nodes; ++n)
      members_.emplace(n, Member{State(config_of(n, nodes)), {}, {}});
  }

  State& state(std::uint32_t node) { return members_.at(node).state; }
  ProcessId process(std::uint32_t node) const { return {NodeId{node}, 100 + node}; }

  void feed(std::uint32_t node, EventBody body) {
    Member& m = members_.at(node);
    const Event event{{now, now}, std::move(body)};
    Step next = step(std::move(m.state), event);
    m.state = std::move(next.state);
    if (watch) watch(node, event, m.state, next.actions);
    for (Action& action : next.actions) {
      if (const auto* send = std::get_if<Send>(&action)) order_.push_back({node, send->message});
      if (const auto* write = std::get_if<KernelWrite>(&action)) {
        m.writes.push_back(*write);
        if (kernels_answer) {
          feed(node,
               KernelDone{write->seq, kernels_work,
                          kernels_work ? write->accepting : Accepting::all_of(m.state.kernel.held),
                          kernels_work ? "" : "Operation not permitted"});
        }
      }
      if (const auto* flows = std::get_if<PlaceFlows>(&action); flows != nullptr && flows_answer) {
        feed(node, FlowsPlaced{flows->ticket, flows->blocks});
      }
      m.said.push_back(std::move(action));
    }
  }

  // Delivers everything that has been said, in order, to whoever `deaf` does not name.
  void deliver() {
    while (!order_.empty()) {
      const auto [from, message] = order_.front();
      order_.pop_front();
      for (auto& [node, m] : members_) {
        if (!deaf.contains(node)) feed(node, Received{process(from), message});
      }
    }
  }

  void form(std::uint64_t seq, const std::set<std::uint32_t>& present, bool quorate = true) {
    std::vector<ProcessId> group;
    std::vector<NodeId> ring;
    for (std::uint32_t n : present) {
      group.push_back(process(n));
      ring.push_back(NodeId{n});
    }
    const RingId id{ring.front(), seq};
    for (std::uint32_t n : present) {
      feed(n, GroupChanged{group, {}, {}});
      feed(n, RingChanged{id, ring});
      feed(n, QuorumChanged{id, quorate, ring, {}});
    }
    deliver();
  }

  void start() {
    std::set<std::uint32_t> all;
    for (auto& [node, m] : members_) {
      feed(node, Joined{{process(node), 1000 + node}});
      all.insert(node);
    }
    form(4, all);
    run(milliseconds(1500));
  }

  void run(Nanos span) {
    for (const Nanos end = now + span; now < end;) {
      now += milliseconds(10);
      for (auto& [node, m] : members_) {
        if (!stopped.contains(node) && now >= next_wakeup(m.state)) feed(node, Tick{});
      }
      deliver();
    }
  }

  unsigned owned(std::uint32_t node) { return state(node).kernel.held.size(); }
  template <class What>
  bool said(std::uint32_t node) const {
    for (const Action& action : members_.at(node).said) {
      if (std::holds_alternative<What>(action)) return true;
    }
    return false;
  }
  bool logged(std::uint32_t node, const std::string& text) const {
    for (const Action& action : members_.at(node).said) {
      const auto* log = std::get_if<Log>(&action);
      if (log != nullptr && log->text.find(text) != std::string::npos) return true;
    }
    return false;
  }
  // The last action of a kind; there must be one.
  template <class What>
  const What& last(std::uint32_t node) const {
    const auto& said = members_.at(node).said;
    for (auto it = said.rbegin();; ++it) {
      if (const auto* what = std::get_if<What>(&*it)) return *what;
    }
  }
  std::vector<KernelWrite>& writes(std::uint32_t node) { return members_.at(node).writes; }
  std::deque<std::pair<std::uint32_t, Message>>& order() { return order_; }

  Nanos now = milliseconds(1000000);
  bool kernels_answer = true;
  bool kernels_work = true;
  bool flows_answer = true;
  std::set<std::uint32_t> deaf, stopped;
  // Sees every step.
  std::function<void(std::uint32_t, const Event&, const State&, const std::vector<Action>&)> watch;

 private:
  struct Member {
    State state;
    std::vector<KernelWrite> writes;
    std::vector<Action> said;
  };
  std::map<std::uint32_t, Member> members_;
  std::deque<std::pair<std::uint32_t, Message>> order_;
};

}  // namespace saru
