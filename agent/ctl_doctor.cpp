// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: reads, judges, prints.
#include <algorithm>
#include <cstdio>
#include <initializer_list>

#include "agent/ctl_client.h"
#include "agent/ctl_commands.h"
#include "agent/doctor_read.h"
#include "agent/version.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

constexpr const char* kUnread = "nothing is known of it; see to that first";

// Where none of these is wanted, nothing is sent, read or run for them.
bool wants(const CtlOptions& options, std::initializer_list<const char*> checks) {
  return std::any_of(checks.begin(), checks.end(), [&](const char* check) {
    return std::find(options.skip.begin(), options.skip.end(), check) == options.skip.end();
  });
}

void look_at_switch(Findings& all, const ServiceSide& side, const json& status,
                    const ClusterFacts* facts) {
  if (const auto sight = read_switch(side, status, facts)) {
    append(all, judge_switch(*sight));
  } else {
    all.push_back(doubt("switch", sight.error(), kUnread));
  }
}

void look_at_side(Findings& all, const ServiceSide& side, const json& status,
                  const ClusterFacts* facts, const CtlOptions& options) {
  if (wants(options, {"switch", "arp", "mac", "address"})) {
    look_at_switch(all, side, status, facts);
  }
  all.push_back(judge_bridge(read_bridge(side)));
  if (!wants(options, {"firewall", "firewalld", "flowtable"})) return;
  if (const auto sight = read_rules(side, options.ports)) {
    append(all, judge_rules(*sight));
  } else {
    all.push_back(doubt("firewall", sight.error(), "install nftables, and run this as root"));
  }
}

void look_at_service(Findings& all, const json& status, const ClusterFacts* facts,
                     const CtlOptions& options) {
  append(all, judge_service(status));
  if (!wants(options, {"blocks"})) {
    // Not asked: the members would have to read their kernels.
  } else if (const auto found = settled_audit(options)) {
    append(all, judge_blocks(found->audit));
  } else {
    all.push_back(doubt("blocks", found.error().sentence, "try again in a moment"));
  }
  all.push_back(judge_version(status.at("version").get<string>(), kVersion));
  for (const ServiceSide& side : sides_of(status)) {
    look_at_side(all, side, status, facts, options);
  }
  all.push_back(judge_conntrack(read_conntrack(status)));
}

void look_at_cluster(Findings& all, const ClusterFacts& facts, const json& status,
                     const CtlOptions& options) {
  const auto ms = [](Nanos span) {
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(span).count()) +
           " ms";
  };
  all.push_back(fine("corosync", std::to_string(facts.nodes.size()) + " nodes, token " +
                                     ms(facts.token) + ", consensus " + ms(facts.consensus)));
  all.push_back(judge_encryption(facts));
  append(all, judge_knet(facts));
  if (status.is_object()) {
    all.push_back(judge_lease(facts, status.at("lease_ms").get<std::int64_t>()));
  }
  if (wants(options, {"fencing"})) all.push_back(judge_fencing(facts, read_fencing()));
}

// null: no sarud runs here, which is a finding. Whoever cannot even ask gets no diagnosis.
tl::expected<json, Failure> status_or_none(const CtlOptions& options, Findings& all) {
  const auto id = choose_id(options.id);
  auto status = id ? ask(*id, {{"command", "status"}}, std::chrono::seconds(3))
                   : tl::expected<json, Failure>(tl::unexpected(id.error()));
  if (status) return status;
  const Failure failure = status.error();
  if (failure.code != ExitCode::kNotRunning && failure.code != ExitCode::kFailed) return status;
  all.push_back(wrong("service", failure.sentence,
                      "crm_mon -1rf says what Pacemaker thinks of it; pcs resource cleanup "
                      "RESOURCE, once the reason is gone; sarud's log says why it ended"));
  return json(nullptr);
}

}  // namespace

CtlResult ctl_doctor(const CtlOptions& options) {
  Findings all;
  const auto status = status_or_none(options, all);
  if (!status) return tl::unexpected(status.error());
  const auto facts = read_facts();
  if (status->is_object()) look_at_service(all, *status, facts ? &*facts : nullptr, options);
  all.push_back(judge_saved(read_saved()));
  all.push_back(judge_managers(read_managers()));
  if (facts) {
    look_at_cluster(all, *facts, *status, options);
  } else {
    all.push_back(wrong("corosync", facts.error().text, kUnread));
  }
  all.push_back(judge_clock(read_clock()));
  all = without(std::move(all), {options.skip.begin(), options.skip.end()});
  std::fputs((options.json ? json_of_doctor(all).dump() + "\n" : text_of_doctor(all)).c_str(),
             stdout);
  return is_well(all) ? ExitCode::kOk : ExitCode::kFailed;
}

}  // namespace saru
