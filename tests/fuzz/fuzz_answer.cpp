// SPDX-License-Identifier: GPL-2.0-or-later
// saructl and a sarud that answers anything: every command ends with a code of ours and a sentence.
// The product's connect, send, poll and recv end up here (--wrap); sleeping takes no time.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>

#include "agent/ctl_commands.h"
#include "agent/lock.h"
#include "agent/reload_client.h"
#include "agent/text.h"
#include "tests/fuzz/input.h"

namespace {

using namespace saru;

constexpr std::uint16_t kId = 1;
std::string answer;
fuzz::Input* sarud = nullptr;  // each connection is answered by the next line

// In the order of the first byte of an input. stop is not among them: it kills.
constexpr CtlResult (*kCommands[])(const CtlOptions&) = {
    ctl_status, ctl_map,     ctl_map, ctl_owner,  ctl_check,   ctl_events, ctl_drain, ctl_undrain,
    ctl_weight, ctl_monitor, ctl_map, ctl_status, ctl_metrics, ctl_events, ctl_events};

// What saructl prints goes nowhere; monitor wants somebody to hold the lock.
bool prepare() {
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, STDOUT_FILENO);
  const auto files = RunFiles::of(kId);
  fuzz::must(files.has_value(), "the run files have names");
  static const auto lock = Lock::take(*files, kId, "web");
  fuzz::must(lock.has_value(), "run it in tests/suites/alone, as root");
  return true;
}

}  // namespace

extern "C" int __wrap_connect(int, const sockaddr*, socklen_t) {
  answer = sarud == nullptr ? "" : fuzz::text_of(sarud->line());
  return 0;
}
extern "C" ssize_t __wrap_send(int, const void*, std::size_t size, int) {
  return static_cast<ssize_t>(size);
}
extern "C" int __wrap_poll(pollfd*, nfds_t, int) { return 1; }
extern "C" ssize_t __wrap_recv(int, void* buffer, std::size_t size, int) {
  const std::size_t got = std::min(size, answer.size());
  std::copy_n(answer.data(), got, static_cast<char*>(buffer));
  answer.erase(0, got);
  return static_cast<ssize_t>(got);
}
extern "C" int __wrap_nanosleep(const timespec*, timespec*) { return 0; }

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool prepared = prepare();
  static_cast<void>(prepared);
  fuzz::Input input(data, size);
  const unsigned number = input.byte() % std::size(kCommands);
  CtlOptions options;
  options.id = kId;
  options.timeout = std::chrono::seconds(0);
  options.json = number == 11;
  options.load = number == 10;
  options.views = number == 13;
  if (number == 14) options.block = "3";
  options.weight = "3";
  options.address = "198.51.100.7:40123";
  options.to = input.byte() % 2 == 0 ? "" : "192.0.2.10:443";
  sarud = &input;
  const auto code = run_command(kCommands[number], options);
  fuzz::must(code || !code.error().sentence.empty(), "a failure has a sentence");
  sarud = nullptr;
  return 0;
}
