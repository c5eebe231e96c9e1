// SPDX-License-Identifier: GPL-2.0-or-later
#include "witness_setup.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>

#include "witness_record.h"

namespace witness {

using Json = nlohmann::ordered_json;

Result<Mac> parse_mac(const std::string& text) {
  Mac mac{};
  bool good = text.size() == 17;
  for (std::size_t i = 0; good && i < mac.size(); ++i) {
    const char* digits = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, mac[i], 16);
    good = error == std::errc() && end == digits + 2 && (i == 5 || *end == ':');
  }
  if (!good) return tl::unexpected("'" + text + "' is not a MAC address such as 02:5a:00:00:00:01");
  return mac;
}

Result<Address> parse_address(const std::string& text) {
  Address address;
  if (inet_pton(AF_INET, text.c_str(), address.bytes.data()) == 1) return address;
  address.is_v6 = true;
  if (inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) return address;
  return tl::unexpected("'" + text + "' is neither an IPv4 nor an IPv6 address");
}

Result<Link> parse_link(const std::string& text, Side side) {
  const auto equals = text.find('=');
  const auto colon = text.rfind(':');
  if (equals == std::string::npos || equals == 0) {
    return tl::unexpected("link '" + text + "' must read NAME=NETNS:INTERFACE");
  }
  Link link;
  link.side = side;
  link.name = text.substr(0, equals);
  if (colon == std::string::npos || colon < equals) {
    link.interface = text.substr(equals + 1);
  } else {
    link.netns = text.substr(equals + 1, colon - equals - 1);
    link.interface = text.substr(colon + 1);
    if (!link.netns.empty() && link.netns.find('/') == std::string::npos) {
      link.netns = "/run/netns/" + link.netns;
    }
  }
  if (link.interface.empty() || link.interface.size() > 15) {
    return tl::unexpected("link '" + text + "' names no interface (1 to 15 characters)");
  }
  return link;
}

std::string to_text(const Mac& mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return text;
}

std::string to_text(const Address& address) {
  char text[INET6_ADDRSTRLEN] = "?";
  inet_ntop(address.is_v6 ? AF_INET6 : AF_INET, address.bytes.data(), text, sizeof text);
  return text;
}

std::string link_name(const Setup& setup, std::uint8_t link) {
  return link < setup.links.size() ? setup.links[link].name : "nobody";
}

Json to_json(const Setup& setup) {
  Json json;
  json["links"] = Json::array();
  for (const Link& link : setup.links) {
    Json row{{"name", link.name},
             {"netns", link.netns},
             {"interface", link.interface},
             {"side", link.side == Side::kSwitchPort ? "switch" : "node"}};
    if (link.mac) row["mac"] = to_text(*link.mac);
    json["links"].push_back(std::move(row));
  }
  json["addresses"] = Json::array();
  for (const Address& address : setup.addresses) json["addresses"].push_back(to_text(address));
  if (setup.shared_mac) json["shared_mac"] = to_text(*setup.shared_mac);
  json["blocks"] = setup.blocks;
  json["probe_port"] = setup.probe_port;
  json["connections_move"] = setup.connections_move;
  return json;
}

namespace {

Result<Setup> fill_setup(const Json& json) {
  Setup setup;
  for (const Json& row : json.at("links")) {
    Link link{row.at("name"),
              row.at("netns"),
              row.at("interface"),
              row.at("side") == "switch" ? Side::kSwitchPort : Side::kNodePort,
              {}};
    if (row.contains("mac")) {
      auto mac = parse_mac(row.at("mac"));
      if (!mac) return tl::unexpected(mac.error());
      link.mac = *mac;
    }
    setup.links.push_back(std::move(link));
  }
  for (const Json& text : json.at("addresses")) {
    auto address = parse_address(text);
    if (!address) return tl::unexpected(address.error());
    setup.addresses.push_back(*address);
  }
  if (json.contains("shared_mac")) {
    auto mac = parse_mac(json.at("shared_mac"));
    if (!mac) return tl::unexpected(mac.error());
    setup.shared_mac = *mac;
  }
  setup.blocks = json.at("blocks");
  setup.probe_port = json.at("probe_port");
  setup.connections_move = json.at("connections_move");
  return setup;
}

}  // namespace

Result<Setup> setup_from_json(std::string_view line) {
  try {
    return fill_setup(Json::parse(line));
  } catch (const Json::exception& error) {
    return tl::unexpected(std::string("the first line is not a witness setup: ") + error.what());
  }
}

}  // namespace witness
