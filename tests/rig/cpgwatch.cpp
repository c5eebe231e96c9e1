// SPDX-License-Identifier: GPL-2.0-or-later
// saru-cpgwatch: prints when this node's corosync announces a membership change, one JSON line per
// callback. It has a CPG group of its own and knows nothing of the product, so its times are what
// the product's takeover times are compared with.
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <poll.h>
#include <time.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kExitGone = 1;
constexpr int kExitUsage = 3;
constexpr std::uint64_t kConnectNs = 10'000'000'000;
const char kGroup[] = "saru-cpgwatch";

volatile std::sig_atomic_t stop_requested = 0;

std::uint64_t now_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

std::string list(const std::uint32_t* ids, std::uint32_t count) {
  std::string text = "[";
  for (std::uint32_t i = 0; i < count; ++i) text += (i == 0 ? "" : ",") + std::to_string(ids[i]);
  return text + "]";
}

std::string list(const cpg_address* members, std::size_t count) {
  std::string text = "[";
  for (std::size_t i = 0; i < count; ++i) {
    text += (i == 0 ? "" : ",") + std::to_string(members[i].nodeid);
  }
  return text + "]";
}

std::string ring(std::uint32_t nodeid, std::uint64_t seq) {
  char text[40];
  std::snprintf(text, sizeof text, "\"%u.%llx\"", nodeid, static_cast<unsigned long long>(seq));
  return text;
}

// Both clocks are read before anything else is done in a callback.
struct Line {
  std::uint64_t realtime_ns = now_ns(CLOCK_REALTIME);
  std::uint64_t monotonic_ns = now_ns(CLOCK_MONOTONIC);

  void print(const char* source, const std::string& rest) const {
    std::printf("{\"source\":\"%s\",\"realtime_ns\":%llu,\"monotonic_ns\":%llu%s}\n", source,
                static_cast<unsigned long long>(realtime_ns),
                static_cast<unsigned long long>(monotonic_ns), rest.c_str());
    std::fflush(stdout);
  }
};

void on_message(cpg_handle_t, const cpg_name*, std::uint32_t, std::uint32_t, void*, std::size_t) {}

void on_group(cpg_handle_t, const cpg_name*, const cpg_address* members, std::size_t member_count,
              const cpg_address* left, std::size_t left_count, const cpg_address* joined,
              std::size_t joined_count) {
  const Line line;
  line.print("cpg", ",\"members\":" + list(members, member_count) + ",\"left\":" +
                        list(left, left_count) + ",\"joined\":" + list(joined, joined_count));
}

void on_totem(cpg_handle_t, cpg_ring_id id, std::uint32_t count, const std::uint32_t* members) {
  const Line line;
  line.print("totem",
             ",\"ring\":" + ring(id.nodeid, id.seq) + ",\"members\":" + list(members, count));
}

void on_quorum(quorum_handle_t, std::uint32_t quorate, quorum_ring_id id, std::uint32_t count,
               const std::uint32_t* members) {
  const Line line;
  line.print("quorum", ",\"ring\":" + ring(id.nodeid, id.seq) +
                           ",\"quorate\":" + (quorate != 0 ? "true" : "false") +
                           ",\"members\":" + list(members, count));
}

void on_nodelist(quorum_handle_t, quorum_ring_id id, std::uint32_t count,
                 const std::uint32_t* members, std::uint32_t joined_count,
                 const std::uint32_t* joined, std::uint32_t left_count, const std::uint32_t* left) {
  const Line line;
  line.print("nodelist", ",\"ring\":" + ring(id.nodeid, id.seq) + ",\"members\":" +
                             list(members, count) + ",\"left\":" + list(left, left_count) +
                             ",\"joined\":" + list(joined, joined_count));
}

// A call that corosync answers with TRY_AGAIN, or not at all yet, is repeated for a while.
template <class Call>
cs_error_t persist(Call call) {
  const std::uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
  for (;;) {
    const cs_error_t result = call();
    const bool again = result == CS_ERR_TRY_AGAIN || result == CS_ERR_LIBRARY;
    if (!again || stop_requested != 0 || now_ns(CLOCK_MONOTONIC) - start_ns > kConnectNs) {
      return result;
    }
    poll(nullptr, 0, 20);
  }
}

int fail(const char* what, cs_error_t error) {
  std::fprintf(stderr, "saru-cpgwatch: %s: corosync error %d; is corosync running on this node?\n",
               what, static_cast<int>(error));
  return kExitGone;
}

struct Handles {
  cpg_handle_t cpg = 0;
  quorum_handle_t quorum = 0;
  int cpg_fd = -1;
  int quorum_fd = -1;
};

int connect_all(Handles& handles) {
  cpg_model_v1_data_t group_model{};
  group_model.model = CPG_MODEL_V1;
  group_model.cpg_deliver_fn = on_message;
  group_model.cpg_confchg_fn = on_group;
  group_model.cpg_totem_confchg_fn = on_totem;
  group_model.flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF;
  cs_error_t result = persist([&] {
    return cpg_model_initialize(&handles.cpg, CPG_MODEL_V1,
                                reinterpret_cast<cpg_model_data_t*>(&group_model), nullptr);
  });
  if (result != CS_OK) return fail("cannot reach CPG", result);
  quorum_model_v1_data_t quorum_model{};
  quorum_model.model = QUORUM_MODEL_V1;
  quorum_model.quorum_notify_fn = on_quorum;
  quorum_model.nodelist_notify_fn = on_nodelist;
  std::uint32_t type = 0;
  result = persist([&] {
    return quorum_model_initialize(&handles.quorum, QUORUM_MODEL_V1,
                                   reinterpret_cast<quorum_model_data_t*>(&quorum_model), &type,
                                   nullptr);
  });
  if (result != CS_OK) return fail("cannot reach the quorum service", result);
  cpg_name name{};
  name.length = sizeof kGroup - 1;
  std::memcpy(name.value, kGroup, sizeof kGroup);
  result = persist([&] { return cpg_join(handles.cpg, &name); });
  if (result != CS_OK) return fail("cannot join the group", result);
  result = persist(
      [&] { return quorum_trackstart(handles.quorum, CS_TRACK_CHANGES | CS_TRACK_CURRENT); });
  if (result != CS_OK) return fail("cannot follow the quorum", result);
  cpg_fd_get(handles.cpg, &handles.cpg_fd);
  quorum_fd_get(handles.quorum, &handles.quorum_fd);
  return 0;
}

int follow(const Handles& handles, double seconds) {
  const std::uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
  const auto length_ns = static_cast<std::uint64_t>(seconds * 1e9);
  pollfd waits[] = {{handles.cpg_fd, POLLIN, 0}, {handles.quorum_fd, POLLIN, 0}};
  while (stop_requested == 0) {
    if (length_ns != 0 && now_ns(CLOCK_MONOTONIC) - start_ns >= length_ns) return 0;
    if (poll(waits, 2, 200) <= 0) continue;
    cs_error_t result = CS_OK;
    if (waits[0].revents != 0) result = cpg_dispatch(handles.cpg, CS_DISPATCH_ALL);
    if (result == CS_OK && waits[1].revents != 0) {
      result = quorum_dispatch(handles.quorum, CS_DISPATCH_ALL);
    }
    if (result != CS_OK && result != CS_ERR_TRY_AGAIN) {
      Line().print("gone", ",\"error\":" + std::to_string(static_cast<int>(result)));
      return kExitGone;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 0;
  if (argc == 3 && std::string(argv[1]) == "--seconds") {
    char* end = nullptr;
    seconds = std::strtod(argv[2], &end);
    if (*end != '\0' || !(seconds > 0 && seconds <= 86400)) argc = 0;
  } else if (argc != 1) {
    argc = 0;
  }
  if (argc == 0) {
    std::fprintf(stderr, "usage: saru-cpgwatch [--seconds N]\n");
    return kExitUsage;
  }
  struct sigaction action {};
  action.sa_handler = [](int) { stop_requested = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  Handles handles;
  const int failed = connect_all(handles);
  const int status = failed != 0 ? failed : follow(handles, seconds);
  if (handles.quorum != 0) quorum_finalize(handles.quorum);
  if (handles.cpg != 0) cpg_finalize(handles.cpg);
  return status;
}
