// SPDX-License-Identifier: GPL-2.0-or-later
// The files in /run/saru that an earlier process has left, with any content; and what saru-fencing
// writes into its pipe.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "agent/core/state.h"
#include "agent/fencing_news.h"
#include "agent/lock.h"
#include "agent/options.h"
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

// What is written anew there takes the place of the file, and the lock with it.
const RunFiles& other() {
  static const std::string name = path() + "-other";
  static const RunFiles files{name, name, name, name, name};
  return files;
}

// Somebody holds its lock all the time.
int made() {
  const int file = create_anew(path());
  std::atexit([] {
    unlink(path().c_str());
    unlink(other().partner.c_str());
  });
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
  constexpr std::chrono::milliseconds kLongest{kMaxLeaseMs};
  must(marker->lease >= Nanos(0) && marker->lease <= kLongest, "a lease within its limits");
  const Nanos wait = marker->wait(std::chrono::seconds(1), std::chrono::hours(100));
  must(wait >= Nanos(0) && wait <= guarded(kLongest), "a wait that ends");

  const auto holder = lock_holder(files);
  must(holder && (holder->pid == 0 || holder->pid > 1), "nobody, or one that may be killed");

  const auto wishes = load_wishes(path());
  if (wishes) must(wishes_from(to_text(*wishes)).has_value(), "written and read again");

  const auto ring = read_partner_closed(files);
  if (ring) {
    must(keep_partner_closed(other(), *ring).has_value(), "a ring can be written");
    must(read_partner_closed(other()) == ring, "... and read again");
  }

  const auto news = parse_fencing_news({reinterpret_cast<const char*>(data), size});
  if (news) {
    const std::string line = to_line(*news);
    must(!line.empty() && line.back() == '\n', "one line");
    must(parse_fencing_news(line.substr(0, line.size() - 1)) == news, "news told and heard again");
  }
  return 0;
}
