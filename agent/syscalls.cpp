// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/syscalls.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <memory>

namespace saru {
namespace {

struct Release {
  void operator()(void* filter) const noexcept { seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, Release>;

// Names, so that one list serves every architecture: those it does not have are passed over.
constexpr const char* kAllowed[] = {
    // memory
    "brk", "madvise", "mremap", "munmap", "membarrier",
    // files, the run files and /proc among them
    "access", "close", "close_range", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fallocate",
    "fchmod", "fcntl", "fcntl64", "fdatasync", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "getcwd", "getdents", "getdents64", "lseek",
    "_llseek", "lstat", "lstat64", "newfstatat", "open", "openat", "pread64", "preadv", "pwrite64",
    "pwritev", "read", "readlink", "readlinkat", "readv", "rename", "renameat", "renameat2",
    "rmdir", "stat", "stat64", "statfs", "statfs64", "statx", "umask", "unlink", "unlinkat",
    "write", "writev",
    // sockets; which families: below
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recv", "recvfrom", "recvmmsg", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto",
    "setsockopt", "shutdown",
    // waiting
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "eventfd2", "pipe", "pipe2", "poll", "ppoll", "ppoll_time64", "pselect6", "select",
    "_newselect", "timerfd_create", "timerfd_gettime", "timerfd_settime", "timerfd_settime64",
    // clocks (adjtimex and its kind: to read; to set them needs CAP_SYS_TIME)
    "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "gettimeofday", "nanosleep",
    "time", "times",
    // threads (clone: below)
    "exit", "exit_group", "futex", "futex_time64", "get_robust_list", "gettid", "restart_syscall",
    "rseq", "sched_getaffinity", "sched_getparam", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getscheduler", "sched_yield", "set_robust_list",
    "set_tid_address",
    // signals (to others: below)
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait",
    "sigaltstack", "sigreturn",
    // who and where am I
    "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getpgrp", "getpid",
    "getppid", "getresgid", "getresuid", "getrlimit", "getrusage", "getuid", "getuid32",
    "prlimit64", "sysinfo", "uname", "getrandom", "ioctl"};

// Calls of which only a part is allowed.
struct Part {
  const char* name;
  scmp_arg_cmp condition;
};

// 0, or the first errno.
class Rules {
 public:
  explicit Rules(scmp_filter_ctx filter) : filter_(filter) {}

  void allow(const char* name) { allow_if(name, 0, {}); }
  void allow(const Part& part) { allow_if(part.name, 1, part.condition); }
  void fail(const char* name, int code) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number >= 0) note(seccomp_rule_add(filter_, SCMP_ACT_ERRNO(code), number, 0));
  }
  void note(int result) {
    if (result < 0 && error_ == 0) error_ = -result;
  }
  int error() const { return error_; }

 private:
  void allow_if(const char* name, unsigned count, scmp_arg_cmp condition) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number < 0) return;  // not on this architecture
    note(seccomp_rule_add_array(filter_, SCMP_ACT_ALLOW, number, count, &condition));
  }

  scmp_filter_ctx filter_;
  int error_ = 0;
};

void allow_parts(Rules& rules) {
  constexpr auto kSelf = SCMP_CMP_EQ;
  const auto pid = static_cast<scmp_datum_t>(getpid());
  const Part parts[] = {
      // Netlink, announcements (AF_PACKET), corosync and syslog (AF_UNIX). Interfaces are looked up
      // by ioctl() on one of these. No TCP, no UDP.
      {"socket", {0, SCMP_CMP_EQ, AF_NETLINK, 0}},
      {"socket", {0, SCMP_CMP_EQ, AF_PACKET, 0}},
      {"socket", {0, SCMP_CMP_EQ, AF_UNIX, 0}},
      {"socketpair", {0, SCMP_CMP_EQ, AF_UNIX, 0}},
      // Threads, no processes.
      {"clone", {0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD}},
      // No new code.
      {"mmap", {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}},
      {"mmap2", {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}},
      {"mprotect", {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}},
      // The threads that ask corosync are ordinary ones; nobody becomes real-time.
      {"sched_setscheduler", {1, SCMP_CMP_EQ, SCHED_OTHER, 0}},
      // abort(), raise(), and libqb's answer to a signal that ends the process.
      {"tgkill", {0, kSelf, pid, 0}},
      {"kill", {0, kSelf, pid, 0}},
  };
  for (const Part& part : parts) rules.allow(part);
  // glibc begins a thread with clone3, whose flags no filter can see, and falls back to clone for
  // this error only.
  rules.fail("clone3", ENOSYS);
}

}  // namespace

int allow_system_calls() {
  const Filter filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (!filter) return ENOMEM;
  Rules rules(filter.get());
  rules.note(seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1));
  // Kernels before 4.14 do not log; that is no reason to do without the filter.
  static_cast<void>(seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_LOG, 1));
  for (const char* name : kAllowed) rules.allow(name);
  allow_parts(rules);
  if (rules.error() != 0) return rules.error();
  rules.note(seccomp_load(filter.get()));
  return rules.error();
}

}  // namespace saru
