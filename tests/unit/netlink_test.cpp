// SPDX-License-Identifier: GPL-2.0-or-later
// What NetlinkSocket does with datagrams that no kernel would send: another socket of this process
// sends them to its port (netlink(7); takes CAP_NET_ADMIN).
#include "nft/netlink.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

// After libc's headers, to which they give way.
#include <linux/rtnetlink.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <vector>

#include "nft/rtnl.h"

namespace saru::nft {
namespace {

constexpr std::size_t kHead = sizeof(nlmsghdr);
using Bytes = std::vector<char>;

// A message of `size` bytes that says that it has `said`.
Bytes message(std::size_t size, std::uint32_t said, std::uint16_t type = NLMSG_NOOP) {
  nlmsghdr head{};
  head.nlmsg_len = said;
  head.nlmsg_type = type;
  Bytes bytes(size);
  std::memcpy(bytes.data(), &head, std::min(size, kHead));
  return bytes;
}

Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

// Everything in it has a wrong length somewhere; the last ones crashed libmnl's walk.
const std::vector<Bytes> kBroken = {
    message(kHead, 0),
    message(kHead, kHead - 1),
    message(kHead, kHead + 1),
    message(kHead - 1, kHead),
    message(kHead, kHead) + message(kHead, kHead + 4),
    message(kHead, kHead) + Bytes(3),
    message(kHead, 0x7fffffff),
    message(kHead, 0x80000000),
    message(kHead, kHead) + message(2 * kHead, 0x80000010),
    message(2 * kHead, 0xfffffff0),
};

class Netlink : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(socket_ && other_);
    sockaddr_nl to{};
    to.nl_family = AF_NETLINK;
    to.nl_pid = socket_->port_id();
    ASSERT_EQ(connect(other_->fd(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
  void send_it(const Bytes& bytes) {
    const ssize_t sent = ::send(other_->fd(), bytes.data(), bytes.size(), 0);
    if (sent < 0 && errno == EPERM) GTEST_SKIP() << "takes CAP_NET_ADMIN";
    ASSERT_EQ(sent, static_cast<ssize_t>(bytes.size()));
  }
  // A change of a link, to which these bytes are the answer: refused with EBADMSG.
  void change_answered_by(const Bytes& bytes, std::optional<Refusal>& refusal) {
    ASSERT_NO_FATAL_FAILURE(send_it(bytes));
    Batch batch;
    put_link_up(batch, 0x7fffffff, "none");
    refusal = socket_->execute(batch);
    ASSERT_TRUE(refusal);
    EXPECT_EQ(refusal->code, EBADMSG);
    socket_->drain(buffer_);
  }

  Result<NetlinkSocket> socket_ = NetlinkSocket::open(NETLINK_ROUTE);
  Result<NetlinkSocket> other_ = NetlinkSocket::open(NETLINK_ROUTE);
  Bytes buffer_ = Bytes(1 << 16);
};

TEST_F(Netlink, WholeMessagesArrive) {
  for (const std::size_t last : {kHead, kHead + 1, kHead + 4}) {
    const Bytes bytes = message(kHead + 4, kHead + 4) + message(last, last);
    ASSERT_NO_FATAL_FAILURE(send_it(bytes));
    EXPECT_EQ(socket_->receive(buffer_), static_cast<ssize_t>(bytes.size()));
  }
}

TEST_F(Netlink, ADatagramWithAWrongLengthIsLost) {
  for (const Bytes& bytes : kBroken) {
    ASSERT_NO_FATAL_FAILURE(send_it(bytes));
    EXPECT_EQ(socket_->receive(buffer_), -1);
    EXPECT_EQ(errno, EBADMSG);
  }
  EXPECT_EQ(socket_->receive(buffer_), -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST_F(Netlink, DrainingTakesBrokenDatagramsToo) {
  for (const Bytes& bytes : kBroken) ASSERT_NO_FATAL_FAILURE(send_it(bytes));
  ASSERT_NO_FATAL_FAILURE(send_it(message(kHead, kHead)));
  socket_->drain(buffer_);
  EXPECT_EQ(socket_->receive(buffer_), -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST_F(Netlink, AQuestionWithABrokenAnswerIsAskedAgain) {
  for (const Bytes& bytes : kBroken) ASSERT_NO_FATAL_FAILURE(send_it(bytes));
  const auto link = read_link(*socket_, "lo");
  ASSERT_TRUE(link && *link);
  EXPECT_EQ((*link)->name, "lo");
}

TEST_F(Netlink, AChangeWithABrokenAnswerIsNoSuccess) {
  for (const Bytes& bytes : kBroken) {
    std::optional<Refusal> refusal;
    ASSERT_NO_FATAL_FAILURE(change_answered_by(bytes, refusal));
    EXPECT_NE(refusal->error().text.find("answer was lost"), std::string::npos);
  }
}

// An error that the kernel has no number for; -2^31 cannot be negated.
TEST_F(Netlink, AnErrorWithoutANumberIsAnError) {
  for (const int code : {1, -4096, std::numeric_limits<int>::min()}) {
    nlmsgerr error{};
    error.error = code;
    Bytes bytes = message(kHead + sizeof error, kHead + sizeof error, NLMSG_ERROR);
    std::memcpy(bytes.data() + kHead, &error, sizeof error);
    std::optional<Refusal> refusal;
    ASSERT_NO_FATAL_FAILURE(change_answered_by(bytes, refusal));
  }
}

}  // namespace
}  // namespace saru::nft
