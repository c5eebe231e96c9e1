// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace saru {
namespace {

Failure file_failure(const char* doing, const std::string& path) {
  const int error = errno;
  const bool refused = error == EACCES || error == EPERM || error == EROFS;
  return {refused ? ExitCode::kNoPermission : ExitCode::kFailed,
          std::string("cannot ") + doing + " " + path + ": " + std::strerror(error) +
              (refused ? "; run this as root" : "")};
}

// An open file description's lock: it survives fork(), ends with the last copy of the descriptor,
// and can be asked about without being taken.
struct flock whole_file() {
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return whole;
}

LockHolder read_holder(int fd) {
  char text[256] = {};
  const ssize_t got = pread(fd, text, sizeof text - 1, 0);
  LockHolder holder;
  if (got <= 0) return holder;
  char* rest = nullptr;
  holder.pid = static_cast<pid_t>(std::strtol(text, &rest, 10));
  if (*rest == ' ') ++rest;
  holder.label.assign(rest, std::strcspn(rest, "\n"));
  return holder;
}

}  // namespace

tl::expected<RunFiles, Failure> RunFiles::of(std::uint16_t id) {
  struct stat self;
  if (stat("/proc/self/ns/net", &self) != 0) {
    return tl::unexpected(file_failure("read", "/proc/self/ns/net"));
  }
  const std::string base = std::string(kRunDirectory) + "/" + std::to_string(id);
  const std::string in_namespace = base + "." + std::to_string(self.st_ino);
  return RunFiles{in_namespace + ".lock", in_namespace + ".unclean", base + ".sock"};
}

tl::expected<Lock, Failure> Lock::take(const RunFiles& files, std::uint16_t id,
                                       const std::string& label) {
  if (mkdir(kRunDirectory, 0755) != 0 && errno != EEXIST) {
    return tl::unexpected(file_failure("create", kRunDirectory));
  }
  const int fd = open(files.lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return tl::unexpected(file_failure("open", files.lock));
  Lock lock(fd);
  struct flock whole = whole_file();
  if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
    if (errno != EAGAIN && errno != EACCES) return tl::unexpected(file_failure("lock", files.lock));
    const LockHolder holder = read_holder(fd);
    const std::string whose = holder.label.empty() ? "" : " of the resource " + holder.label;
    return tl::unexpected(Failure{
        ExitCode::kBadConfiguration,
        "id " + std::to_string(id) + " is already used on this node by sarud" + whose + " (pid " +
            std::to_string(holder.pid) + "); give each address that is served here another id"});
  }
  lock.sign(label);
  return lock;
}

Lock::Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Lock::~Lock() {
  if (fd_ >= 0) close(fd_);
}

void Lock::sign(const std::string& label) const {
  const std::string text = std::to_string(getpid()) + " " + label + "\n";
  if (ftruncate(fd_, 0) != 0) return;
  // The content only helps people; the lock itself is what counts.
  [[maybe_unused]] const ssize_t written = pwrite(fd_, text.data(), text.size(), 0);
}

tl::expected<LockHolder, Failure> lock_holder(const RunFiles& files) {
  const int fd = open(files.lock.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return LockHolder{};
    return tl::unexpected(file_failure("open", files.lock));
  }
  LockHolder holder;
  struct flock whole = whole_file();
  if (fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK) holder = read_holder(fd);
  close(fd);
  return holder;
}

bool marker_exists(const RunFiles& files) { return access(files.marker.c_str(), F_OK) == 0; }

tl::expected<void, Failure> set_marker(const RunFiles& files) {
  const int fd = open(files.marker.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return tl::unexpected(file_failure("create", files.marker));
  close(fd);
  return {};
}

void clear_marker(const RunFiles& files) { unlink(files.marker.c_str()); }

}  // namespace saru
