// SPDX-License-Identifier: GPL-2.0-or-later
// Tables, sets, chains and rules as values that can be compared. Pure.
//
// An expression is one instruction of the kernel's nf_tables machine; all of ours work in
// register 1 (16 bytes), or from there on in words of 4 bytes. Constants are those of
// <linux/netfilter/nf_tables.h>.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace saru::nft {

using Bytes = std::vector<std::uint8_t>;

struct LoadMeta {  // meta KEY => reg 1
  std::uint32_t key = 0;
  bool operator==(const LoadMeta&) const = default;
};
struct LoadConnection {  // ct KEY => reg 1
  std::uint32_t key = 0;
  bool operator==(const LoadConnection&) const = default;
};
struct StoreConnection {  // ct KEY set reg 1
  std::uint32_t key = 0;  // enum nft_ct_keys
  bool operator==(const StoreConnection&) const = default;
};
struct LoadPayload {  // LEN bytes of a header => reg 1, or this many words behind its start
  std::uint32_t base = 0;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  std::uint32_t word = 0;
  bool operator==(const LoadPayload&) const = default;
};
struct StorePayload {  // reg 1 => LEN bytes of a header, no checksum
  std::uint32_t base = 0;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  bool operator==(const StorePayload&) const = default;
};
struct Mask {  // reg 1 &= mask
  Bytes mask;
  bool operator==(const Mask&) const = default;
};
struct Hash {  // reg 1 = the high 16 bits of the jhash of its first LEN bytes, in host order
  std::uint32_t length = 0;
  std::uint32_t seed = 0;
  bool operator==(const Hash&) const = default;
};
struct ToBigEndian {  // reg 1, 2 or 8 bytes
  std::uint32_t size = 8;
  bool operator==(const ToBigEndian&) const = default;
};
struct Compare {  // goes on only if reg 1 OP value
  std::uint32_t op = 0;
  Bytes value;
  bool operator==(const Compare&) const = default;
};
struct Lookup {  // goes on only if reg 1 is in the set (`absent`: is not)
  std::string set;
  bool absent = false;
  bool operator==(const Lookup&) const = default;
};
struct Count {  // a named counter
  std::string counter;
  bool operator==(const Count&) const = default;
};
struct LoadConstant {  // reg 1 = value
  Bytes value;
  bool operator==(const LoadConstant&) const = default;
};
struct TproxyToPort {  // never executed: its presence switches defragmentation on
  bool operator==(const TproxyToPort&) const = default;
};
struct Verdict {
  std::int32_t code = 0;  // NF_ACCEPT, NF_DROP, NFT_GOTO, NFT_JUMP
  std::string chain;      // for NFT_GOTO and NFT_JUMP
  bool operator==(const Verdict&) const = default;
};
struct Foreign {  // nothing of ours; appears only in what was read
  std::string name;
  bool operator==(const Foreign&) const = default;
};
using Expression =
    std::variant<LoadMeta, LoadConnection, StoreConnection, LoadPayload, StorePayload, Mask, Hash,
                 ToBigEndian, Compare, Lookup, Count, LoadConstant, TproxyToPort, Verdict, Foreign>;

struct Rule {
  std::string comment;
  std::vector<Expression> expressions;
  bool operator==(const Rule&) const = default;
};

struct Hook {
  std::uint32_t number = 0;  // NF_INET_PRE_ROUTING, NF_NETDEV_EGRESS
  std::int32_t priority = 0;
  std::string device;  // netdev only
  bool accepts = true;
  bool operator==(const Hook&) const = default;
};

struct Chain {
  std::string name;
  std::string comment;
  std::optional<Hook> hook;
  std::vector<Rule> rules;
  bool operator==(const Chain&) const = default;
};

// `key_type` is the number by which the nft program knows how to print a key (its enum datatypes).
struct Set {
  std::string name;
  std::string comment;
  std::uint32_t key_type = 0;
  std::uint32_t key_length = 0;
  bool host_order = false;  // how nft prints the key
  std::uint32_t flags = 0;
  std::uint32_t size = 0;            // most elements; 0: no limit
  std::vector<Bytes> elements = {};  // sorted
  std::uint64_t timeout_ms = 0;      // of every element; 0: none. Not compared
  bool counts = false;               // every element counts the packets that are looked up
  // What the elements have counted, as they are made; empty: nothing yet. Not compared.
  std::vector<std::uint64_t> counted = {};
};

struct TablePlan {
  std::uint32_t family = 0;
  std::string name;
  std::string comment;
  std::vector<std::string> counters;
  std::vector<Set> sets;
  std::vector<Chain> chains;
};

}  // namespace saru::nft
