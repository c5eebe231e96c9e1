// SPDX-License-Identifier: GPL-2.0-or-later
// What the environment (kernel, corosync, files) refused, in one plain sentence. Standard library
// only.
#pragma once

#include <cstdint>
#include <string>

namespace saru {

// What sort of refusal, so that a caller can choose an exit code.
enum class ErrorKind : std::uint8_t {
  kFailed,        // tried, did not work
  kNotPermitted,  // no right to do it
  kMissing,       // something that must be there is not (a NIC, a table)
  kConflict,      // somebody else holds it
  kInvalid,       // the request itself is wrong
  kTooOld,        // this kernel (or library) cannot do it
};

struct Error {
  ErrorKind kind = ErrorKind::kFailed;
  std::string text;  // what happened, to what, and what to do
};

}  // namespace saru
