// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/table.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <net/if.h>

#include <cerrno>
#include <set>

#include "nft/codec.h"
#include "nft/netlink.h"
#include "nft/process.h"

namespace saru::nft {
namespace {

// The flags of a table and of its twin, if it has one.
struct Mode {
  std::uint32_t flags;
  std::optional<std::uint32_t> twin;
};
Mode mode_of(Protection protection) {
  switch (protection) {
    case Protection::kOwnerPersist:
      return {kTableOwner | kTablePersist, std::nullopt};
    case Protection::kTwins:
      return {0, kTableOwner};
    case Protection::kNone:
      break;
  }
  return {0, std::nullopt};
}

constexpr std::uint32_t kFamilies[] = {NFPROTO_INET, NFPROTO_NETDEV};
// Somebody may change the tables between our looking and our writing; not this often in a row.
constexpr int kTries = 8;
// Closer to its end than this the lease's elements may be there or not.
constexpr Nanos kLeaseEnd = std::chrono::milliseconds(10);
// An element whose timeout is no whole jiffy (10 ms at HZ=100) would stay for ever.
constexpr Nanos kShortestLease = std::chrono::milliseconds(10);

std::string full_name(std::uint32_t family, const std::string& name) {
  return std::string(family == NFPROTO_INET ? "table inet " : "table netdev ") + name;
}

// The tables changed under our feet: look again, build them anew.
bool is_race(int code) {
  return code == ENOENT || code == EEXIST || code == EBUSY || code == ENOBUFS;
}

}  // namespace

struct Table::Impl {
  Impl(TableConfig c, TableOptions o, NetlinkSocket s)
      : config(std::move(c)), options(std::move(o)), socket(std::move(s)) {
    written.accepting = Accepting::nothing(config.blocks);
  }

  TableConfig config;
  TableOptions options;
  NetlinkSocket socket;
  Batch batch{Batch::kTransaction};
  Features features;
  Protection protection = options.protection;
  std::set<Side> guarded;          // their links
  bool stale = false;              // the kernel has tables of another configuration
  Contents written;                // what the last transaction wrote
  std::optional<Accepting> known;  // what the sets held when last read; nullopt: not sure
  // Loads when last read or written (empty: none); nullopt: the kernel's are of other blocks.
  std::optional<std::vector<std::uint64_t>> counted;

  Contents contents_for(const Accepting& accepting, const std::optional<Instant>& deadline) const;
  Plan plan_for(const Contents& contents) const;
  std::vector<std::string> table_names() const;
  Result<void> put_deletion(std::uint32_t family, const std::string& name);
  Result<void> put_deletions();
  void put_tables(const TablePlan& table);
  std::optional<Refusal> build_once(const Contents& contents);
  bool adapt(const Refusal& refusal);
  Error explain(const Refusal& refusal) const;
  void put_changes(const std::string& table_name, const Contents& contents);
  Result<Held> write(const Accepting& accepting, const std::optional<Instant>& deadline, bool anew);
  Result<BlockSet> read_blocks(const char* set, bool& strange);
  Result<Held> read();
  Result<std::vector<std::uint64_t>> read_loads();
  Result<void> compare_table(const TablePlan& planned, std::uint32_t flags,
                             std::vector<std::string>& words);
};

// CLOCK_REALTIME first: a pause before the other readings makes `remaining` smaller and nothing
// larger.
Contents Table::Impl::contents_for(const Accepting& accepting,
                                   const std::optional<Instant>& deadline) const {
  Contents closed{Accepting::nothing(config.blocks), std::nullopt};
  if (!deadline) return closed;
  const Nanos realtime = options.clocks.realtime();
  const Nanos real_left = remaining(*deadline, options.clocks.now());
  // The kernel closes by a clock that may be bent.
  const auto bent = static_cast<double>(real_left.count()) * options.clocks.slowness();
  const Nanos left = real_left - Nanos(static_cast<Nanos::rep>(bent));
  if (left < kShortestLease) return closed;
  return {accepting.blocks() == 0 ? closed.accepting : accepting, Lease{left, realtime + left}};
}

Plan Table::Impl::plan_for(const Contents& contents) const {
  const auto has_link = [this](Side side) {
    return guarded.count(side) != 0 && if_nametoindex(link_of(config, side).link.c_str()) != 0;
  };
  return make_plan(config, contents, features, has_link(Side::kOutside), has_link(Side::kInside));
}

// The tables of one family that we have.
std::vector<std::string> Table::Impl::table_names() const {
  if (mode_of(protection).twin) return {table_name(config.id), twin_name(config.id)};
  return {table_name(config.id)};
}

// If it is there, and nobody else's.
Result<void> Table::Impl::put_deletion(std::uint32_t family, const std::string& name) {
  const auto state = read_table_state(socket, family, name);
  if (!state) return fail(state.error());
  if (!*state) return {};
  if ((*state)->owner != 0 && (*state)->owner != socket.port_id()) {
    return fail(ErrorKind::kConflict, full_name(family, name) + " belongs to " +
                                          process_of_port((*state)->owner) + ": cluster id " +
                                          std::to_string(config.id) +
                                          " is in use on this node; stop that process or choose "
                                          "another id");
  }
  put_delete_table(batch, family, name);
  return {};
}

// Both tables and their twins, also those that another version or mode of us may have left.
Result<void> Table::Impl::put_deletions() {
  for (const std::uint32_t family : kFamilies) {
    for (const std::string& name : {table_name(config.id), twin_name(config.id)}) {
      if (auto done = put_deletion(family, name); !done) return done;
    }
  }
  return {};
}

// A new table, and its twin where there is one.
void Table::Impl::put_tables(const TablePlan& table) {
  const Mode mode = mode_of(protection);
  put_table(batch, table, mode.flags);
  put_table_contents(batch, table);
  if (!mode.twin) return;
  const TablePlan twin = make_twin(table);
  put_table(batch, twin, *mode.twin);
  put_table_contents(batch, twin);
}

// The batch already starts with the deletions.
std::optional<Refusal> Table::Impl::build_once(const Contents& contents) {
  const Plan plan = plan_for(contents);
  put_tables(plan.netdev);
  put_tables(plan.inet);
  put_end(batch);
  options.clocks.before_write();
  return socket.execute(batch);
}

// Does without what this kernel lacks; false when that is not the reason.
bool Table::Impl::adapt(const Refusal& refusal) {
  const bool unknown = refusal.code == EOPNOTSUPP || refusal.code == EINVAL;
  if (unknown && refusal.doing.starts_with("add table") && protection != Protection::kNone) {
    protection = protection == Protection::kOwnerPersist ? Protection::kTwins : Protection::kNone;
    return true;
  }
  if (features.defragments && refusal.doing.ends_with("chain defragment")) {
    features.defragments = false;
    return true;
  }
  return false;
}

Error Table::Impl::explain(const Refusal& refusal) const {
  Error error = refusal.error();
  if (refusal.doing.find("egress hook") != std::string::npos && error.kind == ErrorKind::kTooOld) {
    error.text +=
        "; this kernel cannot hide the shared MAC: Linux 5.16 with CONFIG_NETFILTER_EGRESS is "
        "needed";
  } else if (error.kind == ErrorKind::kTooOld) {
    error.text += "; this kernel needs nf_tables (CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_NETDEV)";
  }
  error.text = "cluster id " + std::to_string(config.id) + ": " + error.text;
  return error;
}

// The difference between what is there and `contents`.
void Table::Impl::put_changes(const std::string& table_name, const Contents& contents) {
  TablePlan table;
  table.family = NFPROTO_INET;
  table.name = table_name;
  const auto keys = [&](const BlockSet& set) {
    std::vector<Bytes> all;
    set.for_each([&](BlockId block) { all.push_back(block_key(block, config.blocks)); });
    return all;
  };
  for (const SetOfBlocks& set : sets_of_blocks(config)) {
    const BlockSet& wanted = contents.accepting.*set.blocks;
    if (known) {
      const Difference change = difference((*known).*set.blocks, wanted);
      put_delete_elements(batch, table, set.name, keys(change.remove));
      put_elements(batch, table, set.name, keys(change.add), 0);
    } else {
      put_delete_all_elements(batch, table, set.name);
      put_elements(batch, table, set.name, keys(wanted), 0);
    }
  }
  // An element that is only added again keeps its old end in kernels before 6.12.
  put_delete_all_elements(batch, table, "lease");
  if (contents.lease) {
    std::vector<Bytes> lease;
    for (const std::uint8_t key : lease_keys(config)) lease.push_back({key});
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(contents.lease->remaining);
    put_elements(batch, table, "lease", lease, static_cast<std::uint64_t>(left.count()));
  }
  if (!contents.lease && known && !written.lease) return;  // the rule already says closed
  Chain open;
  open.name = "open";
  put_delete_rules(batch, table, open.name);
  for (const Rule& rule : open_rules(config, contents.lease)) put_rule(batch, table, open, rule);
}

Result<Held> Table::Impl::write(const Accepting& accepting, const std::optional<Instant>& deadline,
                                bool anew) {
  if (accepting.blocks() != 0 && accepting.blocks() != config.blocks) {
    return fail(ErrorKind::kInvalid, "cluster id " + std::to_string(config.id) + ": a table of " +
                                         std::to_string(config.blocks) + " blocks cannot hold " +
                                         std::to_string(accepting.blocks()));
  }
  if (!config.stays && !(accepting.lingering.empty() && accepting.contested.empty())) {
    return fail(ErrorKind::kInvalid, "cluster id " + std::to_string(config.id) +
                                         ": a table that does not look at connections cannot let "
                                         "them stay");
  }
  anew = anew || stale;
  for (int tries = 1;; ++tries) {
    batch.clear();
    put_begin(batch);
    if (anew) {
      if (auto deletions = put_deletions(); !deletions) {
        return tl::unexpected<Error>(deletions.error());
      }
    }
    // What somebody has deleted goes on from what was last read.
    if (anew && counted) (void)read_loads();
    Contents contents = contents_for(accepting, deadline);
    std::optional<Refusal> refusal;
    if (anew) {
      contents.loads = counted.value_or(std::vector<std::uint64_t>());
      refusal = build_once(contents);
    } else {
      for (const std::string& name : table_names()) put_changes(name, contents);
      put_end(batch);
      options.clocks.before_write();
      refusal = socket.execute(batch);
    }
    if (!refusal) {
      stale = false;
      written = contents;
      if (anew) counted = contents.loads;
      return read();
    }
    known.reset();
    const bool again = anew && adapt(*refusal);
    if (!again && (tries == kTries || !is_race(refusal->code))) {
      return tl::unexpected<Error>(explain(*refusal));
    }
    anew = true;
  }
}

Result<BlockSet> Table::Impl::read_blocks(const char* set, bool& strange) {
  const auto elements = read_elements(socket, NFPROTO_INET, table_name(config.id), set);
  if (!elements) return tl::unexpected<Error>(explain(elements.error()));
  BlockSet blocks(config.blocks);
  for (const Element& element : *elements) {
    if (const auto block = key_block(element.key, config.blocks)) {
      blocks.insert(*block);
    } else {
      strange = true;
    }
  }
  return blocks;
}

Result<Held> Table::Impl::read() {
  Held held;
  held.accepting = Accepting::nothing(config.blocks);
  for (const SetOfBlocks& set : sets_of_blocks(config)) {
    auto blocks = read_blocks(set.name, held.strange);
    if (!blocks) return tl::unexpected<Error>(blocks.error());
    held.accepting.*set.blocks = *blocks;
  }
  const auto lease = read_elements(socket, NFPROTO_INET, table_name(config.id), "lease");
  if (!lease) return tl::unexpected<Error>(explain(lease.error()));
  if (lease->size() >= lease_keys(config).size()) {
    std::uint64_t left = UINT64_MAX;
    for (const Element& element : *lease) left = std::min(left, element.left_ms);
    held.lease_left = std::chrono::milliseconds(left);
  }
  known = held.strange ? std::nullopt : std::optional(held.accepting);
  return held;
}

// Where there are twins, both have counted what was accepted; one of them perhaps more.
Result<std::vector<std::uint64_t>> Table::Impl::read_loads() {
  std::vector<std::uint64_t> loads(config.blocks, UINT64_MAX);
  for (const std::string& name : table_names()) {
    const auto elements = read_elements(socket, NFPROTO_INET, name, "load");
    if (!elements) return tl::unexpected<Error>(explain(elements.error()));
    std::vector<std::uint64_t> here(config.blocks, 0);
    for (const Element& element : *elements) {
      const auto block = key_block(element.key, config.blocks);
      if (block) here[block->value] = element.packets;
    }
    for (unsigned b = 0; b < config.blocks; ++b) loads[b] = std::min(loads[b], here[b]);
  }
  counted = loads;
  return loads;
}

Result<void> Table::Impl::compare_table(const TablePlan& planned, std::uint32_t flags,
                                        std::vector<std::string>& words) {
  const std::string name = full_name(planned.family, planned.name);
  const auto state = read_table_state(socket, planned.family, planned.name);
  if (!state) return fail(state.error());
  if (!*state) {
    words.push_back(name + " is missing");
    return {};
  }
  const TableState& is = **state;
  if (is.owner != ((flags & kTableOwner) != 0 ? socket.port_id() : 0)) {
    words.push_back(name + " belongs to " + (is.owner == 0 ? "nobody" : process_of_port(is.owner)));
  }
  if ((is.flags & NFT_TABLE_F_DORMANT) != 0) words.push_back(name + " is switched off (dormant)");
  auto found = read_table(socket, planned.family, planned.name);
  if (!found) return fail(found.error());
  for (const Side side : sides_of(config)) {
    const bool there = if_nametoindex(link_of(config, side).link.c_str()) != 0;
    if (planned.family != NFPROTO_NETDEV || there) continue;
    // Without the macvlan newer kernels keep its chain, older ones do not. Link says: it is gone.
    const char* const name = side == Side::kInside ? "inside_link" : "link";
    std::erase_if(found->chains, [=](const Chain& chain) { return chain.name == name; });
  }
  const auto differences = compare(planned, *found);
  words.insert(words.end(), differences.begin(), differences.end());
  return {};
}

Table::Table(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Table::Table(Table&&) noexcept = default;
Table& Table::operator=(Table&&) noexcept = default;
Table::~Table() = default;

Result<Table> Table::open(TableConfig config, TableOptions options) {
  if (auto error = check(config)) return tl::unexpected<Error>(*error);
  for (const Side side : sides_of(config)) {
    const std::string nic = link_of(config, side).nic;
    if (if_nametoindex(nic.c_str()) != 0) continue;
    std::string text = "there is no network interface \"" + nic;
    text += "\" on this node: give the one that the ";
    text += side == Side::kInside ? "hosts inside reach" : "clients reach";
    return fail(ErrorKind::kMissing, std::move(text));
  }
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return tl::unexpected<Error>(socket.error());
  auto impl = std::make_unique<Impl>(std::move(config), std::move(options), std::move(*socket));
  auto held = impl->write(Accepting::nothing(impl->config.blocks), std::nullopt, true);
  if (!held) return tl::unexpected<Error>(held.error());
  return Table(std::move(impl));
}

Result<Held> Table::apply(const Accepting& accepting, const std::optional<Instant>& deadline) {
  return impl_->write(accepting, deadline, false);
}

Result<Held> Table::rebuild(const Accepting& accepting, const std::optional<Instant>& deadline) {
  return impl_->write(accepting, deadline, true);
}

Result<Held> Table::reconfigure(TableConfig config, const Accepting& accepting,
                                const std::optional<Instant>& deadline) {
  if (auto error = check(config)) return tl::unexpected<Error>(*error);
  const TableConfig& now = impl_->config;
  if (config.id != now.id || !same_interfaces(config, now)) {
    return fail(ErrorKind::kInvalid,
                "cluster id " + std::to_string(now.id) +
                    ": its id, interfaces and MACs cannot change while it serves: stop it first");
  }
  if (!same_blocks(config, now)) impl_->counted.reset();
  std::swap(impl_->config, config);
  auto held = impl_->write(accepting, deadline, true);
  if (!held) std::swap(impl_->config, config);
  return held;
}

bool Table::restore(TableConfig config) {
  if (!same_blocks(config, impl_->config)) impl_->counted.reset();
  impl_->config = std::move(config);
  impl_->stale = true;
  return impl_->write(Accepting::nothing(impl_->config.blocks), std::nullopt, true).has_value();
}

Result<Held> Table::read() { return impl_->read(); }

Result<std::vector<std::uint64_t>> Table::loads() { return impl_->read_loads(); }

Result<Counters> Table::counters() {
  Counters counters;
  bool first = true;
  const auto add = [](Counters::Pair& sum, const NamedCounter& one) {
    sum = {sum.packets + one.packets, sum.bytes + one.bytes};
  };
  for (const std::string& name : impl_->table_names()) {
    const auto all = read_counters(impl_->socket, NFPROTO_INET, name);
    if (!all) return fail(all.error());
    for (const NamedCounter& one : *all) {
      // What one table drops the other one never sees; what is accepted has passed both.
      if (one.name == "foreign") add(counters.foreign, one);
      if (one.name == "late") add(counters.late, one);
      if (one.name == "accepted" && (first || one.packets < counters.accepted.packets)) {
        counters.accepted = {one.packets, one.bytes};
      }
    }
    first = false;
  }
  return counters;
}

Result<std::vector<std::string>> Table::verify() {
  std::vector<std::string> words;
  Plan plan = impl_->plan_for(impl_->written);
  const auto& lease = impl_->written.lease;
  if (lease && impl_->options.clocks.realtime() + kLeaseEnd >= lease->realtime) {
    // At its end the elements go by themselves; the absolute rule stays and is compared.
    std::erase_if(plan.inet.sets, [](const Set& set) { return set.name == "lease"; });
    auto left = read_elements(impl_->socket, NFPROTO_INET, table_name(impl_->config.id), "lease");
    Contents same = impl_->written;
    if (left && left->empty()) same.lease.reset();
    for (Set& set : impl_->plan_for(same).inet.sets) {
      if (set.name == "lease") plan.inet.sets.push_back(std::move(set));
    }
  }
  const Mode mode = mode_of(impl_->protection);
  for (const TablePlan* table : {&plan.inet, &plan.netdev}) {
    auto done = impl_->compare_table(*table, mode.flags, words);
    if (done && mode.twin) done = impl_->compare_table(make_twin(*table), *mode.twin, words);
    if (!done) return tl::unexpected<Error>(done.error());
  }
  return words;
}

Result<void> Table::remove() {
  for (int tries = 1;; ++tries) {
    impl_->batch.clear();
    put_begin(impl_->batch);
    if (auto deletions = impl_->put_deletions(); !deletions) return deletions;
    put_end(impl_->batch);
    const auto refusal = impl_->socket.execute(impl_->batch);
    if (!refusal) break;
    if (tries == kTries || !is_race(refusal->code)) {
      return tl::unexpected<Error>(impl_->explain(*refusal));
    }
  }
  impl_->known.reset();
  return {};
}

Result<void> Table::guard_link(Side side) {
  impl_->guarded.insert(side);
  for (int tries = 1;; ++tries) {
    Batch& batch = impl_->batch;
    batch.clear();
    put_begin(batch);
    for (const std::string& name : impl_->table_names()) {
      if (auto done = impl_->put_deletion(NFPROTO_NETDEV, name); !done) return done;
    }
    impl_->put_tables(impl_->plan_for(impl_->written).netdev);
    put_end(batch);
    const auto refusal = impl_->socket.execute(batch);
    if (!refusal) return {};
    if (tries == kTries || !is_race(refusal->code)) {
      return tl::unexpected<Error>(impl_->explain(*refusal));
    }
  }
}

const TableConfig& Table::config() const { return impl_->config; }
Protection Table::protection() const { return impl_->protection; }
bool Table::defragments() const { return impl_->features.defragments; }
std::uint32_t Table::port_id() const { return impl_->socket.port_id(); }

}  // namespace saru::nft
