// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/watch.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// After libc's headers, to which they give way.
#include <linux/if.h>
#include <linux/netconf.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "nft/netlink.h"
#include "nft/rtnl.h"

namespace saru::nft {
namespace {

constexpr std::size_t kReceiveSize = std::size_t{1} << 16;
// Every message about something in a table names the table in this attribute (NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, ...).
constexpr std::uint16_t kTableAttribute = 1;

struct Generation {
  std::uint32_t pid = 0;
  std::string process;
};

int decode_generation(const nlattr* attribute, void* into) {
  auto& generation = *static_cast<Generation*>(into);
  if (mnl_attr_get_type(attribute) == NFTA_GEN_PROC_PID) {
    generation.pid = ntohl(u32_of(attribute));
  } else if (mnl_attr_get_type(attribute) == NFTA_GEN_PROC_NAME) {
    generation.process = text_of(attribute);
  }
  return MNL_CB_OK;
}

int decode_settings_index(const nlattr* attribute, void* into) {
  if (mnl_attr_get_type(attribute) == NETCONFA_IFINDEX) {
    *static_cast<std::optional<int>*>(into) = static_cast<int>(u32_of(attribute));
  }
  return MNL_CB_OK;
}

int decode_table_name(const nlattr* attribute, void* into) {
  if (mnl_attr_get_type(attribute) != kTableAttribute) return MNL_CB_OK;
  *static_cast<std::string*>(into) = text_of(attribute);
  return MNL_CB_STOP;
}

// What is known of one side's interfaces.
struct Known {
  Side side = Side::kOutside;
  LinkConfig config;
  unsigned link = 0;  // index; 0: not there
  bool link_up = false;
  unsigned nic = 0;
  bool carrier = false;
};

}  // namespace

struct Watch::Impl {
  Impl(const TableConfig& config, std::uint32_t port, NetlinkSocket n, NetlinkSocket r,
       NetlinkSocket q)
      : id(config.id),
        own_port(port),
        tables(std::move(n)),
        routes(std::move(r)),
        questions(std::move(q)),
        buffer(kReceiveSize) {
    for (const Side side : sides_of(config)) known.push_back({side, link_of(config, side)});
  }
  ~Impl() {
    if (poll_fd >= 0) close(poll_fd);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  std::uint16_t id;
  std::vector<Known> known;  // the outside first
  std::uint32_t own_port;
  NetlinkSocket tables;     // notifications of nf_tables
  NetlinkSocket routes;     // notifications of rtnetlink
  NetlinkSocket questions;  // of our own
  std::vector<char> buffer;
  int poll_fd = -1;

  std::string touched;  // what somebody did to our tables in the transaction under way

  Result<void> look();
  void read_from(NetlinkSocket& socket, std::vector<Notice>& notices);
  void table_message(const nlmsghdr* message, std::vector<Notice>& notices);
  void say_touched(const Generation& who, std::vector<Notice>& notices);
  void link_message(const LinkState& state, bool gone, Known& of, std::vector<Notice>& notices);
  void nic_message(const LinkState& state, bool gone, Known& of, std::vector<Notice>& notices);
  void address_message(const nlmsghdr* message, std::vector<Notice>& notices);
  void settings_message(const nlmsghdr* message, std::vector<Notice>& notices);
};

Result<void> Watch::Impl::look() {
  for (Known& of : known) {
    const auto upper = read_link(questions, of.config.link);
    if (!upper) return fail(upper.error());
    const auto lower = read_link(questions, of.config.nic);
    if (!lower) return fail(lower.error());
    of.link = *upper ? (*upper)->index : 0;
    of.link_up = *upper && (*upper)->up;
    of.nic = *lower ? (*lower)->index : 0;
    of.carrier = *lower && (*lower)->up && (*lower)->carrier;
  }
  touched.clear();
  return {};
}

void Watch::Impl::read_from(NetlinkSocket& socket, std::vector<Notice>& notices) {
  for (;;) {
    const ssize_t got = socket.receive(buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == ENOBUFS || errno == EBADMSG)) {
      notices.push_back(
          {Disturbance::kOverrun, Side::kOutside, "notifications of the kernel were lost"});
      continue;
    }
    if (got < 0) break;
    int left = static_cast<int>(got);
    for (auto* m = reinterpret_cast<nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(m, left);
         m = mnl_nlmsg_next(m, &left)) {
      if (&socket == &tables) {
        table_message(m, notices);
      } else if (m->nlmsg_type == RTM_NEWLINK || m->nlmsg_type == RTM_DELLINK) {
        const bool gone = m->nlmsg_type == RTM_DELLINK;
        for (Known& of : known) link_message(decode_link(m), gone, of, notices);
      } else if (m->nlmsg_type == RTM_NEWADDR || m->nlmsg_type == RTM_DELADDR) {
        address_message(m, notices);
      } else if (m->nlmsg_type == RTM_NEWNETCONF) {
        settings_message(m, notices);
      }
    }
  }
  // Changes that come with no transaction: an interface took its chain along.
  if (&socket == &tables) say_touched({}, notices);
}

void Watch::Impl::say_touched(const Generation& who, std::vector<Notice>& notices) {
  if (touched.empty()) return;
  const std::string author =
      who.pid == 0 ? "somebody" : "process " + std::to_string(who.pid) + " (" + who.process + ")";
  notices.push_back({Disturbance::kTable, Side::kOutside, author + " " + touched});
  touched.clear();
}

void Watch::Impl::table_message(const nlmsghdr* message, std::vector<Notice>& notices) {
  if (NFNL_SUBSYS_ID(message->nlmsg_type) != NFNL_SUBSYS_NFTABLES) return;
  const int type = NFNL_MSG_TYPE(message->nlmsg_type);
  if (type == NFT_MSG_NEWGEN) {
    Generation who;
    mnl_attr_parse(message, sizeof(nfgenmsg), decode_generation, &who);
    say_touched(who, notices);
    return;
  }
  if (message->nlmsg_pid == own_port) return;
  const auto* header = header_of<nfgenmsg>(message);
  if (header == nullptr) return;
  if (header->nfgen_family != NFPROTO_INET && header->nfgen_family != NFPROTO_NETDEV) return;
  std::string name;
  mnl_attr_parse(message, sizeof(nfgenmsg), decode_table_name, &name);
  if (name != table_name(id) && name != twin_name(id)) return;
  const std::string table =
      std::string(header->nfgen_family == NFPROTO_INET ? "inet " : "netdev ") + name;
  if (type == NFT_MSG_DELTABLE) {
    touched = "deleted table " + table;
  } else if (touched.empty()) {
    touched = "changed table " + table;
  }
}

void Watch::Impl::link_message(const LinkState& state, bool gone, Known& of,
                               std::vector<Notice>& notices) {
  const LinkConfig& config = of.config;
  const auto say = [&](const std::string& text) {
    notices.push_back({Disturbance::kLink, of.side, text});
  };
  if (state.index == of.nic || state.name == config.nic) {
    return nic_message(state, gone, of, notices);
  }
  if (state.index != of.link && state.name != config.link) return;
  if (gone) {
    if (of.link != 0) say("interface " + config.link + " is gone");
    of.link = 0;
    of.link_up = false;
    return;
  }
  if (of.link != 0 && state.index != of.link) {
    say("interface " + config.link + " is another one now");
  } else if (state.name != config.link) {
    say("interface " + config.link + " is called " + state.name + " now");
  } else if (state.mac != config.shared_mac) {
    say("the MAC of " + config.link + " is " + state.mac.text() + " now");
  } else if (of.link_up && !state.up) {
    say("interface " + config.link + " was set down");
  }
  of.link = state.index;
  of.link_up = state.up;
}

void Watch::Impl::nic_message(const LinkState& state, bool gone, Known& of,
                              std::vector<Notice>& notices) {
  const std::string& nic = of.config.nic;
  if (gone) {
    notices.push_back({Disturbance::kLink, of.side, "network interface " + nic + " is gone"});
  } else if (state.mac != of.config.own_mac) {
    notices.push_back(
        {Disturbance::kLink, of.side, "the MAC of " + nic + " is " + state.mac.text() + " now"});
  }
  const bool now = !gone && state.up && state.carrier;
  if (now == of.carrier) return;
  of.carrier = now;
  notices.push_back({now ? Disturbance::kCarrierBack : Disturbance::kCarrierLost, of.side,
                     nic + (now ? " has a carrier again" : " has lost its carrier")});
}

void Watch::Impl::address_message(const nlmsghdr* message, std::vector<Notice>& notices) {
  const auto state = decode_address(message);
  if (!state) return;
  const bool gone = message->nlmsg_type == RTM_DELADDR;
  const std::string what = "address " + state->ip.text();
  for (const Known& of : known) {
    const auto& ours = of.config.addresses;
    const bool shared = std::find(ours.begin(), ours.end(), state->ip) != ours.end();
    const bool here = state->link == of.link;
    if (of.link == 0 || (!shared && (gone || !here))) continue;
    const auto say = [&](const std::string& text) {
      notices.push_back({Disturbance::kAddress, of.side, what + text});
    };
    if (!shared) {
      say(" was put on " + of.config.link);
    } else if (gone) {
      say(" is gone from " + (here ? of.config.link : std::string("another interface")));
    } else if (!here) {
      say(" was put on another interface too");
    }
  }
}

// What the kernel tells of: rp_filter, forwarding, proxy_arp and a few more.
void Watch::Impl::settings_message(const nlmsghdr* message, std::vector<Notice>& notices) {
  std::optional<int> index;
  mnl_attr_parse(message, sizeof(netconfmsg), decode_settings_index, &index);
  if (!index) return;
  for (const Known& of : known) {
    const bool ours = *index == static_cast<int>(of.link);
    const bool below = *index == static_cast<int>(of.nic);
    if (of.link == 0 || (!ours && !below && *index != NETCONFA_IFINDEX_ALL)) continue;
    const std::string where = ours    ? of.config.link
                              : below ? of.config.nic
                                      : std::string("all interfaces");
    notices.push_back(
        {Disturbance::kSettings, of.side, "kernel settings of " + where + " were changed"});
  }
}

Watch::Watch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Watch::Watch(Watch&&) noexcept = default;
Watch& Watch::operator=(Watch&&) noexcept = default;
Watch::~Watch() = default;

Result<Watch> Watch::open(const Table& table) { return open(table.config(), table.port_id()); }

Result<Watch> Watch::open(const TableConfig& config, std::uint32_t own_port) {
  auto tables = NetlinkSocket::open(NETLINK_NETFILTER);
  auto routes = NetlinkSocket::open(NETLINK_ROUTE);
  auto questions = NetlinkSocket::open(NETLINK_ROUTE);
  for (const auto* socket : {&tables, &routes, &questions}) {
    if (!*socket) return tl::unexpected<Error>(socket->error());
  }
  auto impl = std::make_unique<Impl>(config, own_port, std::move(*tables), std::move(*routes),
                                     std::move(*questions));
  if (auto done = impl->tables.join_group(NFNLGRP_NFTABLES); !done) {
    return tl::unexpected<Error>(done.error());
  }
  for (const unsigned group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                               RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF}) {
    if (auto done = impl->routes.join_group(group); !done)
      return tl::unexpected<Error>(done.error());
  }
  impl->poll_fd = epoll_create1(EPOLL_CLOEXEC);
  for (const int fd : {impl->tables.fd(), impl->routes.fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (impl->poll_fd < 0 || epoll_ctl(impl->poll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
      return fail(ErrorKind::kFailed,
                  std::string("cannot watch the kernel's notifications: ") + std::strerror(errno));
    }
  }
  if (auto done = impl->look(); !done) return tl::unexpected<Error>(done.error());
  return Watch(std::move(impl));
}

int Watch::fd() const { return impl_->poll_fd; }

std::vector<Notice> Watch::read() {
  std::vector<Notice> notices;
  impl_->read_from(impl_->tables, notices);
  impl_->read_from(impl_->routes, notices);
  return notices;
}

void Watch::set_addresses(std::vector<IpAddress> addresses) {
  impl_->known.front().config.addresses = std::move(addresses);
}

Result<void> Watch::resync() {
  impl_->tables.drain(impl_->buffer);
  impl_->routes.drain(impl_->buffer);
  return impl_->look();
}

}  // namespace saru::nft
