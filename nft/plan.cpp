// SPDX-License-Identifier: GPL-2.0-or-later
#include "nft/plan.h"

#include <net/if.h>

#include <algorithm>
#include <bit>
#include <set>

#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

// How nft (its enum datatypes) names the type of a set's key.
constexpr std::uint32_t kTypeNfProto = 2;
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypeInetProto = 12;
constexpr std::uint32_t kTypeInetService = 13;
constexpr std::uint32_t kTypeIcmp = 14;
constexpr std::uint32_t kTypeIcmpv6 = 29;

// Above this the kernel's bitmap set, whose every update is linear, is worse than its hash: at 512
// blocks a switch of half of them took 4.5 ms with the bitmap and 1.0 ms with the hash (busy
// machine), and a lookup costs 6 to 11 ns more. A set that may have timeouts is never a bitmap.
constexpr unsigned kLargestBitmap = 64;
constexpr std::uint32_t kMostAddresses = 64;
constexpr std::size_t kMostNodeName = 40;
constexpr char kTwin[] = "_live";
constexpr std::uint16_t kEther = 1;  // ARPHRD_ETHER

Bytes big64(std::uint64_t value) {
  Bytes bytes(8);
  for (int i = 7; i >= 0; --i, value >>= 8) bytes[i] = static_cast<std::uint8_t>(value & 0xff);
  return bytes;
}

// Of the numbers from 0 to 255 those that `is_in` says.
template <class IsIn>
Set constant_set(const char* name, const char* comment, std::uint32_t key_type, IsIn&& is_in) {
  Set set{.name = name, .comment = comment, .key_type = key_type, .key_length = 1};
  set.flags = NFT_SET_CONSTANT;
  for (unsigned value = 0; value < 256; ++value) {
    if (is_in(value)) set.elements.push_back({static_cast<std::uint8_t>(value)});
  }
  set.size = static_cast<std::uint32_t>(set.elements.size());
  return set;
}

Set icmp_set(const char* name, const char* comment, bool v4, saru_icmp_kind kind) {
  return constant_set(name, comment, v4 ? kTypeIcmp : kTypeIcmpv6,
                      [&](unsigned type) { return saru_icmp_kind_of(v4 ? 4 : 6, type) == kind; });
}

Set address_set(const TableConfig& config, bool v4) {
  Set set{.name = v4 ? "address4" : "address6",
          .comment = "the addresses that all nodes share",
          .key_type = v4 ? kTypeIpv4 : kTypeIpv6,
          .key_length = v4 ? 4U : 16U,
          .size = kMostAddresses};
  for (const Side side : sides_of(config)) {
    for (const IpAddress& ip : link_of(config, side).addresses) {
      if (ip.is_v4() == v4) set.elements.emplace_back(ip.bytes().begin(), ip.bytes().end());
    }
  }
  std::sort(set.elements.begin(), set.elements.end());
  return set;
}

Set block_set(const TableConfig& config, const char* name, const BlockSet& blocks) {
  Set set{.name = name, .comment = "", .key_type = kTypeInetService, .key_length = 2};
  if (config.blocks > kLargestBitmap) set.flags = NFT_SET_TIMEOUT;
  blocks.for_each([&](BlockId block) { set.elements.push_back(block_key(block, config.blocks)); });
  return set;
}

std::vector<Set> block_sets(const TableConfig& config, const Accepting& accepting) {
  std::vector<Set> sets{block_set(config, "owned", accepting.owned)};
  sets.front().comment = "this node's blocks: first value of each, " +
                         std::to_string(config.blocks) + " blocks of " +
                         std::to_string(SARU_SELECTOR_VALUES / config.blocks);
  if (!config.stays) return sets;
  sets.push_back(block_set(config, "lingering", accepting.lingering));
  sets.back().comment = "blocks that went to another node: their connections go on here";
  sets.push_back(block_set(config, "contested", accepting.contested));
  sets.back().comment = "this node's blocks whose connections may go on at another node";
  return sets;
}

Set load_set(const TableConfig& config, const std::vector<std::uint64_t>& counted) {
  Set set{.name = "load",
          .comment = "new connections that this node accepted, by block (TCP and SCTP)",
          .key_type = kTypeInetService,
          .key_length = 2,
          .size = config.blocks};
  set.counts = true;
  set.counted = counted;
  for (unsigned b = 0; b < config.blocks; ++b) {
    set.elements.push_back(block_key(BlockId{static_cast<std::uint16_t>(b)}, config.blocks));
  }
  return set;
}

Set lease_set(const TableConfig& config, const std::optional<Lease>& lease) {
  Set set{.name = "lease",
          .comment = "dead man's switch: without these elements the address is closed",
          .key_type = kTypeNfProto,
          .key_length = 1,
          .host_order = true,
          .flags = NFT_SET_TIMEOUT};
  if (!lease) return set;
  set.timeout_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(lease->remaining).count());
  for (const std::uint8_t key : lease_keys(config)) set.elements.push_back({key});
  return set;
}

std::vector<Set> make_sets(const TableConfig& config, const Contents& contents) {
  std::vector<Set> sets = block_sets(config, contents.accepting);
  sets.push_back(lease_set(config, contents.lease));
  sets.push_back(load_set(config, contents.loads));
  sets.push_back(constant_set("with_ports", "protocols whose headers begin with ports",
                              kTypeInetProto, saru_has_ports));
  for (const bool v4 : {true, false}) {
    if (!has_family(config, v4)) continue;
    sets.push_back(address_set(config, v4));
    if (!v4) {
      sets.push_back(icmp_set("neighbour", "neighbour discovery", v4, SARU_ICMP_NEIGHBOUR));
    }
    sets.push_back(icmp_set(v4 ? "icmp_query" : "icmpv6_query",
                            "told apart by the client's address", v4, SARU_ICMP_QUERY));
    sets.push_back(icmp_set(v4 ? "icmp_error" : "icmpv6_error",
                            "told apart by the packet they quote", v4, SARU_ICMP_ERROR));
  }
  return sets;
}

// The same by the MAC address, should somebody give the interface another name.
Rule to_mac(const MacAddress& mac, const std::string& chain, const char* comment) {
  return {comment,
          {LoadMeta{NFT_META_IIFTYPE}, equals(host_bytes(kEther)),
           LoadPayload{NFT_PAYLOAD_LL_HEADER, 0, 6},
           equals(Bytes(mac.bytes.begin(), mac.bytes.end())), go_to(chain)}};
}

Chain prerouting_chain(const TableConfig& config) {
  Chain chain{"prerouting", "", Hook{NF_INET_PRE_ROUTING, kPriority, "", true},
              to_shared(config, false, "shared")};
  if (!config.inside) return chain;
  const LinkConfig& inside = *config.inside;
  chain.rules.insert(
      chain.rules.begin(),
      {through_link(inside.link, "inside", "from the hosts inside"),
       to_mac(inside.shared_mac, "inside", "from there, whatever the interface is called now")});
  chain.rules.push_back(through_link(config.link, "shared", "from outside to the hosts inside"));
  chain.rules.push_back(
      to_mac(config.shared_mac, "shared", "the same, whatever the interface is called now"));
  return chain;
}

std::vector<std::string> counters_of(const TableConfig& config) {
  std::vector<std::string> counters{"accepted", "foreign", "late"};
  if (config.stays) counters.emplace_back("stray");
  return counters;
}

Chain defragment_chain() {
  return {"defragment",
          "nothing comes here; the rule makes the kernel join fragments first",
          std::nullopt,
          {{"never reached",
            protocol(IPPROTO_TCP) + Expressions{LoadConstant{big16(1)}, TproxyToPort{}}}}};
}

Chain masking_chain(const std::string& name, const std::string& device, const LinkConfig& link) {
  const Bytes shared(link.shared_mac.bytes.begin(), link.shared_mac.bytes.end());
  const Bytes own(link.own_mac.bytes.begin(), link.own_mac.bytes.end());
  // Offset 6 of the Ethernet header: the source.
  const Rule rule{"the shared MAC never leaves as a source",
                  {LoadMeta{NFT_META_IIFTYPE}, equals(host_bytes(kEther)),
                   LoadPayload{NFT_PAYLOAD_LL_HEADER, 6, 6}, equals(shared), LoadConstant{own},
                   StorePayload{NFT_PAYLOAD_LL_HEADER, 6, 6}}};
  return {name, "", Hook{NF_NETDEV_EGRESS, 0, device, true}, {rule}};
}

std::optional<Error> check_selection(const TableConfig& config) {
  const auto bad = [](std::string text) { return Error{ErrorKind::kInvalid, std::move(text)}; };
  if (config.selection.services.size() > SARU_MAX_SERVICES) {
    return bad(std::to_string(config.selection.services.size()) +
               " services are too many: at most " + std::to_string(SARU_MAX_SERVICES));
  }
  for (const Service& service : config.selection.services) {
    if (!service.address) continue;
    const auto& shared = config.addresses;
    if (std::find(shared.begin(), shared.end(), *service.address) != shared.end()) continue;
    return bad("service \"" + service.text() + "\" is on none of the shared addresses");
  }
  // A hash is a number in host order; its low half comes first only in a little-endian register.
  if (std::endian::native == std::endian::big && config.selection.uses(Selector::kSrcAddrPort)) {
    return bad("selector src-addr-port does not work on big-endian machines: choose another one");
  }
  return std::nullopt;
}

std::optional<Error> check_link(const LinkConfig& link) {
  const auto bad = [](std::string text) { return Error{ErrorKind::kInvalid, std::move(text)}; };
  if (link.nic.empty() || link.nic.size() >= IFNAMSIZ) {
    return bad("\"" + link.nic + "\" is no name of a network interface");
  }
  if (link.link.empty() || link.link.size() >= IFNAMSIZ || link.link == link.nic) {
    return bad("\"" + link.link + "\" cannot be the name of the shared interface");
  }
  for (const MacAddress& mac : {link.shared_mac, link.own_mac}) {
    if (mac.is_multicast() || mac.is_zero()) {
      return bad(mac.text() +
                 " is no MAC address of one interface: the first byte must be even, and not "
                 "all bytes zero");
    }
  }
  if (link.shared_mac == link.own_mac) {
    return bad("the shared MAC " + link.shared_mac.text() +
               " is the NIC's own: choose another one");
  }
  return std::nullopt;
}

// Both directions of a connection must tell its block, whatever NAT has changed in between.
std::optional<Error> check_inside(const TableConfig& config) {
  if (!config.inside) return std::nullopt;
  const auto bad = [](std::string text) { return Error{ErrorKind::kInvalid, std::move(text)}; };
  const LinkConfig outside = link_of(config, Side::kOutside);
  const LinkConfig& inside = *config.inside;
  const Selector selector = config.selection.selector;
  if (selector == Selector::kDstPort || selector == Selector::kDstAddr) {
    return bad(std::string("with an inside the selector cannot be ") + selector_name(selector) +
               ", which NAT changes: choose src-port, src-addr or src-addr-port");
  }
  if (!config.selection.services.empty()) {
    return bad(
        "with an inside there can be no services: their ports are not those of the hosts inside "
        "once NAT has changed them; leave them out");
  }
  if (config.stays) {
    return bad("with an inside connections cannot stay: choose none");
  }
  for (const std::string& name : {outside.nic, outside.link}) {
    if (name == inside.nic || name == inside.link) {
      return bad("\"" + name + "\" cannot be an interface of both sides: choose another one");
    }
  }
  for (const MacAddress& shared : {outside.shared_mac, inside.shared_mac}) {
    const bool twice = outside.shared_mac == inside.shared_mac;
    if (twice || shared == outside.own_mac || shared == inside.own_mac) {
      return bad("the shared MAC " + shared.text() +
                 " is also that of another interface: choose another one");
    }
  }
  return std::nullopt;
}

}  // namespace

std::string table_name(std::uint16_t id) { return "saru_" + std::to_string(id); }
std::string twin_name(std::uint16_t id) { return table_name(id) + kTwin; }
std::string link_name(std::uint16_t id, Side side) {
  return "saru" + std::to_string(id) + (side == Side::kInside ? "i" : "");
}

LinkConfig link_of(const TableConfig& config, Side side) {
  if (side == Side::kInside) return config.inside.value();
  return {config.addresses, config.shared_mac, config.own_mac, config.nic, config.link};
}

std::vector<Side> sides_of(const TableConfig& config) {
  if (config.inside) return {Side::kOutside, Side::kInside};
  return {Side::kOutside};
}

bool same_blocks(const TableConfig& a, const TableConfig& b) {
  return a.blocks == b.blocks && a.selection == b.selection;
}

bool same_interfaces(const TableConfig& a, const TableConfig& b) {
  const auto sides = sides_of(a);
  const auto same = [&](Side side) {
    LinkConfig one = link_of(a, side);
    const LinkConfig other = link_of(b, side);
    one.addresses = other.addresses;
    return one == other;
  };
  return sides == sides_of(b) && std::all_of(sides.begin(), sides.end(), same);
}

std::optional<Error> check(const TableConfig& config) {
  const auto bad = [](std::string text) { return Error{ErrorKind::kInvalid, std::move(text)}; };
  if (config.id == 0) return bad("cluster id 0 does not exist: give one from 1 to 65535");
  if (!is_block_count(config.blocks)) {
    return bad("an address cannot be cut in " + std::to_string(config.blocks) +
               " blocks: give a power of two from 16 to 4096");
  }
  std::vector<IpAddress> addresses;
  for (const Side side : sides_of(config)) {
    const auto of_side = link_of(config, side).addresses;
    if (of_side.empty()) return bad("no address to share: give at least one");
    addresses.insert(addresses.end(), of_side.begin(), of_side.end());
  }
  if (addresses.size() > kMostAddresses) {
    return bad(std::to_string(addresses.size()) + " addresses are too many: at most " +
               std::to_string(kMostAddresses));
  }
  const std::set<IpAddress> distinct(addresses.begin(), addresses.end());
  if (distinct.size() != addresses.size()) return bad("an address is given twice");
  if (auto error = check_selection(config)) return error;
  for (const Side side : sides_of(config)) {
    if (auto error = check_link(link_of(config, side))) return error;
  }
  return check_inside(config);
}

std::vector<SetOfBlocks> sets_of_blocks(const TableConfig& config) {
  std::vector<SetOfBlocks> sets{{"owned", &Accepting::owned}};
  if (!config.stays) return sets;
  sets.push_back({"lingering", &Accepting::lingering});
  sets.push_back({"contested", &Accepting::contested});
  return sets;
}

std::vector<std::uint8_t> lease_keys(const TableConfig& config) {
  std::vector<std::uint8_t> keys;
  if (has_family(config, true)) keys.push_back(NFPROTO_IPV4);
  if (has_family(config, false)) keys.push_back(NFPROTO_IPV6);
  return keys;
}

std::vector<Rule> open_rules(const TableConfig&, const std::optional<Lease>& lease) {
  if (!lease) return {{"closed", {Count{"late"}, drop()}}};
  const auto deadline = static_cast<std::uint64_t>(lease->realtime.count());
  // Who is let through returns to the chain that jumped here.
  return {{"the lease ends at this time, however long this process sleeps",
           {LoadMeta{NFT_META_TIME_NS}, ToBigEndian{8}, Compare{NFT_CMP_GTE, big64(deadline)},
            Count{"late"}, drop()}},
          {"the lease has run out",
           {LoadMeta{NFT_META_NFPROTO}, Lookup{"lease", true}, Count{"late"}, drop()}}};
}

Plan make_plan(const TableConfig& config, const Contents& contents, const Features& features,
               bool with_link, bool with_inside_link) {
  Plan plan;
  const std::string id = std::to_string(config.id);
  const std::string node = config.node_name.substr(0, kMostNodeName);
  plan.inet = {
      NFPROTO_INET,
      table_name(config.id),
      "saru " + id + " on " + node + ": which packets this node accepts; do not edit, do not save",
      counters_of(config),
      make_sets(config, contents),
      {}};
  auto& chains = plan.inet.chains;
  chains.push_back({"open", "lets our packets through as long as the lease lasts", std::nullopt,
                    open_rules(config, contents.lease)});
  for (Chain& chain : ownership_chains(config)) chains.push_back(std::move(chain));
  chains.push_back(prerouting_chain(config));
  if (config.stays) {
    for (Chain& chain : connection_chains(config)) chains.push_back(std::move(chain));
  }
  if (config.syncs) {
    for (Chain& chain : event_chains(config)) chains.push_back(std::move(chain));
  }
  if (features.defragments) chains.push_back(defragment_chain());

  plan.netdev = {NFPROTO_NETDEV,
                 table_name(config.id),
                 "saru " + id + " on " + node + ": hides the shared MAC; do not edit, do not save",
                 {},
                 {},
                 {}};
  for (const Side side : sides_of(config)) {
    const bool inside = side == Side::kInside;
    const LinkConfig link = link_of(config, side);
    const std::string prefix = inside ? "inside_" : "";
    plan.netdev.chains.push_back(masking_chain(prefix + "nic", link.nic, link));
    if (inside ? with_inside_link : with_link) {
      plan.netdev.chains.push_back(masking_chain(prefix + "link", link.link, link));
    }
  }
  return plan;
}

TablePlan make_twin(TablePlan table) {
  table.name += kTwin;
  table.comment =
      "as the other one, but cannot be flushed while sarud lives; do not edit, do not save";
  return table;
}

Difference difference(const BlockSet& from, const BlockSet& to) { return {from - to, to - from}; }

std::vector<std::uint8_t> block_key(BlockId block, unsigned blocks) {
  return big16(block.value * (65536 / blocks));
}

std::optional<BlockId> key_block(std::span<const std::uint8_t> key, unsigned blocks) {
  if (key.size() != 2) return std::nullopt;
  const unsigned value = key[0] * 256U + key[1];
  const unsigned block_size = 65536 / blocks;
  if (value % block_size != 0) return std::nullopt;
  return BlockId{static_cast<std::uint16_t>(value / block_size)};
}

}  // namespace saru::nft
