// SPDX-License-Identifier: GPL-2.0-or-later
// How long one renewal and one switch of half of the blocks take, in this kernel, with the reading
// back. Prints JSON. Needs a network namespace with an interface (tests/kernel/bench.sh makes one).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "nft/link.h"
#include "nft/table.h"

namespace {

using namespace saru;
using namespace saru::nft;

const char* const kProtections[] = {"none", "twins", "owner persist"};

struct Times {
  std::vector<double> us;

  nlohmann::json summary() {
    std::sort(us.begin(), us.end());
    const auto at = [&](double part) {
      return us[static_cast<std::size_t>(part * (us.size() - 1))];
    };
    return {{"n", us.size()}, {"median_us", at(0.5)}, {"p99_us", at(0.99)}, {"max_us", us.back()}};
  }
};

// Times one call; ends the program when it fails.
template <class Call>
void time_one(Times& times, Call&& call) {
  const Clocks clocks = Clocks::system();
  const Nanos begin = clocks.monotonic_raw();
  const Result<Held> held = call();
  times.us.push_back(static_cast<double>((clocks.monotonic_raw() - begin).count()) / 1000);
  if (held) return;
  std::cerr << held.error().text << "\n";
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  TableConfig config;
  std::size_t rounds = 2000;
  bool plain = false;
  bool twins = false;
  CLI::App app("time one renewal and one switch of half of the blocks");
  app.add_option("--blocks", config.blocks)->default_val(512);
  app.add_option("--rounds", rounds)->default_val(2000);
  app.add_option("--nic", config.nic)->default_val("e0");
  app.add_flag("--plain", plain);
  app.add_flag("--twins", twins);
  CLI11_PARSE(app, argc, argv);
  config.id = 65000;
  config.link = link_name(config.id);
  config.addresses = {*IpAddress::parse("10.9.0.1"), *IpAddress::parse("fd09::1")};
  config.node_name = "bench";
  config.shared_mac = derived_shared_mac(config.id);
  const auto nic = find_nic(config.nic);
  if (!nic) return std::cerr << nic.error().text << "\n", 1;
  config.own_mac = nic->mac;
  TableOptions options;
  if (plain) options.protection = Protection::kNone;
  if (twins) options.protection = Protection::kTwins;
  auto table = Table::open(config, options);
  if (!table) return std::cerr << table.error().text << "\n", 1;

  BlockSet all(config.blocks);
  all.fill();
  BlockSet half(config.blocks);
  for (unsigned b = 0; b < config.blocks; b += 2)
    half.insert(BlockId{static_cast<std::uint16_t>(b)});
  const Clocks clocks = Clocks::system();
  const auto deadline = [&] { return clocks.now() + std::chrono::seconds(10); };
  Times renewal, switching, rebuild, verify;
  if (auto first = table->apply(Accepting::all_of(half), deadline()); !first)
    return std::cerr << first.error().text << "\n", 1;
  for (std::size_t i = 0; i < rounds; ++i) {
    time_one(renewal, [&] { return table->apply(Accepting::all_of(half), deadline()); });
  }
  for (std::size_t i = 0; i < rounds; ++i) {
    half = all - half;  // deletes one half, adds the other
    time_one(switching, [&] { return table->apply(Accepting::all_of(half), deadline()); });
  }
  for (std::size_t i = 0; i < rounds / 10; ++i) {
    time_one(rebuild, [&] { return table->rebuild(Accepting::all_of(half), deadline()); });
    time_one(verify, [&] {
      const auto words = table->verify();
      return words && words->empty() ? table->read()
                                     : fail(ErrorKind::kFailed, "verify() found a difference");
    });
  }
  std::cout << nlohmann::json{{"blocks", config.blocks},
                              {"protection", kProtections[static_cast<int>(table->protection())]},
                              {"renewal", renewal.summary()},
                              {"switch_half", switching.summary()},
                              {"rebuild", rebuild.summary()},
                              {"verify", verify.summary()}}
                   .dump(2)
            << "\n";
  (void)table->remove();
  return 0;
}
