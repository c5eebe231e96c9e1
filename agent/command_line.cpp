// SPDX-License-Identifier: GPL-2.0-or-later
#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "agent/config_file.h"
#include "agent/options.h"
#include "agent/version.h"

namespace saru {
namespace {

struct Described {
  const char* name;
  const char* value;
  const char* help;
};

constexpr Described kValues[] = {
    {"id", "1..65535", "cluster id: one id for each set of shared addresses (default 1)"},
    {"nic", "NAME", "network interface through which clients reach the address"},
    {"inside-nic", "NAME",
     "of a director: network interface of the hosts behind it, with --inside-ip"},
    {"blocks", "N", "in how many blocks the clients are cut: 16 to 4096, a power of two (512)"},
    {"selector", "NAME",
     "what a packet's block is computed from: src-port, dst-port, src-addr, dst-addr or "
     "src-addr-port (src-port)"},
    {"services", "LIST",
     "other selectors for some ports, such as \"443 by src-addr, 53/udp by "
     "src-addr-port\""},
    {"seed", "N", "0 to 4294967295, of src-addr-port, the same on all nodes (derived from the id)"},
    {"delivery", "flood", "how packets get to every node (flood)"},
    {"connections", "stay|sync|none",
     "what becomes of a moved block's connections (stay; sync with --inside-ip)"},
    {"mac", "MAC", "shared MAC address (default: derived from the id)"},
    {"weight", "N", "this node's share compared to the others' (1); 0 owns nothing"},
    {"lease-ms", "MS", "how long a node may go on unheard (default: 1.25 x (token + consensus))"},
    {"fencing", "auto|wait|ignore",
     "of two nodes, each quorate alone, wait until the other is fenced (auto: where it can be so); "
     "ignore: do not, and accept two owners"},
    {"stonith", "yes|no|unknown",
     "whether Pacemaker fences nodes: its property stonith-enabled (no)"},
    {"label", "NAME", "name of the cluster resource, for messages and saructl --label"},
    {"log-file", "FILE", "append to this file too, besides the system log"},
    {"log-level", "LEVEL", "error, warning, notice, info or debug (notice)"},
};

constexpr Described kFlags[] = {
    {"foreground", "",
     "stay in the foreground and log to stderr too; under systemd (NOTIFY_SOCKET) tell it when "
     "ready instead"},
    {"validate", "", "only check the options; change nothing"},
    {"validate-node", "", "only check the options and this node; change nothing"},
    {"reload", "", "hand these options to the sarud that runs with this id"},
    {"cleanup", "", "only remove what a dead sarud left in the kernel; needs only --id"},
};

ConfigName judge_name(std::string_view name) {
  const auto is_name = [name](const Described& option) { return name == option.name; };
  if (name == "ip" || name == "inside-ip") return ConfigName::kList;
  if (std::any_of(std::begin(kValues), std::end(kValues), is_name)) return ConfigName::kValue;
  const bool own = name == "config" || name == "help" || name == "version";
  if (own || std::any_of(std::begin(kFlags), std::end(kFlags), is_name)) {
    return ConfigName::kNotInFiles;
  }
  return ConfigName::kUnknown;
}

// What the command line does not say, the file does.
tl::expected<void, Failure> add_file(const std::string& path, CommandLine& line) {
  auto values = read_config(path, &judge_name);
  if (!values) return tl::unexpected(values.error());
  line.config = path;
  for (auto& [name, value] : *values) {
    if (value.text.empty() || !line.raw.emplace(name, value.text).second) continue;
    line.origins[name] = path + ":" + std::to_string(value.line);
  }
  return {};
}

}  // namespace

Failure at_origin(const CommandLine& line, Failure failure) {
  if (line.config.empty()) return failure;
  const std::string& sentence = failure.sentence;
  const std::string name = sentence.substr(0, sentence.find_first_of(" :"));
  const auto found = line.origins.find(name);
  if (found == line.origins.end() && line.raw.count(name) != 0) return failure;
  const std::string& where = found == line.origins.end() ? line.config : found->second;
  failure.sentence.insert(0, where + ": ");
  return failure;
}

tl::expected<CommandLine, Failure> read_command_line(int argc, const char* const* argv) {
  CLI::App app{"sarud: serves one IP address from every node of a Corosync cluster at once",
               "sarud"};
  app.set_version_flag("--version", std::string("sarud ") + kVersion);
  std::string config;
  app.add_option("--config", config,
                 "read options from a file of lines like nic=eth0, saru.conf(5); the command line "
                 "wins over it")
      ->type_name("FILE");
  std::map<std::string, std::string> values;
  std::map<std::string, bool> flags;
  std::vector<std::string> addresses;
  std::vector<std::string> inside_addresses;
  app.add_option("--ip", addresses,
                 "address to serve, with or without /PREFIX; several: repeat it, or a comma list")
      ->type_name("ADDR");
  app.add_option("--inside-ip", inside_addresses,
                 "of a director: gateway of the hosts behind it, a second shared address; a list "
                 "like --ip")
      ->type_name("ADDR");
  for (const Described& option : kValues) {
    app.add_option(std::string("--") + option.name, values[option.name], option.help)
        ->type_name(option.value);
  }
  for (const Described& flag : kFlags) {
    app.add_flag(std::string("--") + flag.name, flags[flag.name], flag.help);
  }
  CommandLine result;
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.text = app.help();
    return result;
  } catch (const CLI::CallForVersion&) {
    result.text = app.version() + "\n";
    return result;
  } catch (const CLI::ParseError& error) {
    return tl::unexpected(Failure{ExitCode::kBadConfiguration,
                                  std::string(error.what()) + "; sarud --help lists the options"});
  }
  for (const auto& [name, value] : values) {
    if (!value.empty()) result.raw[name] = value;
  }
  for (const auto& [name, given] : flags) {
    if (given) result.raw[name] = "yes";
  }
  for (const std::string& address : addresses) result.raw["ip"] += address + ",";
  for (const std::string& address : inside_addresses) {
    if (!address.empty()) result.raw["inside-ip"] += address + ",";
  }
  if (!config.empty()) {
    if (auto added = add_file(config, result); !added) return tl::unexpected(added.error());
  }
  return result;
}

}  // namespace saru
