// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's connections: what happens to them, all there are, and telling it of others. Needs
// CAP_NET_ADMIN. No call waits for anything.
//
// Only connections that is_carried() names are seen, TCP, UDP, UDP-Lite, ICMP and ICMPv6, and only
// once they are confirmed (their first packet got through). What helpers such as "ftp" do with a
// control connection goes on where it is carried to: its name, and what it has shifted. What it
// awaits is not carried (linux/netfilter/nfnetlink_conntrack.h: the subsystem CTNETLINK_EXP): a
// data connection that was announced on one node and begins on another is nobody's. Nor are
// masters, security labels, counters and synproxy's numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "agent/sync/flow.h"
#include "nft/result.h"

namespace saru::sync {

enum class Change : std::uint8_t { kNew, kUpdate, kGone };

// The kernel tells of a connection only if net.netfilter.nf_conntrack_events was 1 when its first
// packet came, or 2 (the default since Linux 5.19) and somebody was listening by then. What was
// there before open() is in a dump, and is told of only with 1.
class ConntrackEvents {
 public:
  // Subscribed to new, update and destroy. The receive buffer is `buffer_size` bytes, or as many as
  // net.core.rmem_max allows without CAP_NET_ADMIN.
  static constexpr int kBufferSize = 64 << 20;
  static nft::Result<ConntrackEvents> open(int buffer_size = kBufferSize);
  ConntrackEvents(ConntrackEvents&&) noexcept;
  ConntrackEvents& operator=(ConntrackEvents&&) noexcept;
  ~ConntrackEvents();

  // net.netfilter.nf_conntrack_events is 0: nothing is ever told.
  static bool switched_off();

  int fd() const;  // readable when there is something to read()

  // Whether to be told of what is made; changes and ends are told all the same.
  nft::Result<void> hear_of_new(bool wanted);

  struct Read {
    std::size_t events = 0;  // of all connections, also of those that are not carried
    bool lost = false;       // events were dropped since the last read(): take a dump
    bool more = false;       // `most` was reached, there may be more
  };
  // `port_id`: the netlink port of whoever caused it (ConntrackWriter::port_id), 0 for a packet or
  // the end of its time. An update says of some things only what is new: see keep_unsaid().
  using Each = std::function<void(Change, Flow&&, std::uint32_t port_id)>;

  // Reads what is there now, up to about `most` events: a datagram is read to its end. After an
  // error open another one and take a dump.
  nft::Result<Read> read(std::size_t most, const Each& each);

 private:
  struct Impl;
  explicit ConntrackEvents(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// All connections of this network namespace, in pieces. A connection that comes or goes meanwhile
// may be in it or not, and one may be in it twice.
class ConntrackDump {
 public:
  static nft::Result<ConntrackDump> open();
  ConntrackDump(ConntrackDump&&) noexcept;
  ConntrackDump& operator=(ConntrackDump&&) noexcept;
  ~ConntrackDump();

  int fd() const;  // readable when there is something to read()

  // Asks for all connections; an earlier dump is given up.
  nft::Result<void> begin();

  // Reads one piece of what has come (a few hundred connections at most). True: that was all. After
  // an error open another one: the kernel may hold on to the broken answer of this socket.
  nft::Result<bool> read(const std::function<void(Flow&&)>& each);

 private:
  struct Impl;
  explicit ConntrackDump(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Makes and removes connections. The kernel does it inside send().
class ConntrackWriter {
 public:
  static nft::Result<ConntrackWriter> open();
  ConntrackWriter(ConntrackWriter&&) noexcept;
  ConntrackWriter& operator=(ConntrackWriter&&) noexcept;
  ~ConntrackWriter();

  // What events that it causes carry; another one with each open().
  std::uint32_t port_id() const;

  struct Outcome {
    std::size_t done = 0;      // in force: made, or made anew; removed, or not there
    std::size_t replaced = 0;  // of these, what took the place of another entry
    std::size_t failed = 0;
    std::string first_error;  // of what failed, or was made without its helper; "": none
  };

  // What the kernel has of a connection now; nothing if it has none. Of one with a helper take it
  // before it is given away: no event tells of the shift of its sequence numbers (Linux 6.18).
  nft::Result<std::optional<Flow>> current(const FlowKey& key);

  // An entry with a flow's original tuple, in either direction, is deleted before it is made anew:
  // a connection that was once moved away from here must not be gone on with where it was left. A
  // helper that this kernel has not is left out; so are labels where no rule of this namespace uses
  // any.
  Outcome inject(std::span<const Flow> flows);
  Outcome remove(std::span<const FlowKey> keys);

 private:
  struct Impl;
  explicit ConntrackWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru::sync
