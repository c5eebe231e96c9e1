// SPDX-License-Identifier: GPL-2.0-or-later
// One sarud per cluster id and network namespace, and what the next one must know about the last.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "agent/core/types.h"
#include "agent/exit_code.h"

namespace saru {

inline constexpr const char* kRunDirectory = "/run/saru";

// Where the files of one id live. The lock carries the inode of the network namespace, so that two
// namespaces that share one /run do not lock each other out; the socket does not, because saructl
// must find it.
struct RunFiles {
  std::string lock;    // locked with F_OFD_SETLK for the life of the process; holds "PID LABEL"
  std::string marker;  // of the last process
  std::string socket;
  std::string wishes;   // agent/wishes.h
  std::string partner;  // on which ring the other of two nodes is known to be closed: "NODEID SEQ"

  static tl::expected<RunFiles, Failure> of(std::uint16_t id);
};

// Opens a file that is not there yet, after removing one that is: the directory is sarud's user's,
// and root must not write where a link in it points to. -1 and errno as open(2).
[[nodiscard]] int create_anew(const std::string& path);

// Who holds a lock, as written into it.
struct LockHolder {
  pid_t pid = 0;      // otherwise above 1
  std::string label;  // the name of the cluster resource, or empty
};

// Holds the lock of one id. Moved, never copied; closing it lets go.
class Lock {
 public:
  // Fails with kBadConfiguration when another process holds it: the sentence names pid and label.
  static tl::expected<Lock, Failure> take(const RunFiles& files, std::uint16_t id,
                                          const std::string& label);
  Lock(Lock&& other) noexcept;
  Lock& operator=(Lock&&) = delete;
  ~Lock();

  // After fork(): writes the pid of the process that goes on.
  void sign(const std::string& label) const;

 private:
  explicit Lock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

// Nobody, if no process holds the lock now.
tl::expected<LockHolder, Failure> lock_holder(const RunFiles& files);

// What the next process must know about the last one of this boot: how long its lease could have
// been, and when it had closed its kernel and said its leave, if it did.
struct Marker {
  Nanos lease{0};
  std::optional<Nanos> ended;  // CLOCK_BOOTTIME; nullopt: it did not end cleanly

  // How long from `now` (CLOCK_BOOTTIME) until nobody counts on anything that process knew or said.
  Nanos wait(Nanos own_lease, Nanos now) const;
};
// Nobody was here: nullopt. One that cannot be read counts as an unclean end.
std::optional<Marker> read_marker(const RunFiles& files);
// Before the first message without an end, and again with it.
tl::expected<void, Failure> set_marker(const RunFiles& files, const Marker& marker);
void remove_marker(const RunFiles& files);

// For closed_on() of the next process here. What cannot be read is not known.
std::optional<RingId> read_partner_closed(const RunFiles& files);
tl::expected<void, Failure> keep_partner_closed(const RunFiles& files, const RingId& ring);

}  // namespace saru
