// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/fencing_watch.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>

extern char** environ;

namespace saru {
namespace {

using std::string;

constexpr const char* kProgram = "saru-fencing";
constexpr std::size_t kLongestLine = 1024;

tl::unexpected<Failure> cannot_start(int error) {
  return tl::unexpected(Failure{ExitCode::kNotInstalled,
                                string("cannot start ") + kProgram + ": " + std::strerror(error) +
                                    "; install it, or accept two owners: fencing=ignore"});
}

string find_program() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto folder = self.parent_path();
  string beside = (folder / kProgram).string();
  if (!error && access(beside.c_str(), X_OK) == 0) return beside;
  // Under whatever prefix sarud is installed; an absolute directory stays as it is.
  return (folder / ".." / SARU_LIBEXECDIR / kProgram).string();
}

int spawn(int out, const string& partner, NodeId self) {
  const string program = find_program();
  string node = std::to_string(self.value);
  string name = partner;
  string zero = kProgram;
  std::array<char*, 4> arguments{zero.data(), name.data(), node.data(), nullptr};
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigdefault(&how, &all);
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int error = posix_spawn(&child, program.c_str(), &files, &how, arguments.data(), environ);
  posix_spawnattr_destroy(&how);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

}  // namespace

tl::expected<std::unique_ptr<FencingWatch>, Failure> FencingWatch::start(qb_loop_t* loop,
                                                                         const string& partner,
                                                                         NodeId self,
                                                                         Listener listener) {
  // Nobody waits for the program: its end is the end of the pipe.
  std::signal(SIGCHLD, SIG_IGN);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return cannot_start(errno);
  const int error = spawn(ends[1], partner, self);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return cannot_start(error);
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  std::unique_ptr<FencingWatch> watch(new FencingWatch(loop, ends[0], std::move(listener)));
  if (!watch->readable_.watch(ends[0])) return cannot_start(ENOMEM);
  return watch;
}

FencingWatch::FencingWatch(qb_loop_t* loop, int fd, Listener listener)
    : fd_(fd), listener_(std::move(listener)), readable_(loop, [this] { on_readable(); }) {}

FencingWatch::~FencingWatch() {
  readable_.unwatch();
  close(fd_);
}

void FencingWatch::on_readable() {
  char part[512];
  const ssize_t got = read(fd_, part, sizeof part);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    readable_.unwatch();
    listener_(
        {FencingNews::Kind::kBlind,
         string(kProgram) + " has ended: while both nodes are well, restart the resource here",
         Nanos(0), false});
    return;
  }
  rest_.append(part, static_cast<std::size_t>(got));
  for (auto end = rest_.find('\n'); end != string::npos; end = rest_.find('\n')) {
    const auto news = parse_fencing_news(rest_.substr(0, end));
    rest_.erase(0, end + 1);
    if (news) listener_(*news);
  }
  if (rest_.size() > kLongestLine) rest_.clear();
}

}  // namespace saru
