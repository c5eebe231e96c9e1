// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/reload_client.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/ctl_client.h"
#include "agent/membership.h"
#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr milliseconds kAnswer{2000};
constexpr milliseconds kPoll{100};
constexpr int kPolls = 15;
constexpr int kShortPolls = 4;

}  // namespace

tl::expected<ExitCode, Failure> reload_running(const Options& options, RawOptions raw,
                                               Nanos lease) {
  for (const char* own : {"reload", "foreground", "log-file"}) raw.erase(own);
  const json request = {{"command", "reload"}, {"options", raw}, {"lease_ns", lease.count()}};
  auto status = ask(options.id, request, kAnswer);
  // Another change may just be under way.
  for (int i = 0; i < kPolls && !status && status.error().code == ExitCode::kBusy; ++i) {
    std::this_thread::sleep_for(kPoll);
    status = ask(options.id, request, kAnswer);
  }
  if (!status) return tl::unexpected(status.error());
  // The other nodes are often told at the same time.
  for (int i = 0; i < kShortPolls && !status->at("config").at("next").is_null(); ++i) {
    std::this_thread::sleep_for(kPoll);
    status = ask(options.id, {{"command", "status"}}, kAnswer);
    if (!status) return tl::unexpected(status.error());
  }
  const json& config = status->at("config");
  if (config.at("hash") == hash_text(hash_of(options, lease))) {
    std::puts("the parameters are in force");
  } else if (config.at("next").is_null()) {
    return tl::unexpected(Failure{ExitCode::kFailed,
                                  "this node could not change to the parameters and keeps the old "
                                  "ones; saructl events says why"});
  } else {
    std::printf("accepted: the parameters come into force when these nodes have them too: %s\n",
                joined(config.at("waiting_for")).c_str());
  }
  return ExitCode::kOk;
}

}  // namespace saru
