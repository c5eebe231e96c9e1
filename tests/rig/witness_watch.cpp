// SPDX-License-Identifier: GPL-2.0-or-later
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>

#include "witness_capture.h"
#include "witness_judge.h"
#include "witness_run.h"
#include "witness_summary.h"

namespace witness {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kMsNs = 1'000'000;
// Frames of the last moment may still come through another ring; they are judged a round later.
constexpr std::uint64_t kHoldNs = 200 * kMsNs;
constexpr std::uint64_t kRoundNs = 100 * kMsNs;
constexpr std::uint64_t kPresenceNs = 500 * kMsNs;
constexpr std::uint64_t kClockStepNs = 2 * kMsNs;
constexpr std::uint64_t kLinesPerKind = 50;
constexpr std::uint64_t kGapLines = 20000;

volatile std::sig_atomic_t stop_requested = 0;

void on_signal(int) { stop_requested = 1; }

std::uint64_t now_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

struct CloseFile {
  void operator()(std::FILE* file) const noexcept {
    if (file != stdout) std::fclose(file);
  }
};
using FilePtr = std::unique_ptr<std::FILE, CloseFile>;

class Watcher {
 public:
  explicit Watcher(const WatchOptions& options)
      : options_(options), judge_(options.setup, {options.max_gap_ms * kMsNs}) {}

  int run();

 private:
  Result<void> open_files();
  void connect_judge();
  void print(const Json& json);
  void round(std::uint64_t horizon_ns);
  void check_clock();
  int finish();

  const WatchOptions& options_;
  Judge judge_;
  std::unique_ptr<Capture> capture_;
  FilePtr output_;
  FilePtr records_;
  std::vector<Record> waiting_;
  std::map<std::string, std::uint64_t> lines_;
  std::uint64_t gap_lines_ = 0;
  std::uint64_t clock_steps_ = 0;
  std::int64_t clock_offset_ns_ = 0;
  bool write_failed_ = false;
};

void Watcher::print(const Json& json) {
  const std::string line = json.dump() + "\n";
  if (std::fwrite(line.data(), 1, line.size(), output_.get()) != line.size() ||
      std::fflush(output_.get()) != 0) {
    write_failed_ = true;
  }
}

Result<void> Watcher::open_files() {
  output_.reset(options_.output.empty() ? stdout : std::fopen(options_.output.c_str(), "we"));
  if (!output_) {
    return tl::unexpected("cannot write " + options_.output + ": " + std::strerror(errno));
  }
  if (options_.records.empty()) return {};
  records_.reset(std::fopen(options_.records.c_str(), "wbe"));
  if (!records_) {
    return tl::unexpected("cannot write " + options_.records + ": " + std::strerror(errno));
  }
  const std::string header = to_json(options_.setup).dump() + "\n";
  if (std::fwrite(header.data(), 1, header.size(), records_.get()) != header.size()) {
    return tl::unexpected("cannot write " + options_.records + ": " + std::strerror(errno));
  }
  std::fflush(records_.get());
  return {};
}

void Watcher::connect_judge() {
  judge_.on_violation([this](const Violation& violation) {
    if (++lines_[violation.kind] > kLinesPerKind) return;  // the summary counts all of them
    print({{"type", "violation"},
           {"kind", violation.kind},
           {"realtime_ns", violation.time_ns},
           {"text", violation.text}});
  });
  judge_.on_gap([this](const StreamKey& key, const Gap& gap) {
    if (gap.unanswered == 0 || ++gap_lines_ > kGapLines) return;
    Json json{{"type", "gap"}};
    json.update(gap_json(options_.setup, key, gap));
    print(json);
  });
}

void Watcher::check_clock() {
  const auto offset = static_cast<std::int64_t>(now_ns(CLOCK_REALTIME)) -
                      static_cast<std::int64_t>(now_ns(CLOCK_MONOTONIC));
  const std::int64_t moved = std::abs(offset - clock_offset_ns_);
  if (clock_offset_ns_ != 0 && static_cast<std::uint64_t>(moved) > kClockStepNs) {
    // Being preempted between the two readings looks the same: read again before believing it.
    const auto again = static_cast<std::int64_t>(now_ns(CLOCK_REALTIME)) -
                       static_cast<std::int64_t>(now_ns(CLOCK_MONOTONIC));
    if (static_cast<std::uint64_t>(std::abs(again - clock_offset_ns_)) > kClockStepNs) {
      ++clock_steps_;
      clock_offset_ns_ = again;
    }
    return;
  }
  clock_offset_ns_ = offset;
}

// Judges all waiting records that are older than the horizon.
void Watcher::round(std::uint64_t horizon_ns) {
  if (const std::uint64_t drops = capture_->take_drops(); drops != 0) {
    Record record;
    record.time_ns = now_ns(CLOCK_REALTIME);
    record.kind = Kind::kDrops;
    record.id = drops;
    waiting_.push_back(record);
  }
  std::stable_sort(waiting_.begin(), waiting_.end(), [](const Record& left, const Record& right) {
    return left.time_ns < right.time_ns;
  });
  const auto end =
      std::partition_point(waiting_.begin(), waiting_.end(),
                           [&](const Record& record) { return record.time_ns <= horizon_ns; });
  const auto count = static_cast<std::size_t>(end - waiting_.begin());
  if (records_ && count != 0) {
    if (std::fwrite(waiting_.data(), sizeof(Record), count, records_.get()) != count ||
        std::fflush(records_.get()) != 0) {
      write_failed_ = true;
    }
  }
  std::for_each(waiting_.begin(), end, [this](const Record& record) { judge_.feed(record); });
  waiting_.erase(waiting_.begin(), end);
  check_clock();
}

int Watcher::finish() {
  capture_->take(20, waiting_);  // what the kernel hands over within its block time
  capture_->take(20, waiting_);
  round(UINT64_MAX);
  judge_.finish(now_ns(CLOCK_REALTIME));
  auto doubt_list = doubts(judge_.totals(), capture_->missing_links(), clock_steps_);
  if (write_failed_) doubt_list.push_back({"not everything could be written: is the disk full?"});
  const Verdict verdict = verdict_of(judge_.totals(), doubt_list);
  Json summary = summary_json(options_.setup, judge_, verdict, doubt_list);
  summary["frames"] = Json::object();
  for (std::size_t i = 0; i < options_.setup.links.size(); ++i) {
    summary["frames"][options_.setup.links[i].name] = capture_->frames_by_link()[i];
  }
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  summary["cpu_s"] = static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
  print(summary);
  std::cerr << "saru-witness: " << summary_text(summary);
  return static_cast<int>(verdict);
}

int Watcher::run() {
  if (auto opened = open_files(); !opened) {
    std::cerr << "saru-witness: " << opened.error() << "\n";
    return kExitUsage;
  }
  auto capture = Capture::open(options_.setup, options_.ring_kib);
  if (!capture) {
    std::cerr << "saru-witness: " << capture.error() << "\n";
    return kExitUsage;
  }
  capture_ = std::move(*capture);
  const sched_param parameter{options_.priority};
  if (options_.priority > 0 && sched_setscheduler(0, SCHED_FIFO, &parameter) != 0) {
    std::cerr << "saru-witness: cannot get real-time priority: " << std::strerror(errno) << "\n";
    return kExitUsage;
  }
  connect_judge();
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);

  const std::uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
  print({{"type", "started"},
         {"realtime_ns", now_ns(CLOCK_REALTIME)},
         {"monotonic_ns", start_ns},
         {"missing_links", capture_->missing_links_now()}});
  const auto length_ns = static_cast<std::uint64_t>(options_.seconds * 1e9);
  std::uint64_t round_ns = start_ns;
  std::uint64_t presence_ns = start_ns;
  while (stop_requested == 0) {
    const std::uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (length_ns != 0 && now - start_ns >= length_ns) break;
    const std::uint64_t horizon_ns = now_ns(CLOCK_REALTIME) - kHoldNs;
    capture_->take(20, waiting_);
    if (now - round_ns >= kRoundNs) {
      round(horizon_ns);
      round_ns = now;
    }
    if (now - presence_ns >= kPresenceNs) {
      (void)capture_->missing_links();
      presence_ns = now;
    }
  }
  return finish();
}

}  // namespace

int watch(const WatchOptions& options) { return Watcher(options).run(); }

}  // namespace witness
