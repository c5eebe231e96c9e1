// SPDX-License-Identifier: GPL-2.0-or-later
// saru-sim [--scenario history|crash|changes] [--seeds A-B] [--plant NAME] [--trace]
// saru-sim --plants     every rule broken on purpose must be caught
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/sim/world.h"

namespace {

using saru::Plant;
using saru::sim::Settings;
using saru::sim::World;

struct Options {
  std::string scenario = "history";
  std::uint64_t first = 1, last = 100;
  bool trace = false;
  bool plants = false;
};

Settings settings_for(std::uint64_t seed, bool trace) {
  saru::SplitMix64 rng(seed * 7919);
  Settings settings;
  settings.seed = seed;
  const unsigned sizes[] = {3, 3, 3, 4, 5, 2, 7};
  settings.nodes = sizes[rng.below(7)];
  settings.trace = trace;
  return settings;
}

// Runs one seed; returns what went wrong, or nothing.
std::string run(const std::string& scenario, std::uint64_t seed, bool trace, World::Counts& total) {
  Settings settings = settings_for(seed, trace);
  if (scenario == "crash")
    settings.nodes = std::max(settings.nodes, 3U);  // two have no quorum left
  World world(settings);
  if (scenario == "crash") {
    world.run_crash();
  } else if (scenario == "changes") {
    world.run_changes();
  } else {
    world.run_history();
  }
  total.views += world.counts.views;
  total.acquisitions += world.counts.acquisitions;
  total.lapses += world.counts.lapses;
  total.rejoins += world.counts.rejoins;
  total.steps += world.counts.steps;
  total.switches += world.counts.switches;
  return world.failure();
}

int run_seeds(const Options& options) {
  World::Counts total;
  unsigned failures = 0;
  for (std::uint64_t seed = options.first; seed <= options.last; ++seed) {
    const std::string failure = run(options.scenario, seed, options.trace, total);
    if (failure.empty()) continue;
    if (++failures <= 5) {
      std::printf("seed %llu: %s\n  replay: saru-sim --scenario %s --seeds %llu-%llu --trace\n",
                  static_cast<unsigned long long>(seed), failure.c_str(), options.scenario.c_str(),
                  static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));
    }
  }
  std::printf(
      "%s: %llu histories, %u failed; %u steps, %u views, %u take-overs, %u lapses, %u rejoins, "
      "%u switches\n",
      options.scenario.c_str(), static_cast<unsigned long long>(options.last) - options.first + 1,
      failures, total.steps, total.views, total.acquisitions, total.lapses, total.rejoins,
      total.switches);
  return failures == 0 ? 0 : 1;
}

// Each broken rule must be found within this many histories.
int run_plants() {
  constexpr std::uint64_t kMost = 400;
  int missed = 0;
  for (const auto& [name, which] : saru::sim::plant_names()) {
    saru::sim::plant(which);
    World::Counts total;
    std::uint64_t seed = 0;
    std::string failure;
    while (failure.empty() && seed < kMost) failure = run("history", ++seed, false, total);
    if (failure.empty()) ++missed;
    std::printf("%s %-24s %s\n", failure.empty() ? "MISSED" : "caught", name.c_str(),
                failure.empty() ? "" : ("seed " + std::to_string(seed) + " " + failure).c_str());
    std::fflush(stdout);
  }
  saru::sim::plant(Plant::kNone);
  return missed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--trace") {
      options.trace = true;
    } else if (word == "--plants") {
      options.plants = true;
    } else if (word == "--scenario" && more) {
      options.scenario = argv[++i];
    } else if (word == "--plant" && more) {
      const auto which = saru::sim::plant_by_name(argv[++i]);
      if (!which) {
        std::fprintf(stderr, "saru-sim: no rule is called %s\n", argv[i]);
        return 2;
      }
      saru::sim::plant(*which);
    } else if (word == "--seeds" && more) {
      char* end = nullptr;
      options.first = options.last = std::strtoull(argv[++i], &end, 10);
      if (*end == '-') options.last = std::strtoull(end + 1, nullptr, 10);
    } else {
      std::fprintf(stderr, "saru-sim: unknown word %s\n", word.c_str());
      return 2;
    }
  }
  return options.plants ? run_plants() : run_seeds(options);
}
