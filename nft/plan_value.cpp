// SPDX-License-Identifier: GPL-2.0-or-later
// Where a packet has what its block is computed from, in the words of nf_tables.
#include <net/if.h>

#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

constexpr std::uint8_t kToUs = 0;  // PACKET_HOST

bool reads_address(Selector selector) {
  return selector != Selector::kSrcPort && selector != Selector::kDstPort;
}

}  // namespace

Expressions value_in(const TableConfig& config, Selector selector, const Place& place,
                     const char* set) {
  const unsigned block_size = SARU_SELECTOR_VALUES / config.blocks;
  const Expressions masked{Mask{big16(SARU_SELECTOR_VALUES - block_size)}, Lookup{set}};
  const bool client = selector != Selector::kDstPort && selector != Selector::kDstAddr;
  if (!reads_address(selector)) {
    return Expressions{LoadPayload{kTransport, place.port(client), 2}} + masked;
  }
  if (selector != Selector::kSrcAddrPort) {
    const std::uint32_t low = place.address(client) + place.ip_size() - 2;
    return Expressions{LoadPayload{place.ip_base(), low, 2}} + masked;
  }
  const std::uint32_t length = place.v4 ? SARU_HASH_V4 : SARU_HASH_V6;
  return Expressions{
             LoadPayload{place.ip_base(), place.address(client), place.ip_size()},
             LoadPayload{kTransport, place.port(client), 2, place.ip_size() / 4},
             Hash{length, config.selection.seed},
             ToBigEndian{2},
         } +
         masked;
}

std::string chain_name(const char* what, Selector selector) {
  std::string name = std::string(what) + "_" + selector_name(selector);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

const char* meaning(Selector selector) {
  switch (selector) {
    case Selector::kSrcPort:
      return "the client's port";
    case Selector::kDstPort:
      return "the service's port";
    case Selector::kSrcAddr:
      return "the low 16 bits of the client's address";
    case Selector::kDstAddr:
      return "the low 16 bits of the shared address";
    case Selector::kSrcAddrPort:
      break;
  }
  return "the hash of the client's address and port";
}

void add_by_value(Chain& chain, const TableConfig& config, Selector selector, const char* set,
                  const Expressions& then, const std::string& comment, Way way) {
  if (!reads_address(selector)) {
    chain.rules.push_back({comment, value_in(config, selector, {true, way}, set) + then});
    return;
  }
  for (const bool v4 : {true, false}) {
    if (!has_family(config, v4)) continue;
    chain.rules.push_back(
        {comment, family(v4) + value_in(config, selector, {v4, way}, set) + then});
  }
}

Expressions quoted_protocol(bool v4, const Expressions& is) {
  const Place quoted{v4, Way::kQuoted};  // the same in both directions
  const std::uint32_t next = quoted.ip() + (v4 ? SARU_V4_PROTOCOL : SARU_V6_PROTOCOL);
  const Expressions ported = Expressions{LoadPayload{kTransport, next, 1}} + is;
  if (!v4) {
    return Expressions{LoadPayload{kTransport, quoted.ip(), 1}, Mask{{0xf0}}, equals({0x60})} +
           ported;
  }
  return bytes_are(kTransport, quoted.ip(), {SARU_V4_PLAIN}) +
         Expressions{LoadPayload{kTransport, quoted.ip() + SARU_V4_FRAGMENT, 2},
                     Mask{big16(SARU_V4_OFFSET_MASK)}, equals(big16(0))} +
         ported;
}

Expressions type_in(std::uint8_t l4proto, const char* set) {
  return protocol(l4proto) + Expressions{LoadPayload{kTransport, 0, 1}, Lookup{set}};
}

Chain by_service(const TableConfig& config, const ByService& words) {
  Chain chain{words.name, words.comment, std::nullopt, {}};
  for (const Service& service : config.selection.services) {
    if (words.v4 && service.address && service.address->is_v4() != *words.v4) continue;
    if (words.tcp && service.protocol && *service.protocol != IPPROTO_TCP) continue;
    const bool v4 = words.v4.value_or(!service.address || service.address->is_v4());
    const Place place{v4, words.way};
    Expressions fits;
    if (service.address) {
      const auto bytes = service.address->bytes();
      if (!words.v4) fits = family(v4);
      fits = fits + bytes_are(place.ip_base(), place.address(false), {bytes.begin(), bytes.end()});
    }
    if (service.protocol && !words.tcp) {
      const std::uint32_t next = place.ip() + (v4 ? SARU_V4_PROTOCOL : SARU_V6_PROTOCOL);
      fits = fits + (words.way == Way::kQuoted ? bytes_are(kTransport, next, {*service.protocol})
                                               : protocol(*service.protocol));
    }
    chain.rules.push_back(
        {service.text(), fits + bytes_are(kTransport, place.port(false), big16(service.port)) +
                             Expressions{go_to(chain_name(words.by.c_str(), service.selector))}});
  }
  chain.rules.push_back(
      {"everything else", {go_to(chain_name(words.by.c_str(), config.selection.selector))}});
  return chain;
}

std::vector<Rule> to_shared(const TableConfig& config, bool as_source, const std::string& chain) {
  std::vector<Rule> rules;
  for (const bool v4 : {true, false}) {
    if (!has_family(config, v4)) continue;
    const std::uint32_t at = v4 ? (as_source ? SARU_V4_SOURCE : SARU_V4_DESTINATION)
                                : (as_source ? SARU_V6_SOURCE : SARU_V6_DESTINATION);
    rules.push_back(
        {as_source ? "from an address that all nodes share" : "to an address that all nodes share",
         family(v4) + Expressions{LoadPayload{kNetwork, at, v4 ? 4U : 16U},
                                  Lookup{v4 ? "address4" : "address6"}, go_to(chain)}});
  }
  return rules;
}

// Unicast that came in through this link, wherever it goes to.
Rule through_link(const std::string& link, const std::string& chain, const char* comment) {
  Bytes name(IFNAMSIZ);
  std::copy(link.begin(), link.end(), name.begin());
  return {comment,
          {LoadMeta{NFT_META_IIFNAME}, equals(std::move(name)), LoadMeta{NFT_META_PKTTYPE},
           equals({kToUs}), go_to(chain)}};
}

}  // namespace saru::nft
