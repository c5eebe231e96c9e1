// SPDX-License-Identifier: GPL-2.0-or-later
// What the core has come to, and what this node's kernel says. flow_exchange.cpp has the messages.
#include "agent/sync/flow_sync.h"

#include <linux/netfilter/nf_conntrack_tcp.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "agent/core/fnv.h"
#include "agent/sync/flow_timing.h"
#include "agent/sync/record.h"

namespace saru::sync {
namespace {

// Worth telling: what goes on without its client noticing that another node has it. A handshake is
// repeated by who began it, a UDP or ICMP exchange that got no answer has nothing to lose.
bool is_worth_it(const Flow& flow) {
  if (flow.key.protocol == kTcp) return flow.state.assured;
  if (flow.key.protocol == kIcmp || flow.key.protocol == kIcmpV6) return flow.state.seen_reply;
  return flow.state.assured;
}

bool is_as_good_as_over(const Flow& flow) {
  return flow.key.protocol == kTcp && (flow.state.tcp_state == TCP_CONNTRACK_TIME_WAIT ||
                                       flow.state.tcp_state == TCP_CONNTRACK_CLOSE);
}

// From ESTABLISHED to LAST_ACK: which of these it is the next owner sees by the next packet.
bool is_in_use(const FlowState& state) {
  return state.tcp_state >= TCP_CONNTRACK_ESTABLISHED && state.tcp_state <= TCP_CONNTRACK_LAST_ACK;
}

}  // namespace

FlowSync::FlowSync(qb_loop_t* loop, FlowRule rule, FlowHost host)
    : host_(std::move(host)),
      rule_(std::make_unique<FlowBlocks>(std::move(rule))),
      replica_(rule_->rule().blocks, [this](const Flow& flow) { return rule_->block_of(flow); }),
      kernel_(loop, {[this](Change change, Flow&& flow) { on_change(change, std::move(flow)); },
                     [this] { resync("the kernel told more than could be heard"); }, host_.log}),
      mine_(rule_->rule().blocks),
      there_(rule_->rule().blocks),
      there_version_(rule_->rule().blocks),
      flush_(loop, [this] { flush(); }),
      compare_(loop, [this] { compare_some(); }),
      tick_(loop, [this] { on_tick(); }),
      soon_(loop, [this] { on_soon(); }) {}

nft::Result<void> FlowSync::start() {
  if (auto started = kernel_.start(); !started) return started;
  look_at_leftovers();
  tick_.start(kTick);
  return {};
}

// ---- Following the core ------------------------------------------------------------------------

void FlowSync::follow() {
  note_join();
  note_ring();
  note_blocks();
  const State& s = host_.state();
  if (!s.view.confirmed) {
    view_.reset();
  } else if (view_ != s.view.id) {
    on_view();
  }
  note_synced();
  if (replica_.has_something()) pump_soon();
}

void FlowSync::note_join() {
  const State& s = host_.state();
  if (s.me == me_) return;
  me_ = s.me;
  said_synced_ = false;
  replica_.joined_anew();
  not_heard_.clear();
  wanted_.clear();
  preparing_.clear();
}

void FlowSync::note_ring() {
  const State& s = host_.state();
  if (s.ring == ring_) return;
  ring_before_ = ring_;
  ring_ = s.ring;
}

// Ours until Released is said; what is lost without it (a lapse) is not.
void FlowSync::note_blocks() {
  const State& s = host_.state();
  if (s.kernel.held.blocks() != mine_.blocks()) return;  // cut_anew() is about to come
  const BlockSet mine = s.kernel.held | s.releasing;
  give_up(mine_ - mine);
  const BlockSet came = mine - mine_;
  mine_ |= came;
  there_ |= came;
}

void FlowSync::give_up(const BlockSet& blocks) {
  const BlockSet gone = blocks.blocks() == mine_.blocks() ? blocks & mine_ : BlockSet(0);
  if (gone.empty()) return;
  const Nanos began = host_.now();
  kernel_.drain();
  take_up_the_rest(gone);
  for (Flows& message : replica_.news_of(gone, kMessageBytes)) {
    if (host_.send(std::move(message))) continue;
    host_.log(LogLevel::kWarning,
              "connections of blocks that this node gives up could not be told");
    break;
  }
  // Gone on with from here once the block is back, they would be as they are now, not as they will
  // have become. Their ending here is no news to anybody.
  remove_from_kernel(gone);
  mine_ -= gone;
  if (resync_) resync_->blocks -= gone;
  replica_.drop_news(gone);
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(host_.now() - began);
  host_.log(LogLevel::kDebug, "told what is left of " + std::to_string(gone.size()) +
                                  " blocks in " + std::to_string(took.count()) + " us");
}

// Handshakes under way, whose clients would wait in vain for an answer to what they say next; and,
// which no event tells, by how much a helper has shifted sequence numbers.
void FlowSync::take_up_the_rest(const BlockSet& blocks) {
  for (auto& [key, one] : half_open_) {
    if (blocks.contains(one.block)) replica_.changed(one.block, key, std::move(one.value));
  }
  std::erase_if(half_open_, [&](const auto& one) { return blocks.contains(one.second.block); });
  std::vector<Flow> helped;
  replica_.for_each(blocks, [&](const std::string& key, const std::string& value, BlockId) {
    if (!has_helper(value)) return;
    if (auto flow = decode(key, value)) helped.push_back(std::move(*flow));
  });
  for (const Flow& one : helped) {
    const auto block = rule_->block_of(one);
    const auto now = kernel_.current(one.key);
    if (block && now) take_up(*block, *now);
  }
}

void FlowSync::note_synced() {
  const bool synced = host_.state().synced;
  if (synced == synced_) return;
  synced_ = synced;
  if (!synced) {
    said_synced_ = false;
    progress_ = host_.now();
    return;
  }
  go_on_preparing();
  remove_leftovers();
}

void FlowSync::cut_anew(FlowRule rule) {
  const bool same =
      rule.blocks == rule_->rule().blocks && rule.selection == rule_->rule().selection &&
      rule.addresses == rule_->rule().addresses && rule.inside == rule_->rule().inside;
  if (same) return;
  const unsigned blocks = rule.blocks;
  rule_ = std::make_unique<FlowBlocks>(std::move(rule));
  replica_.cut_anew(blocks, [this](const Flow& flow) { return rule_->block_of(flow); });
  mine_ = there_ = BlockSet(blocks);
  there_version_.assign(blocks, 0);
  not_heard_.clear();
  wanted_.clear();
  preparing_.clear();
  leftovers_.clear();
  half_open_.clear();
  if (resync_) resync_->blocks = BlockSet(blocks);
  resync_at_ = host_.now();  // what was not told yet is found again
  note_blocks();
}

// ---- What the kernel says ----------------------------------------------------------------------

void FlowSync::on_change(Change change, Flow&& flow) {
  const auto block = rule_->block_of(flow);
  if (!block || !mine_.contains(*block)) return;
  if (resync_) resync_->touched.insert(fnv1a(encode_key(flow.key)));
  if (change == Change::kGone) {
    const std::string key = encode_key(flow.key);
    half_open_.erase(key);
    replica_.over(*block, key);
  } else {
    take_up(*block, flow);
  }
  pump_soon();
}

void FlowSync::take_up(BlockId block, const Flow& flow) {
  const std::string key = encode_key(flow.key);
  FlowState state = flow.state;
  if (const std::string* known = replica_.known(block, key)) {
    if (const auto before = decode(key, *known)) {
      keep_unsaid(before->state, state);
      if (is_in_use(before->state) && is_in_use(state)) state.tcp_state = before->state.tcp_state;
    }
  }
  const Flow whole{flow.key, state};
  if (is_as_good_as_over(whole)) {
    half_open_.erase(key);
    return replica_.over(block, key);
  }
  std::string value = encode_value(state, flow.key.v4, flow.key.protocol);
  if (is_worth_it(whole)) {
    half_open_.erase(key);
    return replica_.changed(block, key, std::move(value));
  }
  const bool room = half_open_.size() < kMostHalfOpen || half_open_.contains(key);
  if (flow.key.protocol == kTcp && state.seen_reply && room) {
    half_open_[key] = {block, std::move(value)};
  }
}

void FlowSync::look_at_leftovers() {
  kernel_.dump(
      [this](Flow&& flow) {
        if (const auto block = rule_->block_of(flow)) leftovers_.emplace_back(*block, flow.key);
      },
      [this](bool) { remove_leftovers(); });
}

// What was in conntrack before others told us of their blocks is older than what they told. Where
// nobody could tell anything it may be all there is: the first comparison takes it up.
void FlowSync::remove_leftovers() {
  if (!said_synced_ || told_nothing_) return;
  std::vector<FlowKey> old;
  for (const auto& [block, key] : leftovers_) {
    if (!mine_.contains(block) && !there_.contains(block)) old.push_back(key);
  }
  leftovers_.clear();
  kernel_.remove(std::move(old));
}

void FlowSync::resync(const std::string& why) {
  if (kernel_.dumping() || resync_) {
    resync_at_ = host_.now() + kTick;
    return;
  }
  resync_at_.reset();
  if (!why.empty()) host_.log(LogLevel::kNotice, why + ": comparing all connections");
  resynced_ = host_.now();
  resync_ = Resync{mine_, {}, {}};
  kernel_.dump(
      [this](Flow&& flow) {
        const auto block = rule_->block_of(flow);
        if (!block || !resync_) return;
        if (!mine_.contains(*block) || !resync_->blocks.contains(*block)) return;
        const std::uint64_t name = fnv1a(encode_key(flow.key));
        if (resync_->touched.contains(name)) return;
        resync_->seen.insert(name);
        take_up(*block, flow);
      },
      [this](bool complete) { end_resync(complete); });
}

void FlowSync::end_resync(bool complete) {
  leftovers_.clear();
  if (!complete) {
    resync_.reset();
    resync_at_ = host_.now() + kTick;
    return;
  }
  std::erase_if(half_open_, [this](const auto& one) {
    return resync_->blocks.contains(one.second.block) && resync_->is_over(one.first);
  });
  compare_some();
}

// What the dump has not shown is over, unless an event has told of it meanwhile.
void FlowSync::compare_some() {
  BlockSet now(mine_.blocks());
  resync_->blocks &= mine_;
  for (std::size_t records = 0; records < kComparedATurn && !resync_->blocks.empty();) {
    const BlockId block = resync_->blocks.first();
    resync_->blocks.erase(block);
    now.insert(block);
    records += replica_.store().of(block).size();
  }
  replica_.for_each(now, [&](const std::string& key, const std::string&, BlockId block) {
    if (resync_->is_over(key)) replica_.over(block, key);
  });
  if (resync_->blocks.empty()) {
    resync_.reset();
  } else {
    compare_.start(kNextTurn);
  }
  pump_soon();
}

bool FlowSync::Resync::is_over(const std::string& key) const {
  const std::uint64_t name = fnv1a(key);
  return !seen.contains(name) && !touched.contains(name);
}

// Connections that were put in place for a block that went to somebody else after all.
void FlowSync::remove_what_is_nobodys() {
  const State& s = host_.state();
  if (!s.view.confirmed || there_.blocks() != s.preparing.blocks()) return;
  const BlockSet idle = there_ - mine_ - s.preparing - s.holding;
  if (!idle.empty()) remove_from_kernel(idle);
}

void FlowSync::remove_from_kernel(const BlockSet& blocks) {
  std::vector<FlowKey> keys;
  replica_.for_each(blocks, [&](const std::string& key, const std::string&, BlockId) {
    if (const auto flow = decode_key(key)) keys.push_back(*flow);
  });
  kernel_.remove(std::move(keys));
  there_ -= blocks;
}

// ---- Putting connections in place --------------------------------------------------------------

void FlowSync::prepare(const PlaceFlows& action) {
  if (action.blocks.blocks() != mine_.blocks()) return;
  preparing_.push_back({action.ticket, action.blocks, host_.now()});
  go_on_preparing();
}

// Who has just come and gets blocks all the same (nobody else can serve) waits a little for what is
// on its way to it.
void FlowSync::go_on_preparing() {
  const Nanos now = host_.now();
  const auto is_on_its_way = [this](const BlockSet& blocks) {
    return std::any_of(wanted_.begin(), wanted_.end(), [&](const auto& asked) {
      return asked.second.blocks() == blocks.blocks() && asked.second.intersects(blocks);
    });
  };
  while (!preparing_.empty()) {
    const Waiting one = preparing_.front();
    const bool waits = waits_for_others() || is_on_its_way(one.blocks);
    if (waits && now - one.since < kLongestHold) {
      soon_.start(kRetry);
      return;
    }
    preparing_.erase(preparing_.begin());
    put(one);
  }
}

// Answered in portions: one kernel write for each block would be too many, one for all too late.
void FlowSync::put(const Waiting& one) {
  const auto placing =
      std::make_shared<Placing>(Placing{one.ticket, BlockSet(one.blocks.blocks()), 0});
  const auto answer = [this, placing] {
    const BlockSet placed = std::exchange(placing->placed, BlockSet(placing->placed.blocks()));
    placing->flows = 0;
    host_.feed(FlowsPlaced{placing->ticket, placed});
  };
  one.blocks.for_each([&](BlockId block) {
    kernel_.inject(
        [this, block, placing] {
          std::vector<Flow> flows = flows_of(block);
          placing->flows += flows.size();
          return flows;
        },
        [block, placing, answer] {
          placing->placed.insert(block);
          if (placing->flows >= kFlowsAnAnswer) answer();
        });
  });
  kernel_.inject([] { return std::vector<Flow>(); }, answer);
}

std::vector<Flow> FlowSync::flows_of(BlockId block) {
  std::vector<Flow> flows;
  if (block.value >= there_.blocks() || mine_.contains(block)) return flows;
  const std::uint64_t version = replica_.store().version(block);
  if (there_.contains(block) && there_version_[block.value] == version) return flows;
  BlockSet one(there_.blocks());
  one.insert(block);
  replica_.for_each(one, [&](const std::string& key, const std::string& value, BlockId) {
    if (auto flow = decode(key, value)) flows.push_back(std::move(*flow));
  });
  there_.insert(block);
  there_version_[block.value] = version;
  return flows;
}

// ---- Time --------------------------------------------------------------------------------------

void FlowSync::on_tick() {
  const Nanos now = host_.now();
  kernel_.mend();
  remove_what_is_nobodys();
  ask_again();
  if (kernel_.counters().failed != failed_) failed_at_ = now;
  failed_ = kernel_.counters().failed;
  if (resync_at_ ? now >= *resync_at_ : now - resynced_ >= kResyncEvery && !mine_.empty()) {
    resync("");
  }
  if (untold_ && view_ && untold_->blocks() == mine_.blocks()) {
    tell_digest(BlockSet(*untold_));
  } else if (now - told_digest_ >= kDigestEvery && view_ && !mine_.empty()) {
    tell_digest(mine_);
  }
  flush();
  tick_.start(kTick);
}

void FlowSync::on_soon() {
  look_whether_synced();
  go_on_preparing();
}

std::string FlowSync::problem() const {
  if (ConntrackEvents::switched_off()) {
    return "net.netfilter.nf_conntrack_events is 0, so the others hear of connections up to a "
           "minute late; set it to 2 (before Linux 5.19 to 1)";
  }
  const State& s = host_.state();
  const Nanos now = host_.now();
  if (failed_at_ && now - *failed_at_ < kRememberFailures) {
    return std::to_string(kernel_.counters().failed) +
           " connections could not be taken over: " + kernel_.counters().error;
  }
  const bool knows_whom = view_ && *view_ == s.view.id && has_quorum(s);
  if (knows_whom && waits_for_others() && now - progress_ >= kTick) {
    std::string text = "does not know yet the connections of";
    std::set<NodeId> nodes;
    for (const ProcessId& process : not_heard_) nodes.insert(process.node);
    for (const auto& [from, blocks] : wanted_) nodes.insert(from.process.node);
    for (const NodeId& node : nodes) text += " node " + std::to_string(node.value);
    return text;
  }
  return "";
}

FlowStatus FlowSync::status() const {
  FlowStatus status;
  status.synced = host_.state().synced;
  status.known = replica_.store().size();
  mine_.for_each([&](BlockId block) { status.own += replica_.store().of(block).size(); });
  status.unsent = replica_.news();
  for (const auto& [from, blocks] : wanted_) status.blocks_wanted += blocks.size();
  for (const ProcessId& process : not_heard_) status.not_heard.push_back(process.node);
  status.putting = !kernel_.idle() || !preparing_.empty();
  status.dumping = kernel_.dumping();
  status.replica = replica_.counters();
  status.kernel = kernel_.counters();
  return status;
}

}  // namespace saru::sync
