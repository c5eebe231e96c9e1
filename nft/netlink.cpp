// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/netlink.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "agent/core/plant.h"

namespace saru::nft {
namespace {

// What must be left in a batch to start another message: elements come in messages of 60000 bytes,
// and everything else is far smaller.
constexpr std::size_t kRoomInTransaction = std::size_t{1} << 16;
constexpr std::size_t kRoomInFewRequests = 4096;
constexpr int kSocketBuffer = 4 << 20;
constexpr std::size_t kReceiveSize = std::size_t{1} << 16;
constexpr std::size_t kZerosBehind = 64;
constexpr int kSendTries = 100;
constexpr int kDumpTries = 100;

// One numbering for the whole process, so that an answer never fits another request.
std::uint32_t next_sequence() {
  static std::atomic<std::uint32_t> sequence{1};
  return sequence.fetch_add(1, std::memory_order_relaxed);
}

ErrorKind kind_of(int code) {
  switch (code) {
    case EPERM:
    case EACCES:
      return ErrorKind::kNotPermitted;
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return ErrorKind::kMissing;
    case EBUSY:
    case EEXIST:
    case EADDRINUSE:
      return ErrorKind::kConflict;
    case EOPNOTSUPP:
    case EAFNOSUPPORT:
    case EPROTONOSUPPORT:
      return ErrorKind::kTooOld;
    case EINVAL:
    case ERANGE:
      return ErrorKind::kInvalid;
    default:
      return ErrorKind::kFailed;
  }
}

// What an acknowledgement that is none says: -1 to -4095 (MAX_ERRNO in the kernel).
int errno_in(int answered) {
  constexpr int kLast = 4095;
  return answered < 0 && answered >= -kLast ? -answered : EBADMSG;
}

// The text that an extended acknowledgement carries behind the error.
std::string extended_text(const nlmsghdr* message) {
  if ((message->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
  const auto* error = header_of<nlmsgerr>(message);
  if (error == nullptr) return {};
  std::size_t offset = sizeof *error;
  if ((message->nlmsg_flags & NLM_F_CAPPED) == 0) {
    if (error->msg.nlmsg_len < sizeof error->msg) return {};
    offset += MNL_ALIGN(static_cast<std::size_t>(error->msg.nlmsg_len)) - sizeof error->msg;
  }
  if (offset > mnl_nlmsg_get_payload_len(message)) return {};
  std::string text;
  const auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, offset));
  const auto* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(message));
  while (mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)))) {
    if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG) text = text_of(attribute);
    attribute = mnl_attr_next(attribute);
  }
  return text;
}

// Whether messages whose lengths are right fill all of it. libmnl's own walk takes a length of more
// than 2^31 for a negative one, and goes on behind the buffer.
bool all_fits(const char* bytes, std::size_t size) {
  while (size >= sizeof(nlmsghdr)) {
    nlmsghdr head;
    std::memcpy(&head, bytes, sizeof head);
    if (head.nlmsg_len < sizeof head || head.nlmsg_len > size) return false;
    const std::size_t whole = std::min<std::size_t>(MNL_ALIGN(head.nlmsg_len), size);
    bytes += whole;
    size -= whole;
  }
  return size == 0;
}

void enlarge(int fd, int what, int what_forced) {
  if (setsockopt(fd, SOL_SOCKET, what_forced, &kSocketBuffer, sizeof kSocketBuffer) != 0) {
    setsockopt(fd, SOL_SOCKET, what, &kSocketBuffer, sizeof kSocketBuffer);
  }
}

Result<void> set_membership(mnl_socket* socket, int option, unsigned group) {
  int number = static_cast<int>(group);
  if (mnl_socket_setsockopt(socket, option, &number, sizeof number) == 0) return {};
  return tl::unexpected<Error>(Refusal{errno, "watch the kernel's notifications", ""}.error());
}

}  // namespace

std::uint8_t u8_of(const nlattr* attribute) {
  return mnl_attr_get_payload_len(attribute) == 1 ? mnl_attr_get_u8(attribute) : std::uint8_t{0};
}

std::uint32_t u32_of(const nlattr* attribute) {
  return mnl_attr_get_payload_len(attribute) == 4 ? mnl_attr_get_u32(attribute) : 0;
}

std::uint64_t u64_of(const nlattr* attribute) {
  return mnl_attr_get_payload_len(attribute) == 8 ? mnl_attr_get_u64(attribute) : 0;
}

std::string text_of(const nlattr* attribute) {
  const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
  return {text, strnlen(text, mnl_attr_get_payload_len(attribute))};
}

Error Refusal::error() const {
  std::string text = "cannot " + doing + ": " + std::strerror(code);
  if (!details.empty()) text += " (" + details + ")";
  if (code == EPERM || code == EACCES) text += "; run as root or with CAP_NET_ADMIN";
  return {kind_of(code), text};
}

void Batch::clear() {
  used_ = 0;
  last_ = nullptr;
  requests_.clear();
}

void Batch::finish_last() {
  if (last_ != nullptr) used_ += MNL_ALIGN(last_->nlmsg_len);
  last_ = nullptr;
}

nlmsghdr* Batch::start(std::uint16_t type, std::uint16_t flags) {
  finish_last();
  const std::size_t room = buffer_.size() > kFewRequests ? kRoomInTransaction : kRoomInFewRequests;
  if (used_ + room > buffer_.size()) std::abort();  // a bug: the batch was made too small
  std::fill_n(buffer_.begin() + static_cast<std::ptrdiff_t>(used_), 64, '\0');
  last_ = mnl_nlmsg_put_header(buffer_.data() + used_);
  last_->nlmsg_type = type;
  last_->nlmsg_flags = NLM_F_REQUEST | flags;
  last_->nlmsg_seq = next_sequence();
  return last_;
}

nlmsghdr* Batch::add(std::uint16_t type, std::uint16_t flags, std::string doing) {
  nlmsghdr* message = start(type, flags | NLM_F_ACK);
  requests_.push_back({message->nlmsg_seq, std::move(doing)});
  return message;
}

nlmsghdr* Batch::add_marker(std::uint16_t type) { return start(type, 0); }

Batch& scratch() {
  thread_local Batch batch;
  batch.clear();
  return batch;
}

Result<NetlinkSocket> NetlinkSocket::open(int bus) {
  NetlinkSocket socket;
  socket.socket_.reset(mnl_socket_open2(bus, SOCK_CLOEXEC));
  if (!socket.socket_ || mnl_socket_bind(socket.socket_.get(), 0, MNL_SOCKET_AUTOPID) != 0) {
    return tl::unexpected<Error>(Refusal{
        errno, bus == NETLINK_ROUTE ? "open a rtnetlink socket" : "open a netfilter socket", ""}
                                     .error());
  }
  int on = 1;
  mnl_socket_setsockopt(socket.socket_.get(), NETLINK_EXT_ACK, &on, sizeof on);
  mnl_socket_setsockopt(socket.socket_.get(), NETLINK_CAP_ACK, &on, sizeof on);
  enlarge(socket.fd(), SO_SNDBUF, SO_SNDBUFFORCE);
  enlarge(socket.fd(), SO_RCVBUF, SO_RCVBUFFORCE);
  socket.buffer_.resize(kReceiveSize);
  return socket;
}

Result<void> NetlinkSocket::join_group(unsigned group) {
  return set_membership(socket_.get(), NETLINK_ADD_MEMBERSHIP, group);
}

Result<void> NetlinkSocket::leave_group(unsigned group) {
  return set_membership(socket_.get(), NETLINK_DROP_MEMBERSHIP, group);
}

ssize_t NetlinkSocket::receive(std::vector<char>& buffer) const {
  const ssize_t got = recv(fd(), buffer.data(), buffer.size() - kZerosBehind, MSG_DONTWAIT);
  if (got < 0) return got;
  std::fill_n(buffer.begin() + got, kZerosBehind, '\0');
  if (planted() == Plant::kBelieveLengths) return got;
  if (all_fits(buffer.data(), static_cast<std::size_t>(got))) return got;
  errno = EBADMSG;
  return -1;
}

void NetlinkSocket::drain(std::vector<char>& buffer) const {
  for (;;) {
    const bool lost = receive(buffer) < 0;
    if (lost && errno != EINTR && errno != ENOBUFS && errno != EBADMSG) return;
  }
}

std::optional<Refusal> NetlinkSocket::send(Batch& batch) {
  batch.finish_last();
  for (int tries = 1;; ++tries) {
    if (::send(fd(), batch.buffer_.data(), batch.used_, 0) >= 0) return std::nullopt;
    if (errno == EINTR) continue;
    if (errno == ENOBUFS && tries < kSendTries) continue;  // no memory for the copy right now
    return Refusal{errno, batch.requests_.empty() ? "send" : batch.requests_.front().doing, ""};
  }
}

std::optional<Refusal> NetlinkSocket::execute(Batch& batch) {
  if (auto refusal = send(batch)) return refusal;
  std::optional<Refusal> first;
  std::size_t unanswered = batch.requests_.size();
  // An error of the batch as a whole carries the number of its first marker, and ends the answers.
  while (unanswered > 0) {
    const ssize_t got = receive(buffer_);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      if (first) return first;
      return Refusal{errno == EAGAIN ? ENOBUFS : errno, batch.requests_.front().doing,
                     "the kernel's answer was lost"};
    }
    int left = static_cast<int>(got);
    for (auto* m = reinterpret_cast<nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(m, left);
         m = mnl_nlmsg_next(m, &left)) {
      if (m->nlmsg_type != NLMSG_ERROR) continue;
      const auto* answer = header_of<nlmsgerr>(m);
      if (answer == nullptr) continue;
      const auto request =
          std::find_if(batch.requests_.begin(), batch.requests_.end(),
                       [&](const auto& one) { return one.sequence == m->nlmsg_seq; });
      const bool known = request != batch.requests_.end();
      if (known) --unanswered;
      if (answer->error != 0 && !first) {
        first = Refusal{errno_in(answer->error), (known ? *request : batch.requests_.front()).doing,
                        extended_text(m)};
      }
    }
  }
  return first;
}

std::optional<Refusal> NetlinkSocket::query_once(Batch& batch, const Visit& visit) {
  if (auto refusal = send(batch)) return refusal;
  const auto& request = batch.requests_.front();
  bool interrupted = false;
  for (;;) {
    const ssize_t got = receive(buffer_);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Refusal{errno == EAGAIN ? ENOBUFS : errno, request.doing, ""};
    int left = static_cast<int>(got);
    for (auto* m = reinterpret_cast<nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(m, left);
         m = mnl_nlmsg_next(m, &left)) {
      if (m->nlmsg_seq != request.sequence) continue;
      if ((m->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR) {
        int code = 0;
        if (mnl_nlmsg_get_payload_len(m) >= sizeof code) {
          std::memcpy(&code, mnl_nlmsg_get_payload(m), sizeof code);
        }
        if (code != 0) return Refusal{errno_in(code), request.doing, ""};
        if (interrupted) return Refusal{EINTR, request.doing, ""};
        return std::nullopt;
      }
      visit(m);
    }
  }
}

std::optional<Refusal> NetlinkSocket::query(Batch& batch, const Visit& visit,
                                            const std::function<void()>& restart) {
  for (int tries = 1;; ++tries) {
    auto refusal = query_once(batch, visit);
    const bool again =
        refusal && (refusal->code == EINTR || refusal->code == ENOBUFS || refusal->code == EBADMSG);
    if (!again || tries == kDumpTries) return refusal;
    restart();
    // What the broken answer left behind must not be taken for the next one.
    drain(buffer_);
    batch.finish_last();
    auto* message = reinterpret_cast<nlmsghdr*>(batch.buffer_.data());
    message->nlmsg_seq = batch.requests_.front().sequence = next_sequence();
  }
}

}  // namespace saru::nft
