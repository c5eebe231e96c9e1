// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: rulesets of others, as nft 1.0.6 prints them.
#include "agent/doctor_rules.h"

#include <gtest/gtest.h>

namespace saru {
namespace {

using nlohmann::json;
using std::string;

// One table `inet fw` with the base chain `c`, these rules in it, and a chain `other`.
RulesSight ruleset(const string& hook, int priority, const string& policy,
                   const std::vector<string>& rules, const std::vector<string>& other = {}) {
  json parts = json::array();
  parts.push_back({{"metainfo", {{"version", "1.0.6"}}}});
  parts.push_back({{"table", {{"family", "inet"}, {"name", "fw"}}}});
  parts.push_back({{"chain",
                    {{"family", "inet"},
                     {"table", "fw"},
                     {"name", "c"},
                     {"type", "filter"},
                     {"hook", hook},
                     {"prio", priority},
                     {"policy", policy}}}});
  parts.push_back({{"chain", {{"family", "inet"}, {"table", "fw"}, {"name", "other"}}}});
  parts.push_back(json::parse(R"({"set": {"family": "inet", "table": "fw", "name": "ports",
      "elem": [443, {"range": [8000, 8100]}]}})"));
  int handle = 5;
  const auto add = [&](const char* chain, const std::vector<string>& list) {
    for (const string& expr : list) {
      parts.push_back({{"rule",
                        {{"family", "inet"},
                         {"table", "fw"},
                         {"chain", chain},
                         {"handle", handle++},
                         {"expr", json::parse(expr)}}}});
    }
  };
  add("c", rules);
  add("other", other);
  RulesSight sight;
  sight.ruleset = {{"nftables", parts}};
  sight.nic = "eth0";
  sight.link = "saru1";
  sight.mac = "02:5a:72:00:00:01";
  sight.addresses = {*IpAddress::parse("10.77.0.100")};
  return sight;
}

std::map<string, string> troubles(const RulesSight& sight) {
  std::map<string, string> found;
  for (const Finding& one : judge_rules(sight)) {
    if (one.level != Level::kOk) found[one.check] += one.found;
  }
  return found;
}

bool drops(const RulesSight& sight) { return troubles(sight).count("firewall") != 0; }

const string kEstablished =
    R"([{"match": {"op": "in", "left": {"ct": {"key": "state"}},
                   "right": ["established", "related"]}}, {"accept": null}])";
const string kLoopback =
    R"([{"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "lo"}},
        {"accept": null}])";
const string kDropAll = R"([{"counter": {"packets": 0, "bytes": 0}}, {"drop": null}])";
const string kAcceptAll = R"([{"accept": null}])";

string port_rule(const string& right, const string& verdict) {
  return R"([{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
              "right": )" +
         right + "}}, " + verdict + "]";
}

string address_rule(const string& right, const string& verdict) {
  return R"([{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}},
              "right": )" +
         right + "}}, " + verdict + "]";
}

TEST(DoctorRules, EmptyRulesetIsWell) {
  EXPECT_FALSE(drops(ruleset("input", 0, "accept", {})));
  EXPECT_TRUE(troubles(ruleset("input", 0, "accept", {kAcceptAll, kDropAll})).empty());
}

TEST(DoctorRules, PolicyThatDropsIsFound) {
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {})));
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {kEstablished, kLoopback})));
  const string said = troubles(ruleset("input", 0, "drop", {kEstablished})).at("firewall");
  EXPECT_NE(said.find("table inet fw, chain c (input, priority 0)"), string::npos) << said;
  EXPECT_NE(said.find("its policy, drop"), string::npos) << said;
}

TEST(DoctorRules, WhatIsNotKnownMayPass) {
  const auto open = port_rule("80", R"({"accept": null})");
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {kEstablished, open})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {R"([{"xt": null}, {"accept": null}])"})));
}

TEST(DoctorRules, PortThatWasAskedForMustPass) {
  RulesSight sight = ruleset("input", 0, "drop", {port_rule("80", R"({"accept": null})")});
  sight.ports = {80};
  EXPECT_FALSE(drops(sight));
  sight.ports = {80, 443};
  EXPECT_NE(troubles(sight).at("firewall").find("port 443 of 10.77.0.100"), string::npos);
  sight = ruleset("input", 0, "drop", {port_rule("\"@ports\"", R"({"accept": null})")});
  sight.ports = {443, 8050};
  EXPECT_FALSE(drops(sight));
  sight.ports = {8101};
  EXPECT_TRUE(drops(sight));
}

TEST(DoctorRules, OneOfThePortsThatAreListenedOnMustPass) {
  RulesSight sight =
      ruleset("input", 0, "drop",
              {port_rule(R"({"set": [22, {"range": [100, 200]}]})", R"({"accept": null})")});
  sight.any_ports = {80, 9100};
  EXPECT_TRUE(drops(sight));
  sight.any_ports = {80, 150};
  EXPECT_FALSE(drops(sight));
}

TEST(DoctorRules, RuleForTheAddressIsFound) {
  for (const char* right : {R"("10.77.0.100")", R"({"prefix": {"addr": "10.77.0.0", "len": 16}})",
                            R"({"set": ["10.1.1.1", {"range": ["10.77.0.1", "10.77.0.200"]}]})"}) {
    EXPECT_TRUE(
        drops(ruleset("prerouting", -400, "accept", {address_rule(right, R"({"drop": null})")})))
        << right;
  }
  EXPECT_FALSE(drops(ruleset("prerouting", -400, "accept",
                             {address_rule(R"("10.77.0.101")", R"({"drop": null})")})));
  EXPECT_FALSE(drops(ruleset("prerouting", -400, "accept",
                             {kAcceptAll, address_rule(R"("10.77.0.100")", R"({"drop": null})")})));
}

TEST(DoctorRules, InterfaceIsTheOneOnWhichPacketsComeIn) {
  const auto by = [](const string& name) {
    return R"([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": ")" + name +
           R"("}}, {"accept": null}])";
  };
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {by("eth0")})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {by("saru*")})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {by("saru1")})));
}

TEST(DoctorRules, JumpsAreFollowed) {
  const string jump = R"([{"jump": {"target": "other"}}])";
  EXPECT_TRUE(drops(ruleset("input", 0, "accept", {jump}, {kDropAll})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {jump}, {kAcceptAll})));
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {jump}, {R"([{"return": null}])", kAcceptAll})));
  const string goto_other = R"([{"goto": {"target": "other"}}])";
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {goto_other, kAcceptAll}, {})));
  const string map = R"([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set":
      [["eth0", {"accept": null}], ["saru1", {"goto": {"target": "other"}}]]}}}])";
  EXPECT_TRUE(drops(ruleset("input", 0, "accept", {map}, {kDropAll})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {map}, {kAcceptAll})));
}

TEST(DoctorRules, WhatAMapLooksUpNeedNotBeKnown) {
  const string map = R"([{"vmap": {"key": {"meta": {"key": "mark"}}, "data": {"set":
      [[7, {"accept": null}]]}}}])";
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {map})));
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {R"([{"vmap": {"key": {"meta": {"key": "iifname"}},
      "data": {"set": [["eth0", {"accept": null}]]}}}])"})));
}

TEST(DoctorRules, OtherThanIsUnderstood) {
  const auto other_than = [](const string& name, const string& verdict) {
    return R"([{"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": ")" + name +
           R"("}}, {")" + verdict + R"(": null}])";
  };
  EXPECT_TRUE(drops(ruleset("input", 0, "accept", {other_than("eth0", "drop")})));
  EXPECT_FALSE(drops(ruleset("input", 0, "accept", {other_than("saru1", "drop")})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {other_than("eth0", "accept")})));
}

TEST(DoctorRules, ChainThatJumpsToItselfHasAnEnd) {
  const string jump = R"([{"jump": {"target": "other"}}])";
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {jump}, {jump})));
}

TEST(DoctorRules, AnswersMustGetOut) {
  EXPECT_TRUE(drops(ruleset("output", 0, "drop", {kLoopback})));
  EXPECT_FALSE(drops(ruleset("output", 0, "drop", {kEstablished})));
}

TEST(DoctorRules, OtherHooksAndOurOwnTablesDoNotMatter) {
  EXPECT_FALSE(drops(ruleset("forward", 0, "drop", {})));
  RulesSight sight = ruleset("prerouting", -310, "drop", {});
  for (json& part : sight.ruleset["nftables"]) {
    for (json& what : part) {
      if (what.contains("table")) what["table"] = "saru_1";
    }
  }
  EXPECT_FALSE(drops(sight));
}

TEST(DoctorRules, ChainOfADeviceIsReadFromTheText) {
  RulesSight sight = ruleset("ingress", 0, "accept", {kDropAll});
  EXPECT_FALSE(drops(sight));  // of which device, nothing says
  sight.chains =
      "table inet fw {\n\tchain c {\n\t\ttype filter hook ingress device \"eth0\" priority filter; "
      "policy accept;\n\t}\n}\n";
  EXPECT_TRUE(drops(sight));
  sight.chains =
      "table inet fw {\n\tchain c {\n\t\ttype filter hook ingress devices = { \"eth2\", \"saru1\" "
      "} "
      "priority filter; policy accept;\n\t}\n}\n";
  EXPECT_TRUE(drops(sight));
  sight.nic = "eth3";
  sight.link = "saru2";
  EXPECT_FALSE(drops(sight));
}

TEST(DoctorRules, RewritingBeforeOurRulesIsFound) {
  const string rewrite =
      R"([{"mangle": {"key": {"payload": {"protocol": "ip", "field": "daddr"}},
                      "value": "10.1.1.1"}}])";
  EXPECT_TRUE(drops(ruleset("prerouting", -400, "accept", {rewrite})));
  EXPECT_FALSE(drops(ruleset("prerouting", -100, "accept", {rewrite})));
}

TEST(DoctorRules, WhatIsTranslatedMayPassUnderAnotherPort) {
  const string translated =
      R"([{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}},
          {"accept": null}])";
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {translated})));
  const auto to_8080 = port_rule("80", R"({"redirect": {"port": 8080}})");
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {translated}, {to_8080})));
  RulesSight sight = ruleset("input", 0, "drop", {port_rule("8080", R"({"accept": null})")});
  sight.ports = {80};
  EXPECT_TRUE(drops(sight));
  sight.ruleset =
      ruleset("input", 0, "drop", {port_rule("8080", R"({"accept": null})")}, {to_8080}).ruleset;
  EXPECT_FALSE(drops(sight));
}

TEST(DoctorRules, WhatIsForwardedNeedNotPassInput) {
  const auto to_server = port_rule("80", R"({"dnat": {"addr": "10.2.0.10"}})");
  EXPECT_TRUE(drops(ruleset("input", 0, "drop", {kEstablished})));
  EXPECT_FALSE(drops(ruleset("input", 0, "drop", {kEstablished}, {to_server})));
  RulesSight sight = ruleset("input", 0, "drop", {});
  sight.inside = true;
  EXPECT_FALSE(drops(sight));
  sight = ruleset("prerouting", 0, "drop", {});
  sight.inside = true;
  EXPECT_TRUE(drops(sight));
}

TEST(DoctorRules, ReversePathFilterMattersForIpv6) {
  RulesSight sight = ruleset("prerouting", -290, "accept",
                             {R"([{"match": {"op": "==", "left": {"meta": {"key": "nfproto"}},
                                             "right": "ipv6"}},
                                  {"match": {"op": "==", "left": {"fib": {"result": "oif",
                                             "flags": ["saddr", "mark", "iif"]}}, "right": false}},
                                  {"drop": null}])"});
  EXPECT_FALSE(drops(sight));
  sight.addresses.push_back(*IpAddress::parse("fd77::100"));
  EXPECT_NE(troubles(sight).at("firewall").find("IPv6"), string::npos);
}

TEST(DoctorRules, FirewalldMustKnowTheInterface) {
  RulesSight sight = ruleset("input", 0, "accept", {});
  EXPECT_EQ(troubles(sight).count("firewalld"), 0U);
  sight.ruleset["nftables"].push_back({{"table", {{"family", "inet"}, {"name", "firewalld"}}}});
  EXPECT_EQ(troubles(sight).count("firewalld"), 1U);
  sight.ruleset["nftables"].push_back(json::parse(R"({"rule": {"family": "inet",
      "table": "firewalld", "chain": "filter_INPUT_ZONES", "expr": [{"match": {"op": "==",
      "left": {"meta": {"key": "iifname"}}, "right": "saru1"}},
      {"goto": {"target": "filter_IN_public"}}]}})"));
  EXPECT_EQ(troubles(sight).count("firewalld"), 0U);
}

TEST(DoctorRules, FlowtableOfTheNicIsFound) {
  RulesSight sight = ruleset("input", 0, "accept", {});
  sight.ruleset["nftables"].push_back(
      json::parse(R"({"flowtable": {"family": "inet", "name": "ft", "table": "fw",
                      "hook": "ingress", "prio": 0, "dev": ["eth1", "eth0"]}})"));
  EXPECT_EQ(troubles(sight).count("flowtable"), 1U);
  sight.nic = "eth5";
  EXPECT_EQ(troubles(sight).count("flowtable"), 0U);
}

TEST(DoctorRules, ArpFilterIsFound) {
  RulesSight sight = ruleset("input", 0, "drop", {});
  for (json& part : sight.ruleset["nftables"]) {
    for (json& what : part) {
      if (what.contains("family")) what["family"] = "arp";
    }
  }
  EXPECT_NE(troubles(sight).at("firewall").find("drops ARP"), string::npos);
}

TEST(DoctorRules, WhatIsNoRulesetThrows) {
  RulesSight sight;
  sight.ruleset = json::object();
  EXPECT_ANY_THROW((void)judge_rules(sight));
}

}  // namespace
}  // namespace saru
