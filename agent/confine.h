// SPDX-License-Identifier: GPL-2.0-or-later
// What sarud gives up once its lock, its tables, its link and its control socket are there, and
// before it has read one byte from the network. SECURITY.md says why each thing is kept.
#pragma once

#include <sys/types.h>

#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/exit_code.h"

namespace saru {

inline constexpr const char* kUser = "saru";

// Whom the process becomes. Corosync lets whoever is of group 0 in, also after it was restarted,
// without a word in its configuration.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  bool own = false;  // false: there is no such user, so it stays root
};
[[nodiscard]] Identity find_identity(const char* user = kUser);

// Becomes that user, with no capability and no way to one; the supplementary groups stay. Without
// such a user: stays root, without its capabilities. False, and errno perhaps, when it cannot.
[[nodiscard]] bool drop_to(const Identity& identity);

// In this order: the directory of the run files becomes the user's; no limit on locked memory; no
// supplementary groups, the user's uid, of the capabilities CAP_NET_ADMIN and CAP_NET_RAW alone
// (and CAP_IPC_LOCK, where the limit stays), none of the rest in the bounding set; no_new_privs;
// the seccomp filter. Call it with one thread. Returns what the machine lacks, one sentence each;
// fails when what should have been given up was not.
[[nodiscard]] tl::expected<std::vector<std::string>, Failure> confine(const Identity& identity,
                                                                      const std::string& directory);

}  // namespace saru
