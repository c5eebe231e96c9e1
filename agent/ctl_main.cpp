// SPDX-License-Identifier: GPL-2.0-or-later
// saructl: asks the sarud of this node, and prints what it says.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "agent/ctl_commands.h"
#include "agent/doctor.h"
#include "agent/version.h"

namespace {

using saru::CtlOptions;
using saru::CtlResult;

struct Command {
  const char* name;
  const char* help;
  CtlResult (*run)(const CtlOptions&);
};

constexpr Command kCommands[] = {
    {"status", "this node, its lease and its view; all members", &saru::ctl_status},
    {"map", "draw which node owns which block", &saru::ctl_map},
    {"owner", "which node accepts packets of this client", &saru::ctl_owner},
    {"check", "ask every node's kernel: is each block accepted exactly once? exit 0 or 1",
     &saru::ctl_check},
    {"doctor", "look for the usual mistakes around this node; exit 0, or 1 with what to do",
     &saru::ctl_doctor},
    {"events", "what sarud logged lately: views, moves, repairs", &saru::ctl_events},
    {"metrics", "numbers for Prometheus", &saru::ctl_metrics},
    {"drain", "hand all blocks of this node over; sarud goes on running", &saru::ctl_drain},
    {"undrain", "take blocks again", &saru::ctl_undrain},
    {"weight", "change this node's share until it boots", &saru::ctl_weight},
    {"confirm-dead", "of two nodes: the other one is down, though nothing has fenced it",
     &saru::ctl_confirm_dead},
    {"stop", "hand over, take the address away and end sarud", &saru::ctl_stop},
    {"monitor", "does the kernel hold what it should? exit 0, 1, or 7 when nothing runs",
     &saru::ctl_monitor},
};

void add_arguments_of_events(CLI::App& command, CtlOptions& options) {
  auto* count = command.add_option("-n,--count", options.count, "only the last so many");
  auto* views = command.add_flag("--views", options.views,
                                 "view by view: why it came, and which blocks moved");
  auto* block = command.add_option("--block", options.block, "who has owned this block, and why");
  auto* owner = command.add_option("--owner-of", options.owner_of,
                                   "the same, of the block of a client: ADDR[:PORT]");
  command.add_option("--protocol", options.protocol, "of --owner-of: tcp (default), udp, ...")
      ->needs(owner);
  command.add_option("--to", options.to, "of --owner-of: where to: PORT, ADDR:PORT")->needs(owner);
  views->excludes(count);
  block->excludes(count)->excludes(views);
  owner->excludes(count)->excludes(views)->excludes(block);
}

void add_doctor_arguments(CLI::App& command, CtlOptions& options) {
  command
      .add_option("--port", options.ports, "a TCP port of the service, which firewalls must let in")
      ->check(CLI::Range(1U, 65535U));
  command.add_option("--skip", options.skip, "checks to leave out, as the lines name them")
      ->delimiter(',')
      ->check(CLI::IsMember(saru::doctor_checks()));
  command.footer(
      "What one node cannot see, and so is not found: what another node's firewall, settings or\n"
      "programs do (run it on each node); rules of iptables-legacy; what the switch does between\n"
      "other ports; a limit of unknown unicast that is reached only under load.");
}

void add_arguments(CLI::App& command, const std::string& name, CtlOptions& options,
                   unsigned& settle) {
  if (name == "status" || name == "check" || name == "events" || name == "doctor") {
    command.add_flag("--json", options.json, "print JSON instead of text");
    if (name == "events") add_arguments_of_events(command, options);
    if (name == "doctor") add_doctor_arguments(command, options);
  } else if (name == "metrics") {
    command.add_flag("--openmetrics", options.open_metrics,
                     "OpenMetrics instead of Prometheus's own text format");
  } else if (name == "map") {
    command.add_flag("--load", options.load, "new connections that this node accepted, by block");
    command.add_flag("--json", options.json, "with --load: JSON instead of text");
  } else if (name == "monitor") {
    command
        .add_option("--settle", settle, "first wait, up to so many seconds, for an agreed table")
        ->check(CLI::Range(0U, 60U));
  } else if (name == "stop") {
    command.add_flag("--force", options.force, "kill a sarud that does not end in time");
  } else if (name == "confirm-dead") {
    command.add_option("node", options.node, "the node's name")->required();
    command.add_flag("--yes-it-is-down", options.confirmed,
                     "you have seen that it is off: if it runs, two nodes will answer one packet");
  } else if (name == "owner") {
    command.add_option("address", options.address, "client ADDR[:PORT]; IPv6 as [ADDR]:PORT")
        ->required();
    command.add_option("protocol", options.protocol,
                       "tcp (default), udp, udplite, dccp, sctp, icmp or icmpv6");
    command.add_option("--to", options.to, "where to: PORT, ADDR:PORT or [ADDR]:PORT");
  } else if (name == "weight") {
    command.add_option("weight", options.weight, "0 to 65535; 0 owns nothing")->required();
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"saructl: shows and steers the address that this node serves with others",
               "saructl"};
  app.set_version_flag("--version", std::string("saructl ") + saru::kVersion);
  app.require_subcommand(1);
  CtlOptions options;
  unsigned id = 0;
  unsigned seconds = 10;
  unsigned settle = 0;
  auto* id_option = app.add_option("--id", id, "cluster id; needed where several run on this node")
                        ->check(CLI::Range(1U, 65535U));
  app.add_option("--label", options.label, "only the sarud of this cluster resource");
  app.add_option("--timeout", seconds, "seconds that drain and stop wait (10)")
      ->check(CLI::Range(1U, 3600U));
  app.fallthrough();
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(command.name, command.help);
    add_arguments(*sub, command.name, options, settle);
  }
  app.add_subcommand("version", "print the version");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(saru::ExitCode::kBadHere);
  }
  if (id_option->count() > 0) options.id = static_cast<std::uint16_t>(id);
  options.timeout = std::chrono::seconds(seconds);
  options.settle = std::chrono::seconds(settle);
  if (app.got_subcommand("version")) {
    std::printf("saructl %s\n", saru::kVersion);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (!app.got_subcommand(command.name)) continue;
    const auto code = saru::run_command(command.run, options);
    if (code) return static_cast<int>(*code);
    std::fprintf(stderr, "saructl: %s\n", code.error().sentence.c_str());
    return static_cast<int>(code.error().code);
  }
  return 0;
}
