// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/program.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <thread>

extern char** environ;

namespace saru {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMost = std::size_t{64} << 20;

// Everything until its end; false: too late, or too much.
bool read_all(int fd, std::string& text, Clock::time_point deadline) {
  char part[65536];
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0 || text.size() > kMost) return false;
    pollfd ready = {fd, POLLIN, 0};
    const int count = poll(&ready, 1, static_cast<int>(left));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    const ssize_t got = read(fd, part, sizeof part);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) return true;
    text.append(part, static_cast<std::size_t>(got));
  }
}

// Its exit code; nullopt: it was killed, by a signal or since it did not end.
std::optional<int> wait_for(pid_t pid, Clock::time_point deadline) {
  int status = 0;
  for (;;) {
    const pid_t ended = waitpid(pid, &status, WNOHANG);
    if (ended == pid) break;
    if (Clock::now() >= deadline) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return std::nullopt;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (!WIFEXITED(status)) return std::nullopt;
  return WEXITSTATUS(status);
}

}  // namespace

std::optional<Printed> run_program(const std::vector<std::string>& words,
                                   std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  std::vector<std::string> copies = words;
  std::vector<char*> argv;
  argv.reserve(copies.size() + 1);
  for (std::string& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  Printed printed;
  if (error != 0) {
    close(ends[0]);
    printed.code = 127;
    return error == ENOENT ? std::optional(printed) : std::nullopt;
  }
  const bool all = read_all(ends[0], printed.text, deadline);
  close(ends[0]);
  const auto code = wait_for(pid, all ? deadline : Clock::now());
  if (!all || !code) return std::nullopt;
  printed.code = *code;
  return printed;
}

}  // namespace saru
