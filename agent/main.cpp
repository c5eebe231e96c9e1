// SPDX-License-Identifier: GPL-2.0-or-later
// sarud: the one place where corosync, the core and the kernel are put together.
#include <net/if.h>
#include <pthread.h>
#include <qb/qbloop.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>

#include "agent/confine.h"
#include "agent/daemon.h"
#include "agent/fencing_watch.h"
#include "agent/lock.h"
#include "agent/logging.h"
#include "agent/membership.h"
#include "agent/process.h"
#include "agent/reload_client.h"
#include "nft/cleanup.h"
#include "nft/clocks.h"
#include "nft/in_use.h"

namespace saru {
namespace {

using std::string;

tl::unexpected<Failure> failed(const Error& error) { return tl::unexpected(to_failure(error)); }

tl::expected<void, Failure> check_rights() {
  if (geteuid() == 0) return {};
  return tl::unexpected(
      Failure{ExitCode::kNoPermission, "sarud changes the kernel's network rules: run it as root"});
}

// The NIC of each side.
using Nics = std::map<nft::Side, nft::Nic>;
nft::Result<Nics> find_nics(const Options& options) {
  Nics nics;
  const auto nic = nft::find_nic(options.nic);
  if (!nic) return tl::unexpected<Error>(nic.error());
  nics[nft::Side::kOutside] = *nic;
  if (!options.inside) return nics;
  const auto inside = nft::find_nic(options.inside->nic);
  if (!inside) return tl::unexpected<Error>(inside.error());
  nics[nft::Side::kInside] = *inside;
  return nics;
}

// What can be said about this node without changing anything.
tl::expected<ClusterFacts, Failure> check_node(const Options& options) {
  if (auto rights = check_rights(); !rights) return tl::unexpected(rights.error());
  const auto nics = find_nics(options);
  if (!nics) return failed(nics.error());
  auto facts = read_facts();
  if (!facts) return tl::unexpected(Failure{ExitCode::kFailed, facts.error().text});
  if (auto good = check_cluster(*facts, options); !good) return tl::unexpected(good.error());
  return *facts;
}

string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "";
  const string whole = name;
  return whole.substr(0, whole.find('.'));
}

Nanos since_boot() {
  timespec up = {};
  clock_gettime(CLOCK_BOOTTIME, &up);
  return std::chrono::seconds(up.tv_sec) + Nanos(up.tv_nsec);
}

// How long after closing the kernel this process must stay silent: what its predecessor told the
// others, or heard of them, is lost. A machine that has just booted may have had one, too.
Nanos wait_after(const std::optional<Marker>& last, Nanos lease) {
  if (last) return last->wait(lease, since_boot());
  return std::max(guarded(lease) - since_boot(), Nanos(0));
}

std::vector<IpAddress> ips(const std::vector<ServiceAddress>& addresses) {
  std::vector<IpAddress> all;
  all.reserve(addresses.size());
  for (const ServiceAddress& address : addresses) all.push_back(address.ip);
  return all;
}

nft::TableConfig table_config(const Options& options, const Config& config, const Nics& nics) {
  nft::TableConfig wanted;
  wanted.id = options.id;
  wanted.addresses = ips(options.addresses);
  wanted.blocks = options.blocks;
  wanted.selection = options.selection;
  wanted.stays = options.stays();
  wanted.syncs = options.syncs();
  wanted.node_name = config.node_name;
  wanted.shared_mac = options.mac;
  wanted.own_mac = nics.at(nft::Side::kOutside).mac;
  wanted.nic = options.nic;
  wanted.link = nft::link_name(options.id);
  if (!options.inside) return wanted;
  wanted.inside = nft::LinkConfig{ips(options.inside->addresses), options.inside->mac,
                                  nics.at(nft::Side::kInside).mac, options.inside->nic,
                                  nft::link_name(options.id, nft::Side::kInside)};
  return wanted;
}

tl::expected<Daemon::Kernel, Failure> close_kernel(const Options& options, const Config& config,
                                                   const Nics& nics) {
  auto table = nft::Table::open(table_config(options, config, nics));
  if (!table) return failed(table.error());
  const auto give_up = [&table](const Error& error) {
    [[maybe_unused]] const auto removed = table->remove();
    return failed(error);
  };
  auto watch = nft::Watch::open(*table);
  if (!watch) return give_up(watch.error());
  const auto lifetime = Daemon::address_lifetime(config.lease);
  auto link = nft::Link::open(*table, nft::Side::kOutside, options.addresses, lifetime);
  if (!link) return give_up(link.error());
  for (const string& warning : link->warnings()) write_log(LogLevel::kWarning, warning);
  if (!options.inside)
    return Daemon::Kernel{std::move(*table), std::move(*watch), std::move(*link)};
  auto inside = nft::Link::open(*table, nft::Side::kInside, options.inside->addresses, lifetime);
  if (!inside) {
    // First the addresses: without the rules they would be open.
    if (const auto gone = link->remove(); !gone) return failed(inside.error());
    return give_up(inside.error());
  }
  for (const string& warning : inside->warnings()) write_log(LogLevel::kWarning, warning);
  return Daemon::Kernel{std::move(*table), std::move(*watch), std::move(*link), std::move(*inside)};
}

// Everything that must hold before this node may say a word: the lock, and a closed kernel.
struct Prepared {
  RunFiles files;
  Lock lock;
  Config config;
  std::map<NodeId, string> names;
  std::optional<Marker> last;  // of the last process here
  Wishes wishes;
  Daemon::Kernel kernel;
};

// No other machine of the LAN answers for our addresses. Where nobody can be asked, nobody answers.
tl::expected<void, Failure> check_lan(const std::vector<ServiceAddress>& addresses,
                                      const MacAddress& shared_mac, const nft::Nic& nic) {
  constexpr std::chrono::milliseconds kPatience{250};
  if (!nic.carrier) return {};
  const auto claim = nft::find_claim({nic.index, nic.mac, shared_mac}, ips(addresses), kPatience);
  if (!claim) write_log(LogLevel::kWarning, claim.error().text);
  if (!claim || !*claim) return {};
  // Linux answers ARP for its addresses on all its NICs.
  const char* advice = (*claim)->ip.is_v4() ? " (a node's other NIC: arp_ignore=1)" : "";
  return tl::unexpected(Failure{ExitCode::kBadHere,
                                "address " + (*claim)->ip.text() + " is in use on the LAN by " +
                                    (*claim)->mac.text() + ": take it away there first" + advice});
}

tl::expected<void, Failure> check_lans(const Options& options, const Nics& nics) {
  auto free = check_lan(options.addresses, options.mac, nics.at(nft::Side::kOutside));
  if (!free || !options.inside) return free;
  const Inside& inside = *options.inside;
  return check_lan(inside.addresses, inside.mac, nics.at(nft::Side::kInside));
}

tl::expected<Prepared, Failure> prepare(const Options& options) {
  const auto facts = check_node(options);
  if (!facts) return tl::unexpected(facts.error());
  const auto files = RunFiles::of(options.id);
  if (!files) return tl::unexpected(files.error());
  auto lock = Lock::take(*files, options.id, options.label);
  if (!lock) return tl::unexpected(lock.error());
  if (facts->crypto_cipher == "none") {
    write_log(LogLevel::kWarning,
              "corosync runs without encryption: whoever can send on its network can speak as a "
              "node of this cluster; set crypto_cipher and crypto_hash in corosync.conf");
  }
  for (const string& refused : protect_process()) {
    write_log(LogLevel::kWarning, refused + "; on a busy machine the lease may run out");
  }
  Config config = make_config(*facts, options, host_name());
  const auto nics = find_nics(options);
  if (!nics) return failed(nics.error());
  config.eligible =
      std::all_of(nics->begin(), nics->end(), [](const auto& nic) { return nic.second.carrier; });
  if (auto free = check_lans(options, *nics); !free) return tl::unexpected(free.error());
  auto wishes = load_wishes(files->wishes);
  if (!wishes) return tl::unexpected(wishes.error());
  const auto last = read_marker(*files);
  config.partner_closed = read_partner_closed(*files);
  config.longest_lease = last ? std::max(last->lease, config.lease) : config.lease;
  if (auto marked = set_marker(*files, {config.longest_lease, std::nullopt}); !marked) {
    return tl::unexpected(marked.error());
  }
  auto kernel = close_kernel(options, config, *nics);
  if (!kernel) {
    if (!last) remove_marker(*files);
    if (last) [[maybe_unused]]
      const auto kept = set_marker(*files, *last);
    return tl::unexpected(kernel.error());
  }
  return Prepared{*files, std::move(*lock), std::move(config), node_names(*facts),
                  last,   *wishes,          std::move(*kernel)};
}

struct Running {
  qb_loop_t* loop = nullptr;
  std::unique_ptr<Daemon> daemon;
  std::unique_ptr<Control> control;
  std::unique_ptr<FencingWatch> fencing;
  ExitCode code = ExitCode::kOk;

  Running() : loop(qb_loop_create()) {}
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    fencing.reset();
    control.reset();
    daemon.reset();
    qb_loop_destroy(loop);
  }
};

int32_t on_signal(int32_t, void* data) {
  static_cast<Running*>(data)->daemon->stop();
  return 0;
}

// Opens the door for saructl, listens to signals and starts the daemon; then it gives up what is
// needed no more. The loop has not run yet: nothing was read from corosync, and there is no thread.
tl::expected<void, Failure> begin(Running& running, const RunFiles& files, const Prepared& prepared,
                                  Nanos wait) {
  auto control = Control::open(running.loop, files.socket,
                               [&running](ClientId client, const nlohmann::json& request) {
                                 running.daemon->on_request(*running.control, client, request);
                               });
  if (!control) return tl::unexpected(control.error());
  running.control = std::move(*control);
  for (const int signal : {SIGTERM, SIGINT}) {
    qb_loop_signal_handle handle = nullptr;
    qb_loop_signal_add(running.loop, QB_LOOP_HIGH, signal, &running, &on_signal, &handle);
  }
  if (wait > Nanos(0)) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    write_log(LogLevel::kNotice,
              "an earlier sarud here ended within the last lease, or this machine has just booted: "
              "joins in " +
                  std::to_string(ms) + " ms, when nobody counts on that one any more");
  }
  if (auto started = running.daemon->start(wait); !started) return started;
  if (const auto& partner = prepared.config.partner) {
    auto watch = FencingWatch::start(
        running.loop, prepared.names.at(*partner), prepared.config.node,
        [&running](const FencingNews& news) { running.daemon->on_fencing_news(news); });
    if (!watch) return tl::unexpected(watch.error());
    running.fencing = std::move(*watch);
  }
  const auto lacking = confine(find_identity(), kRunDirectory);
  if (!lacking) return tl::unexpected(lacking.error());
  for (const string& what : *lacking) write_log(LogLevel::kWarning, what);
  if (!nft::Clocks::tells_slowness()) {
    write_log(LogLevel::kWarning,
              "the kernel does not tell how a time daemon bends its clock (adjtimex): leases end a "
              "tenth sooner here than they need; let this process call it");
  }
  return {};
}

// Serves until it is told to stop. Whoever calls this prints the failure.
tl::expected<ExitCode, Failure> serve(const Options& options, Readiness& readiness) {
  auto prepared = prepare(options);
  if (!prepared) return tl::unexpected(prepared.error());
  const RunFiles& files = prepared->files;
  const Nanos wait = wait_after(prepared->last, prepared->config.lease);
  Running running;
  Daemon::Callbacks callbacks;
  callbacks.on_ready = [&readiness] {
    write_log(LogLevel::kNotice, "ready: in the group, the gate stands");
    readiness.ready();
  };
  callbacks.on_end = [&running, &files, id = options.id](bool clean,
                                                         const std::vector<string>& errors) {
    Marker marker{running.daemon->longest_lease(), std::nullopt};
    if (clean && errors.empty()) marker.ended = since_boot();
    // Without the end in it, the next process waits longer than it need.
    [[maybe_unused]] const auto kept = set_marker(files, marker);
    for (const string& error : errors) write_log(LogLevel::kError, error);
    if (!errors.empty()) {
      write_log(
          LogLevel::kError,
          "ended, closed, but not everything could be taken away: mend what stands above, then "
          "run sarud --cleanup --id " +
              std::to_string(id));
    }
    write_log(LogLevel::kNotice, clean ? "ended: the members know that it holds nothing any more"
                                       : "ended, unknown to the others: they wait for its lease");
    running.code = errors.empty() ? ExitCode::kOk : ExitCode::kFailed;
    qb_loop_stop(running.loop);
  };
  callbacks.keep_wishes = [&files](const Wishes& wishes) {
    return save_wishes(files.wishes, wishes);
  };
  callbacks.keep_partner_closed = [&files](const RingId& ring) {
    return keep_partner_closed(files, ring);
  };
  callbacks.keep_lease = [&files](Nanos lease) { return set_marker(files, {lease, std::nullopt}); };
  running.daemon =
      std::make_unique<Daemon>(running.loop, options, prepared->config, prepared->names,
                               prepared->wishes, std::move(prepared->kernel), callbacks);
  if (auto begun = begin(running, files, *prepared, wait); !begun) {
    running.daemon->abandon();
    return tl::unexpected(begun.error());
  }
  qb_loop_run(running.loop);
  return running.code;
}

tl::expected<ExitCode, Failure> clean_up(const Options& options) {
  if (auto rights = check_rights(); !rights) return tl::unexpected(rights.error());
  auto files = RunFiles::of(options.id);
  if (!files) return tl::unexpected(files.error());
  const auto lock = Lock::take(*files, options.id, options.label);
  if (!lock) {
    // What another resource's sarud holds is not what a dead one of ours has left.
    const auto holder = lock_holder(*files);
    const bool others = holder && holder->pid != 0 && holder->label != options.label;
    if (others && !options.label.empty()) return ExitCode::kOk;
    return tl::unexpected(lock.error());
  }
  const auto removed = nft::cleanup(options.id);
  if (!removed) return failed(removed.error());
  for (const string& what : *removed) std::printf("removed %s\n", what.c_str());
  unlink(files->socket.c_str());
  return ExitCode::kOk;
}

tl::expected<ExitCode, Failure> serve_in_foreground(const Options& options) {
  auto readiness = Readiness::in_foreground();
  if (!readiness) return tl::unexpected(readiness.error());
  open_log(options.id, !readiness->is_managed(), options.log_file, options.log_level);
  auto code = serve(options, *readiness);
  close_log();
  return code;
}

// The parent never comes back from daemonize(); it ends when the child is ready or has failed.
tl::expected<ExitCode, Failure> serve_in_background(const Options& options) {
  auto readiness = Readiness::daemonize();
  if (!readiness) return tl::unexpected(readiness.error());
  open_log(options.id, false, options.log_file, options.log_level);
  auto code = serve(options, *readiness);
  if (!code) {
    write_log(LogLevel::kError, code.error().sentence);
    readiness->failed(code.error());
  }
  close_log();
  return code;
}

tl::expected<ExitCode, Failure> reload(const Options& options, const RawOptions& raw) {
  if (auto rights = check_rights(); !rights) return tl::unexpected(rights.error());
  const auto facts = read_facts();
  if (!facts) return tl::unexpected(Failure{ExitCode::kFailed, facts.error().text});
  if (auto good = check_cluster(*facts, options); !good) return tl::unexpected(good.error());
  // A sarud that runs lives through a NIC that is gone, and so does a change of its parameters.
  if (const auto nics = find_nics(options)) {
    open_log(options.id, true, "", options.log_level);
    const auto free = check_lans(options, *nics);
    close_log();
    if (!free) return tl::unexpected(free.error());
  }
  return reload_running(options, raw, lease_of(*facts, options));
}

tl::expected<ExitCode, Failure> run_task(const Options& options, const RawOptions& raw) {
  switch (options.task) {
    case Task::kValidate:
      return ExitCode::kOk;
    case Task::kValidateNode: {
      auto facts = check_node(options);
      if (!facts) return tl::unexpected(facts.error());
      return ExitCode::kOk;
    }
    case Task::kReload:
      return reload(options, raw);
    case Task::kCleanup:
      return clean_up(options);
    case Task::kServe:
      break;
  }
  return options.foreground ? serve_in_foreground(options) : serve_in_background(options);
}

}  // namespace
}  // namespace saru

int main(int argc, char** argv) {
  using namespace saru;
  std::signal(SIGPIPE, SIG_IGN);
  const auto complain = [](const Failure& failure) {
    std::fprintf(stderr, "sarud: %s\n", failure.sentence.c_str());
    return static_cast<int>(failure.code);
  };
  const auto line = read_command_line(argc, argv);
  if (!line) return complain(line.error());
  if (!line->text.empty()) {
    std::fputs(line->text.c_str(), stdout);
    return 0;
  }
  const auto options = validate(line->raw);
  if (!options) return complain(at_origin(*line, options.error()));
  const auto code = run_task(*options, line->raw);
  return code ? static_cast<int>(*code) : complain(code.error());
}
