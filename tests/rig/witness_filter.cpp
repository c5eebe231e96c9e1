// SPDX-License-Identifier: GPL-2.0-or-later
#include "witness_filter.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <span>

namespace witness {
namespace {

constexpr std::uint32_t kSourceMac = 6;
constexpr std::uint32_t kEtherType = 12;
constexpr std::uint32_t kV4Source = 14 + 12;
constexpr std::uint32_t kV4Destination = 14 + 16;
constexpr std::uint32_t kV6Source = 14 + 8;
constexpr std::uint32_t kV6Destination = 14 + 24;

struct Field {
  std::uint32_t offset;
  std::uint32_t value;
  std::uint16_t size;  // BPF_W or BPF_H
};

// "All fields equal: keep the frame"; otherwise control goes on after the emitted code.
void emit_keep_if(std::vector<sock_filter>& code, std::span<const Field> fields) {
  const std::size_t count = fields.size();
  for (std::size_t i = 0; i < count; ++i) {
    // Two instructions per field still to come, and the return.
    const auto skip = static_cast<std::uint8_t>(2 * (count - i - 1) + 1);
    code.push_back(
        BPF_STMT(static_cast<std::uint16_t>(BPF_LD | fields[i].size | BPF_ABS), fields[i].offset));
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, fields[i].value, 0, skip));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, kSnapLength));
}

std::uint32_t word_at(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 |
         std::uint32_t{bytes[2]} << 8 | bytes[3];
}

void emit_address(std::vector<sock_filter>& code, const Address& address, std::uint32_t offset) {
  std::vector<Field> fields;
  const std::uint32_t ethertype = address.is_v6 ? ETH_P_IPV6 : ETH_P_IP;
  fields.push_back({kEtherType, ethertype, BPF_H});
  const std::uint32_t words = address.is_v6 ? 4 : 1;
  // The last word differs most often, so it is compared first.
  for (std::size_t i = words; i-- > 0;) {
    fields.push_back(
        {offset + 4 * static_cast<std::uint32_t>(i), word_at(address.bytes.data() + 4 * i), BPF_W});
  }
  emit_keep_if(code, fields);
}

}  // namespace

std::vector<sock_filter> build_filter(const Setup& setup, Side side) {
  std::vector<sock_filter> code;
  // At a switch port the frames that leave the switch are of no interest: each of them entered
  // it somewhere else. At a node's own port it is the other way round.
  code.push_back(
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_PKTTYPE)));
  const bool want_outgoing = side == Side::kNodePort;
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING,
                          static_cast<std::uint8_t>(want_outgoing ? 1 : 0),
                          static_cast<std::uint8_t>(want_outgoing ? 0 : 1)));
  code.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  for (const Address& address : setup.addresses) {
    emit_address(code, address, address.is_v6 ? kV6Source : kV4Source);
    emit_address(code, address, address.is_v6 ? kV6Destination : kV4Destination);
  }
  if (setup.shared_mac) {
    const Mac& mac = *setup.shared_mac;
    const Field fields[] = {
        {kSourceMac + 2, word_at(mac.data() + 2), BPF_W},
        {kSourceMac, std::uint32_t{mac[0]} << 8 | mac[1], BPF_H},
    };
    emit_keep_if(code, fields);
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  return code;
}

}  // namespace witness
