// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>

namespace saru::nft {

// The process that holds this netfilter netlink port in our network namespace, for an error
// message: "process 1234 (sarud)", or "a process that cannot be seen from here (netlink port 77)".
std::string process_of_port(std::uint32_t port);

}  // namespace saru::nft
