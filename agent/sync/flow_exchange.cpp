// SPDX-License-Identifier: GPL-2.0-or-later
// What the members say to each other of their connections: flow_sync.h.
//
// In every confirmed view somebody answers for each block: who holds it, or, if nobody does, the
// first member that knows what the others know. It tells a digest; who knows something else asks
// for the whole block. Who is not synced yet is once all have been heard and nothing asked for is
// missing.
#include <algorithm>
#include <variant>

#include "agent/sync/flow_sync.h"
#include "agent/sync/flow_timing.h"

namespace saru::sync {

// ---- Out ---------------------------------------------------------------------------------------

void FlowSync::pump() {
  const State& s = host_.state();
  if (s.phase != Phase::kIn || !s.view.open) return;
  while ((replica_.has_parts() || (due_ > 0 && replica_.has_news())) &&
         host_.waiting() < kOnTheirWay) {
    auto message = replica_.next(kMessageBytes);
    if (!message) break;
    if (message->kind == Flows::Kind::kChanges && due_ > 0) --due_;
    if (host_.send(std::move(*message))) continue;
    due_ = 0;  // what is lost is told again
    return;
  }
  if (!replica_.has_news()) due_ = 0;
}

// Each message keeps Totem's token going round for a while, which costs all nodes more than the
// message itself: better some at once, and then none for a while, than one after the other.
void FlowSync::pump_soon() {
  if (replica_.has_parts() || due_ > 0) pump();
  if (replica_.has_news() && due_ == 0 && !flush_.running()) flush_.start(kGather);
}

// The news that wait now; what comes while they go out waits for the next time.
void FlowSync::flush() {
  due_ = (replica_.news() * kRecordBytes + kMessageBytes - 1) / kMessageBytes;
  pump_soon();
}

// What cannot be sent now is tried again at the next tick.
void FlowSync::tell_digest(const BlockSet& blocks) {
  untold_.reset();
  told_digest_ = host_.now();
  if (!host_.send(replica_.digest(blocks))) untold_ = blocks;
}

void FlowSync::ask(const MemberId& from, const BlockSet& blocks) {
  if (host_.send(FlowsWanted{from, blocks})) asked_ = host_.now();
}

// ---- Who tells what ----------------------------------------------------------------------------

std::map<ProcessId, BlockSet> FlowSync::authors() const {
  const State& s = host_.state();
  std::map<ProcessId, BlockSet> result;
  BlockSet rest(mine_.blocks());
  rest.fill();
  std::vector<ProcessId> all;
  std::optional<ProcessId> first;
  for (const ProcessId& process : effective_members(s)) {
    const auto& hello = s.view.peers.at(process).hello;
    if (!hello || hello->config_hash != s.config.config_hash) continue;
    if (hello->held.blocks() != mine_.blocks()) continue;
    all.push_back(process);
    const BlockSet held = hello->held & rest;
    if (!held.empty()) result[process] = held;
    rest -= hello->held;
    if (hello->synced && !first) first = process;
  }
  for (const ProcessId& process : all) {
    if (first && process != *first) continue;
    const auto [place, is_new] = result.try_emplace(process, rest);
    if (!is_new) place->second |= rest;
  }
  return result;
}

// Nobody knows more than others: how a cluster begins, and after all have lost sight of each other.
// Then each tells all that it knows of nobody's blocks, and that is put together.
bool FlowSync::nobody_knows_more() const {
  const State& s = host_.state();
  const auto members = effective_members(s);
  return std::none_of(members.begin(), members.end(), [&s](const ProcessId& process) {
    const auto& hello = s.view.peers.at(process).hello;
    return hello && hello->synced;
  });
}

// By a Hello of this view.
bool FlowSync::is_held(BlockId block) const {
  const auto& peers = host_.state().view.peers;
  return std::any_of(peers.begin(), peers.end(), [&](const auto& entry) {
    const auto& hello = entry.second.hello;
    return hello && block.value < hello->held.blocks() && hello->held.contains(block);
  });
}

// Of what we hold ourselves nobody tells us anything.
BlockSet FlowSync::entitled(const MemberId& sender) const {
  const State& s = host_.state();
  BlockSet blocks(mine_.blocks());
  if (!s.view.confirmed) {
    blocks.fill();
    return blocks - mine_;
  }
  for (unsigned b = 0; b < s.view.owner.size() && b < mine_.blocks(); ++b) {
    if (s.view.owner[b] == sender.process.node) {
      blocks.insert(BlockId{static_cast<std::uint16_t>(b)});
    }
  }
  const auto all = authors();
  if (const auto found = all.find(sender.process); found != all.end()) blocks |= found->second;
  return blocks - mine_;
}

// What a process said before it was paused, or before it joined anew, says nothing any more: it can
// still come, on a ring that it has been taken into meanwhile.
bool FlowSync::is_of_now(const Message& message) const {
  const State& s = host_.state();
  const auto& nonces = s.nonces;
  const auto nonce = nonces.find(message.sender.process);
  if (nonce != nonces.end() && nonce->second != message.sender.nonce) return false;
  if (s.view.waived.contains(message.sender.process)) return false;
  const RingId& ring = message.view.ring;
  return (ring_ && ring == *ring_) || (ring_before_ && ring == *ring_before_);
}

// ---- In ----------------------------------------------------------------------------------------

void FlowSync::deliver(const Message& message) {
  if (const auto* flows = std::get_if<Flows>(&message.body)) {
    on(*flows, message);
  } else if (const auto* digest = std::get_if<FlowDigest>(&message.body)) {
    on(*digest, message);
  } else if (const auto* wanted = std::get_if<FlowsWanted>(&message.body)) {
    on(*wanted, message);
  }
}

void FlowSync::on(const Flows& flows, const Message& message) {
  const bool now = is_of_now(message);
  if (message.sender == host_.state().me) {
    replica_.deliver_own(flows, now, mine_);
    return pump_soon();
  }
  if (!now) return;
  const bool merge = view_ && nobody_knows_more() && !is_held(BlockId{flows.block});
  const auto result = replica_.deliver(flows, message.sender, entitled(message.sender), merge);
  const auto wanted = wanted_.find(message.sender);
  if (result.gap) {
    host_.log(LogLevel::kNotice, "messages about connections were lost: asking node " +
                                     std::to_string(message.sender.process.node.value) +
                                     " for its blocks");
    const BlockSet theirs = entitled(message.sender);
    if (!theirs.empty()) {
      auto& blocks = wanted_.try_emplace(message.sender, theirs).first->second;
      blocks |= theirs;
      ask(message.sender, blocks);
    }
  }
  if (wanted != wanted_.end() && flows.kind != Flows::Kind::kChanges) progress_ = host_.now();
  if (!result.whole || wanted == wanted_.end()) return;
  if (wanted->second.blocks() == mine_.blocks()) wanted->second.erase(*result.whole);
  if (wanted->second.empty()) wanted_.erase(wanted);
  look_whether_synced();
  go_on_preparing();
}

void FlowSync::on(const FlowDigest& digest, const Message& message) {
  const State& s = host_.state();
  if (message.sender == s.me || !view_ || message.view != *view_ || !is_of_now(message)) return;
  if (digest.blocks.blocks() != mine_.blocks()) return;
  BlockSet differing = replica_.differing(digest) & entitled(message.sender);
  if (nobody_knows_more()) {
    // There is nothing to be had of those without any connections.
    BlockSet known(mine_.blocks());
    for (const FlowDigest::Entry& entry : digest.entries) known.insert(BlockId{entry.block});
    differing &= known;
  }
  not_heard_.erase(message.sender.process);
  progress_ = host_.now();
  wanted_.erase(message.sender);
  if (!differing.empty()) {
    wanted_[message.sender] = differing;
    ask(message.sender, differing);
  }
  look_whether_synced();
}

void FlowSync::on(const FlowsWanted& wanted, const Message& message) {
  if (wanted.from != host_.state().me || message.sender == wanted.from) return;
  replica_.wanted(wanted.blocks);
  pump();
}

// ---- Waiting for what the others know ----------------------------------------------------------

void FlowSync::on_view() {
  const State& s = host_.state();
  view_ = s.view.id;
  not_heard_.clear();
  wanted_.clear();
  std::set<MemberId> members;
  for (const auto& [process, peer] : s.view.peers) {
    if (peer.id) members.insert(*peer.id);
  }
  replica_.keep_senders(members);
  for (const auto& [process, blocks] : authors()) {
    if (process == s.me.process) {
      tell_digest(blocks);
    } else {
      not_heard_.insert(process);
    }
  }
  progress_ = host_.now();
  if (!s.synced) soon_.start(kRetry);
}

bool FlowSync::waits_for_others() const {
  const State& s = host_.state();
  if (s.synced) return false;
  return !view_ || *view_ != s.view.id || !not_heard_.empty() || !wanted_.empty();
}

void FlowSync::look_whether_synced() {
  const State& s = host_.state();
  if (s.synced || said_synced_ || s.phase != Phase::kIn || s.view.foreign) return;
  if (!has_quorum(s) || waits_for_others()) return;
  said_synced_ = true;
  told_nothing_ = nobody_knows_more();
  host_.log(LogLevel::kNotice, "knows the " + std::to_string(replica_.store().size()) +
                                   " connections that the other members know");
  host_.feed(Synced{});
}

// What got lost is asked for again. Nobody waits for ever for somebody who does not answer.
void FlowSync::ask_again() {
  const Nanos now = host_.now();
  if (!wanted_.empty() && now - std::max(asked_, progress_) >= kTick) {
    for (const auto& [from, blocks] : wanted_) ask(from, blocks);
  }
  const State& s = host_.state();
  if (!view_ || *view_ != s.view.id || !has_quorum(s)) return;
  if (!waits_for_others()) return look_whether_synced();
  if (now - progress_ < kLongestSilence) return;
  unsigned missing = 0;
  for (const auto& [from, blocks] : wanted_) missing += blocks.size();
  host_.log(
      LogLevel::kError,
      "the other members do not tell their connections (" + std::to_string(not_heard_.size()) +
          " silent, " + std::to_string(missing) +
          " blocks missing): this node serves without them, and those break that it takes over");
  not_heard_.clear();
  wanted_.clear();
  look_whether_synced();
}

}  // namespace saru::sync
