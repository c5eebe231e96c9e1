// SPDX-License-Identifier: GPL-2.0-or-later
// saructl metrics. docs/metrics.md lists every name; tests/live/test_metrics compares the two.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>
#include <vector>

#include "agent/metrics.h"
#include "agent/text.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;
using Labels = std::vector<std::pair<string, string>>;

enum class Kind { kGauge, kCounter, kHistogram };
enum class Scale { kOne, kMilliseconds };

// A number that stands in the answer as it is; absent or null there: no sample.
struct Plain {
  const char* name;  // of a counter: without _total
  Kind kind;
  const char* help;
  const char* where;
  Scale scale = Scale::kOne;
};

constexpr Plain kState[] = {
    {"saru_uptime_seconds", Kind::kGauge, "Time since this sarud was started.", "/age_ms",
     Scale::kMilliseconds},
    {"saru_quorate", Kind::kGauge, "1: this node's ring has quorum.", "/quorate"},
    {"saru_view_agreed", Kind::kGauge,
     "1: all members of the view have agreed on who owns which block.", "/view/confirmed"},
    {"saru_view_age_seconds", Kind::kGauge, "Time since the view was opened.", "/view/age_ms",
     Scale::kMilliseconds},
    {"saru_view_round", Kind::kGauge, "How often the group of this ring was opened anew.",
     "/view/round"},
    {"saru_eligible", Kind::kGauge,
     "1: this node may own blocks. 0: drained, its NIC is down, or corosync shuts down.",
     "/eligible"},
    {"saru_draining", Kind::kGauge, "1: saructl drain is in force.", "/draining"},
    {"saru_weight", Kind::kGauge, "This node's share of the blocks, relative to the other nodes.",
     "/weight"},
    {"saru_blocks", Kind::kGauge, "Blocks of the address, on all nodes together.", "/blocks"},
    {"saru_blocks_owned", Kind::kGauge, "Blocks that this node's kernel accepts.", "/owns"},
    {"saru_lease_seconds", Kind::kGauge, "How long a lease lasts.", "/lease_ms",
     Scale::kMilliseconds},
    {"saru_lease_remaining_seconds", Kind::kGauge,
     "How long this node's kernel goes on accepting unless the lease is renewed; 0: closed.",
     "/lease_left_ms", Scale::kMilliseconds},
    {"saru_lingering_connections", Kind::kGauge,
     "Connections that go on here though their block went to another node, as last counted.",
     "/lingering_connections"},
    {"saru_flows_synced", Kind::kGauge,
     "1: this node knows all connections that the others know (connections=sync).",
     "/flows/synced"},
    {"saru_flows_known", Kind::kGauge, "Connections of all nodes that this node knows.",
     "/flows/known"},
    {"saru_flows_own", Kind::kGauge, "Of the known connections, those in this node's blocks.",
     "/flows/own"},
    {"saru_flows_unsent", Kind::kGauge, "Changes of connections that wait to be told.",
     "/flows/unsent"},
    {"saru_flows_blocks_wanted", Kind::kGauge,
     "Blocks whose connections were asked of other nodes and have not come yet.",
     "/flows/blocks_wanted"},
};

constexpr Plain kCounters[] = {
    {"saru_views", Kind::kCounter, "Views agreed on.", "/tally/views"},
    {"saru_lease_lapses", Kind::kCounter,
     "Times that the lease ran out while this node owned blocks.", "/tally/lapses"},
    {"saru_members_excluded", Kind::kCounter,
     "Members that were excluded because they were silent.", "/tally/excluded"},
    {"saru_rejoins", Kind::kCounter,
     "Times that this node left the group and came back: it had missed something.",
     "/tally/rejoins"},
    {"saru_beats_sent", Kind::kCounter, "Beats, which grant the leases.", "/tally/beats"},
    {"saru_kernel_writes", Kind::kCounter, "Changes of the rules that the kernel acknowledged.",
     "/tally/writes"},
    {"saru_kernel_refusals", Kind::kCounter, "Changes of the rules that the kernel refused.",
     "/tally/refusals"},
    {"saru_kernel_disturbances", Kind::kCounter,
     "Times that somebody else changed the rules or set the clock: all was written again.",
     "/tally/disturbances"},
    {"saru_repairs", Kind::kCounter, "Rules, links and settings that were put back.", "/repairs"},
    {"saru_messages_sent", Kind::kCounter, "Messages handed to corosync.", "/messages/sent"},
    {"saru_messages_received", Kind::kCounter, "Messages that came and were read, own ones too.",
     "/messages/received"},
    {"saru_messages_refused", Kind::kCounter, "Messages that came and could not be read.",
     "/messages/refused"},
    {"saru_messages_lost", Kind::kCounter, "Own messages that corosync did not deliver.",
     "/messages/lost"},
    {"saru_messages_unsent", Kind::kCounter, "Own messages that corosync did not take.",
     "/messages/unsent"},
    {"saru_flows_told", Kind::kCounter, "Connections that were told to the others.", "/flows/told"},
    {"saru_flows_learned", Kind::kCounter, "Connections that the others told.", "/flows/learned"},
    {"saru_flows_resyncs", Kind::kCounter, "Blocks of which all connections were asked and came.",
     "/flows/wholes"},
    {"saru_flows_gaps", Kind::kCounter, "Messages about connections that did not come.",
     "/flows/gaps"},
    {"saru_flows_repeated", Kind::kCounter, "Own connections told again after a message was lost.",
     "/flows/repeated"},
    {"saru_flows_refused", Kind::kCounter,
     "Connections told by a node that does not own their block.", "/flows/refused"},
    {"saru_flows_damaged", Kind::kCounter, "Messages about connections that could not be read.",
     "/flows/damaged"},
    {"saru_flows_injected", Kind::kCounter, "Connections of others put into conntrack.",
     "/flows/injected"},
    {"saru_flows_failed", Kind::kCounter, "Connections that conntrack did not take.",
     "/flows/failed"},
    {"saru_flows_overruns", Kind::kCounter, "Times that conntrack's events came too fast.",
     "/flows/overruns"},
};

string escaped(const string& text) {
  string out;
  for (const char one : text) {
    if (one == '\n') {
      out += "\\n";
      continue;
    }
    if (one == '\\' || one == '"') out += '\\';
    out += one;
  }
  return out;
}

// Seconds of so many parts; exact.
string seconds_text(std::int64_t count, std::int64_t per_second) {
  string text = std::to_string(count / per_second);
  string rest = std::to_string(per_second + count % per_second).substr(1);
  rest.erase(rest.find_last_not_of('0') + 1);
  return rest.empty() ? text : text + "." + rest;
}

string value_text(const json& value, Scale scale) {
  if (value.is_boolean()) return value.get<bool>() ? "1" : "0";
  if (scale == Scale::kMilliseconds) {
    return seconds_text(std::max(value.get<std::int64_t>(), std::int64_t{0}), 1000);
  }
  return std::to_string(value.get<std::uint64_t>());
}

// "0-15,32": 17
std::uint64_t count_of(const string& ranges) {
  std::uint64_t count = 0;
  const char* at = ranges.data();
  const char* const end = at + ranges.size();
  while (at < end) {
    unsigned first = 0;
    at = std::from_chars(at, end, first).ptr;
    unsigned last = first;
    if (at < end && *at == '-') at = std::from_chars(at + 1, end, last).ptr;
    count += last >= first ? last - first + 1 : 0;
    if (at >= end) break;
    if (*at != ',') throw std::domain_error("blocks: " + ranges);
    ++at;
  }
  return count;
}

class Page {
 public:
  Page(const std::vector<Scraped>& saruds, bool open_metrics)
      : saruds_(saruds), open_metrics_(open_metrics) {}

  // One family, of all saruds: `samples` is called for each and calls sample().
  template <class Samples>
  void family(const string& name, Kind kind, const string& help, Samples&& samples) {
    kind_ = kind;
    name_ = kind == Kind::kCounter ? name + "_total" : name;
    string body;
    body_ = &body;
    for (const Scraped& one : saruds_) {
      labels_ = {{"id", std::to_string(one.id)}, {"node", one.node}};
      samples(one);
    }
    if (body.empty()) return;
    constexpr const char* kKinds[] = {"gauge", "counter", "histogram"};
    const string called = open_metrics_ ? name : name_;
    const string unit = "_seconds";
    const bool has_unit = name.size() > unit.size() && name.ends_with(unit);
    text_ += "# HELP " + called + " " + help + "\n# TYPE " + called + " " +
             kKinds[static_cast<int>(kind)] + "\n";
    if (has_unit) text_ += "# UNIT " + called + " seconds\n";
    text_ += body;
  }

  void sample(const string& value, const Labels& more = {}, const string& suffix = "") {
    *body_ += name_ + suffix + "{";
    bool first = true;
    for (const Labels* labels : {&std::as_const(labels_), &more}) {
      for (const auto& [label, text] : *labels) {
        *body_ += (first ? "" : ",") + label + "=\"" + escaped(text) + "\"";
        first = false;
      }
    }
    *body_ += "} " + value + "\n";
  }

  void plain(const Plain& one) {
    family(one.name, one.kind, one.help, [&](const Scraped& sarud) {
      const json::json_pointer where(one.where);
      if (sarud.answer.is_null() || !sarud.answer.contains(where)) return;
      const json& value = sarud.answer.at(where);
      if (!value.is_null()) sample(value_text(value, one.scale));
    });
  }

  // Like family(), but only of those that answer.
  template <class Samples>
  void of_answers(const string& name, Kind kind, const string& help, Samples&& samples) {
    family(name, kind, help, [&](const Scraped& sarud) {
      if (!sarud.answer.is_null()) samples(sarud.answer);
    });
  }

  void number(const string& name, const string& help, std::uint64_t (*count)(const json&)) {
    of_answers(name, Kind::kGauge, help,
               [&](const json& answer) { sample(std::to_string(count(answer))); });
  }

  string end() { return text_ + "# EOF\n"; }

 private:
  const std::vector<Scraped>& saruds_;
  bool open_metrics_;
  string text_;
  Kind kind_ = Kind::kGauge;
  string name_;
  Labels labels_;
  string* body_ = nullptr;
};

std::uint64_t ring_sequence(const json& answer) {
  const string ring = answer.at("view").at("ring").get<string>();
  const std::size_t dot = ring.find('.');
  std::uint64_t sequence = 0;
  if (dot != string::npos) {
    std::from_chars(ring.data() + dot + 1, ring.data() + ring.size(), sequence);
  }
  return sequence;
}

std::uint64_t waiting_blocks(const json& answer) {
  std::uint64_t count = 0;
  for (const json& move : answer.at("moving")) {
    count += move.at("to") == answer.at("node_id") ? 1 : 0;
  }
  return count;
}

std::uint64_t unowned_blocks(const json& answer) {
  std::uint64_t count = 0;
  for (const json& owner : answer.at("owners")) count += owner.is_null() ? 1 : 0;
  return count;
}

void add_counted(Page& page) {
  page.number("saru_ring_sequence", "Number of the ring, which grows with each change of it.",
              &ring_sequence);
  page.number("saru_members", "Members of the group that this node sees, itself included.",
              [](const json& answer) -> std::uint64_t { return answer.at("members").size(); });
  page.number("saru_blocks_waiting",
              "Blocks that the table gives this node and its kernel does not accept yet.",
              &waiting_blocks);
  page.number("saru_blocks_unowned", "Blocks that the table gives nobody.", &unowned_blocks);
  page.number("saru_blocks_lingering",
              "Blocks of other nodes whose established connections go on here.",
              [](const json& answer) { return count_of(answer.at("lingering").get<string>()); });
  page.number("saru_blocks_contested",
              "Own blocks whose established connections may go on at other nodes.",
              [](const json& answer) { return count_of(answer.at("contested").get<string>()); });
  page.number("saru_warnings", "What is wrong and sarud cannot put right; saructl status names it.",
              [](const json& answer) -> std::uint64_t { return answer.at("warnings").size(); });
  page.number("saru_configuration_pending",
              "1: this node has new parameters that are not in force, since others lack them.",
              [](const json& answer) -> std::uint64_t {
                return answer.at("config").at("next").is_null() ? 0 : 1;
              });
}

void add_labelled(Page& page) {
  page.of_answers("saru_nic_carrier", Kind::kGauge, "1: the NIC is there and has its carrier.",
                  [&](const json& answer) {
                    for (const json& lan : answer.at("lans")) {
                      page.sample(value_text(lan.at("carrier"), Scale::kOne),
                                  {{"nic", lan.at("nic").get<string>()}});
                    }
                  });
  const auto partner = [&](const char* name, const char* help, const char* member) {
    page.of_answers(name, Kind::kGauge, help, [&](const json& answer) {
      const json& one = answer.at("partner");
      if (!one.is_object()) return;
      const json& value = one.at(member);
      page.sample(value.is_boolean() ? value_text(value, Scale::kOne)
                  : value.is_null()  ? "0"
                                     : "1");
    });
  };
  partner("saru_fencing_waiting",
          "1: blocks wait until the other one of two nodes has been fenced.", "may_hold");
  partner("saru_fencing_blind", "1: this node would not hear of a fencing.", "blind");
  const auto counts = [&](const char* name, const char* help, const char* label, const char* where,
                          const std::vector<std::pair<const char*, const char*>>& values) {
    page.of_answers(name, Kind::kCounter, help, [&](const json& answer) {
      for (const auto& [word, path] : values) {
        const json::json_pointer pointer(string(where) + path);
        if (!answer.contains(pointer)) continue;
        page.sample(value_text(answer.at(pointer), Scale::kOne), {{label, word}});
      }
    });
  };
  counts("saru_blocks_taken", "Blocks that this node took, by how their last owner ended.",
         "former", "/tally",
         {{"handed_over", "/without_owner/handed_over/count"},
          {"lost", "/without_owner/lost/count"},
          {"closed", "/without_owner/closed/count"},
          {"unknown", "/taken_unknown"}});
  counts("saru_blocks_given_up", "Blocks that this node gave up: in order, or because it closed.",
         "how", "/tally", {{"handed_over", "/released"}, {"closed", "/closed"}});
  counts("saru_packets",
         "Packets to the address: accepted; foreign: another node's block; late: own block, no "
         "lease.",
         "verdict", "/packets",
         {{"accepted", "/accepted"}, {"foreign", "/foreign"}, {"late", "/late"}});
}

void add_histogram(Page& page) {
  page.of_answers(
      "saru_block_without_owner_seconds", Kind::kHistogram,
      "For each block that this node took: from the last sign of its owner to this kernel's "
      "acknowledgement.",
      [&](const json& answer) {
        for (const auto& [word, one] : answer.at("tally").at("without_owner").items()) {
          const auto counts = one.at("counts").get<std::vector<std::uint64_t>>();
          std::uint64_t sum = 0;
          for (std::size_t i = 0; i < Histogram::kLimitsMs.size(); ++i) {
            sum += counts.at(i);
            string limit = seconds_text(Histogram::kLimitsMs[i], 1000);
            if (limit.find('.') == string::npos) limit += ".0";
            page.sample(std::to_string(sum), {{"former", word}, {"le", limit}}, "_bucket");
          }
          const string count = std::to_string(one.at("count").get<std::uint64_t>());
          page.sample(count, {{"former", word}, {"le", "+Inf"}}, "_bucket");
          page.sample(seconds_text(one.at("sum_ns").get<std::int64_t>(), 1'000'000'000),
                      {{"former", word}}, "_sum");
          page.sample(count, {{"former", word}}, "_count");
        }
      });
}

}  // namespace

string text_of_metrics(const std::vector<Scraped>& saruds, bool open_metrics) {
  Page page(saruds, open_metrics);
  page.family("saru_up", Kind::kGauge, "1: sarud runs and answers. 0: it does not.",
              [&](const Scraped& one) { page.sample(one.answer.is_null() ? "0" : "1"); });
  page.of_answers("saru_build_info", Kind::kGauge, "Always 1; its label is the version of sarud.",
                  [&](const json& answer) {
                    page.sample("1", {{"version", answer.at("version").get<string>()}});
                  });
  for (const Plain& one : kState) page.plain(one);
  add_counted(page);
  for (const Plain& one : kCounters) page.plain(one);
  add_labelled(page);
  add_histogram(page);
  return page.end();
}

}  // namespace saru
