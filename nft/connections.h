// SPDX-License-Identifier: GPL-2.0-or-later
// How many established TCP connections of each block this kernel's conntrack knows. A dump of
// conntrack can be long, and whoever asks has a lease to renew meanwhile: it is read in pieces.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "nft/plan.h"
#include "nft/result.h"

namespace saru::nft {

class ConnectionCount {
 public:
  static Result<ConnectionCount> open();
  ConnectionCount(ConnectionCount&&) noexcept;
  ConnectionCount& operator=(ConnectionCount&&) noexcept;
  ~ConnectionCount();

  int fd() const;  // readable when there is something to read()

  // Asks for all connections to the addresses of `config`; an earlier count is given up. From
  // SYN_RECV to LAST_ACK: TIME_WAIT and CLOSE hold nothing.
  Result<void> begin(const TableConfig& config);

  // Reads what has come and never waits. By block, once all has come; until then nullopt. After an
  // error open another one: the kernel may hold on to the broken answer of this socket.
  Result<std::optional<std::vector<unsigned>>> read();

 private:
  struct Impl;
  explicit ConnectionCount(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru::nft
