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

#include "nft/codec.h"

namespace saru::nft {
namespace {

using TablePtr = std::unique_ptr<nftnl_table, Free<nftnl_table_free>>;
using SetPtr = std::unique_ptr<nftnl_set, Free<nftnl_set_free>>;
using ChainPtr = std::unique_ptr<nftnl_chain, Free<nftnl_chain_free>>;
using RulePtr = std::unique_ptr<nftnl_rule, Free<nftnl_rule_free>>;
using ObjectPtr = std::unique_ptr<nftnl_obj, Free<nftnl_obj_free>>;

// An attribute has 16 bits for its length; elements that do not fit go into another message.
constexpr std::size_t kElementBytesPerMessage = 60000;
// How nft writes the byte order of a set's key into the set's user data.
constexpr std::uint32_t kHostOrder = 1;
constexpr std::uint32_t kBigEndian = 2;
// reciprocal_scale() by this leaves the high 16 bits.
constexpr std::uint32_t kHashModulus = SARU_SELECTOR_VALUES;

// Four words make one of the old registers, by whose numbers the kernel names them.
std::uint32_t register_of_word(std::uint32_t word) {
  return word % 4 == 0 ? NFT_REG_1 + word / 4 : NFT_REG32_00 + word;
}

nlmsghdr* request(Batch& batch, std::uint16_t type, std::uint16_t flags, std::uint32_t family,
                  std::string doing) {
  nlmsghdr* message = batch.add(static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), flags,
                                std::move(doing));
  auto* header = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = static_cast<std::uint8_t>(family);
  header->version = NFNETLINK_V0;
  header->res_id = 0;
  return message;
}

void put_marker(Batch& batch, std::uint16_t type) {
  nlmsghdr* message = batch.add_marker(type);
  auto* header = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = AF_UNSPEC;
  header->version = NFNETLINK_V0;
  header->res_id = htons(NFNL_SUBSYS_NFTABLES);
}

// User data as nft writes it: type, length, value; a comment ends with NUL.
Bytes comment_data(std::uint8_t type, const std::string& comment) {
  const std::string text = comment.substr(0, NFTNL_UDATA_COMMENT_MAXLEN - 1);
  if (text.empty()) return {};
  Bytes data{type, static_cast<std::uint8_t>(text.size() + 1)};
  data.insert(data.end(), text.begin(), text.end());
  data.push_back(0);
  return data;
}

Bytes set_data(const Set& set) {
  const std::uint32_t order = set.host_order ? kHostOrder : kBigEndian;
  const auto* raw = reinterpret_cast<const std::uint8_t*>(&order);
  Bytes data{NFTNL_UDATA_SET_KEYBYTEORDER, sizeof order};
  data.insert(data.end(), raw, raw + sizeof order);
  const Bytes comment = comment_data(NFTNL_UDATA_SET_COMMENT, set.comment);
  data.insert(data.end(), comment.begin(), comment.end());
  return data;
}

std::uint32_t size32(const Bytes& bytes) { return static_cast<std::uint32_t>(bytes.size()); }

// ---- One overload per expression
// --------------------------------------------------------------------

struct Encode {
  nftnl_rule* rule;

  nftnl_expr* make(const char* name) const {
    nftnl_expr* expression = nftnl_expr_alloc(name);
    nftnl_rule_add_expr(rule, expression);
    return expression;
  }
  static void set(nftnl_expr* e, std::uint16_t attribute, std::uint32_t value) {
    nftnl_expr_set_u32(e, attribute, value);
  }

  void operator()(const LoadMeta& load) const {
    nftnl_expr* e = make("meta");
    set(e, NFTNL_EXPR_META_KEY, load.key);
    set(e, NFTNL_EXPR_META_DREG, NFT_REG_1);
  }
  void operator()(const LoadConnection& load) const {
    nftnl_expr* e = make("ct");
    set(e, NFTNL_EXPR_CT_KEY, load.key);
    set(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
  }
  void operator()(const StoreConnection& store) const {
    nftnl_expr* e = make("ct");
    set(e, NFTNL_EXPR_CT_KEY, store.key);
    set(e, NFTNL_EXPR_CT_SREG, NFT_REG_1);
  }
  void operator()(const LoadPayload& load) const {
    nftnl_expr* e = make("payload");
    set(e, NFTNL_EXPR_PAYLOAD_BASE, load.base);
    set(e, NFTNL_EXPR_PAYLOAD_OFFSET, load.offset);
    set(e, NFTNL_EXPR_PAYLOAD_LEN, load.length);
    set(e, NFTNL_EXPR_PAYLOAD_DREG, register_of_word(load.word));
  }
  void operator()(const StorePayload& store) const {
    nftnl_expr* e = make("payload");
    set(e, NFTNL_EXPR_PAYLOAD_BASE, store.base);
    set(e, NFTNL_EXPR_PAYLOAD_OFFSET, store.offset);
    set(e, NFTNL_EXPR_PAYLOAD_LEN, store.length);
    set(e, NFTNL_EXPR_PAYLOAD_SREG, NFT_REG_1);
    set(e, NFTNL_EXPR_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_NONE);
    set(e, NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, 0);
  }
  void operator()(const Mask& mask) const {
    nftnl_expr* e = make("bitwise");
    const Bytes zero(mask.mask.size());
    set(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
    set(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
    set(e, NFTNL_EXPR_BITWISE_LEN, size32(mask.mask));
    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask.mask.data(), size32(mask.mask));
    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, zero.data(), size32(zero));
  }
  void operator()(const Hash& hash) const {
    nftnl_expr* e = make("hash");
    set(e, NFTNL_EXPR_HASH_SREG, NFT_REG_1);
    set(e, NFTNL_EXPR_HASH_DREG, NFT_REG_1);
    set(e, NFTNL_EXPR_HASH_TYPE, NFT_HASH_JENKINS);
    set(e, NFTNL_EXPR_HASH_LEN, hash.length);
    set(e, NFTNL_EXPR_HASH_SEED, hash.seed);
    set(e, NFTNL_EXPR_HASH_MODULUS, kHashModulus);
    set(e, NFTNL_EXPR_HASH_OFFSET, 0);
  }
  void operator()(const ToBigEndian& order) const {
    nftnl_expr* e = make("byteorder");
    set(e, NFTNL_EXPR_BYTEORDER_SREG, NFT_REG_1);
    set(e, NFTNL_EXPR_BYTEORDER_DREG, NFT_REG_1);
    set(e, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
    set(e, NFTNL_EXPR_BYTEORDER_LEN, order.size);
    set(e, NFTNL_EXPR_BYTEORDER_SIZE, order.size);
  }
  void operator()(const Compare& compare) const {
    nftnl_expr* e = make("cmp");
    set(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    set(e, NFTNL_EXPR_CMP_OP, compare.op);
    nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, compare.value.data(), size32(compare.value));
  }
  void operator()(const Lookup& lookup) const {
    nftnl_expr* e = make("lookup");
    set(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
    nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, lookup.set.c_str());
    if (lookup.absent) set(e, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
  }
  void operator()(const Count& count) const {
    nftnl_expr* e = make("objref");
    set(e, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
    nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, count.counter.c_str());
  }
  void operator()(const LoadConstant& load) const {
    nftnl_expr* e = make("immediate");
    set(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
    nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, load.value.data(), size32(load.value));
  }
  void operator()(const TproxyToPort&) const {
    nftnl_expr* e = make("tproxy");
    set(e, NFTNL_EXPR_TPROXY_FAMILY, NFPROTO_UNSPEC);
    set(e, NFTNL_EXPR_TPROXY_REG_PORT, NFT_REG_1);
  }
  void operator()(const Verdict& verdict) const {
    nftnl_expr* e = make("immediate");
    set(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    set(e, NFTNL_EXPR_IMM_VERDICT, static_cast<std::uint32_t>(verdict.code));
    if (!verdict.chain.empty()) nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, verdict.chain.c_str());
  }
  void operator()(const Foreign&) const {}  // never planned
};

void put_counter(Batch& batch, const TablePlan& table, const std::string& name) {
  ObjectPtr object(nftnl_obj_alloc());
  nftnl_obj_set_str(object.get(), NFTNL_OBJ_TABLE, table.name.c_str());
  nftnl_obj_set_str(object.get(), NFTNL_OBJ_NAME, name.c_str());
  nftnl_obj_set_u32(object.get(), NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
  nftnl_obj_set_u32(object.get(), NFTNL_OBJ_FAMILY, table.family);
  nftnl_obj_nlmsg_build_payload(
      request(batch, NFT_MSG_NEWOBJ, NLM_F_CREATE, table.family, "add counter " + name),
      object.get());
}

void put_set(Batch& batch, const TablePlan& table, const Set& set, std::uint32_t id) {
  SetPtr made(nftnl_set_alloc());
  nftnl_set* s = made.get();
  nftnl_set_set_str(s, NFTNL_SET_TABLE, table.name.c_str());
  nftnl_set_set_str(s, NFTNL_SET_NAME, set.name.c_str());
  nftnl_set_set_u32(s, NFTNL_SET_ID, id);
  nftnl_set_set_u32(s, NFTNL_SET_FLAGS, set.flags);
  nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, set.key_type);
  nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, set.key_length);
  if (set.size != 0) nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, set.size);
  if (set.counts) nftnl_set_add_expr(s, nftnl_expr_alloc("counter"));
  const Bytes data = set_data(set);
  nftnl_set_set_data(s, NFTNL_SET_USERDATA, data.data(), size32(data));
  nftnl_set_nlmsg_build_payload(
      request(batch, NFT_MSG_NEWSET, NLM_F_CREATE, table.family, "add set " + set.name), s);
}

void put_count(nlmsghdr* message, std::uint64_t packets) {
  nlattr* expression = mnl_attr_nest_start(message, NFTA_SET_ELEM_EXPR);
  mnl_attr_put_strz(message, NFTA_EXPR_NAME, "counter");
  nlattr* data = mnl_attr_nest_start(message, NFTA_EXPR_DATA);
  mnl_attr_put_u64(message, NFTA_COUNTER_PACKETS, htobe64(packets));
  mnl_attr_put_u64(message, NFTA_COUNTER_BYTES, 0);
  mnl_attr_nest_end(message, data);
  mnl_attr_nest_end(message, expression);
}

// `counted`: by key, or empty.
void put_element_messages(Batch& batch, const TablePlan& table, const std::string& set, bool add,
                          const std::vector<Bytes>& keys, std::uint64_t timeout_ms,
                          const std::vector<std::uint64_t>& counted = {}) {
  for (std::size_t i = 0; i < keys.size();) {
    nlmsghdr* message =
        request(batch, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, add ? NLM_F_CREATE : 0,
                table.family, (add ? "add elements to set " : "delete elements of set ") + set);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table.name.c_str());
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set.c_str());
    nlattr* list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    const std::uint32_t start = message->nlmsg_len;
    for (; i < keys.size() && message->nlmsg_len - start < kElementBytesPerMessage; ++i) {
      nlattr* element = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
      nlattr* key = mnl_attr_nest_start(message, NFTA_SET_ELEM_KEY);
      mnl_attr_put(message, NFTA_DATA_VALUE, keys[i].size(), keys[i].data());
      mnl_attr_nest_end(message, key);
      if (timeout_ms != 0) mnl_attr_put_u64(message, NFTA_SET_ELEM_TIMEOUT, htobe64(timeout_ms));
      if (i < counted.size()) put_count(message, counted[i]);
      mnl_attr_nest_end(message, element);
    }
    mnl_attr_nest_end(message, list);
  }
}

}  // namespace

void put_begin(Batch& batch) { put_marker(batch, NFNL_MSG_BATCH_BEGIN); }
void put_end(Batch& batch) { put_marker(batch, NFNL_MSG_BATCH_END); }

void put_table(Batch& batch, const TablePlan& table, std::uint32_t flags) {
  TablePtr made(nftnl_table_alloc());
  nftnl_table_set_str(made.get(), NFTNL_TABLE_NAME, table.name.c_str());
  nftnl_table_set_u32(made.get(), NFTNL_TABLE_FLAGS, flags);
  const Bytes data = comment_data(NFTNL_UDATA_TABLE_COMMENT, table.comment);
  if (!data.empty()) {
    nftnl_table_set_data(made.get(), NFTNL_TABLE_USERDATA, data.data(), size32(data));
  }
  nftnl_table_nlmsg_build_payload(request(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL,
                                          table.family, "add table " + table.name),
                                  made.get());
}

void put_delete_table(Batch& batch, std::uint32_t family, const std::string& name) {
  nlmsghdr* message = request(batch, NFT_MSG_DELTABLE, 0, family, "delete table " + name);
  mnl_attr_put_strz(message, NFTA_TABLE_NAME, name.c_str());
}

void put_chain(Batch& batch, const TablePlan& table, const Chain& chain) {
  ChainPtr made(nftnl_chain_alloc());
  nftnl_chain* c = made.get();
  nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, table.name.c_str());
  nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, chain.name.c_str());
  if (chain.hook) {
    nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
    nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, chain.hook->number);
    nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, chain.hook->priority);
    nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, chain.hook->accepts ? NF_ACCEPT : NF_DROP);
    if (!chain.hook->device.empty()) {
      nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, chain.hook->device.c_str());
    }
  }
  const Bytes data = comment_data(NFTNL_UDATA_CHAIN_COMMENT, chain.comment);
  if (!data.empty()) nftnl_chain_set_data(c, NFTNL_CHAIN_USERDATA, data.data(), size32(data));
  const std::string where = chain.hook && !chain.hook->device.empty()
                                ? " (egress hook of " + chain.hook->device + ")"
                                : "";
  nftnl_chain_nlmsg_build_payload(request(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE, table.family,
                                          "add chain " + chain.name + where),
                                  c);
}

void put_rule(Batch& batch, const TablePlan& table, const Chain& chain, const Rule& rule) {
  RulePtr made(nftnl_rule_alloc());
  nftnl_rule* r = made.get();
  nftnl_rule_set_str(r, NFTNL_RULE_TABLE, table.name.c_str());
  nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain.name.c_str());
  for (const Expression& expression : rule.expressions) std::visit(Encode{r}, expression);
  const Bytes data = comment_data(NFTNL_UDATA_RULE_COMMENT, rule.comment);
  if (!data.empty()) nftnl_rule_set_data(r, NFTNL_RULE_USERDATA, data.data(), size32(data));
  nftnl_rule_nlmsg_build_payload(request(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND,
                                         table.family, "add a rule to chain " + chain.name),
                                 r);
}

void put_delete_rules(Batch& batch, const TablePlan& table, const std::string& chain) {
  nlmsghdr* message =
      request(batch, NFT_MSG_DELRULE, 0, table.family, "delete the rules of chain " + chain);
  mnl_attr_put_strz(message, NFTA_RULE_TABLE, table.name.c_str());
  mnl_attr_put_strz(message, NFTA_RULE_CHAIN, chain.c_str());
}

void put_elements(Batch& batch, const TablePlan& table, const std::string& set,
                  const std::vector<Bytes>& keys, std::uint64_t timeout_ms) {
  put_element_messages(batch, table, set, true, keys, timeout_ms);
}

void put_delete_elements(Batch& batch, const TablePlan& table, const std::string& set,
                         const std::vector<Bytes>& keys) {
  put_element_messages(batch, table, set, false, keys, 0);
}

void put_delete_all_elements(Batch& batch, const TablePlan& table, const std::string& set) {
  nlmsghdr* message =
      request(batch, NFT_MSG_DELSETELEM, 0, table.family, "delete all elements of set " + set);
  mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table.name.c_str());
  mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set.c_str());
}

void put_table_contents(Batch& batch, const TablePlan& table) {
  for (const std::string& counter : table.counters) put_counter(batch, table, counter);
  std::uint32_t id = 0;
  for (const Set& set : table.sets) {
    put_set(batch, table, set, ++id);
    put_element_messages(batch, table, set.name, true, set.elements, set.timeout_ms, set.counted);
  }
  // All chains first: rules name other chains.
  for (const Chain& chain : table.chains) put_chain(batch, table, chain);
  for (const Chain& chain : table.chains) {
    for (const Rule& rule : chain.rules) put_rule(batch, table, chain, rule);
  }
}

}  // namespace saru::nft
