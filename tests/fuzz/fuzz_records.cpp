// SPDX-License-Identifier: GPL-2.0-or-later
// Connections from the network and from the kernel. Any bytes are refused as a record or
// understood, and what is understood is written back as the same bytes. Any message of ctnetlink is
// no flow, or one that a record can say.
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>

#include <string>
#include <vector>

#include "agent/sync/conntrack_message.h"
#include "agent/sync/record.h"
#include "tests/fuzz/input.h"

namespace {

using saru::fuzz::must;
using namespace saru::sync;

std::string value_of(const Flow& flow) {
  return encode_value(flow.state, flow.key.v4, flow.key.protocol);
}

void read_and_write(const std::string& key, const std::string& value) {
  const auto flow = decode(key, value);
  if (!flow) return;
  must(encode_key(flow->key) == key, "decode, encode: the same key");
  must(value_of(*flow) == value, "decode, encode: the same value");
  must(key_size(key + value) == key.size(), "a key says where it ends");
  must(value_size(value + key, key) == value.size(), "a value says where it ends");
}

// As whoever gets many records in a message takes them apart, and as if the key ended at the front.
void as_records(const std::string& bytes) {
  const auto key = key_size(bytes);
  if (!key) return;
  const std::string front = bytes.substr(0, *key);
  const std::string rest = bytes.substr(*key);
  if (const auto value = value_size(rest, front)) read_and_write(front, rest.substr(0, *value));
  read_and_write(front, rest);
}

void as_message(const std::string& bytes) {
  constexpr std::size_t kHead = NLMSG_HDRLEN;
  constexpr std::size_t kZerosBehind = 64;  // as NetlinkSocket::receive leaves them
  std::vector<char> whole(kHead + bytes.size() + kZerosBehind);
  std::copy(bytes.begin(), bytes.end(), whole.begin() + kHead);
  auto* message = reinterpret_cast<nlmsghdr*>(whole.data());
  message->nlmsg_len = static_cast<std::uint32_t>(kHead + bytes.size());
  auto flow = flow_in(message);
  if (!flow) return;
  flow->state.timeout_s = rounded_timeout_s(flow->state.timeout_s);
  const auto again = decode(encode_key(flow->key), value_of(*flow));
  must(again.has_value(), "what the kernel says can be written");
  std::vector<char> room(kMessageRoom);
  auto* made = mnl_nlmsg_put_header(room.data());
  must(put_flow(made, *again, true), "what a record says can be told the kernel");
  must(made->nlmsg_len <= kMessageRoom, "it fits");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(data, data + size);
  as_records(bytes);
  as_message(bytes);
  return 0;
}
