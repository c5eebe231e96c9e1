// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/link.h"

#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "nft/announce.h"
#include "nft/rtnl.h"
#include "nft/sysctl.h"

namespace saru::nft {
namespace {

Result<LinkState> must_find(NetlinkSocket& socket, const std::string& name) {
  auto found = read_link(socket, name);
  if (!found) return fail(found.error());
  if (*found) return **found;
  return fail(ErrorKind::kMissing, "there is no network interface \"" + name +
                                       "\" on this node: give the one that the clients reach");
}

std::vector<IpAddress> addresses_of(const std::vector<ServiceAddress>& given) {
  std::vector<IpAddress> addresses;
  addresses.reserve(given.size());
  for (const ServiceAddress& one : given) addresses.push_back(one.ip);
  std::sort(addresses.begin(), addresses.end());
  return addresses;
}

// The table may guard more than is on the link: what a change that failed left behind.
Result<void> check_guarded(const Table& gate, Side side,
                           const std::vector<ServiceAddress>& wanted) {
  const auto config = link_of(gate.config(), side);
  const auto& guarded = config.addresses;
  for (const ServiceAddress& one : wanted) {
    if (std::find(guarded.begin(), guarded.end(), one.ip) != guarded.end()) continue;
    return fail(ErrorKind::kInvalid, "address " + one.ip.text() + " cannot be put on " +
                                         config.link + ": its table does not guard it");
  }
  return {};
}

bool has(const std::vector<ServiceAddress>& all, const IpAddress& ip) {
  return std::any_of(all.begin(), all.end(),
                     [&](const ServiceAddress& one) { return one.ip == ip; });
}

}  // namespace

Result<Nic> find_nic(const std::string& name) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return tl::unexpected<Error>(socket.error());
  auto found = must_find(*socket, name);
  if (!found) return tl::unexpected<Error>(found.error());
  if (!found->ethernet) {
    return fail(ErrorKind::kInvalid, "network interface \"" + name +
                                         "\" has no MAC address: a shared address needs an "
                                         "Ethernet interface");
  }
  return Nic{found->name, found->index, found->mac, found->mtu, found->up, found->carrier};
}

struct Link::Impl {
  Impl(const TableConfig& c, Side which, std::vector<ServiceAddress> a, NetlinkSocket s)
      : side(which),
        forwards(c.inside.has_value()),
        config(link_of(c, which)),
        addresses(std::move(a)),
        socket(std::move(s)) {}

  Side side;
  bool forwards;  // there is an inside
  LinkConfig config;
  std::vector<ServiceAddress> addresses;
  NetlinkSocket socket;
  unsigned nic = 0;
  unsigned link = 0;  // 0: not there
  Batch batch;
  std::vector<std::string> warnings;

  bool has_family(bool v4) const;
  Result<LinkState> check_nic();
  Result<void> delete_link();
  Result<void> check_free(const std::vector<ServiceAddress>& wanted);
  Result<void> make(const LinkState& parent);
  Result<void> set_settings();
  Result<void> set_up();
  Result<void> renew(std::chrono::seconds lifetime);
  Result<void> take_away(const std::vector<ServiceAddress>& staying);
  std::vector<Setting> settings() const;
  bool verify_link(std::vector<std::string>& words);
  void verify_addresses(std::vector<std::string>& words);
  void verify_settings(std::vector<std::string>& words) const;
  Result<std::vector<std::string>> also_elsewhere();
};

bool Link::Impl::has_family(bool v4) const {
  return std::any_of(addresses.begin(), addresses.end(),
                     [&](const ServiceAddress& one) { return one.ip.is_v4() == v4; });
}

Result<LinkState> Link::Impl::check_nic() {
  auto found = must_find(socket, config.nic);
  if (!found) return found;
  nic = found->index;
  if (!found->up) {
    return fail(ErrorKind::kMissing, "network interface \"" + config.nic +
                                         "\" is down: set it up (ip link set " + config.nic +
                                         " up) first");
  }
  if (found->mac != config.own_mac) {
    return fail(ErrorKind::kConflict, "the MAC of " + config.nic + " is " + found->mac.text() +
                                          " now, not " + config.own_mac.text() + ": start again");
  }
  return found;
}

// Of an earlier process, or ours.
Result<void> Link::Impl::delete_link() {
  const auto found = read_link(socket, config.link);
  if (!found) return fail(found.error());
  if (!*found) return {};
  if ((*found)->kind != "macvlan") {
    return fail(ErrorKind::kConflict,
                "the name " + config.link + " is taken by an interface that is no macvlan (" +
                    ((*found)->kind.empty() ? "a physical one" : (*found)->kind) +
                    "): rename or delete it");
  }
  batch.clear();
  put_delete_link(batch, (*found)->index, config.link);
  const auto refusal = socket.execute(batch);
  if (refusal && refusal->code != ENODEV) return fail(*refusal);
  link = 0;
  return {};
}

// None of these addresses is on another interface.
Result<void> Link::Impl::check_free(const std::vector<ServiceAddress>& wanted) {
  const auto all = read_addresses(socket);
  if (!all) return fail(all.error());
  for (const AddressState& there : *all) {
    for (const ServiceAddress& ours : wanted) {
      if (there.ip != ours.ip || there.link == link) continue;
      char name[IF_NAMESIZE] = "another";
      if_indextoname(there.link, name);
      return fail(ErrorKind::kConflict, "address " + ours.ip.text() + " is on " + name +
                                            " of this node: a shared address must be on no "
                                            "other interface; remove it there");
    }
  }
  return {};
}

Result<void> Link::Impl::make(const LinkState& parent) {
  batch.clear();
  put_macvlan(batch, config.link, parent, config.shared_mac);
  if (const auto refusal = socket.execute(batch)) {
    Error error = refusal->error();
    if (refusal->code == EBUSY) {
      error.text +=
          "; " + config.nic + " may be a port of a bridge or a bond: give that one instead";
    } else if (refusal->code == EOPNOTSUPP) {
      error.text += "; this kernel has no macvlan (CONFIG_MACVLAN)";
    }
    return tl::unexpected<Error>(error);
  }
  const auto made = read_link(socket, config.link);
  if (!made) return fail(made.error());
  if (!*made) return fail(ErrorKind::kFailed, config.link + " is gone as soon as it was made");
  link = (*made)->index;
  return {};
}

// Depends on those of all interfaces, which may change.
std::vector<Setting> Link::Impl::settings() const {
  std::vector<Setting> all =
      settings_of_link(config.link, has_family(true), has_family(false), forwards);
  const auto nic_settings = settings_of_nic(config.nic, has_family(true));
  all.insert(all.end(), nic_settings.begin(), nic_settings.end());
  return all;
}

Result<void> Link::Impl::set_settings() {
  warnings.clear();
  for (const Setting& setting : settings()) {
    const auto before = read_setting(setting);
    if (before == setting.value) continue;
    if (auto done = write_setting(setting); !done) return done;
    if (setting.link == config.nic) {
      warnings.push_back(setting.name() + " was " + std::to_string(before.value_or(0)) +
                         " and is " + std::to_string(setting.value) + " now: " + config.nic +
                         " must not answer for shared addresses");
    }
  }
  return {};
}

Result<void> Link::Impl::set_up() {
  batch.clear();
  put_link_up(batch, link, config.link);
  const auto refusal = socket.execute(batch);
  if (!refusal) return {};
  Error error = refusal->error();
  if (refusal->code == EADDRINUSE || refusal->code == EBUSY) {
    error.text += "; MAC " + config.shared_mac.text() + " is in use on " + config.nic +
                  " already: choose another shared MAC";
  }
  return tl::unexpected<Error>(error);
}

Result<void> Link::Impl::renew(std::chrono::seconds lifetime) {
  if (lifetime.count() < 1 || lifetime.count() >= UINT32_MAX) {
    return fail(ErrorKind::kInvalid,
                "an address cannot live " + std::to_string(lifetime.count()) + " seconds");
  }
  batch.clear();
  for (const ServiceAddress& address : addresses) put_address(batch, link, address.ip, lifetime);
  for (const ServiceAddress& address : addresses) {
    if (address.prefix != address.ip.max_prefix()) put_fallback_route(batch, link, address);
  }
  if (batch.empty()) return {};
  if (const auto refusal = socket.execute(batch)) return fail(*refusal);
  return {};
}

// The addresses that are not among `staying`, with their routes to subnets that none of those is
// in.
Result<void> Link::Impl::take_away(const std::vector<ServiceAddress>& staying) {
  for (const ServiceAddress& gone : addresses) {
    if (has(staying, gone.ip)) continue;
    batch.clear();
    put_delete_address(batch, link, gone.ip);
    const auto refusal = socket.execute(batch);
    if (refusal && refusal->code != EADDRNOTAVAIL) return fail(*refusal);
  }
  for (const ServiceAddress& gone : addresses) {
    const bool needed = std::any_of(staying.begin(), staying.end(), [&](const auto& one) {
      return one.prefix == gone.prefix && one.subnet() == gone.subnet();
    });
    if (needed || gone.prefix == gone.ip.max_prefix()) continue;
    batch.clear();
    put_delete_fallback_route(batch, link, gone);
    const auto refusal = socket.execute(batch);
    if (refusal && refusal->code != ESRCH) return fail(*refusal);
  }
  return {};
}

// False when there is no link of ours, so that there is no use in looking at it.
bool Link::Impl::verify_link(std::vector<std::string>& words) {
  const auto below = read_link(socket, config.nic);
  if (below && !*below) {
    words.push_back("network interface " + config.nic + " is gone");
  } else if (below && (*below)->mac != config.own_mac) {
    words.push_back("the MAC of " + config.nic + " is " + (*below)->mac.text() + " now, not " +
                    config.own_mac.text());
  } else if (below && !(*below)->up) {
    words.push_back("network interface " + config.nic + " is down");
  }
  const auto found = read_link(socket, config.link);
  if (!found || !*found || (*found)->kind != "macvlan" || (*found)->index != link) {
    words.push_back(!found    ? found.error().error().text
                    : !*found ? "interface " + config.link + " is gone"
                              : "interface " + config.link + " is not the one that we made");
    return false;
  }
  const LinkState& is = **found;
  if (is.parent != nic) words.push_back(config.link + " is not over " + config.nic);
  if (is.mac != config.shared_mac) {
    words.push_back(config.link + " has the MAC " + is.mac.text() + " instead of " +
                    config.shared_mac.text());
  }
  if (!is.up) words.push_back(config.link + " is down");
  if (below && *below && is.mtu != (*below)->mtu) {
    words.push_back("the MTU of " + config.link + " is " + std::to_string(is.mtu) + " instead of " +
                    std::to_string((*below)->mtu));
  }
  return true;
}

void Link::Impl::verify_addresses(std::vector<std::string>& words) {
  const auto all = read_addresses(socket);
  if (!all) return words.push_back(all.error().error().text);
  const auto given = addresses_of(addresses);
  std::set<IpAddress> missing(given.begin(), given.end());
  for (const AddressState& there : *all) {
    if (there.link != link) continue;
    if (there.prefix == there.ip.max_prefix() && missing.erase(there.ip) == 1) continue;
    words.push_back("address " + there.ip.text() + "/" + std::to_string(there.prefix) + " is on " +
                    config.link + ", which is for shared addresses alone");
  }
  for (const IpAddress& ip : missing) {
    words.push_back("address " + ip.text() + " is not on " + config.link);
  }
}

Result<std::vector<std::string>> Link::Impl::also_elsewhere() {
  std::vector<std::string> words;
  const auto all = read_addresses(socket);
  if (!all) return fail(all.error());
  for (const AddressState& there : *all) {
    if (there.link == link || !has(addresses, there.ip)) continue;
    char name[IF_NAMESIZE] = "another";
    if_indextoname(there.link, name);
    words.push_back("address " + there.ip.text() + " is also on " + name +
                    ": this node draws all its clients to itself; remove it there");
  }
  return words;
}

void Link::Impl::verify_settings(std::vector<std::string>& words) const {
  for (const Setting& setting : settings()) {
    const auto now = read_setting(setting);
    if (now == setting.value) continue;
    words.push_back(setting.name() + " is " + (now ? std::to_string(*now) : "gone") +
                    " instead of " + std::to_string(setting.value));
  }
}

Link::Link(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Link::Link(Link&&) noexcept = default;
Link& Link::operator=(Link&&) noexcept = default;
Link::~Link() = default;

Result<Link> Link::open(Table& gate, Side side, std::vector<ServiceAddress> addresses,
                        std::chrono::seconds lifetime) {
  if (side == Side::kInside && !gate.config().inside) {
    return fail(ErrorKind::kInvalid, "table " + table_name(gate.config().id) +
                                         " has no inside, so there is no link to it");
  }
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return tl::unexpected<Error>(socket.error());
  auto impl = std::make_unique<Impl>(gate.config(), side, std::move(addresses), std::move(*socket));
  const auto give_up = [&](const Error& error) {
    if (impl->link != 0) (void)impl->delete_link();
    return tl::unexpected<Error>(error);
  };
  if (auto done = check_guarded(gate, side, impl->addresses); !done) return give_up(done.error());
  const auto parent = impl->check_nic();
  if (!parent) return give_up(parent.error());
  if (auto done = impl->delete_link(); !done) return give_up(done.error());
  if (auto done = impl->check_free(impl->addresses); !done) return give_up(done.error());
  if (auto done = impl->make(*parent); !done) return give_up(done.error());
  // The gate: the addresses' table stands, and the shared MAC cannot leave.
  if (auto stands = gate.read(); !stands) return give_up(stands.error());
  if (auto done = gate.guard_link(side); !done) return give_up(done.error());
  if (auto done = impl->set_settings(); !done) return give_up(done.error());
  if (auto done = impl->set_up(); !done) return give_up(done.error());
  if (auto done = impl->renew(lifetime); !done) return give_up(done.error());
  return Link(std::move(impl));
}

Result<void> Link::renew(std::chrono::seconds lifetime) { return impl_->renew(lifetime); }

Result<void> Link::check_new(std::vector<ServiceAddress> addresses) {
  std::erase_if(addresses,
                [&](const ServiceAddress& one) { return has(impl_->addresses, one.ip); });
  return impl_->check_free(addresses);
}

Result<void> Link::set_addresses(Table& gate, std::vector<ServiceAddress> addresses,
                                 std::chrono::seconds lifetime) {
  if (auto done = check_guarded(gate, impl_->side, addresses); !done) return done;
  if (auto free = check_new(addresses); !free) return free;
  if (auto done = impl_->take_away(addresses); !done) return done;
  impl_->addresses = std::move(addresses);
  impl_->config = link_of(gate.config(), impl_->side);
  if (auto done = impl_->set_settings(); !done) return done;
  if (auto stands = gate.read(); !stands) return tl::unexpected<Error>(stands.error());
  return impl_->renew(lifetime);
}

void Link::want(const Table& gate, std::vector<ServiceAddress> addresses) {
  impl_->addresses = std::move(addresses);
  impl_->config = link_of(gate.config(), impl_->side);
}

Result<void> Link::announce() {
  const Announcement who{impl_->nic, impl_->config.own_mac, impl_->config.shared_mac};
  return send_announcement(who, addresses_of(impl_->addresses));
}

Result<std::vector<std::string>> Link::verify() {
  std::vector<std::string> words;
  if (!impl_->verify_link(words)) return words;
  impl_->verify_addresses(words);
  impl_->verify_settings(words);
  return words;
}

Result<Mended> Link::mend(std::chrono::seconds lifetime) {
  auto mended = mend_link(impl_->socket, impl_->config, impl_->link, impl_->nic);
  if (!mended || mended->lost) return mended;
  if (auto done = mend_settings(impl_->settings(), *mended); !done) {
    return tl::unexpected<Error>(done.error());
  }
  auto done = mend_addresses(impl_->socket, impl_->config, addresses_of(impl_->addresses),
                             impl_->link, *mended);
  if (done) done = impl_->renew(lifetime);
  if (!done) return tl::unexpected<Error>(done.error());
  return mended;
}

Result<std::vector<std::string>> Link::hindrances() {
  auto words = impl_->also_elsewhere();
  if (!words) return words;
  const auto obstacles_here =
      obstacles(impl_->config.nic, impl_->has_family(true), impl_->has_family(false));
  words->insert(words->end(), obstacles_here.begin(), obstacles_here.end());
  if (!impl_->forwards) return words;
  const auto forwarding =
      forwarding_obstacles(impl_->config.link, impl_->has_family(true), impl_->has_family(false));
  words->insert(words->end(), forwarding.begin(), forwarding.end());
  return words;
}

const std::vector<std::string>& Link::warnings() const { return impl_->warnings; }

const std::vector<ServiceAddress>& Link::addresses() const { return impl_->addresses; }

Result<bool> Link::carrier() {
  const auto found = must_find(impl_->socket, impl_->config.nic);
  if (!found) return tl::unexpected<Error>(found.error());
  return found->up && found->carrier;
}

Result<void> Link::remove() { return impl_->delete_link(); }

Result<Held> reconfigure(Table& table, Link& link, TableConfig config,
                         std::vector<ServiceAddress> addresses, const Accepting& accepting,
                         const std::optional<Instant>& deadline, std::chrono::seconds lifetime) {
  config.addresses.clear();
  for (const ServiceAddress& one : addresses) config.addresses.push_back(one.ip);
  if (auto error = check(config)) return tl::unexpected<Error>(*error);
  if (auto free = link.check_new(addresses); !free) return tl::unexpected<Error>(free.error());
  const TableConfig config_before = table.config();
  const std::vector<ServiceAddress> addresses_before = link.addresses();
  std::vector<ServiceAddress> staying = addresses_before;
  std::erase_if(staying, [&](const ServiceAddress& one) { return !has(addresses, one.ip); });
  // Closed, and as far as the kernel lets us: no address comes back before the table that guards
  // it. What is not as it was verify() tells, and renew() puts back. An address that stays on the
  // link stays in the table, too, or it would be open.
  TableConfig wide = config_before;
  for (const IpAddress& ip : config.addresses) {
    if (!has(addresses_before, ip)) wide.addresses.push_back(ip);
  }
  const auto go_back = [&](const Error& error) -> Result<Held> {
    const bool narrow = link.set_addresses(table, staying, lifetime).has_value();
    if (table.restore(narrow ? config_before : wide)) {
      [[maybe_unused]] const auto back = link.set_addresses(table, addresses_before, lifetime);
    }
    link.want(table, addresses_before);
    return tl::unexpected<Error>(error);
  };
  if (auto done = link.set_addresses(table, staying, lifetime); !done) return go_back(done.error());
  auto held = table.reconfigure(std::move(config), accepting, deadline);
  if (!held) return go_back(held.error());
  if (auto done = link.set_addresses(table, std::move(addresses), lifetime); !done) {
    return go_back(done.error());
  }
  return held;
}

}  // namespace saru::nft
