// SPDX-License-Identifier: GPL-2.0-or-later
// One captured frame -> one Record. Needs no more than the first kSnapLength bytes.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "witness_record.h"
#include "witness_setup.h"

namespace witness {

class Decoder {
 public:
  explicit Decoder(const Setup& setup) : setup_(setup) {}

  // Appends what the frame means to `out` (before it the definition of a client address that is
  // seen for the first time). Frames without meaning for the judge add nothing.
  void decode(std::span<const std::uint8_t> frame, std::uint64_t time_ns, std::uint8_t link,
              std::vector<Record>& out);
  std::uint64_t undecodable() const { return undecodable_; }

 private:
  bool decode_ip(std::span<const std::uint8_t> frame, std::uint64_t time_ns, Record& record,
                 std::vector<Record>& out);
  bool decode_transport(std::span<const std::uint8_t> data, std::uint8_t protocol,
                        std::size_t transport_length, bool from_client, Record& record) const;
  std::uint16_t client_index(const Address& address, std::uint64_t time_ns,
                             std::vector<Record>& out);
  int shared_index(const Address& address) const;

  const Setup& setup_;
  std::map<std::array<std::uint8_t, 17>, std::uint16_t> clients_;
  std::uint64_t undecodable_ = 0;
};

// The address behind a kClientAddress record.
Address client_address(const Record& record);

}  // namespace witness
