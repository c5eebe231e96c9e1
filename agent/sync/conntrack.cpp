// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/sync/conntrack.h"

#include <sys/socket.h>

// After libc's headers, to which they give way.
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <cerrno>
#include <fstream>
#include <utility>
#include <vector>

#include "agent/sync/conntrack_message.h"
#include "nft/netlink.h"

namespace saru::sync {
namespace {

using nft::NetlinkSocket;
using nft::Refusal;
using nft::Result;

constexpr const char* kFollowing = "follow what happens to conntrack's connections";
constexpr const char* kDumping = "read conntrack's connections";
// What the kernel sends of a dump at once, and room behind it (NetlinkSocket::receive).
constexpr std::size_t kPiece = std::size_t{1} << 16;

tl::unexpected<Error> refused(int code, const char* doing) {
  return nft::fail(Refusal{code, doing, ""});
}

constexpr std::uint16_t type_of(int message) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message);
}

void visit_event(const nlmsghdr* message, const ConntrackEvents::Each& each) {
  const bool gone = message->nlmsg_type == type_of(IPCTNL_MSG_CT_DELETE);
  if (!gone && message->nlmsg_type != type_of(IPCTNL_MSG_CT_NEW)) return;
  auto flow = flow_in(message);
  if (!flow) return;
  const bool made = (message->nlmsg_flags & NLM_F_CREATE) != 0;
  const Change change = gone ? Change::kGone : made ? Change::kNew : Change::kUpdate;
  each(change, std::move(*flow), message->nlmsg_pid);
}

// The errno that a message ends with.
int code_in(const nlmsghdr* message) {
  const auto* code = nft::header_of<int>(message);
  if (code == nullptr) return EBADMSG;
  return *code < 0 && *code > -4096 ? -*code : 0;
}

}  // namespace

// ---- Events
// ------------------------------------------------------------------

struct ConntrackEvents::Impl {
  explicit Impl(NetlinkSocket s) : socket(std::move(s)), buffer(kPiece) {}

  NetlinkSocket socket;
  std::vector<char> buffer;
};

ConntrackEvents::ConntrackEvents(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConntrackEvents::ConntrackEvents(ConntrackEvents&&) noexcept = default;
ConntrackEvents& ConntrackEvents::operator=(ConntrackEvents&&) noexcept = default;
ConntrackEvents::~ConntrackEvents() = default;

Result<ConntrackEvents> ConntrackEvents::open(int buffer_size) {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return tl::unexpected<Error>(socket.error());
  const auto enlarge = [&](int what) {
    return setsockopt(socket->fd(), SOL_SOCKET, what, &buffer_size, sizeof buffer_size) == 0;
  };
  if (!enlarge(SO_RCVBUFFORCE) && !enlarge(SO_RCVBUF)) return refused(errno, kFollowing);
  for (const unsigned group :
       {NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE, NFNLGRP_CONNTRACK_DESTROY}) {
    if (auto joined = socket->join_group(group); !joined) {
      return tl::unexpected<Error>(joined.error());
    }
  }
  return ConntrackEvents(std::make_unique<Impl>(std::move(*socket)));
}

bool ConntrackEvents::switched_off() {
  std::ifstream setting("/proc/sys/net/netfilter/nf_conntrack_events");
  int value = 1;
  return setting >> value && value == 0;
}

Result<void> ConntrackEvents::hear_of_new(bool wanted) {
  return wanted ? impl_->socket.join_group(NFNLGRP_CONNTRACK_NEW)
                : impl_->socket.leave_group(NFNLGRP_CONNTRACK_NEW);
}

int ConntrackEvents::fd() const { return impl_->socket.fd(); }

Result<ConntrackEvents::Read> ConntrackEvents::read(std::size_t most, const Each& each) {
  Read read;
  while (read.events < most) {
    const ssize_t got = impl_->socket.receive(impl_->buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return read;
    if (got < 0 && (errno == ENOBUFS || errno == EBADMSG)) {
      read.lost = true;
      continue;
    }
    if (got < 0) return refused(errno, kFollowing);
    int left = static_cast<int>(got);
    for (auto* m = reinterpret_cast<nlmsghdr*>(impl_->buffer.data()); mnl_nlmsg_ok(m, left);
         m = mnl_nlmsg_next(m, &left)) {
      ++read.events;
      visit_event(m, each);
    }
  }
  read.more = true;
  return read;
}

// ---- Dump
// ------------------------------------------------------------------

struct ConntrackDump::Impl {
  explicit Impl(NetlinkSocket s) : socket(std::move(s)), buffer(kPiece) {}

  NetlinkSocket socket;
  std::vector<char> buffer;
  std::uint32_t sequence = 0;
};

ConntrackDump::ConntrackDump(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConntrackDump::ConntrackDump(ConntrackDump&&) noexcept = default;
ConntrackDump& ConntrackDump::operator=(ConntrackDump&&) noexcept = default;
ConntrackDump::~ConntrackDump() = default;

Result<ConntrackDump> ConntrackDump::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return tl::unexpected<Error>(socket.error());
  return ConntrackDump(std::make_unique<Impl>(std::move(*socket)));
}

int ConntrackDump::fd() const { return impl_->socket.fd(); }

Result<void> ConntrackDump::begin() {
  impl_->socket.drain(impl_->buffer);
  nft::Batch& batch = nft::scratch();
  nlmsghdr* message = batch.add(type_of(IPCTNL_MSG_CT_GET), NLM_F_DUMP, kDumping);
  auto* generic = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  generic->nfgen_family = AF_UNSPEC;
  generic->version = NFNETLINK_V0;
  impl_->sequence = message->nlmsg_seq;
  if (const auto refusal = impl_->socket.send(batch)) return nft::fail(*refusal);
  return {};
}

Result<bool> ConntrackDump::read(const std::function<void(Flow&&)>& each) {
  const ssize_t got = impl_->socket.receive(impl_->buffer);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return false;
    return refused(errno, kDumping);
  }
  int left = static_cast<int>(got);
  for (auto* m = reinterpret_cast<nlmsghdr*>(impl_->buffer.data()); mnl_nlmsg_ok(m, left);
       m = mnl_nlmsg_next(m, &left)) {
    if (m->nlmsg_seq != impl_->sequence) continue;
    const bool ends = m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR;
    if (ends || (m->nlmsg_flags & NLM_F_DUMP_INTR) != 0) {
      const int code = ends ? code_in(m) : EINTR;
      if (code != 0) return refused(code, kDumping);
      if (m->nlmsg_type == NLMSG_DONE) return true;
      continue;  // the request was taken
    }
    if (m->nlmsg_type != type_of(IPCTNL_MSG_CT_NEW)) continue;
    if (auto flow = flow_in(m)) each(std::move(*flow));
  }
  return false;
}

}  // namespace saru::sync
