// SPDX-License-Identifier: GPL-2.0-or-later
// Logs through libqb: to syslog as "sarud", and in the foreground to stderr too.
#pragma once

#include <cstdint>
#include <string>

#include "agent/core/core.h"
#include "agent/journal.h"

namespace saru {

// `file`: appended to as well, unless empty.
void open_log(std::uint16_t id, bool to_stderr, const std::string& file, LogLevel threshold);
void close_log();
void set_log_level(LogLevel threshold);
void write_log(LogLevel level, const std::string& text);
// Of this process, whatever the threshold (agent/journal.h).
nlohmann::json recent_log(std::size_t count);

}  // namespace saru
