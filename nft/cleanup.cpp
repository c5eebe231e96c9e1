// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/cleanup.h"

#include <linux/netfilter.h>

#include <cerrno>

#include "nft/codec.h"
#include "nft/process.h"
#include "nft/rtnl.h"

namespace saru::nft {
namespace {

using Words = std::vector<std::string>;

struct Found {
  std::uint32_t family;
  std::string name;
  std::string text() const {
    return std::string(family == NFPROTO_INET ? "table inet " : "table netdev ") + name;
  }
};

// Which of the tables (and their twins) are there; kConflict when somebody alive owns one.
Result<std::vector<Found>> tables_there(NetlinkSocket& socket, std::uint16_t id) {
  std::vector<Found> found;
  for (const std::uint32_t family : {NFPROTO_INET, NFPROTO_NETDEV}) {
    for (const std::string& name : {table_name(id), twin_name(id)}) {
      const auto state = read_table_state(socket, family, name);
      if (!state) return fail(state.error());
      if (!*state) continue;
      found.push_back({family, name});
      if ((*state)->owner == 0) continue;
      return fail(ErrorKind::kConflict, found.back().text() + " belongs to " +
                                            process_of_port((*state)->owner) +
                                            ", which is alive: stop it first");
    }
  }
  return found;
}

Result<void> remove_link(const std::string& name, Words& removed) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return tl::unexpected<Error>(socket.error());
  const auto link = read_link(*socket, name);
  if (!link) return fail(link.error());
  if (!*link) return {};
  if ((*link)->kind != "macvlan") {
    return fail(ErrorKind::kConflict,
                "interface " + name + " is no macvlan, so it is not ours: left as it is");
  }
  Batch batch;
  put_delete_link(batch, (*link)->index, name);
  const auto refusal = socket->execute(batch);
  if (refusal && refusal->code != ENODEV) return fail(*refusal);
  removed.push_back("interface " + name + " with its addresses");
  return {};
}

}  // namespace

Result<Words> cleanup(std::uint16_t id) {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return tl::unexpected<Error>(socket.error());
  auto tables = tables_there(*socket, id);
  if (!tables) return tl::unexpected<Error>(tables.error());
  Words removed;
  // Without its table an address is open: the address goes first.
  for (const Side side : {Side::kOutside, Side::kInside}) {
    auto done = remove_link(link_name(id, side), removed);
    if (!done) return tl::unexpected<Error>(done.error());
  }
  if (tables->empty()) return removed;
  Batch batch;
  put_begin(batch);
  for (const Found& table : *tables) put_delete_table(batch, table.family, table.name);
  put_end(batch);
  const auto refusal = socket->execute(batch);
  if (refusal && refusal->code != ENOENT) return fail(*refusal);
  for (const Found& table : *tables) removed.push_back(table.text());
  return removed;
}

}  // namespace saru::nft
