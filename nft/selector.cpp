// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/selector.h"

#include <algorithm>
#include <charconv>
#include <tuple>

namespace saru {
namespace {

using std::string;
using std::string_view;

constexpr string_view kBlanks = " \t\n";

struct Named {
  const char* name;
  std::uint8_t value;
};
constexpr Named kSelectorNames[] = {{"src-port", SARU_SRC_PORT},
                                    {"dst-port", SARU_DST_PORT},
                                    {"src-addr", SARU_SRC_ADDR},
                                    {"dst-addr", SARU_DST_ADDR},
                                    {"src-addr-port", SARU_SRC_ADDR_PORT}};
constexpr Named kProtocolNames[] = {{"tcp", SARU_TCP},
                                    {"udp", SARU_UDP},
                                    {"udplite", SARU_UDPLITE},
                                    {"dccp", SARU_DCCP},
                                    {"sctp", SARU_SCTP}};

template <std::size_t n>
const char* name_in(const Named (&names)[n], std::uint8_t value) {
  for (const Named& one : names) {
    if (one.value == value) return one.name;
  }
  return "?";
}

template <std::size_t n>
std::optional<std::uint8_t> value_in(const Named (&names)[n], string_view name) {
  for (const Named& one : names) {
    if (name == one.name) return one.value;
  }
  return std::nullopt;
}

string_view trimmed(string_view text) {
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

tl::unexpected<Error> refuse(string_view part, const string& why) {
  return nft::fail(ErrorKind::kInvalid, "services: \"" + string(part) + "\" " + why);
}

// The more special ones first.
auto order_of(const Service& one) {
  return std::tuple(!one.address, !one.protocol, one.address, one.protocol, one.port);
}

// "[2001:db8::1]:53", "192.0.2.1:53" or "53"
nft::Result<Service> parse_destination(string_view part, string_view text) {
  Service service;
  string_view port = text;
  if (const std::size_t colon = text.rfind(':'); colon != string_view::npos) {
    string_view host = text.substr(0, colon);
    port = text.substr(colon + 1);
    const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (brackets) host = host.substr(1, host.size() - 2);
    service.address = IpAddress::parse(host);
    if (!service.address || service.address->is_v4() == brackets) {
      return refuse(part, "has no address before its port: write 192.0.2.1:53 or [2001:db8::1]:53");
    }
  }
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), service.port);
  if (error != std::errc{} || end != port.data() + port.size() || service.port == 0) {
    return refuse(part, "has no port: \"" + string(port) + "\" is not a number from 1 to 65535");
  }
  return service;
}

nft::Result<Service> parse_service(string_view part) {
  const std::size_t by = part.find(" by ");
  if (by == string_view::npos) {
    return refuse(part, "does not say by what: write for example 443 by src-addr");
  }
  string_view destination = trimmed(part.substr(0, by));
  const string_view name = trimmed(part.substr(by + 4));
  const auto selector = parse_selector(name);
  if (!selector) {
    return refuse(part,
                  "names no selector: use src-port, dst-port, src-addr, dst-addr or "
                  "src-addr-port");
  }
  std::optional<std::uint8_t> protocol;
  if (const std::size_t slash = destination.find('/'); slash != string_view::npos) {
    protocol = parse_ported_protocol(destination.substr(slash + 1));
    if (!protocol) {
      return refuse(part, "names no protocol with ports: use tcp, udp, udplite, dccp or sctp");
    }
    destination = destination.substr(0, slash);
  }
  auto service = parse_destination(part, destination);
  if (!service) return service;
  service->protocol = protocol;
  service->selector = *selector;
  return service;
}

}  // namespace

const char* selector_name(Selector selector) {
  return name_in(kSelectorNames, static_cast<std::uint8_t>(selector));
}

std::optional<Selector> parse_selector(string_view name) {
  const auto value = value_in(kSelectorNames, name);
  if (!value) return std::nullopt;
  return static_cast<Selector>(*value);
}

const char* protocol_name(std::uint8_t protocol) { return name_in(kProtocolNames, protocol); }

std::optional<std::uint8_t> parse_ported_protocol(string_view name) {
  return value_in(kProtocolNames, name);
}

string Service::text() const {
  string text;
  if (address) text = (address->is_v4() ? address->text() : "[" + address->text() + "]") + ":";
  text += std::to_string(port);
  if (protocol) text += string("/") + protocol_name(*protocol);
  return text + " by " + selector_name(selector);
}

nft::Result<std::vector<Service>> parse_services(string_view text) {
  std::vector<Service> services;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const string_view part = trimmed(text.substr(at, end - at));
    at = end + 1;
    if (part.empty()) continue;
    auto service = parse_service(part);
    if (!service) return tl::unexpected<Error>(service.error());
    for (const Service& other : services) {
      if (order_of(other) == order_of(*service)) {
        return refuse(part, "is said twice: also \"" + other.text() + "\"");
      }
    }
    services.push_back(*service);
  }
  if (services.size() > SARU_MAX_SERVICES) {
    return nft::fail(ErrorKind::kInvalid, "services lists " + std::to_string(services.size()) +
                                              " of them; at most " +
                                              std::to_string(SARU_MAX_SERVICES));
  }
  std::sort(services.begin(), services.end(),
            [](const Service& a, const Service& b) { return order_of(a) < order_of(b); });
  return services;
}

string to_text(const std::vector<Service>& services) {
  string text;
  for (const Service& one : services) text += (text.empty() ? "" : ", ") + one.text();
  return text;
}

bool Selection::uses(Selector which) const {
  return selector == which ||
         std::any_of(services.begin(), services.end(),
                     [&](const Service& one) { return one.selector == which; });
}

std::uint32_t derived_seed(std::uint16_t id) {
  // Any fixed mixing would do; this one is at hand.
  const std::uint8_t key[SARU_HASH_V4] = {
      's', 'a', 'r', 'u', static_cast<std::uint8_t>(id >> 8), static_cast<std::uint8_t>(id & 0xff),
      0,   0};
  return saru_jhash(key, sizeof key, 0);
}

BlockRule::BlockRule(const Selection& selection) {
  for (const Service& one : selection.services) {
    saru_service service{};
    service.selector = static_cast<std::uint8_t>(one.selector);
    service.protocol = one.protocol.value_or(0);
    service.port = one.port;
    if (one.address) {
      service.version = one.address->is_v4() ? 4 : 6;
      const auto bytes = one.address->bytes();
      std::copy(bytes.begin(), bytes.end(), service.address);
    }
    services_.push_back(service);
  }
  rule_.selector = static_cast<std::uint8_t>(selection.selector);
  rule_.seed = selection.seed;
  rule_.service_count = static_cast<std::uint32_t>(services_.size());
  rule_.services = services_.data();
}

}  // namespace saru
