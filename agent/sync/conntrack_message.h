// SPDX-License-Identifier: GPL-2.0-or-later
// A flow as a message of ctnetlink (linux/netfilter/nfnetlink_conntrack.h), both ways. What is put
// is libnetfilter_conntrack's, but for NAT: it has no ports for UDP-Lite and ICMP. What is read is
// not: its parser (1.0.9) ends the process at an attribute of a wrong size.
#pragma once

#include <linux/netlink.h>

#include <optional>

#include "agent/sync/flow.h"

namespace saru::sync {

// Room for the attributes of any flow.
constexpr std::size_t kMessageRoom = 1024;

// The flow that an event or a dump's entry is about. Nothing for one that is not carried or not
// confirmed, and for a message that does not say what a flow needs.
std::optional<Flow> flow_in(const nlmsghdr* message);

// Puts the attributes, behind the nfgenmsg, that name a flow or make it anew. The state is made as
// another node can go on with it: window tracking is liberal, since nobody knows the windows.
// False: no memory, or no connection that is carried.
bool put_key(nlmsghdr* message, const FlowKey& key);
bool put_flow(nlmsghdr* message, const Flow& flow, bool with_helper);

}  // namespace saru::sync
