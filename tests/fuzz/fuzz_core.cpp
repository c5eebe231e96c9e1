// SPDX-License-Identifier: GPL-2.0-or-later
// A member of the group that says what it likes: whatever well-formed messages and membership
// changes come in whatever order, the core does not abort, takes no block without quorum, holds
// none once that is lost nor longer than a lease after a beat of its own, and sends only what can
// be encoded.
#include <variant>
#include <vector>

#include "agent/core/state.h"
#include "cpg/wire.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/sealed.h"

namespace {

using namespace saru;
using fuzz::Input;
using fuzz::must;

constexpr unsigned kNodes = 4;

ProcessId process(unsigned number) {
  return {.node = NodeId{1 + number % kNodes}, .pid = 100 + number % kNodes};
}

class Member {
 public:
  explicit Member(Input input) : in_(input), state_(config()) {}

  void live() {
    feed(Joined{{process(0), 4711}});
    feed(RingChanged{ring(), nodes(0x0f)});
    feed(QuorumChanged{ring(), true, nodes(0x0f), nodes(0x0f)});
    feed(GroupChanged{group(0x0f), {}, group(0x0f)});
    for (int i = 0; i < 64 && !in_.empty(); ++i) one();
  }

 private:
  static Config config() {
    Config config;
    config.node_name = "n1";
    config.node = NodeId{1};
    config.blocks = 16;
    config.lease = config.longest_lease = std::chrono::milliseconds(1000);
    config.config_hash = 1;
    config.quorum_votes = 3;
    config.expected_votes = kNodes;
    config.stays = true;
    return config;
  }

  RingId ring() const { return {.representative = NodeId{1}, .seq = seq_}; }

  std::vector<NodeId> nodes(unsigned mask) const {
    std::vector<NodeId> found;
    for (unsigned i = 0; i < kNodes; ++i) {
      if (i == 0 || (mask >> i & 1) != 0) found.push_back(process(i).node);
    }
    return found;
  }
  std::vector<ProcessId> group(unsigned mask) const {
    std::vector<ProcessId> found;
    for (unsigned i = 0; i < kNodes; ++i) {
      if ((mask >> i & 1) != 0) found.push_back(process(i));
    }
    return found;
  }

  void one() {
    switch (in_.byte() % 16) {
      case 0: {
        seq_ += 1 + in_.byte() % 4;
        const unsigned mask = in_.byte();
        return feed(RingChanged{ring(), nodes(mask)});
      }
      case 1: {
        const unsigned mask = in_.byte();
        quorate_ = in_.byte() % 4 != 0;
        return feed(QuorumChanged{ring(), quorate_, nodes(mask), nodes(in_.byte())});
      }
      case 2: {
        const unsigned now = in_.byte() | 1;
        const unsigned left = in_.byte();
        return feed(GroupChanged{group(now), group(left), group(in_.byte())});
      }
      case 3:
        return feed(KernelDisturbed{"somebody"});
      case 4:
        now_ += std::chrono::milliseconds(in_.number(2) % 2000);
        return feed(Tick{});
      case 5:
        return feed(SetWeight{static_cast<std::uint16_t>(in_.number(2))});
      case 6:
        return feed(SetEligible{in_.byte() % 2 == 0, "told so"});
      case 7:
        return feed(Reconfigure{in_.byte(), 16U << in_.byte() % 3,
                                std::chrono::milliseconds(100 + in_.number(2)),
                                in_.byte() % 2 == 0});
      case 8:
        return in_.byte() % 8 == 0 ? feed(StopRequested{}) : feed(Disconnected{});
      case 9:
      case 10:
      case 11:
        now_ += std::chrono::milliseconds(in_.byte());
        return agree();
      default:
        now_ += std::chrono::milliseconds(in_.byte());
        return receive();
    }
  }

  // What honest members say that have heard all of it: our own last Hello and beat, but their own.
  void agree() {
    const auto others = state_.group;
    for (const ProcessId& one : others) {
      if (one == state_.me.process) continue;
      const MemberId other{one, nonce_of(one)};
      hello_.node_name = "n" + std::to_string(one.node.value);
      hello_.held = hello_.lingering = BlockSet(hello_.held.blocks());
      feed(Received{one, Message{other, state_.view.id, {}, hello_}});
      beat_.reports = {{.nonce = state_.me.nonce, .n = beat_.n}};
      for (const ProcessId& third : others) {
        if (third == one || third == state_.me.process) continue;
        beat_.reports.push_back({.nonce = nonce_of(third), .n = beat_.n});
      }
      feed(Received{one, Message{other, state_.view.id, {}, beat_}});
    }
  }
  static std::uint64_t nonce_of(const ProcessId& other) { return 1000 + other.pid; }

  // Head: type, who, of which view; the rest as it comes. One in two is of the present view.
  void receive() {
    std::vector<std::byte> bytes(44);
    const unsigned type = 1 + in_.byte() % 7;
    const unsigned who = in_.byte() % kNodes;
    const unsigned how = in_.byte();
    const MemberId sender = who == 0 && how % 8 != 0 ? state_.me : MemberId{process(who), how / 16};
    fuzz::put_number(bytes, 5, type, 1);
    fuzz::put_number(bytes, 12, sender.process.node.value, 4);
    fuzz::put_number(bytes, 16, sender.process.pid, 4);
    fuzz::put_number(bytes, 20, sender.nonce, 8);
    const ViewId view = how % 2 == 0 ? state_.view.id : ViewId{ring(), in_.byte()};
    fuzz::put_number(bytes, 28, view.ring.representative.value, 4);
    fuzz::put_number(bytes, 32, view.ring.seq, 8);
    fuzz::put_number(bytes, 40, view.round, 4);
    const auto body = in_.piece();
    const auto* first = reinterpret_cast<const std::byte*>(body.data());
    bytes.insert(bytes.end(), first, first + body.size());
    bytes = fuzz::sealed(std::move(bytes));
    auto message = decode(fuzz::kClusterId, bytes, sender.process);
    if (message) return feed(Received{sender.process, std::move(*message)});
    feed(Tick{});
  }

  void feed(EventBody body) {
    if (std::holds_alternative<Disconnected>(body)) quorate_ = false;
    queue_.push_back(std::move(body));
    for (std::size_t at = 0; at < queue_.size() && at < 200; ++at) {
      now_ += std::chrono::microseconds(10);
      Step next = step(std::move(state_), Event{{now_, now_}, std::move(queue_[at])});
      state_ = std::move(next.state);
      for (const Action& action : next.actions) {
        std::visit([this](const auto& one) { carry_out(one); }, action);
      }
    }
    queue_.clear();
    must(next_wakeup(state_) >= Nanos(0), "a wake-up is a moment");
  }

  void carry_out(const Send& send) {
    if (const auto* hello = std::get_if<Hello>(&send.message.body)) hello_ = *hello;
    if (const auto* beat = std::get_if<Beat>(&send.message.body)) {
      beat_ = *beat;
      granted_max_ = std::max(granted_max_, now_ + beat->lease);
    }
    const auto bytes = encode(fuzz::kClusterId, send.message);
    const auto again = decode(fuzz::kClusterId, bytes, send.message.sender.process);
    must(again.has_value(), "what the core sends can be read");
    if (in_.size() % 3 != 0) queue_.push_back(Received{send.message.sender.process, *again});
  }
  void carry_out(const KernelWrite& write) {
    const Accepting& is = write.accepting;
    must(is.empty() || write.deadline.has_value(), "blocks are under a deadline");
    // While the quorum of a new ring is not known, what is held stays, and may be written anew.
    must(is.empty() || (state_.quorum && state_.quorum->quorate), "none once it is lost");
    must(!is.owned.intersects(is.lingering), "nothing is owned and lingers");
    must((is.contested - is.owned).empty(), "only what is owned is contested");
    const bool same = is.blocks() == held_.blocks();
    const bool more = same ? !(is.owned - held_.owned).empty() : !is.owned.empty();
    // What lingers was ours.
    must(!same || (is.lingering - held_.lingering - held_.owned).empty(), "only ours linger");
    must(!more || has_quorum(state_), "no further block without quorum");
    must(!write.deadline || write.deadline->raw <= granted_max_, "no longer than a lease");
    const bool good = in_.size() % 7 != 0;
    held_ = good ? is : Accepting::nothing(is.blocks());
    queue_.push_back(KernelDone{write.seq, good, held_, ""});
  }
  void carry_out(const Rejoin&) { queue_.push_back(Joined{{process(0), ++nonce_}}); }
  template <class Other>
  void carry_out(const Other&) {}

  Input in_;
  State state_;
  Nanos now_ = std::chrono::hours(1);
  std::uint64_t seq_ = 1;
  std::uint64_t nonce_ = 5000;
  bool quorate_ = true;
  Accepting held_{};  // by the kernel
  Hello hello_;       // the last ones that we have sent
  Beat beat_;
  Nanos granted_max_{0};  // a lease after our last beat
  std::vector<EventBody> queue_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Member(Input(data, size)).live();
  return 0;
}
