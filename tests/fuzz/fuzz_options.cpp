// SPDX-License-Identifier: GPL-2.0-or-later
// Options of sarud, from its command line, from a file (--config) and from a running sarud's
// reload: whatever they say, they are refused with one sentence, or good ones.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "agent/client_block.h"
#include "agent/membership.h"
#include "agent/options.h"
#include "agent/reload.h"
#include "tests/fuzz/input.h"

namespace {

using namespace saru;
using fuzz::must;

constexpr const char* kNames[] = {"id",       "ip",          "nic",       "blocks",  "selector",
                                  "services", "seed",        "delivery",  "mac",     "weight",
                                  "lease-ms", "connections", "log-level", "fencing", "label"};

void judge(const RawOptions& raw) {
  const auto options = validate(raw);
  if (!options) {
    must(options.error().code == ExitCode::kBadConfiguration, "bad options are bad everywhere");
    must(!options.error().sentence.empty(), "a refusal has a sentence");
    return;
  }
  if (options->task == Task::kCleanup) return;
  must(!options->addresses.empty() && options->addresses.size() <= kMaxAddresses, "addresses");
  must(is_block_count(options->blocks), "a block count");
  must(!options->nic.empty() && options->nic.find('/') == std::string::npos, "a NIC's name");
  must(!options->mac.is_multicast() && !options->mac.is_zero(), "a unicast MAC");
  must(validate(raw).has_value(), "the same again");
  const Nanos lease = std::chrono::milliseconds(options->lease_ms.value_or(1000));
  const auto change = plan_change(*options, *options, lease);
  must(change && change->agreed.keeps_blocks, "from itself to itself nothing changes");
}

// A list of NAME VALUE, by number: most inputs get beyond the names.
void by_name(fuzz::Input input) {
  RawOptions raw = {{"ip", "192.0.2.10"}, {"nic", "eth0"}};
  while (!input.empty()) {
    const char* name = kNames[input.byte() % std::size(kNames)];
    raw[name] = fuzz::text_of(input.take(input.byte()));
  }
  judge(raw);
}

// The first piece is a configuration file, the rest words.
void by_command_line(fuzz::Input input) {
  static const int file = memfd_create("sarud.conf", MFD_CLOEXEC);
  const auto content = input.piece();
  must(fchmod(file, 0600) == 0, "a file that nobody else writes");
  must(ftruncate(file, 0) == 0, "the file can be emptied");
  must(pwrite(file, content.data(), content.size(), 0) >= 0, "the file can be written");
  std::vector<std::string> words = {"sarud"};
  if (!content.empty()) words.push_back("--config=/proc/self/fd/" + std::to_string(file));
  while (!input.empty()) {
    std::string word = fuzz::text_of(input.take(input.byte()));
    word.resize(std::min(word.size(), word.find('\0')));  // as a shell would
    words.push_back(word);
  }
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  const auto line = read_command_line(static_cast<int>(argv.size()), argv.data());
  if (line && line->text.empty()) {
    judge(line->raw);
    must(!at_origin(*line, {}).sentence.empty() || content.empty(), "a refusal names the file");
  }
  must(line || !line.error().sentence.empty(), "a refusal has a sentence");
}

// What saructl owner is asked.
void by_client(fuzz::Input input) {
  const std::string address = fuzz::text_of(input.take(input.byte()));
  const std::string protocol = fuzz::text_of(input.take(input.byte() % 16));
  const auto packet = parse_client(address, protocol, fuzz::text_of(input.all()));
  if (!packet) return must(!packet.error().empty(), "a refusal has a sentence");
  Served served;
  served.blocks = 512;
  const auto block = block_of(*packet, served);
  must(!block || block->block.value < 512, "a block of those there are");
  must(!to_text(*packet).empty(), "a packet has a text");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  switch (input.byte() % 4) {
    case 0:
      by_command_line(input);
      break;
    case 1:
      by_client(input);
      break;
    default:
      by_name(input);
  }
  return 0;
}
