// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace saru {

// "0.1.0": project(VERSION) of CMakeLists.txt, the one place that names it.
extern const char* const kVersion;

}  // namespace saru
