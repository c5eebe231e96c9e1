// SPDX-License-Identifier: GPL-2.0-or-later
// The macvlan `saru<id>` with the shared MAC and the addresses (delivery=flood), through rtnetlink.
//
// Nothing is reachable before the gate stands: a Link can only be opened with the Table that guards
// it. Destroying a Link removes nothing (the addresses run out by themselves); remove() removes.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "nft/address.h"
#include "nft/mend.h"
#include "nft/result.h"
#include "nft/table.h"

namespace saru::nft {

// A network interface as it is now.
struct Nic {
  std::string name;
  unsigned index = 0;
  MacAddress mac;
  unsigned mtu = 0;
  bool up = false;
  bool carrier = false;
};
// kMissing when there is none of this name.
Result<Nic> find_nic(const std::string& name);

class Link {
 public:
  // Makes the macvlan (replacing one that an earlier process left), guards it, sets its kernel
  // settings, sets it up and adds the addresses, which live `lifetime` unless renewed. The names,
  // the NIC and the MACs are those of this side in the table's configuration; `addresses` must all
  // be among the addresses there. On an error the macvlan is gone again. kInvalid when the
  // configuration does not have the side; kConflict when the name is taken by something else, or an
  // address is on another interface of this node.
  static Result<Link> open(Table& gate, Side side, std::vector<ServiceAddress> addresses,
                           std::chrono::seconds lifetime);
  Link(Link&&) noexcept;
  Link& operator=(Link&&) noexcept;
  ~Link();

  // The addresses live `lifetime` from now; adds those that have run out. Whole seconds (the
  // kernel's unit): choose it a little above the lease.
  Result<void> renew(std::chrono::seconds lifetime);

  // kConflict when one of these that is not on the link yet is on another interface of this node.
  Result<void> check_new(std::vector<ServiceAddress> addresses);

  // From one list of addresses to another while the link is up: takes away those that are not in
  // `addresses`, adds the new ones, renews the others. All of them must be in the configuration of
  // `gate`, which stands before one is added (kInvalid, and nothing is changed); kConflict when a
  // new one is on another interface of this node. After another error some of the changes may have
  // been made: verify() says which; try again. The new ones are not announced.
  Result<void> set_addresses(Table& gate, std::vector<ServiceAddress> addresses,
                             std::chrono::seconds lifetime);

  // From now on renew(), verify() and mend() want these addresses, whatever is on the link; the
  // table must guard them by then.
  void want(const Table& gate, std::vector<ServiceAddress> addresses);

  // Tells the neighbours: gratuitous ARP and unsolicited neighbour advertisement, from the NIC with
  // its own MAC as Ethernet source and the shared MAC as content. Twice in a row does no harm.
  Result<void> announce();

  // How link, addresses and kernel settings differ from what they should be, in words.
  Result<std::vector<std::string>> verify();

  // Puts back what others have changed, without an interruption where that is possible; the
  // addresses live `lifetime` from now. When the macvlan itself is lost, nothing more is done.
  Result<Mended> mend(std::chrono::seconds lifetime);

  // What stands in the way of the service, but is the administrator's to change: settings for all
  // interfaces, a shared address on another interface, no forwarding where there is an inside. One
  // sentence each.
  Result<std::vector<std::string>> hindrances();

  // Things that work, but that the administrator should know. Filled by open().
  const std::vector<std::string>& warnings() const;

  Result<bool> carrier();  // of the NIC

  const std::vector<ServiceAddress>& addresses() const;

  // Takes away the macvlan and with it the addresses; not there is success.
  Result<void> remove();

 private:
  struct Impl;
  explicit Link(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Table and link together, in the order in which no address is ever without its gate: takes away
// the addresses that go, rebuilds the table in one transaction, adds the addresses that come.
// `link` is that of the outside, and `config.addresses` is filled in from `addresses`; the inside
// stays as it is. On an error the old configuration is in force:
// untouched when the new one is wrong or one of its addresses is taken (kInvalid, kConflict);
// otherwise closed, and the gate stands whatever happens.
Result<Held> reconfigure(Table& table, Link& link, TableConfig config,
                         std::vector<ServiceAddress> addresses, const Accepting& accepting,
                         const std::optional<Instant>& deadline, std::chrono::seconds lifetime);

}  // namespace saru::nft
