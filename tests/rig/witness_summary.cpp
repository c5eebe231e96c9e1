// SPDX-License-Identifier: GPL-2.0-or-later
#include "witness_summary.h"

#include <algorithm>
#include <cstdio>

namespace witness {

using Json = nlohmann::ordered_json;

namespace {

double to_ms(std::uint64_t ns) { return static_cast<double>(ns) / 1e6; }

const char* protocol_name(Kind kind) {
  if (kind == Kind::kUdpQuestion) return "udp";
  return kind == Kind::kEchoRequest ? "echo" : "tcp";
}

Json node_json(const Setup& setup, std::uint8_t link) {
  return link == kNoLink ? Json(nullptr) : Json(link_name(setup, link));
}

Json percentiles(std::vector<std::uint64_t> values) {
  if (values.empty()) return {{"blocks", 0}, {"p50", nullptr}, {"p99", nullptr}, {"max", nullptr}};
  std::sort(values.begin(), values.end());
  // Nearest rank: the smallest value that at least p percent of all do not exceed.
  const auto rank = [&](std::size_t percent) {
    return to_ms(values[(values.size() * percent + 99) / 100 - 1]);
  };
  return {{"blocks", values.size()}, {"p50", rank(50)}, {"p99", rank(99)}, {"max", rank(100)}};
}

// The gap that tells most about a stream: the worst with a loss, else the worst hand-over.
const Gap& telling_gap(const Stream& stream) {
  return stream.worst.unanswered != 0 ? stream.worst : stream.handover;
}

bool has_moved(const Stream& stream) {
  return stream.first_node != kNoLink && stream.first_node != stream.last_node;
}

Json stream_json(const Setup& setup, const StreamKey& key, const Stream& stream) {
  const Gap& gap = telling_gap(stream);
  Json row = gap_json(setup, key, gap);
  row["questions"] = stream.questions;
  row["answered"] = stream.answered;
  row["unanswered"] = stream.unanswered;
  row["first_node"] = node_json(setup, stream.first_node);
  row["last_node"] = node_json(setup, stream.last_node);
  row["owner_changes"] = stream.owner_changes;
  row["interval_max_ms"] = to_ms(stream.interval_max_ns);
  return row;
}

Json gaps_json(const Judge& judge, bool tcp) {
  std::vector<std::uint64_t> all;
  std::vector<std::uint64_t> moved;
  std::vector<std::uint64_t> stayed;
  std::uint64_t stayed_unanswered = 0;
  for (const auto& [key, stream] : judge.streams()) {
    if ((key.protocol == Kind::kTcpFromClient) != tcp) continue;
    const std::uint64_t length = telling_gap(stream).length_ns();
    all.push_back(length);
    if (has_moved(stream)) {
      moved.push_back(length);
    } else {
      stayed.push_back(length);
      stayed_unanswered += stream.unanswered;
    }
  }
  Json json;
  json["all"] = percentiles(std::move(all));
  json["moved"] = percentiles(std::move(moved));
  json["stayed"] = percentiles(std::move(stayed));
  json["stayed"]["unanswered"] = stayed_unanswered;
  return json;
}

}  // namespace

std::vector<Doubt> doubts(const Totals& totals, const std::vector<std::string>& missing_links,
                          std::uint64_t clock_steps) {
  std::vector<Doubt> list;
  if (totals.kernel_drops != 0) {
    list.push_back({"the kernel dropped " + std::to_string(totals.kernel_drops) +
                        " captured frames: use a larger --ring-kib or a lower rate",
                    true});
  }
  if (totals.late_records != 0) {
    list.push_back({std::to_string(totals.late_records) +
                    " frames came too late to be judged in order: is the machine overloaded?"});
  }
  for (const std::string& name : missing_links) {
    list.push_back({"link " + name + ": its interface was never there", true});
  }
  if (totals.questions + totals.undecided == 0) {
    list.push_back({"no probe, echo request or SYN to a shared address was seen", true});
  }
  if (clock_steps != 0) {
    list.push_back({"the wall clock was set " + std::to_string(clock_steps) +
                    " times: the order of frames is not sure"});
  }
  return list;
}

Verdict verdict_of(const Totals& totals, const std::vector<Doubt>& doubts) {
  const bool violated = totals.answered_twice + totals.gaps_too_long + totals.shared_mac_frames +
                            totals.wrong_mac_frames !=
                        0;
  if (violated) return Verdict::kViolation;
  return doubts.empty() ? Verdict::kOk : Verdict::kInconclusive;
}

Json gap_json(const Setup& setup, const StreamKey& key, const Gap& gap) {
  Json row;
  row["protocol"] = protocol_name(key.protocol);
  row["address"] = to_text(setup.addresses[key.address]);
  row["block"] = key.block;
  row["gap_ms"] = to_ms(gap.length_ns());
  row["gap_unanswered"] = gap.unanswered;
  row["before"] = node_json(setup, gap.before);
  row["after"] = node_json(setup, gap.after);
  row["last_answered_ns"] = gap.from_ns;
  row["last_answer_ns"] = gap.last_answer_ns;
  row["first_answered_ns"] = gap.after == kNoLink ? 0 : gap.to_ns;
  row["first_answer_ns"] = gap.first_answer_ns;
  return row;
}

Json summary_json(const Setup& setup, const Judge& judge, Verdict verdict,
                  const std::vector<Doubt>& doubts) {
  const Totals& totals = judge.totals();
  Json json;
  json["type"] = "summary";
  json["verdict"] = verdict == Verdict::kOk          ? "ok"
                    : verdict == Verdict::kViolation ? "violation"
                                                     : "inconclusive";
  json["doubts"] = json["blind"] = Json::array();
  for (const Doubt& doubt : doubts) {
    json["doubts"].push_back(doubt.text);
    if (doubt.blind) json["blind"].push_back(doubt.text);
  }
  json["questions"] = totals.questions;
  json["answered"] = totals.answered;
  json["unanswered"] = totals.unanswered;
  json["undecided"] = totals.undecided;
  json["answered_twice"] = totals.answered_twice;
  json["gaps_too_long"] = totals.gaps_too_long;
  json["shared_mac_frames"] = totals.shared_mac_frames;
  json["wrong_mac_frames"] = totals.wrong_mac_frames;
  json["kernel_drops"] = totals.kernel_drops;
  json["connections"] = totals.connections;
  json["syn_retransmits"] = totals.syn_retransmits;
  json["repeated_by_one_node"] = totals.repeated_by_one_node;
  json["answers_without_question"] = totals.answers_without_question;
  json["forwarded_questions"] = totals.forwarded_questions;
  json["answer_delay_max_ms"] = to_ms(totals.answer_delay_max_ns);
  json["answers"] = Json::object();
  for (const auto& [link, count] : totals.answers_by_link) {
    json["answers"][link_name(setup, link)] = count;
  }
  json["gap_ms"] = gaps_json(judge, false);
  json["tcp_gap_ms"] = gaps_json(judge, true);
  json["blocks"] = Json::array();
  for (const auto& [key, stream] : judge.streams()) {
    // HTTP load touches every block; only those where something happened are worth a row.
    if (key.protocol == Kind::kTcpFromClient && telling_gap(stream).to_ns == 0) continue;
    json["blocks"].push_back(stream_json(setup, key, stream));
  }
  return json;
}

std::string summary_text(const Json& summary) {
  const auto number = [&](const char* name) { return summary.at(name).dump(); };
  std::string text = "verdict: " + summary.at("verdict").get<std::string>() + "\n";
  text += number("questions") + " packets that wanted an answer, " + number("answered") +
          " answered, " + number("unanswered") + " unanswered, " + number("answered_twice") +
          " answered by two nodes\n";
  text += "frames with the shared MAC as source: " + number("shared_mac_frames") +
          "; SYN retransmissions: " + number("syn_retransmits") +
          "; frames the capture lost: " + number("kernel_drops") + "\n";
  text += "answers by node: " + number("answers") + "\n";
  const Json& moved = summary.at("gap_ms").at("moved");
  const Json& stayed = summary.at("gap_ms").at("stayed");
  text += "gap in ms, blocks that moved: " + moved.dump() + "\n";
  text += "gap in ms, blocks that stayed: " + stayed.dump() + "\n";
  for (const auto& doubt : summary.at("doubts")) {
    text += "doubt: " + doubt.get<std::string>() + "\n";
  }
  return text;
}

}  // namespace witness
