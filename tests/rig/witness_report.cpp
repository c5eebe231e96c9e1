// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>

#include "witness_judge.h"
#include "witness_run.h"
#include "witness_summary.h"

namespace witness {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kMsNs = 1'000'000;
// Connections that were opened this long before a window are still known inside it.
constexpr std::uint64_t kHistoryNs = 30'000 * kMsNs;
constexpr std::uint64_t kAnswersNs = 2'500 * kMsNs;

struct Recording {
  Setup setup;
  std::vector<Record> records;
};

Result<Recording> read_recording(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return tl::unexpected("cannot read " + path + ": " + std::strerror(errno));
  std::string header;
  if (!std::getline(file, header)) return tl::unexpected(path + " is empty");
  auto setup = setup_from_json(header);
  if (!setup) return tl::unexpected(path + ": " + setup.error());
  Recording recording{std::move(*setup), {}};
  std::vector<Record> chunk(65536);
  while (file) {
    file.read(reinterpret_cast<char*>(chunk.data()),
              static_cast<std::streamsize>(chunk.size() * sizeof(Record)));
    // A watch that still runs may have written half a record; it is left for the next report.
    const auto count = static_cast<std::size_t>(file.gcount()) / sizeof(Record);
    recording.records.insert(recording.records.end(), chunk.begin(),
                             chunk.begin() + static_cast<std::ptrdiff_t>(count));
  }
  return recording;
}

Json judge_window(const Recording& recording, const JudgeOptions& options, Verdict& verdict) {
  Judge judge(recording.setup, options);
  Json violations = Json::array();
  judge.on_violation([&](const Violation& violation) {
    if (violations.size() >= 50) return;
    violations.push_back(
        {{"kind", violation.kind}, {"realtime_ns", violation.time_ns}, {"text", violation.text}});
  });
  const bool whole = options.until_ns == UINT64_MAX;
  const std::uint64_t first = whole ? 0 : options.from_ns - std::min(options.from_ns, kHistoryNs);
  const std::uint64_t last = whole ? UINT64_MAX : options.until_ns + kAnswersNs;
  std::uint64_t end_ns = options.from_ns;
  for (const Record& record : recording.records) {
    const bool context = record.kind == Kind::kClientAddress;
    if (!context && (record.time_ns < first || record.time_ns >= last)) continue;
    judge.feed(record);
    if (!context) end_ns = std::max(end_ns, record.time_ns);
  }
  judge.finish(end_ns);
  const auto doubt_list = doubts(judge.totals(), {}, 0);
  verdict = verdict_of(judge.totals(), doubt_list);
  Json summary = summary_json(recording.setup, judge, verdict, doubt_list);
  summary["violations"] = std::move(violations);
  return summary;
}

}  // namespace

int report(const ReportOptions& options) {
  auto recording = read_recording(options.records);
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
    json.update(judge_window(*recording, window, verdict));
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
