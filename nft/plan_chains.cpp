// SPDX-License-Identifier: GPL-2.0-or-later
// Whose packet is it? kmod/saru_block.h in the words of nf_tables.
//
//   shared ─┬─► services ──► by_<selector> ──► answer_<selector> ─┬─► new_<selector>
//           └─► icmp ─┬────► answer ◄── quoted4_<selector>        └─ each jumps to `open` (the
//           lease)
//                     └────► icmp_error ──► quoted4
//
// A packet that a rule cannot read (it ends before) goes on to the drop at the end of its chain.
#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

// ---- A selector's value
// ----------------------------------------------------------------------------

// Where one family's IP header and the ports are, and which way the packet went. Quoted packets
// went from the service to the client.
struct Place {
  bool v4 = true;
  bool quoted = false;

  std::uint32_t ip_base() const { return quoted ? kTransport : kNetwork; }
  std::uint32_t ip() const { return quoted ? std::uint32_t{SARU_ICMP_HEADER} : 0U; }
  std::uint32_t ip_size() const { return v4 ? 4 : 16; }
  std::uint32_t address(bool client) const {
    const bool source = client != quoted;
    if (v4) return ip() + (source ? SARU_V4_SOURCE : SARU_V4_DESTINATION);
    return ip() + (source ? SARU_V6_SOURCE : SARU_V6_DESTINATION);
  }
  std::uint32_t port(bool client) const {
    const bool source = client != quoted;
    const std::uint32_t header = v4 ? SARU_V4_HEADER : SARU_V6_HEADER;
    return (quoted ? ip() + header : 0U) + (source ? SARU_PORT_SOURCE : SARU_PORT_DESTINATION);
  }
};

bool reads_address(Selector selector) {
  return selector != Selector::kSrcPort && selector != Selector::kDstPort;
}

// The masked value is an element of this set: of our blocks, or of all blocks, which count.
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

// The same rule for every family of the configuration; once, where the selector reads no address.
void add_by_value(Chain& chain, const TableConfig& config, Selector selector, const char* set,
                  const Expressions& then, const std::string& comment) {
  if (!reads_address(selector)) {
    chain.rules.push_back({comment, value_in(config, selector, {}, set) + then});
    return;
  }
  for (const bool v4 : {true, false}) {
    if (!has_family(config, v4)) continue;
    chain.rules.push_back(
        {comment, family(v4) + value_in(config, selector, {v4, false}, set) + then});
  }
}

// ---- TCP, UDP and their like
// -----------------------------------------------------------------------

Expressions answered() { return {Count{"accepted"}, accept()}; }

Rule under_lease() { return {"only as long as the lease lasts", {jump("open")}}; }

// The first packet of a connection counts for its block.
Chain new_chain(const TableConfig& config, Selector selector) {
  Chain chain{chain_name("new", selector), "new connections, counted by block", std::nullopt, {}};
  add_by_value(chain, config, selector, "load", answered(), "counted in the set load");
  chain.rules.push_back({"not counted, but answered", answered()});
  return chain;
}

Chain answer_chain(Selector selector) {
  constexpr std::uint8_t kFlags = 0x17;  // FIN, SYN, RST, ACK
  constexpr std::uint8_t kSyn = 0x02;
  constexpr std::uint8_t kInit = 1;
  const std::string counted = chain_name("new", selector);
  Chain chain{chain_name("answer", selector), "this node answers", std::nullopt, {}};
  chain.rules.push_back(under_lease());
  // Bytes 13 of a TCP header, 12 of an SCTP packet: flags, and the type of the first chunk.
  chain.rules.push_back(
      {"TCP: a client begins",
       protocol(IPPROTO_TCP) + Expressions{LoadPayload{kTransport, 13, 1}, Mask{{kFlags}},
                                           equals({kSyn}), go_to(counted)}});
  chain.rules.push_back(
      {"SCTP: a client begins (INIT)",
       protocol(IPPROTO_SCTP) + bytes_are(kTransport, 12, {kInit}) + Expressions{go_to(counted)}});
  chain.rules.push_back({"this node answers", answered()});
  return chain;
}

Chain by_chain(const TableConfig& config, Selector selector) {
  Chain chain{chain_name("by", selector), std::string("by ") + meaning(selector), std::nullopt, {}};
  add_by_value(chain, config, selector, "owned", {go_to(chain_name("answer", selector))},
               "in a block of this node");
  chain.rules.push_back(foreign_drop("another node accepts it"));
  return chain;
}

// To the chain of its selector, by destination port.
Chain services_chain(const TableConfig& config) {
  Chain chain{"services", "which selector: the first service that fits", std::nullopt, {}};
  for (const Service& service : config.selection.services) {
    Expressions fits;
    if (service.address) {
      const bool v4 = service.address->is_v4();
      const auto bytes = service.address->bytes();
      fits =
          family(v4) + bytes_are(kNetwork, Place{v4}.address(false), {bytes.begin(), bytes.end()});
    }
    if (service.protocol) fits = fits + protocol(*service.protocol);
    chain.rules.push_back(
        {service.text(), fits + bytes_are(kTransport, SARU_PORT_DESTINATION, big16(service.port)) +
                             Expressions{go_to(chain_name("by", service.selector))}});
  }
  chain.rules.push_back({"everything else", {go_to(chain_name("by", config.selection.selector))}});
  return chain;
}

// A packet of a foreign TCP connection passes three rules here and one of `by_...` before it is
// dropped.
Chain shared_chain(const TableConfig& config) {
  constexpr std::uint32_t kLoopbackIndex = 1;  // in every network namespace
  const std::string next =
      config.selection.services.empty() ? chain_name("by", config.selection.selector) : "services";
  Chain chain{"shared", "packets to a shared address: one node accepts each", std::nullopt, {}};
  chain.rules.push_back({"this node's own access to its addresses",
                         {LoadMeta{NFT_META_IIF}, equals(host_bytes(kLoopbackIndex)), accept()}});
  chain.rules.push_back(
      {"TCP first, being the most", protocol(IPPROTO_TCP) + Expressions{go_to(next)}});
  chain.rules.push_back({"the other protocols with ports",
                         {LoadMeta{NFT_META_L4PROTO}, Lookup{"with_ports"}, go_to(next)}});
  if (has_family(config, true)) {
    chain.rules.push_back({"ICMP has no ports",
                           family(true) + protocol(IPPROTO_ICMP) + Expressions{go_to("by_icmp")}});
  }
  if (has_family(config, false)) {
    chain.rules.push_back({"ICMPv6 has no ports", family(false) + protocol(IPPROTO_ICMPV6) +
                                                      Expressions{go_to("by_icmpv6")}});
  }
  chain.rules.push_back(foreign_drop("nobody serves this protocol"));
  return chain;
}

// ---- ICMP
// ------------------------------------------------------------------------------------------

// A quoted packet that tells its connection: see SARU_V4_PLAIN. The next header of IPv6 says by
// itself that there is no extension.
Expressions plain(bool v4) {
  const Place quoted{v4, true};
  const std::uint32_t next = quoted.ip() + (v4 ? SARU_V4_PROTOCOL : SARU_V6_PROTOCOL);
  const Expressions ported{LoadPayload{kTransport, next, 1}, Lookup{"with_ports"}};
  if (!v4) {
    return Expressions{LoadPayload{kTransport, quoted.ip(), 1}, Mask{{0xf0}}, equals({0x60})} +
           ported;
  }
  return bytes_are(kTransport, quoted.ip(), {SARU_V4_PLAIN}) +
         Expressions{LoadPayload{kTransport, quoted.ip() + SARU_V4_FRAGMENT, 2},
                     Mask{big16(SARU_V4_OFFSET_MASK)}, equals(big16(0))} +
         ported;
}

struct IcmpNames {
  std::uint8_t l4proto;
  const char* chain;
  const char* error_chain;
  const char* quoted_chain;
  const char* queries;
  const char* errors;
};
constexpr IcmpNames kIcmp4{IPPROTO_ICMP, "by_icmp",    "icmp_error",
                           "quoted4",    "icmp_query", "icmp_error"};
constexpr IcmpNames kIcmp6{IPPROTO_ICMPV6, "by_icmpv6",    "icmpv6_error",
                           "quoted6",      "icmpv6_query", "icmpv6_error"};

std::string quoted_by(const IcmpNames& names, Selector selector) {
  return chain_name((std::string(names.quoted_chain) + "_by").c_str(), selector);
}

Chain quoted_by_chain(const TableConfig& config, bool v4, Selector selector) {
  Chain chain{quoted_by(v4 ? kIcmp4 : kIcmp6, selector),
              std::string("quoted: by ") + meaning(selector),
              std::nullopt,
              {{"in a block of this node",
                value_in(config, selector, {v4, true}, "owned") + Expressions{go_to("answer")}}}};
  chain.rules.push_back(foreign_drop("another node sent the quoted packet"));
  return chain;
}

// To the chain of the selector by which the quoted packet's connection goes.
Chain quoted_services_chain(const TableConfig& config, bool v4) {
  const IcmpNames& names = v4 ? kIcmp4 : kIcmp6;
  const Place quoted{v4, true};
  Chain chain{names.quoted_chain, "which selector, seen from the client", std::nullopt, {}};
  for (const Service& service : config.selection.services) {
    if (service.address && service.address->is_v4() != v4) continue;
    Expressions fits;
    if (service.address) {
      const auto bytes = service.address->bytes();
      fits = bytes_are(kTransport, quoted.address(false), {bytes.begin(), bytes.end()});
    }
    if (service.protocol) {
      const std::uint32_t next = quoted.ip() + (v4 ? SARU_V4_PROTOCOL : SARU_V6_PROTOCOL);
      fits = fits + bytes_are(kTransport, next, {*service.protocol});
    }
    chain.rules.push_back(
        {service.text(), fits + bytes_are(kTransport, quoted.port(false), big16(service.port)) +
                             Expressions{go_to(quoted_by(names, service.selector))}});
  }
  chain.rules.push_back({"everything else", {go_to(quoted_by(names, config.selection.selector))}});
  return chain;
}

// The protocol is known by then, but without it nft does not print the type by its name.
Expressions type_in(std::uint8_t l4proto, const char* set) {
  return protocol(l4proto) + Expressions{LoadPayload{kTransport, 0, 1}, Lookup{set}};
}

void add_icmp_chains(std::vector<Chain>& chains, const TableConfig& config, bool v4) {
  const IcmpNames& names = v4 ? kIcmp4 : kIcmp6;
  const Expressions by_source =
      value_in(config, Selector::kSrcAddr, {v4, false}, "owned") + Expressions{go_to("answer")};

  Chain icmp{names.chain, "", std::nullopt, {}};
  if (!v4) {
    icmp.rules.push_back({"neighbour discovery: every node answers",
                          type_in(names.l4proto, "neighbour") + Expressions{accept()}});
  }
  icmp.rules.push_back(
      {"errors", type_in(names.l4proto, names.errors) + Expressions{go_to(names.error_chain)}});
  icmp.rules.push_back({"queries: by the low 16 bits of the client's address",
                        type_in(names.l4proto, names.queries) + by_source});
  icmp.rules.push_back(foreign_drop("another node accepts it, or nobody serves this type"));
  chains.push_back(std::move(icmp));

  const std::string next = config.selection.services.empty()
                               ? quoted_by(names, config.selection.selector)
                               : names.quoted_chain;
  Chain error{names.error_chain, "errors, also fragmentation needed (path MTU)", std::nullopt, {}};
  error.rules.push_back({"quotes a plain packet", plain(v4) + Expressions{go_to(next)}});
  error.rules.push_back({"quotes something else: by the sender's address", by_source});
  error.rules.push_back(foreign_drop("another node accepts it"));
  chains.push_back(std::move(error));

  if (!config.selection.services.empty()) chains.push_back(quoted_services_chain(config, v4));
  for (const Selector selector : kSelectors) {
    if (config.selection.uses(selector)) chains.push_back(quoted_by_chain(config, v4, selector));
  }
}

}  // namespace

std::vector<Chain> ownership_chains(const TableConfig& config) {
  std::vector<Chain> chains{shared_chain(config)};
  if (!config.selection.services.empty()) chains.push_back(services_chain(config));
  for (const Selector selector : kSelectors) {
    if (!config.selection.uses(selector)) continue;
    chains.push_back(by_chain(config, selector));
    chains.push_back(answer_chain(selector));
    chains.push_back(new_chain(config, selector));
  }
  for (const bool v4 : {true, false}) {
    if (has_family(config, v4)) add_icmp_chains(chains, config, v4);
  }
  chains.push_back({"answer",
                    "this node answers",
                    std::nullopt,
                    {under_lease(), {"this node answers", answered()}}});
  return chains;
}

}  // namespace saru::nft
