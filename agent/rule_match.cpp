// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/rule_match.h"

#include <algorithm>

namespace saru {
namespace {

using nlohmann::json;
using std::string;

// What is known of one property of the packet.
struct Fact {
  bool absent = false;  // packets of this kind do not have it
  json value;           // null: not known
};

Fact known(const json& value) { return {false, value}; }
Fact known(const string& value) { return {false, value.empty() ? json(nullptr) : json(value)}; }
const Fact kUnknown{};
const Fact kAbsent{true, nullptr};

Fact port_if(bool service, const Packet& packet) {
  return service && packet.port ? known(json(*packet.port)) : kUnknown;
}

Fact meta_of(const string& key, const Packet& packet) {
  const bool v4 = packet.from_or_to.is_v4();
  if (key == "iif" || key == "iifname") return packet.inward ? known(packet.iif) : kAbsent;
  if (key == "oif" || key == "oifname") return packet.inward ? kAbsent : known(packet.oif);
  if (key == "protocol") return known(json(packet.arp ? "arp" : v4 ? "ip" : "ip6"));
  if (packet.arp) return kUnknown;
  if (key == "l4proto") return known(json("tcp"));
  if (key == "nfproto") return known(json(v4 ? "ipv4" : "ipv6"));
  return kUnknown;
}

Fact payload_of(const json& payload, const Packet& packet) {
  const string protocol = payload.value("protocol", "");
  const string field = payload.value("field", "");
  if (protocol.empty()) return kUnknown;  // raw bytes
  if (protocol == "ether") return field == "daddr" ? known(packet.mac) : kUnknown;
  if (protocol == "vlan") return kUnknown;
  if (protocol == "arp") {
    if (!packet.arp) return kAbsent;
    if (field == "operation") return known(json("request"));
    return field == "daddr ip" ? known(packet.from_or_to.text()) : kUnknown;
  }
  if (packet.arp) return kAbsent;
  if (protocol == "ip" || protocol == "ip6") {
    if ((protocol == "ip") != packet.from_or_to.is_v4()) return kAbsent;
    if (field == (packet.inward ? "daddr" : "saddr")) return known(packet.from_or_to.text());
    return field == "protocol" ? known(json("tcp")) : kUnknown;
  }
  if (protocol != "tcp" && protocol != "th") return kAbsent;
  if (field == "dport") return port_if(packet.inward, packet);
  return field == "sport" ? port_if(!packet.inward, packet) : kUnknown;
}

Fact fact_of(const json& left, const Packet& packet) {
  if (!left.is_object() || left.size() != 1) return kUnknown;
  const string kind = left.begin().key();
  const json& what = left.begin().value();
  if (!what.is_object()) return kUnknown;
  if (kind == "meta") return meta_of(what.value("key", ""), packet);
  if (kind == "payload") return payload_of(what, packet);
  if (kind != "ct" || packet.arp) return kUnknown;
  // A client's first packet; answers belong to it.
  const string key = what.value("key", "");
  if (key == "state") return known(json(packet.inward ? "new" : "established"));
  if (key == "status" && packet.inward && !packet.translated) return known(json("none"));
  return kUnknown;
}

Fits yes_if(bool good) { return good ? Fits::kYes : Fits::kNo; }

// "saru*" is every name that begins so.
Fits same_text(const string& fact, const string& value) {
  const auto a = IpAddress::parse(fact);
  const auto b = IpAddress::parse(value);
  if (a && b) return yes_if(*a == *b);
  if (!value.empty() && value.back() == '*') {
    return yes_if(fact.starts_with(value.substr(0, value.size() - 1)));
  }
  return yes_if(fact == value);
}

Fits in_prefix(const string& fact, const json& prefix) {
  const auto address = IpAddress::parse(fact);
  const auto net = IpAddress::parse(prefix.value("addr", ""));
  const unsigned length = prefix.value("len", 0U);
  if (!address || !net) return Fits::kMaybe;
  if (address->is_v4() != net->is_v4() || length > net->max_prefix()) return Fits::kNo;
  return yes_if(ServiceAddress{*address, length}.subnet() == ServiceAddress{*net, length}.subnet());
}

Fits in_range(const json& fact, const json& range) {
  if (!range.is_array() || range.size() != 2) return Fits::kMaybe;
  if (fact.is_number() && range[0].is_number() && range[1].is_number()) {
    return yes_if(range[0] <= fact && fact <= range[1]);
  }
  if (!fact.is_string() || !range[0].is_string() || !range[1].is_string()) return Fits::kMaybe;
  const auto address = IpAddress::parse(fact.get<string>());
  const auto first = IpAddress::parse(range[0].get<string>());
  const auto last = IpAddress::parse(range[1].get<string>());
  if (!address || !first || !last) return Fits::kMaybe;
  if (address->is_v4() != first->is_v4()) return Fits::kNo;
  return yes_if(*first <= *address && *address <= *last);
}

Fits compare(const json& fact, const json& value, const Elements& elements);

Fits any_of(const json& fact, const json& values, const Elements& elements) {
  Fits best = Fits::kNo;
  for (const json& value : values) {
    best = std::max(best, compare(fact, value, elements));
  }
  return best;
}

Fits compare_object(const json& fact, const json& value, const Elements& elements) {
  if (value.size() != 1) return Fits::kMaybe;
  const string kind = value.begin().key();
  const json& what = value.begin().value();
  if (kind == "set") {
    return what.is_array() ? any_of(fact, what, elements) : compare(fact, what, elements);
  }
  if (kind == "range") return in_range(fact, what);
  if (kind == "prefix" && fact.is_string()) return in_prefix(fact.get<string>(), what);
  if (kind == "elem" && what.is_object()) {
    return compare(fact, what.value("val", json()), elements);
  }
  return Fits::kMaybe;
}

Fits compare(const json& fact, const json& value, const Elements& elements) {
  if (value.is_array()) return any_of(fact, value, elements);
  if (value.is_object()) return compare_object(fact, value, elements);
  if (value.is_string() && value.get_ref<const string&>().starts_with("@")) {
    const json named = elements(value.get_ref<const string&>().substr(1));
    return named.is_array() ? any_of(fact, named, elements) : Fits::kMaybe;
  }
  if (fact.is_string() && value.is_string()) return same_text(fact, value);
  if (fact.is_number() && value.is_number()) return yes_if(fact == value);
  return Fits::kMaybe;
}

Fits ordered(const json& fact, const string& op, const json& value) {
  if (!fact.is_number() || !value.is_number()) return Fits::kMaybe;
  if (op == "<") return yes_if(fact < value);
  if (op == ">") return yes_if(fact > value);
  if (op == "<=") return yes_if(fact <= value);
  return op == ">=" ? yes_if(fact >= value) : Fits::kMaybe;
}

}  // namespace

Fits has_value(const json& left, const json& value, const Packet& packet,
               const Elements& elements) {
  const Fact fact = fact_of(left, packet);
  if (fact.absent) return Fits::kNo;
  return fact.value.is_null() ? Fits::kMaybe : compare(fact.value, value, elements);
}

Fits fits(const json& match, const Packet& packet, const Elements& elements) {
  const Fact fact = fact_of(match.value("left", json()), packet);
  const string op = match.value("op", "==");
  const json right = match.value("right", json());
  if (fact.absent) return Fits::kNo;
  if (fact.value.is_null()) return Fits::kMaybe;
  if (op == "==" || op == "in") return compare(fact.value, right, elements);
  if (op != "!=") return ordered(fact.value, op, right);
  switch (compare(fact.value, right, elements)) {
    case Fits::kNo:
      return Fits::kYes;
    case Fits::kYes:
      return Fits::kNo;
    case Fits::kMaybe:
      break;
  }
  return Fits::kMaybe;
}

}  // namespace saru
