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

// Which of the two tables are there; kConflict when somebody alive owns one.
Result<std::vector<std::uint32_t>> families_there(NetlinkSocket& socket, std::uint16_t id) {
  std::vector<std::uint32_t> families;
  for (const std::uint32_t family : {NFPROTO_INET, NFPROTO_NETDEV}) {
    const auto state = read_table_state(socket, family, table_name(id));
    if (!state) return fail(state.error());
    if (!*state) continue;
    if ((*state)->owner != 0) {
      return fail(ErrorKind::kConflict, "table " + table_name(id) + " belongs to " +
                                            process_of_port((*state)->owner) +
                                            ", which is alive: stop it first");
    }
    families.push_back(family);
  }
  return families;
}

Result<void> remove_link(std::uint16_t id, Words& removed) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return tl::unexpected<Error>(socket.error());
  const std::string name = link_name(id);
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
  auto families = families_there(*socket, id);
  if (!families) return tl::unexpected<Error>(families.error());
  Words removed;
  // Without its table an address is open: the address goes first.
  if (auto done = remove_link(id, removed); !done) return tl::unexpected<Error>(done.error());
  if (families->empty()) return removed;
  Batch batch;
  put_begin(batch);
  for (const std::uint32_t family : *families) put_delete_table(batch, family, table_name(id));
  put_end(batch);
  const auto refusal = socket->execute(batch);
  if (refusal && refusal->code != ENOENT) return fail(*refusal);
  for (const std::uint32_t family : *families) {
    removed.push_back(std::string("table ") + (family == NFPROTO_INET ? "inet " : "netdev ") +
                      table_name(id));
  }
  return removed;
}

}  // namespace saru::nft
