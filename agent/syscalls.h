// SPDX-License-Identifier: GPL-2.0-or-later
// The system calls of a sarud that serves.
#pragma once

namespace saru {

// From now on every other one fails with EPERM, in all threads, and the kernel logs it (audit:
// type=1326). It fails and does not kill: a call that nobody foresaw, on a path that runs once in a
// year, shall cost an error and not the service; what an attacker wants (execve, ptrace, mount, …)
// it does not get either way. Returns 0, or the errno of a kernel without seccomp filters.
[[nodiscard]] int allow_system_calls();

}  // namespace saru
