// SPDX-License-Identifier: GPL-2.0-or-later
// What the administrator's monitoring wants to know: counters, and who owned what since when.
#include <unistd.h>

#include <ctime>
#include <numeric>

#include "agent/daemon.h"
#include "agent/logging.h"
#include "agent/ownership_report.h"

namespace saru {
namespace {

using nlohmann::json;

Nanos realtime_now() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return std::chrono::seconds(now.tv_sec) + Nanos(now.tv_nsec);
}

}  // namespace

void Daemon::note_ownership(const Event& event, const std::vector<Action>& actions) {
  for (const Log& line : ownership_.follow(event, state_, actions, realtime_now())) execute(line);
}

json Daemon::on_views() {
  json answer = describe_now();
  answer["views"] = describe(ownership_);
  answer["cut"] = ownership_.is_cut();
  return answer;
}

json Daemon::on_metrics() {
  json answer = describe_now();
  answer["tally"] = describe(ownership_.tally());
  answer["repairs"] = repairs_;
  const Group::Counters group = group_.counters();
  answer["messages"] = {
      {"sent", rising_.value("sent", group.sent)},
      {"received", rising_.value("received", group.received)},
      {"refused", rising_.value("refused", std::accumulate(group.refused.begin(),
                                                           group.refused.end(), std::uint64_t{0}))},
      {"lost", rising_.value("lost", group.lost)},
      {"unsent", unsent_}};
  answer["packets"] = nullptr;
  if (const auto counted = kernel_.table.counters()) {
    answer["packets"] = {{"accepted", rising_.value("accepted", counted->accepted.packets)},
                         {"foreign", rising_.value("foreign", counted->foreign.packets)},
                         {"late", rising_.value("late", counted->late.packets)}};
  }
  if (answer.at("flows").is_object()) {
    for (const char* name : {"told", "learned", "wholes", "refused", "damaged", "gaps", "repeated",
                             "events", "overruns", "injected", "replaced", "removed", "failed"}) {
      json& counter = answer["flows"][name];
      counter = rising_.value(std::string("flows ") + name, counter.get<std::uint64_t>());
    }
  }
  json lans = json::array();
  for (const auto& [side, lan] : eligibility_.lans) {
    lans.push_back({{"nic", lan.nic}, {"carrier", lan.nic_there && lan.carrier}});
  }
  answer["lans"] = std::move(lans);
  return answer;
}

}  // namespace saru
