// SPDX-License-Identifier: GPL-2.0-or-later
// sarud --reload: hands new parameters to the sarud that runs with this id.
#pragma once

#include "agent/core/types.h"
#include "agent/options.h"

namespace saru {

// `raw` is what `options` were made of; `lease` what they and corosync's timers give now. Prints
// what became of it. kNotRunning when no sarud runs; kBadConfiguration when it cannot change so:
// then the parameters in force stay.
tl::expected<ExitCode, Failure> reload_running(const Options& options, RawOptions raw, Nanos lease);

}  // namespace saru
