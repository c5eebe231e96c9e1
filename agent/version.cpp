// SPDX-License-Identifier: GPL-2.0-or-later
// Alone in its file, so that another version compiles nothing else anew.
#include "agent/version.h"

namespace saru {

const char* const kVersion = SARU_VERSION;

}  // namespace saru
