// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/metrics.h"

namespace saru {

std::uint64_t Rising::value(const std::string& name, std::uint64_t read) {
  Counter& counter = counters_[name];
  if (read < counter.read) counter.before += counter.read;
  counter.read = read;
  return counter.before + read;
}

nlohmann::json describe(const Tally& tally) {
  nlohmann::json without = nlohmann::json::object();
  for (std::size_t i = 0; i < kEndings; ++i) {
    const Histogram& one = tally.without_owner[i];
    without[word_of(static_cast<Ended>(i))] = {
        {"counts", one.within}, {"count", one.count}, {"sum_ns", one.sum.count()}};
  }
  return {{"views", tally.views},
          {"lapses", tally.lapses},
          {"excluded", tally.excluded},
          {"rejoins", tally.rejoins},
          {"beats", tally.beats},
          {"writes", tally.writes},
          {"refusals", tally.refusals},
          {"disturbances", tally.disturbances},
          {"taken_unknown", tally.taken_unknown},
          {"released", tally.released},
          {"closed", tally.closed},
          {"without_owner", std::move(without)}};
}

}  // namespace saru
