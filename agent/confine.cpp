// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/confine.h"

#include <cap-ng.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/syscalls.h"

namespace saru {
namespace {

using std::string;

tl::unexpected<Failure> cannot(const string& what) {
  const string why = errno == 0 ? "" : string(": ") + std::strerror(errno);
  return tl::unexpected(Failure{ExitCode::kFailed, "cannot " + what + why +
                                                       "; sarud does not run with more rights than "
                                                       "it needs: start it as root"});
}

// The files are replaced by renaming, so the directory must be the user's. Never through a link
// that somebody has put there.
bool hand_over(const string& directory, uid_t uid) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = fchown(fd, uid, 0) == 0 && fchmod(fd, 0755) == 0;
  const int error = errno;
  close(fd);
  errno = error;
  return done;
}

// Later mmap() calls of a locked process count against the limit once CAP_IPC_LOCK is gone. Where
// root may not lift it (a container), that capability is needed on and on.
bool needs_ipc_lock() {
  const rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &none) == 0) return false;
  capng_get_caps_process();
  return capng_have_capability(CAPNG_EFFECTIVE, CAP_IPC_LOCK) != 0;
}

// With the capabilities that are chosen, and none in the bounding set.
bool become(const Identity& identity, capng_flags_t groups) {
  errno = 0;
  if (!identity.own) return capng_apply(CAPNG_SELECT_ALL) == 0;
  const auto how = static_cast<capng_flags_t>(groups | CAPNG_CLEAR_BOUNDING | CAPNG_CLEAR_AMBIENT);
  return capng_change_id(static_cast<int>(identity.uid), static_cast<int>(identity.gid), how) == 0;
}

bool drop_rights(const Identity& identity) {
  const bool keep_ipc_lock = needs_ipc_lock();
  capng_clear(CAPNG_SELECT_ALL);
  const auto kept = static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED);
  if (capng_updatev(CAPNG_ADD, kept, CAP_NET_ADMIN, CAP_NET_RAW, -1) != 0) return false;
  if (keep_ipc_lock && capng_update(CAPNG_ADD, kept, CAP_IPC_LOCK) != 0) return false;
  return become(identity, CAPNG_DROP_SUPP_GRP);
}

}  // namespace

bool drop_to(const Identity& identity) {
  capng_clear(CAPNG_SELECT_ALL);
  return become(identity, CAPNG_NO_FLAG);
}

Identity find_identity(const char* user) {
  const passwd* found = getpwnam(user);
  if (found == nullptr || found->pw_uid == 0) return {};
  return {found->pw_uid, 0, true};
}

tl::expected<std::vector<string>, Failure> confine(const Identity& identity,
                                                   const string& directory) {
  std::vector<string> lacking;
  if (!identity.own) {
    lacking.push_back(string("there is no user ") + kUser +
                      " on this node: sarud keeps the uid of root, without its capabilities; "
                      "create it: systemd-sysusers, or useradd --system --no-create-home " +
                      kUser);
  }
  errno = 0;
  if (!hand_over(directory, identity.uid)) return cannot("give " + directory + " to its user");
  if (!drop_rights(identity)) return cannot("give up root's rights");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return cannot("set no_new_privs");
  if (const int error = allow_system_calls(); error != 0) {
    lacking.push_back(string("this kernel takes no filter of system calls: ") +
                      std::strerror(error));
  }
  return lacking;
}

}  // namespace saru
