// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel should hold, as data. Pure: nothing here talks to the kernel.
//
// Two tables per cluster id. `inet saru_<id>` decides which packets to our addresses this node
// accepts (DESIGN.md 5 and 6); `netdev saru_<id>` keeps the shared MAC from ever leaving as a
// source.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/accepting.h"
#include "nft/address.h"
#include "nft/rule.h"
#include "nft/selector.h"

namespace saru::nft {

// The two networks of a director: that of the clients, and that of the hosts behind it. Everything
// else has the outside alone.
enum class Side : std::uint8_t { kOutside, kInside };

// The interface that carries the shared addresses of one side: a macvlan `link` over `nic`.
struct LinkConfig {
  std::vector<IpAddress> addresses;
  MacAddress shared_mac;
  MacAddress own_mac;  // of the NIC
  std::string nic;
  std::string link;
  bool operator==(const LinkConfig&) const = default;
};

struct TableConfig {
  std::uint16_t id = 0;
  std::vector<IpAddress> addresses;
  unsigned blocks = kDefaultBlocks;
  Selection selection;    // what the block of a packet is computed from
  bool stays = false;     // established TCP stays on its node while its block moves: conntrack
  bool syncs = false;     // conntrack tells of the connections, for those who take their blocks
  std::string node_name;  // for the comments only
  MacAddress shared_mac;
  MacAddress own_mac;  // of the NIC
  std::string nic;
  std::string link;  // "saru<id>": link_name(id)
  // The second interface of a director: what comes in through it is decided mirrored. Its link is
  // "saru<id>i": link_name(id, Side::kInside).
  std::optional<LinkConfig> inside = std::nullopt;
};

// What the link of one side is made of; the configuration must have that side.
LinkConfig link_of(const TableConfig& config, Side side);
// The sides that the configuration has, the outside first.
std::vector<Side> sides_of(const TableConfig& config);

std::string table_name(std::uint16_t id);  // "saru_<id>"
std::string twin_name(std::uint16_t id);   // "saru_<id>_live": the copy with an owner (table.h)
std::string link_name(std::uint16_t id, Side side = Side::kOutside);  // "saru<id>", "saru<id>i"

// Whether every packet is of the same block under both, and whether both have the same links but
// for the addresses.
bool same_blocks(const TableConfig& a, const TableConfig& b);
bool same_interfaces(const TableConfig& a, const TableConfig& b);

// What is wrong with a configuration, as a sentence; nullopt when nothing is.
std::optional<Error> check(const TableConfig& config);

// How long the address stays open: the same moment, told to the kernel in two ways.
struct Lease {
  Nanos remaining{0};  // for the timed elements: from when the kernel executes the write
  Nanos realtime{0};   // CLOCK_REALTIME at which the absolute rule closes
  bool operator==(const Lease&) const = default;
};

// Without a lease the address is closed, and `accepting` must be empty.
struct Contents {
  Accepting accepting;
  std::optional<Lease> lease;
  // New connections by block, as the counters begin: for a table that replaces another one. Empty:
  // from zero.
  std::vector<std::uint64_t> loads = {};
  bool operator==(const Contents&) const = default;
};

// What this kernel can do beyond the least we need; found out when the tables are made.
struct Features {
  bool defragments = true;  // has the tproxy expression
};

struct Plan {
  TablePlan inet;
  TablePlan netdev;
};
// `with_link`: the macvlan exists, so its egress chain can; likewise that of the inside.
Plan make_plan(const TableConfig& config, const Contents& contents, const Features& features,
               bool with_link, bool with_inside_link = false);

// The same under the name of the twin.
TablePlan make_twin(TablePlan table);

// The rules of the chain `open`, which every renewal replaces.
std::vector<Rule> open_rules(const TableConfig& config, const std::optional<Lease>& lease);

// The sets that hold blocks, and which of those that are accepted each has.
struct SetOfBlocks {
  const char* name;
  BlockSet Accepting::*blocks;
};
std::vector<SetOfBlocks> sets_of_blocks(const TableConfig& config);

// The families that the timed elements of `lease` name: NFPROTO_IPV4, NFPROTO_IPV6.
std::vector<std::uint8_t> lease_keys(const TableConfig& config);

// From one set of blocks to another: the elements to delete and to add. The lease is always
// written anew, because time has passed.
struct Difference {
  BlockSet remove;
  BlockSet add;
};
Difference difference(const BlockSet& from, const BlockSet& to);

// A block as `owned` and `load` are keyed: the lowest selector value of the block, big endian.
std::vector<std::uint8_t> block_key(BlockId block, unsigned blocks);
// nullopt when the key is no block's.
std::optional<BlockId> key_block(std::span<const std::uint8_t> key, unsigned blocks);

// How a table that was read differs from the planned one, in words; empty when it does not. The
// sets that change are compared too.
std::vector<std::string> compare(const TablePlan& planned, const TablePlan& found);

}  // namespace saru::nft
