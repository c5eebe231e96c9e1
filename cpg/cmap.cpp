// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpg/cmap.h"

#include <corosync/cmap.h>
#include <corosync/votequorum.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "cpg/background.h"
#include "cpg/connection.h"

namespace saru {
namespace {

using Facts = tl::expected<ClusterFacts, CorosyncError>;

constexpr const char* kNotRunning =
    "corosync is not running on this node: start it (systemctl start corosync)";

// Corosync says "try again" while it starts and while the ring forms anew, which a ring with a long
// token does for many seconds.
constexpr std::chrono::seconds kPatience{30};

// For threads of ours only: it sleeps in between.
template <class Call>
cs_error_t patiently(Call call) {
  constexpr std::chrono::milliseconds kPause{20};
  const auto end = std::chrono::steady_clock::now() + kPatience;
  cs_error_t error = call();
  while (error == CS_ERR_TRY_AGAIN && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(kPause);
    error = call();
  }
  return error;
}

// A connection to the map, or why there is none, or why it no longer answers.
class Map {
 public:
  Map() : error_(patiently([this] { return cmap_initialize(&handle_); })) {
    open_ = error_ == CS_OK;
  }
  ~Map() {
    if (open_) cmap_finalize(handle_);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;

  // CS_OK, or why it was not opened or could not be read: a key that is missing is no error.
  cs_error_t error() const { return error_; }
  std::optional<std::uint32_t> number(const std::string& key) const {
    std::uint32_t value = 0;
    const cs_error_t error =
        patiently([&] { return cmap_get_uint32(handle_, key.c_str(), &value); });
    if (error == CS_OK) return value;
    std::uint8_t small = 0;
    if (error == CS_ERR_INVALID_PARAM &&  // another type
        patiently([&] { return cmap_get_uint8(handle_, key.c_str(), &small); }) == CS_OK) {
      return small;
    }
    note(error);
    return std::nullopt;
  }
  std::string text(const std::string& key) const {
    char* value = nullptr;
    const cs_error_t error =
        patiently([&] { return cmap_get_string(handle_, key.c_str(), &value); });
    note(error);
    if (error != CS_OK) return {};
    const std::unique_ptr<char, decltype(&std::free)> owned(value, &std::free);
    return value;
  }
  std::vector<std::string> keys(const std::string& prefix) const {
    std::vector<std::string> found;
    cmap_iter_handle_t iterator = 0;
    const cs_error_t error =
        patiently([&] { return cmap_iter_init(handle_, prefix.c_str(), &iterator); });
    note(error);
    if (error != CS_OK) return found;
    std::array<char, CMAP_KEYNAME_MAXLEN + 1> key{};
    std::size_t size = 0;
    cmap_value_types_t type{};
    const auto next = [&] { return cmap_iter_next(handle_, iterator, key.data(), &size, &type); };
    cs_error_t ended = CS_OK;
    while ((ended = patiently(next)) == CS_OK) found.emplace_back(key.data());
    if (ended != CS_ERR_NO_SECTIONS) note(ended);  // that is its ordinary end
    cmap_iter_finalize(handle_, iterator);
    return found;
  }

 private:
  void note(cs_error_t error) const {
    if (error_ == CS_OK && error != CS_ERR_NOT_EXIST) error_ = error;
  }

  cmap_handle_t handle_ = 0;
  bool open_ = false;
  mutable cs_error_t error_;
};

std::string why_no_connection(cs_error_t error) {
  switch (error) {
    case CS_ERR_ACCESS:
    case CS_ERR_SECURITY:
      return "corosync does not let this user ask it: run as root, or allow the user in "
             "/etc/corosync/uidgid.d";
    case CS_ERR_TRY_AGAIN:
      return "corosync is just starting or too busy to answer: try again";
    case CS_ERR_LIBRARY:
    case CS_ERR_NOT_EXIST:
      return kNotRunning;
    default:
      return "cannot ask corosync for its configuration: " + name_of(error);
  }
}

Nanos from_ms(std::uint32_t ms) { return std::chrono::milliseconds(ms); }

std::vector<ClusterNode> read_nodes(const Map& map) {
  std::vector<ClusterNode> nodes;
  const std::string prefix = "nodelist.node.";
  const std::string suffix = ".nodeid";
  for (const std::string& key : map.keys(prefix)) {
    if (!key.ends_with(suffix)) continue;
    const std::string place = key.substr(0, key.size() - suffix.size());
    ClusterNode node;
    node.id.value = map.number(key).value_or(0);
    node.name = map.text(place + ".name");
    node.address = map.text(place + ".ring0_addr");
    node.votes = map.number(place + ".quorum_votes").value_or(1);
    nodes.push_back(std::move(node));
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const ClusterNode& a, const ClusterNode& b) { return a.id < b.id; });
  return nodes;
}

void read_transport(const Map& map, ClusterFacts& facts) {
  facts.transport = map.text("totem.transport");
  if (facts.transport.empty()) facts.transport = "knet";
  facts.knet_mtu = map.number("totem.knet_mtu").value_or(0);
  for (const std::string& key : map.keys("totem.interface.")) {
    if (!key.ends_with(".knet_ping_timeout")) continue;
    if (const auto ms = map.number(key)) facts.knet_ping_timeouts.push_back(from_ms(*ms));
  }
}

// What votequorum works with now. Without it the values of the configuration stay.
cs_error_t read_votes(ClusterFacts& facts) {
  votequorum_handle_t handle = 0;
  cs_error_t error = patiently([&] { return votequorum_initialize(&handle, nullptr); });
  if (error != CS_OK) return error;
  votequorum_info info{};
  error = patiently([&] { return votequorum_getinfo(handle, facts.local.value, &info); });
  votequorum_finalize(handle);
  if (error != CS_OK) return error;
  facts.votes = info.node_votes;
  facts.expected_votes = info.node_expected_votes;
  facts.two_node = (info.flags & VOTEQUORUM_INFO_TWONODE) != 0;
  facts.last_man_standing = (info.flags & VOTEQUORUM_INFO_LAST_MAN_STANDING) != 0;
  facts.auto_tie_breaker = (info.flags & VOTEQUORUM_INFO_AUTO_TIE_BREAKER) != 0;
  if ((info.flags & VOTEQUORUM_INFO_QDEVICE_REGISTERED) != 0) facts.quorum_device = true;
  return CS_OK;
}

// Waits for corosync as long as that takes. One thread at a time: the libraries' table of handles
// (libqb's hdb) may give two threads that open a connection at once the same handle, and the first
// that closes it leaves the other with CS_ERR_BAD_HANDLE.
Facts ask() {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const Map map;
  const auto failed = [](std::string text) {
    return tl::unexpected(CorosyncError{std::move(text)});
  };
  if (map.error() != CS_OK) return failed(why_no_connection(map.error()));
  const auto token = map.number("runtime.config.totem.token");
  const auto consensus = map.number("runtime.config.totem.consensus");
  if (map.error() != CS_OK) return failed(why_no_connection(map.error()));
  if (!token || !consensus) {
    return failed(
        "corosync is too old: it does not tell runtime.config.totem.token and "
        "runtime.config.totem.consensus; version 3.1 or newer is needed");
  }
  ClusterFacts facts;
  facts.token = from_ms(*token);
  facts.consensus = from_ms(*consensus);
  facts.cluster_name = map.text("totem.cluster_name");
  facts.nodes = read_nodes(map);
  const auto position = map.number("nodelist.local_node_pos");
  if (map.error() != CS_OK) return failed(why_no_connection(map.error()));
  if (!position) return failed("corosync.conf has no nodelist, or this node is not in it");
  const std::string place = "nodelist.node." + std::to_string(*position);
  facts.local.value = map.number(place + ".nodeid").value_or(0);
  if (facts.local.value == 0) {
    return failed("corosync.conf gives this node no nodeid (" + place + ".nodeid)");
  }
  facts.crypto_cipher = map.text("totem.crypto_cipher");
  if (facts.crypto_cipher.empty()) facts.crypto_cipher = "none";
  read_transport(map, facts);
  facts.quorum_device = !map.keys("quorum.device.").empty();
  facts.device_halves = map.text("quorum.device.net.algorithm") == "ffsplit";
  facts.device_timeout =
      from_ms(map.number("quorum.device.timeout").value_or(VOTEQUORUM_QDEVICE_DEFAULT_TIMEOUT));
  facts.quorum_provider = map.text("quorum.provider") == "corosync_votequorum";
  if (map.error() != CS_OK) return failed(why_no_connection(map.error()));
  if (!facts.quorum_provider) return facts;
  const cs_error_t error = read_votes(facts);
  if (error != CS_OK) return failed("votequorum does not answer: " + name_of(error));
  return facts;
}

}  // namespace

const ClusterNode* ClusterFacts::find(NodeId id) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(),
                                  [&](const ClusterNode& node) { return node.id == id; });
  return found == nodes.end() ? nullptr : &*found;
}

Facts read_facts(std::chrono::milliseconds limit) {
  const auto answer = std::make_shared<std::optional<Facts>>();
  if (run_bounded([answer] { answer->emplace(ask()); }, limit)) return **answer;
  return tl::unexpected(CorosyncError{"corosync runs but has not answered for " +
                                      std::to_string(limit.count()) +
                                      " ms: it is stopped, or this machine is overloaded"});
}

namespace {

// One question under way; deletes itself, outside of its own callback.
struct Asking {
  qb_loop_t* loop;
  std::function<void(Facts)> done;
  std::shared_ptr<std::optional<Facts>> answer = std::make_shared<std::optional<Facts>>();
  Background background{loop};

  void end() {
    if (!answer->has_value()) {
      answer->emplace(tl::unexpected(CorosyncError{"no thread can be had to ask corosync"}));
    }
    qb_loop_job_add(loop, QB_LOOP_HIGH, this, [](void* data) {
      const std::unique_ptr<Asking> self(static_cast<Asking*>(data));
      self->done(std::move(**self->answer));
    });
  }
};

}  // namespace

void read_facts(qb_loop_t* loop, std::function<void(Facts)> done) {
  auto* asking = new Asking{.loop = loop, .done = std::move(done)};
  const bool started = asking->background.run([answer = asking->answer] { answer->emplace(ask()); },
                                              [asking] { asking->end(); });
  if (!started) asking->end();
}

}  // namespace saru
