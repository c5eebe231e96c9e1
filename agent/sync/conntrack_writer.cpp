// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/socket.h>

// After libc's headers, to which they give way.
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "agent/sync/conntrack.h"
#include "agent/sync/conntrack_message.h"
#include "nft/netlink.h"

namespace saru::sync {
namespace {

using nft::NetlinkSocket;
using nft::Refusal;
using nft::Result;

constexpr const char* kMaking = "make a connection in conntrack";
constexpr const char* kReading = "read a connection of conntrack";
constexpr const char* kRemoving = "remove a connection from conntrack";
// Messages in one send(): enough that the call costs little, few enough that all answers fit.
constexpr std::size_t kMost = 256;
constexpr std::size_t kMostMessages = 2 * kMost;  // each may need a removal before it
constexpr std::size_t kReceiveSize = std::size_t{1} << 16;
constexpr int kSendTries = 100;
constexpr int kLastErrno = 4096;  // MAX_ERRNO in the kernel, and 1

constexpr std::uint16_t ctnetlink_type(int message) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message);
}

void put_generic(nlmsghdr* message, bool v4) {
  auto* generic = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  generic->nfgen_family = v4 ? AF_INET : AF_INET6;
  generic->version = NFNETLINK_V0;
}

std::string words_for(int code, const char* doing) {
  std::string text = Refusal{code, doing, ""}.error().text;
  if (code == ENOMEM || code == ENOSPC) {
    text += "; the table may be full: raise net.netfilter.nf_conntrack_max";
  }
  if (code == EEXIST) text += " (another connection has the tuple of its replies)";
  return text;
}

void note(ConntrackWriter::Outcome& outcome, std::string text) {
  if (outcome.first_error.empty()) outcome.first_error = std::move(text);
}

// A flow to be made, and how.
struct Job {
  const Flow* flow;
  bool replaces = false;  // an entry that is there already is removed before
  bool with_helper = true;
};

}  // namespace

struct ConntrackWriter::Impl {
  explicit Impl(NetlinkSocket s)
      : socket(std::move(s)), buffer(kReceiveSize), messages(kMostMessages * kMessageRoom) {}

  NetlinkSocket socket;
  std::vector<char> buffer;
  std::vector<char> messages;  // what goes out in one send()
  std::size_t used = 0;
  nlmsghdr* last = nullptr;
  std::uint32_t first_sequence = 1;
  std::vector<int> codes;  // of each message: an errno, or 0
  std::vector<Job> jobs, jobs_left;
  std::map<std::string, bool, std::less<>>
      helpers;  // whether this kernel has it, once that is known

  void clear();
  void remove(const FlowKey& key);
  void make(const Job& job);
  void exchange();
  // How many of the first go out together.
  std::size_t batch_of(std::span<const Job> some) const;
  void run_jobs(std::span<const Job> some, Outcome& outcome);

 private:
  nlmsghdr* start(int type, int flags, bool v4);
  void finish(nlmsghdr* message, bool good);
  int send() const;
  void read_answers();
};

void ConntrackWriter::Impl::clear() {
  first_sequence += static_cast<std::uint32_t>(codes.size());
  codes.clear();
  used = 0;
  last = nullptr;
}

nlmsghdr* ConntrackWriter::Impl::start(int type, int flags, bool v4) {
  char* at = messages.data() + used;
  std::fill_n(at, kMessageRoom, '\0');
  nlmsghdr* message = mnl_nlmsg_put_header(at);
  message->nlmsg_type = ctnetlink_type(type);
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  message->nlmsg_seq = first_sequence + static_cast<std::uint32_t>(codes.size());
  put_generic(message, v4);
  return message;
}

void ConntrackWriter::Impl::remove(const FlowKey& key) {
  nlmsghdr* message = start(IPCTNL_MSG_CT_DELETE, 0, key.v4);
  finish(message, put_key(message, key));
}

void ConntrackWriter::Impl::make(const Job& job) {
  nlmsghdr* message = start(IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL, job.flow->key.v4);
  const auto helper = helpers.find(job.flow->state.helper);
  const bool refused = helper != helpers.end() && !helper->second;
  finish(message, put_flow(message, *job.flow, job.with_helper && !refused));
}

// What could not be built is not sent: a removal without a tuple would be that of all connections.
void ConntrackWriter::Impl::finish(nlmsghdr* message, bool good) {
  codes.push_back(good ? 0 : EPROTONOSUPPORT);
  if (!good) return;
  used += MNL_ALIGN(message->nlmsg_len);
  last = message;
}

// Sends them, and reads what the kernel answers: what it refuses, and the last one.
void ConntrackWriter::Impl::exchange() {
  if (last == nullptr) return;
  last->nlmsg_flags |= NLM_F_ACK;
  if (const int code = send(); code != 0) {
    std::fill(codes.begin(), codes.end(), code);
    return;
  }
  read_answers();
}

int ConntrackWriter::Impl::send() const {
  for (int tries = 1;; ++tries) {
    if (::send(socket.fd(), messages.data(), used, 0) >= 0) return 0;
    if (errno == EINTR) continue;
    if (errno == ENOBUFS && tries < kSendTries) continue;  // no memory for the copy right now
    return errno;
  }
}

void ConntrackWriter::Impl::read_answers() {
  const std::uint32_t last_sequence = last->nlmsg_seq;
  for (;;) {
    const ssize_t got = socket.receive(buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {  // an answer is lost: what became of those without one is not known
      std::replace(codes.begin(), codes.end(), 0, errno == EAGAIN ? ENOBUFS : errno);
      return;
    }
    int left = static_cast<int>(got);
    for (auto* m = reinterpret_cast<nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(m, left);
         m = mnl_nlmsg_next(m, &left)) {
      const auto* answer = nft::header_of<nlmsgerr>(m);
      const std::uint32_t place = m->nlmsg_seq - first_sequence;
      if (m->nlmsg_type != NLMSG_ERROR || answer == nullptr || place >= codes.size()) continue;
      codes[place] = answer->error < 0 && answer->error > -kLastErrno ? -answer->error : 0;
      if (m->nlmsg_seq == last_sequence) return;
    }
  }
}

// For a helper that it has not the kernel calls modprobe, each time: it is asked for one connection
// whether it has a helper, before there may be many.
std::size_t ConntrackWriter::Impl::batch_of(std::span<const Job> some) const {
  const auto end = some.begin() + static_cast<std::ptrdiff_t>(std::min(kMost, some.size()));
  const auto unknown = std::find_if(some.begin(), end, [&](const Job& job) {
    const std::string& name = job.flow->state.helper;
    return job.with_helper && !name.empty() && helpers.find(name) == helpers.end();
  });
  return std::max<std::size_t>(static_cast<std::size_t>(unknown - some.begin()), 1);
}

// Those that must be tried in another way are left in jobs_left.
void ConntrackWriter::Impl::run_jobs(std::span<const Job> some, Outcome& outcome) {
  clear();
  for (const Job& job : some) {
    if (job.replaces) remove(job.flow->key);
    make(job);
  }
  exchange();
  std::size_t place = 0;
  for (const Job& job : some) {
    if (job.replaces) ++place;
    const int code = codes[place++];
    const bool helper = job.with_helper && !job.flow->state.helper.empty();
    if (code == 0) {
      ++outcome.done;
      if (job.replaces) ++outcome.replaced;
      if (helper) helpers.emplace(job.flow->state.helper, true);
    } else if (code == EEXIST && !job.replaces) {
      jobs_left.push_back({.flow = job.flow, .replaces = true, .with_helper = job.with_helper});
    } else if (code == EOPNOTSUPP && helper) {
      note(outcome, "this kernel has no conntrack helper " + job.flow->state.helper +
                        "; load its module (nf_conntrack_" + job.flow->state.helper +
                        "): connections are made without it");
      helpers.emplace(job.flow->state.helper, false);
      jobs_left.push_back({.flow = job.flow, .replaces = job.replaces, .with_helper = false});
    } else {
      ++outcome.failed;
      note(outcome, words_for(code, kMaking));
    }
  }
}

ConntrackWriter::ConntrackWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConntrackWriter::ConntrackWriter(ConntrackWriter&&) noexcept = default;
ConntrackWriter& ConntrackWriter::operator=(ConntrackWriter&&) noexcept = default;
ConntrackWriter::~ConntrackWriter() = default;

Result<ConntrackWriter> ConntrackWriter::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return tl::unexpected<Error>(socket.error());
  return ConntrackWriter(std::make_unique<Impl>(std::move(*socket)));
}

std::uint32_t ConntrackWriter::port_id() const { return impl_->socket.port_id(); }

Result<std::optional<Flow>> ConntrackWriter::current(const FlowKey& key) {
  nft::Batch& batch = nft::scratch();
  nlmsghdr* message = batch.add(ctnetlink_type(IPCTNL_MSG_CT_GET), 0, kReading);
  put_generic(message, key.v4);
  if (!put_key(message, key)) return nft::fail(Refusal{EPROTONOSUPPORT, kReading, ""});
  std::optional<Flow> flow;
  const auto refusal =
      impl_->socket.query(batch, [&](const nlmsghdr* answer) { flow = flow_in(answer); });
  if (refusal && refusal->code != ENOENT) return nft::fail(*refusal);
  return flow;
}

ConntrackWriter::Outcome ConntrackWriter::inject(std::span<const Flow> flows) {
  Outcome outcome;
  auto& jobs = impl_->jobs;
  auto& left = impl_->jobs_left;
  jobs.clear();
  impl_->helpers.clear();
  for (const Flow& flow : flows) jobs.push_back({.flow = &flow});
  // Three times at most: as it is, in the place of another, without its helper.
  while (!jobs.empty()) {
    left.clear();
    for (std::span<const Job> rest = jobs; !rest.empty();) {
      const std::size_t size = impl_->batch_of(rest);
      impl_->run_jobs(rest.first(size), outcome);
      rest = rest.subspan(size);
    }
    std::swap(jobs, left);
  }
  return outcome;
}

ConntrackWriter::Outcome ConntrackWriter::remove(std::span<const FlowKey> keys) {
  Outcome outcome;
  for (std::size_t at = 0; at < keys.size(); at += kMost) {
    impl_->clear();
    for (const FlowKey& key : keys.subspan(at, std::min(kMost, keys.size() - at))) {
      impl_->remove(key);
    }
    impl_->exchange();
    for (const int code : impl_->codes) {
      const bool good = code == 0 || code == ENOENT;
      ++(good ? outcome.done : outcome.failed);
      if (!good) note(outcome, words_for(code, kRemoving));
    }
  }
  return outcome;
}

}  // namespace saru::sync
