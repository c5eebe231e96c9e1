// SPDX-License-Identifier: GPL-2.0-or-later
// The two tables of one cluster id in this network namespace, through libnftnl and libmnl.
//
// Every change is one nf_tables transaction: it happens whole or not at all, and no packet sees
// half of it. The object holds the netlink socket that owns the tables; the kernel takes a table
// back from its owner when that socket closes, and (flag persist) keeps it. So destroying a Table
// removes nothing: the address closes when its lease runs out. remove() removes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/accepting.h"
#include "agent/core/types.h"
#include "nft/clocks.h"
#include "nft/plan.h"
#include "nft/result.h"

namespace saru::nft {

// How the tables are protected from others, and from the death of this process. The best that the
// kernel has:
enum class Protection : std::uint8_t {
  // Anyone with CAP_NET_ADMIN can change and flush them; they stay when we die. Watch tells.
  kNone,
  // Linux 5.12: a second copy of both tables has an owner (`saru_<id>_live`): others can neither
  // change nor flush that one, but it goes when we die; the first one stays. A packet must pass
  // both.
  kTwins,
  // Linux 6.9: one table that has an owner and stays when we die.
  kOwnerPersist,
};

struct TableOptions {
  Protection protection = Protection::kOwnerPersist;  // ask for no more than this
  Clocks clocks = Clocks::system();
};

// What the kernel holds, as read back.
struct Held {
  Accepting accepting;
  std::optional<Nanos> lease_left;  // of the timed elements; nullopt: closed
  bool strange = false;             // there are elements that are nobody's block
};

struct Counters {
  struct Pair {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
  };
  Pair accepted;  // ours, under the lease
  Pair foreign;   // another node's block, or a protocol we do not serve
  Pair late;      // our block, but the lease had run out (or the address is closed)
};

class Table {
 public:
  // Makes both tables, closed, in one transaction that also replaces what an earlier process left.
  // kConflict when another live process owns them, kNotPermitted without CAP_NET_ADMIN, kTooOld
  // when the kernel lacks nf_tables or the egress hook, kMissing when the NIC is not there.
  static Result<Table> open(TableConfig config, TableOptions options = {});
  Table(Table&&) noexcept;
  Table& operator=(Table&&) noexcept;
  ~Table();

  // Makes the kernel hold exactly this, in one transaction, and reads back what it then holds.
  // Without a deadline, or when less than a millisecond of it is left, closed: no lease, all sets
  // empty. The tables are built anew when somebody has disturbed them so much that the difference
  // does not apply. On an error nothing was changed, unless the error says so.
  Result<Held> apply(const Accepting& accepting, const std::optional<Instant>& deadline);

  // As apply(), but deletes and builds both tables anew in the same single transaction.
  Result<Held> rebuild(const Accepting& accepting, const std::optional<Instant>& deadline);

  // From one configuration to another under traffic: as rebuild(), with `config` from then on. One
  // transaction, so every packet meets either the old tables or the new ones, whole. Addresses,
  // blocks and selectors may differ; the id, the interfaces and the MACs may not (kInvalid): for
  // those take everything down. On an error the old configuration stays in force. An address that
  // is no longer in `config` is open from then on: take it from the link before (see link.h).
  Result<Held> reconfigure(TableConfig config, const Accepting& accepting,
                           const std::optional<Instant>& deadline);

  // Back to a configuration that was in force before, closed. False: the kernel refuses, and may
  // still have the rules of another configuration; the next apply() or rebuild() writes these.
  [[nodiscard]] bool restore(TableConfig config);

  Result<Held> read();
  Result<Counters> counters();

  // New connections that this node has accepted, by block, since the tables were opened: TCP
  // segments with SYN alone (a retransmitted one counts again) and SCTP packets that begin with
  // INIT. UDP, DCCP and ICMP are not counted: their packets do not tell. Moving blocks changes
  // nothing; rebuild() goes on counting from what is there, or from the last loads() when somebody
  // has deleted the table; another number of blocks or other selectors begin anew, also where the
  // kernel has refused them.
  Result<std::vector<std::uint64_t>> loads();

  // How both tables differ from what was last written, in words; empty when they do not.
  Result<std::vector<std::string>> verify();

  // Deletes both tables; not there is success. Take the link away before: without the table its
  // addresses are open.
  Result<void> remove();

  // Adds the egress chain of the macvlan of one side, which the configuration must have; Link calls
  // this before it sets the macvlan up.
  Result<void> guard_link(Side side);

  const TableConfig& config() const;
  Protection protection() const;
  bool defragments() const;       // the kernel puts fragments together before our rules
  std::uint32_t port_id() const;  // netlink port of our changes, as notifications name it

 private:
  struct Impl;
  explicit Table(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru::nft
