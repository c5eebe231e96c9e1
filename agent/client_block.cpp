// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/client_block.h"

#include <charconv>

namespace saru {
namespace {

using std::string;

constexpr unsigned kSelectorValues = 65536;

std::optional<std::uint16_t> parse_port(const string& text) {
  std::uint16_t port = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, port);
  if (error != std::errc{} || end != last) return std::nullopt;
  return port;
}

std::optional<Protocol> parse_protocol(const string& word) {
  if (word.empty() || word == "tcp") return Protocol::kTcp;
  if (word == "udp") return Protocol::kUdp;
  if (word == "icmp" || word == "icmpv6") return Protocol::kIcmp;
  return std::nullopt;
}

}  // namespace

tl::expected<ClientPacket, string> parse_client(const string& text, const string& word) {
  string host = text;
  string port;
  const std::size_t colon = text.rfind(':');
  if (!text.empty() && text.front() == '[') {
    const std::size_t bracket = text.find(']');
    if (bracket == string::npos) return tl::unexpected("\"" + text + "\" lacks a closing bracket");
    host = text.substr(1, bracket - 1);
    if (bracket + 1 < text.size()) port = text.substr(bracket + 1);
  } else if (colon != string::npos && text.find(':') == colon) {
    host = text.substr(0, colon);
    port = text.substr(colon);
  }
  const auto address = IpAddress::parse(host);
  if (!address) return tl::unexpected("\"" + host + "\" is not an IPv4 or IPv6 address");
  const auto protocol = parse_protocol(word);
  if (!protocol) {
    return tl::unexpected("protocol \"" + word + "\" is not served; use tcp, udp, icmp or icmpv6");
  }
  ClientPacket packet{*address, std::nullopt, *protocol};
  if (!port.empty()) {
    packet.port = port.front() == ':' ? parse_port(port.substr(1)) : std::nullopt;
    if (!packet.port)
      return tl::unexpected("the port in \"" + text + "\" is not a number to 65535");
  }
  if (packet.protocol != Protocol::kIcmp && !packet.port) {
    return tl::unexpected("the block of a TCP or UDP packet depends on the client's port: give " +
                          (address->is_v4() ? host + ":PORT" : "[" + host + "]:PORT") +
                          ", or the protocol icmp");
  }
  return packet;
}

BlockId block_of(const ClientPacket& packet, unsigned blocks) {
  const auto bytes = packet.address.bytes();
  const unsigned low = bytes[bytes.size() - 2] * 256U + bytes[bytes.size() - 1];
  const unsigned value = packet.protocol == Protocol::kIcmp ? low : packet.port.value_or(0);
  return BlockId{static_cast<std::uint16_t>(value / (kSelectorValues / blocks))};
}

string to_text(const ClientPacket& packet) {
  static const char* const names[] = {"tcp", "udp", "icmp"};
  const string name = names[static_cast<int>(packet.protocol)];
  const string host = packet.address.text();
  if (packet.protocol == Protocol::kIcmp) return host + " " + name;
  const string port = ":" + std::to_string(packet.port.value_or(0));
  return (packet.address.is_v4() ? host : "[" + host + "]") + port + " " + name;
}

}  // namespace saru
