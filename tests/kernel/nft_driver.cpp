// SPDX-License-Identifier: GPL-2.0-or-later
// Table, Link and Watch for the kernel tests: one command per line on standard input, one JSON
// object per answer on standard output. Run it in the network namespace of a node.
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "nft/cleanup.h"
#include "nft/connections.h"
#include "nft/link.h"
#include "nft/table.h"
#include "nft/watch.h"

namespace {

using nlohmann::json;
using namespace saru;
using namespace saru::nft;

json error_of(const Error& error) {
  return {{"error", error.text}, {"kind", static_cast<int>(error.kind)}};
}

json held_of(const Held& held) {
  json answer{{"owned", held.accepting.owned.to_ranges()},
              {"lingering", held.accepting.lingering.to_ranges()},
              {"contested", held.accepting.contested.to_ranges()},
              {"count", held.accepting.owned.size()},
              {"strange", held.strange}};
  answer["lease_ms"] = held.lease_left ? json(held.lease_left->count() / 1'000'000) : json(nullptr);
  return answer;
}

template <class T>
json answer_of(const Result<T>& result) {
  if (!result) return error_of(result.error());
  if constexpr (std::is_void_v<T>) {
    return {{"ok", true}};
  } else if constexpr (std::is_same_v<T, Held>) {
    return held_of(*result);
  } else {
    return {{"value", *result}};
  }
}

// "all", "none", "even", "odd", "bit3", "bit3-", or "0-3,7".
BlockSet parse_blocks(const std::string& text, unsigned blocks) {
  BlockSet set(blocks);
  if (text == "all") set.fill();
  if (text == "even" || text == "odd") {
    for (unsigned b = text == "odd"; b < blocks; b += 2)
      set.insert(BlockId{static_cast<std::uint16_t>(b)});
  }
  // "bit3": those whose number has bit 3; "bit3-": the others.
  if (text.starts_with("bit")) {
    unsigned bit = 0;
    std::from_chars(text.data() + 3, text.data() + text.size(), bit);
    for (unsigned b = 0; b < blocks; ++b) {
      const bool has = (b >> bit & 1U) != 0;
      if (has != text.ends_with('-')) set.insert(BlockId{static_cast<std::uint16_t>(b)});
    }
    return set;
  }
  std::istringstream ranges(text);
  for (std::string range; std::getline(ranges, range, ',');) {
    std::istringstream words(range);
    unsigned first = 0;
    if (!(words >> first)) continue;
    unsigned last = first;
    if (char dash = 0; !(words >> dash >> last)) last = first;
    for (unsigned b = first; b <= last; ++b) set.insert(BlockId{static_cast<std::uint16_t>(b)});
  }
  return set;
}

const char* const kProtections[] = {"none", "twins", "owner persist"};

// CAP_NET_ADMIN, without which the kernel refuses every change; it can be had back.
bool set_right_to_change(bool have) {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &head, data) != 0) return false;
  constexpr std::uint32_t kRight = 1U << CAP_NET_ADMIN;
  if (have) data[0].effective |= kRight;
  if (!have) data[0].effective &= ~kRight;
  return syscall(SYS_capset, &head, data) == 0;
}

struct Driver {
  TableConfig config;
  std::vector<ServiceAddress> addresses;
  std::vector<ServiceAddress> inside_addresses;
  TableOptions options;
  std::optional<Table> table;
  std::optional<Link> link;
  std::optional<Link> inside;
  std::optional<Watch> watch;
  Nanos realtime_skew{0};
  double slowness = 0;
  bool stop_before_write = false;
  long readings_until_stop = 0;   // 0: no stop is planned
  long writes_until_refusal = 0;  // 0: no refusal is planned
  std::string before_next_write;  // a command

  json open_table();
  json write(std::istream& words, bool anew);
  json reconfigure(std::istream& words);
  json count_connections();
  json wait_for_news(int timeout_ms);
  json open_link(Side side, long lifetime_s);
  json obey(const std::string& command, std::istream& words);
  json obey_inside(const std::string& command, std::istream& words);
};

json Driver::open_table() {
  const auto nic = find_nic(config.nic);
  if (!nic) return error_of(nic.error());
  config.own_mac = nic->mac;
  if (config.inside) {
    const auto second = find_nic(config.inside->nic);
    if (!second) return error_of(second.error());
    config.inside->own_mac = second->mac;
  }
  options.clocks = Clocks::system();
  // Stops after so many readings, whichever they are: what is read later is later.
  const auto stopping = [this](std::function<Nanos()> real, const Nanos* skew) {
    return [this, real = std::move(real), skew] {
      const Nanos read = real() + (skew == nullptr ? Nanos(0) : *skew);
      if (readings_until_stop > 0 && --readings_until_stop == 0) kill(getpid(), SIGSTOP);
      return read;
    };
  };
  Clocks& clocks = options.clocks;
  clocks.realtime = stopping(std::move(clocks.realtime), &realtime_skew);
  clocks.monotonic_raw = stopping(std::move(clocks.monotonic_raw), nullptr);
  clocks.boottime = stopping(std::move(clocks.boottime), nullptr);
  options.clocks.slowness = [this] { return slowness; };
  options.clocks.before_write = [this] {
    if (!before_next_write.empty() && system(before_next_write.c_str()) != 0) abort();
    before_next_write.clear();
    if (writes_until_refusal > 0 && --writes_until_refusal == 0) set_right_to_change(false);
    if (std::exchange(stop_before_write, false)) kill(getpid(), SIGSTOP);
  };
  auto opened = Table::open(config, options);
  if (!opened) return error_of(opened.error());
  table.emplace(std::move(*opened));
  return {{"protection", kProtections[static_cast<int>(table->protection())]},
          {"defragments", table->defragments()},
          {"own_mac", config.own_mac.text()},
          {"shared_mac", config.shared_mac.text()}};
}

// BLOCKS [LEASE_MS [LINGERING [CONTESTED]]]; the answer has the deadline on CLOCK_REALTIME as the
// test can see it.
json Driver::write(std::istream& words, bool anew) {
  std::string blocks, lingering = "none", contested = "none";
  long lease_ms = -1;
  words >> blocks >> lease_ms >> lingering >> contested;
  std::optional<Instant> deadline;
  const Clocks clocks = Clocks::system();
  if (lease_ms >= 0) deadline = clocks.now() + std::chrono::milliseconds(lease_ms);
  // Read after it: a pause in between would make the deadline later than what is told of it.
  const Nanos begin = clocks.realtime();
  const Accepting wanted = {parse_blocks(blocks, config.blocks),
                            parse_blocks(lingering, config.blocks),
                            parse_blocks(contested, config.blocks)};
  json answer = answer_of(anew ? table->rebuild(wanted, deadline) : table->apply(wanted, deadline));
  answer["deadline_ns"] = (begin + std::chrono::milliseconds(std::max(0L, lease_ms))).count();
  answer["took_us"] = (clocks.realtime() - begin).count() / 1000;
  return answer;
}

// BLOCKS LEASE_MS [--address A,B] [--blocks N] [--selector S] [--seed N] [--services LIST], the
// last one to the end of the line: the configuration that follows.
json Driver::reconfigure(std::istream& words) {
  TableConfig next = config;
  std::vector<ServiceAddress> next_addresses = addresses;
  std::string owned;
  long lease_ms = 0;
  words >> owned >> lease_ms;
  for (std::string name, value; words >> name >> value;) {
    if (name == "--selector") next.selection.selector = *parse_selector(value);
    if (name == "--seed") next.selection.seed = static_cast<std::uint32_t>(std::stoul(value));
    if (name == "--services") {
      std::string rest;
      std::getline(words, rest);
      next.selection.services = *parse_services(value + rest);
    }
    if (name == "--blocks") next.blocks = static_cast<unsigned>(std::stoul(value));
    if (name != "--address") continue;
    next_addresses.clear();
    next.addresses.clear();
    std::istringstream list(value);
    for (std::string one; std::getline(list, one, ',');) {
      next_addresses.push_back(*ServiceAddress::parse(one));
      next.addresses.push_back(next_addresses.back().ip);
    }
  }
  const Instant deadline = Clocks::system().now() + std::chrono::milliseconds(lease_ms);
  const Accepting blocks = is_block_count(next.blocks)
                               ? Accepting::all_of(parse_blocks(owned, next.blocks))
                               : Accepting();
  if (watch) watch->set_addresses(next.addresses);
  const auto held = link ? nft::reconfigure(*table, *link, next, next_addresses, blocks, deadline,
                                            std::chrono::seconds(60))
                         : table->reconfigure(next, blocks, deadline);
  if (held) {
    config = next;
    addresses = next_addresses;
  }
  return answer_of(held);
}

json Driver::wait_for_news(int timeout_ms) {
  static constexpr const char* kNames[] = {"table",        "link",         "address", "settings",
                                           "carrier lost", "carrier back", "overrun"};
  json news = json::array();
  pollfd poller{watch->fd(), POLLIN, 0};
  const Nanos end = Clocks::system().boottime() + std::chrono::milliseconds(timeout_ms);
  while (news.empty()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clocks::system().boottime());
    // What is there is read, however late this process gets a processor.
    if (poll(&poller, 1, std::max(0, static_cast<int>(left.count()))) <= 0) break;
    for (const Notice& notice : watch->read()) {
      news.push_back({{"what", kNames[static_cast<int>(notice.what)]}, {"text", notice.text}});
    }
  }
  return {{"news", news}, {"at_ns", Clocks::system().realtime().count()}};
}

// {block: how many established connections}, without those that have none.
json Driver::count_connections() {
  auto count = ConnectionCount::open();
  if (!count) return error_of(count.error());
  if (const auto begun = count->begin(config); !begun) return error_of(begun.error());
  for (;;) {
    pollfd poller{count->fd(), POLLIN, 0};
    if (poll(&poller, 1, 5000) <= 0) return {{"error", "the kernel does not answer"}};
    const auto counts = count->read();
    if (!counts) return error_of(counts.error());
    if (!*counts) continue;
    json blocks = json::object();
    for (std::size_t b = 0; b < (*counts)->size(); ++b) {
      if ((**counts)[b] != 0) blocks[std::to_string(b)] = (**counts)[b];
    }
    return {{"connections", blocks}};
  }
}

json Driver::open_link(Side side, long lifetime_s) {
  auto made = Link::open(*table, side, side == Side::kInside ? inside_addresses : addresses,
                         std::chrono::seconds(lifetime_s));
  if (!made) return error_of(made.error());
  auto& mine = side == Side::kInside ? inside : link;
  mine.emplace(std::move(*made));
  return {{"warnings", mine->warnings()}};
}

// Of the link to the inside.
json Driver::obey_inside(const std::string& command, std::istream& words) {
  long number = 0;
  if (command == "inside-link" && words >> number) return open_link(Side::kInside, number);
  if (!inside) return {{"error", "unknown command " + command + ", or no link to the inside"}};
  if (command == "inside-renew" && words >> number) {
    return answer_of(inside->renew(std::chrono::seconds(number)));
  }
  if (command == "inside-announce") return answer_of(inside->announce());
  if (command == "inside-verify") return answer_of(inside->verify());
  if (command == "inside-hindrances") return answer_of(inside->hindrances());
  if (command == "inside-carrier") return answer_of(inside->carrier());
  if (command == "inside-remove") return answer_of(inside->remove());
  if (command == "inside-mend" && words >> number) {
    const auto mended = inside->mend(std::chrono::seconds(number));
    if (!mended) return error_of(mended.error());
    return {{"done", mended->done}, {"lost", mended->lost}};
  }
  return {{"error", "unknown command " + command}};
}

json Driver::obey(const std::string& command, std::istream& words) {
  long number = 0;
  if (command == "open") return open_table();
  if (command == "apply") return write(words, false);
  if (command == "rebuild") return write(words, true);
  if (command == "reconfigure") return reconfigure(words);
  if (command == "read") return answer_of(table->read());
  if (command == "loads") return answer_of(table->loads());
  if (command == "connections") return count_connections();
  if (command == "verify") return answer_of(table->verify());
  if (command == "remove") return answer_of(table->remove());
  if (command.starts_with("inside-")) return obey_inside(command, words);
  if (command == "link" && words >> number) return open_link(Side::kOutside, number);
  if (command == "renew" && words >> number)
    return answer_of(link->renew(std::chrono::seconds(number)));
  if (command == "announce") return answer_of(link->announce());
  if (command == "verify-link") return answer_of(link->verify());
  if (command == "hindrances") return answer_of(link->hindrances());
  if (command == "mend" && words >> number) {
    const auto mended = link->mend(std::chrono::seconds(number));
    if (!mended) return error_of(mended.error());
    return {{"done", mended->done}, {"lost", mended->lost}};
  }
  if (command == "carrier") return answer_of(link->carrier());
  if (command == "remove-link") return answer_of(link->remove());
  if (command == "watch") {
    auto opened = Watch::open(*table);
    if (!opened) return error_of(opened.error());
    watch.emplace(std::move(*opened));
    return {{"ok", true}};
  }
  if (command == "news" && words >> number) return wait_for_news(static_cast<int>(number));
  if (command == "repair" && words >> number) {
    json news = wait_for_news(static_cast<int>(number));
    json answer = write(words, true);
    answer["news"] = news["news"];
    return answer;
  }
  if (command == "resync") return answer_of(watch->resync());
  if (command == "cleanup") return answer_of(cleanup(config.id));
  if (command == "stop-before-write") return {{"ok", stop_before_write = true}};
  if (command == "slow-clock" && words >> number) {  // parts per million
    slowness = static_cast<double>(number) / 1e6;
    return {{"ok", true}};
  }
  if (command == "refuse-from-write" && words >> writes_until_refusal) return {{"ok", true}};
  if (command == "before-write" && std::getline(words >> std::ws, before_next_write)) {
    return {{"ok", true}};
  }
  if (command == "refuse-no-more") return {{"ok", set_right_to_change(true)}};
  if (command == "stop-after-reading" && words >> readings_until_stop) return {{"ok", true}};
  if (command == "skew-realtime" && words >> number) {
    realtime_skew = std::chrono::milliseconds(number);
    return {{"ok", true}};
  }
  if (command == "counters") {
    const auto counters = table->counters();
    if (!counters) return error_of(counters.error());
    return {{"accepted", counters->accepted.packets},
            {"foreign", counters->foreign.packets},
            {"late", counters->late.packets}};
  }
  return {{"error", "unknown command " + command}};
}

}  // namespace

int main(int argc, char** argv) {
  Driver driver;
  bool plain = false;
  bool twins = false;
  std::vector<std::string> texts;
  std::string mac;
  std::string inside_nic;
  std::vector<std::string> inside_texts;
  std::string selector;
  std::string services;
  CLI::App app("Table, Link and Watch of the nft room, by hand");
  app.add_option("--id", driver.config.id)->default_val(1);
  app.add_option("--nic", driver.config.nic)->default_val("e0");
  app.add_option("--blocks", driver.config.blocks)->default_val(512);
  app.add_option("--node", driver.config.node_name)->default_val("n1");
  app.add_option("--mac", mac, "the shared MAC");
  app.add_option("--address", texts, "shared address, repeatable");
  app.add_option("--inside-nic", inside_nic, "the NIC of the hosts inside");
  app.add_option("--inside-address", inside_texts, "shared address inside, repeatable");
  app.add_option("--selector", selector)->default_val("src-port");
  app.add_option("--services", services);
  app.add_flag("--stays", driver.config.stays, "connections stay while their block moves");
  app.add_flag("--syncs", driver.config.syncs, "conntrack tells of the connections");
  app.add_option("--seed", driver.config.selection.seed);
  app.add_flag("--plain", plain, "do not ask the kernel to protect the tables");
  app.add_flag("--twins", twins, "protect them as a kernel before 6.9 can");
  CLI11_PARSE(app, argc, argv);
  for (const std::string& text : texts) {
    const auto address = ServiceAddress::parse(text);
    if (!address) {
      std::cout << error_of(address.error()) << std::endl;
      return 1;
    }
    driver.addresses.push_back(*address);
    driver.config.addresses.push_back(address->ip);
  }
  const auto parsed = parse_services(services);
  if (!parsed) {
    std::cout << error_of(parsed.error()) << std::endl;
    return 1;
  }
  driver.config.selection.services = *parsed;
  driver.config.selection.selector = parse_selector(selector).value_or(Selector::kSrcPort);
  driver.config.link = link_name(driver.config.id);
  driver.config.shared_mac = mac.empty() ? derived_shared_mac(driver.config.id)
                                         : MacAddress::parse(mac).value_or(MacAddress{});
  if (!inside_nic.empty()) {
    LinkConfig inside{{},
                      derived_inside_mac(driver.config.shared_mac),
                      {},
                      inside_nic,
                      link_name(driver.config.id, Side::kInside)};
    for (const std::string& text : inside_texts) {
      driver.inside_addresses.push_back(*ServiceAddress::parse(text));
      inside.addresses.push_back(driver.inside_addresses.back().ip);
    }
    driver.config.inside = inside;
  }
  if (plain) driver.options.protection = Protection::kNone;
  if (twins) driver.options.protection = Protection::kTwins;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    std::cout << driver.obey(command, words) << std::endl;
  }
  return 0;
}
