// SPDX-License-Identifier: GPL-2.0-or-later
// What sarud is told on its command line or in a file, checked. Pure but for reading that file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/core/core.h"
#include "agent/exit_code.h"
#include "nft/address.h"
#include "nft/selector.h"

namespace saru {

inline constexpr std::size_t kMaxAddresses = 64;
inline constexpr unsigned kMinLeaseMs = 100;
inline constexpr unsigned kMaxLeaseMs = 600000;

enum class Fencing {
  kAuto,    // wait where two quorate sides need not share a node
  kWait,    // wait in any cluster of two nodes
  kIgnore,  // the operator accepts two owners, in so many words
};

// What this run of sarud is for.
enum class Task { kServe, kValidate, kValidateNode, kReload, kCleanup };

// The second network of a director, that of the hosts behind it.
struct Inside {
  std::vector<ServiceAddress> addresses;  // at least one; in the order given
  std::string nic;
  MacAddress mac;  // shared, derived from that of the outside
};

struct Options {
  bool stays() const { return connections == "stay"; }
  bool syncs() const { return connections == "sync"; }

  Task task = Task::kServe;
  std::uint16_t id = 1;
  std::vector<ServiceAddress> addresses;  // at least one; in the order given
  std::string nic;
  std::optional<Inside> inside;
  unsigned blocks = kDefaultBlocks;
  Selection selection;  // what a packet's block is computed from; the seed derived unless given
  std::string delivery;
  std::string connections;  // "none", "stay", "sync"
  MacAddress mac;           // derived from the id unless given
  std::uint16_t weight = 1;
  std::optional<unsigned> lease_ms;
  Fencing fencing = Fencing::kAuto;
  std::optional<bool> stonith = false;  // Pacemaker fences nodes; nullopt: it does not say
  std::string label;
  bool foreground = false;
  std::string log_file;  // besides syslog; empty: none
  LogLevel log_level = LogLevel::kNotice;
};

// The options as text, by name without dashes ("lease-ms"); one that is absent has its default.
using RawOptions = std::map<std::string, std::string>;

// Pure. Every failure is kBadConfiguration and names the option, its value and what would do.
tl::expected<Options, Failure> validate(const RawOptions& raw);

// Reads argv and the file named by --config. `text` is set when there is only something to print
// (--help, --version).
struct CommandLine {
  RawOptions raw;
  std::string text;
  std::string config;                          // that file; empty: there was none
  std::map<std::string, std::string> origins;  // what came from it: option -> "FILE:LINE"
};
tl::expected<CommandLine, Failure> read_command_line(int argc, const char* const* argv);

// A failure of validate(), with the file and line that it is about in front of its sentence.
Failure at_origin(const CommandLine& line, Failure failure);

}  // namespace saru
