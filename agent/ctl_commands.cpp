// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/ctl_commands.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "agent/ctl_client.h"
#include "agent/health.h"
#include "agent/lock.h"
#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kAnswer{3000};
// `verify` reads the whole table back, `check` waits for the slowest node.
constexpr milliseconds kSlowAnswer{8000};
constexpr milliseconds kPoll{50};

// At once: what goes wrong afterwards is said on stderr, often into the same pipe.
void print(const string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

tl::unexpected<Failure> fail(ExitCode code, const string& sentence) {
  return tl::unexpected(Failure{code, sentence});
}

tl::expected<json, Failure> status_of(const CtlOptions& options) {
  const auto id = choose_id(options.id);
  if (!id) return tl::unexpected(id.error());
  auto status = ask(*id, {{"command", "status"}}, kAnswer);
  if (!status) return status;
  const string label = status->value("label", "");
  if (options.label.empty() || label == options.label) return status;
  return fail(ExitCode::kNotRunning, "the sarud with id " + std::to_string(*id) +
                                         " belongs to the resource " + label + ", not to " +
                                         options.label);
}

bool colour_wanted() {
  const char* refused = std::getenv("NO_COLOR");  // https://no-color.org
  return isatty(STDOUT_FILENO) != 0 && (refused == nullptr || *refused == '\0');
}

// Polls the status until `reached` says so; false when the time is over.
tl::expected<bool, Failure> wait_until(const CtlOptions& options, std::chrono::seconds limit,
                                       const std::function<bool(const json&)>& reached) {
  const auto deadline = Clock::now() + limit;
  for (;;) {
    const auto status = status_of(options);
    if (!status) return tl::unexpected(status.error());
    if (reached(*status)) return true;
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kPoll);
  }
}

// Who runs with this id, for this resource; kNotRunning when nobody does.
tl::expected<LockHolder, Failure> holder_of(const CtlOptions& options, std::uint16_t id,
                                            const RunFiles& files) {
  auto holder = lock_holder(files);
  if (!holder) return holder;
  const bool ours = options.label.empty() || holder->label == options.label;
  if (holder->pid != 0 && ours) return holder;
  return fail(ExitCode::kNotRunning, "no sarud with id " + std::to_string(id) +
                                         (ours ? "" : " of the resource " + options.label) +
                                         " runs on this node");
}

// The pid in the lock was written by a process with fewer rights than ours.
bool is_sarud(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  string name;
  std::getline(file, name);
  return name == "sarud";
}

constexpr std::chrono::seconds kEndLimit{3};

bool wait_for_end(const RunFiles& files, Clock::time_point deadline) {
  while (Clock::now() < deadline) {
    const auto holder = lock_holder(files);
    if (holder && holder->pid == 0) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

// Looks for a while if time may heal what is found. Prints "OWNS/BLOCKS STATE" first.
CtlResult judge_health(const CtlOptions& options, json status) {
  constexpr std::chrono::seconds kPatience{2};
  const auto deadline = Clock::now() + kPatience;
  auto found = find_shortcoming(status);
  while (found && found->may_settle && Clock::now() < deadline) {
    std::this_thread::sleep_for(kPoll);
    const auto now = status_of(options);
    if (!now) return tl::unexpected(now.error());
    status = *now;
    found = find_shortcoming(status);
  }
  print(std::to_string(status.at("owns").get<unsigned>()) + "/" +
        std::to_string(status.at("blocks").get<unsigned>()) + " " +
        status.at("state").get<string>() + "\n");
  return found ? fail(ExitCode::kDegraded, found->sentence) : CtlResult(ExitCode::kOk);
}

// Which block events is asked for; nullopt: all.
tl::expected<std::optional<unsigned>, Failure> block_asked(const CtlOptions& options,
                                                           const json& status) {
  if (!options.owner_of.empty()) {
    const auto packet = parse_client(options.owner_of, options.protocol, options.to);
    if (!packet) return fail(ExitCode::kBadHere, packet.error());
    const auto block = find_block(status, *packet);
    if (!block) return fail(ExitCode::kFailed, block.error());
    return *block;
  }
  if (options.block.empty()) return std::nullopt;
  unsigned block = 0;
  const string& text = options.block;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), block);
  const unsigned blocks = blocks_in(status);
  if (error == std::errc{} && end == text.data() + text.size() && block < blocks) return block;
  return fail(ExitCode::kBadHere, "block must be a number from 0 to " + std::to_string(blocks - 1));
}

CtlResult tell_views(const CtlOptions& options, std::uint16_t id) {
  const auto answer = ask(id, {{"command", "views"}}, kAnswer);
  if (!answer) return tl::unexpected(answer.error());
  const auto block = block_asked(options, *answer);
  if (!block) return tl::unexpected(block.error());
  if (*block) {
    print(options.json ? story_of_block(*answer, **block).dump() + "\n"
                       : text_of_story(*answer, **block));
  } else {
    print(options.json ? answer->at("views").dump() + "\n" : text_of_views(*answer));
  }
  return ExitCode::kOk;
}

CtlResult end_with(const Answer& answer) {
  print(answer.text);
  return answer.good ? ExitCode::kOk : ExitCode::kFailed;
}

}  // namespace

CtlResult run_command(CtlResult (*command)(const CtlOptions&), const CtlOptions& options) {
  try {
    return command(options);
  } catch (const std::exception& error) {
    return fail(ExitCode::kFailed, string("does not understand what sarud says (") + error.what() +
                                       "); saructl and sarud must be of one version");
  }
}

CtlResult ctl_status(const CtlOptions& options) {
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  print(options.json ? status->dump() + "\n" : text_of_status(*status));
  return ExitCode::kOk;
}

CtlResult ctl_map(const CtlOptions& options) {
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  if (options.load) {
    const auto loads = ask(status->at("id").get<std::uint16_t>(), {{"command", "load"}}, kAnswer);
    if (!loads) return tl::unexpected(loads.error());
    print(options.json ? loads->at("loads").dump() + "\n" : text_of_load(*loads));
    return ExitCode::kOk;
  }
  print(text_of_map(*status, colour_wanted()));
  return ExitCode::kOk;
}

CtlResult ctl_events(const CtlOptions& options) {
  const auto id = choose_id(options.id);
  if (!id) return tl::unexpected(id.error());
  if (options.views || !options.block.empty() || !options.owner_of.empty()) {
    return tell_views(options, *id);
  }
  json request = {{"command", "events"}};
  if (options.count > 0) request["count"] = options.count;
  const auto answer = ask(*id, request, kAnswer);
  if (!answer) return tl::unexpected(answer.error());
  print(options.json ? answer->at("events").dump() + "\n" : text_of_events(*answer));
  return ExitCode::kOk;
}

CtlResult ctl_metrics(const CtlOptions& options) {
  std::vector<std::uint16_t> ids = known_ids();
  if (options.id) ids = {*options.id};
  if (ids.empty()) return fail(ExitCode::kNotRunning, "no sarud runs on this node");
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  std::vector<Scraped> saruds;
  for (const std::uint16_t id : ids) {
    auto answer = ask(id, {{"command", "metrics"}}, kAnswer);
    if (!answer && answer.error().code == ExitCode::kNoPermission) {
      return tl::unexpected(answer.error());
    }
    if (!answer) std::fprintf(stderr, "saructl: %s\n", answer.error().sentence.c_str());
    saruds.push_back({id, answer ? answer->at("node").get<string>() : host,
                      answer ? std::move(*answer) : json(nullptr)});
  }
  print(text_of_metrics(saruds, options.open_metrics));
  return ExitCode::kOk;
}

CtlResult ctl_owner(const CtlOptions& options) {
  const auto packet = parse_client(options.address, options.protocol, options.to);
  if (!packet) return fail(ExitCode::kBadHere, packet.error());
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  return end_with(text_of_owner(*status, *packet));
}

tl::expected<Audited, Failure> settled_audit(const CtlOptions& options) {
  constexpr int kTries = 3;
  for (int attempt = 1;; ++attempt) {
    auto status = status_of(options);
    if (!status) return tl::unexpected(status.error());
    const auto id = status->at("id").get<std::uint16_t>();
    auto audit = ask(id, {{"command", "check"}}, kSlowAnswer);
    if (!audit) return tl::unexpected(audit.error());
    // While blocks are handed over, one that nobody owns is no fault.
    const bool settled = audit->value("agreed", false) && status->at("moving").empty();
    if (text_of_check(*audit).good || attempt == kTries || (settled && attempt > 1)) {
      return Audited{std::move(*audit), std::move(*status)};
    }
    std::this_thread::sleep_for(milliseconds(200));
  }
}

CtlResult ctl_check(const CtlOptions& options) {
  const auto found = settled_audit(options);
  if (!found) return tl::unexpected(found.error());
  Answer answer = text_of_check(found->audit);
  for (const json& warning : found->status.value("warnings", json::array())) {
    answer.text += "WARNING: " + warning.get<string>() + "\n";
  }
  if (!options.json) return end_with(answer);
  print(found->audit.dump() + "\n");
  return answer.good ? ExitCode::kOk : ExitCode::kFailed;
}

CtlResult ctl_drain(const CtlOptions& options) {
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  const string node = status->at("node").get<string>();
  const auto asked = ask(status->at("id").get<std::uint16_t>(), {{"command", "drain"}}, kAnswer);
  if (!asked) return tl::unexpected(asked.error());
  const auto empty = wait_until(options, options.timeout, [](const json& now) {
    return now.at("held").get_ref<const string&>().empty() &&
           now.at("view").at("confirmed").get<bool>();
  });
  if (!empty) return tl::unexpected(empty.error());
  if (!*empty) {
    return fail(ExitCode::kFailed, node + " still owns blocks after " +
                                       std::to_string(options.timeout.count()) +
                                       " s; it goes on handing them over: see saructl status");
  }
  print(node + " is drained: it owns nothing until saructl undrain, or until it boots\n");
  return ExitCode::kOk;
}

CtlResult ctl_undrain(const CtlOptions& options) {
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  const string node = status->at("node").get<string>();
  const auto asked = ask(status->at("id").get<std::uint16_t>(), {{"command", "undrain"}}, kAnswer);
  if (!asked) return tl::unexpected(asked.error());
  print(node + " may own blocks again\n");
  return ExitCode::kOk;
}

CtlResult ctl_weight(const CtlOptions& options) {
  std::uint16_t weight = 0;
  const string& text = options.weight;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return fail(ExitCode::kBadHere,
                "weight must be a number from 0 to 65535, not \"" + text + "\"");
  }
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  const auto answer = ask(status->at("id").get<std::uint16_t>(),
                          {{"command", "weight"}, {"weight", weight}}, kAnswer);
  if (!answer) return tl::unexpected(answer.error());
  print(answer->at("node").get<string>() + " has weight " + std::to_string(weight) +
        " until this machine boots or the resource's weight changes\n");
  return ExitCode::kOk;
}

CtlResult ctl_confirm_dead(const CtlOptions& options) {
  if (!options.confirmed) {
    return fail(ExitCode::kBadHere, "if " + options.node +
                                        " is not down, two nodes will answer one packet: look that "
                                        "it is off, then say so with --yes-it-is-down");
  }
  const auto status = status_of(options);
  if (!status) return tl::unexpected(status.error());
  const auto answer = ask(status->at("id").get<std::uint16_t>(),
                          {{"command", "confirm-dead"}, {"node", options.node}}, kAnswer);
  if (!answer) return tl::unexpected(answer.error());
  print(options.node + " counts as down: this node takes its blocks\n");
  return ExitCode::kOk;
}

CtlResult ctl_stop(const CtlOptions& options) {
  const auto id = choose_id(options.id);
  if (!id) return tl::unexpected(id.error());
  const auto files = RunFiles::of(*id);
  if (!files) return tl::unexpected(files.error());
  const auto holder = holder_of(options, *id, *files);
  if (!holder) return tl::unexpected(holder.error());
  const auto began = Clock::now();
  // One that does not answer at all will not hand over either.
  auto answer = ask(*id, {{"command", "status"}}, kAnswer);
  if (answer) answer = ask(*id, {{"command", "stop"}}, options.timeout);
  if (answer && wait_for_end(*files, Clock::now() + kEndLimit)) return ExitCode::kOk;
  const Failure failure =
      answer ? Failure{ExitCode::kFailed, "sarud took the address away, but does not end"}
             : answer.error();
  if (!options.force) return tl::unexpected(failure);
  if (!is_sarud(holder->pid)) {
    return fail(ExitCode::kFailed, failure.sentence + ", and its lock names another process (pid " +
                                       std::to_string(holder->pid) + "): end it by hand");
  }
  kill(holder->pid, SIGKILL);
  // Where the processor is not to be had, dying takes long too. To give up while there is time left
  // would end the resource on this node for good: its stop has failed.
  if (wait_for_end(*files, std::max(Clock::now() + kEndLimit, began + options.timeout))) {
    return fail(ExitCode::kFailed, failure.sentence + "; killed it");
  }
  return fail(ExitCode::kFailed, failure.sentence + ", and cannot be killed");
}

CtlResult ctl_monitor(const CtlOptions& options) {
  const std::uint16_t id = options.id.value_or(1);
  const auto files = RunFiles::of(id);
  if (!files) return tl::unexpected(files.error());
  const auto holder = holder_of(options, id, *files);
  if (!holder) return tl::unexpected(holder.error());
  if (options.settle > std::chrono::seconds(0)) {
    [[maybe_unused]] const auto settled = wait_until(options, options.settle, [](const json& now) {
      return now.at("view").at("confirmed").get<bool>() && now.at("moving").empty();
    });
  }
  const auto answer = ask(id, {{"command", "verify"}}, kSlowAnswer);
  if (!answer) {
    return fail(ExitCode::kFailed,
                answer.error().sentence + " (pid " + std::to_string(holder->pid) + ")");
  }
  if (!answer->at("problems").empty()) {
    return fail(ExitCode::kFailed, "the kernel does not hold what it should: " +
                                       answer->at("problems").front().get<string>());
  }
  return judge_health(options, *answer);
}

}  // namespace saru
