// SPDX-License-Identifier: GPL-2.0-or-later
// Another configuration for a running sarud: asked for here, ordered by the core once all members
// want it, and built in the kernel.
#include "agent/daemon.h"
#include "agent/logging.h"
#include "agent/membership.h"

namespace saru {

static_assert(std::chrono::milliseconds(kMaxLeaseMs) == kLongestLease);

namespace {

using nlohmann::json;
using std::string;

constexpr std::chrono::seconds kAskCorosyncEvery{5};
constexpr std::chrono::seconds kFencingSilence{10};  // it speaks once a second

json refusal(const string& sentence, ExitCode code) {
  return {{"ok", false}, {"error", sentence}, {"code", static_cast<int>(code)}};
}

std::vector<IpAddress> ips(const std::vector<ServiceAddress>& addresses) {
  std::vector<IpAddress> all;
  all.reserve(addresses.size());
  for (const ServiceAddress& address : addresses) all.push_back(address.ip);
  return all;
}

std::optional<RawOptions> raw_options(const json& request) {
  const json options = request.value("options", json());
  if (!options.is_object()) return std::nullopt;
  RawOptions raw;
  for (const auto& [name, value] : options.items()) {
    if (!value.is_string()) return std::nullopt;
    raw[name] = value.get<string>();
  }
  return raw;
}

}  // namespace

// {"command": "reload", "options": {name: text}, "lease_ns": N}: everything that sarud was given at
// its start, and the lease that the asker's view of corosync gives.
json Daemon::on_reload(const json& request) {
  const auto raw = raw_options(request);
  const json lease = request.value("lease_ns", json());
  constexpr std::int64_t kMostNs = std::int64_t{kMaxLeaseMs} * 1000000;
  const bool sane = lease.is_number_unsigned() && lease.get<std::uint64_t>() <= kMostNs &&
                    lease.get<std::int64_t>() >= kMinLeaseMs * 1000000LL;
  if (!raw || !sane) {
    return refusal("the request does not say what to reload", ExitCode::kFailed);
  }
  auto wanted = validate(*raw);
  if (!wanted) return refusal(wanted.error().sentence, wanted.error().code);
  if (ending_ != Ending::kNo) return refusal("sarud is ending", ExitCode::kNotRunning);
  if (state_.switching) {
    return refusal("another change is under way; try again in a second", ExitCode::kBusy);
  }
  auto change = plan_change(options_, std::move(*wanted), Nanos(lease.get<std::int64_t>()));
  if (!change) return refusal(change.error().sentence, change.error().code);
  adopt_own(change->options);
  change_ = std::move(*change);
  if (change_->agreed.hash != state_.config.config_hash || state_.next) {
    write_log(LogLevel::kNotice, "new parameters: they come into force when all nodes have them");
    feed(change_->agreed);
  } else {
    change_.reset();
  }
  return describe_now();
}

// What this node decides alone.
void Daemon::adopt_own(const Options& wanted) {
  options_.fencing = wanted.fencing;
  if (options_.log_level != wanted.log_level) {
    options_.log_level = wanted.log_level;
    set_log_level(wanted.log_level);
  }
  if (options_.weight == wanted.weight) return;
  options_.weight = wanted.weight;
  if (wishes_.weight) {
    wishes_.weight.reset();
    keep_wishes();
  }
  feed(SetWeight{wanted.weight});
}

// The members have ordered the change. Until the kernel has it whole, the old one is in force; what
// it refuses is not tried again until somebody asks for it again.
nft::Result<nft::Held> Daemon::build_change(const KernelWrite& action) {
  if (!change_ || change_->agreed.hash != *action.config) {
    return tl::unexpected(Error{ErrorKind::kFailed, "the parameters to change to are gone"});
  }
  const Change change = std::move(*change_);
  change_.reset();
  if (auto kept = keep_lease(std::max(change.agreed.lease, state_.longest_lease)); !kept) {
    return tl::unexpected(Error{ErrorKind::kFailed, kept.error().sentence});
  }
  nft::TableConfig config = kernel_.table.config();
  config.blocks = change.options.blocks;
  config.selection = change.options.selection;
  kernel_.watch.set_addresses(ips(change.options.addresses));
  auto held =
      nft::reconfigure(kernel_.table, kernel_.link, std::move(config), change.options.addresses,
                       action.accepting, action.deadline, address_lifetime(change.agreed.lease));
  if (!held) {
    kernel_.watch.set_addresses(ips(options_.addresses));
    write_log(LogLevel::kError,
              "the new parameters are given up on this node: mend what follows, and update the "
              "resource again");
    return held;
  }
  if (options_.blocks != change.options.blocks) around_.table = {};  // its blocks are no more
  counting_.seen = counting_.counted = BlockSet();
  const std::uint16_t weight = options_.weight;  // this node's own, adopted at once
  options_ = change.options;
  options_.weight = weight;
  if (flows_) flows_->cut_anew(flow_rule_of(options_));
  write_log(LogLevel::kNotice, "the new parameters are in force");
  announce();
  return held;
}

// corosync.conf may have changed since our start: a node was added or removed, with it the votes
// and rules of the quorum; not every change brings a new view.
void Daemon::ask_corosync() {
  const Nanos now = clocks_.now().raw;
  if (ending_ != Ending::kNo || asking_corosync_) return;
  if (now - corosync_asked_ < kAskCorosyncEvery) return;
  corosync_asked_ = now;
  asking_corosync_ = true;  // each question has a thread, and a stopped Corosync answers none
  read_facts(loop_, [this, alive = std::weak_ptr<bool>(alive_)](const auto& facts) {
    if (alive.expired()) return;
    asking_corosync_ = false;
    if (facts) on_facts(*facts);
  });
}

void Daemon::on_facts(const ClusterFacts& facts) {
  if (ending_ != Ending::kNo) return;
  const VotesChanged now = votes_of(facts);
  const Config& known = state_.config;
  if (now.votes != known.votes || now.expected_votes != known.expected_votes) {
    write_log(LogLevel::kNotice, "the cluster has " + std::to_string(now.votes.size()) +
                                     " nodes and expects " + std::to_string(now.expected_votes) +
                                     " votes now");
    for (const auto& [node, name] : node_names(facts)) around_.names[node] = name;
    feed(now);
  }
  const bool same_rule = check_cluster(facts, options_).has_value() &&
                         partner_of(facts, options_) == known.partner &&
                         device_lag_of(facts) == known.device_lag;
  if (same_rule != eligibility_.quorum_as_before) {
    eligibility_.quorum_as_before = same_rule;
    feed(eligibility_.event());
  }
  if (change_ || lease_of(facts, options_) == known.lease) return;
  write_log(LogLevel::kWarning,
            "corosync's token or consensus has changed, but the lease goes by what it was: update "
            "a parameter of the resource (pcs resource update), and all nodes take it up");
}

// The next process here waits as long as any lease that this one has known.
tl::expected<void, Failure> Daemon::keep_lease(Nanos lease) {
  if (lease == kept_lease_) return {};
  auto kept = callbacks_.keep_lease(lease);
  if (kept) kept_lease_ = lease;
  return kept;
}

void Daemon::keep_partner_closed() {
  const auto ring = closed_on(state_);
  if (!ring || ring == kept_partner_closed_) return;
  kept_partner_closed_ = ring;
  if (const auto kept = callbacks_.keep_partner_closed(*ring); !kept) {
    write_log(LogLevel::kWarning, kept.error().sentence + "; a restart of sarud forgets that " +
                                      "the other node is closed");
  }
}

void Daemon::look_at_fencing_watch() {
  if (!state_.config.partner || !around_.blind.empty()) return;
  if (clocks_.now().raw - fencing_heard_ < kFencingSilence) return;
  around_.blind = "saru-fencing does not hear Pacemaker's fencer";
  write_log(LogLevel::kWarning, "cannot hear of fencing: " + around_.blind);
}

void Daemon::on_fencing_news(const FencingNews& news) {
  if (!state_.config.partner) return;
  switch (news.kind) {
    case FencingNews::Kind::kWatching:
      fencing_heard_ = clocks_.now().raw;
      around_.blind.clear();
      break;
    case FencingNews::Kind::kBlind:
      if (around_.blind == news.reason) break;
      around_.blind = news.reason;
      write_log(LogLevel::kWarning, "cannot hear of fencing: " + news.reason);
      break;
    case FencingNews::Kind::kFenced:
      feed(Fenced{*state_.config.partner, news.began_after, news.alone});
      break;
  }
}

void Daemon::keep_wishes() {
  const auto kept = callbacks_.keep_wishes(wishes_);
  if (!kept) {
    write_log(LogLevel::kWarning, kept.error().sentence + "; a restart of sarud forgets it");
  }
}

}  // namespace saru
