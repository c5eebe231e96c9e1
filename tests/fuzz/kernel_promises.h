// SPDX-License-Identifier: GPL-2.0-or-later
// What libnftnl 1.2.4 takes for granted of a kernel, and reads a wild pointer or writes behind an
// array without: src/expr.c (an expression has a name), src/expr/data_reg.c (a verdict has a code,
// a jump its chain), src/set.c (a key has at most 16 fields).
#pragma once

#include <endian.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstdint>
#include <string_view>

#include "nft/netlink.h"

namespace saru::fuzz {

// Whether `good` holds for all attributes in this one, as far as libmnl would walk.
template <class Good>
bool all_in(const nlattr* nest, Good good) {
  const auto* at = static_cast<const char*>(mnl_attr_get_payload(nest));
  const auto* end = at + mnl_attr_get_payload_len(nest);
  for (const auto* one = reinterpret_cast<const nlattr*>(at);
       mnl_attr_ok(one, static_cast<int>(end - reinterpret_cast<const char*>(one)));
       one = mnl_attr_next(one)) {
    if (!good(one)) return false;
  }
  return true;
}

inline const nlattr* last_in(const nlattr* nest, std::uint16_t type) {
  const nlattr* found = nullptr;
  all_in(nest, [&](const nlattr* one) {
    if (mnl_attr_get_type(one) == type) found = one;
    return true;
  });
  return found;
}

inline bool is_verdict(const nlattr* verdict) {
  const nlattr* code = last_in(verdict, NFTA_VERDICT_CODE);
  if (code == nullptr) return false;
  const auto value = static_cast<std::int32_t>(be32toh(nft::u32_of(code)));
  if (value != NFT_JUMP && value != NFT_GOTO) return true;
  return last_in(verdict, NFTA_VERDICT_CHAIN) != nullptr;
}

// An attribute of an expression; those that are no data have nothing in them that looks like it.
inline bool is_data(const nlattr* data) {
  return all_in(data, [](const nlattr* one) {
    return mnl_attr_get_type(one) != NFTA_DATA_VERDICT || is_verdict(one);
  });
}

inline bool is_expression(const nlattr* expression) {
  const nlattr* name = last_in(expression, NFTA_EXPR_NAME);
  if (name == nullptr) return false;
  if (nft::text_of(name) == "dynset") return false;  // has expressions of its own; none of ours
  return all_in(expression, [](const nlattr* one) {
    return mnl_attr_get_type(one) != NFTA_EXPR_DATA || all_in(one, is_data);
  });
}

inline bool is_set_description(const nlattr* description) {
  unsigned fields = 0;
  return all_in(description, [&](const nlattr* one) {
    if (mnl_attr_get_type(one) != NFTA_SET_DESC_CONCAT) return true;
    return all_in(one, [&](const nlattr* list) {
      return all_in(list, [&](const nlattr*) { return ++fields <= NFT_REG32_COUNT; });
    });
  });
}

struct Promises {
  bool rule;  // or a set
  bool kept = true;
};

inline int look_at_part(const nlattr* part, void* into) {
  auto& promises = *static_cast<Promises*>(into);
  const std::uint16_t type = mnl_attr_get_type(part);
  const bool list = promises.rule ? type == NFTA_RULE_EXPRESSIONS : type == NFTA_SET_EXPRESSIONS;
  bool good = !list || all_in(part, is_expression);
  if (!promises.rule && type == NFTA_SET_EXPR) good = is_expression(part);
  if (!promises.rule && type == NFTA_SET_DESC) good = is_set_description(part);
  promises.kept = promises.kept && good;
  return MNL_CB_OK;
}

inline bool keeps_promises(const nlmsghdr* message, bool rule) {
  Promises promises{rule};
  mnl_attr_parse(message, sizeof(nfgenmsg), look_at_part, &promises);
  return promises.kept;
}

}  // namespace saru::fuzz
