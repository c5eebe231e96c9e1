// SPDX-License-Identifier: GPL-2.0-or-later
// The bug that the environment names, for all of a fuzzer's life: SARU_FUZZ_PLANT=ANY_NAME.
#include "agent/core/plant.h"

#include <cstdlib>
#include <string_view>

#include "agent/core/state.h"
#include "tests/fuzz/input.h"

namespace saru {
namespace {

Plant chosen() {
  const char* name = std::getenv("SARU_FUZZ_PLANT");
  if (name == nullptr) return Plant::kNone;
#define SARU_PLANT_NAMED(plant, enumerator, what) \
  if (std::string_view(name) == #plant) return Plant::enumerator;
  SARU_PLANT_LIST(SARU_PLANT_NAMED)
  SARU_FUZZ_PLANT_LIST(SARU_PLANT_NAMED)
#undef SARU_PLANT_NAMED
  fuzz::must(false, "SARU_FUZZ_PLANT names a bug of agent/core/plant.h");
  return Plant::kNone;
}

}  // namespace

Plant planted() {
  static const Plant plant = chosen();
  return plant;
}

double drift() { return kDrift; }  // the simulator's builds may change it

}  // namespace saru
