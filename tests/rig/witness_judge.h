// SPDX-License-Identifier: GPL-2.0-or-later
// Judges records in order of time: who answered each client packet, and was anybody missing.
//
// A *question* is a client packet that one node should answer: a UDP probe, an echo request, each
// transmission of a TCP SYN. Questions of one protocol, shared address and block form a *stream*.
// A *gap* of a stream goes from its last answered question to the next answered one. Gaps are
// measured between the questions, not the answers: what counts is which packets a node accepted,
// not how late the server process woke up.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "witness_record.h"
#include "witness_setup.h"

namespace witness {

struct Violation {
  std::string kind;  // answered_twice, unanswered_too_long, shared_mac_source, wrong_source_mac
  std::uint64_t time_ns = 0;
  std::string text;
};

// Between two answered questions of a stream: unanswered ones, or a change of the answering node.
struct Gap {
  std::uint64_t from_ns = 0;  // last question answered before; 0: none was
  std::uint64_t to_ns = 0;    // first question answered afterwards, or the end
  std::uint64_t last_answer_ns = 0;
  std::uint64_t first_answer_ns = 0;
  std::uint64_t first_unanswered_ns = 0;
  std::uint64_t last_unanswered_ns = 0;
  std::uint32_t unanswered = 0;
  std::uint8_t before = kNoLink;
  std::uint8_t after = kNoLink;  // kNoLink: still unanswered at the end

  std::uint64_t length_ns() const {
    const std::uint64_t start = from_ns != 0 ? from_ns : first_unanswered_ns;
    return to_ns > start ? to_ns - start : 0;
  }
};

struct StreamKey {
  Kind protocol = Kind::kUdpQuestion;  // kUdpQuestion, kEchoRequest or kTcpFromClient
  std::uint8_t address = 0;
  std::uint16_t block = 0;
  bool operator<(const StreamKey& other) const {
    return std::tie(protocol, address, block) <
           std::tie(other.protocol, other.address, other.block);
  }
};

struct Stream {
  std::uint64_t questions = 0;
  std::uint64_t answered = 0;
  std::uint64_t unanswered = 0;
  std::uint32_t owner_changes = 0;
  std::uint64_t interval_max_ns = 0;  // between two questions: the resolution of every gap
  std::uint8_t first_node = kNoLink;
  std::uint8_t last_node = kNoLink;
  Gap worst;     // the longest with at least one unanswered question
  Gap handover;  // the longest across a change of the answering node without any loss

  std::uint64_t last_question_ns = 0;
  Gap open;  // what is known of the gap that the next answered question will end
};

struct Totals {
  std::uint64_t records = 0;
  std::uint64_t questions = 0;
  std::uint64_t answered = 0;
  std::uint64_t unanswered = 0;
  std::uint64_t undecided = 0;  // asked too shortly before the end
  std::uint64_t answered_twice = 0;
  std::uint64_t repeated_by_one_node = 0;
  std::uint64_t answers_without_question = 0;
  std::uint64_t forwarded_questions = 0;  // seen again on another link than the client's
  std::uint64_t syn_retransmits = 0;
  std::uint64_t connections = 0;
  std::uint64_t shared_mac_frames = 0;
  std::uint64_t wrong_mac_frames = 0;
  std::uint64_t kernel_drops = 0;
  std::uint64_t late_records = 0;  // came after younger ones had been judged
  std::uint64_t gaps_too_long = 0;
  std::uint64_t answer_delay_max_ns = 0;
  std::map<std::uint8_t, std::uint64_t> answers_by_link;
};

struct JudgeOptions {
  std::uint64_t max_gap_ns = 0;  // 0: gaps are reported, not judged
  std::uint64_t from_ns = 0;     // what was asked or found outside [from, until) does not count
  std::uint64_t until_ns = UINT64_MAX;
};

class Judge {
 public:
  using OnViolation = std::function<void(const Violation&)>;
  using OnGap = std::function<void(const StreamKey&, const Gap&)>;

  Judge(const Setup& setup, const JudgeOptions& options) : setup_(setup), options_(options) {}
  void on_violation(OnViolation report) { report_ = std::move(report); }
  void on_gap(OnGap report) { report_gap_ = std::move(report); }

  // Records must come in order of time.
  void feed(const Record& record);
  // Decides what is still open. Call once, after the last record.
  void finish(std::uint64_t end_ns);

  const Totals& totals() const { return totals_; }
  const std::map<StreamKey, Stream>& streams() const { return streams_; }

 private:
  struct Question {
    std::uint64_t time_ns = 0;
    std::uint64_t answer_ns = 0;
    StreamKey stream;
    std::uint8_t asked_on = kNoLink;
    std::uint8_t answered_by = kNoLink;
    std::uint64_t key = 0;  // in by_key_; 0 for a SYN, which its connection refers to
  };
  struct Connection {
    std::uint32_t isn = 0;
    std::uint8_t client_link = kNoLink;
    std::uint8_t server = kNoLink;    // the first link to answer
    std::uint8_t resetter = kNoLink;  // another link that sent a RST
    bool reported = false;
    std::uint64_t last_ns = 0;
    std::uint64_t question = 0;  // serial of the newest SYN
    std::uint32_t acked = 0;     // highest client sequence number acknowledged by the server
    std::uint32_t acked_at_reset = 0;
    std::uint32_t sent_end = 0;  // newest client segment
    std::uint32_t sent_ack = 0;
    bool sent_data = false;
  };
  enum class TcpAnswer { kForeign, kToSyn, kReset, kSegment };

  void feed_question(const Record& record);
  void feed_answer(const Record& record);
  void feed_client_tcp(const Record& record);
  void feed_node_tcp(const Record& record);
  void feed_syn(const Record& record, std::uint64_t key);
  void tcp_reset(const Record& record, Connection& connection);
  void tcp_segment(const Record& record, Connection& connection);
  // What was fed from before the window only tells which connections exist.
  bool in_window(const Record& record) const {
    return record.time_ns >= options_.from_ns && record.time_ns < options_.until_ns;
  }
  std::uint64_t ask(const Record& record, std::uint64_t key);
  void note_answer(const Record& record, Question& question);
  Question* find_question(std::uint64_t serial);
  void expire(std::uint64_t now_ns);
  void resolve(const Question& question);
  void end_gap(const StreamKey& key, Stream& stream, const Gap& gap);
  void answered_twice(const Record& record, std::uint8_t first, const std::string& how);
  void violation(const std::string& kind, std::uint64_t time_ns, std::string text);
  std::string describe(const Record& record) const;
  std::uint16_t block_of(const Record& record) const;

  const Setup& setup_;
  JudgeOptions options_;
  OnViolation report_;
  OnGap report_gap_;
  Totals totals_;
  std::map<StreamKey, Stream> streams_;
  std::deque<Question> questions_;
  std::uint64_t first_serial_ = 1;  // of questions_.front()
  std::unordered_map<std::uint64_t, std::uint64_t> by_key_;
  std::unordered_map<std::uint64_t, Connection> connections_;
  std::vector<Address> clients_;
  std::uint64_t next_sweep_ns_ = 0;
  std::uint64_t newest_ns_ = 0;
};

}  // namespace witness
