// SPDX-License-Identifier: GPL-2.0-or-later
#include "witness_judge.h"

#include <algorithm>

#include "witness_decode.h"

namespace witness {
namespace {

// How long an answer may still come. Also how long a second answer is looked for.
constexpr std::uint64_t kKeepNs = 2'000'000'000;
// A question younger than this at the end may still be under way.
constexpr std::uint64_t kSettleNs = 300'000'000;
// Two processors' stamps may differ by microseconds; more than this is a real disorder.
constexpr std::uint64_t kLateNs = 1'000'000;
constexpr std::uint64_t kSweepNs = 10'000'000'000;
constexpr std::uint64_t kConnectionIdleNs = 90'000'000'000;

std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

// The same for a question and its answers.
std::uint64_t key_of(const Record& record, Kind question, std::uint64_t id) {
  const std::uint64_t ends =
      std::uint64_t{record.client} << 48 | std::uint64_t{record.client_port} << 32 |
      std::uint64_t{record.service_port} << 16 | std::uint64_t{record.address} << 8 |
      static_cast<std::uint8_t>(question);
  return mix(mix(ends) ^ id) | 1;
}

}  // namespace

std::uint16_t Judge::block_of(const Record& record) const {
  std::uint32_t selector = record.client_port;
  if (record.kind == Kind::kEchoRequest || record.kind == Kind::kEchoReply) {
    // ICMP goes by the low 16 bits of the client's address.
    const Address client = record.client < clients_.size() ? clients_[record.client] : Address{};
    const std::size_t low = client.is_v6 ? 14 : 2;
    selector = std::uint32_t{client.bytes[low]} << 8 | client.bytes[low + 1];
  }
  return static_cast<std::uint16_t>(selector / (65536 / setup_.blocks));
}

std::string Judge::describe(const Record& record) const {
  const Address client = record.client < clients_.size() ? clients_[record.client] : Address{};
  const std::string service = to_text(setup_.addresses[record.address]);
  const std::string block = " (block " + std::to_string(block_of(record)) + ")";
  switch (record.kind) {
    case Kind::kTcpFromClient:
    case Kind::kTcpFromNode:
    case Kind::kUdpQuestion:
    case Kind::kUdpAnswer: {
      const bool tcp = record.kind == Kind::kTcpFromClient || record.kind == Kind::kTcpFromNode;
      return std::string(tcp ? "TCP " : "UDP ") + to_text(client) + " port " +
             std::to_string(record.client_port) + " to " + service + " port " +
             std::to_string(record.service_port) + block;
    }
    case Kind::kEchoRequest:
    case Kind::kEchoReply:
      return "echo " + to_text(client) + " to " + service + " id " +
             std::to_string(record.id >> 16) + " sequence " + std::to_string(record.id & 0xffff) +
             block;
    default:
      return "frame of ethertype " + std::to_string(record.length);
  }
}

void Judge::violation(const std::string& kind, std::uint64_t time_ns, std::string text) {
  if (report_) report_({kind, time_ns, std::move(text)});
}

void Judge::answered_twice(const Record& record, std::uint8_t first, const std::string& how) {
  // A probe outside the window was never asked; a connection may be older than the window.
  const bool is_tcp = record.kind == Kind::kTcpFromNode;
  if (is_tcp && !in_window(record)) return;
  ++totals_.answered_twice;
  violation("answered_twice", record.time_ns,
            describe(record) + ": answered by " + link_name(setup_, first) + " and by " +
                link_name(setup_, record.link) + " (" + how + ")");
}

void Judge::feed(const Record& record) {
  ++totals_.records;
  if (record.time_ns + kLateNs < newest_ns_) ++totals_.late_records;
  newest_ns_ = std::max(newest_ns_, record.time_ns);
  expire(record.time_ns);
  if (!in_window(record)) {
    // Context only: the MACs of these frames are another window's business.
  } else if ((record.notes & kNoteSharedMac) != 0) {
    ++totals_.shared_mac_frames;
    violation("shared_mac_source", record.time_ns,
              "the shared MAC was the source address of a frame that entered the switch at " +
                  link_name(setup_, record.link) + ": " + describe(record));
  } else if ((record.notes & kNoteWrongMac) != 0) {
    ++totals_.wrong_mac_frames;
    violation("wrong_source_mac", record.time_ns,
              "an answer that entered the switch at " + link_name(setup_, record.link) +
                  " did not carry that node's MAC: " + describe(record));
  }
  switch (record.kind) {
    case Kind::kClientAddress:
      clients_.resize(std::max<std::size_t>(clients_.size(), record.client + std::size_t{1}));
      clients_[record.client] = client_address(record);
      break;
    case Kind::kDrops:
      totals_.kernel_drops += record.id;
      break;
    case Kind::kTcpFromClient:
      feed_client_tcp(record);
      break;
    case Kind::kTcpFromNode:
      feed_node_tcp(record);
      break;
    case Kind::kUdpQuestion:
    case Kind::kEchoRequest:
      feed_question(record);
      break;
    case Kind::kUdpAnswer:
    case Kind::kEchoReply:
      feed_answer(record);
      break;
    case Kind::kOther:
      break;
  }
}

std::uint64_t Judge::ask(const Record& record, std::uint64_t key) {
  if (!in_window(record)) return 0;
  Question question;
  question.time_ns = record.time_ns;
  question.stream = {record.kind, record.address, block_of(record)};
  question.asked_on = record.link;
  question.key = key;
  questions_.push_back(question);
  return first_serial_ + questions_.size() - 1;
}

Judge::Question* Judge::find_question(std::uint64_t serial) {
  if (serial < first_serial_ || serial - first_serial_ >= questions_.size()) return nullptr;
  return &questions_[serial - first_serial_];
}

void Judge::feed_question(const Record& record) {
  const std::uint64_t key = key_of(record, record.kind, record.id);
  if (const auto known = by_key_.find(key); known != by_key_.end()) {
    const Question* earlier = find_question(known->second);
    if (earlier != nullptr && earlier->asked_on != record.link) {
      ++totals_.forwarded_questions;  // a node handed it on to its owner
      return;
    }
  }
  if (const std::uint64_t serial = ask(record, key); serial != 0) by_key_[key] = serial;
}

void Judge::note_answer(const Record& record, Question& question) {
  question.answered_by = record.link;
  question.answer_ns = record.time_ns;
  ++totals_.answers_by_link[record.link];
  totals_.answer_delay_max_ns =
      std::max(totals_.answer_delay_max_ns, record.time_ns - question.time_ns);
}

void Judge::feed_answer(const Record& record) {
  const Kind asked = record.kind == Kind::kUdpAnswer ? Kind::kUdpQuestion : Kind::kEchoRequest;
  const auto known = by_key_.find(key_of(record, asked, record.id));
  Question* question = known == by_key_.end() ? nullptr : find_question(known->second);
  if (question == nullptr) {
    ++totals_.answers_without_question;
    return;
  }
  if (question->answered_by == kNoLink) {
    note_answer(record, *question);
  } else if (question->answered_by == record.link) {
    ++totals_.repeated_by_one_node;
  } else {
    answered_twice(record, question->answered_by, "the same probe");
  }
}

void Judge::expire(std::uint64_t now_ns) {
  while (!questions_.empty() && questions_.front().time_ns + kKeepNs < now_ns) {
    const Question& question = questions_.front();
    if (question.key != 0) {
      const auto place = by_key_.find(question.key);
      if (place != by_key_.end() && place->second == first_serial_) by_key_.erase(place);
    }
    resolve(question);
    questions_.pop_front();
    ++first_serial_;
  }
  if (now_ns < next_sweep_ns_) return;
  next_sweep_ns_ = now_ns + kSweepNs;
  std::erase_if(connections_, [&](const auto& entry) {
    return entry.second.last_ns + kConnectionIdleNs < now_ns;
  });
}

void Judge::resolve(const Question& question) {
  Stream& stream = streams_[question.stream];
  ++totals_.questions;
  ++stream.questions;
  if (stream.last_question_ns != 0) {
    stream.interval_max_ns =
        std::max(stream.interval_max_ns, question.time_ns - stream.last_question_ns);
  }
  stream.last_question_ns = question.time_ns;
  Gap& open = stream.open;
  if (question.answered_by == kNoLink) {
    ++totals_.unanswered;
    ++stream.unanswered;
    if (open.unanswered++ == 0) open.first_unanswered_ns = question.time_ns;
    open.last_unanswered_ns = question.time_ns;
    return;
  }
  ++totals_.answered;
  ++stream.answered;
  open.to_ns = question.time_ns;
  open.first_answer_ns = question.answer_ns;
  open.after = question.answered_by;
  if (stream.first_node == kNoLink) stream.first_node = question.answered_by;
  if (stream.last_node != kNoLink && stream.last_node != question.answered_by) {
    ++stream.owner_changes;
  }
  stream.last_node = question.answered_by;
  if (open.unanswered != 0 || (open.before != kNoLink && open.before != open.after)) {
    end_gap(question.stream, stream, open);
  }
  open = Gap{};
  open.from_ns = question.time_ns;
  open.last_answer_ns = question.answer_ns;
  open.before = question.answered_by;
}

void Judge::end_gap(const StreamKey& key, Stream& stream, const Gap& gap) {
  Gap& kept = gap.unanswered != 0 ? stream.worst : stream.handover;
  if (kept.to_ns == 0 || gap.length_ns() > kept.length_ns()) kept = gap;
  if (report_gap_) report_gap_(key, gap);
  if (options_.max_gap_ns == 0 || gap.unanswered == 0) return;
  // SYNs come too seldom to tell when a block fell silent: only the time from the first to the
  // last unanswered one is sure.
  const bool sparse = key.protocol == Kind::kTcpFromClient;
  const std::uint64_t sure =
      sparse ? gap.last_unanswered_ns - gap.first_unanswered_ns : gap.length_ns();
  if (sure <= options_.max_gap_ns) return;
  ++totals_.gaps_too_long;
  const char* protocol = sparse ? "TCP" : key.protocol == Kind::kUdpQuestion ? "UDP" : "echo";
  violation("unanswered_too_long", gap.first_unanswered_ns,
            std::string(protocol) + " to " + to_text(setup_.addresses[key.address]) + ", block " +
                std::to_string(key.block) + ": nobody answered for " +
                std::to_string(sure / 1'000'000) + " ms, " + std::to_string(gap.unanswered) +
                " packets (allowed " + std::to_string(options_.max_gap_ns / 1'000'000) +
                " ms); before: " + link_name(setup_, gap.before) +
                ", after: " + link_name(setup_, gap.after));
}

void Judge::finish(std::uint64_t end_ns) {
  const std::uint64_t last_ns = std::min(end_ns, options_.until_ns);
  for (const Question& question : questions_) {
    if (question.answered_by == kNoLink && question.time_ns + kSettleNs > end_ns) {
      ++totals_.undecided;
    } else {
      resolve(question);
    }
  }
  questions_.clear();
  by_key_.clear();
  for (auto& [key, stream] : streams_) {
    if (stream.open.unanswered == 0) continue;
    stream.open.to_ns = std::max(last_ns, stream.open.last_unanswered_ns);
    end_gap(key, stream, stream.open);
  }
}

}  // namespace witness
