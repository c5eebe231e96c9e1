// SPDX-License-Identifier: GPL-2.0-or-later
// Requests to a real sarud: its socket, its parser, its commands, its tables in the kernel; only
// corosync is not there. Run it in namespaces of its own, as root (tests/suites/alone). "stop" is
// left out: there would be no sarud for the next input.
#include <net/if.h>
#include <poll.h>
#include <qb/qbloop.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "agent/control.h"
#include "agent/daemon.h"
#include "agent/json_line.h"
#include "tests/fuzz/input.h"

namespace {

using namespace saru;
using fuzz::must;

constexpr const char* kSocket = "/run/saru-fuzz.sock";

class Sarud {
 public:
  Sarud() : loop_(qb_loop_create()) {
    must(std::system("ip link add fuzz0 type veth peer name fuzz1 && "
                     "ip link set fuzz1 up && ip link set fuzz0 up") == 0,
         "run it in tests/suites/alone, as root");
    auto options = validate({{"ip", "192.0.2.10,2001:db8::1"}, {"nic", "fuzz0"}});
    must(options.has_value(), "good options");
    daemon_ = std::make_unique<Daemon>(loop_, *options, config(), names(), Wishes{},
                                       closed_kernel(*options), callbacks());
    auto control = Control::open(loop_, kSocket, [this](ClientId client, const nlohmann::json& j) {
      const auto stop = j.find("command");
      if (stop != j.end() && *stop == "stop") return control_->refuse(client, "not here");
      daemon_->on_request(*control_, client, j);
    });
    must(control.has_value(), "a socket");
    control_ = std::move(*control);
  }

  // What sarud says to these bytes; nothing when it hangs up.
  std::string asked(std::span<const std::uint8_t> bytes) {
    client_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::copy_n(kSocket, std::char_traits<char>::length(kSocket), address.sun_path);
    must(connect(client_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "connects");
    static_cast<void>(send(client_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
    shutdown(client_, SHUT_WR);
    answer_.clear();
    // A job that begins itself anew would do, but between two of those the loop sleeps.
    must(qb_loop_poll_add(loop_, QB_LOOP_LOW, client_, POLLIN, this, &Sarud::on_answer) == 0,
         "waits for the answer");
    qb_loop_run(loop_);
    qb_loop_poll_del(loop_, client_);
    close(client_);
    return answer_;
  }

 private:
  static Config config() {
    Config config;
    config.node_name = "n1";
    config.node = NodeId{1};
    config.lease = config.longest_lease = std::chrono::seconds(1);
    return config;
  }
  static std::map<NodeId, std::string> names() { return {{NodeId{1}, "n1"}}; }
  static Daemon::Callbacks callbacks() {
    Daemon::Callbacks callbacks;
    callbacks.on_ready = [] {};
    callbacks.on_end = [](bool, const std::vector<std::string>&) {};
    callbacks.keep_wishes = [](const Wishes&) { return tl::expected<void, Failure>(); };
    callbacks.keep_lease = [](Nanos) { return tl::expected<void, Failure>(); };
    return callbacks;
  }
  static Daemon::Kernel closed_kernel(const Options& options) {
    const auto nic = nft::find_nic(options.nic);
    must(nic.has_value(), "a NIC");
    nft::TableConfig wanted;
    wanted.id = options.id;
    for (const ServiceAddress& one : options.addresses) wanted.addresses.push_back(one.ip);
    wanted.blocks = options.blocks;
    wanted.selection = options.selection;
    wanted.shared_mac = options.mac;
    wanted.own_mac = nic->mac;
    wanted.nic = options.nic;
    wanted.link = nft::link_name(options.id);
    auto table = nft::Table::open(std::move(wanted));
    must(table.has_value(), "a table");
    auto watch = nft::Watch::open(*table);
    auto link =
        nft::Link::open(*table, nft::Side::kOutside, options.addresses, std::chrono::seconds(3600));
    must(watch && link, "a link");
    return {std::move(*table), std::move(*watch), std::move(*link)};
  }

  static int32_t on_answer(int32_t, int32_t, void* self) {
    static_cast<Sarud*>(self)->listen();
    return 0;
  }
  void listen() {
    char part[4096];
    const ssize_t got = recv(client_, part, sizeof part, 0);
    if (got > 0) answer_.append(part, static_cast<std::size_t>(got));
    if (got == 0 || (got < 0 && errno != EAGAIN)) qb_loop_stop(loop_);
  }

  qb_loop_t* loop_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<Control> control_;
  int client_ = -1;
  std::string answer_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static auto* sarud = new Sarud;
  const std::span<const std::uint8_t> bytes(data, size);
  const std::string answer = sarud->asked(bytes);
  const bool whole = std::find(bytes.begin(), bytes.end(), '\n') != bytes.end();
  if (whole && size <= Control::kMaxRequest) must(!answer.empty(), "a line is answered");
  if (!answer.empty()) must(read_object(answer).has_value(), "an answer is one JSON object");
  return 0;
}
