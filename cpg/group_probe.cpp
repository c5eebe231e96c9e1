// SPDX-License-Identifier: GPL-2.0-or-later
// A member of a group that decides nothing: it prints what its adapters give it, one line per
// event, and does what it reads on standard input. For tests, and for looking at a cluster.
//   group_probe [CLUSTER_ID]
// Reads: send N      N beats               storm N   N of the longest messages, 12 KiB each
//        rejoin, leave, join               agree     to corosync's shutdown
//        guard MS    from now on leave and join again after a pause of its own longer than that
//        facts, counters, quit
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cpg/cmap.h"
#include "cpg/group.h"
#include "cpg/loop.h"
#include "cpg/quorum.h"
#include "cpg/shutdown.h"

namespace saru {
namespace {

constexpr std::chrono::milliseconds kTick{10};

Nanos now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &time);
  return std::chrono::seconds(time.tv_sec) + Nanos(time.tv_nsec);
}

std::string show(NodeId node) { return std::to_string(node.value); }
std::string show(ProcessId process) {
  return show(process.node) + "/" + std::to_string(process.pid);
}
std::string show(RingId ring) { return show(ring.representative) + "." + std::to_string(ring.seq); }
template <class Item>
std::string show(const std::vector<Item>& list) {
  std::string text = "[";
  for (const Item& item : list) text += (text.size() > 1 ? " " : "") + show(item);
  return text + "]";
}

class Probe {
 public:
  Probe(qb_loop_t* loop, std::uint16_t cluster_id)
      : loop_(loop),
        group_(loop, cluster_id, hooks()),
        shutdown_(loop,
                  {.on_shutdown = [this] { say("shutdown"); },
                   .on_cancelled = [this] { say("cancelled"); }},
                  hooks()),
        input_(loop, [this] { read_input(); }),
        tick_(loop, [this] { tick(); }) {}

  void start() {
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    input_.watch(STDIN_FILENO);
    tick_.start(kTick);
    last_tick_ = now();
    group_.join();
    shutdown_.start();
  }

 private:
  Hooks hooks() {
    return {.sink = [this](EventBody event) { std::visit([&](const auto& e) { on(e); }, event); },
            .before_dispatch = [this] { before_dispatch(); },
            .log = [this](LogLevel, const std::string& text) { say("log " + text); }};
  }

  // Line by line, so that a reader of the pipe sees it at once.
  void say(const std::string& line) {
    const double seconds = std::chrono::duration<double>(now()).count();
    std::printf("%.6f %s\n", seconds, line.c_str());
    std::fflush(stdout);
  }

  void before_dispatch() {
    ++dispatches_;
    const Nanos at = now();
    const Nanos gap = at - std::exchange(seen_, at);
    if (guard_ == Nanos(0) || gap < guard_) return;
    say("paused");
    group_.rejoin();
  }

  void on(const Joined& joined) {
    say("joined " + show(joined.me.process) + " nonce " + std::to_string(joined.me.nonce));
    if (!quorum_) {
      quorum_.emplace(loop_, joined.me.process.node, hooks());
      quorum_->start();
    }
    number_ = 0;
  }
  void on(const Disconnected&) { say("disconnected"); }
  void on(const GroupChanged& e) {
    say("group " + show(e.members) + " left " + show(e.left) + " joined " + show(e.joined));
  }
  void on(const RingChanged& e) { say("ring " + show(e.ring) + " " + show(e.members)); }
  void on(const QuorumChanged& e) {
    say("quorum " + std::string(e.quorate ? "yes " : "no ") + show(e.ring) + " " + show(e.members) +
        " joined " + show(e.joined));
  }
  void on(const Received& e) {
    std::string what = "other";
    if (const auto* beat = std::get_if<Beat>(&e.message.body))
      what = "beat " + std::to_string(beat->n);
    if (const auto* hello = std::get_if<Hello>(&e.message.body)) {
      what = "hello " + std::to_string(hello->config_next);
    }
    say("message " + show(e.from) + " " + what);
  }
  template <class Other>
  void on(const Other&) {}

  Message message(Body body) {
    return {.sender = group_.me(), .view = {}, .excluded = {}, .body = std::move(body)};
  }
  void send(Body body) {
    const auto sent = group_.send(message(std::move(body)));
    if (!sent) say("refused " + sent.error().text);
  }

  static Hello longest_hello(std::uint64_t number) {
    Hello hello;
    hello.config_next = number;
    hello.held = BlockSet(kMaxBlocks);
    hello.lingering = BlockSet(kMaxBlocks);
    for (std::uint32_t n = 1; n <= kMaxDropped; ++n) {
      const MemberId gone{.process = {.node = NodeId{n}, .pid = 1}, .nonce = number};
      hello.dropped.push_back(gone);
      hello.departed.push_back({.member = gone, .remaining = {}});
      if (n <= kMaxMembers) hello.group.push_back(gone.process);
    }
    return hello;
  }

  // The loop must come round every kTick; the longest gap tells whether anything blocked it.
  void tick() {
    const Nanos at = now();
    longest_gap_ = std::max(longest_gap_, at - last_tick_);
    last_tick_ = at;
    tick_.start(kTick);
    before_dispatch();
  }

  void read_input() {
    char buffer[4096];
    const ssize_t size = read(STDIN_FILENO, buffer, sizeof buffer);
    if (size == 0) return qb_loop_stop(loop_);
    if (size < 0) return;
    typed_.append(buffer, static_cast<std::size_t>(size));
    for (std::size_t end = 0; (end = typed_.find('\n')) != std::string::npos;) {
      std::istringstream line(typed_.substr(0, end));
      typed_.erase(0, end + 1);
      std::string word;
      line >> word;
      command(word, line);
    }
  }

  void command(const std::string& word, std::istream& rest) {
    unsigned long count = 0;
    if (word == "send") {
      rest >> count;
      for (; count > 0; --count)
        send(Beat{.n = ++number_, .lease = {}, .t_send = now(), .reports = {}});
    } else if (word == "storm") {
      rest >> count;
      for (; count > 0; --count) send(longest_hello(++number_));
    } else if (word == "guard") {
      rest >> count;
      guard_ = std::chrono::milliseconds(count);
    } else if (word == "rejoin") {
      group_.rejoin();
    } else if (word == "leave") {
      group_.leave([this] { say("left"); });
    } else if (word == "join") {
      group_.join();
    } else if (word == "agree") {
      shutdown_.agree();
    } else if (word == "facts") {
      read_facts(loop_, [this](const auto& facts) { say_facts(facts); });
    } else if (word == "counters") {
      say_counters();
    } else if (word == "quit") {
      qb_loop_stop(loop_);
    } else {
      say("unknown command: " + word);
    }
  }

  void say_counters() {
    const Group::Counters c = group_.counters();
    std::uint64_t refused = 0;
    for (const std::uint64_t n : c.refused) refused += n;
    const auto gap = std::chrono::duration_cast<std::chrono::milliseconds>(longest_gap_);
    say("counters sent=" + std::to_string(c.sent) + " received=" + std::to_string(c.received) +
        " try_again=" + std::to_string(c.try_again) +
        " beats_replaced=" + std::to_string(c.beats_replaced) + " lost=" + std::to_string(c.lost) +
        " disconnects=" + std::to_string(c.disconnects) + " in_flight=" +
        std::to_string(c.in_flight) + " in_flight_max=" + std::to_string(c.in_flight_max) +
        " queued=" + std::to_string(c.queued) + " refused=" + std::to_string(refused) +
        " gap_ms=" + std::to_string(gap.count()) + " dispatches=" + std::to_string(dispatches_));
    longest_gap_ = Nanos(0);
  }

  void say_facts(const tl::expected<ClusterFacts, CorosyncError>& facts) {
    if (!facts) return say("facts error " + facts.error().text);
    const auto ms = [](Nanos t) { return std::to_string(t / std::chrono::milliseconds(1)); };
    std::string nodes;
    for (const ClusterNode& node : facts->nodes) {
      nodes += " " + show(node.id) + "=" + node.name + "=" + node.address + "=" +
               std::to_string(node.votes);
    }
    say("facts local " + show(facts->local) + " token " + ms(facts->token) + " consensus " +
        ms(facts->consensus) + " votes " + std::to_string(facts->votes) + "/" +
        std::to_string(facts->expected_votes) + " two_node " + std::to_string(facts->two_node) +
        " qdevice " + std::to_string(facts->quorum_device) + " lms " +
        std::to_string(facts->last_man_standing) + " crypto " + facts->crypto_cipher + " nodes" +
        nodes);
  }

  qb_loop_t* loop_;
  Group group_;
  std::optional<Quorum> quorum_;
  ShutdownWatch shutdown_;
  LoopFd input_;
  LoopTimer tick_;
  std::string typed_;
  std::uint64_t number_ = 0;
  std::uint64_t dispatches_ = 0;
  Nanos guard_{0};
  Nanos seen_ = now();
  Nanos last_tick_{0};
  Nanos longest_gap_{0};
};

}  // namespace
}  // namespace saru

int main(int argc, char** argv) {
  const int id = argc > 1 ? static_cast<int>(std::strtol(argv[1], nullptr, 10)) : 1;
  if (id < 1 || id > 65535) {
    std::fprintf(stderr, "usage: group_probe [CLUSTER_ID 1-65535]\n");
    return 2;
  }
  qb_loop_t* loop = qb_loop_create();
  {
    saru::Probe probe(loop, static_cast<std::uint16_t>(id));
    probe.start();
    qb_loop_run(loop);
  }
  qb_loop_destroy(loop);
  return 0;
}
