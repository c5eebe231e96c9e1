// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/flow_kernel.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "agent/sync/flow_timing.h"

namespace saru::sync {
namespace {

// A turn of the loop takes no longer than some milliseconds.
constexpr std::size_t kEventsATurn = 2000;
constexpr std::size_t kFlowsATurn = 500;
// More events than this at once (a flush of the table, say) would take longer than half a lease.
constexpr std::size_t kMostDrained = 100'000;

}  // namespace

FlowKernel::FlowKernel(qb_loop_t* loop, Callbacks callbacks)
    : callbacks_(std::move(callbacks)),
      events_ready_(loop, [this] { on_events(); }),
      events_rest_(loop, [this] { on_events(); }),
      dump_ready_(loop, [this] { on_dump(); }),
      turn_(loop, [this] { work(); }) {}

nft::Result<void> FlowKernel::start() {
  auto writer = ConntrackWriter::open();
  if (!writer) return tl::unexpected<Error>(writer.error());
  writer_ = std::move(*writer);
  return open_events();
}

nft::Result<void> FlowKernel::open_events() {
  events_ready_.unwatch();
  auto events = ConntrackEvents::open();
  if (!events) return tl::unexpected<Error>(events.error());
  events_ = std::move(*events);
  hears_of_new_ = true;
  if (events_ready_.watch(events_->fd())) return {};
  return tl::unexpected<Error>(
      Error{ErrorKind::kFailed, "cannot watch the events of conntrack: no memory"});
}

// True: there may be more.
bool FlowKernel::read_events(std::size_t most) {
  if (!events_) return false;
  const auto read = events_->read(most, [this](Change change, Flow&& flow, std::uint32_t port_id) {
    if (port_id != writer_->port_id()) callbacks_.on_change(change, std::move(flow));
  });
  if (!read) {
    callbacks_.log(LogLevel::kWarning, read.error().text + ": listening anew");
    ++counters_.overruns;
    if (const auto again = open_events(); !again) {
      callbacks_.log(LogLevel::kError, again.error().text);
      events_.reset();  // mend() tries again
    }
    callbacks_.on_lost();
    return false;
  }
  counters_.events += read->events;
  if (read->lost) {
    ++counters_.overruns;
    callbacks_.on_lost();
  }
  return read->more;
}

void FlowKernel::mend() {
  if (events_ || !open_events()) return;
  callbacks_.log(LogLevel::kNotice, "hears the events of conntrack again");
  callbacks_.on_lost();
}

// One event after the other, as they come, would cost a turn of the loop each.
void FlowKernel::on_events() {
  events_ready_.unwatch();
  const std::uint64_t before = counters_.events;
  const bool more = read_events(kEventsATurn);
  if (!events_) return;
  const bool rests = more                         ? events_rest_.start(kNextTurn)
                     : counters_.events != before ? events_rest_.start(kEventsRest)
                                                  : false;
  if (rests || events_ready_.watch(events_->fd())) return;
  events_rest_.start(kEventsRest);
}

// A packet that the last ruleset let by may still be on its way to conntrack, for some
// microseconds, on another CPU. Waiting until all CPUs have passed it (MEMBARRIER_CMD_GLOBAL) took
// 16 to 25 ms, in which nobody answers.
void FlowKernel::drain() { (void)read_events(kMostDrained); }

std::optional<Flow> FlowKernel::current(const FlowKey& key) {
  auto flow = writer_->current(key);
  return flow ? std::move(*flow) : std::nullopt;
}

void FlowKernel::dump(std::function<void(Flow&&)> each, std::function<void(bool)> done) {
  each_ = std::move(each);
  done_ = std::move(done);
  if (!dump_) {
    auto opened = ConntrackDump::open();
    if (!opened || !dump_ready_.watch(opened->fd())) {
      callbacks_.log(LogLevel::kWarning,
                     opened ? "cannot watch a dump of conntrack: no memory" : opened.error().text);
      return end_dump(false);
    }
    dump_ = std::move(*opened);
  }
  if (const auto begun = dump_->begin(); !begun) {
    callbacks_.log(LogLevel::kWarning, begun.error().text);
    end_dump(false);
  }
}

void FlowKernel::on_dump() {
  if (!dump_) return;
  const auto ended = dump_->read([this](Flow&& flow) {
    if (each_) each_(std::move(flow));
  });
  if (!ended) {
    callbacks_.log(LogLevel::kWarning, ended.error().text);
    end_dump(false);
  } else if (*ended) {
    end_dump(true);
  }
}

void FlowKernel::end_dump(bool complete) {
  each_ = nullptr;
  if (!complete) {
    dump_ready_.unwatch();
    dump_.reset();
  }
  if (const auto done = std::exchange(done_, nullptr)) done(complete);
}

void FlowKernel::remove(std::vector<FlowKey> keys) {
  if (keys.empty()) return;
  jobs_.push_back({std::move(keys), nullptr, {}, nullptr});
  if (!turn_.running()) turn_.start(kNextTurn);
}

void FlowKernel::inject(std::function<std::vector<Flow>()> make, std::function<void()> done) {
  jobs_.push_back({{}, std::move(make), {}, std::move(done)});
  if (!turn_.running()) turn_.start(kNextTurn);
}

void FlowKernel::work() {
  std::size_t left = kFlowsATurn;
  while (!jobs_.empty() && left > 0) {
    Job& job = jobs_.front();
    if (job.make) {
      job.flows = std::exchange(job.make, nullptr)();
    }
    const std::size_t all = std::max(job.gone.size(), job.flows.size());
    const std::size_t now = std::min(left, all - job.at);
    if (!job.gone.empty()) {
      const auto outcome = writer_->remove(std::span(job.gone).subspan(job.at, now));
      counters_.removed += outcome.done;
      if (outcome.failed > 0) callbacks_.log(LogLevel::kWarning, outcome.first_error);
    } else if (now > 0) {
      hear_of_new(false);
      const auto outcome = writer_->inject(std::span(job.flows).subspan(job.at, now));
      counters_.injected += outcome.done;
      counters_.replaced += outcome.replaced;
      note(outcome);
    }
    job.at += now;
    left -= std::max<std::size_t>(now, 1);
    if (job.at < all) break;
    const auto done = std::move(job.done);
    jobs_.pop_front();
    if (done) done();
  }
  if (jobs_.empty()) return hear_of_new(true);
  if (!turn_.running()) turn_.start(kNextTurn);
}

// Of each connection that is made here the kernel would tell this process, too, which takes it as
// long as the making. Packets' connections are told of as they change (nft/plan_events.cpp); what
// another program makes meanwhile the next comparison finds.
void FlowKernel::hear_of_new(bool wanted) {
  if (!events_ || hears_of_new_ == wanted) return;
  if (const auto done = events_->hear_of_new(wanted); !done) {
    return callbacks_.log(LogLevel::kWarning, done.error().text);
  }
  hears_of_new_ = wanted;
}

void FlowKernel::note(const ConntrackWriter::Outcome& outcome) {
  const bool first = !outcome.first_error.empty() && counters_.error != outcome.first_error;
  counters_.failed += outcome.failed;
  if (!first) return;
  counters_.error = outcome.first_error;
  if (outcome.failed == 0) return callbacks_.log(LogLevel::kWarning, outcome.first_error);
  callbacks_.log(LogLevel::kError,
                 std::to_string(outcome.failed) +
                     " connections could not be taken over: " + outcome.first_error);
}

}  // namespace saru::sync
