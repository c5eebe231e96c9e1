// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/shutdown.h"

#include <corosync/cfg.h>

#include <utility>

#include "cpg/background.h"
#include "cpg/connection.h"
#include "cpg/loop.h"

namespace saru {
namespace {

// Longer than the 5 s that corosync waits for answers (cfg.shutdown_timeout).
constexpr std::chrono::milliseconds kCancelledAfter{6500};

}  // namespace

class ShutdownWatch::Impl {
 public:
  Impl(qb_loop_t* loop, Callbacks callbacks, Hooks hooks)
      : callbacks_(std::move(callbacks)),
        hooks_(std::move(hooks)),
        late_(loop, [this] { agree(); }),
        cancelled_(loop, [this] { on_cancelled(); }),
        reply_(loop),
        connection_(
            loop,
            {.name = "libcfg",
             .open = &Impl::open,
             .close = [](Connection::Handle handle) { corosync_cfg_finalize(handle); },
             .dispatch_one = [this](Connection::Handle handle) { return dispatch(handle); }},
            {.on_up = [](const Connection::Opened&) {}, .on_down = [this] { on_down(); }}, hooks_) {
  }

  void start() { connection_.start(); }

  void agree() {
    late_.stop();
    if (!asked_ || !connection_.up() || reply_.busy()) return;
    asked_ = false;
    const auto reply = [handle = connection_.handle()] {
      corosync_cfg_replyto_shutdown(handle, COROSYNC_CFG_SHUTDOWN_FLAG_YES);
    };
    // Without an answer of ours corosync goes on, or gives up, when its own time is over.
    if (!reply_.run(reply, [] {}) && hooks_.log) {
      hooks_.log(LogLevel::kWarning, "cannot agree to corosync's shutdown: no thread can be had");
    }
  }

 private:
  static Connection::Opened open() {
    Connection::Opened opened;
    corosync_cfg_callbacks_t callbacks{.corosync_cfg_shutdown_callback = &Impl::on_request};
    corosync_cfg_handle_t handle = 0;
    opened.error = corosync_cfg_initialize(&handle, &callbacks);
    if (opened.error == CS_OK) {
      opened.handle = handle;
      opened.error = corosync_cfg_fd_get(handle, &opened.fd);
      if (opened.error == CS_OK) opened.error = corosync_cfg_trackstart(handle, 0);
      if (opened.error != CS_OK) corosync_cfg_finalize(handle);
    }
    if (opened.error != CS_OK) opened.what = "corosync_cfg_trackstart: " + name_of(opened.error);
    return opened;
  }

  // libcfg's callback gets no context; it runs in here only.
  cs_error_t dispatch(Connection::Handle handle) {
    dispatching_ = this;
    const cs_error_t error = corosync_cfg_dispatch(handle, CS_DISPATCH_ONE_NONBLOCKING);
    dispatching_ = nullptr;
    return error;
  }

  static void on_request(corosync_cfg_handle_t, corosync_cfg_shutdown_flags_t) noexcept {
    Impl* impl = dispatching_;
    // Corosync says it once more when its time is over.
    if (impl == nullptr || impl->cancelled_.running()) return;
    impl->asked_ = true;
    impl->late_.start(kTimeToRelease);
    impl->cancelled_.start(kCancelledAfter);
    if (impl->callbacks_.on_shutdown) impl->callbacks_.on_shutdown();
  }

  void on_cancelled() {
    connection_.before_dispatch();
    asked_ = false;
    if (callbacks_.on_cancelled) callbacks_.on_cancelled();
  }

  void on_down() {
    asked_ = false;
    late_.stop();
    cancelled_.stop();
  }

  static inline Impl* dispatching_ = nullptr;

  Callbacks callbacks_;
  Hooks hooks_;
  bool asked_ = false;
  LoopTimer late_;
  LoopTimer cancelled_;
  Background reply_;
  Connection connection_;
};

ShutdownWatch::ShutdownWatch(qb_loop_t* loop, Callbacks callbacks, Hooks hooks)
    : impl_(std::make_unique<Impl>(loop, std::move(callbacks), std::move(hooks))) {}
ShutdownWatch::~ShutdownWatch() = default;
ShutdownWatch::ShutdownWatch(ShutdownWatch&&) noexcept = default;
ShutdownWatch& ShutdownWatch::operator=(ShutdownWatch&&) noexcept = default;

void ShutdownWatch::start() { impl_->start(); }
void ShutdownWatch::agree() { impl_->agree(); }

}  // namespace saru
