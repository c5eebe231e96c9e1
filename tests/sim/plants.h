// SPDX-License-Identifier: GPL-2.0-or-later
// Which of the bugs of agent/core/plant.h is planted now.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/core/plant.h"

namespace saru::sim {

struct Planted {
  std::string name;  // SARU_PLANT_<name>
  Plant plant;
  std::string what;
};
const std::vector<Planted>& plants();
// "NO_WAIT" or "SARU_PLANT_NO_WAIT"
std::optional<Plant> plant_by_name(const std::string& name);

void plant(Plant which);
// What the core's drift() says from now on.
void set_drift(double drift);

}  // namespace saru::sim
