// SPDX-License-Identifier: GPL-2.0-or-later
// A process that has given up what sarud gives up, and what it can still do. Needs root.
#include "agent/confine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "nft/clocks.h"

namespace saru {
namespace {

constexpr uid_t kSomebody = 64321;

using Status = std::map<std::string, std::string>;

Status own_status() {
  Status status;
  std::ifstream file("/proc/thread-self/status");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(":\t");
    if (colon != std::string::npos) status[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return status;
}

// True when it is refused with this error.
bool refused(long result, int error) { return result == -1 && errno == error; }

// Runs `body` in a child that has confined itself; 0: it was true.
class Confine : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0U) << "run it as root";
    char pattern[] = "/tmp/confine_test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { rmdir(directory_.c_str()); }

  int confined(const Identity& identity, const std::function<bool()>& body) const {
    const pid_t child = fork();
    if (child == 0) {
      const auto lacking = confine(identity, directory_);
      if (!lacking) _exit(3);
      if (lacking->size() != (identity.own ? 0U : 1U)) _exit(4);
      _exit(body() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  // NET_ADMIN, NET_RAW; IPC_LOCK where the limit on locked memory could not be lifted.
  static std::string kept() {
    rlimit limit = {};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    return limit.rlim_max == RLIM_INFINITY ? "0000000000003000" : "0000000000007000";
  }

  const Identity somebody_{kSomebody, 0, true};
  std::string directory_;
};

TEST_F(Confine, TwoCapabilitiesAreLeftAndNoMoreCanBeHad) {
  EXPECT_EQ(confined(somebody_,
                     [] {
                       const Status is = own_status();
                       const std::string two = kept();
                       const std::string none(16, '0');
                       return is.at("CapEff") == two && is.at("CapPrm") == two &&
                              is.at("CapBnd") == none && is.at("CapInh") == none &&
                              is.at("CapAmb") == none && is.at("NoNewPrivs") == "1" &&
                              is.at("Seccomp") == "2" && getuid() == kSomebody &&
                              geteuid() == kSomebody && getgid() == 0;
                     }),
            0);
}

TEST_F(Confine, WithoutItsUserItIsARootWithoutCapabilities) {
  EXPECT_EQ(confined({},
                     [] {
                       const Status is = own_status();
                       return is.at("CapEff") == kept() && is.at("Seccomp") == "2" &&
                              getuid() == 0 && refused(open("/proc/1/mem", O_RDONLY), EACCES);
                     }),
            0);
}

TEST_F(Confine, WhatAnAttackerWantsIsRefused) {
  EXPECT_EQ(confined(somebody_,
                     [] {
                       char program[] = "/bin/true";
                       char* words[] = {program, nullptr};
                       return refused(execve(program, words, nullptr), EPERM) &&
                              refused(syscall(SYS_fork), EPERM) &&
                              refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), EPERM) &&
                              refused(ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM) &&
                              refused(socket(AF_INET, SOCK_STREAM, 0), EPERM) &&
                              refused(socket(AF_INET6, SOCK_DGRAM, 0), EPERM) &&
                              refused(unshare(CLONE_NEWNET), EPERM) && refused(setuid(0), EPERM) &&
                              refused(kill(getppid(), 9), EPERM) &&
                              refused(mkdir("/tmp/confine_test.dir", 0700), EPERM) &&
                              mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
                              refused(open("/etc/passwd", O_WRONLY), EACCES);
                     }),
            0);
}

TEST_F(Confine, WhatSarudDoesStillWorks) {
  EXPECT_EQ(confined(somebody_,
                     [this] {
                       bool ran = false;
                       std::thread([&ran] { ran = own_status().at("Seccomp") == "2"; }).join();
                       const std::string one = directory_ + "/one";
                       const std::string two = directory_ + "/two";
                       const int file = open(one.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
                       return ran && file >= 0 && write(file, "x", 1) == 1 && fsync(file) == 0 &&
                              rename(one.c_str(), two.c_str()) == 0 && unlink(two.c_str()) == 0 &&
                              socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) >= 0 &&
                              socket(AF_PACKET, SOCK_RAW, 0) >= 0 &&
                              socket(AF_UNIX, SOCK_STREAM, 0) >= 0 &&
                              timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC) >= 0 &&
                              nft::Clocks::tells_slowness();
                     }),
            0);
}

TEST_F(Confine, LockedMemoryMayGrowBeyondTheLimitOfAUser) {
  constexpr std::size_t kMuch = std::size_t{64} << 20;
  EXPECT_EQ(confined(somebody_,
                     [] {
                       return mmap(nullptr, kMuch, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) != MAP_FAILED;
                     }),
            0);
}

TEST_F(Confine, TheDirectoryIsNotReachedThroughALink) {
  const std::string link = directory_ + ".link";
  ASSERT_EQ(symlink("/etc", link.c_str()), 0);
  const pid_t child = fork();
  if (child == 0) _exit(confine(somebody_, link) ? 1 : 0);
  int status = 0;
  waitpid(child, &status, 0);
  unlink(link.c_str());
  EXPECT_EQ(status, 0);
  struct stat etc = {};
  ASSERT_EQ(stat("/etc", &etc), 0);
  EXPECT_EQ(etc.st_uid, 0U);
}

TEST(Identity, NobodyOfThatNameIsRoot) {
  const Identity nobody = find_identity("no-such-user-here");
  EXPECT_FALSE(nobody.own);
  EXPECT_EQ(nobody.uid, 0U);
  EXPECT_FALSE(find_identity("root").own);
}

}  // namespace
}  // namespace saru
