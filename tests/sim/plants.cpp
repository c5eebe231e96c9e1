// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/plants.h"

#include "agent/core/state.h"

namespace saru {

namespace {

// The build option SARU_PLANT_<name> plants a bug for good.
Plant built_in() {
#ifdef SARU_PLANT_BUILT_IN
  return sim::plant_by_name(SARU_PLANT_BUILT_IN).value();
#else
  return Plant::kNone;
#endif
}

Plant& current_plant() {
  static Plant current = built_in();
  return current;
}
double current_drift = kDrift;

}  // namespace

Plant planted() { return current_plant(); }
double drift() { return current_drift; }

namespace sim {

void plant(Plant which) { current_plant() = which == Plant::kNone ? built_in() : which; }
void set_drift(double drift) { current_drift = drift; }

const std::vector<Planted>& plants() {
  static const std::vector<Planted> all = {
#define SARU_PLANT_ENTRY(name, enumerator, what) {#name, Plant::enumerator, what},
      SARU_PLANT_LIST(SARU_PLANT_ENTRY)
#undef SARU_PLANT_ENTRY
  };
  return all;
}

std::optional<Plant> plant_by_name(const std::string& name) {
  for (const Planted& one : plants()) {
    if (one.name == name || "SARU_PLANT_" + one.name == name) return one.plant;
  }
  return std::nullopt;
}

}  // namespace sim
}  // namespace saru
