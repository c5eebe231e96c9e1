// SPDX-License-Identifier: GPL-2.0-or-later
// saru-sim [--scenario history|stay|sync|fencing|device|crash|changes] [--seeds A-B] [--nodes N]
//          [--plant NAME] [--trace]
//          [--kept FILE]   also the seeds of a list: each line SCENARIO SEED [NODES], # comments
//          [--minutes M]   stop after so long, whatever seeds are left
//          [--wide]        clocks 5 % off, which is beyond what the core is told
// saru-sim --plants [A-B] [--kept FILE]
//          every bug of agent/core/plant.h must be found within these seeds
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/sim/plants.h"
#include "tests/sim/world.h"

namespace {

using saru::Plant;
using saru::sim::Counts;
using saru::sim::kMs;
using saru::sim::Settings;
using saru::sim::World;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string scenario = "history";
  std::uint64_t first = 1, last = 100;
  unsigned nodes = 0;  // 0: as the seed says
  std::string kept;
  long minutes = 0;
  bool trace = false;
  bool plants = false;
  bool wide = false;
};

// Mostly small clusters, of which a second simulates most; the large ones now and then.
unsigned nodes_for(saru::SplitMix64& rng) {
  const auto draw = rng.below(1000);
  if (draw == 0) return 32;
  if (draw < 4) return 16;
  if (draw < 20) return 9 + static_cast<unsigned>(rng.below(4));
  constexpr unsigned kSizes[] = {2, 2, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 7};
  return kSizes[rng.below(std::size(kSizes))];
}

Settings settings_for(std::uint64_t seed, const Options& options) {
  saru::SplitMix64 rng(seed * 7919);
  Settings settings;
  settings.seed = seed;
  settings.nodes = nodes_for(rng);
  if (options.nodes != 0) settings.nodes = options.nodes;
  settings.trace = options.trace;
  constexpr saru::sim::Time kTokens[] = {300, 500, 500, 1000, 1000, 2000};
  settings.token = kTokens[rng.below(std::size(kTokens))] * kMs;
  settings.consensus = settings.token * 12 / 10;
  // Half of what the core allows for between two clocks, each; or 5 %, and the core told so.
  if (rng.below(4) == 0) {
    settings.rate_error = 0.05;
    settings.drift = 1.05 / 0.95 - 1;
  }
  if (options.wide) {
    settings.rate_error = 0.05;
    settings.drift = saru::kDrift;
  }
  return settings;
}

// Runs one seed; returns what went wrong, or nothing.
std::string run(const Options& options, std::uint64_t seed, Counts& total) {
  Settings settings = settings_for(seed, options);
  settings.fencing = options.scenario == "fencing";
  if (settings.fencing) settings.nodes = 2;
  settings.device = options.scenario == "device";
  settings.stays = options.scenario == "stay";
  settings.syncs = options.scenario == "sync";
  if (settings.device && options.nodes == 0) settings.nodes = settings.nodes / 2 * 2;
  if (options.scenario == "crash")
    settings.nodes = std::max(settings.nodes, 3U);  // two have no quorum left
  World world(settings);
  if (options.scenario == "crash") {
    world.run_crash();
  } else if (options.scenario == "changes") {
    world.run_changes();
  } else {
    world.run_history();
  }
  total.add(world.counts);
  return world.failure();
}

void tell_failure(const Options& options, std::uint64_t seed, const std::string& failure) {
  std::cout << "seed " << seed << ": " << failure << "\n  replay: saru-sim --scenario "
            << options.scenario << " --seeds " << seed;
  if (options.nodes != 0) std::cout << " --nodes " << options.nodes;
  std::cout << " --trace" << std::endl;
}

bool happens_in(const std::string& scenario, saru::sim::Fault fault) {
  using saru::sim::Fault;
  const bool needs_three = fault == Fault::kHungMajority || fault == Fault::kUnheardSwitch;
  if (needs_three && scenario == "fencing") return false;
  if (fault >= Fault::kDeviceVotes) return scenario == "device";
  if (fault >= Fault::kFence) return scenario == "fencing";
  return true;
}

void tell_counts(const Counts& total, const std::string& scenario, double seconds) {
  const auto changes = total.membership_changes;
  std::cout << "  " << total.events << " events, "
            << static_cast<std::uint64_t>(static_cast<double>(total.events) / seconds)
            << " per second; " << total.steps << " steps, " << total.messages << " messages, "
            << total.writes << " kernel writes, " << total.views << " views, " << changes
            << " membership changes, " << total.acquisitions << " take-overs, " << total.lapses
            << " lapses, " << total.rejoins << " rejoins, " << total.switches << " switches\n";
  if (scenario == "crash" || scenario == "changes") return;
  std::cout << "  each seed at least " << total.virtual_ns_min / saru::sim::kSecond
            << " virtual seconds and " << total.membership_changes_min
            << " membership changes; healed after at most " << total.healed_ns_max / kMs << " ms\n";
  for (std::size_t i = 0; i < saru::sim::kFaults; ++i) {
    const auto fault = static_cast<saru::sim::Fault>(i);
    if (!happens_in(scenario, fault)) continue;
    std::cout << "  " << total.hits[i] << "\t" << saru::sim::words(fault) << "\n";
  }
}

constexpr const char* kScenarios[] = {"history", "stay",  "sync",   "fencing",
                                      "device",  "crash", "changes"};

int refuse(const std::string& why) {
  std::cerr
      << "saru-sim: " << why << "\n"
      << "usage: saru-sim [--scenario history|stay|sync|fencing|device|crash|changes] "
         "[--seeds A-B] [--nodes N] [--plant NAME] [--kept FILE] [--minutes M] [--wide] [--trace]\n"
         "       saru-sim --plants [A-B] [--kept FILE]\n";
  return 2;
}

// What goes together; 0: go on.
int check(const Options& options) {
  const auto& name = options.scenario;
  if (std::find(std::begin(kScenarios), std::end(kScenarios), name) == std::end(kScenarios)) {
    return refuse("there is no scenario \"" + name + "\"");
  }
  if (name == "device" && options.nodes % 2 != 0) {
    return refuse("a quorum device has halves to choose from: give --nodes an even number");
  }
  if (name == "fencing" && options.nodes > 2) return refuse("fencing is about two nodes");
  return 0;
}

struct KeptSeed {
  Options options;
  std::uint64_t seed = 0;
};

std::vector<KeptSeed> read_kept(const Options& options) {
  std::vector<KeptSeed> kept;
  if (options.kept.empty()) return kept;
  std::ifstream file(options.kept);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    KeptSeed one{options, 0};
    if (!(words >> one.options.scenario >> one.seed)) continue;
    words >> one.options.nodes;
    if (check(one.options) != 0) std::exit(2);
    kept.push_back(one);
  }
  if (kept.empty()) {
    std::cerr << "saru-sim: there are no seeds to be read in " << options.kept << "\n";
    std::exit(2);
  }
  return kept;
}

unsigned run_kept(const Options& options, Counts& total) {
  unsigned failures = 0;
  const auto kept = read_kept(options);
  for (const KeptSeed& one : kept) {
    const std::string failure = run(one.options, one.seed, total);
    if (failure.empty()) continue;
    ++failures;
    tell_failure(one.options, one.seed, failure);
  }
  std::cout << kept.size() << " kept seeds, " << failures << " violations\n";
  return failures;
}

// A fault that many seeds did not bring is one that the simulator has lost.
unsigned tell_lost_faults(const Options& options, std::uint64_t seeds, const Counts& total) {
  constexpr std::uint64_t kMany = 200;
  unsigned lost = 0;
  const bool random = options.scenario != "crash" && options.scenario != "changes";
  if (!random || seeds < kMany || options.nodes != 0) return 0;
  for (std::size_t i = 0; i < saru::sim::kFaults; ++i) {
    const auto fault = static_cast<saru::sim::Fault>(i);
    if (!happens_in(options.scenario, fault) || total.hits[i] > 0) continue;
    ++lost;
    std::cout << "saru-sim: in " << seeds << " seeds it never came to \"" << saru::sim::words(fault)
              << "\"\n";
  }
  return lost;
}

int run_seeds(const Options& options) {
  Counts total;
  unsigned failures = options.kept.empty() ? 0 : run_kept(options, total);
  const auto began = Clock::now();
  std::uint64_t seed = options.first;
  for (; seed <= options.last; ++seed) {
    if (options.minutes > 0 && Clock::now() - began > std::chrono::minutes(options.minutes)) break;
    const std::string failure = run(options, seed, total);
    if (!failure.empty() && ++failures <= 20) tell_failure(options, seed, failure);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  std::cout << options.scenario << ": " << seed - options.first << " seeds in "
            << static_cast<long>(seconds) << " s, " << failures << " violations\n";
  tell_counts(total, options.scenario, seconds);
  const unsigned lost = tell_lost_faults(options, seed - options.first, total);
  return failures + lost == 0 ? 0 : 1;
}

// Not found in some hundred histories: they are tried, told, and not yet demanded.
bool is_seldom_found(Plant plant) {
  return plant == Plant::kGrantByNewLease || plant == Plant::kWeightOutOfOrder ||
         plant == Plant::kHoldAmongStrangers || plant == Plant::kNoRestartWait ||
         plant == Plant::kTakeByOldBeat;
}

bool is_about_lingering(Plant plant) {
  return plant >= Plant::kForgetLingerers && plant <= Plant::kLingerDoneBeforeAck;
}

bool is_about_flows(Plant plant) {
  return plant == Plant::kTakeUnprepared || plant == Plant::kCountUnsynced;
}

bool is_about_fencing(Plant plant) {
  return plant >= Plant::kNoFenceWait && plant <= Plant::kKeepClosedWhenMet;
}

int run_plants(const Options& options) {
  unsigned found = 0, demanded = 0;
  const auto kept = read_kept(options);
  for (const auto& [name, which, what] : saru::sim::plants()) {
    saru::sim::plant(which);
    const bool seldom = is_seldom_found(which);
    demanded += seldom ? 0 : 1;
    Counts total;
    std::uint64_t seed = 0, seeds = 0;
    std::string failure;
    const auto try_one = [&](const Options& how, std::uint64_t number) {
      seed = number;
      ++seeds;
      failure = run(how, seed, total);
    };
    Options how = options;
    if (is_about_fencing(which)) how.scenario = "fencing";
    if (is_about_lingering(which)) how.scenario = "stay";
    if (is_about_flows(which)) how.scenario = "sync";
    if (which == Plant::kDeviceWithoutLag) how.scenario = "device";
    for (auto next = options.first; failure.empty() && next <= options.last; ++next) {
      try_one(how, next);
    }
    // Then those that once showed a bug of this kind, which took many more to find.
    for (const KeptSeed& one : kept) {
      if (failure.empty()) try_one(one.options, one.seed);
    }
    if (failure.empty()) {
      std::cout << (seldom ? "not found in " : "MISSED in ") << seeds << " seeds: SARU_PLANT_"
                << name << " (" << what << ")\n";
    } else {
      found += seldom ? 0 : 1;
      std::cout << "found after " << seeds << (seeds == 1 ? " seed: " : " seeds: ") << "SARU_PLANT_"
                << name << " (" << what << ")\n    seed " << seed << " " << failure << "\n";
    }
    std::cout << std::flush;
  }
  saru::sim::plant(Plant::kNone);
  std::cout << found << "/" << demanded << " demanded planted bugs found\n";
  return found == demanded ? 0 : 1;
}

bool parse_seeds(const std::string& word, Options& options) {
  char* end = nullptr;
  options.first = options.last = std::strtoull(word.c_str(), &end, 10);
  if (*end == '-') options.last = std::strtoull(end + 1, &end, 10);
  return !word.empty() && *end == '\0' && options.first <= options.last;
}

bool parse_number(const char* word, long least, long most, long& value) {
  char* end = nullptr;
  value = std::strtol(word, &end, 10);
  return *word != '\0' && *end == '\0' && value >= least && value <= most;
}

// 0: go on
int parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--trace") {
      options.trace = true;
    } else if (word == "--wide") {
      options.wide = true;
    } else if (word == "--plants") {
      options.plants = true;
      options.last = 120;
      if (more && argv[i + 1][0] != '-' && !parse_seeds(argv[++i], options)) {
        return refuse(std::string("--plants ") + argv[i] + " is no range of seeds");
      }
    } else if (word == "--scenario" && more) {
      options.scenario = argv[++i];
    } else if (word == "--kept" && more) {
      options.kept = argv[++i];
    } else if (word == "--minutes" && more) {
      if (!parse_number(argv[++i], 1, 100'000, options.minutes)) {
        return refuse(std::string("--minutes ") + argv[i] + " is no number of minutes");
      }
    } else if (word == "--nodes" && more) {
      long nodes = 0;
      if (!parse_number(argv[++i], 2, saru::sim::kMostNodes, nodes)) {
        return refuse(std::string("--nodes ") + argv[i] + " is no number from 2 to " +
                      std::to_string(saru::sim::kMostNodes));
      }
      options.nodes = static_cast<unsigned>(nodes);
    } else if (word == "--plant" && more) {
      const auto which = saru::sim::plant_by_name(argv[++i]);
      if (!which) return refuse(std::string("no planted bug is called ") + argv[i]);
      saru::sim::plant(*which);
    } else if (word != "--seeds" || !more || !parse_seeds(argv[++i], options)) {
      const bool seeds = word == "--seeds" && more;
      return refuse("cannot make sense of " + word + (seeds ? std::string(" ") + argv[i] : ""));
    }
  }
  return check(options);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (const int wrong = parse(argc, argv, options); wrong != 0) return wrong;
  return options.plants ? run_plants(options) : run_seeds(options);
}
