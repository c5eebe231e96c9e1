// SPDX-License-Identifier: GPL-2.0-or-later
// Established TCP connections stay on their node while their block moves between live nodes
// (Config::stays). Whoever gives a block up lets it linger: its kernel goes on with what is
// established there. Whoever takes the block has it contested, and answers nothing but what begins
// or is established with it, until nobody else lingers in it.
//
// A block can only begin to linger where its owner releases it. So nothing new lingers in a block
// while we own it, and what lingered when we took it was said in the Hellos of that view, or by the
// Released that we waited for; or it lingers at somebody who is missing, under a lease that ends
// as its blocks' does.
#include "agent/core/machine.h"

namespace saru {

// Not where the blocks are about to mean other packets, nor when this process ends.
bool Machine::lets_linger() const {
  return s.config.stays && !s.view.foreign && !s.switching && !s.stopping;
}

// What was waited for before nobody's blocks are taken: the leases of all who do not speak for
// themselves in this view have ended.
bool Machine::nobody_else_has_any() const {
  return (free_ones_are_free() && doubtful_are_outvoted()) || planted() == Plant::kUncontestAtOnce;
}

BlockSet Machine::lingering_elsewhere() const {
  BlockSet lingering(s.config.blocks);
  if (planted() == Plant::kForgetLingerers) return lingering;
  for (const auto& [process, peer] : s.view.peers) {
    const bool speaks = process != s.me.process && !s.view.waived.contains(process);
    if (speaks && peer.lingering.blocks() == s.config.blocks) lingering |= peer.lingering;
  }
  return lingering;
}

void Machine::contest(const BlockSet& taken) {
  if (!s.config.stays) return;
  s.contested |= nobody_else_has_any() ? taken & lingering_elsewhere() : taken;
}

void Machine::look_at_contested() {
  s.contested &= s.holding;
  if (s.contested.empty() || !may_acquire() || !nobody_else_has_any()) return;
  s.contested &= lingering_elsewhere();
}

// The blocks will mean other packets here, or are none of this configuration's.
void Machine::forget_lingering() {
  s.ending |= s.lingering;
  s.lingering.clear();
}

void Machine::on(const LingerEnded& event) {
  if (event.blocks.blocks() != s.config.blocks) return;
  const BlockSet over = s.lingering & event.blocks;
  s.ending |= over;
  s.lingering -= over;
  if (planted() == Plant::kLingerDoneBeforeAck && !over.empty()) send(LingerDone{over});
}

void Machine::say_linger_done() {
  if (s.kernel.in_flight || s.kernel.rebuild || s.ending.empty() ||
      s.kernel.lingering.intersects(s.ending)) {
    return;
  }
  if (s.view.hello_sent) send(LingerDone{s.ending});
  s.ending.clear();
  // Another configuration's connections were in the way of those who serve.
  if (s.view.foreign && !s.switching) s.need_round = RoundReason::kConfig;
}

void Machine::on_linger_done(const Message& message, const LingerDone& done) {
  Peer& peer = s.view.peers[message.sender.process];
  if (done.blocks.blocks() == peer.lingering.blocks()) peer.lingering -= done.blocks;
}

}  // namespace saru
