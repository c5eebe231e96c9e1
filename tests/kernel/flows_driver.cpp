// SPDX-License-Identifier: GPL-2.0-or-later
// The connections of a network namespace, as agent/sync sees and makes them, for the kernel tests:
// one command per line on standard input, one JSON object per answer on standard output.
//   open [BYTES]    events (receive buffer), dump and writer: {"port"}
//   events MS       what has happened until nothing has for that long: {"flows", "seen", "lost"}
//   dump            {"flows"}
//   inject RECORD…  key and value in hexadecimal, with a colon between them
//   remove KEY…
//   current KEY     {"flow"}, null if there is none
//   make N          N connections of 203.0.113.0/24 and others, with DNAT; unmake N
//   count-dump, count-events: how many, and how long it took; memory: what this process holds
#include <arpa/inet.h>
#include <poll.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "agent/sync/conntrack.h"
#include "agent/sync/record.h"

namespace {

using nlohmann::json;
using namespace saru;
using namespace saru::sync;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string hex(std::string_view bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    const auto value = static_cast<unsigned char>(byte);
    text += {kDigits[value >> 4], kDigits[value & 15]};
  }
  return text;
}

std::string unhex(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at + 1 < text.size(); at += 2) {
    bytes += static_cast<char>(std::stoi(std::string(text.substr(at, 2)), nullptr, 16));
  }
  return bytes;
}

std::string address(const AddressBytes& bytes, bool v4) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(v4 ? AF_INET : AF_INET6, bytes.data(), text.data(), text.size());
  return text.data();
}

json translation(const std::optional<Translation>& nat, bool v4) {
  if (!nat) return nullptr;
  return json::array({address(nat->address, v4), nat->port});
}

json shift(const SequenceShift& one) { return {one.position, one.before, one.after}; }

json flow_as_json(const Flow& flow) {
  const auto& [key, state] = flow;
  const std::string record_key = encode_key(key);
  const std::string record_value = encode_value(state, key.v4, key.protocol);
  return {{"key", hex(record_key)},
          {"value", hex(record_value)},
          {"size", record_key.size() + record_value.size()},
          {"protocol", key.protocol},
          {"source", address(key.source, key.v4)},
          {"destination", address(key.destination, key.v4)},
          {"source_port", key.source_port},
          {"destination_port", key.destination_port},
          {"zone", {static_cast<int>(key.zone.direction), key.zone.id}},
          {"assured", state.assured},
          {"seen_reply", state.seen_reply},
          {"tcp_state", state.tcp_state},
          {"scales", {state.scale_original, state.scale_reply}},
          {"timeout_s", state.timeout_s},
          {"mark", state.mark},
          {"labels", state.labels},
          {"dnat", translation(state.destination, key.v4)},
          {"snat", translation(state.source, key.v4)},
          {"shifts", {shift(state.shift_original), shift(state.shift_reply)}},
          {"helper", state.helper}};
}

json outcome_as_json(const ConntrackWriter::Outcome& outcome) {
  return {{"done", outcome.done},
          {"replaced", outcome.replaced},
          {"failed", outcome.failed},
          {"first_error", outcome.first_error}};
}

Flow synthetic(unsigned number) {
  Flow flow;
  flow.key.protocol = kTcp;
  flow.key.source = {203, static_cast<std::uint8_t>(number >> 24 & 0xff),
                     static_cast<std::uint8_t>(number >> 16 & 0xff), 9};
  flow.key.destination = {192, 0, 2, 1};
  flow.key.source_port = static_cast<std::uint16_t>(number);
  flow.key.destination_port = 80;
  flow.state = {.assured = true,
                .seen_reply = true,
                .tcp_state = 3,
                .scale_original = 7,
                .scale_reply = 7,
                .timeout_s = 300,
                .mark = 0,
                .labels = {},
                .destination = Translation{.address = {192, 0, 2, 9}, .port = 8080},
                .source = {},
                .helper = {}};
  return flow;
}

class Driver {
 public:
  json obey(const std::string& command, std::istringstream& words) {
    if (command == "open") return open(words);
    if (command == "events") return events(words);
    if (command == "dump") return dump();
    if (command == "inject") return inject(words);
    if (command == "remove") return remove(words);
    if (command == "current") return current(words);
    if (command == "make" || command == "unmake") return many(command == "make", words);
    if (command == "count-events") return count_events(words);
    if (command == "count-dump") return count_dump();
    if (command == "memory") return memory();
    return {{"error", "unknown command " + command}};
  }

 private:
  template <class T>
  static bool take(nft::Result<T>&& opened, std::optional<T>& into, json& error) {
    if (!opened) {
      error = {{"error", opened.error().text}};
      return false;
    }
    into.emplace(std::move(*opened));
    return true;
  }

  json open(std::istringstream& words) {
    int size = ConntrackEvents::kBufferSize;
    words >> size;
    json error;
    if (!take(ConntrackEvents::open(size), events_, error)) return error;
    if (!take(ConntrackDump::open(), dump_, error)) return error;
    if (!take(ConntrackWriter::open(), writer_, error)) return error;
    return {{"port", writer_->port_id()}};
  }

  // Reads until nothing has come for `quiet_ms`.
  template <class Each>
  json follow(int quiet_ms, Each each) {
    constexpr std::size_t kMost = 100;
    std::size_t seen = 0;
    bool lost = false;
    double reading_ms = 0;
    pollfd ready{.fd = events_->fd(), .events = POLLIN, .revents = 0};
    while (poll(&ready, 1, quiet_ms) > 0) {
      const auto start = Clock::now();
      const auto read = events_->read(kMost, each);
      reading_ms += ms_since(start);
      if (!read) return {{"error", read.error().text}};
      seen += read->events;
      lost = lost || read->lost;
    }
    return {{"seen", seen}, {"lost", lost}, {"ms", reading_ms}};
  }

  json events(std::istringstream& words) {
    constexpr std::array kChanges = {"new", "update", "gone"};
    int quiet_ms = 0;
    words >> quiet_ms;
    json flows = json::array();
    json answer = follow(quiet_ms, [&](Change change, Flow&& flow, std::uint32_t port) {
      const std::string key = encode_key(flow.key);
      if (const auto known = known_.find(key); known != known_.end()) {
        keep_unsaid(known->second, flow.state);
      }
      if (change == Change::kGone) {
        known_.erase(key);
      } else {
        known_[key] = flow.state;
      }
      json one = flow_as_json(flow);
      one["change"] = kChanges.at(static_cast<std::size_t>(change));
      one["port"] = port;
      flows.push_back(std::move(one));
    });
    answer["flows"] = std::move(flows);
    return answer;
  }

  json count_events(std::istringstream& words) {
    int quiet_ms = 0;
    words >> quiet_ms;
    std::size_t carried = 0;
    std::size_t bytes = 0;
    json answer = follow(quiet_ms, [&](Change, Flow&& flow, std::uint32_t) {
      ++carried;
      bytes += encode_key(flow.key).size();
      bytes += encode_value(flow.state, flow.key.v4, flow.key.protocol).size();
    });
    answer["carried"] = carried;
    answer["bytes"] = bytes;
    return answer;
  }

  template <class Each>
  std::optional<std::string> dump_all(Each each) {
    if (const auto begun = dump_->begin(); !begun) return begun.error().text;
    pollfd ready{.fd = dump_->fd(), .events = POLLIN, .revents = 0};
    while (poll(&ready, 1, 5000) > 0) {
      const auto done = dump_->read(each);
      if (!done) return done.error().text;
      if (*done) return std::nullopt;
    }
    return "the dump does not end";
  }

  json dump() {
    json flows = json::array();
    const auto error = dump_all([&](Flow&& flow) { flows.push_back(flow_as_json(flow)); });
    if (error) return {{"error", *error}};
    return {{"flows", std::move(flows)}};
  }

  json count_dump() {
    std::size_t count = 0;
    const auto start = Clock::now();
    const auto error = dump_all([&](Flow&&) { ++count; });
    if (error) return {{"error", *error}};
    return {{"count", count}, {"ms", ms_since(start)}};
  }

  json inject(std::istringstream& words) {
    std::vector<Flow> flows;
    for (std::string word; words >> word;) {
      const auto colon = word.find(':');
      if (colon == std::string::npos) return {{"error", "a record is KEY:VALUE"}};
      const auto flow = decode(unhex(word.substr(0, colon)), unhex(word.substr(colon + 1)));
      if (!flow) return {{"error", flow.error()}};
      flows.push_back(*flow);
    }
    return outcome_as_json(writer_->inject(flows));
  }

  // Any value will do: only the key counts.
  static tl::expected<Flow, const char*> only_key(const std::string& word) {
    const std::string key = unhex(word);
    const bool tcp = !key.empty() && (key.front() & 7) == 0;
    return decode(key, std::string(tcp ? 4 : 2, '\0'));
  }

  json remove(std::istringstream& words) {
    std::vector<FlowKey> keys;
    for (std::string word; words >> word;) {
      const auto flow = only_key(word);
      if (!flow) return {{"error", flow.error()}};
      keys.push_back(flow->key);
    }
    return outcome_as_json(writer_->remove(keys));
  }

  json current(std::istringstream& words) {
    std::string word;
    words >> word;
    const auto flow = only_key(word);
    if (!flow) return {{"error", flow.error()}};
    const auto now = writer_->current(flow->key);
    if (!now) return {{"error", now.error().text}};
    return {{"flow", *now ? flow_as_json(**now) : json(nullptr)}};
  }

  json many(bool make, std::istringstream& words) {
    unsigned count = 0;
    words >> count;
    std::vector<Flow> flows;
    std::vector<FlowKey> keys;
    for (unsigned number = 0; number < count; ++number) {
      flows.push_back(synthetic(number));
      keys.push_back(flows.back().key);
    }
    const auto start = Clock::now();
    json answer = outcome_as_json(make ? writer_->inject(flows) : writer_->remove(keys));
    answer["ms"] = ms_since(start);
    return answer;
  }

  static json memory() {
    std::ifstream status("/proc/self/statm");
    long pages = 0;
    long resident = 0;
    status >> pages >> resident;
    return {{"kib", resident * 4}};
  }

  std::map<std::string, FlowState> known_;  // from events
  std::optional<ConntrackEvents> events_;
  std::optional<ConntrackDump> dump_;
  std::optional<ConntrackWriter> writer_;
};

}  // namespace

int main() {
  Driver driver;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    std::cout << driver.obey(command, words) << std::endl;
  }
  return 0;
}
