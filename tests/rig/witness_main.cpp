// SPDX-License-Identifier: GPL-2.0-or-later
// saru-witness: judges from outside whether every packet to a shared address is answered by
// exactly one node. It shares no code with the product.
#include <CLI/CLI.hpp>
#include <iostream>

#include "witness_run.h"

namespace {

using witness::Result;

struct Raw {
  std::vector<std::string> links;
  std::vector<std::string> node_links;
  std::vector<std::string> addresses;
  std::vector<std::string> macs;
  std::vector<std::string> events;
  std::string shared_mac;
};

Result<void> add_links(const std::vector<std::string>& texts, witness::Side side,
                       witness::Setup& setup) {
  for (const std::string& text : texts) {
    auto link = witness::parse_link(text, side);
    if (!link) return tl::unexpected(link.error());
    setup.links.push_back(std::move(*link));
  }
  return {};
}

Result<void> add_mac(const std::string& text, witness::Setup& setup) {
  const auto equals = text.find('=');
  const std::string name = text.substr(0, equals);
  for (witness::Link& link : setup.links) {
    if (equals == std::string::npos || link.name != name) continue;
    auto mac = witness::parse_mac(text.substr(equals + 1));
    if (!mac) return tl::unexpected(mac.error());
    link.mac = *mac;
    return {};
  }
  return tl::unexpected("--mac-of " + text + ": must read NAME=MAC with NAME one of the links");
}

Result<void> fill(const Raw& raw, witness::Setup& setup) {
  if (auto done = add_links(raw.links, witness::Side::kSwitchPort, setup); !done) return done;
  if (auto done = add_links(raw.node_links, witness::Side::kNodePort, setup); !done) return done;
  if (setup.links.empty()) return tl::unexpected(std::string("name at least one --link"));
  if (setup.links.size() > 250) return tl::unexpected(std::string("more than 250 links"));
  for (const std::string& text : raw.addresses) {
    auto address = witness::parse_address(text);
    if (!address) return tl::unexpected(address.error());
    setup.addresses.push_back(*address);
  }
  if (setup.addresses.empty()) return tl::unexpected(std::string("name at least one --address"));
  if (setup.addresses.size() > 40) return tl::unexpected(std::string("more than 40 addresses"));
  if (!raw.shared_mac.empty()) {
    auto mac = witness::parse_mac(raw.shared_mac);
    if (!mac) return tl::unexpected(mac.error());
    setup.shared_mac = *mac;
  }
  for (const std::string& text : raw.macs) {
    if (auto done = add_mac(text, setup); !done) return done;
  }
  if (setup.blocks < 16 || setup.blocks > 4096 || (setup.blocks & (setup.blocks - 1)) != 0) {
    return tl::unexpected(std::string("--blocks must be a power of two from 16 to 4096"));
  }
  return {};
}

Result<std::vector<witness::EventMark>> parse_events(const std::vector<std::string>& texts) {
  std::vector<witness::EventMark> marks;
  for (const std::string& text : texts) {
    const auto equals = text.find('=');
    const std::string digits = equals == std::string::npos ? "" : text.substr(equals + 1);
    if (digits.size() != 19 || digits.find_first_not_of("0123456789") != std::string::npos) {
      return tl::unexpected("--event " + text +
                            ": must read NAME=NANOSECONDS of CLOCK_REALTIME (date +%s%N)");
    }
    marks.push_back({text.substr(0, equals), std::stoull(digits)});
  }
  return marks;
}

int fail(const std::string& text) {
  std::cerr << "saru-witness: " << text << "\n";
  return witness::kExitUsage;
}

void describe_watch(CLI::App& app, Raw& raw, witness::WatchOptions& watch) {
  app.add_option("--link", raw.links,
                 "a switch port to watch: NAME=NETNS:IFNAME (NETNS: a path, or a name below "
                 "/run/netns; may be left out)");
  app.add_option("--node-link", raw.node_links,
                 "a node's own interface, as --link; keeps the node's network namespace alive, so "
                 "not for tests that crash nodes");
  app.add_option("--address", raw.addresses, "a shared address");
  app.add_option("--shared-mac", raw.shared_mac, "the MAC that no frame may have as its source");
  app.add_option("--mac-of", raw.macs, "NAME=MAC: the source MAC that node NAME's answers carry");
  app.add_option("--blocks", watch.setup.blocks, "number of blocks")->capture_default_str();
  app.add_option("--probe-port", watch.setup.probe_port, "UDP port of the probes")
      ->capture_default_str();
  app.add_option("--max-gap-ms", watch.max_gap_ms,
                 "longest time in which nobody may answer a block; 0: report, do not judge")
      ->capture_default_str();
  app.add_flag("--connections-move", watch.setup.connections_move,
               "a TCP connection may change its node (connections=sync)");
  app.add_option("--ring-kib", watch.ring_kib, "capture buffer per network namespace")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  app.add_option("--seconds", watch.seconds, "stop after this time; 0: on SIGTERM or SIGINT")
      ->check(CLI::Range(0.0, 86400.0));
  app.add_option("--realtime", watch.priority, "SCHED_FIFO priority; 0: none")
      ->check(CLI::Range(0, 50));
  app.add_option("--output", watch.output, "file for the JSON lines instead of stdout");
  app.add_option("--records", watch.records, "file of all records, for `saru-witness report`");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Captures on all links and judges who answers packets to a shared address.",
               "saru-witness");
  app.require_subcommand(0, 1);
  app.footer(
      "Exit status: 0 all right, 1 a violation, 2 inconclusive (frames lost, a link missing, no "
      "questions seen), 3 could not run.");
  Raw raw;
  witness::WatchOptions watch;
  witness::ReportOptions report;
  describe_watch(app, raw, watch);
  CLI::App* report_command =
      app.add_subcommand("report", "judge a --records file, also while it is being written");
  report_command->add_option("--records", report.records, "file that the watch writes")->required();
  report_command->add_option("--event", raw.events, "NAME=REALTIME_NS: judge around this moment");
  report_command->add_option("--before-ms", report.before_ms, "window before the event")
      ->capture_default_str();
  report_command->add_option("--after-ms", report.after_ms, "window after the event")
      ->capture_default_str();
  report_command
      ->add_option("--max-gap-ms", report.max_gap_ms,
                   "longest time without an answer; 0: do not judge")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : witness::kExitUsage;
  }
  if (report_command->parsed()) {
    auto events = parse_events(raw.events);
    if (!events) return fail(events.error());
    report.events = std::move(*events);
    return witness::report(report);
  }
  if (auto filled = fill(raw, watch.setup); !filled) return fail(filled.error());
  return witness::watch(watch);
}
