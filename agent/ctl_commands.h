// SPDX-License-Identifier: GPL-2.0-or-later
// The commands of saructl. Each prints what it has to say and returns the exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/exit_code.h"

namespace saru {

struct CtlOptions {
  std::optional<std::uint16_t> id;
  std::string label;  // only a sarud of this resource will do; another one counts as not running
  std::chrono::seconds timeout{10};
  std::chrono::seconds settle{0};  // monitor: first wait so long for an agreed table
  bool json = false;
  bool force = false;  // stop: kill a sarud that does not end in time
  std::string address;
  std::string protocol;
  std::string to;
  std::string weight;
  std::string node;               // confirm-dead
  bool confirmed = false;         // confirm-dead: in so many words
  bool load = false;              // map: new connections instead of owners
  bool views = false;             // events: view by view instead of line by line
  std::string block;              // events: of this block alone
  std::string owner_of;           // events: of the block of this client
  bool open_metrics = false;      // metrics: OpenMetrics
  unsigned count = 0;             // events: the last so many; 0: all there are
  std::vector<unsigned> ports;    // doctor: TCP ports of the service
  std::vector<std::string> skip;  // doctor: checks that are not wanted
};

using CtlResult = tl::expected<ExitCode, Failure>;

// Runs one of the commands below. A sarud of another version may answer with other words: that is a
// failure like others.
CtlResult run_command(CtlResult (*command)(const CtlOptions&), const CtlOptions& options);

// What the members' kernels hold together, looked at again while blocks are handed over.
struct Audited {
  nlohmann::json audit;  // agent/audit.h
  nlohmann::json status;
};
tl::expected<Audited, Failure> settled_audit(const CtlOptions& options);

CtlResult ctl_status(const CtlOptions& options);
CtlResult ctl_map(const CtlOptions& options);
// The usual mistakes around this node, each with its remedy. 0: nothing wrong; 1: errors or
// warnings.
CtlResult ctl_doctor(const CtlOptions& options);
// What sarud logged lately: who owned how much since when, and why.
CtlResult ctl_events(const CtlOptions& options);
// Numbers for Prometheus, of the sarud with this id or of all on this node.
CtlResult ctl_metrics(const CtlOptions& options);
CtlResult ctl_owner(const CtlOptions& options);
// 0: each block is accepted by exactly one node, and all nodes answered; 1: not.
CtlResult ctl_check(const CtlOptions& options);
// Return when this node owns nothing any more, or again may.
CtlResult ctl_drain(const CtlOptions& options);
CtlResult ctl_undrain(const CtlOptions& options);
CtlResult ctl_weight(const CtlOptions& options);
// Nobody looks whether it is true.
CtlResult ctl_confirm_dead(const CtlOptions& options);
// Returns when the process has ended.
CtlResult ctl_stop(const CtlOptions& options);
// Prints "OWNS/BLOCKS STATE". 0: the kernel holds what it should; 1: it does not, or sarud hangs;
// 7: sarud does not run; 190: all that is well, but agent/health.h has something to say.
CtlResult ctl_monitor(const CtlOptions& options);

}  // namespace saru
