// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/quorum.h"

#include <corosync/quorum.h>

#include <optional>
#include <utility>
#include <vector>

#include "cpg/connection.h"
#include "cpg/quorum_merge.h"

namespace saru {
namespace {

std::vector<NodeId> nodes(const std::uint32_t* list, std::uint32_t count) {
  std::vector<NodeId> result;
  for (std::uint32_t i = 0; i < count; ++i) result.push_back(NodeId{list[i]});
  return result;
}

RingId ring(const quorum_ring_id& id) {
  return {.representative = NodeId{id.nodeid}, .seq = id.seq};
}

}  // namespace

class Quorum::Impl {
 public:
  Impl(qb_loop_t* loop, NodeId me, Hooks hooks)
      : hooks_(std::move(hooks)),
        merge_(me),
        connection_(loop,
                    {.name = "libquorum",
                     .open = [this] { return open(this); },
                     .close = [](Connection::Handle handle) { quorum_finalize(handle); },
                     .dispatch_one =
                         [](Connection::Handle handle) {
                           return quorum_dispatch(handle, CS_DISPATCH_ONE_NONBLOCKING);
                         }},
                    {.on_up = [this](const Connection::Opened&) { merge_.reset(); },
                     .on_down = [this] { hooks_.sink(QuorumChanged{}); }},
                    hooks_) {}

  void start() { connection_.start(); }

 private:
  // In the background: `self` is only handed on.
  static Connection::Opened open(Impl* self) {
    Connection::Opened opened;
    quorum_model_v1_data_t model{.model = QUORUM_MODEL_V1,
                                 .quorum_notify_fn = &Impl::on_quorum,
                                 .nodelist_notify_fn = &Impl::on_nodelist};
    std::uint32_t type = 0;
    quorum_handle_t handle = 0;
    opened.what = "quorum_model_initialize";
    opened.error = quorum_model_initialize(
        &handle, QUORUM_MODEL_V1, reinterpret_cast<quorum_model_data_t*>(&model), &type, self);
    if (opened.error == CS_OK && type != QUORUM_SET) {
      opened.what =
          "corosync.conf names no quorum provider; set quorum.provider to "
          "corosync_votequorum";
      opened.error = CS_ERR_NOT_SUPPORTED;
      quorum_finalize(handle);
      return opened;
    }
    if (opened.error == CS_OK) {
      opened.what = "quorum_trackstart";
      opened.error = quorum_fd_get(handle, &opened.fd);
      if (opened.error == CS_OK) {
        opened.error = quorum_trackstart(handle, CS_TRACK_CURRENT | CS_TRACK_CHANGES);
      }
      if (opened.error != CS_OK) quorum_finalize(handle);
    }
    opened.handle = handle;
    if (opened.error != CS_OK) opened.what += ": " + name_of(opened.error);
    return opened;
  }

  static Impl* self(quorum_handle_t handle) {
    const void* context = nullptr;
    if (quorum_context_get(handle, &context) != CS_OK) return nullptr;
    return static_cast<Impl*>(const_cast<void*>(context));
  }

  static void on_quorum(quorum_handle_t handle, std::uint32_t quorate, quorum_ring_id id,
                        std::uint32_t, const std::uint32_t*) noexcept {
    if (Impl* impl = self(handle)) impl->give(impl->merge_.quorum(ring(id), quorate != 0));
  }
  static void on_nodelist(quorum_handle_t handle, quorum_ring_id id, std::uint32_t members,
                          const std::uint32_t* member_list, std::uint32_t joined,
                          const std::uint32_t* joined_list, std::uint32_t left,
                          const std::uint32_t* left_list) noexcept {
    if (Impl* impl = self(handle)) {
      impl->give(impl->merge_.nodelist(ring(id), nodes(member_list, members),
                                       nodes(joined_list, joined), nodes(left_list, left)));
    }
  }

  void give(std::optional<QuorumChanged> event) {
    if (event) hooks_.sink(std::move(*event));
  }

  Hooks hooks_;
  QuorumMerge merge_;
  Connection connection_;
};

Quorum::Quorum(qb_loop_t* loop, NodeId me, Hooks hooks)
    : impl_(std::make_unique<Impl>(loop, me, std::move(hooks))) {}
Quorum::~Quorum() = default;
Quorum::Quorum(Quorum&&) noexcept = default;
Quorum& Quorum::operator=(Quorum&&) noexcept = default;

void Quorum::start() { impl_->start(); }

}  // namespace saru
