// SPDX-License-Identifier: GPL-2.0-or-later
// The TCP part of the judge. Two nodes answered the same client packet when
//  - a SYN got a SYN-ACK or RST from two links (retransmissions of a SYN are the same question),
//  - a client segment with data was acknowledged by one and reset by the other,
//  - one node reset a connection in which another goes on accepting data, or
//  - two nodes send segments into one connection (unless connections are synchronised).
// A RST of the new owner for a connection whose node died answers another packet and is no fault.
#include "witness_decode.h"
#include "witness_judge.h"

namespace witness {
namespace {

constexpr std::uint16_t kSynBit = kTcpSyn;

bool is_after(std::uint32_t left, std::uint32_t right) {
  return static_cast<std::int32_t>(left - right) > 0;
}

std::uint64_t connection_key(const Record& record) {
  std::uint64_t key = std::uint64_t{record.client} << 48 | std::uint64_t{record.client_port} << 32 |
                      std::uint64_t{record.service_port} << 16 | record.address;
  key *= 0x9e3779b97f4a7c15U;
  return key ^ (key >> 29);
}

bool has(const Record& record, std::uint16_t flag) { return (record.tcp_flags & flag) != 0; }

}  // namespace

void Judge::feed_syn(const Record& record, std::uint64_t key) {
  Connection& connection = connections_[key];
  const bool repeated = connection.last_ns != 0 && connection.isn == record.seq;
  if (repeated && connection.client_link != record.link) {
    ++totals_.forwarded_questions;
    return;
  }
  if (repeated) {
    totals_.syn_retransmits += in_window(record) ? 1 : 0;
  } else {
    totals_.connections += in_window(record) ? 1 : 0;
    connection = Connection{};
    connection.isn = record.seq;
    connection.client_link = record.link;
    connection.acked = record.seq + 1;
    connection.sent_end = record.seq + 1;
  }
  connection.last_ns = record.time_ns;
  connection.question = ask(record, 0);
}

void Judge::feed_client_tcp(const Record& record) {
  const std::uint64_t key = connection_key(record);
  if (has(record, kSynBit) && !has(record, kTcpAck)) {
    feed_syn(record, key);
    return;
  }
  const auto place = connections_.find(key);
  if (place == connections_.end()) return;  // began before the capture
  Connection& connection = place->second;
  if (connection.client_link != record.link) {
    ++totals_.forwarded_questions;
    return;
  }
  connection.last_ns = record.time_ns;
  connection.sent_end = record.seq + record.length + (has(record, kTcpFin) ? 1 : 0);
  connection.sent_ack = record.ack;
  connection.sent_data = connection.sent_end != record.seq;
}

void Judge::feed_node_tcp(const Record& record) {
  const auto place = connections_.find(connection_key(record));
  if (place == connections_.end()) {
    ++totals_.answers_without_question;
    return;
  }
  Connection& connection = place->second;
  const bool reset = has(record, kTcpRst);
  const bool to_syn =
      has(record, kTcpAck) && record.ack == connection.isn + 1 && (has(record, kSynBit) || reset);
  if (to_syn) {
    Question* question = find_question(connection.question);
    if (question != nullptr && question->answered_by == kNoLink) note_answer(record, *question);
    if (connection.server == kNoLink) {
      connection.server = record.link;
    } else if (connection.server != record.link && !connection.reported) {
      connection.reported = true;
      answered_twice(record, connection.server, reset ? "RST to the same SYN" : "a second SYN-ACK");
    }
  } else if (has(record, kSynBit)) {
    ++totals_.answers_without_question;  // belongs to an earlier attempt on these ports
    return;
  } else if (reset) {
    tcp_reset(record, connection);
  } else {
    tcp_segment(record, connection);
  }
  connection.last_ns = record.time_ns;
}

void Judge::tcp_reset(const Record& record, Connection& connection) {
  if (connection.server == kNoLink || connection.server == record.link || connection.reported) {
    return;
  }
  // A RST without ACK takes its sequence number from the packet that it answers.
  const bool answers_newest =
      !has(record, kTcpAck) && connection.sent_data && record.seq == connection.sent_ack;
  if (answers_newest && !is_after(connection.sent_end, connection.acked)) {
    connection.reported = true;
    answered_twice(record, connection.server, "RST to data that the first acknowledged");
    return;
  }
  connection.resetter = record.link;
  connection.acked_at_reset = connection.acked;
}

void Judge::tcp_segment(const Record& record, Connection& connection) {
  if (!has(record, kTcpAck)) return;
  if (is_after(record.ack, connection.sent_end) || !is_after(record.ack, connection.isn)) {
    ++totals_.answers_without_question;  // belongs to an earlier connection on these ports
    return;
  }
  if (connection.server == kNoLink) connection.server = record.link;
  if (connection.server != record.link) {
    if (setup_.connections_move) {
      connection.server = record.link;
    } else if (!connection.reported) {
      connection.reported = true;
      answered_twice(record, connection.server, "a segment in the same connection");
    }
    return;
  }
  if (is_after(record.ack, connection.acked)) connection.acked = record.ack;
  if (connection.resetter != kNoLink && !connection.reported &&
      is_after(connection.acked, connection.acked_at_reset)) {
    connection.reported = true;
    answered_twice(record, connection.resetter, "data acknowledged after the first one's RST");
  }
}

}  // namespace witness
