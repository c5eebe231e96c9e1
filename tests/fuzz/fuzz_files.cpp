// SPDX-License-Identifier: GPL-2.0-or-later
// The files in /run/saru that an earlier process has left, with any content.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "agent/core/state.h"
#include "agent/lock.h"
#include "agent/wishes.h"
#include "tests/fuzz/input.h"

namespace {

using namespace saru;
using fuzz::must;

// In memory, and of this process alone.
const std::string& path() {
  static const std::string path = "/run/saru-fuzz-files-" + std::to_string(getpid());
  return path;
}

// Somebody holds its lock all the time.
int made() {
  const int file = create_anew(path());
  std::atexit([] { unlink(path().c_str()); });
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  must(file >= 0 && fcntl(file, F_OFD_SETLK, &whole) == 0, "the file can be locked");
  return file;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int file = made();
  must(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) >= 0, "the file can be written");
  const RunFiles files{path(), path(), path(), path(), path()};

  const auto marker = read_marker(files);
  must(marker.has_value(), "a marker that is there is one");
  constexpr std::chrono::hours kLongest{1};
  must(marker->lease >= Nanos(0) && marker->lease <= kLongest, "a lease within its limits");
  const Nanos wait = marker->wait(std::chrono::seconds(1), std::chrono::hours(100));
  must(wait >= Nanos(0) && wait <= guarded(kLongest), "a wait that ends");

  const auto holder = lock_holder(files);
  must(holder && (holder->pid == 0 || holder->pid > 1), "nobody, or one that may be killed");

  const auto wishes = load_wishes(path());
  if (wishes) must(wishes_from(to_text(*wishes)).has_value(), "written and read again");
  return 0;
}
