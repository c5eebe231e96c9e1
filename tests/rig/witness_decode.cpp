// SPDX-License-Identifier: GPL-2.0-or-later
#include "witness_decode.h"

#include <linux/if_ether.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace witness {
namespace {

constexpr std::size_t kEtherLength = 14;
constexpr std::uint8_t kEchoReplyV4 = 0;
constexpr std::uint8_t kEchoRequestV4 = 8;
constexpr std::uint8_t kEchoRequestV6 = 128;
constexpr std::uint8_t kEchoReplyV6 = 129;

std::uint16_t half_at(std::span<const std::uint8_t> bytes, std::size_t offset) {
  return static_cast<std::uint16_t>(bytes[offset] << 8 | bytes[offset + 1]);
}

std::uint32_t word_at(std::span<const std::uint8_t> bytes, std::size_t offset) {
  return std::uint32_t{half_at(bytes, offset)} << 16 | half_at(bytes, offset + 2);
}

Address address_at(std::span<const std::uint8_t> bytes, std::size_t offset, bool is_v6) {
  Address address;
  address.is_v6 = is_v6;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), is_v6 ? 16 : 4,
              address.bytes.begin());
  return address;
}

struct Network {
  Address source;
  Address destination;
  std::uint8_t protocol = 0;
  std::size_t header_length = 0;
  std::size_t transport_length = 0;
};

// False for what has no transport header here: later fragments, extension headers, short frames.
bool read_network(std::span<const std::uint8_t> data, bool is_v6, Network& network) {
  if (is_v6) {
    if (data.size() < 40) return false;
    network = {address_at(data, 8, true), address_at(data, 24, true), data[6], 40,
               half_at(data, 4)};
    return true;
  }
  if (data.size() < 20) return false;
  const std::size_t header = std::size_t{data[0] & 0x0fU} * 4;
  const std::size_t total = half_at(data, 2);
  if (header < 20 || total < header || (half_at(data, 6) & 0x1fff) != 0) return false;
  network = {address_at(data, 12, false), address_at(data, 16, false), data[9], header,
             total - header};
  return true;
}

}  // namespace

Address client_address(const Record& record) {
  Address address;
  address.is_v6 = record.length == 16;
  std::memcpy(address.bytes.data(), &record.id, 8);
  std::memcpy(address.bytes.data() + 8, &record.seq, 4);
  std::memcpy(address.bytes.data() + 12, &record.ack, 4);
  return address;
}

int Decoder::shared_index(const Address& address) const {
  for (std::size_t i = 0; i < setup_.addresses.size(); ++i) {
    if (setup_.addresses[i] == address) return static_cast<int>(i);
  }
  return -1;
}

std::uint16_t Decoder::client_index(const Address& address, std::uint64_t time_ns,
                                    std::vector<Record>& out) {
  std::array<std::uint8_t, 17> key{};
  std::copy(address.bytes.begin(), address.bytes.end(), key.begin());
  key[16] = address.is_v6 ? 1 : 0;
  const auto [place, is_new] =
      clients_.try_emplace(key, static_cast<std::uint16_t>(clients_.size()));
  if (is_new) {
    Record definition;
    definition.time_ns = time_ns;
    definition.kind = Kind::kClientAddress;
    definition.client = place->second;
    definition.length = address.is_v6 ? 16 : 4;
    std::memcpy(&definition.id, address.bytes.data(), 8);
    std::memcpy(&definition.seq, address.bytes.data() + 8, 4);
    std::memcpy(&definition.ack, address.bytes.data() + 12, 4);
    out.push_back(definition);
  }
  return place->second;
}

bool Decoder::decode_transport(std::span<const std::uint8_t> data, std::uint8_t protocol,
                               std::size_t transport_length, bool from_client,
                               Record& record) const {
  if (protocol == IPPROTO_TCP) {
    if (data.size() < 20) return false;
    const std::size_t header = std::size_t{data[12]} / 16 * 4;
    if (header < 20 || header > transport_length) return false;
    record.kind = from_client ? Kind::kTcpFromClient : Kind::kTcpFromNode;
    record.client_port = half_at(data, from_client ? 0 : 2);
    record.service_port = half_at(data, from_client ? 2 : 0);
    record.seq = word_at(data, 4);
    record.ack = word_at(data, 8);
    record.tcp_flags = data[13];
    record.length = static_cast<std::uint16_t>(transport_length - header);
    return true;
  }
  if (protocol == IPPROTO_UDP) {
    if (data.size() < 16) return false;
    record.client_port = half_at(data, from_client ? 0 : 2);
    record.service_port = half_at(data, from_client ? 2 : 0);
    if (record.service_port != setup_.probe_port) return false;
    record.kind = from_client ? Kind::kUdpQuestion : Kind::kUdpAnswer;
    record.id = std::uint64_t{word_at(data, 8)} << 32 | word_at(data, 12);
    return true;
  }
  const bool is_v6 = protocol == IPPROTO_ICMPV6;
  if ((protocol != IPPROTO_ICMP && !is_v6) || data.size() < 8) return false;
  const std::uint8_t request = is_v6 ? kEchoRequestV6 : kEchoRequestV4;
  const std::uint8_t reply = is_v6 ? kEchoReplyV6 : kEchoReplyV4;
  if (data[0] != (from_client ? request : reply)) return false;
  record.kind = from_client ? Kind::kEchoRequest : Kind::kEchoReply;
  record.id = word_at(data, 4);
  return true;
}

bool Decoder::decode_ip(std::span<const std::uint8_t> frame, std::uint64_t time_ns, Record& record,
                        std::vector<Record>& out) {
  const std::uint16_t ethertype = half_at(frame, 12);
  if (ethertype != ETH_P_IP && ethertype != ETH_P_IPV6) return false;
  Network network;
  const auto data = frame.subspan(kEtherLength);
  if (!read_network(data, ethertype == ETH_P_IPV6, network)) return false;
  const int to = shared_index(network.destination);
  const int from = shared_index(network.source);
  if ((to < 0) == (from < 0) || network.header_length > data.size()) return false;
  const bool from_client = to >= 0;
  record.address = static_cast<std::uint8_t>(from_client ? to : from);
  if (!decode_transport(data.subspan(network.header_length), network.protocol,
                        network.transport_length, from_client, record)) {
    return false;
  }
  record.client = client_index(from_client ? network.source : network.destination, time_ns, out);
  return true;
}

void Decoder::decode(std::span<const std::uint8_t> frame, std::uint64_t time_ns, std::uint8_t link,
                     std::vector<Record>& out) {
  if (frame.size() < kEtherLength) return;
  Record record;
  record.time_ns = time_ns;
  record.link = link;
  const auto source = frame.subspan(6, 6);
  const auto is_source = [&](const Mac& mac) {
    return std::equal(mac.begin(), mac.end(), source.begin());
  };
  if (setup_.shared_mac && is_source(*setup_.shared_mac)) record.notes |= kNoteSharedMac;
  const bool decoded = decode_ip(frame, time_ns, record, out);
  if (!decoded) {
    ++undecodable_;
    if (record.notes == 0) return;
    record.kind = Kind::kOther;
    record.length = half_at(frame, 12);
    record.id = std::uint64_t{half_at(frame, 0)} << 32 | word_at(frame, 2);
  }
  const bool is_answer = record.kind == Kind::kTcpFromNode || record.kind == Kind::kUdpAnswer ||
                         record.kind == Kind::kEchoReply;
  const auto& mac = setup_.links[link].mac;
  if (is_answer && mac && !is_source(*mac)) record.notes |= kNoteWrongMac;
  out.push_back(record);
}

}  // namespace witness
