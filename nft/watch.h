// SPDX-License-Identifier: GPL-2.0-or-later
// Notices what others do to our tables, link and addresses.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nft/result.h"
#include "nft/table.h"

namespace saru::nft {

enum class Disturbance : std::uint8_t {
  kTable,        // somebody else changed one of our tables
  kLink,         // a macvlan is gone, down or changed
  kAddress,      // one of our addresses is gone or elsewhere too, or a foreign one is on our link
  kSettings,     // a kernel setting of our links, the NICs or all interfaces; most are not told
  kCarrierLost,  // the NIC's
  kCarrierBack,
  kOverrun,  // notifications were lost: anything may have happened
};

struct Notice {
  Disturbance what = Disturbance::kTable;
  Side side = Side::kOutside;  // whose link or NIC it is about
  std::string text;            // who did what, as far as the kernel tells
};

class Watch {
 public:
  // Changes made through `table` itself are not noticed, nor the renewals of Link. Open it after
  // the links, then verify() both once: so nothing is missed that happened in between.
  static Result<Watch> open(const Table& table);
  // The same of tables that are not here: changes from this netlink port are those of their owner.
  static Result<Watch> open(const TableConfig& config, std::uint32_t own_port);
  Watch(Watch&&) noexcept;
  Watch& operator=(Watch&&) noexcept;
  ~Watch();

  int fd() const;              // readable when there is something to read()
  std::vector<Notice> read();  // never blocks; often empty, as most news is not about us

  // From now on these are the shared addresses of the outside. When they change under traffic, say
  // it here first: then no notice comes of the change itself (Link::set_addresses).
  void set_addresses(std::vector<IpAddress> addresses);

  // Forgets what is waiting and takes the present state as the right one: after our own repair of
  // the link. Then verify() once.
  Result<void> resync();

 private:
  struct Impl;
  explicit Watch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru::nft
