// SPDX-License-Identifier: GPL-2.0-or-later
// One member's copy of all connections, kept equal to the others' by messages that all receive in
// one order (CPG). A member's own news come into its copy when its message comes back, like
// everybody's. Pure: no clock, no I/O; messages go out through next(), and come in through
// deliver().
//
// Only the owner of a block tells of it, so there is one order for each connection. Whoever was not
// there, or lost a message, sees it by a digest and asks for the whole block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "agent/core/block_set.h"
#include "agent/core/message.h"
#include "agent/sync/flow.h"
#include "agent/sync/flow_status.h"
#include "agent/sync/store.h"

namespace saru::sync {

class Replica {
 public:
  // The block of a connection; nothing if it belongs to none.
  using BlockOf = std::function<std::optional<BlockId>(const Flow&)>;

  Replica(unsigned blocks, BlockOf block_of);

  // ---- What this node's kernel says of blocks that are its own.

  // What is known of a connection, sent or not; null if nothing is.
  const std::string* known(BlockId block, const std::string& key) const;
  // Nothing happens if it says no more than what is known.
  void changed(BlockId block, const std::string& key, std::string value);
  void over(BlockId block, const std::string& key);

  // ---- Messages out. `most` bytes of records in each.

  bool has_news() const { return !news_.empty(); }
  std::size_t news() const { return news_.size(); }
  // Parts of blocks that somebody waits for.
  bool has_parts() const { return !parts_.empty() || !wanted_.empty(); }
  bool has_something() const { return has_news() || has_parts(); }
  // The next message: parts of a block that somebody wants, then news.
  std::optional<Flows> next(std::size_t most);
  // All news of these blocks at once.
  std::vector<Flows> news_of(const BlockSet& blocks, std::size_t most);
  // Somebody wants all that is known of these blocks.
  void wanted(const BlockSet& blocks);
  // What all will know of these blocks once they have received what was sent before.
  FlowDigest digest(const BlockSet& blocks) const;

  // ---- Messages in, in the order in which all receive them.

  // Of another member. `accepted`: the blocks that it may tell of. Returns the block of which the
  // last part has come, and true if messages of the sender are missing before this one. `merge`:
  // what a whole block lacks is kept all the same, where nobody knows better than others.
  struct Delivered {
    std::optional<BlockId> whole;
    bool gap = false;
  };
  Delivered deliver(const Flows& message, const MemberId& sender, const BlockSet& accepted,
                    bool merge = false);
  // Our own, which comes back. `counts`: the others take it as well. What did not come back, or
  // does not count, is told again if its block is among `ours`.
  void deliver_own(const Flows& message, bool counts, const BlockSet& ours);
  // The blocks of a digest of which something else is known here.
  BlockSet differing(const FlowDigest& digest) const;

  // ---- Changes of the surroundings.

  // The group was left and joined again: what was on its way is lost, and no block is ours.
  void joined_anew();
  // These are all who may speak now: what others have begun to say is not continued.
  void keep_senders(const std::set<MemberId>& senders);
  // Not our blocks any more: news of them are nobody's business.
  void drop_news(const BlockSet& blocks);
  // The blocks mean other connections now, or are as many as `blocks`.
  void cut_anew(unsigned blocks, BlockOf block_of);

  // Calls each(key, value, block) for all that is known of these blocks and has been sent, come
  // back or not. each() delivers nothing. What is on its way is gone through once for all of them.
  void for_each(
      const BlockSet& blocks,
      const std::function<void(const std::string&, const std::string&, BlockId)>& each) const;

  const FlowStore& store() const { return store_; }
  const ReplicaCounters& counters() const { return counters_; }

 private:
  // What is not in the store yet: over, or as in `value`.
  struct News {
    BlockId block;
    std::optional<std::string> value;
  };
  struct Sent {
    News news;
    std::uint64_t sequence = 0;
  };
  struct OnItsWay {
    std::uint64_t sequence = 0;
    std::vector<std::string> keys;
  };
  // A block of which the last part has not come yet.
  struct Staging {
    BlockId block;
    FlowStore::Table table;
  };

  FlowStore::Table all_of(BlockId block) const;
  void make_parts(BlockId block, std::size_t most);
  Flows number(Flows message);
  void send(const std::string& key, News news);
  void take_back(const OnItsWay& message, bool lost, const BlockSet& ours);
  void apply(const Flows& message, const BlockSet& accepted);
  std::optional<BlockId> apply_part(const Flows& message, const MemberId& sender,
                                    const BlockSet& accepted, bool merge);
  void erase(std::string_view key, const BlockSet& accepted);

  BlockOf block_of_;
  FlowStore store_;
  std::unordered_map<std::string, News> news_;
  std::unordered_map<std::string, Sent> sent_;  // not come back yet
  std::deque<OnItsWay> on_their_way_;
  std::uint64_t sequence_ = 0;
  std::deque<Flows> parts_;
  BlockSet wanted_;
  bool news_went_ = false;                   // since the last block that somebody wanted
  std::map<MemberId, std::uint64_t> heard_;  // the last sequence of each
  std::map<MemberId, Staging> staging_;
  ReplicaCounters counters_;
};

}  // namespace saru::sync
