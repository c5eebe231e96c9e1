// SPDX-License-Identifier: GPL-2.0-or-later
// Starts one machine of the rig and stays as its pid 1.
//
//   nsinit NAME BOOT-SCRIPT [ARG…]
//
// Makes new net, mount, uts, ipc and pid namespaces and forks: the child is pid 1 in them. Talks to
// the rig over its standard input and output:
//   out "PID\n"  the pid of the child as the caller sees it (the first process returns here);
//   in  1 byte   the caller has moved the network link in; end of file instead: give up;
//   out "ok\n"   the boot script has succeeded; anything else means that the machine is gone.
// Then it only reaps. SIGTERM ends it, and the kernel then kills everything in the pid namespace.
// The boot script's own output goes to standard error.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char* what) {
  fprintf(stderr, "nsinit: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void run_boot_script(char** argv) {
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0) die("redirect");
    execv(argv[0], argv);
    die(argv[0]);
  }
  for (;;) {
    int status;
    pid_t done = wait(&status);
    if (done < 0 && errno != EINTR) die("wait");
    if (done != pid) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    fprintf(stderr, "nsinit: the boot script failed, status 0x%x\n", status);
    exit(1);
  }
}

static void serve_as_init(const char* name, char** boot) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGCHLD);
  sigaddset(&watched, SIGTERM);
  sigprocmask(SIG_BLOCK, &watched, NULL);
  setsid();
  char title[16];
  snprintf(title, sizeof title, "init-%s", name);
  prctl(PR_SET_NAME, title);
  char go;
  if (read(0, &go, 1) != 1) exit(1);
  // Nothing that is mounted here may reach the host.
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) die("make / private");
  if (sethostname(name, strlen(name)) != 0) die("sethostname");
  run_boot_script(boot);
  if (write(1, "ok\n", 3) != 3) die("answer");
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  close(null);
  if (chdir("/") != 0) die("chdir");
  for (;;) {
    int signal_number = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    sigwait(&watched, &signal_number);
    if (signal_number == SIGTERM) exit(0);
  }
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: nsinit NAME BOOT-SCRIPT [ARG...]\n");
    return 2;
  }
  if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID) != 0)
    die("unshare");
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) serve_as_init(argv[1], argv + 2);
  printf("%d\n", pid);
  return 0;
}
