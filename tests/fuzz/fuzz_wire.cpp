// SPDX-License-Identifier: GPL-2.0-or-later
// Messages from the network: any bytes are refused or understood, and what is understood is written
// back as the same bytes.
#include <cstring>
#include <vector>

#include "cpg/wire.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/sealed.h"

namespace {

using saru::fuzz::must;
using Bytes = std::vector<std::byte>;

void read_and_write(const Bytes& bytes) {
  const auto message = saru::decode(saru::fuzz::kClusterId, bytes, saru::fuzz::sender_in(bytes));
  if (!message) {
    must(!saru::text(message.error()).empty(), "an error has words");
    return;
  }
  must(saru::encode(saru::fuzz::kClusterId, *message) == bytes, "decode, encode: the same bytes");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const Bytes raw(bytes, bytes + size);
  read_and_write(raw);
  read_and_write(saru::fuzz::sealed(raw));
  return 0;
}
