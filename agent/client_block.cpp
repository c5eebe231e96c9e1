// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/client_block.h"

#include <algorithm>
#include <charconv>

namespace saru {
namespace {

using std::string;

tl::unexpected<string> refuse(string sentence) {
  return tl::unexpected<string>(std::move(sentence));
}

std::optional<std::uint16_t> parse_port(const string& text) {
  std::uint16_t port = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, port);
  if (error != std::errc{} || end != last) return std::nullopt;
  return port;
}

std::optional<Protocol> parse_protocol(const string& word) {
  if (word == "icmp" || word == "icmpv6") return Protocol::kIcmp;
  const auto number = parse_ported_protocol(word.empty() ? "tcp" : word);
  if (!number) return std::nullopt;
  return static_cast<Protocol>(*number);
}

struct Endpoint {
  IpAddress address;
  std::optional<std::uint16_t> port;
};

// ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT
tl::expected<Endpoint, string> parse_endpoint(const string& text) {
  string host = text;
  string port;
  const std::size_t colon = text.rfind(':');
  if (!text.empty() && text.front() == '[') {
    const std::size_t bracket = text.find(']');
    if (bracket == string::npos) return refuse("\"" + text + "\" lacks a closing bracket");
    host = text.substr(1, bracket - 1);
    if (bracket + 1 < text.size()) port = text.substr(bracket + 1);
  } else if (colon != string::npos && text.find(':') == colon) {
    host = text.substr(0, colon);
    port = text.substr(colon);
  }
  const auto address = IpAddress::parse(host);
  if (!address) return refuse("\"" + host + "\" is not an IPv4 or IPv6 address");
  Endpoint endpoint{*address, std::nullopt};
  if (port.empty()) return endpoint;
  endpoint.port = port.front() == ':' ? parse_port(port.substr(1)) : std::nullopt;
  if (!endpoint.port) return refuse("the port in \"" + text + "\" is not a number to 65535");
  return endpoint;
}

string text_of(const IpAddress& address, std::optional<std::uint16_t> port) {
  if (!port) return address.text();
  return (address.is_v4() ? address.text() : "[" + address.text() + "]") + ":" +
         std::to_string(*port);
}

saru_flow flow_of(const ClientPacket& packet) {
  saru_flow flow{};
  flow.version = packet.address.is_v4() ? 4 : 6;
  flow.protocol = static_cast<std::uint8_t>(packet.protocol);
  flow.has = SARU_HAS_CLIENT_ADDRESS;
  const auto client = packet.address.bytes();
  std::copy(client.begin(), client.end(), flow.client_address);
  if (packet.server) {
    const auto server = packet.server->bytes();
    std::copy(server.begin(), server.end(), flow.server_address);
    flow.has |= SARU_HAS_SERVER_ADDRESS;
  }
  if (packet.port) {
    flow.client_port = *packet.port;
    flow.has |= SARU_HAS_CLIENT_PORT;
  }
  if (packet.server_port) {
    flow.server_port = *packet.server_port;
    flow.has |= SARU_HAS_SERVER_PORT;
  }
  return flow;
}

// Whether this service fits the packet, if what is not given of its destination were as it wants.
bool may_fit(const Service& service, const ClientPacket& packet) {
  const auto protocol = static_cast<std::uint8_t>(packet.protocol);
  if (service.protocol && *service.protocol != protocol) return false;
  if (packet.server_port && *packet.server_port != service.port) return false;
  if (!service.address) return true;
  if (packet.server) return *packet.server == *service.address;
  return service.address->is_v4() == packet.address.is_v4();
}

// Which service it is depends on what was not given; says what to give.
std::optional<string> open_question(const ClientPacket& packet, const Selection& selection) {
  for (const Service& service : selection.services) {
    if (!may_fit(service, packet)) continue;
    const string why = "\"" + service.text() + "\" is a service of its own: ";
    if (!packet.server_port) return why + "say with --to to which port the packet goes";
    if (service.address && !packet.server) {
      return why + "say with --to to which ADDRESS:PORT the packet goes";
    }
    return std::nullopt;
  }
  return std::nullopt;
}

string missing_for(Selector selector, const ClientPacket& packet) {
  const string by = string("the block depends on ");
  switch (selector) {
    case Selector::kDstPort:
      return by + "the port that the packet goes to: give --to PORT";
    case Selector::kDstAddr:
      return by + "the shared address that the packet goes to: give --to ADDRESS:PORT";
    default:
      return by + "the client's port: give " +
             (packet.address.is_v4() ? packet.address.text() + ":PORT"
                                     : "[" + packet.address.text() + "]:PORT") +
             ", or the protocol icmp";
  }
}

// The shared address, where there is but one of the client's family.
void fill_in_server(ClientPacket& packet, const std::vector<IpAddress>& addresses) {
  const auto same = [&](const IpAddress& one) { return one.is_v4() == packet.address.is_v4(); };
  if (packet.server || std::count_if(addresses.begin(), addresses.end(), same) != 1) return;
  packet.server = *std::find_if(addresses.begin(), addresses.end(), same);
}

}  // namespace

tl::expected<ClientPacket, string> parse_client(const string& address, const string& word,
                                                const string& to) {
  const auto client = parse_endpoint(address);
  if (!client) return refuse(client.error());
  const auto protocol = parse_protocol(word);
  if (!protocol) {
    return refuse("protocol \"" + word +
                  "\" is not served; use tcp, udp, udplite, dccp, sctp, icmp or icmpv6");
  }
  ClientPacket packet{client->address, client->port, *protocol, std::nullopt, std::nullopt};
  if (to.empty()) return packet;
  packet.server_port = parse_port(to);
  if (packet.server_port) return packet;
  const auto server = parse_endpoint(to);
  if (!server) return refuse(server.error());
  if (server->address.is_v4() != client->address.is_v4()) {
    return refuse("a packet from " + client->address.text() + " cannot go to " +
                  server->address.text());
  }
  packet.server = server->address;
  packet.server_port = server->port;
  return packet;
}

tl::expected<ClientBlock, string> block_of(const ClientPacket& given, const Served& served) {
  ClientPacket packet = given;
  fill_in_server(packet, served.addresses);
  const BlockRule rule(served.selection);
  const saru_flow flow = flow_of(packet);
  const auto found = [&](saru_s32 value, Selector selector) {
    const auto block = saru_block_of(static_cast<saru_u32>(value), served.blocks);
    return ClientBlock{BlockId{static_cast<std::uint16_t>(block)}, selector};
  };
  if (packet.protocol == Protocol::kIcmp) {
    return found(saru_low16(flow.client_address, flow.version), Selector::kSrcAddr);
  }
  if (const auto question = open_question(packet, served.selection)) return refuse(*question);
  const auto selector = static_cast<Selector>(saru_selector_of(&flow, rule.get()));
  const saru_s32 value = saru_flow_value(&flow, rule.get());
  if (value < 0) return refuse(missing_for(selector, packet));
  return found(value, selector);
}

string to_text(const ClientPacket& packet) {
  const string name = packet.protocol == Protocol::kIcmp
                          ? "icmp"
                          : protocol_name(static_cast<std::uint8_t>(packet.protocol));
  string text = packet.protocol == Protocol::kIcmp ? packet.address.text()
                                                   : text_of(packet.address, packet.port);
  text += " " + name;
  if (packet.server) return text + " to " + text_of(*packet.server, packet.server_port);
  if (packet.server_port) return text + " to port " + std::to_string(*packet.server_port);
  return text;
}

}  // namespace saru
