// SPDX-License-Identifier: GPL-2.0-or-later
#include <arpa/inet.h>
#include <endian.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "nft/codec.h"

namespace saru::nft {
namespace {

constexpr int kShapeTries = 20;
constexpr auto kShapePause = std::chrono::milliseconds(1);

using TablePtr = std::unique_ptr<nftnl_table, Free<nftnl_table_free>>;
using SetPtr = std::unique_ptr<nftnl_set, Free<nftnl_set_free>>;
using ChainPtr = std::unique_ptr<nftnl_chain, Free<nftnl_chain_free>>;
using RulePtr = std::unique_ptr<nftnl_rule, Free<nftnl_rule_free>>;
using ObjectPtr = std::unique_ptr<nftnl_obj, Free<nftnl_obj_free>>;

nlmsghdr* ask(Batch& batch, std::uint16_t type, std::uint16_t flags, std::uint32_t family,
              std::string doing) {
  nlmsghdr* message = batch.add(static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), flags,
                                std::move(doing));
  auto* header = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = static_cast<std::uint8_t>(family);
  header->version = NFNETLINK_V0;
  header->res_id = 0;
  return message;
}

std::string text_or_empty(const char* text) { return text == nullptr ? std::string() : text; }

// The comment in user data that nft or we wrote: type, length, value.
std::string comment_in(const void* data, std::uint32_t length, std::uint8_t type) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  for (std::uint32_t at = 0; at + 2 <= length;) {
    const std::uint32_t size = bytes[at + 1];
    if (at + 2 + size > length) break;
    if (bytes[at] == type && size > 0) {
      const auto* text = reinterpret_cast<const char*>(bytes + at + 2);
      return std::string(text, strnlen(text, size));
    }
    at += 2 + size;
  }
  return {};
}

Bytes data_of(const nftnl_expr* e, std::uint16_t attribute) {
  std::uint32_t length = 0;
  const auto* data = static_cast<const std::uint8_t*>(nftnl_expr_get(e, attribute, &length));
  return data == nullptr ? Bytes{} : Bytes(data, data + length);
}

bool all_zero(const Bytes& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

// ---- One function per expression; nullopt: nothing that we ever write
// ---------------------------------

using Maybe = std::optional<Expression>;

Maybe decode_meta(const nftnl_expr* e) {
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_META_DREG) != NFT_REG_1) return std::nullopt;
  return LoadMeta{nftnl_expr_get_u32(e, NFTNL_EXPR_META_KEY)};
}

Maybe decode_ct(const nftnl_expr* e) {
  if (nftnl_expr_is_set(e, NFTNL_EXPR_CT_SREG)) {
    if (nftnl_expr_get_u32(e, NFTNL_EXPR_CT_SREG) != NFT_REG_1) return std::nullopt;
    return StoreConnection{nftnl_expr_get_u32(e, NFTNL_EXPR_CT_KEY)};
  }
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_CT_DREG) != NFT_REG_1) return std::nullopt;
  if (nftnl_expr_is_set(e, NFTNL_EXPR_CT_DIR)) return std::nullopt;
  return LoadConnection{nftnl_expr_get_u32(e, NFTNL_EXPR_CT_KEY)};
}

Maybe decode_payload(const nftnl_expr* e) {
  const std::uint32_t base = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_BASE);
  const std::uint32_t offset = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET);
  const std::uint32_t length = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_LEN);
  if (nftnl_expr_is_set(e, NFTNL_EXPR_PAYLOAD_SREG)) {
    if (nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_SREG) != NFT_REG_1) return std::nullopt;
    if (nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_CSUM_TYPE) != NFT_PAYLOAD_CSUM_NONE)
      return std::nullopt;
    return StorePayload{base, offset, length};
  }
  const std::uint32_t reg = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_DREG);
  const std::uint32_t word = reg >= NFT_REG32_00 ? reg - NFT_REG32_00 : (reg - NFT_REG_1) * 4;
  return LoadPayload{base, offset, length, word};
}

Maybe decode_bitwise(const nftnl_expr* e) {
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_BITWISE_SREG) != NFT_REG_1) return std::nullopt;
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_BITWISE_DREG) != NFT_REG_1) return std::nullopt;
  if (!all_zero(data_of(e, NFTNL_EXPR_BITWISE_XOR))) return std::nullopt;
  return Mask{data_of(e, NFTNL_EXPR_BITWISE_MASK)};
}

Maybe decode_hash(const nftnl_expr* e) {
  const bool ours = nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_SREG) == NFT_REG_1 &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_DREG) == NFT_REG_1 &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_TYPE) == NFT_HASH_JENKINS &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_MODULUS) == SARU_SELECTOR_VALUES &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_OFFSET) == 0;
  if (!ours) return std::nullopt;
  return Hash{nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_LEN),
              nftnl_expr_get_u32(e, NFTNL_EXPR_HASH_SEED)};
}

Maybe decode_byteorder(const nftnl_expr* e) {
  const std::uint32_t size = nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_SIZE);
  const bool ours = nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_SREG) == NFT_REG_1 &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_DREG) == NFT_REG_1 &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_OP) == NFT_BYTEORDER_HTON &&
                    nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_LEN) == size;
  return ours ? Maybe(ToBigEndian{size}) : std::nullopt;
}

Maybe decode_cmp(const nftnl_expr* e) {
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_CMP_SREG) != NFT_REG_1) return std::nullopt;
  return Compare{nftnl_expr_get_u32(e, NFTNL_EXPR_CMP_OP), data_of(e, NFTNL_EXPR_CMP_DATA)};
}

Maybe decode_lookup(const nftnl_expr* e) {
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_SREG) != NFT_REG_1) return std::nullopt;
  const std::uint32_t flags = nftnl_expr_is_set(e, NFTNL_EXPR_LOOKUP_FLAGS)
                                  ? nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_FLAGS)
                                  : 0;
  return Lookup{text_or_empty(nftnl_expr_get_str(e, NFTNL_EXPR_LOOKUP_SET)),
                (flags & NFT_LOOKUP_F_INV) != 0};
}

Maybe decode_immediate(const nftnl_expr* e) {
  const std::uint32_t reg = nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_DREG);
  if (reg == NFT_REG_VERDICT) {
    return Verdict{static_cast<std::int32_t>(nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_VERDICT)),
                   nftnl_expr_is_set(e, NFTNL_EXPR_IMM_CHAIN)
                       ? text_or_empty(nftnl_expr_get_str(e, NFTNL_EXPR_IMM_CHAIN))
                       : ""};
  }
  if (reg != NFT_REG_1) return std::nullopt;
  return LoadConstant{data_of(e, NFTNL_EXPR_IMM_DATA)};
}

Maybe decode_objref(const nftnl_expr* e) {
  if (!nftnl_expr_is_set(e, NFTNL_EXPR_OBJREF_IMM_TYPE)) return std::nullopt;
  if (nftnl_expr_get_u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE) != NFT_OBJECT_COUNTER) return std::nullopt;
  return Count{text_or_empty(nftnl_expr_get_str(e, NFTNL_EXPR_OBJREF_IMM_NAME))};
}

Expression decode_expression(const nftnl_expr* e) {
  using Decoder = Maybe (*)(const nftnl_expr*);
  static constexpr struct {
    const char* name;
    Decoder decode;
  } kDecoders[] = {{"meta", decode_meta},
                   {"ct", decode_ct},
                   {"payload", decode_payload},
                   {"bitwise", decode_bitwise},
                   {"hash", decode_hash},
                   {"byteorder", decode_byteorder},
                   {"cmp", decode_cmp},
                   {"lookup", decode_lookup},
                   {"immediate", decode_immediate},
                   {"objref", decode_objref},
                   {"tproxy", [](const nftnl_expr*) { return Maybe(TproxyToPort{}); }}};
  const std::string name = text_or_empty(nftnl_expr_get_str(e, NFTNL_EXPR_NAME));
  for (const auto& one : kDecoders) {
    if (name != one.name) continue;
    if (Maybe expression = one.decode(e)) return *expression;
  }
  return Foreign{name};
}

Rule decode_rule(const nftnl_rule* r) {
  Rule rule;
  std::uint32_t length = 0;
  if (const void* data = nftnl_rule_get_data(r, NFTNL_RULE_USERDATA, &length)) {
    rule.comment = comment_in(data, length, NFTNL_UDATA_RULE_COMMENT);
  }
  nftnl_expr_foreach(
      const_cast<nftnl_rule*>(r),
      [](nftnl_expr* e, void* rules) {
        static_cast<Rule*>(rules)->expressions.push_back(decode_expression(e));
        return 0;
      },
      &rule);
  return rule;
}

Chain decode_chain(const nftnl_chain* c) {
  Chain chain;
  chain.name = text_or_empty(nftnl_chain_get_str(c, NFTNL_CHAIN_NAME));
  if (!nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM)) return chain;
  Hook hook;
  hook.number = nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM);
  hook.priority = nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO);
  hook.accepts = nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_ACCEPT;
  if (nftnl_chain_is_set(c, NFTNL_CHAIN_DEV)) {
    hook.device = text_or_empty(nftnl_chain_get_str(c, NFTNL_CHAIN_DEV));
  } else if (nftnl_chain_is_set(c, NFTNL_CHAIN_DEVICES)) {
    const char* const* devices = nftnl_chain_get_array(c, NFTNL_CHAIN_DEVICES);
    if (devices != nullptr) hook.device = text_or_empty(devices[0]);
  }
  chain.hook = hook;
  return chain;
}

Set decode_set(const nftnl_set* s) {
  const auto number = [&](std::uint16_t attribute) {
    return nftnl_set_is_set(s, attribute) ? nftnl_set_get_u32(s, attribute) : 0;
  };
  Set set;
  set.name = text_or_empty(nftnl_set_get_str(s, NFTNL_SET_NAME));
  set.key_type = number(NFTNL_SET_KEY_TYPE);
  set.key_length = number(NFTNL_SET_KEY_LEN);
  set.flags = number(NFTNL_SET_FLAGS);
  set.size = number(NFTNL_SET_DESC_SIZE);
  set.counts = nftnl_set_is_set(s, NFTNL_SET_EXPR);
  return set;
}

int decode_counter(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) == NFTA_COUNTER_PACKETS) {
    *static_cast<std::uint64_t*>(into) = be64toh(u64_of(part));
  }
  return MNL_CB_OK;
}

// The expression of an element: a counter in all of ours.
int decode_element_expression(const nlattr* part, void* into) {
  if (mnl_attr_get_type(part) == NFTA_EXPR_DATA) mnl_attr_parse_nested(part, decode_counter, into);
  return MNL_CB_OK;
}

int decode_element_part(const nlattr* part, void* into) {
  auto& element = *static_cast<Element*>(into);
  if (mnl_attr_get_type(part) == NFTA_SET_ELEM_EXPIRATION) {
    element.left_ms = be64toh(u64_of(part));
  } else if (mnl_attr_get_type(part) == NFTA_SET_ELEM_EXPR) {
    mnl_attr_parse_nested(part, decode_element_expression, &element.packets);
  } else if (mnl_attr_get_type(part) == NFTA_SET_ELEM_KEY) {
    const auto* value = static_cast<const nlattr*>(mnl_attr_get_payload(part));
    if (!mnl_attr_ok(value, mnl_attr_get_payload_len(part))) return MNL_CB_OK;
    const auto* bytes = static_cast<const std::uint8_t*>(mnl_attr_get_payload(value));
    element.key.assign(bytes, bytes + mnl_attr_get_payload_len(value));
  }
  return MNL_CB_OK;
}

int decode_element(const nlattr* one, void* into) {
  Element element;
  mnl_attr_parse_nested(one, decode_element_part, &element);
  static_cast<std::vector<Element>*>(into)->push_back(std::move(element));
  return MNL_CB_OK;
}

int decode_element_list(const nlattr* attribute, void* into) {
  if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_LIST_ELEMENTS) {
    mnl_attr_parse_nested(attribute, decode_element, into);
  }
  return MNL_CB_OK;
}

void decode_elements(const nlmsghdr* message, std::vector<Element>& elements) {
  mnl_attr_parse(message, sizeof(nfgenmsg), decode_element_list, &elements);
}

// Lists what belongs to one table: sets, chains or rules.
std::optional<Refusal> list(NetlinkSocket& socket, std::uint16_t type, std::uint32_t family,
                            const std::string& table, const std::string& doing,
                            const NetlinkSocket::Visit& visit,
                            const std::function<void()>& restart) {
  Batch& batch = scratch();
  nlmsghdr* message = ask(batch, type, NLM_F_DUMP, family, doing);
  // The name of the table is attribute 1 of all these requests; a kernel that does not filter by it
  // answers with everything, so the visitors check it.
  mnl_attr_put_strz(message, 1, table.c_str());
  return socket.query(batch, visit, restart);
}

std::optional<Refusal> read_sets(NetlinkSocket& socket, TablePlan& table) {
  auto refusal = list(
      socket, NFT_MSG_GETSET, table.family, table.name, "list the sets of table " + table.name,
      [&](const nlmsghdr* message) {
        SetPtr s(nftnl_set_alloc());
        if (nftnl_set_nlmsg_parse(message, s.get()) != 0) return;
        if (text_or_empty(nftnl_set_get_str(s.get(), NFTNL_SET_TABLE)) != table.name) return;
        table.sets.push_back(decode_set(s.get()));
      },
      [&] { table.sets.clear(); });
  if (refusal) return refusal;
  for (Set& set : table.sets) {
    auto elements = read_elements(socket, table.family, table.name, set.name);
    if (!elements) return elements.error();
    for (Element& element : *elements) set.elements.push_back(std::move(element.key));
    std::sort(set.elements.begin(), set.elements.end());
  }
  return std::nullopt;
}

std::optional<Refusal> read_chains(NetlinkSocket& socket, TablePlan& table) {
  auto refusal = list(
      socket, NFT_MSG_GETCHAIN, table.family, table.name, "list the chains of table " + table.name,
      [&](const nlmsghdr* message) {
        ChainPtr c(nftnl_chain_alloc());
        if (nftnl_chain_nlmsg_parse(message, c.get()) != 0) return;
        if (text_or_empty(nftnl_chain_get_str(c.get(), NFTNL_CHAIN_TABLE)) != table.name) return;
        table.chains.push_back(decode_chain(c.get()));
      },
      [&] { table.chains.clear(); });
  if (refusal) return refusal;
  return list(
      socket, NFT_MSG_GETRULE, table.family, table.name, "list the rules of table " + table.name,
      [&](const nlmsghdr* message) {
        RulePtr r(nftnl_rule_alloc());
        if (nftnl_rule_nlmsg_parse(message, r.get()) != 0) return;
        if (text_or_empty(nftnl_rule_get_str(r.get(), NFTNL_RULE_TABLE)) != table.name) return;
        const std::string name = text_or_empty(nftnl_rule_get_str(r.get(), NFTNL_RULE_CHAIN));
        for (Chain& chain : table.chains) {
          if (chain.name == name) chain.rules.push_back(decode_rule(r.get()));
        }
      },
      [&] {
        for (Chain& chain : table.chains) chain.rules.clear();
      });
}

}  // namespace

tl::expected<std::optional<TableState>, Refusal> read_table_state(NetlinkSocket& socket,
                                                                  std::uint32_t family,
                                                                  const std::string& name) {
  Batch& batch = scratch();
  nlmsghdr* message = ask(batch, NFT_MSG_GETTABLE, 0, family, "look for table " + name);
  mnl_attr_put_strz(message, NFTA_TABLE_NAME, name.c_str());
  std::optional<TableState> state;
  const auto refusal = socket.query(batch, [&](const nlmsghdr* answer) {
    TablePtr table(nftnl_table_alloc());
    if (nftnl_table_nlmsg_parse(answer, table.get()) != 0) return;
    TableState found{nftnl_table_get_u32(table.get(), NFTNL_TABLE_FLAGS), 0};
    if (nftnl_table_is_set(table.get(), NFTNL_TABLE_OWNER)) {
      found.owner = nftnl_table_get_u32(table.get(), NFTNL_TABLE_OWNER);
    }
    state = found;
  });
  if (refusal && refusal->code != ENOENT) return tl::unexpected<Refusal>(*refusal);
  return state;
}

tl::expected<std::vector<Element>, Refusal> read_elements(NetlinkSocket& socket,
                                                          std::uint32_t family,
                                                          const std::string& table,
                                                          const std::string& set) {
  const std::string doing = "read set " + set;
  for (int tries = 1;; ++tries) {
    Batch& batch = scratch();
    nlmsghdr* message = ask(batch, NFT_MSG_GETSETELEM, NLM_F_DUMP, family, doing);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table.c_str());
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set.c_str());
    std::vector<Element> elements;
    const auto refusal = socket.query(
        batch, [&](const nlmsghdr* answer) { decode_elements(answer, elements); },
        [&] { elements.clear(); });
    if (refusal) return tl::unexpected<Refusal>(*refusal);
    std::sort(elements.begin(), elements.end(),
              [](const Element& a, const Element& b) { return a.key < b.key; });
    const auto twice =
        std::adjacent_find(elements.begin(), elements.end(),
                           [](const Element& a, const Element& b) { return a.key == b.key; });
    if (twice == elements.end()) return elements;
    if (tries == kShapeTries) {
      return tl::unexpected<Refusal>({EAGAIN, doing, "the kernel shows an element twice"});
    }
    std::this_thread::sleep_for(kShapePause);
  }
}

tl::expected<std::vector<NamedCounter>, Refusal> read_counters(NetlinkSocket& socket,
                                                               std::uint32_t family,
                                                               const std::string& table) {
  std::vector<NamedCounter> counters;
  const auto refusal = list(
      socket, NFT_MSG_GETOBJ, family, table, "read the counters of table " + table,
      [&](const nlmsghdr* message) {
        ObjectPtr object(nftnl_obj_alloc());
        if (nftnl_obj_nlmsg_parse(message, object.get()) != 0) return;
        if (text_or_empty(nftnl_obj_get_str(object.get(), NFTNL_OBJ_TABLE)) != table) return;
        if (nftnl_obj_get_u32(object.get(), NFTNL_OBJ_TYPE) != NFT_OBJECT_COUNTER) return;
        counters.push_back({text_or_empty(nftnl_obj_get_str(object.get(), NFTNL_OBJ_NAME)),
                            nftnl_obj_get_u64(object.get(), NFTNL_OBJ_CTR_PKTS),
                            nftnl_obj_get_u64(object.get(), NFTNL_OBJ_CTR_BYTES)});
      },
      [&] { counters.clear(); });
  if (refusal) return tl::unexpected<Refusal>(*refusal);
  return counters;
}

tl::expected<TablePlan, Refusal> read_table(NetlinkSocket& socket, std::uint32_t family,
                                            const std::string& name) {
  TablePlan table;
  table.family = family;
  table.name = name;
  auto counters = read_counters(socket, family, name);
  if (!counters) return tl::unexpected<Refusal>(counters.error());
  for (const NamedCounter& counter : *counters) table.counters.push_back(counter.name);
  if (auto refusal = read_sets(socket, table)) return tl::unexpected<Refusal>(*refusal);
  if (auto refusal = read_chains(socket, table)) return tl::unexpected<Refusal>(*refusal);
  return table;
}

}  // namespace saru::nft
