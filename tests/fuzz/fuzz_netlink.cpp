// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel says, from a kernel that says anything: answers to what is read of tables, links
// and addresses, acknowledgements, and notices. send() and recv() of the product end up here
// (--wrap), so a real socket is opened and nothing is ever sent. What lies behind a datagram in the
// buffer is poisoned: AddressSanitizer tells of every byte that is read there.
//
// libnftnl calls exit() on an attribute that is not of the kind that the kernel's interface says
// ("kernel ABI is broken"). For sarud that is one way to close: nobody renews the lease. Here it
// ends the input.
#include <dlfcn.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <sanitizer/asan_interface.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "nft/codec.h"
#include "nft/plan.h"
#include "nft/rtnl.h"
#include "nft/watch.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/kernel_promises.h"

namespace {

using namespace saru;
using namespace saru::nft;

constexpr std::size_t kZerosBehind = 64;  // which NetlinkSocket::receive() promises
fuzz::Input* kernel = nullptr;            // what is still to be answered
std::uint32_t request = 0;                // the sequence number of the last one
std::uint8_t* poisoned = nullptr;
std::size_t poisoned_size = 0;

void unpoison() {
  if (poisoned != nullptr) ASAN_UNPOISON_MEMORY_REGION(poisoned, poisoned_size);
  poisoned = nullptr;
}

// Answers get the number that was asked with: nobody would guess it. A length that does not fit
// ends the datagram, so most of the time it is made to fit.
void number_messages(std::uint8_t* bytes, std::size_t size) {
  for (std::size_t at = 0; at + sizeof(nlmsghdr) <= size;) {
    nlmsghdr head;
    std::memcpy(&head, bytes + at, sizeof head);
    if (head.nlmsg_len < sizeof head || head.nlmsg_len > size - at) {
      if (head.nlmsg_seq % 4 == 1) return;
      head.nlmsg_len = static_cast<std::uint32_t>(size - at);
    }
    if (head.nlmsg_seq % 8 != 3) head.nlmsg_seq = request;
    std::memcpy(bytes + at, &head, sizeof head);
    at += NLMSG_ALIGN(head.nlmsg_len);
  }
}

// While there is no input yet: no interface of that name.
ssize_t say_no_device(void* buffer) {
  struct {
    nlmsghdr head;
    nlmsgerr error;
  } answer{};
  answer.head.nlmsg_len = sizeof answer;
  answer.head.nlmsg_type = NLMSG_ERROR;
  answer.head.nlmsg_seq = request;
  answer.error.error = -ENODEV;
  std::memcpy(buffer, &answer, sizeof answer);
  request = 0;
  return sizeof answer;
}

void read_tables(NetlinkSocket& socket, unsigned what) {
  const auto table = read_table_state(socket, NFPROTO_INET, "saru_1");
  if (what % 2 == 0) {
    const auto whole = read_table(socket, NFPROTO_INET, "saru_1");
    if (whole) static_cast<void>(compare(TablePlan{}, *whole));
  } else {
    const auto elements = read_elements(socket, NFPROTO_INET, "saru_1", "owned");
    if (elements) {
      const auto twice =
          std::adjacent_find(elements->begin(), elements->end(),
                             [](const Element& a, const Element& b) { return a.key >= b.key; });
      fuzz::must(twice == elements->end(), "elements are sorted, each once");
    }
    static_cast<void>(read_counters(socket, NFPROTO_INET, "saru_1"));
  }
}

void read_links(NetlinkSocket& socket) {
  const auto link = read_link(socket, "saru1");
  if (link && *link) static_cast<void>((*link)->mac.text() + (*link)->name + (*link)->kind);
  const auto addresses = read_addresses(socket);
  if (addresses) {
    for (const AddressState& one : *addresses) static_cast<void>(one.ip.text());
  }
}

void change_something(NetlinkSocket& socket) {
  Batch batch;
  put_link_up(batch, 3, "saru1");
  put_delete_link(batch, 3, "saru1");
  const auto refusal = socket.execute(batch);
  if (refusal) fuzz::must(!refusal->error().text.empty(), "a refusal has words");
}

TableConfig config() {
  TableConfig config;
  config.id = 1;
  config.nic = "eth0";
  config.link = "saru1";
  config.addresses = {*IpAddress::parse("192.0.2.1"), *IpAddress::parse("2001:db8::1")};
  return config;
}

void one(NetlinkSocket& socket, Watch& watch, unsigned what) {
  if (what < 3) read_tables(socket, what);
  if (what == 3) read_links(socket);
  if (what == 4) change_something(socket);
  if (what == 5) static_cast<void>(watch.resync());
  if (what > 5) static_cast<void>(watch.read());
}

struct ProcessEnded {};

}  // namespace

extern "C" int __real_nftnl_rule_nlmsg_parse(const nlmsghdr*, nftnl_rule*);
extern "C" int __wrap_nftnl_rule_nlmsg_parse(const nlmsghdr* message, nftnl_rule* rule) {
  if (!fuzz::keeps_promises(message, true)) return -1;
  return __real_nftnl_rule_nlmsg_parse(message, rule);
}
extern "C" int __real_nftnl_set_nlmsg_parse(const nlmsghdr*, nftnl_set*);
extern "C" int __wrap_nftnl_set_nlmsg_parse(const nlmsghdr* message, nftnl_set* set) {
  if (!fuzz::keeps_promises(message, false)) return -1;
  return __real_nftnl_set_nlmsg_parse(message, set);
}

// What libnftnl has in hand when it gives up on a message, it loses.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

// exit() of all libraries; by another name here, for libc's declaration says that it throws
// nothing.
extern "C" [[noreturn]] void end_process(int code) __asm__("exit");
extern "C" void end_process(int code) {
  if (kernel != nullptr) throw ProcessEnded{};
  using Exit = void (*)(int);
  reinterpret_cast<Exit>(dlsym(RTLD_NEXT, "exit"))(code);
  std::abort();
}

extern "C" ssize_t __wrap_send(int, const void* bytes, std::size_t size, int) {
  nlmsghdr head{};
  if (size >= sizeof head) std::memcpy(&head, bytes, sizeof head);
  request = head.nlmsg_seq;
  return static_cast<ssize_t>(size);
}

extern "C" ssize_t __wrap_recv(int, void* buffer, std::size_t size, int) {
  unpoison();
  if (kernel == nullptr && request != 0) return say_no_device(buffer);
  if (kernel == nullptr || kernel->empty()) {
    errno = EAGAIN;
    return -1;
  }
  if (kernel->byte() == 0xff) {
    static constexpr int kErrors[] = {EAGAIN, ENOBUFS, EINTR};
    errno = kErrors[kernel->byte() % std::size(kErrors)];
    return -1;
  }
  const auto datagram = kernel->piece();
  const std::size_t got = std::min(size, datagram.size());
  auto* bytes = static_cast<std::uint8_t*>(buffer);
  std::copy_n(datagram.begin(), got, bytes);
  number_messages(bytes, got);
  if (size > got) {
    poisoned = bytes + got + kZerosBehind;
    poisoned_size = size - got;
    ASAN_POISON_MEMORY_REGION(poisoned, poisoned_size);
  }
  return static_cast<ssize_t>(got);
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  static auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  static auto watch = Watch::open(config(), 77);
  fuzz::must(socket && watch, "sockets can be had");
  kernel = &input;
  try {
    for (int i = 0; i < 8 && !input.empty(); ++i) one(*socket, *watch, input.byte() % 8);
  } catch (const ProcessEnded&) {
  }
  unpoison();
  kernel = nullptr;
  return 0;
}
