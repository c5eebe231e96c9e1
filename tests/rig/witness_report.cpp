// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iostream>
#include <memory>

#include "witness_judge.h"
#include "witness_run.h"
#include "witness_summary.h"

namespace witness {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kMsNs = 1'000'000;
// Connections that were opened this long before a window are still known inside it.
constexpr std::uint64_t kHistoryNs = 30'000 * kMsNs;
// Probes and answers further from a window than this cannot touch it.
constexpr std::uint64_t kAnswersNs = 2'500 * kMsNs;

// A --records file, mapped. Records may stand at odd addresses, so they are copied out one by one.
class Recording {
 public:
  static Result<std::unique_ptr<Recording>> open(const std::string& path);
  Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  const Setup& setup() const { return setup_; }
  std::size_t size() const { return count_; }
  Record at(std::size_t index) const {
    Record record;
    std::memcpy(&record, records_ + index * sizeof record, sizeof record);
    return record;
  }
  Kind kind_at(std::size_t index) const {
    return static_cast<Kind>(records_[index * sizeof(Record) + offsetof(Record, kind)]);
  }
  // The first record that is not older; the watch writes them in order of time.
  std::size_t first_since(std::uint64_t time_ns) const {
    std::size_t low = 0;
    std::size_t high = count_;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (at(middle).time_ns < time_ns) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

 private:
  Setup setup_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  const std::uint8_t* records_ = nullptr;
  std::size_t count_ = 0;
};

Result<std::unique_ptr<Recording>> Recording::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts {};
  if (fd < 0 || fstat(fd, &facts) != 0) {
    const std::string why = "cannot read " + path + ": " + std::strerror(errno);
    if (fd >= 0) close(fd);
    return tl::unexpected(why);
  }
  auto recording = std::make_unique<Recording>();
  recording->bytes_ = static_cast<std::size_t>(facts.st_size);
  void* mapped = recording->bytes_ == 0
                     ? MAP_FAILED
                     : mmap(nullptr, recording->bytes_, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED) return tl::unexpected(path + " is empty or cannot be mapped");
  recording->data_ = mapped;
  const auto* text = static_cast<const char*>(mapped);
  const auto* newline = static_cast<const char*>(std::memchr(text, '\n', recording->bytes_));
  if (newline == nullptr) return tl::unexpected(path + " has no first line with the setup");
  const auto header = static_cast<std::size_t>(newline - text);
  auto setup = setup_from_json({text, header});
  if (!setup) return tl::unexpected(path + ": " + setup.error());
  recording->setup_ = std::move(*setup);
  recording->records_ = reinterpret_cast<const std::uint8_t*>(newline + 1);
  // A watch that still runs may have written half a record; it is left for the next report.
  recording->count_ = (recording->bytes_ - header - 1) / sizeof(Record);
  return recording;
}

// Feeds the window and what belongs to it; returns the time of the last record.
std::uint64_t feed_window(const Recording& recording, const JudgeOptions& options, Judge& judge) {
  const bool whole = options.until_ns == UINT64_MAX;
  const auto back = [&](std::uint64_t ns) {
    return options.from_ns - std::min(options.from_ns, ns);
  };
  const std::size_t first = whole ? 0 : recording.first_since(back(kHistoryNs));
  const std::size_t probes = whole ? 0 : recording.first_since(back(kAnswersNs));
  const std::size_t last =
      whole ? recording.size() : recording.first_since(options.until_ns + kAnswersNs);
  for (std::size_t i = 0; i < first; ++i) {
    if (recording.kind_at(i) == Kind::kClientAddress) judge.feed(recording.at(i));
  }
  std::uint64_t end_ns = options.from_ns;
  for (std::size_t i = first; i < last; ++i) {
    const Kind kind = recording.kind_at(i);
    const bool context =
        kind == Kind::kClientAddress || kind == Kind::kTcpFromClient || kind == Kind::kTcpFromNode;
    if (i < probes && !context) continue;
    const Record record = recording.at(i);
    end_ns = std::max(end_ns, record.time_ns);
    judge.feed(record);
  }
  return end_ns;
}

Json judge_window(const Recording& recording, const JudgeOptions& options, Verdict& verdict) {
  Judge judge(recording.setup(), options);
  Json violations = Json::array();
  judge.on_violation([&](const Violation& violation) {
    if (violations.size() >= 50) return;
    violations.push_back(
        {{"kind", violation.kind}, {"realtime_ns", violation.time_ns}, {"text", violation.text}});
  });
  judge.finish(feed_window(recording, options, judge));
  const auto doubt_list = doubts(judge.totals(), {}, 0);
  verdict = verdict_of(judge.totals(), doubt_list);
  Json summary = summary_json(recording.setup(), judge, verdict, doubt_list);
  summary["violations"] = std::move(violations);
  return summary;
}

}  // namespace

int report(const ReportOptions& options) {
  auto recording = Recording::open(options.records);
  if (!recording) {
    std::cerr << "saru-witness: " << recording.error() << "\n";
    return kExitUsage;
  }
  Json events = Json::array();
  bool violated = false;
  bool doubtful = false;
  const auto judge = [&](const std::string& name, std::uint64_t at_ns, const JudgeOptions& window) {
    Verdict verdict = Verdict::kOk;
    Json json{{"event", name}, {"at_ns", at_ns}};
    json.update(judge_window(**recording, window, verdict));
    events.push_back(std::move(json));
    violated = violated || verdict == Verdict::kViolation;
    doubtful = doubtful || verdict == Verdict::kInconclusive;
  };
  const std::uint64_t max_gap_ns = options.max_gap_ms * kMsNs;
  for (const EventMark& mark : options.events) {
    judge(mark.name, mark.at_ns,
          {max_gap_ns, mark.at_ns - options.before_ms * kMsNs,
           mark.at_ns + options.after_ms * kMsNs});
  }
  if (options.events.empty()) judge("all", 0, {max_gap_ns});
  std::cout << Json{{"events", events}}.dump(2) << "\n";
  return violated ? 1 : doubtful ? 2 : 0;
}

}  // namespace witness
