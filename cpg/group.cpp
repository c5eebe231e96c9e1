// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/group.h"

#include <corosync/cpg.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cpg/connection.h"
#include "cpg/outbox.h"

namespace saru {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTryAgainFirst{1};
constexpr milliseconds kTryAgainLongest{16};
constexpr std::chrono::seconds kBetweenWarnings{10};
// PROCESSOR_COUNT_MAX of corosync: as many as an answer can hold.
constexpr std::size_t kAnswerMembers = 384;

cpg_name group_name(std::uint16_t cluster_id) {
  cpg_name name{};
  const std::string text = "saru:" + std::to_string(cluster_id);
  std::memcpy(name.value, text.data(), text.size());
  name.length = static_cast<std::uint32_t>(text.size());
  return name;
}

// Zero is the nonce of nobody.
std::uint64_t draw_nonce() {
  std::uint64_t nonce = 0;
  while (nonce == 0) {
    if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce) nonce = 0;
  }
  return nonce;
}

std::vector<ProcessId> processes(const cpg_address* list, std::size_t count) {
  std::vector<ProcessId> result;
  for (std::size_t i = 0; i < count; ++i) {
    result.push_back({.node = NodeId{list[i].nodeid}, .pid = list[i].pid});
  }
  return result;
}

// libcpg copies the members to an array of CPG_MEMBERS_MAX without counting them, so a group must
// never grow larger: whoever would be one too many finds out before it joins.
cs_error_t check_room(cpg_handle_t handle, cpg_name name, std::string& what) {
  std::vector<cpg_address> members(kAnswerMembers);
  int count = 0;
  const cs_error_t error = cpg_membership_get(handle, &name, members.data(), &count);
  if (error != CS_OK || count < static_cast<int>(kMaxMembers)) return error;
  what = "the group " + std::string(name.value, name.length) + " has " + std::to_string(count) +
         " members, and CPG allows no more than " + std::to_string(kMaxMembers) +
         ": stop it on another node first";
  return CS_ERR_TOO_MANY_GROUPS;
}

}  // namespace

class Group::Impl {
 public:
  Impl(qb_loop_t* loop, std::uint16_t cluster_id, Hooks hooks)
      : cluster_id_(cluster_id),
        hooks_(std::move(hooks)),
        outbox_(kMaxQueued, kMaxInFlight),
        try_again_(loop, [this] { tried_again(); }),
        connection_(loop, library(),
                    {.on_up = [this](const auto& opened) { on_up(opened); },
                     .on_down = [this] { on_down(); }},
                    hooks_) {}

  void join() { connection_.start(); }
  void rejoin() {
    if (!joined()) return;
    outbox_.clear();
    connection_.restart();
  }
  void leave(std::function<void()> done) {
    outbox_.clear();
    connection_.stop(std::move(done));
  }
  tl::expected<void, CorosyncError> send(const Message& message);

  bool joined() const { return connection_.up(); }
  MemberId me() const { return me_; }
  std::size_t waiting() const { return outbox_.queued() + outbox_.in_flight(); }
  bool flushed() const { return waiting() == 0; }
  Counters counters() const {
    Counters counters = counters_;
    counters.in_flight = outbox_.in_flight();
    counters.queued = outbox_.queued();
    return counters;
  }

 private:
  Connection::Library library();
  static Connection::Opened open(std::uint16_t cluster_id, Impl* self);
  void on_up(const Connection::Opened& opened);
  void on_down();
  void pump();
  void tried_again();
  void refuse(ProcessId from, DecodeError error);

  static Impl* self(cpg_handle_t handle);
  static void on_deliver(cpg_handle_t handle, const cpg_name* group, std::uint32_t node,
                         std::uint32_t pid, void* bytes, std::size_t size) noexcept;
  static void on_confchg(cpg_handle_t handle, const cpg_name* group, const cpg_address* members,
                         std::size_t member_count, const cpg_address* left, std::size_t left_count,
                         const cpg_address* joined, std::size_t joined_count) noexcept;
  static void on_totem(cpg_handle_t handle, cpg_ring_id ring, std::uint32_t count,
                       const std::uint32_t* members) noexcept;

  std::uint16_t cluster_id_;
  Hooks hooks_;
  MemberId me_;
  Outbox outbox_;
  Counters counters_;
  std::array<std::chrono::steady_clock::time_point, kDecodeErrors> warned_{};
  milliseconds try_again_delay_ = kTryAgainFirst;
  LoopTimer try_again_;
  Connection connection_;
};

Connection::Library Group::Impl::library() {
  return {.name = "libcpg",
          .open = [id = cluster_id_, this] { return open(id, this); },
          .close =
              [id = cluster_id_](Connection::Handle handle) {
                const cpg_name name = group_name(id);
                cpg_leave(handle, &name);
                cpg_finalize(handle);
              },
          .dispatch_one =
              [](Connection::Handle handle) {
                return cpg_dispatch(handle, CS_DISPATCH_ONE_NONBLOCKING);
              }};
}

// In the background: `self` is only handed on.
Connection::Opened Group::Impl::open(std::uint16_t cluster_id, Impl* self) {
  cpg_model_v1_data_t model{.model = CPG_MODEL_V1,
                            .cpg_deliver_fn = &Impl::on_deliver,
                            .cpg_confchg_fn = &Impl::on_confchg,
                            .cpg_totem_confchg_fn = &Impl::on_totem,
                            .flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF};
  Connection::Opened opened;
  cpg_handle_t handle = 0;
  opened.error = cpg_model_initialize(&handle, CPG_MODEL_V1,
                                      reinterpret_cast<cpg_model_data_t*>(&model), self);
  if (opened.error != CS_OK) {
    opened.what = "cpg_model_initialize: " + name_of(opened.error);
    return opened;
  }
  const cpg_name name = group_name(cluster_id);
  opened.handle = handle;
  opened.error = cpg_local_get(handle, &opened.node.value);
  if (opened.error == CS_OK) opened.error = cpg_fd_get(handle, &opened.fd);
  if (opened.error == CS_OK) opened.error = check_room(handle, name, opened.what);
  if (opened.error == CS_OK) opened.error = cpg_join(handle, &name);
  if (opened.error == CS_OK) return opened;
  if (opened.what.empty()) opened.what = "cpg_join: " + name_of(opened.error);
  cpg_finalize(handle);
  return opened;
}

void Group::Impl::on_up(const Connection::Opened& opened) {
  outbox_.clear();
  try_again_.stop();
  me_ = {.process = {.node = opened.node, .pid = static_cast<std::uint32_t>(getpid())},
         .nonce = draw_nonce()};
  hooks_.sink(Joined{me_});
}

void Group::Impl::on_down() {
  outbox_.clear();
  try_again_.stop();
  ++counters_.disconnects;
  hooks_.sink(Disconnected{});
}

tl::expected<void, CorosyncError> Group::Impl::send(const Message& message) {
  if (!joined()) return tl::unexpected(CorosyncError{"not connected to corosync"});
  if (message.sender != me_) {
    return tl::unexpected(CorosyncError{"the message speaks for a member that is not this one"});
  }
  switch (outbox_.push(message, encode(cluster_id_, message))) {
    case Outbox::Queued::kFull:
      return tl::unexpected(CorosyncError{
          "corosync takes no messages: " + std::to_string(outbox_.queued()) + " wait already"});
    case Outbox::Queued::kInPlaceOfABeat:
      ++counters_.beats_replaced;
      break;
    case Outbox::Queued::kYes:
      break;
  }
  pump();
  return {};
}

// Hands over what may be sent. Never blocks: see kMaxInFlight.
void Group::Impl::pump() {
  if (try_again_.running()) return;
  while (joined()) {
    const std::vector<std::byte>* bytes = outbox_.next();
    if (bytes == nullptr) return;
    const iovec part{.iov_base = const_cast<std::byte*>(bytes->data()), .iov_len = bytes->size()};
    const cs_error_t error = cpg_mcast_joined(connection_.handle(), CPG_TYPE_AGREED, &part, 1);
    if (error == CS_ERR_TRY_AGAIN) {
      ++counters_.try_again;
      try_again_.start(try_again_delay_);
      try_again_delay_ = std::min(try_again_delay_ * 2, kTryAgainLongest);
      return;
    }
    if (error != CS_OK) return connection_.lost("cpg_mcast_joined: " + name_of(error));
    try_again_delay_ = kTryAgainFirst;
    ++counters_.sent;
    outbox_.sent();
    counters_.in_flight_max = std::max(counters_.in_flight_max, outbox_.in_flight());
  }
}

void Group::Impl::tried_again() {
  connection_.before_dispatch();
  pump();
}

// ---- What libcpg calls
// ---------------------------------------------------------------------------

Group::Impl* Group::Impl::self(cpg_handle_t handle) {
  void* context = nullptr;
  if (cpg_context_get(handle, &context) != CS_OK) return nullptr;
  return static_cast<Impl*>(context);
}

void Group::Impl::on_deliver(cpg_handle_t handle, const cpg_name*, std::uint32_t node,
                             std::uint32_t pid, void* data, std::size_t size) noexcept {
  Impl* impl = self(handle);
  if (impl == nullptr) return;
  const std::span bytes(static_cast<const std::byte*>(data), size);
  const ProcessId from{.node = NodeId{node}, .pid = pid};
  if (from == impl->me_.process) impl->counters_.lost += impl->outbox_.came_back(bytes);
  auto message = decode(impl->cluster_id_, bytes, from);
  if (message) {
    ++impl->counters_.received;
    impl->hooks_.sink(Received{.from = from, .message = std::move(*message)});
  } else {
    impl->refuse(from, message.error());
  }
  impl->pump();
}

void Group::Impl::on_confchg(cpg_handle_t handle, const cpg_name*, const cpg_address* members,
                             std::size_t member_count, const cpg_address* left,
                             std::size_t left_count, const cpg_address* joined,
                             std::size_t joined_count) noexcept {
  Impl* impl = self(handle);
  if (impl == nullptr) return;
  impl->hooks_.sink(GroupChanged{.members = processes(members, member_count),
                                 .left = processes(left, left_count),
                                 .joined = processes(joined, joined_count)});
}

void Group::Impl::on_totem(cpg_handle_t handle, cpg_ring_id ring, std::uint32_t count,
                           const std::uint32_t* members) noexcept {
  Impl* impl = self(handle);
  if (impl == nullptr) return;
  RingChanged event{.ring = {.representative = NodeId{ring.nodeid}, .seq = ring.seq},
                    .members = {}};
  for (std::uint32_t i = 0; i < count; ++i) event.members.push_back(NodeId{members[i]});
  impl->hooks_.sink(std::move(event));
}

void Group::Impl::refuse(ProcessId from, DecodeError error) {
  // A stranger who speaks no word of saru is no member that could own blocks.
  const bool of_saru = error != DecodeError::kWrongMagic && error != DecodeError::kTooShort;
  if (of_saru) hooks_.sink(NotUnderstood{from});
  const auto reason = static_cast<std::size_t>(error);
  const std::uint64_t count = ++counters_.refused[reason];
  const auto now = std::chrono::steady_clock::now();
  if (count > 1 && now - warned_[reason] < kBetweenWarnings) return;
  warned_[reason] = now;
  if (!hooks_.log) return;
  hooks_.log(LogLevel::kWarning, "dropped a message of node " + std::to_string(from.node.value) +
                                     ", process " + std::to_string(from.pid) + ": " +
                                     std::string(text(error)) + " (" + std::to_string(count) +
                                     " so far)");
}

// ---- The outside
// -----------------------------------------------------------------------------------

Group::Group(qb_loop_t* loop, std::uint16_t cluster_id, Hooks hooks)
    : impl_(std::make_unique<Impl>(loop, cluster_id, std::move(hooks))) {}
Group::~Group() = default;
Group::Group(Group&&) noexcept = default;
Group& Group::operator=(Group&&) noexcept = default;

void Group::join() { impl_->join(); }
void Group::rejoin() { impl_->rejoin(); }
void Group::leave(std::function<void()> done) { impl_->leave(std::move(done)); }
tl::expected<void, CorosyncError> Group::send(const Message& message) {
  return impl_->send(message);
}
bool Group::joined() const { return impl_->joined(); }
MemberId Group::me() const { return impl_->me(); }
bool Group::flushed() const { return impl_->flushed(); }
std::size_t Group::waiting() const { return impl_->waiting(); }
Group::Counters Group::counters() const { return impl_->counters(); }

}  // namespace saru
