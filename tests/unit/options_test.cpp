// SPDX-License-Identifier: GPL-2.0-or-later
// sarud's options: what is taken, and the exact sentence for each that is not.
#include "agent/options.h"

#include <gtest/gtest.h>

#include "agent/membership.h"

namespace saru {
namespace {

RawOptions good() { return {{"ip", "10.77.0.100"}, {"nic", "eth0"}}; }

RawOptions with(const std::string& name, const std::string& value) {
  RawOptions raw = good();
  raw[name] = value;
  return raw;
}

TEST(Options, DefaultsAreThoseOfTheDocumentation) {
  const auto options = validate(good());
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(options->id, 1);
  EXPECT_EQ(options->blocks, 512u);
  EXPECT_EQ(options->selection.selector, Selector::kSrcPort);
  EXPECT_TRUE(options->selection.services.empty());
  EXPECT_EQ(options->selection.seed, derived_seed(1));
  EXPECT_NE(derived_seed(1), derived_seed(2));
  EXPECT_EQ(options->delivery, "flood");
  EXPECT_EQ(options->connections, "stay");
  EXPECT_EQ(options->weight, 1);
  EXPECT_EQ(options->fencing, Fencing::kAuto);
  EXPECT_EQ(options->mac.text(), "02:5a:72:00:00:01");
  EXPECT_FALSE(options->lease_ms);
}

TEST(Options, EmptyValuesMeanTheDefault) {
  RawOptions raw = good();
  for (const char* name : {"mac", "lease-ms", "weight", "label", "blocks"}) raw[name] = "";
  const auto options = validate(raw);
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(options->weight, 1);
}

TEST(Options, AddressesMayBeSeparatedByCommasAndSpaces) {
  const auto options = validate(with("ip", "10.77.0.100, fd77::100/64 ,10.77.0.101/24"));
  ASSERT_TRUE(options) << options.error().sentence;
  ASSERT_EQ(options->addresses.size(), 3u);
  EXPECT_EQ(options->addresses[1].ip.text(), "fd77::100");
  EXPECT_EQ(options->addresses[1].prefix, 64u);
  EXPECT_EQ(options->addresses[0].prefix, 32u);
}

TEST(Options, TheMoreSpecialServicesComeFirst) {
  RawOptions raw = with("services",
                        "443 by src-addr, 443/tcp by dst-addr, 10.77.0.100:443 by dst-port, "
                        "10.77.0.100:443/udp by src-addr-port");
  raw["selector"] = "dst-port";
  raw["seed"] = "4294967295";
  const auto options = validate(raw);
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(options->selection.selector, Selector::kDstPort);
  EXPECT_EQ(options->selection.seed, 0xffffffffU);
  EXPECT_EQ(to_text(options->selection.services),
            "10.77.0.100:443/udp by src-addr-port, 10.77.0.100:443 by dst-port, "
            "443/tcp by dst-addr, 443 by src-addr");
}

TEST(Options, ServicesMayNameIpv6Addresses) {
  RawOptions raw = with("services", "[fd77::1]:53/udp by src-addr-port");
  raw["ip"] = "fd77::1/64";
  const auto options = validate(raw);
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(to_text(options->selection.services), "[fd77::1]:53/udp by src-addr-port");
}

struct Bad {
  const char* name;
  const char* value;
  const char* sentence;
};

class BadOption : public testing::TestWithParam<Bad> {};

TEST_P(BadOption, IsRefusedInOneSentenceAsWrongOnEveryNode) {
  const auto options = validate(with(GetParam().name, GetParam().value));
  ASSERT_FALSE(options);
  EXPECT_EQ(options.error().code, ExitCode::kBadConfiguration);
  EXPECT_EQ(options.error().sentence, GetParam().sentence);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadOption,
    testing::Values(
        Bad{"id", "0", "id must be a number from 1 to 65535, not \"0\""},
        Bad{"id", "65536", "id must be a number from 1 to 65535, not \"65536\""},
        Bad{"id", "one", "id must be a number from 1 to 65535, not \"one\""},
        Bad{"id", "-1", "id must be a number from 1 to 65535, not \"-1\""},
        Bad{"id", " 1", "id must be a number from 1 to 65535, not \" 1\""},
        Bad{"ip", "", "no address to serve: give ip, for example ip=192.0.2.10"},
        Bad{"ip", " , ", "no address to serve: give ip, for example ip=192.0.2.10"},
        Bad{"ip", "10.77.0.100,10.77.0.100/24", "ip 10.77.0.100 is given twice"},
        Bad{"nic", "", "no network interface: give nic, for example nic=eth0"},
        Bad{"nic", "eth0/1", "nic \"eth0/1\" is not the name of a network interface"},
        Bad{"nic", "averyveryverylongname",
            "nic \"averyveryverylongname\" is not the name of a network interface"},
        Bad{"nic", "lo", "nic lo reaches no other machine; name the interface of the LAN"},
        Bad{"blocks", "500", "blocks must be a power of two from 16 to 4096, not \"500\""},
        Bad{"blocks", "8", "blocks must be a power of two from 16 to 4096, not \"8\""},
        Bad{"blocks", "8192", "blocks must be a power of two from 16 to 4096, not \"8192\""},
        Bad{"selector", "port",
            "selector \"port\" is unknown; use src-port, dst-port, src-addr, dst-addr or "
            "src-addr-port"},
        Bad{"seed", "4294967296", "seed must be a number from 0 to 4294967295, not \"4294967296\""},
        Bad{"seed", "0x1", "seed must be a number from 0 to 4294967295, not \"0x1\""},
        Bad{"services", "443",
            "services: \"443\" does not say by what: write for example 443 by src-addr"},
        Bad{"services", "443 by port",
            "services: \"443 by port\" names no selector: use src-port, dst-port, src-addr, "
            "dst-addr or src-addr-port"},
        Bad{"services", "https by src-addr",
            "services: \"https by src-addr\" has no port: \"https\" is not a number from 1 to "
            "65535"},
        Bad{"services", "0 by src-addr",
            "services: \"0 by src-addr\" has no port: \"0\" is not a number from 1 to 65535"},
        Bad{"services", "53/icmp by src-addr",
            "services: \"53/icmp by src-addr\" names no protocol with ports: use tcp, udp, "
            "udplite, dccp or sctp"},
        Bad{"services", "fd77::1:53 by src-addr",
            "services: \"fd77::1:53 by src-addr\" has no address before its port: write "
            "192.0.2.1:53 or [2001:db8::1]:53"},
        Bad{"services", "[10.77.0.100]:53 by src-addr",
            "services: \"[10.77.0.100]:53 by src-addr\" has no address before its port: write "
            "192.0.2.1:53 or [2001:db8::1]:53"},
        Bad{"services", "10.77.0.101:53 by src-addr",
            "services: \"10.77.0.101:53 by src-addr\": 10.77.0.101 is none of the addresses in ip"},
        Bad{"services", "443 by src-addr, 80 by dst-port, 443 by dst-addr",
            "services: \"443 by dst-addr\" is said twice: also \"443 by src-addr\""},
        Bad{"delivery", "steer", "delivery steer does not exist yet in this version; use flood"},
        Bad{"connections", "share", "connections \"share\" is unknown; use stay or sync or none"},
        Bad{"mac", "02:00", "mac \"02:00\" is not a MAC address like 02:5a:72:00:00:01"},
        Bad{"mac", "01:00:5e:00:00:01",
            "mac 01:00:5e:00:00:01 is a multicast address; delivery flood needs a unicast one"},
        Bad{"mac", "00:00:00:00:00:00", "mac 00:00:00:00:00:00 is nobody's address"},
        Bad{"weight", "65536", "weight must be a number from 0 to 65535, not \"65536\""},
        Bad{"lease-ms", "50", "lease-ms must be a number from 100 to 600000, not \"50\""},
        Bad{"stonith", "maybe", "stonith must be yes, no or unknown, not \"maybe\""},
        Bad{"fencing", "no", "fencing \"no\" is unknown; use auto, wait or ignore"},
        Bad{"log-level", "loud",
            "log-level \"loud\" is unknown; use error, warning, notice, info or debug"}));

// ---- A director's second network

RawOptions director(const RawOptions& more = {}) {
  RawOptions raw = good();
  raw["inside-ip"] = "10.2.0.1/24, fd02::1/64";
  raw["inside-nic"] = "eth1";
  for (const auto& [name, value] : more) raw[name] = value;
  return raw;
}

TEST(Options, AnInsideHasAMacOfItsOwn) {
  EXPECT_FALSE(validate(good())->inside);
  const auto options = validate(director());
  ASSERT_TRUE(options) << options.error().sentence;
  ASSERT_TRUE(options->inside);
  EXPECT_EQ(options->inside->nic, "eth1");
  ASSERT_EQ(options->inside->addresses.size(), 2U);
  EXPECT_EQ(options->inside->addresses[1].text(), "fd02::1/64");
  EXPECT_EQ(options->inside->mac.text(), "02:5a:72:01:00:01");
  EXPECT_EQ(validate(director({{"mac", "02:00:00:00:00:09"}}))->inside->mac.text(),
            "02:00:00:01:00:09");
  EXPECT_TRUE(validate(director({{"selector", "src-addr"}})));
  EXPECT_TRUE(validate(director({{"selector", "src-addr-port"}})));
}

TEST(Options, WhatDoesNotGoWithAnInsideIsRefused) {
  const auto sentence = [](const RawOptions& raw) {
    const auto options = validate(raw);
    return options ? std::string() : options.error().sentence;
  };
  EXPECT_EQ(sentence(with("inside-ip", "10.2.0.1")),
            "inside-ip is given without inside-nic: give both, or neither");
  EXPECT_EQ(sentence(with("inside-nic", "eth1")),
            "inside-nic is given without inside-ip: give both, or neither");
  EXPECT_EQ(sentence(director({{"inside-nic", "eth0"}})),
            "inside-nic eth0 is nic, too: the inside needs an interface of its own");
  EXPECT_EQ(sentence(director({{"inside-nic", "lo"}})),
            "inside-nic lo reaches no other machine; name the interface of the LAN");
  EXPECT_EQ(sentence(director({{"inside-ip", "10.2.0.1,10.77.0.100/24"}})),
            "10.77.0.100 is in ip and in inside-ip: give it in one of them");
  EXPECT_EQ(sentence(director({{"inside-ip", "10.2.0.1,10.2.0.1"}})),
            "inside-ip 10.2.0.1 is given twice");
  for (const char* selector : {"dst-port", "dst-addr"}) {
    EXPECT_EQ(sentence(director({{"selector", selector}})),
              std::string("selector ") + selector +
                  " does not go with inside-ip: NAT changes what it looks at; use src-port, "
                  "src-addr or src-addr-port");
  }
  EXPECT_EQ(sentence(director({{"services", "443 by src-addr"}})),
            "services do not go with inside-ip: what hosts inside answer comes from ports that NAT "
            "may have changed; leave services out");
  EXPECT_EQ(validate(director({{"connections", ""}}))->connections, "sync");
  EXPECT_EQ(sentence(director({{"connections", "stay"}})),
            "connections stay does not go with inside-ip; use sync or none");
  std::string many;
  for (int i = 1; i <= 64; ++i) many += "10.2.0." + std::to_string(i) + ",";
  EXPECT_EQ(sentence(director({{"inside-ip", many}})),
            "ip and inside-ip list 65 addresses; at most 64 share one id");
}

class BadAddress : public testing::TestWithParam<const char*> {};

TEST_P(BadAddress, IsNamedInTheSentence) {
  const auto options = validate(with("ip", std::string("10.77.0.100,") + GetParam()));
  ASSERT_FALSE(options);
  EXPECT_EQ(options.error().code, ExitCode::kBadConfiguration);
  const std::string host = std::string(GetParam()).substr(0, std::string(GetParam()).find('/'));
  EXPECT_NE(options.error().sentence.find(host), std::string::npos) << options.error().sentence;
}

INSTANTIATE_TEST_SUITE_P(Table, BadAddress,
                         testing::Values("10.77.0.300", "10.77.0", "web.example", "224.0.0.1",
                                         "127.0.0.1", "0.0.0.0", "::", "::1", "ff02::1", "fe80::1",
                                         "::ffff:10.0.0.1", "10.77.0.101/33", "10.77.0.101/0",
                                         "fd77::101/129", "fd77::101/x"));

TEST(Options, CleanupNeedsTheIdAlone) {
  const auto options = validate({{"id", "7"}, {"cleanup", "yes"}});
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(options->task, Task::kCleanup);
}

TEST(CommandLine, RepeatedAddressesAreAList) {
  const char* argv[] = {"sarud", "--ip", "10.0.0.1", "--ip", "10.0.0.2",
                        "--mac", "",     "--nic",    "eth0"};
  const auto line = read_command_line(9, argv);
  ASSERT_TRUE(line) << line.error().sentence;
  const auto options = validate(line->raw);
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(options->addresses.size(), 2u);
}

TEST(CommandLine, AnUnknownOptionIsNamed) {
  const char* argv[] = {"sarud", "--colour", "red"};
  const auto line = read_command_line(3, argv);
  ASSERT_FALSE(line);
  EXPECT_EQ(line.error().code, ExitCode::kBadConfiguration);
  EXPECT_NE(line.error().sentence.find("--colour"), std::string::npos) << line.error().sentence;
}

// ---- What the cluster says ---------------------------------------------------------------------

ClusterFacts three_nodes() {
  ClusterFacts facts;
  facts.local = NodeId{1};
  facts.token = std::chrono::milliseconds(500);
  facts.consensus = std::chrono::milliseconds(600);
  for (std::uint32_t n = 1; n <= 3; ++n) {
    facts.nodes.push_back({NodeId{n}, "n" + std::to_string(n), "", 1});
  }
  facts.quorum_provider = true;
  return facts;
}

TEST(Cluster, TheLeaseOutlastsCorosyncsDetectionByAQuarter) {
  EXPECT_EQ(lease_of(three_nodes(), *validate(good())), std::chrono::milliseconds(1375));
  EXPECT_EQ(lease_of(three_nodes(), *validate(with("lease-ms", "2000"))),
            std::chrono::milliseconds(2000));
}

ClusterFacts two_nodes() {
  ClusterFacts facts = three_nodes();
  facts.nodes.pop_back();
  facts.two_node = true;
  return facts;
}

// What Pacemaker shows of a sentence is cut off after so many characters.
constexpr std::size_t kShown = 128;

TEST(Cluster, TwoNodesWaitForFencingAndAreRefusedWithoutIt) {
  const ClusterFacts facts = two_nodes();
  for (const char* how : {"auto", "wait"}) {
    RawOptions raw = with("fencing", how);
    const auto refused = check_cluster(facts, *validate(raw));
    ASSERT_FALSE(refused) << how;
    EXPECT_EQ(refused.error().code, ExitCode::kBadConfiguration);
    EXPECT_NE(refused.error().sentence.find("fencing=ignore"), std::string::npos);
    EXPECT_LE(refused.error().sentence.size(), kShown);
    raw["stonith"] = "yes";
    EXPECT_TRUE(check_cluster(facts, *validate(raw))) << how;
    EXPECT_NE(partner_of(facts, *validate(raw)), std::nullopt) << how;
    EXPECT_NE(partner_of(facts, *validate(raw)), facts.local) << how;
  }
  EXPECT_TRUE(check_cluster(facts, *validate(with("fencing", "ignore"))));
  EXPECT_EQ(partner_of(facts, *validate(with("fencing", "ignore"))), std::nullopt);
  // Pacemaker tries again after this, and not after the refusals above.
  const auto later = check_cluster(facts, *validate(with("stonith", "unknown")));
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().code, ExitCode::kFailed);
  EXPECT_LE(later.error().sentence.size(), kShown);
}

TEST(Cluster, FencingIsKnownByTheNamesOfNodes) {
  ClusterFacts facts = two_nodes();
  for (ClusterNode& node : facts.nodes) node.name.clear();
  const auto refused = check_cluster(facts, *validate(with("stonith", "yes")));
  ASSERT_FALSE(refused);
  EXPECT_LE(refused.error().sentence.size(), kShown);
}

TEST(Cluster, AQuorumDeviceDoesWithoutFencing) {
  ClusterFacts facts = two_nodes();
  facts.two_node = false;
  facts.quorum_device = facts.device_halves = true;
  EXPECT_TRUE(check_cluster(facts, *validate(good())));
  EXPECT_EQ(partner_of(facts, *validate(good())), std::nullopt);
  EXPECT_NE(partner_of(facts, *validate(with("stonith", "yes"))), std::nullopt);
}

TEST(Cluster, OfAQuorumDeviceItMustBeKnownWhoLosesItsVoteWhen) {
  ClusterFacts facts = three_nodes();
  facts.quorum_device = true;
  facts.device_timeout = std::chrono::seconds(7);
  const auto refused = check_cluster(facts, *validate(good()));
  ASSERT_FALSE(refused);
  EXPECT_LE(refused.error().sentence.size(), kShown);
  EXPECT_TRUE(check_cluster(facts, *validate(with("fencing", "ignore"))));
  EXPECT_EQ(make_config(facts, *validate(good()), "n1").device_lag, std::chrono::seconds(7));
  facts.device_timeout = std::chrono::minutes(31);
  const auto too_long = check_cluster(facts, *validate(with("fencing", "ignore")));
  ASSERT_FALSE(too_long);
  EXPECT_NE(too_long.error().sentence.find("1860000 ms"), std::string::npos);
  facts.quorum_device = false;
  EXPECT_EQ(make_config(facts, *validate(good()), "n1").device_lag, Nanos(0));
}

TEST(Cluster, MoreThanTwoNodesDoNotWaitForFencing) {
  ClusterFacts facts = three_nodes();
  EXPECT_EQ(partner_of(facts, *validate(with("stonith", "yes"))), std::nullopt);
  RawOptions raw = with("fencing", "wait");
  raw["stonith"] = "yes";
  const auto refused = check_cluster(facts, *validate(raw));
  ASSERT_FALSE(refused);
  EXPECT_LE(refused.error().sentence.size(), kShown);
  facts.auto_tie_breaker = true;
  const auto tie = check_cluster(facts, *validate(with("stonith", "yes")));
  ASSERT_FALSE(tie);
  EXPECT_NE(tie.error().sentence.find("auto_tie_breaker"), std::string::npos);
  EXPECT_LE(tie.error().sentence.size(), kShown);
  EXPECT_FALSE(make_config(facts, *validate(with("fencing", "ignore")), "n1").votes_decide);
  facts.auto_tie_breaker = false;
  facts.last_man_standing = true;
  const auto last = check_cluster(facts, *validate(with("stonith", "yes")));
  ASSERT_FALSE(last);
  EXPECT_LE(last.error().sentence.size(), kShown);
  EXPECT_TRUE(check_cluster(facts, *validate(with("fencing", "ignore"))));
}

TEST(Cluster, WithoutQuorumNothingIsServed) {
  ClusterFacts facts = three_nodes();
  facts.quorum_provider = false;
  EXPECT_FALSE(check_cluster(facts, *validate(with("fencing", "ignore"))));
}

TEST(Cluster, MoreNodesThanAGroupCanHaveAreRefusedByNumber) {
  ClusterFacts facts = three_nodes();
  facts.nodes.resize(129);
  const auto refused = check_cluster(facts, *validate(good()));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sentence,
            "the cluster has 129 nodes; a corosync process group, and so saru, has at most 128");
}

TEST(Cluster, TheHashCoversWhatAllMustAgreeOnAndNothingElse) {
  const Nanos lease = std::chrono::milliseconds(1375);
  const auto hash = [&lease](const std::string& name, const std::string& value) {
    return hash_of(*validate(with(name, value)), lease);
  };
  const std::uint64_t same = hash_of(*validate(good()), lease);
  EXPECT_EQ(hash("nic", "ens3"), same);
  EXPECT_EQ(hash("weight", "7"), same);
  EXPECT_EQ(hash("log-level", "debug"), same);
  EXPECT_NE(hash("blocks", "256"), same);
  EXPECT_NE(hash("selector", "src-addr"), same);
  EXPECT_NE(hash("seed", "1"), same);
  EXPECT_NE(hash("services", "443 by src-addr"), same);
  EXPECT_NE(hash("services", "443 by src-addr"), hash("services", "443 by dst-addr"));
  EXPECT_EQ(hash("services", "443 by src-addr,80/udp by dst-port"),
            hash("services", " 80/udp  by dst-port , 443 by src-addr,"));
  EXPECT_NE(hash("mac", "02:00:00:00:00:01"), same);
  EXPECT_NE(hash("ip", "10.77.0.101"), same);
  EXPECT_NE(hash_of(*validate(good()), lease + Nanos(1)), same);
  EXPECT_EQ(hash("ip", "10.0.0.1,10.0.0.2"), hash("ip", "10.0.0.2,10.0.0.1"));
  const auto inside = [&lease](const RawOptions& more) {
    return hash_of(*validate(director(more)), lease);
  };
  EXPECT_NE(inside({}), same);
  EXPECT_EQ(inside({{"inside-nic", "ens4"}}), inside({}));
  EXPECT_NE(inside({{"inside-ip", "10.2.0.1/24"}}), inside({}));
  EXPECT_EQ(inside({{"inside-ip", "fd02::1/64 10.2.0.1/24"}}), inside({}));
  // What is inside is not what is outside.
  EXPECT_NE(inside({{"inside-ip", "10.2.0.1/24"}}),
            inside({{"ip", "10.77.0.100,fd02::1/64"}, {"inside-ip", "10.2.0.1/24"}}));
}

}  // namespace
}  // namespace saru
