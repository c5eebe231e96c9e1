// SPDX-License-Identifier: GPL-2.0-or-later
// Between the plan's values and nf_tables netlink messages (libnftnl).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nft/netlink.h"
#include "nft/plan.h"

namespace saru::nft {

// Flags of a table that headers before Linux 6.9 lack (linux/netfilter/nf_tables.h).
inline constexpr std::uint32_t kTableOwner = 0x2;
inline constexpr std::uint32_t kTablePersist = 0x4;

// ---- Requests, each appended to a transaction
// -----------------------------------------------------

void put_begin(Batch& batch);
void put_end(Batch& batch);
void put_table(Batch& batch, const TablePlan& table, std::uint32_t flags);
void put_delete_table(Batch& batch, std::uint32_t family, const std::string& name);
// Everything inside a table that put_table made before.
void put_table_contents(Batch& batch, const TablePlan& table);
void put_chain(Batch& batch, const TablePlan& table, const Chain& chain);
void put_rule(Batch& batch, const TablePlan& table, const Chain& chain, const Rule& rule);
void put_delete_rules(Batch& batch, const TablePlan& table, const std::string& chain);
// `timeout_ms` 0: without.
void put_elements(Batch& batch, const TablePlan& table, const std::string& set,
                  const std::vector<Bytes>& keys, std::uint64_t timeout_ms);
void put_delete_elements(Batch& batch, const TablePlan& table, const std::string& set,
                         const std::vector<Bytes>& keys);
void put_delete_all_elements(Batch& batch, const TablePlan& table, const std::string& set);

// ---- Reading
// ----------------------------------------------------------------------------------------

struct TableState {
  std::uint32_t flags = 0;
  std::uint32_t owner = 0;  // netlink port; 0: nobody
};
// nullopt inside: there is no such table.
tl::expected<std::optional<TableState>, Refusal> read_table_state(NetlinkSocket& socket,
                                                                  std::uint32_t family,
                                                                  const std::string& name);

struct Element {
  Bytes key;
  std::uint64_t left_ms = 0;  // of a timed element
  std::uint64_t packets = 0;  // of one that counts
};
// Sorted by key, each once. After a transaction the kernel may move a large set into a hash table
// of another size (rhashtable, in a worker); a dump of several messages meanwhile counts its way
// through both, shows some elements twice and leaves out as many, and bears no NLM_F_DUMP_INTR. So
// one that shows an element twice is taken again, a millisecond later; EAGAIN after twenty.
tl::expected<std::vector<Element>, Refusal> read_elements(NetlinkSocket& socket,
                                                          std::uint32_t family,
                                                          const std::string& table,
                                                          const std::string& set);

struct NamedCounter {
  std::string name;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};
tl::expected<std::vector<NamedCounter>, Refusal> read_counters(NetlinkSocket& socket,
                                                               std::uint32_t family,
                                                               const std::string& table);

// The whole table as the kernel has it.
tl::expected<TablePlan, Refusal> read_table(NetlinkSocket& socket, std::uint32_t family,
                                            const std::string& name);

}  // namespace saru::nft
