// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/options.h"

#include <net/if.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "agent/core/block_set.h"
#include "agent/core/plant.h"

namespace saru {
namespace {

using std::string;

tl::unexpected<Failure> refuse(const string& sentence) {
  return tl::unexpected(Failure{ExitCode::kBadConfiguration, sentence});
}

std::optional<unsigned> number(std::string_view text, unsigned least, unsigned most) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (value < least || value > most) return std::nullopt;
  return value;
}

string get(const RawOptions& raw, const string& name, const string& otherwise) {
  const auto found = raw.find(name);
  return found == raw.end() || found->second.empty() ? otherwise : found->second;
}

tl::expected<unsigned, Failure> get_number(const RawOptions& raw, const string& name,
                                           unsigned otherwise, unsigned least, unsigned most) {
  const string text = get(raw, name, std::to_string(otherwise));
  if (const auto value = number(text, least, most)) return *value;
  return refuse(name + " must be a number from " + std::to_string(least) + " to " +
                std::to_string(most) + ", not \"" + text + "\"");
}

// One of the words that mean something, the first one unless given; `planned` are known by name and
// refused by name.
tl::expected<string, Failure> get_word(const RawOptions& raw, const string& name,
                                       const std::vector<string>& words,
                                       const std::vector<string>& planned) {
  string word = get(raw, name, words.front());
  const auto is_in = [&](const std::vector<string>& list) {
    return std::find(list.begin(), list.end(), word) != list.end();
  };
  if (is_in(words)) return word;
  string use = words.front();
  for (std::size_t i = 1; i < words.size(); ++i) use += " or " + words[i];
  return refuse(is_in(planned)
                    ? name + " " + word + " does not exist yet in this version; use " + use
                    : name + " \"" + word + "\" is unknown; use " + use);
}

tl::expected<std::vector<ServiceAddress>, Failure> parse_addresses(const string& name,
                                                                   const string& list) {
  std::vector<ServiceAddress> addresses;
  for (std::size_t at = 0; at < list.size();) {
    const std::size_t end = std::min(list.find_first_of(", \t\n", at), list.size());
    if (end > at) {
      auto address = ServiceAddress::parse(list.substr(at, end - at));
      if (!address) return refuse(name + ": " + address.error().text);
      for (const ServiceAddress& other : addresses) {
        if (other.ip == address->ip)
          return refuse(name + " " + other.ip.text() + " is given twice");
      }
      addresses.push_back(*address);
    }
    at = end + 1;
  }
  if (addresses.empty()) {
    return refuse("no address to serve: give " + name + ", for example " + name + "=192.0.2.10");
  }
  if (addresses.size() > kMaxAddresses) {
    return refuse(name + " lists " + std::to_string(addresses.size()) + " addresses; at most " +
                  std::to_string(kMaxAddresses) + " share one id");
  }
  return addresses;
}

tl::expected<string, Failure> parse_nic(const string& option, const string& name) {
  if (name.empty()) return refuse("no network interface: give nic, for example nic=eth0");
  const bool clean = name.find_first_of("/ \t\n:\"\\") == string::npos;
  if (!clean || name.size() >= IFNAMSIZ || name == "." || name == "..") {
    return refuse(option + " \"" + name + "\" is not the name of a network interface");
  }
  if (name == "lo") {
    return refuse(option + " lo reaches no other machine; name the interface of the LAN");
  }
  return name;
}

tl::expected<MacAddress, Failure> parse_mac(const string& text, std::uint16_t id) {
  if (text.empty()) return derived_shared_mac(id);
  const auto mac = MacAddress::parse(text);
  if (!mac) return refuse("mac \"" + text + "\" is not a MAC address like 02:5a:72:00:00:01");
  if (mac->is_multicast()) {
    return refuse("mac " + text + " is a multicast address; delivery flood needs a unicast one");
  }
  if (mac->is_zero()) return refuse("mac " + text + " is nobody's address");
  return *mac;
}

tl::expected<LogLevel, Failure> parse_log_level(const string& word) {
  static const std::map<string, LogLevel> words = {{"error", LogLevel::kError},
                                                   {"warning", LogLevel::kWarning},
                                                   {"notice", LogLevel::kNotice},
                                                   {"info", LogLevel::kInfo},
                                                   {"debug", LogLevel::kDebug}};
  const auto found = words.find(word);
  if (found != words.end()) return found->second;
  return refuse("log-level \"" + word + "\" is unknown; use error, warning, notice, info or debug");
}

// After the id and the addresses.
tl::expected<Selection, Failure> parse_selection(const RawOptions& raw, const Options& options) {
  Selection selection;
  const string name = get(raw, "selector", "src-port");
  const auto selector = parse_selector(name);
  if (!selector) {
    return refuse("selector \"" + name +
                  "\" is unknown; use src-port, dst-port, src-addr, dst-addr or src-addr-port");
  }
  selection.selector = *selector;
  auto services = parse_services(get(raw, "services", ""));
  if (!services) return refuse(services.error().text);
  selection.services = std::move(*services);
  for (const Service& service : selection.services) {
    const bool shared =
        !service.address || std::any_of(options.addresses.begin(), options.addresses.end(),
                                        [&](auto& one) { return one.ip == service.address; });
    if (!shared) {
      return refuse("services: \"" + service.text() + "\": " + service.address->text() +
                    " is none of the addresses in ip");
    }
  }
  const auto seed = get_number(raw, "seed", derived_seed(options.id), 0, 0xffffffff);
  if (!seed) return tl::unexpected(seed.error());
  selection.seed = *seed;
  return selection;
}

tl::expected<Fencing, Failure> parse_fencing(const string& word) {
  if (word == "auto") return Fencing::kAuto;
  if (word == "wait") return Fencing::kWait;
  if (word == "ignore") return Fencing::kIgnore;
  return refuse("fencing \"" + word + "\" is unknown; use auto, wait or ignore");
}

// What does not go with an inside: both directions of a connection must tell its block, whatever
// NAT does in between.
std::optional<string> unfit_for_inside(const Options& options) {
  const Selector selector = options.selection.selector;
  if (selector == Selector::kDstPort || selector == Selector::kDstAddr) {
    return string("selector ") + selector_name(selector) +
           " does not go with inside-ip: NAT changes what it looks at; use src-port, src-addr or "
           "src-addr-port";
  }
  if (!options.selection.services.empty()) {
    return "services do not go with inside-ip: what hosts inside answer comes from ports that NAT "
           "may have changed; leave services out";
  }
  if (options.stays()) return "connections stay does not go with inside-ip; use sync or none";
  return std::nullopt;
}

// After everything that it must go together with.
tl::expected<std::optional<Inside>, Failure> parse_inside(const RawOptions& raw,
                                                          const Options& options) {
  const string list = get(raw, "inside-ip", "");
  const string name = get(raw, "inside-nic", "");
  if (list.empty() && name.empty()) return std::optional<Inside>();
  if (list.empty()) return refuse("inside-nic is given without inside-ip: give both, or neither");
  if (name.empty()) return refuse("inside-ip is given without inside-nic: give both, or neither");
  auto nic = parse_nic("inside-nic", name);
  if (!nic) return tl::unexpected(nic.error());
  if (*nic == options.nic) {
    return refuse("inside-nic " + name + " is nic, too: the inside needs an interface of its own");
  }
  auto addresses = parse_addresses("inside-ip", list);
  if (!addresses) return tl::unexpected(addresses.error());
  for (const ServiceAddress& one : options.addresses) {
    const bool twice = std::any_of(addresses->begin(), addresses->end(),
                                   [&](const auto& other) { return other.ip == one.ip; });
    if (!twice) continue;
    return refuse(one.ip.text() + " is in ip and in inside-ip: give it in one of them");
  }
  const std::size_t count = addresses->size() + options.addresses.size();
  if (count > kMaxAddresses) {
    return refuse("ip and inside-ip list " + std::to_string(count) + " addresses; at most " +
                  std::to_string(kMaxAddresses) + " share one id");
  }
  if (const auto why = unfit_for_inside(options)) return refuse(*why);
  return Inside{std::move(*addresses), std::move(*nic), derived_inside_mac(options.mac)};
}

// What only serving needs: cleaning up after a dead daemon goes by the id.
tl::expected<Options, Failure> validate_service(Options options, const RawOptions& raw) {
  auto nic = parse_nic("nic", get(raw, "nic", ""));
  if (!nic) return tl::unexpected(nic.error());
  options.nic = *nic;
  auto addresses = parse_addresses("ip", get(raw, "ip", ""));
  if (!addresses) return tl::unexpected(addresses.error());
  options.addresses = *addresses;
  const string blocks = get(raw, "blocks", std::to_string(kDefaultBlocks));
  const auto count = number(blocks, 0, 0xffff);
  if (!count || (!is_block_count(*count) && planted() != Plant::kAnyBlockCount)) {
    return refuse("blocks must be a power of two from " + std::to_string(kMinBlocks) + " to " +
                  std::to_string(kMaxBlocks) + ", not \"" + blocks + "\"");
  }
  options.blocks = *count;
  auto selection = parse_selection(raw, options);
  if (!selection) return tl::unexpected(selection.error());
  options.selection = *selection;
  auto delivery = get_word(raw, "delivery", {"flood"}, {"multicast", "routed", "steer"});
  if (!delivery) return tl::unexpected(delivery.error());
  options.delivery = *delivery;
  // What nodes only forward need not stay.
  const bool forwards = !get(raw, "inside-ip", "").empty();
  const std::vector<string> words = forwards ? std::vector<string>{"sync", "stay", "none"}
                                             : std::vector<string>{"stay", "sync", "none"};
  auto connections = get_word(raw, "connections", words, {});
  if (!connections) return tl::unexpected(connections.error());
  options.connections = *connections;
  auto mac = parse_mac(get(raw, "mac", ""), options.id);
  if (!mac) return tl::unexpected(mac.error());
  options.mac = *mac;
  auto inside = parse_inside(raw, options);
  if (!inside) return tl::unexpected(inside.error());
  options.inside = *inside;
  auto weight = get_number(raw, "weight", 1, 0, 0xffff);
  if (!weight) return tl::unexpected(weight.error());
  options.weight = static_cast<std::uint16_t>(*weight);
  if (!get(raw, "lease-ms", "").empty()) {
    auto lease = get_number(raw, "lease-ms", 0, kMinLeaseMs, kMaxLeaseMs);
    if (!lease) return tl::unexpected(lease.error());
    options.lease_ms = *lease;
  }
  auto fencing = parse_fencing(get(raw, "fencing", "auto"));
  if (!fencing) return tl::unexpected(fencing.error());
  options.fencing = *fencing;
  const string stonith = get(raw, "stonith", "no");
  if (stonith != "yes" && stonith != "no" && stonith != "unknown") {
    return refuse("stonith must be yes, no or unknown, not \"" + stonith + "\"");
  }
  options.stonith = stonith == "yes";
  if (stonith == "unknown") options.stonith.reset();
  return options;
}

}  // namespace

tl::expected<Options, Failure> validate(const RawOptions& raw) {
  Options options;
  auto id = get_number(raw, "id", 1, 1, 0xffff);
  if (!id) return tl::unexpected(id.error());
  options.id = static_cast<std::uint16_t>(*id);
  auto level = parse_log_level(get(raw, "log-level", "notice"));
  if (!level) return tl::unexpected(level.error());
  options.log_level = *level;
  options.log_file = get(raw, "log-file", "");
  options.label = get(raw, "label", "");
  options.foreground = raw.count("foreground") != 0;
  if (raw.count("cleanup") != 0) {
    options.task = Task::kCleanup;
    return options;
  }
  if (raw.count("validate") != 0) options.task = Task::kValidate;
  if (raw.count("validate-node") != 0) options.task = Task::kValidateNode;
  if (raw.count("reload") != 0) options.task = Task::kReload;
  return validate_service(std::move(options), raw);
}

}  // namespace saru
