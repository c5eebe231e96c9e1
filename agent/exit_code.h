// SPDX-License-Identifier: GPL-2.0-or-later
// How sarud and saructl end: the numbers of the OCF resource agent API 1.1, so that the resource
// agent hands them on as they are.
#pragma once

#include <string>

#include "agent/core/error.h"

namespace saru {

enum class ExitCode : int {
  kOk = 0,
  kFailed = 1,            // OCF_ERR_GENERIC: tried, did not work
  kBadHere = 2,           // OCF_ERR_ARGS: this node lacks what the parameters name (a NIC)
  kUnsupported = 3,       // OCF_ERR_UNIMPLEMENTED
  kNoPermission = 4,      // OCF_ERR_PERM
  kNotInstalled = 5,      // OCF_ERR_INSTALLED: a program or a kernel feature is missing here
  kBadConfiguration = 6,  // OCF_ERR_CONFIGURED: wrong on every node
  kNotRunning = 7,        // OCF_NOT_RUNNING
  kBusy = 75,             // EX_TEMPFAIL: the same again in a moment may do
  kDegraded = 190,        // OCF_DEGRADED: serves, but something is not as it should be
};

// One sentence that says what is wrong and what to do, and the way to end with it.
struct Failure {
  ExitCode code = ExitCode::kFailed;
  std::string sentence;
};

// For what the kernel or corosync refused while this node was set up.
inline Failure to_failure(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kNotPermitted:
      return {ExitCode::kNoPermission, error.text};
    case ErrorKind::kMissing:
    case ErrorKind::kConflict:
      return {ExitCode::kBadHere, error.text};
    case ErrorKind::kInvalid:
      return {ExitCode::kBadConfiguration, error.text};
    case ErrorKind::kTooOld:
      return {ExitCode::kNotInstalled, error.text};
    case ErrorKind::kFailed:
      break;
  }
  return {ExitCode::kFailed, error.text};
}

}  // namespace saru
