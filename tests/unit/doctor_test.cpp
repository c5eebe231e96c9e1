// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: cluster, node, and what is printed.
#include "agent/doctor.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "agent/doctor_cluster.h"
#include "agent/doctor_node.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;
using std::chrono::milliseconds;

ClusterFacts cluster() {
  ClusterFacts facts;
  facts.token = milliseconds(1000);
  facts.consensus = milliseconds(1200);
  facts.crypto_cipher = "aes256";
  facts.transport = "knet";
  facts.knet_mtu = 1500;
  facts.knet_ping_timeouts = {milliseconds(500)};
  return facts;
}

Level worst(const Findings& all) {
  Level level = Level::kOk;
  for (const Finding& one : all) level = std::max(level, one.level);
  return level;
}

TEST(Doctor, PlainClusterIsWell) {
  EXPECT_EQ(judge_encryption(cluster()).level, Level::kOk);
  EXPECT_EQ(worst(judge_knet(cluster())), Level::kOk);
  EXPECT_EQ(judge_lease(cluster(), 2750).level, Level::kOk);
  EXPECT_EQ(judge_fencing(cluster(), {true, {{"fence_ipmilan"}}}).level, Level::kOk);
}

TEST(Doctor, ClusterWithoutEncryption) {
  ClusterFacts facts = cluster();
  facts.crypto_cipher = "none";
  EXPECT_EQ(judge_encryption(facts).level, Level::kWarning);
}

TEST(Doctor, KnetThatMeasuresItsMtu) {
  ClusterFacts facts = cluster();
  facts.knet_mtu = 0;
  EXPECT_EQ(worst(judge_knet(facts)), Level::kWarning);
  facts.transport = "udpu";
  EXPECT_EQ(worst(judge_knet(facts)), Level::kOk);
}

TEST(Doctor, PingTimeoutOutsideOfTheToken) {
  ClusterFacts facts = cluster();
  for (const auto& [ms, level] : std::map<int, Level>{
           {249, Level::kWarning}, {250, Level::kOk}, {999, Level::kOk}, {1000, Level::kWarning}}) {
    facts.knet_ping_timeouts = {milliseconds(500), milliseconds(ms)};
    EXPECT_EQ(worst(judge_knet(facts)), level) << ms;
  }
}

TEST(Doctor, LeaseTooShortForTheToken) {
  EXPECT_EQ(judge_lease(cluster(), 2200).level, Level::kError);
  EXPECT_EQ(judge_lease(cluster(), 2201).level, Level::kWarning);
  EXPECT_EQ(judge_lease(cluster(), 2748).level, Level::kWarning);
  EXPECT_EQ(judge_lease(cluster(), 2749).level, Level::kOk);
}

TEST(Doctor, FencingThatIsMissing) {
  ClusterFacts facts = cluster();
  EXPECT_EQ(judge_fencing(facts, {false, {}}).level, Level::kWarning);
  EXPECT_EQ(judge_fencing(facts, {std::nullopt, {}}).level, Level::kWarning);
  EXPECT_EQ(judge_fencing(facts, {true, std::vector<string>{}}).level, Level::kError);
  EXPECT_EQ(judge_fencing(facts, {true, {{"fence_scsi"}}}).level, Level::kWarning);
  EXPECT_EQ(judge_fencing(facts, {true, {{"fence_scsi", "fence_ipmilan"}}}).level, Level::kOk);
  facts.two_node = true;
  EXPECT_EQ(judge_fencing(facts, {false, {}}).level, Level::kError);
  EXPECT_EQ(judge_fencing(facts, {true, {{"fence_scsi"}}}).level, Level::kError);
}

TEST(Doctor, FenceDevicesAreReadFromTheConfiguration) {
  const string xml =
      "<resources>\n <primitive id=\"power\" class=\"stonith\" type=\"fence_rig\">\n"
      "<instance_attributes/></primitive><clone><primitive class=\"ocf\" provider=\"saru\" "
      "type=\"SharedIP\"/></clone><primitive type=\"fence_scsi\" class=\"stonith\"/></resources>";
  EXPECT_EQ(fence_agents(xml), (std::vector<string>{"fence_rig", "fence_scsi"}));
}

json status() {
  return {{"state", "open"},
          {"config", {{"next", nullptr}, {"waiting_for", json::array()}}},
          {"draining", false},
          {"eligible", true},
          {"quorate", true},
          {"weight", 1},
          {"owns", 171},
          {"blocks", 512},
          {"restored", nullptr},
          {"warnings", json::array()},
          {"view", {{"open", true}, {"confirmed", true}, {"age_ms", 60000}}}};
}

TEST(Doctor, EachWarningOfSarudIsToldOnce) {
  const auto told = [](const json& of) {
    std::map<string, int> count;
    for (const Finding& one : judge_service(of)) {
      if (one.level != Level::kOk) ++count[one.check];
    }
    return count;
  };
  EXPECT_TRUE(told(status()).empty());
  json now = status();
  now["warnings"] = {"one", "two", "net.ipv4.conf.all.arp_ignore is 2: set it to 1"};
  EXPECT_EQ(told(now), (std::map<string, int>{{"service", 2}, {"kernel", 1}}));
  now["restored"] = {{"ms_ago", 1000}, {"what", "process 7 (nft) deleted table x"}};
  EXPECT_EQ(told(now), (std::map<string, int>{{"service", 3}, {"kernel", 1}}));
  now = status();
  now["restored"] = {{"ms_ago", 1000}, {"what", "net.ipv4.conf.saru1.rp_filter was 1: 0 again"}};
  EXPECT_EQ(told(now), (std::map<string, int>{{"kernel", 1}}));
}

TEST(Doctor, EachComplaintOfTheAuditIsALine) {
  json audit = {{"blocks", 16},
                {"waited_ms", 2000},
                {"members",
                 {{{"node", "n1"}, {"answered", true}, {"open", true}, {"intact", true}},
                  {{"node", "n2"}, {"answered", false}}}},
                {"twice", json::array()},
                {"unowned", ""},
                {"unowned_count", 0}};
  EXPECT_EQ(worst(judge_blocks(audit)), Level::kError);
  audit["members"][1] = {{"node", "n2"}, {"answered", true}, {"open", true}, {"intact", true}};
  EXPECT_EQ(worst(judge_blocks(audit)), Level::kOk);
}

TEST(Doctor, BridgeWithSeveralPortsAndBridgeNf) {
  EXPECT_EQ(judge_bridge({"br0", {"a", "b"}, {}}).level, Level::kOk);
  EXPECT_EQ(judge_bridge({"br0", {"a"}, {"net.bridge.x"}}).level, Level::kOk);
  EXPECT_EQ(judge_bridge({"eth0", {}, {"net.bridge.x"}}).level, Level::kOk);
  EXPECT_EQ(judge_bridge({"br0", {"a", "b"}, {"net.bridge.x"}}).level, Level::kWarning);
}

TEST(Doctor, OtherThingsOfTheNode) {
  EXPECT_EQ(judge_version("0.6.0", "0.6.0").level, Level::kOk);
  EXPECT_EQ(judge_version("0.5.0", "0.6.0").level, Level::kWarning);
  EXPECT_EQ(judge_saved({}).level, Level::kOk);
  EXPECT_EQ(judge_saved({"/etc/nftables.conf"}).level, Level::kError);
  EXPECT_EQ(judge_managers({{"NetworkManager", true, true, "f", "r"}}).level, Level::kOk);
  EXPECT_EQ(judge_managers({{"NetworkManager", false, false, "f", "r"}}).level, Level::kOk);
  EXPECT_EQ(judge_managers({{"NetworkManager", true, true, "f", "r"},
                            {"systemd-networkd", true, false, "f", "r"}})
                .level,
            Level::kWarning);
}

TEST(Doctor, ConntrackThatIsNearlyFull) {
  EXPECT_EQ(judge_conntrack({"stay", 89, 100}).level, Level::kOk);
  EXPECT_EQ(judge_conntrack({"stay", 90, 100}).level, Level::kWarning);
  EXPECT_EQ(judge_conntrack({"none", 90, 100}).level, Level::kOk);
  EXPECT_EQ(judge_conntrack({"stay", std::nullopt, std::nullopt}).level, Level::kOk);
}

TEST(Doctor, ClocksThatLeasesCannotBeCountedBy) {
  EXPECT_EQ(judge_clock({"tsc", {"tsc"}, false}).level, Level::kOk);
  EXPECT_EQ(judge_clock({"jiffies", {}, true}).level, Level::kError);
  EXPECT_EQ(judge_clock({"hpet", {"hpet", "acpi_pm"}, true}).level, Level::kWarning);
  EXPECT_EQ(judge_clock({"hpet", {"tsc", "hpet"}, true}).level, Level::kOk);
}

TEST(Doctor, OneLineForEachFindingAndOneThatCounts) {
  const Findings all{fine("service", "open"), doubt("knet", "no mtu", "give one"),
                     wrong("lease", "short", "raise it")};
  EXPECT_EQ(text_of_doctor(all),
            "ok      service    open\n"
            "warning knet       no mtu. Do: give one\n"
            "error   lease      short. Do: raise it\n"
            "1 error, 1 warning\n");
  EXPECT_FALSE(is_well(all));
  EXPECT_TRUE(is_well(without(all, {"knet", "lease"})));
  EXPECT_EQ(text_of_doctor({fine("a", "b")}), "ok      a          b\nnothing wrong found\n");
  const json said = json_of_doctor(all);
  EXPECT_EQ(said["errors"], 1);
  EXPECT_EQ(said["warnings"], 1);
  EXPECT_EQ(said["checks"][0]["remedy"], nullptr);
  EXPECT_EQ(
      said["checks"][2],
      json({{"check", "lease"}, {"level", "error"}, {"found", "short"}, {"remedy", "raise it"}}));
}

TEST(Doctor, EveryCheckThatIsPrintedCanBeSkipped) {
  const auto& names = doctor_checks();
  const auto known = [&](const string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  EXPECT_TRUE(known(judge_encryption(cluster()).check));
  EXPECT_TRUE(known(judge_knet(cluster()).front().check));
  EXPECT_TRUE(known(judge_lease(cluster(), 1).check));
  EXPECT_TRUE(known(judge_fencing(cluster(), {}).check));
  EXPECT_TRUE(known(judge_service(status()).front().check));
  EXPECT_TRUE(known(judge_clock({}).check));
  EXPECT_TRUE(known(judge_saved({}).check));
  EXPECT_FALSE(known("nonsense"));
}

}  // namespace
}  // namespace saru
