// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/ownership.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace saru {
namespace {

using std::string;

constexpr std::size_t kLine = 360;  // libqb cuts a line of the log at 512 characters
constexpr std::size_t kMostLines = 24;

string ms_text(Nanos span) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(span).count();
  if (us >= 10'000) return std::to_string(us / 1000) + " ms";
  return std::to_string(us / 1000) + "." + std::to_string(us / 100 % 10) + " ms";
}

string count_text(unsigned blocks) {
  return blocks == 1 ? "1 block" : std::to_string(blocks) + " blocks";
}

string ended_text(Ended ended) {
  switch (ended) {
    case Ended::kHandedOver:
      return "handed over";
    case Ended::kLost:
      return "its owner was lost";
    case Ended::kClosed:
      break;
  }
  return "its owner had closed it";
}

const Hello* hello_of(const State& state, const MemberId& member) {
  const auto peer = state.view.peers.find(member.process);
  const bool same = peer != state.view.peers.end() && peer->second.id == member;
  return same && peer->second.hello ? &*peer->second.hello : nullptr;
}

bool counts(const State& state, const MemberId& member) {
  return hello_of(state, member) != nullptr && !state.view.excluded.contains(member.process) &&
         !state.view.waived.contains(member.process);
}

std::optional<MemberId> member_on(const State& state, NodeId node) {
  for (const auto& [process, peer] : state.view.peers) {
    if (process.node == node && peer.id && counts(state, *peer.id)) return peer.id;
  }
  return std::nullopt;
}

}  // namespace

const char* word_of(Ended ended) {
  switch (ended) {
    case Ended::kHandedOver:
      return "handed_over";
    case Ended::kLost:
      return "lost";
    case Ended::kClosed:
      break;
  }
  return "closed";
}

string text_of(const ViewId& id) {
  return std::to_string(id.ring.representative.value) + "." + std::to_string(id.ring.seq) + "/" +
         std::to_string(id.round);
}

void Histogram::add(Nanos span, std::uint64_t times) {
  count += times;
  sum += span * static_cast<Nanos::rep>(times);
  for (std::size_t i = 0; i < kLimitsMs.size(); ++i) {
    if (span > std::chrono::milliseconds(kLimitsMs[i])) continue;
    within[i] += times;
    return;
  }
}

string Ownership::name_of(NodeId node) const {
  const auto found = names_.find(node);
  return found == names_.end() ? "node " + std::to_string(node.value) : found->second;
}

void Ownership::tell(const string& text) {
  told_.push_back({LogLevel::kNotice, "view " + (agreed_ ? text_of(*agreed_) : "-") + ": " + text});
}

// Which blocks they are, in as many lines as that takes.
void Ownership::tell_blocks(const string& head, const BlockSet& blocks) {
  string rest = blocks.to_ranges();
  for (std::size_t lines = 0; !rest.empty(); ++lines) {
    if (lines == kMostLines) return tell(head + " and more: saructl events --views lists them");
    std::size_t cut = rest.size();
    if (cut > kLine) cut = rest.rfind(',', kLine);
    tell(head + (lines == 0 ? ": " : ", further: ") + rest.substr(0, cut));
    rest.erase(0, cut + 1);
  }
}

void Ownership::begin_anew(const State& state) {
  blocks_.assign(state.config.blocks, {});
  held_ = BlockSet(state.config.blocks);
}

std::vector<Log> Ownership::follow(const Event& event, const State& state,
                                   const std::vector<Action>& actions, Nanos realtime) {
  now_ = event.now.raw;
  realtime_ = realtime;
  me_ = state.me;
  lease_ = state.config.lease;
  told_.clear();
  names_[state.config.node] = state.config.node_name;
  if (blocks_.size() != state.config.blocks) begin_anew(state);
  released_ = BlockSet(state.config.blocks);
  if (granted_ && has_passed(*granted_, event.now) && !held_.empty()) ++tally_.lapses;
  granted_ = state.granted;
  if (const auto* received = std::get_if<Received>(&event.body)) note_message(*received, state);
  if (const auto* done = std::get_if<KernelDone>(&event.body)) {
    ++(done->ok ? tally_.writes : tally_.refusals);
  }
  if (std::holds_alternative<KernelDisturbed>(event.body)) ++tally_.disturbances;
  note_actions(actions);
  if (counted_ != state.view.id) {
    for (const ProcessId& process : state.view.excluded) {
      const bool left = left_.contains(process.node);
      if (!excluded_.contains(process) && !left) ++tally_.excluded;
    }
    excluded_ = state.view.excluded;
    counted_ = state.view.id;
  }
  if (state.view.confirmed && (agreed_ != state.view.id)) note_view(state);
  note_kernel(state);
  return std::move(told_);
}

void Ownership::note_actions(const std::vector<Action>& actions) {
  for (const Action& action : actions) {
    if (std::holds_alternative<Rejoin>(action)) ++tally_.rejoins;
    const auto* send = std::get_if<Send>(&action);
    if (send == nullptr) continue;
    if (std::holds_alternative<Beat>(send->message.body)) ++tally_.beats;
    const auto* released = std::get_if<Released>(&send->message.body);
    if (released != nullptr && released->blocks.blocks() == released_.blocks()) {
      released_ |= released->blocks;
    }
  }
}

// ---- What the members say ----------------------------------------------------------------------

void Ownership::note_message(const Received& event, const State& state) {
  const MemberId& sender = event.message.sender;
  heard_[sender] = now_;
  if (std::holds_alternative<Leave>(event.message.body)) return note_leave(sender);
  if (const auto* hello = std::get_if<Hello>(&event.message.body)) {
    names_[sender.process.node] = hello->node_name;
  }
  if (const auto* round = std::get_if<Round>(&event.message.body)) {
    return note_round(sender, round->reason);
  }
  // Only what the core counts, too: said in the view that is open, by who is known in it.
  const auto peer = state.view.peers.find(sender.process);
  if (!state.view.open || event.message.view != state.view.id || peer == state.view.peers.end() ||
      peer->second.id != sender) {
    return;
  }
  if (const auto* hello = std::get_if<Hello>(&event.message.body)) note_hello(sender, *hello);
  if (const auto* released = std::get_if<Released>(&event.message.body)) {
    note_released(sender, released->blocks, state);
  }
}

// From now on it has no owner. One that had not taken it yet leaves it as it was.
void Ownership::free_block(Track& track, Nanos since, Ended ended) {
  const bool never_took = track.heir && track.free_since && since < track.not_before;
  if (!never_took) {
    track.former = track.owner->process.node;
    track.free_since = since;
    track.ended = ended;
  }
  track.owner.reset();
  track.heir = false;
}

void Ownership::note_hello(const MemberId& sender, const Hello& hello) {
  if (sender == me_ || hello.held.blocks() != blocks_.size()) return;
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    Track& track = blocks_[b];
    const BlockId block{static_cast<std::uint16_t>(b)};
    if (held_.contains(block)) continue;
    if (hello.held.contains(block)) {
      track = {sender, false, Nanos(0), track.former, std::nullopt, Ended::kLost};
      continue;
    }
    if (!track.owner || track.owner->process.node != sender.process.node) continue;
    if (*track.owner != sender) {  // another process there before: nobody said that it ended
      const auto heard = heard_.find(*track.owner);
      free_block(track, heard == heard_.end() ? now_ : heard->second, Ended::kLost);
    } else if (track.heir && track.free_since && now_ - track.not_before < lease_) {
      // A view that came too soon for it, most likely.
      track.owner.reset();
      track.heir = false;
    } else {
      free_block(track, now_, Ended::kClosed);
    }
  }
}

void Ownership::note_released(const MemberId& sender, const BlockSet& blocks, const State& state) {
  if (blocks.blocks() != blocks_.size()) return;
  blocks.for_each([&](BlockId block) {
    Track& track = blocks_[block.value];
    const bool own = sender == me_ && !track.owner && track.former == me_.process.node;
    if (!own && track.owner != sender) return;
    if (!own) free_block(track, now_, Ended::kHandedOver);
    if (!state.view.confirmed || block.value >= state.view.owner.size()) return;
    const auto& owner = state.view.owner[block.value];
    if (!owner || *owner == me_.process.node) return;
    track.owner = member_on(state, *owner);
    track.heir = track.owner.has_value();
    track.not_before = now_;
  });
}

void Ownership::note_leave(const MemberId& sender) {
  left_[sender.process.node] = now_;
  if (sender == me_) return;
  for (Track& track : blocks_) {
    if (track.owner == sender) free_block(track, now_, Ended::kClosed);
  }
}

void Ownership::note_round(const MemberId& sender, RoundReason reason) {
  constexpr std::size_t kMost = 16;
  const string node = name_of(sender.process.node);
  string text;
  switch (reason) {
    case RoundReason::kLapse:
      text = "the lease of " + node + " ran out";
      break;
    case RoundReason::kFailure:
      text = "the kernel of " + node + " refused a change";
      break;
    case RoundReason::kQuorum:
      text = "quorum came or went, says " + node;
      break;
    case RoundReason::kConfig:
      text = node + " was given another configuration";
      break;
    case RoundReason::kChange:
      return;  // what has changed the Hellos say
  }
  const bool told = std::find(asked_.begin(), asked_.end(), text) != asked_.end();
  if (!told && asked_.size() < kMost) asked_.push_back(text);
}

// ---- What our kernel holds ---------------------------------------------------------------------

void Ownership::note_kernel(const State& state) {
  const BlockSet& is = state.kernel.held;
  if (is.blocks() != held_.blocks()) return;
  const std::optional<Instant> until = std::exchange(deadline_, state.kernel.deadline);
  if (is == held_) return;
  const BlockSet gone = held_ - is;
  const BlockSet fresh = is - held_;
  held_ = is;
  const BlockSet handed = gone & (released_ | state.releasing);
  give_up(handed, now_, Ended::kHandedOver);
  give_up(gone - handed, until ? std::min(until->raw, now_) : now_, Ended::kClosed);
  if (!fresh.empty()) take(fresh, state);
}

void Ownership::give_up(const BlockSet& gone, Nanos since, Ended ended) {
  if (gone.empty()) return;
  const bool handed = ended == Ended::kHandedOver;
  (handed ? tally_.released : tally_.closed) += gone.size();
  gone.for_each([&](BlockId block) {
    Track& track = blocks_[block.value];
    track.owner = me_;
    track.heir = false;
    free_block(track, since, ended);
  });
  tell_blocks((handed ? "gave up " : "closed ") + count_text(gone.size()), gone);
}

// Together what one node gave up at one moment.
void Ownership::take(const BlockSet& fresh, const State& state) {
  using Key = std::tuple<std::optional<NodeId>, std::optional<Ended>, Nanos>;
  std::map<Key, BlockSet> groups;
  fresh.for_each([&](BlockId block) {
    Track& track = blocks_[block.value];
    const bool known = track.free_since && !track.owner;
    const Key key{track.former, known ? std::optional(track.ended) : std::nullopt,
                  known ? *track.free_since : Nanos(0)};
    groups.try_emplace(key, state.config.blocks).first->second.insert(block);
    track = {me_, false, Nanos(0), track.former, std::nullopt, Ended::kLost};
  });
  for (const auto& [key, blocks] : groups) {
    const auto& [from, ended, since] = key;
    const Nanos gap = ended ? std::max(now_ - since, Nanos(0)) : Nanos(0);
    string text = "took " + count_text(blocks.size());
    if (ended) {
      tally_.without_owner[static_cast<std::size_t>(*ended)].add(gap, blocks.size());
      text += " of " + (from ? name_of(*from) : string("nobody")) + ", without an owner for " +
              ms_text(gap) + " (" + ended_text(*ended) + ")";
    } else {
      tally_.taken_unknown += blocks.size();
      text += " of which no owner was known here";
    }
    tell_blocks(text, blocks);
    if (views_.empty()) continue;
    views_.back().takings.push_back({realtime_, from, ended, gap, blocks});
  }
  shorten();
}

// ---- Views -------------------------------------------------------------------------------------

void Ownership::note_view(const State& state) {
  agreed_ = state.view.id;
  ++tally_.views;
  ViewRecord record;
  record.realtime = realtime_;
  record.id = state.view.id;
  record.quorate = has_quorum(state);
  record.why = why(state);
  for (const ProcessId& process : effective_members(state)) {
    record.members.push_back(name_of(process.node));
  }
  note_losses(state);
  if (record.quorate && !state.view.foreign) note_moves(state, record);
  string words;
  for (const string& word : record.why) words += (words.empty() ? "" : "; ") + word;
  tell("why: " + words);
  for (const Move& move : record.moves) {
    tell_blocks((move.from ? name_of(*move.from) : string("nobody")) + " -> " +
                    (move.to ? name_of(*move.to) : string("nobody")) + ", " +
                    count_text(move.blocks.size()),
                move.blocks);
  }
  keep(std::move(record));
  std::erase_if(heard_, [&](const auto& entry) { return !counts(state, entry.first); });
  left_.clear();
  asked_.clear();
}

void Ownership::note_losses(const State& state) {
  for (Track& track : blocks_) {
    if (!track.owner || *track.owner == me_ || counts(state, *track.owner)) continue;
    const auto heard = heard_.find(*track.owner);
    free_block(track, heard == heard_.end() ? now_ : heard->second, Ended::kLost);
  }
}

void Ownership::note_moves(const State& state, ViewRecord& record) {
  std::map<std::pair<std::optional<NodeId>, std::optional<NodeId>>, BlockSet> moves;
  for (std::size_t b = 0; b < blocks_.size() && b < state.view.owner.size(); ++b) {
    Track& track = blocks_[b];
    const std::optional<NodeId> to = state.view.owner[b];
    const std::optional<NodeId> owner =
        track.owner ? std::optional(track.owner->process.node) : std::nullopt;
    if (owner == to && owner) continue;
    const std::optional<NodeId> from = owner ? owner : track.former;
    if (!from && !to) continue;
    moves.try_emplace({from, to}, state.config.blocks)
        .first->second.insert(BlockId{static_cast<std::uint16_t>(b)});
    if (owner || !to || *to == me_.process.node) continue;
    track.owner = member_on(state, *to);
    track.heir = track.owner.has_value();
    track.not_before = state.view.free_at;
  }
  for (const auto& [way, blocks] : moves) record.moves.push_back({way.first, way.second, blocks});
}

string Ownership::why_gone(NodeId node, const Known& last, const State& state) const {
  const string name = name_of(node);
  if (left_.contains(node)) return name + " left in order";
  const auto heard = heard_.find(last.id);
  const string ago =
      heard == heard_.end() ? "" : ", last heard " + ms_text(now_ - heard->second) + " before";
  if (state.view.excluded.contains(last.id.process)) return name + " was silent" + ago;
  return name + " was lost" + ago;
}

void Ownership::compare_members(NodeId node, const Known& last, const Known& now,
                                const State& state, std::vector<string>& words) const {
  const string name = name_of(node);
  if (last.id != now.id) {
    words.push_back(
        name + (left_.contains(node) ? " left in order and came back" : " was lost and came back"));
  }
  if (last.eligible && !now.eligible) {
    const bool own = node == state.config.node && !state.ineligible_reason.empty();
    words.push_back(name + " gives its blocks up (" +
                    (own ? state.ineligible_reason
                         : "drained, stopping or without its NIC: its own log says which") +
                    ")");
  }
  if (!last.eligible && now.eligible) words.push_back(name + " takes blocks again");
  if (!last.synced && now.synced) words.push_back(name + " knows all connections now");
  if (last.synced && !now.synced) words.push_back(name + " does not know all connections");
  if (last.weight != now.weight) {
    words.push_back("weight of " + name + ": " + std::to_string(last.weight) + " -> " +
                    std::to_string(now.weight));
  }
}

std::vector<string> Ownership::why(const State& state) {
  std::map<NodeId, Known> members;
  for (const ProcessId& process : effective_members(state)) {
    const Peer& peer = state.view.peers.at(process);
    members[process.node] = {*peer.id, peer.hello->weight, peer.hello->eligible,
                             peer.hello->synced};
  }
  std::vector<string> words;
  for (const auto& [node, last] : last_members_) {
    const auto now = members.find(node);
    if (now == members.end()) {
      words.push_back(why_gone(node, last, state));
    } else {
      compare_members(node, last, now->second, state, words);
    }
  }
  for (const auto& [node, now] : members) {
    if (last_members_.contains(node)) continue;
    words.push_back(last_members_.empty() && node == state.config.node
                        ? "this node joined"
                        : name_of(node) + (last_members_.empty() ? " is here" : " joined"));
  }
  if (config_hash_ != 0 && config_hash_ != state.view.config_hash) {
    words.emplace_back("another configuration is in force");
  }
  const bool quorate = has_quorum(state);
  if (!quorate) words.emplace_back("there is no quorum: nobody takes blocks");
  if (quorate && !quorate_ && !last_members_.empty()) words.emplace_back("there is quorum again");
  words.insert(words.end(), asked_.begin(), asked_.end());
  if (words.empty()) words.push_back(state.view.reason);
  last_members_ = std::move(members);
  config_hash_ = state.view.config_hash;
  quorate_ = quorate;
  return words;
}

void Ownership::keep(ViewRecord record) {
  views_.push_back(std::move(record));
  shorten();
}

void Ownership::shorten() {
  std::size_t sets = 0;
  for (const ViewRecord& one : views_) sets += one.moves.size() + one.takings.size();
  while (views_.size() > 1 && (views_.size() > kMostViews || sets > kMostSets)) {
    sets -= views_.front().moves.size() + views_.front().takings.size();
    views_.pop_front();
    cut_ = true;
  }
}

}  // namespace saru
