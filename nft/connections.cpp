// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/connections.h"

#include <netinet/in.h>

// After <netinet/in.h>: the kernel's headers give way to libc's, not the other way round.
#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "nft/netlink.h"

namespace saru::nft {
namespace {

constexpr const char* kDoing = "count the connections that conntrack knows";
// What the kernel sends of a dump at once, and room behind it (NetlinkSocket::receive).
constexpr std::size_t kPiece = std::size_t{1} << 16;

struct Connection {
  saru_flow flow{};
  std::uint8_t state = TCP_CONNTRACK_NONE;
};

void copy_bytes(const nlattr* from, std::uint8_t* to, std::size_t size) {
  if (mnl_attr_get_payload_len(from) == size) std::memcpy(to, mnl_attr_get_payload(from), size);
}

std::uint16_t big16_of(const nlattr* attribute) {
  std::uint16_t value = 0;
  copy_bytes(attribute, reinterpret_cast<std::uint8_t*>(&value), sizeof value);
  return ntohs(value);
}

int read_ip(const nlattr* part, void* into) {
  auto& flow = static_cast<Connection*>(into)->flow;
  switch (mnl_attr_get_type(part)) {
    case CTA_IP_V4_SRC:
      flow.version = 4;
      copy_bytes(part, flow.client_address, 4);
      break;
    case CTA_IP_V4_DST:
      copy_bytes(part, flow.server_address, 4);
      break;
    case CTA_IP_V6_SRC:
      flow.version = 6;
      copy_bytes(part, flow.client_address, 16);
      break;
    case CTA_IP_V6_DST:
      copy_bytes(part, flow.server_address, 16);
      break;
    default:
      break;
  }
  return MNL_CB_OK;
}

int read_protocol(const nlattr* part, void* into) {
  auto& flow = static_cast<Connection*>(into)->flow;
  if (mnl_attr_get_type(part) == CTA_PROTO_NUM) flow.protocol = u8_of(part);
  if (mnl_attr_get_type(part) == CTA_PROTO_SRC_PORT) flow.client_port = big16_of(part);
  if (mnl_attr_get_type(part) == CTA_PROTO_DST_PORT) flow.server_port = big16_of(part);
  return MNL_CB_OK;
}

int read_tuple(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) == CTA_TUPLE_IP) mnl_attr_parse_nested(part, read_ip, into);
  if (mnl_attr_get_type(part) == CTA_TUPLE_PROTO) mnl_attr_parse_nested(part, read_protocol, into);
  return MNL_CB_OK;
}

int read_tcp(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) == CTA_PROTOINFO_TCP_STATE) {
    static_cast<Connection*>(into)->state = u8_of(part);
  }
  return MNL_CB_OK;
}

int read_protocol_info(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) == CTA_PROTOINFO_TCP) mnl_attr_parse_nested(part, read_tcp, into);
  return MNL_CB_OK;
}

// As the client's first packet would have it; conntrack may have met the server's first.
bool turn(saru_flow& flow) {
  std::swap(flow.client_address, flow.server_address);
  std::swap(flow.client_port, flow.server_port);
  return true;
}

int read_connection(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) == CTA_TUPLE_ORIG) mnl_attr_parse_nested(part, read_tuple, into);
  if (mnl_attr_get_type(part) == CTA_PROTOINFO) {
    mnl_attr_parse_nested(part, read_protocol_info, into);
  }
  return MNL_CB_OK;
}

// The errno that a message ends with.
int code_in(const nlmsghdr* message) {
  const auto* code = header_of<int>(message);
  if (code == nullptr) return EBADMSG;
  return *code < 0 && *code > -4096 ? -*code : 0;
}

bool holds_its_block(const Connection& one) {
  return one.flow.protocol == IPPROTO_TCP && one.state >= TCP_CONNTRACK_SYN_RECV &&
         one.state <= TCP_CONNTRACK_LAST_ACK;
}

}  // namespace

struct ConnectionCount::Impl {
  explicit Impl(NetlinkSocket s) : socket(std::move(s)), buffer(kPiece) {}

  NetlinkSocket socket;
  std::vector<char> buffer;
  std::uint32_t sequence = 0;
  std::vector<IpAddress> addresses;
  std::unique_ptr<BlockRule> rule;
  Selection selection;  // which the rule points into
  unsigned blocks = 0;
  std::vector<unsigned> counts;

  void count(const nlmsghdr* message);
  bool is_ours(const saru_flow& flow) const;
};

bool ConnectionCount::Impl::is_ours(const saru_flow& flow) const {
  const std::size_t size = flow.version == 4 ? 4 : 16;
  return std::any_of(addresses.begin(), addresses.end(), [&](const IpAddress& ip) {
    const auto bytes = ip.bytes();
    return bytes.size() == size && std::equal(bytes.begin(), bytes.end(), flow.server_address);
  });
}

void ConnectionCount::Impl::count(const nlmsghdr* message) {
  Connection one;
  if (mnl_attr_parse(message, sizeof(nfgenmsg), read_connection, &one) < 0) return;
  if (!holds_its_block(one)) return;
  const bool to_us = is_ours(one.flow);
  const bool from_us = turn(one.flow) && is_ours(one.flow);
  if (to_us == from_us) return;  // of others, or of this node with itself
  if (to_us) turn(one.flow);
  one.flow.has = SARU_HAS_CLIENT_ADDRESS | SARU_HAS_SERVER_ADDRESS | SARU_HAS_CLIENT_PORT |
                 SARU_HAS_SERVER_PORT;
  const saru_s32 value = saru_flow_value(&one.flow, rule->get());
  if (value < 0) return;
  const saru_u32 block = saru_block_of(static_cast<saru_u32>(value), blocks);
  if (block < counts.size()) ++counts[block];
}

ConnectionCount::ConnectionCount(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConnectionCount::ConnectionCount(ConnectionCount&&) noexcept = default;
ConnectionCount& ConnectionCount::operator=(ConnectionCount&&) noexcept = default;
ConnectionCount::~ConnectionCount() = default;

Result<ConnectionCount> ConnectionCount::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return tl::unexpected<Error>(socket.error());
  return ConnectionCount(std::make_unique<Impl>(std::move(*socket)));
}

int ConnectionCount::fd() const { return impl_->socket.fd(); }

Result<void> ConnectionCount::begin(const TableConfig& config) {
  impl_->socket.drain(impl_->buffer);
  impl_->addresses = config.addresses;
  impl_->selection = config.selection;
  impl_->rule = std::make_unique<BlockRule>(impl_->selection);
  impl_->blocks = config.blocks;
  impl_->counts.assign(config.blocks, 0);
  Batch& batch = scratch();
  constexpr std::uint16_t kType = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET;
  nlmsghdr* message = batch.add(kType, NLM_F_DUMP, kDoing);
  auto* generic = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  generic->nfgen_family = AF_UNSPEC;
  generic->version = NFNETLINK_V0;
  impl_->sequence = message->nlmsg_seq;
  if (const auto refusal = impl_->socket.send(batch)) return fail(*refusal);
  return {};
}

Result<std::optional<std::vector<unsigned>>> ConnectionCount::read() {
  using Counts = std::optional<std::vector<unsigned>>;
  const ssize_t got = impl_->socket.receive(impl_->buffer);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return Counts();
    return tl::unexpected<Error>(Refusal{errno, kDoing, ""}.error());
  }
  int left = static_cast<int>(got);
  for (auto* m = reinterpret_cast<nlmsghdr*>(impl_->buffer.data()); mnl_nlmsg_ok(m, left);
       m = mnl_nlmsg_next(m, &left)) {
    if (m->nlmsg_seq != impl_->sequence) continue;
    const bool ends = m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR;
    if (ends || (m->nlmsg_flags & NLM_F_DUMP_INTR) != 0) {
      const int code = ends ? code_in(m) : EINTR;
      if (code != 0) return tl::unexpected<Error>(Refusal{code, kDoing, ""}.error());
      if (m->nlmsg_type == NLMSG_DONE) return Counts(impl_->counts);
      continue;  // the request was taken
    }
    if (header_of<nfgenmsg>(m) != nullptr) impl_->count(m);
  }
  return Counts();
}

}  // namespace saru::nft
