// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace saru {
namespace {

std::string because(const std::string& what) { return what + ": " + std::strerror(errno); }

bool write_file(const char* path, const char* text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t length = static_cast<ssize_t>(std::strlen(text));
  const bool written = write(fd, text, std::strlen(text)) == length;
  const int error = errno;
  close(fd);
  errno = error;
  return written;
}

// Waits for the child's one line: "0" or "CODE SENTENCE". Returns this process's exit status.
int wait_for_child(int fd, pid_t child) {
  std::string line;
  char part[512];
  for (;;) {
    const ssize_t got = read(fd, part, sizeof part);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    line.append(part, static_cast<std::size_t>(got));
  }
  if (line.empty()) {
    int status = 0;
    waitpid(child, &status, 0);
    const std::string how = WIFSIGNALED(status)
                                ? "was killed by signal " + std::to_string(WTERMSIG(status))
                                : "ended with status " + std::to_string(WEXITSTATUS(status));
    std::fprintf(stderr, "sarud: the daemon %s before it was ready; the system log says why\n",
                 how.c_str());
    return static_cast<int>(ExitCode::kFailed);
  }
  char* rest = nullptr;
  const int code = static_cast<int>(std::strtol(line.c_str(), &rest, 10));
  if (code != 0) std::fprintf(stderr, "sarud: %s\n", *rest == ' ' ? rest + 1 : rest);
  return code;
}

void leave_the_terminal() {
  setsid();
  if (chdir("/") != 0) return;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  if (null > 2) close(null);
}

}  // namespace

std::vector<std::string> protect_process() {
  std::vector<std::string> refused;
  // Locked memory counts whole: a thread's stack need not be 8 MiB of it.
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, std::size_t{256} * 1024);
  pthread_setattr_default_np(&small);
  pthread_attr_destroy(&small);
  if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) refused.push_back(because("memory is not locked"));
  sched_param priority = {};
  priority.sched_priority = sched_get_priority_max(SCHED_RR) - 1;
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &priority) != 0) {
    refused.push_back(because("no real-time priority"));
  }
  if (!write_file("/proc/self/oom_score_adj", "-1000")) {
    refused.push_back(because("not protected from the OOM killer"));
  }
  return refused;
}

Readiness::Readiness(Readiness&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), managed_(other.managed_) {}

Readiness::~Readiness() {
  if (fd_ >= 0) close(fd_);
}

tl::expected<Readiness, Failure> Readiness::daemonize() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return tl::unexpected(Failure{ExitCode::kFailed, because("cannot create a pipe")});
  }
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return tl::unexpected(Failure{ExitCode::kFailed, because("cannot fork")});
  if (child > 0) {
    close(ends[1]);
    _exit(wait_for_child(ends[0], child));
  }
  // Whatever else was open belongs to whoever started us, who may wait for it to be closed.
  if (ends[1] != 3) dup3(ends[1], 3, O_CLOEXEC);
  ends[1] = 3;
  close_range(4, ~0U, 0);
  leave_the_terminal();
  Readiness readiness;
  readiness.fd_ = ends[1];
  return readiness;
}

tl::expected<Readiness, Failure> Readiness::in_foreground() {
  const char* name = std::getenv("NOTIFY_SOCKET");
  Readiness readiness;
  if (name == nullptr || *name == '\0') return readiness;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(name);
  readiness.fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  readiness.managed_ = true;
  if (length < sizeof address.sun_path) {
    std::memcpy(address.sun_path, name, length);
    if (*name == '@') address.sun_path[0] = '\0';  // not in the file system
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
    if (connect(readiness.fd_, reinterpret_cast<sockaddr*>(&address), size) == 0) return readiness;
  } else {
    errno = ENAMETOOLONG;
  }
  return tl::unexpected(Failure{
      ExitCode::kFailed, because(std::string("cannot reach the service manager at ") + name) +
                             "; without one, run this without NOTIFY_SOCKET"});
}

void Readiness::ready() { say(managed_ ? "READY=1" : "0"); }

void Readiness::failed(const Failure& failure) {
  if (managed_) return;  // the manager sees how this process ends
  say(std::to_string(static_cast<int>(failure.code)) + " " + failure.sentence);
}

void Readiness::say(const std::string& line) {
  if (fd_ < 0) return;
  [[maybe_unused]] const ssize_t written = write(fd_, line.data(), line.size());
  close(fd_);
  fd_ = -1;
}

}  // namespace saru
