// SPDX-License-Identifier: GPL-2.0-or-later
// A model of nf_tables as far as saru uses it: tables, sets, timed elements, chains, transactions
// that happen whole or not at all. It is given what nft/plan makes, and says which blocks a packet
// would be accepted for by reading the sets and carrying out the rules of the chain `open`.
// tests/kernel/nft_model_test.py runs the same transactions through this and through real nft.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "agent/core/accepting.h"
#include "nft/plan.h"

namespace saru::sim {

// The clocks that the kernel itself reads: nothing slows them while a process is stopped.
struct KernelTime {
  Nanos realtime{0};  // CLOCK_REALTIME, which may be set
  Nanos jiffies{0};   // stands while the machine is suspended
};

// What one batch says, in order.
struct DeleteTable {};  // not there: no error
struct AddTable {
  nft::TablePlan table;
};
struct AddElements {
  std::string set;
  std::vector<nft::Bytes> keys;
  Nanos timeout{0};  // 0: none
};
struct DeleteElements {
  std::string set;
  std::vector<nft::Bytes> keys;  // one that is not there fails the whole transaction
};
struct FlushSet {
  std::string set;
};
struct ReplaceRules {
  std::string chain;
  std::vector<nft::Rule> rules;
};
using Operation =
    std::variant<DeleteTable, AddTable, AddElements, DeleteElements, FlushSet, ReplaceRules>;
using Transaction = std::vector<Operation>;

class KernelModel {
 public:
  // Nothing is changed unless it returns true. Elements that have run out are not there.
  [[nodiscard]] bool commit(const Transaction& transaction, const KernelTime& now);

  bool has_table() const { return table_.has_value(); }

  // The keys of a set that have not run out; nullopt: no such set.
  std::optional<std::vector<nft::Bytes>> elements(const std::string& set,
                                                  const KernelTime& now) const;
  // What the sets of blocks hold, cut in as many as `load` says.
  Accepting accepting() const;
  // How packets are cut into blocks: two tables with the same cut mean the same by a block.
  std::pair<unsigned, std::uint32_t> cut() const;
  // Whether the chain `open` lets an IPv4 packet through.
  bool open(const KernelTime& now) const;
  // How long it will, if nothing happens: until then by each of the two clocks.
  struct Until {
    Nanos realtime{0};
    Nanos jiffies{0};
  };
  std::optional<Until> open_until(const KernelTime& now) const;

 private:
  struct LessKey {
    bool operator()(const nft::Bytes& a, const nft::Bytes& b) const;
  };
  struct Set {
    // The moment when it runs out, in jiffies.
    std::map<nft::Bytes, std::optional<Nanos>, LessKey> elements;
  };
  struct Table {
    std::map<std::string, Set> sets;
    std::map<std::string, std::vector<nft::Rule>> chains;
    unsigned blocks = 0;
    std::uint32_t seed = 0;
  };
  // What a transaction has changed so far; the rest is as in the table.
  struct Staged {
    std::map<std::string, Set> sets;
    std::map<std::string, std::vector<nft::Rule>> chains;
  };
  static Table make(const nft::TablePlan& plan, const KernelTime& now);
  static bool change(const Table& table, Staged& staged, const Operation& operation,
                     const KernelTime& now);
  static void finish(Table& table, Staged& staged);

  std::optional<Table> table_;
};

// What sarud's Table tells the kernel: the difference, or everything anew.
Transaction changes(const nft::TableConfig& config, const std::optional<Accepting>& known,
                    const nft::Contents& contents);
Transaction anew(const nft::TableConfig& config, const nft::Contents& contents);

}  // namespace saru::sim
