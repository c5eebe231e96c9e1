// SPDX-License-Identifier: GPL-2.0-or-later
// saru-probe: the load that the witness watches, and the servers on the nodes that answer it.
#include <CLI/CLI.hpp>
#include <iostream>

#include "probe_common.h"

namespace {

constexpr double kDayS = 86400;

void add_blocks(CLI::App& app, std::string& text, std::uint32_t& blocks, std::string& source) {
  app.add_option("--blocks", text, "source blocks: 'all', 'N/spread' or numbers such as 0,16,32")
      ->capture_default_str();
  app.add_option("--block-count", blocks, "blocks of the cluster, a power of two")
      ->check(CLI::IsMember({16, 32, 64, 128, 256, 512, 1024, 2048, 4096}))
      ->capture_default_str();
  app.add_option("--source", source, "source address (of the family of the target)");
}

void describe_send(CLI::App& app, probe::SendOptions& send) {
  app.add_option("--address", send.addresses, "whom to ask; may be repeated")->required();
  add_blocks(app, send.blocks_text, send.blocks, send.source);
  app.add_option("--offset", send.offset, "port within each block")->capture_default_str();
  app.add_option("--rate", send.rate, "probes per second, for each block and address")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--port", send.port, "UDP port of the responder")->capture_default_str();
  app.add_option("--seconds", send.seconds, "how long")->required()->check(CLI::Range(0.01, kDayS));
  app.add_flag("--icmp", send.echo, "echo requests instead of UDP (one stream per address)");
  app.add_option("--realtime", send.priority, "SCHED_FIFO priority; 0: none")
      ->check(CLI::Range(0, 50));
}

void describe_http(CLI::App& app, probe::HttpOptions& http) {
  app.add_option("--address", http.addresses, "whom to ask; may be repeated, in turn")->required();
  add_blocks(app, http.blocks_text, http.blocks, http.source);
  app.add_option("--port", http.port, "TCP port")->capture_default_str();
  app.add_option("--connections-per-second", http.rate, "fresh connections per second")
      ->check(CLI::Range(0.1, 20000.0))
      ->capture_default_str();
  app.add_option("--seconds", http.seconds, "how long to open connections")
      ->required()
      ->check(CLI::Range(0.01, kDayS));
  app.add_option("--timeout", http.timeout_s, "seconds after which a request has failed")
      ->check(CLI::Range(0.1, 600.0))
      ->capture_default_str();
  app.add_option("--expect", http.expected_names, "the nodes' names; any other page is wrong")
      ->delimiter(',');
  app.add_option("--log", http.log, "file with one JSON line per request");
  app.add_flag_function(
      "--json", [](std::int64_t) {}, "the result is JSON, with or without this");
}

void describe_server(CLI::App& app, probe::ServeOptions& serve) {
  app.add_option("--port", serve.port, "port to listen on, at every address")
      ->capture_default_str();
  app.add_option("--name", serve.name, "the node's name, part of every answer")->required();
  app.add_option("--seconds", serve.seconds, "stop after this time; 0: on SIGTERM")
      ->check(CLI::Range(0.0, kDayS));
  app.add_option("--realtime", serve.priority, "SCHED_FIFO priority; 0: none")
      ->check(CLI::Range(0, 50));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Sends steady load to a shared address, and answers it on the nodes.", "saru-probe");
  app.require_subcommand(1);
  probe::SendOptions send;
  probe::HttpOptions http;
  probe::ServeOptions respond{{}, 7, 0, 0};
  probe::ServeOptions serve{{}, 80, 0, 0};
  CLI::App* send_command = app.add_subcommand("send", "UDP probes or echo requests");
  CLI::App* respond_command = app.add_subcommand("respond", "answer UDP probes");
  CLI::App* http_command = app.add_subcommand("http", "HTTP requests");
  CLI::App* serve_command = app.add_subcommand("serve", "serve the node's name by HTTP");
  describe_send(*send_command, send);
  describe_server(*respond_command, respond);
  describe_http(*http_command, http);
  describe_server(*serve_command, serve);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : probe::kExitUsage;
  }
  if (send_command->parsed()) return probe::send_probes(send);
  if (respond_command->parsed()) return probe::respond(respond);
  if (http_command->parsed()) return probe::load_http(http);
  return probe::serve_http(serve);
}
