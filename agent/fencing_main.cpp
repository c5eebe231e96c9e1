// SPDX-License-Identifier: GPL-2.0-or-later
// saru-fencing PARTNER NODEID: listens to Pacemaker's fencer for sarud, on the node NODEID, and
// says on stdout (agent/fencing_news.h) when the node PARTNER has been fenced. Ends when nobody
// reads it.
#include <corosync/cmap.h>
#include <crm/crm.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

// A header for C alone: a parameter in it is called "namespace".
#define namespace name_space
extern "C" {
#include <crm/stonith-ng.h>
}
#undef namespace

#include "agent/confine.h"
#include "agent/fencing_judge.h"
#include "agent/fencing_news.h"

namespace {

using namespace std::chrono_literals;
using saru::FencingDeed;
using saru::FencingJudge;
using saru::FencingNews;
using saru::Nanos;
using std::string;

constexpr auto kAskEvery = 1000ms;
constexpr int kAnswerSeconds = 5;

Nanos raw_now() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return std::chrono::seconds(now.tv_sec) + Nanos(now.tv_nsec);
}

void say(const FencingNews& news) {
  const string line = to_line(news);
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) std::exit(0);  // nobody reads it
}

// Whether no node but this one has been on a ring with this node since its corosync began.
bool has_been_alone(const string& self) {
  cmap_handle_t map = 0;
  if (cmap_initialize(&map) != CS_OK) return false;
  cmap_iter_handle_t iterator = 0;
  const string prefix = "runtime.members.";
  bool alone = cmap_iter_init(map, prefix.c_str(), &iterator) == CS_OK;
  bool own = false;
  char key[CMAP_KEYNAME_MAXLEN + 1];
  std::size_t length = 0;
  cmap_value_types_t type{};
  cs_error_t next = CS_OK;
  while (alone && (next = cmap_iter_next(map, iterator, key, &length, &type)) == CS_OK) {
    const bool is_own = std::string_view(key).substr(prefix.size()).starts_with(self + ".");
    own = own || is_own;
    alone = is_own;
  }
  cmap_finalize(map);
  return alone && own && next == CS_ERR_NO_SECTIONS;  // the list was read to its end
}

string text(const char* words) { return words == nullptr ? "" : words; }

// One connection to the fencer after the other.
class Watcher {
 public:
  Watcher(const string& partner, string self)
      : partner_(partner), self_(std::move(self)), judge_(partner) {
    watcher = this;
  }

  void run() {
    for (;;) {
      if (connect()) watch();
      disconnect();
      wait(kAskEvery);
    }
  }

 private:
  bool connect() {
    judge_.begin();
    fencer_ = stonith_api_new();
    if (fencer_ == nullptr) return blind("out of memory");
    const int error = fencer_->cmds->connect(fencer_, "saru-fencing", &fd_);
    if (error != pcmk_ok) return blind(string("Pacemaker's fencer: ") + pcmk_strerror(error));
    const int refused =
        fencer_->cmds->register_notification(fencer_, T_STONITH_NOTIFY_FENCE, &Watcher::notified);
    if (refused != pcmk_ok) return blind(string("Pacemaker's fencer: ") + pcmk_strerror(refused));
    if (!ask()) return blind("Pacemaker's fencer does not tell its history");
    return true;
  }

  void disconnect() {
    if (fencer_ != nullptr) stonith_api_delete(fencer_);
    fencer_ = nullptr;
    fd_ = -1;
  }

  void watch() {
    auto next = std::chrono::steady_clock::now() + kAskEvery;
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          next - std::chrono::steady_clock::now());
      wait(std::max(left, 0ms));
      if (!drain()) {
        blind("Pacemaker's fencer has gone");
        return;
      }
      if (std::chrono::steady_clock::now() < next) continue;
      next = std::chrono::steady_clock::now() + kAskEvery;
      if (!ask()) {
        blind("Pacemaker's fencer does not answer");
        return;
      }
    }
  }

  bool ask() {
    const Nanos asked = raw_now();
    const bool alone = has_been_alone(self_);
    stonith_history_t* list = nullptr;
    const int error =
        fencer_->cmds->history(fencer_, st_opt_sync_call, partner_.c_str(), &list, kAnswerSeconds);
    if (error != pcmk_ok) return false;
    std::vector<FencingDeed> history;
    for (const auto* one = list; one != nullptr; one = one->next) {
      auto state = FencingDeed::State::kUnderWay;
      if (one->state == st_done) state = FencingDeed::State::kDone;
      if (one->state == st_failed) state = FencingDeed::State::kFailed;
      history.push_back({state, text(one->target), text(one->action)});
    }
    stonith_history_free(list);
    const bool was_fenced = judge_.read(history, asked);
    if (!drain()) return false;
    judge_.settle();
    say({FencingNews::Kind::kWatching, "", Nanos(0), false});
    // Both times: a corosync that began between has another past than this history.
    if (was_fenced && alone && has_been_alone(self_)) {
      say({FencingNews::Kind::kFenced, "", asked, true});
    }
    return true;
  }

  // False when the connection is gone.
  bool drain() {
    pollfd from = {fd_, POLLIN, 0};
    while (poll(&from, 1, 0) > 0) {
      // At the end of the connection the library would wait for ever.
      if ((from.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) return false;
      if (!stonith_dispatch(fencer_)) return false;
    }
    return true;
  }

  // Until something comes, and at the latest after `limit`. Ends with the reader.
  void wait(std::chrono::milliseconds limit) {
    pollfd both[] = {{STDOUT_FILENO, 0, 0}, {fd_, POLLIN, 0}};
    poll(both, 2, static_cast<int>(limit.count()));
    if ((both[0].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) std::exit(0);
  }

  bool blind(const string& reason) {
    say({FencingNews::Kind::kBlind, reason, Nanos(0), false});
    return false;
  }

  static void notified(stonith_t*, stonith_event_t* event) { watcher->on_event(*event); }

  void on_event(const stonith_event_t& event) {
    const auto end =
        event.result == pcmk_ok ? FencingDeed::State::kDone : FencingDeed::State::kFailed;
    const auto news = judge_.on_end({end, text(event.target), text(event.action)});
    if (news) say(*news);
  }

  static inline Watcher* watcher = nullptr;  // the library's callbacks carry no data

  string partner_;
  string self_;
  stonith_t* fencer_ = nullptr;
  int fd_ = -1;
  FencingJudge judge_;
};

// Corosync lets group 0 in, Pacemaker the group haclient. Nothing else is needed.
bool drop_rights() {
  const saru::Identity identity = saru::find_identity();
  const group* haclient = getgrnam("haclient");
  const gid_t extra = haclient == nullptr ? 0 : haclient->gr_gid;
  std::FILE* oom = std::fopen("/proc/self/oom_score_adj", "we");
  if (oom != nullptr) {
    std::fputs("0", oom);
    std::fclose(oom);
  }
  if (setgroups(haclient == nullptr ? 0 : 1, &extra) != 0) return false;
  if (!saru::drop_to(identity)) return false;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: saru-fencing PARTNER NODEID (sarud starts it)\n", stderr);
    return 2;
  }
  if (!drop_rights()) {
    say({FencingNews::Kind::kBlind, string("cannot drop root's rights: ") + std::strerror(errno),
         Nanos(0), false});
    return 1;
  }
  std::signal(SIGPIPE, SIG_IGN);
  Watcher(argv[1], argv[2]).run();
}
