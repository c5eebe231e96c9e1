// SPDX-License-Identifier: GPL-2.0-or-later
// Lets packets come in at an interface and says how long the kernel took for each.
//
// One question per line on standard input, one line of answer on standard output:
//   NAMESPACE INTERFACE PACKETS RUNS FRAME   the frame in hex, with its Ethernet header
//   NS NS NS ...                             per packet, of each run; or "error: ..."
//
// BPF_PROG_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (Linux 5.18; Documentation/bpf/bpf_prog_run.rst):
// the kernel itself makes copies of the frame, asks an XDP program about each, which says PASS, and
// gives them to the network stack as if they had come in at the interface, in batches of 64, all in
// this thread. The kernel takes the time, without that in which another process had the processor.
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

long bpf(int command, bpf_attr& attr) { return syscall(SYS_bpf, command, &attr, sizeof attr); }

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// "r0 = XDP_PASS; exit". The descriptor, or -1.
int load_pass() {
  bpf_insn program[2]{};
  program[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  program[0].imm = XDP_PASS;
  program[1].code = BPF_JMP | BPF_EXIT;
  bpf_attr attr{};
  attr.prog_type = BPF_PROG_TYPE_XDP;
  attr.expected_attach_type = BPF_XDP;
  attr.insns = address_of(program);
  attr.insn_cnt = 2;
  attr.license = address_of("GPL");
  return static_cast<int>(bpf(BPF_PROG_LOAD, attr));
}

// A veth takes such frames only while it has an XDP program. It goes with the descriptor.
int attach(int program, unsigned interface) {
  bpf_attr attr{};
  attr.link_create.prog_fd = static_cast<std::uint32_t>(program);
  attr.link_create.target_ifindex = interface;
  attr.link_create.attach_type = BPF_XDP;
  return static_cast<int>(bpf(BPF_LINK_CREATE, attr));
}

// Nanoseconds per packet, or -1.
long run_once(int program, unsigned interface, const std::string& frame, unsigned packets) {
  xdp_md context{};
  context.data_end = static_cast<std::uint32_t>(frame.size());
  context.ingress_ifindex = interface;
  bpf_attr attr{};
  attr.test.prog_fd = static_cast<std::uint32_t>(program);
  attr.test.data_in = address_of(frame.data());
  attr.test.data_size_in = static_cast<std::uint32_t>(frame.size());
  attr.test.ctx_in = address_of(&context);
  attr.test.ctx_size_in = sizeof context;
  attr.test.repeat = packets;
  attr.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
  if (bpf(BPF_PROG_TEST_RUN, attr) != 0) return -1;
  return attr.test.duration;
}

bool enter(const std::string& space) {
  const int there = open(("/run/netns/" + space).c_str(), O_RDONLY | O_CLOEXEC);
  if (there < 0) return false;
  const bool entered = setns(there, CLONE_NEWNET) == 0;
  close(there);
  return entered;
}

std::string bytes_of(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class Source {
 public:
  explicit Source(int program) : program_(program) {}

  std::string answer(const std::string& question) {
    std::istringstream words(question);
    std::string space, interface, hex;
    unsigned packets = 0, runs = 0;
    if (!(words >> space >> interface >> packets >> runs >> hex)) return "error: not a question";
    if (!enter(space)) return failed("enter " + space);
    const unsigned index = if_nametoindex(interface.c_str());
    if (index == 0) return failed(interface);
    if (!attached_.contains(space)) {
      const int link = attach(program_, index);
      if (link < 0) return failed("attach to " + interface);
      attached_[space] = link;
    }
    const std::string frame = bytes_of(hex);
    std::string times;
    for (unsigned run = 0; run < runs; ++run) {
      const long ns = run_once(program_, index, frame, packets);
      if (ns < 0) return failed("BPF_PROG_RUN with live frames");
      times += std::to_string(ns) + " ";
    }
    return times;
  }

 private:
  static std::string failed(const std::string& what) {
    return "error: " + what + ": " + std::strerror(errno);
  }

  int program_;
  std::map<std::string, int> attached_;  // by namespace
};

}  // namespace

int main() {
  const int program = load_pass();
  if (program < 0) return std::cerr << "load: " << std::strerror(errno) << "\n", 1;
  Source source(program);
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << source.answer(line) << std::endl;
  }
  return 0;
}
