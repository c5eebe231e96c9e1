// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace saru {
namespace {

std::optional<unsigned> parse_number(std::string_view text, unsigned most) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

// Why an address cannot be shared; nullptr when it can.
const char* unusable(const IpAddress& ip) {
  const auto b = ip.bytes();
  const bool zero = std::all_of(b.begin(), b.end(), [](std::uint8_t byte) { return byte == 0; });
  if (zero) return "the unspecified address";
  if (ip.is_v4()) {
    if (b[0] == 127) return "a loopback address";
    if (b[0] >= 224 && b[0] < 240) return "a multicast address";
    if (b[0] == 0 || b[0] >= 240) return "a reserved address";
    return nullptr;
  }
  if (b[0] == 0xff) return "a multicast address";
  if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) return "a link-local address";
  if (!std::all_of(b.begin(), b.begin() + 10, [](std::uint8_t byte) { return byte == 0; })) {
    return nullptr;
  }
  if (b[10] == 0xff && b[11] == 0xff) return "an IPv4-mapped address";
  if (b[15] == 1 &&
      std::all_of(b.begin() + 10, b.begin() + 15, [](auto byte) { return byte == 0; })) {
    return "the loopback address";
  }
  return nullptr;
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string terminated(text);
  if (terminated.size() != std::strlen(terminated.c_str())) return std::nullopt;
  IpAddress ip;
  if (inet_pton(AF_INET, terminated.c_str(), ip.bytes_.data()) == 1) return ip;
  ip.v4_ = false;
  if (inet_pton(AF_INET6, terminated.c_str(), ip.bytes_.data()) == 1) return ip;
  return std::nullopt;
}

std::optional<IpAddress> IpAddress::from_bytes(std::span<const std::uint8_t> bytes) {
  if (bytes.size() != 4 && bytes.size() != 16) return std::nullopt;
  IpAddress ip;
  ip.v4_ = bytes.size() == 4;
  std::copy(bytes.begin(), bytes.end(), ip.bytes_.begin());
  return ip;
}

std::string IpAddress::text() const {
  char buffer[INET6_ADDRSTRLEN];
  inet_ntop(v4_ ? AF_INET : AF_INET6, bytes_.data(), buffer, sizeof buffer);
  return buffer;
}

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  MacAddress mac;
  if (text.size() != 17) return std::nullopt;
  for (std::size_t i = 0; i < mac.bytes.size(); ++i) {
    const char* at = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(at, at + 2, mac.bytes[i], 16);
    if (error != std::errc{} || end != at + 2) return std::nullopt;
    if (i + 1 < mac.bytes.size() && at[2] != ':') return std::nullopt;
  }
  return mac;
}

std::string MacAddress::text() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    if (!text.empty()) text += ':';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

MacAddress derived_shared_mac(std::uint16_t id) {
  const auto high = static_cast<std::uint8_t>(id >> 8);
  const auto low = static_cast<std::uint8_t>(id & 0xff);
  return MacAddress{{0x02, 0x5a, 0x72, 0x00, high, low}};
}

MacAddress derived_inside_mac(const MacAddress& outside) {
  MacAddress mac = outside;
  mac.bytes[0] |= 0x02;
  mac.bytes[3] ^= 0x01;
  return mac;
}

nft::Result<ServiceAddress> ServiceAddress::parse(std::string_view text) {
  const auto bad = [&](const std::string& why) {
    return nft::fail(ErrorKind::kInvalid, "\"" + std::string(text) + "\" " + why);
  };
  const auto slash = text.find('/');
  const auto ip = IpAddress::parse(text.substr(0, slash));
  if (!ip) {
    return bad(
        "is not an address: give an IPv4 or IPv6 address, such as 192.168.20.40 or fd09::1/64");
  }
  if (const char* what = unusable(*ip)) {
    return bad(std::string("is ") + what + ": it cannot be shared by several nodes");
  }
  ServiceAddress address{*ip, ip->max_prefix()};
  if (slash == std::string_view::npos) return address;
  const auto prefix = parse_number(text.substr(slash + 1), ip->max_prefix());
  if (!prefix || *prefix == 0) {
    return bad("has a bad prefix length: give one from 1 to " + std::to_string(ip->max_prefix()));
  }
  address.prefix = *prefix;
  return address;
}

IpAddress ServiceAddress::subnet() const {
  std::array<std::uint8_t, 16> first{};
  const auto bytes = ip.bytes();
  for (unsigned bit = 0; bit < prefix; ++bit) {
    first[bit / 8] |= static_cast<std::uint8_t>(bytes[bit / 8] & (0x80U >> (bit % 8)));
  }
  return *IpAddress::from_bytes({first.data(), bytes.size()});
}

std::string ServiceAddress::text() const { return ip.text() + "/" + std::to_string(prefix); }

}  // namespace saru
