// SPDX-License-Identifier: GPL-2.0-or-later
// The CPG group "saru:<id>" (libcpg, model v1) on a qb_loop.
//
// Nothing here blocks the loop. Measured with corosync 3.1.7 and libqb 2.0.6 while corosync was
// stopped (SIGSTOP):
//   cpg_model_initialize, cpg_join, cpg_membership_get, cpg_finalize and cmap_initialize wait for
//   an
//     answer without a limit. All such calls run on a thread of their own (cpg/connection.h).
//   cpg_mcast_joined waits for no answer: it fills the shared ring of 1 MiB and then says
//     CS_ERR_TRY_AGAIN (after 35 messages of 30 kB). With short messages, however, libqb's socket
//     for signalling bytes is full before, after 278 of them, and libqb spins at 100 % CPU until
//     corosync reads again. kMaxInFlight keeps far below that.
//   cpg_dispatch reads what is there and returns.
// A rejoin takes 6 to 20 ms. After it the first GroupChanged comes before the first RingChanged.
#pragma once

#include <qb/qbloop.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <tl/expected.hpp>

#include "agent/core/message.h"
#include "cpg/hooks.h"
#include "cpg/wire.h"

namespace saru {

class Group {
 public:
  // Own messages handed to corosync and not yet delivered back; more wait in our queue.
  static constexpr std::size_t kMaxInFlight = 50;
  // Messages waiting in our queue; beyond that send() refuses. Only who gives blocks up with many
  // connections untold comes near it.
  static constexpr std::size_t kMaxQueued = 8192;

  struct Counters {
    std::uint64_t sent = 0;            // handed to corosync
    std::uint64_t received = 0;        // decoded and given to the sink, own ones included
    std::uint64_t try_again = 0;       // times that corosync asked to wait
    std::uint64_t beats_replaced = 0;  // queued beats that a newer one made superfluous
    std::uint64_t lost = 0;            // own messages that were skipped when later ones came back
    std::uint64_t disconnects = 0;
    std::size_t in_flight = 0;
    std::size_t in_flight_max = 0;
    std::size_t queued = 0;
    std::array<std::uint64_t, kDecodeErrors> refused{};  // by DecodeError
  };

  // `loop` must outlive the group. Nothing happens before join().
  Group(qb_loop_t* loop, std::uint16_t cluster_id, Hooks hooks);
  ~Group();  // leaves, as leave() does; waits for it 200 ms at most
  Group(Group&&) noexcept;
  Group& operator=(Group&&) noexcept;

  // Connects and joins under a fresh nonce; then the sink gets Joined, and from there on what CPG
  // delivers. Tries again by itself, at least once a second, until it succeeds. When the connection
  // is lost the sink gets Disconnected, once, and joining starts anew.
  void join();

  // Leaves and joins again under a fresh nonce; ends in Joined, without Disconnected. What CPG has
  // not delivered yet, and what is queued here, is dropped.
  void rejoin();

  // Leaves; `done` is called when corosync has confirmed it or is gone. The queue is dropped: ask
  // flushed() first. Without an answer of corosync `done` is not called.
  void leave(std::function<void()> done);

  // Queues the message; messages leave in this order. A beat takes the place of an older queued
  // beat of the same view (it goes to the end of the queue). Refused: when not joined, when the
  // queue is full, when message.sender is not the name under which the group was joined last.
  [[nodiscard]] tl::expected<void, CorosyncError> send(const Message& message);

  bool joined() const;
  MemberId me() const;          // valid while joined()
  bool flushed() const;         // nothing queued, nothing in flight
  std::size_t waiting() const;  // own messages, queued and in flight
  Counters counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saru
