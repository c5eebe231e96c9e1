// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "agent/core/plant.h"
#include "agent/core/state.h"
#include "agent/options.h"

namespace saru {
namespace {

Failure file_failure(const char* doing, const std::string& path) {
  const int error = errno;
  const bool refused = error == EACCES || error == EPERM;
  const char* advice = refused           ? "; run this as root"
                       : error == EROFS  ? "; make the file system of /run writable"
                       : error == ENOSPC ? "; make room in the file system of /run"
                                         : "";
  return {refused || error == EROFS ? ExitCode::kNoPermission : ExitCode::kFailed,
          std::string("cannot ") + doing + " " + path + ": " + std::strerror(error) + advice};
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
  const long pid = std::strtol(text, &rest, 10);
  // Whoever reads this may be about to kill it: not init, not a process group, not everybody.
  if (pid > 1 && pid <= std::numeric_limits<pid_t>::max()) holder.pid = static_cast<pid_t>(pid);
  if (*rest == ' ') ++rest;
  holder.label.assign(rest, std::strcspn(rest, "\n"));
  return holder;
}

}  // namespace

int create_anew(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return -1;
  return open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

tl::expected<RunFiles, Failure> RunFiles::of(std::uint16_t id) {
  struct stat self;
  if (stat("/proc/self/ns/net", &self) != 0) {
    return tl::unexpected(file_failure("read", "/proc/self/ns/net"));
  }
  const std::string base = std::string(kRunDirectory) + "/" + std::to_string(id);
  const std::string in_namespace = base + "." + std::to_string(self.st_ino);
  return RunFiles{in_namespace + ".lock", in_namespace + ".last", base + ".sock",
                  in_namespace + ".wishes", in_namespace + ".partner"};
}

tl::expected<Lock, Failure> Lock::take(const RunFiles& files, std::uint16_t id,
                                       const std::string& label) {
  if (mkdir(kRunDirectory, 0755) != 0 && errno != EEXIST) {
    return tl::unexpected(file_failure("create", kRunDirectory));
  }
  const int fd = open(files.lock.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return tl::unexpected(file_failure("open", files.lock));
  Lock lock(fd);
  fchmod(fd, 0600);  // an earlier version let everybody read it, and so hold it
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
  const int fd = open(files.lock.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
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

Nanos Marker::wait(Nanos own_lease, Nanos now) const {
  const Nanos whole = guarded(std::max(lease, own_lease));
  // An end that has not been is damage, and so large that it must not be added to.
  if (!ended || *ended > now) return whole;
  return std::max(whole - (now - *ended), Nanos(0));
}

// "LEASE_NS" or "LEASE_NS ENDED_NS"
std::optional<Marker> read_marker(const RunFiles& files) {
  const int fd = open(files.marker.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return std::nullopt;
  Marker marker;
  if (fd < 0) return marker;
  char text[64] = {};
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return marker;
  char* rest = nullptr;
  const long long lease = std::strtoll(text, &rest, 10);
  marker.lease = std::clamp(Nanos(lease), Nanos(0), Nanos(std::chrono::milliseconds(kMaxLeaseMs)));
  if (planted() == Plant::kUnboundedLease) marker.lease = Nanos(lease);
  if (*rest != ' ') return marker;
  const Nanos ended(std::strtoll(rest, &rest, 10));
  if (*rest == '\n' && ended > Nanos(0)) marker.ended = ended;
  return marker;
}

namespace {

// Whole or not at all.
tl::expected<void, Failure> replace_file(const std::string& path, const std::string& text) {
  const std::string fresh = path + ".new";
  const int fd = create_anew(fresh);
  if (fd < 0) return tl::unexpected(file_failure("create", fresh));
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  close(fd);
  errno = error;
  if (written && rename(fresh.c_str(), path.c_str()) == 0) return {};
  auto failure = file_failure("write", path);
  unlink(fresh.c_str());
  return tl::unexpected(std::move(failure));
}

}  // namespace

tl::expected<void, Failure> set_marker(const RunFiles& files, const Marker& marker) {
  std::string text = std::to_string(marker.lease.count());
  if (marker.ended) text += " " + std::to_string(marker.ended->count());
  return replace_file(files.marker, text + "\n");
}

std::optional<RingId> read_partner_closed(const RunFiles& files) {
  const int fd = open(files.partner.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char text[64] = {};
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  RingId ring;
  const char* last = text + std::max<ssize_t>(got, 0);
  const auto node = std::from_chars(text, last, ring.representative.value);
  if (node.ec != std::errc{} || node.ptr == last || *node.ptr != ' ') return std::nullopt;
  const auto seq = std::from_chars(node.ptr + 1, last, ring.seq);
  if (seq.ec != std::errc{} || seq.ptr + 1 != last || *seq.ptr != '\n') return std::nullopt;
  return ring;
}

tl::expected<void, Failure> keep_partner_closed(const RunFiles& files, const RingId& ring) {
  return replace_file(files.partner, std::to_string(ring.representative.value) + " " +
                                         std::to_string(ring.seq) + "\n");
}

void remove_marker(const RunFiles& files) { unlink(files.marker.c_str()); }

}  // namespace saru
