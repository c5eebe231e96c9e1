// SPDX-License-Identifier: GPL-2.0-or-later
// A netlink socket of which every answer is read. The kernel answers nf_tables and rtnetlink
// requests inside send(), so that no call here waits for anything.
#pragma once

#include <libmnl/libmnl.h>
#include <linux/netlink.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nft/result.h"

namespace saru::nft {

template <auto Fn>
struct Free {
  void operator()(auto* p) const noexcept { Fn(p); }
};

// An errno that the kernel answered, and to which of our requests.
struct Refusal {
  int code = 0;
  std::string doing;    // "add chain open"
  std::string details;  // the kernel's own words (extended ack), often empty

  // "cannot add chain open: Operation not permitted"; the kind follows from the code.
  Error error() const;
};

inline tl::unexpected<Error> fail(const Refusal& refusal) {
  return tl::unexpected<Error>(refusal.error());
}

// ---- Attributes of a message, whatever it says of its own length
// ------------------------------------------------------------------

// The number in an attribute of exactly its size; 0 otherwise.
std::uint8_t u8_of(const nlattr* attribute);
std::uint32_t u32_of(const nlattr* attribute);
std::uint64_t u64_of(const nlattr* attribute);
// Up to the first zero byte or the attribute's end.
std::string text_of(const nlattr* attribute);
// Its header, or nullptr when the message is too short for one.
template <class Header>
const Header* header_of(const nlmsghdr* message) {
  if (mnl_nlmsg_get_payload_len(message) < sizeof(Header)) return nullptr;
  return static_cast<const Header*>(mnl_nlmsg_get_payload(message));
}

// Requests that are sent in one datagram, each with an acknowledgement.
class Batch {
 public:
  // Room for a transaction about all blocks, or for a few requests.
  static constexpr std::size_t kTransaction = std::size_t{1} << 21;
  static constexpr std::size_t kFewRequests = std::size_t{1} << 16;
  explicit Batch(std::size_t size = kFewRequests) : buffer_(size) {}

  // Starts a message; put attributes after it. The message ends where the next one starts.
  // Flags: NLM_F_REQUEST and NLM_F_ACK are added.
  nlmsghdr* add(std::uint16_t type, std::uint16_t flags, std::string doing);
  // For the markers around an nf_tables transaction: no acknowledgement.
  nlmsghdr* add_marker(std::uint16_t type);
  void clear();
  bool empty() const { return requests_.empty(); }

 private:
  friend class NetlinkSocket;
  struct Request {
    std::uint32_t sequence;
    std::string doing;
  };
  nlmsghdr* start(std::uint16_t type, std::uint16_t flags);
  void finish_last();

  std::vector<char> buffer_;
  std::size_t used_ = 0;
  std::uint32_t last_length_ = 0;
  nlmsghdr* last_ = nullptr;
  std::uint32_t sequence_ = 0;
  std::vector<Request> requests_;
};

// An empty batch for a reading request: those are short, and a thread has one under way at a time.
Batch& scratch();

class NetlinkSocket {
 public:
  // `bus`: NETLINK_NETFILTER or NETLINK_ROUTE.
  static Result<NetlinkSocket> open(int bus);

  std::uint32_t port_id() const { return mnl_socket_get_portid(socket_.get()); }
  int fd() const { return mnl_socket_get_fd(socket_.get()); }
  Result<void> join_group(unsigned group);
  Result<void> leave_group(unsigned group);

  // recv(2) without waiting. Behind what has come are zeros, so that a text that lacks its end,
  // read by whichever library, ends there. Messages whose lengths do not add up to what has come
  // are lost, all of them: EBADMSG.
  ssize_t receive(std::vector<char>& buffer) const;
  // Takes what there is, broken or not, until there is no more.
  void drain(std::vector<char>& buffer) const;

  // Sends the batch and reads all acknowledgements. The first refusal, or nothing. ENOBUFS: answers
  // were lost, the outcome is unknown.
  std::optional<Refusal> execute(Batch& batch);

  using Visit = std::function<void(const nlmsghdr*)>;
  // Sends one request (built with add(), which says NLM_F_DUMP or not) and visits what is answered.
  // A dump that a change interrupted is taken again, from the start: `restart` is called then.
  std::optional<Refusal> query(
      Batch& batch, const Visit& visit, const std::function<void()>& restart = [] {});

  // Sends the batch alone; the answers are the caller's to receive().
  std::optional<Refusal> send(Batch& batch);

 private:
  std::optional<Refusal> query_once(Batch& batch, const Visit& visit);

  std::unique_ptr<mnl_socket, Free<mnl_socket_close>> socket_;
  std::vector<char> buffer_;
};

}  // namespace saru::nft
