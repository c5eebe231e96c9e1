// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/doctor_read.h"

#include <sys/timex.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "agent/program.h"
#include "nft/link.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;
namespace fs = std::filesystem;

constexpr std::chrono::seconds kProgram{8};
constexpr std::chrono::milliseconds kSwitchPatience{900};

string first_line(const fs::path& path) {
  std::ifstream file(path);
  string line;
  std::getline(file, line);
  return line;
}

std::optional<long> number_in(const fs::path& path) {
  std::ifstream file(path);
  long value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::vector<string> words_in(const fs::path& path) {
  std::istringstream words(first_line(path));
  std::vector<string> found;
  string word;
  while (words >> word) found.push_back(word);
  return found;
}

// Files of a directory that end so, and have this in a line that is no comment.
bool any_file_has(const fs::path& directory, const string& end, const string& what) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (!entry.path().string().ends_with(end)) continue;
    std::ifstream file(entry.path());
    string line;
    while (std::getline(file, line)) {
      if (!line.starts_with("#") && line.find(what) != string::npos) return true;
    }
  }
  return false;
}

// As /proc shows it: cut to 15 characters.
bool is_running(const string& comm) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != string::npos) continue;
    if (first_line(entry.path() / "comm") == comm) return true;
  }
  return false;
}

bool has_tables(const fs::path& path) {
  std::ifstream file(path);
  string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    string table, family, name;
    if (words >> table >> family >> name && table == "table" && name.starts_with("saru_")) {
      return true;
    }
  }
  return false;
}

std::vector<IpAddress> addresses_of(const json& texts) {
  std::vector<IpAddress> all;
  for (const json& text : texts) {
    if (const auto address = IpAddress::parse(text.get<string>())) all.push_back(*address);
  }
  return all;
}

// Takes part, so it should answer for the address.
bool should_answer(const json& member) {
  const string state = member.at("state").get<string>();
  return state != "idle: not eligible" && state != "leaving" && !state.starts_with("silent");
}

// The neighbours on this NIC that the kernel knows, by MAC.
std::multimap<MacAddress, IpAddress> neighbours_on(const string& nic) {
  std::multimap<MacAddress, IpAddress> found;
  const auto printed = run_program({"ip", "-j", "neigh", "show", "dev", nic}, kProgram);
  if (!printed || printed->code != 0) return found;
  const json neighbours = json::parse(printed->text, nullptr, false);
  if (!neighbours.is_array()) return found;
  for (const json& one : neighbours) {
    if (!one.is_object()) continue;
    const auto mac = MacAddress::parse(one.value("lladdr", ""));
    const auto ip = IpAddress::parse(one.value("dst", ""));
    if (mac && ip) found.emplace(*mac, *ip);
  }
  return found;
}

void note_listeners(const char* path, const std::vector<IpAddress>& addresses,
                    std::set<unsigned>& exact, std::set<unsigned>& any) {
  std::ifstream file(path);
  string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream words(line);
    string slot, local, remote, state;
    words >> slot >> local >> remote >> state;
    const std::size_t colon = local.find(':');
    if (state != "0A" || colon == string::npos) continue;  // TCP_LISTEN
    const auto port = static_cast<unsigned>(std::stoul(local.substr(colon + 1), nullptr, 16));
    if (local.find_first_not_of('0') == colon) any.insert(port);
    // Words of 32 bits, each in the machine's byte order.
    std::vector<std::uint8_t> bytes;
    for (std::size_t at = 0; at + 8 <= colon; at += 8) {
      const auto word = static_cast<std::uint32_t>(std::stoul(local.substr(at, 8), nullptr, 16));
      const auto* raw = reinterpret_cast<const std::uint8_t*>(&word);
      bytes.insert(bytes.end(), raw, raw + sizeof word);
    }
    const auto address = IpAddress::from_bytes(bytes);
    if (address && std::find(addresses.begin(), addresses.end(), *address) != addresses.end()) {
      exact.insert(port);
    }
  }
}

// What every node of a cluster listens on for itself, and is let in otherwise or not at all.
const std::set<unsigned> kOfTheNode = {22, 111, 2224, 3121, 5403, 21064};

}  // namespace

std::vector<ServiceSide> sides_of(const json& status) {
  const string link = "saru" + std::to_string(status.at("id").get<unsigned>());
  const auto side = [](const json& from, const string& name) {
    return ServiceSide{from.at("nic").get<string>(), name,
                       MacAddress::parse(from.at("mac").get<string>()).value_or(MacAddress{}),
                       addresses_of(from.at("addresses")), false};
  };
  std::vector<ServiceSide> sides{side(status, link)};
  const json inside = status.value("inside", json());
  if (inside.is_object()) {
    sides.push_back(side(inside, link + "i"));
    sides.back().inside = true;
  }
  return sides;
}

tl::expected<SwitchSight, string> read_switch(const ServiceSide& side, const json& status,
                                              const ClusterFacts* facts) {
  const auto nic = nft::find_nic(side.nic);
  if (!nic) return tl::unexpected(nic.error().text);
  SwitchSight sight;
  sight.nic = side.nic;
  sight.shared_mac = side.mac;
  std::set<string> nodes;
  for (const json& member : status.at("members")) {
    if (member.at("id") == status.at("node_id") || !should_answer(member)) continue;
    nodes.insert(member.at("node").get<string>());
  }
  sight.expected = nodes.size();
  nft::SwitchQuestion question{nic->index, nic->mac, side.mac, {}, {}};
  for (const auto& [mac, ip] : neighbours_on(side.nic)) {
    if (ip.is_v4()) question.neighbours[mac] = ip;
    for (const ClusterNode& node : facts != nullptr ? facts->nodes : std::vector<ClusterNode>{}) {
      if (nodes.count(node.name) != 0 && IpAddress::parse(node.address) == ip) {
        sight.names[mac] = node.name;
      }
    }
  }
  if (side.addresses.empty() || nodes.empty()) return sight;
  // IPv4 can be asked more.
  const auto v4 = std::find_if(side.addresses.begin(), side.addresses.end(),
                               [](const IpAddress& one) { return one.is_v4(); });
  question.address = v4 != side.addresses.end() ? *v4 : side.addresses.front();
  sight.address = question.address.text();
  auto answers = nft::probe_switch(question, sight.expected, kSwitchPatience);
  if (!answers) return tl::unexpected(answers.error().text);
  sight.answers = std::move(*answers);
  return sight;
}

tl::expected<RulesSight, string> read_rules(const ServiceSide& side,
                                            const std::vector<unsigned>& ports) {
  const auto ruleset = run_program({"nft", "-j", "list", "ruleset"}, kProgram);
  const auto chains = run_program({"nft", "list", "chains"}, kProgram);
  if (!ruleset || ruleset->code != 0 || !chains || chains->code != 0) {
    return tl::unexpected(string("nft -j list ruleset says nothing"));
  }
  RulesSight sight{json::parse(ruleset->text, nullptr, false),
                   chains->text,
                   side.nic,
                   side.link,
                   side.mac.text(),
                   side.addresses,
                   side.inside,
                   {},
                   {}};
  if (!sight.ruleset.is_object()) return tl::unexpected(string("nft prints no JSON"));
  if (side.inside) return sight;  // the service's ports are those of the outside
  std::set<unsigned> exact(ports.begin(), ports.end());
  std::set<unsigned> any;
  for (const char* path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    note_listeners(path, side.addresses, exact, any);
  }
  for (const unsigned port : kOfTheNode) any.erase(port);
  sight.ports.assign(exact.begin(), exact.end());
  sight.any_ports.assign(any.begin(), any.end());
  return sight;
}

BridgeSight read_bridge(const ServiceSide& side) {
  BridgeSight sight{side.nic, {}, {}};
  std::error_code error;
  for (const auto& port : fs::directory_iterator("/sys/class/net/" + side.nic + "/brif", error)) {
    sight.ports.push_back(port.path().filename());
  }
  std::sort(sight.ports.begin(), sight.ports.end());
  for (const bool v4 : {true, false}) {
    const bool has = std::any_of(side.addresses.begin(), side.addresses.end(),
                                 [v4](const IpAddress& one) { return one.is_v4() == v4; });
    const string name = v4 ? "bridge-nf-call-iptables" : "bridge-nf-call-ip6tables";
    if (has && number_in("/proc/sys/net/bridge/" + name).value_or(0) != 0) {
      sight.calls.push_back("net.bridge." + name);
    }
  }
  return sight;
}

std::vector<string> read_saved() {
  std::vector<string> found;
  std::vector<fs::path> files{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"};
  for (const char* directory : {"/etc/nftables.d", "/etc/nftables"}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error)) {
      files.push_back(entry.path());
    }
  }
  for (const fs::path& path : files) {
    if (has_tables(path)) found.push_back(path);
  }
  return found;
}

std::vector<ManagerSight> read_managers() {
  ManagerSight manager{"NetworkManager", is_running("NetworkManager"), false,
                       "/usr/lib/NetworkManager/conf.d/10-saru.conf", "nmcli general reload conf"};
  ManagerSight networkd{"systemd-networkd", is_running("systemd-network"), false,
                        "/usr/lib/systemd/network/00-saru.network", "networkctl reload"};
  for (const char* place : {"/usr/lib", "/etc", "/run"}) {
    const string root = place;
    manager.told = manager.told ||
                   any_file_has(root + "/NetworkManager/conf.d", ".conf", "interface-name:saru");
    networkd.told =
        networkd.told || any_file_has(root + "/systemd/network", ".network", "Name=saru");
  }
  manager.told =
      manager.told || any_file_has("/etc/NetworkManager", "Manager.conf", "interface-name:saru");
  return {manager, networkd};
}

ConntrackSight read_conntrack(const json& status) {
  const fs::path place = "/proc/sys/net/netfilter";
  return {status.at("connections").get<string>(), number_in(place / "nf_conntrack_count"),
          number_in(place / "nf_conntrack_max")};
}

FencingSight read_fencing() {
  FencingSight sight;
  const auto property = run_program({"crm_attribute", "--type", "crm_config", "--name",
                                     "stonith-enabled", "--query", "--quiet", "--default", "true"},
                                    kProgram);
  if (!property || property->code != 0) return sight;
  string word = property->text.substr(0, property->text.find('\n'));
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  sight.enabled = word == "true" || word == "on" || word == "yes" || word == "y" || word == "1";
  const auto resources = run_program({"cibadmin", "--query", "--scope", "resources"}, kProgram);
  if (resources && resources->code == 0) sight.agents = fence_agents(resources->text);
  return sight;
}

ClockSight read_clock() {
  const fs::path place = "/sys/devices/system/clocksource/clocksource0";
  timex clock{};
  const bool told = adjtimex(&clock) >= 0;
  return {first_line(place / "current_clocksource"), words_in(place / "available_clocksource"),
          told && (clock.status & STA_UNSYNC) == 0};
}

}  // namespace saru
