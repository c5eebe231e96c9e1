// SPDX-License-Identifier: GPL-2.0-or-later
// What a running sarud may change, and what it keeps for the next one.
#include "agent/reload.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "agent/journal.h"
#include "agent/wishes.h"

namespace saru {
namespace {

using std::string;
constexpr Nanos kLease = std::chrono::milliseconds(1375);

Options options_with(const RawOptions& more) {
  RawOptions raw = {{"ip", "192.0.2.1"}, {"nic", "eth0"}};
  for (const auto& [name, value] : more) raw[name] = value;
  return validate(raw).value();
}

Change change_to(const RawOptions& more, Nanos lease = kLease) {
  return plan_change(options_with({}), options_with(more), lease).value();
}

TEST(Reload, AddressesAndLeaseKeepTheBlocks) {
  const Change same = change_to({});
  const Change address = change_to({{"ip", "192.0.2.1,2001:db8::1"}});
  const Change lease = change_to({}, kLease * 2);
  EXPECT_TRUE(same.agreed.keeps_blocks);
  EXPECT_TRUE(address.agreed.keeps_blocks);
  EXPECT_TRUE(lease.agreed.keeps_blocks);
  EXPECT_EQ(lease.agreed.lease, kLease * 2);
  EXPECT_NE(address.agreed.hash, same.agreed.hash);
  EXPECT_NE(lease.agreed.hash, same.agreed.hash);
}

TEST(Reload, WhatCutsTheClientsOtherwiseDoesNotKeepThem) {
  for (const RawOptions& more :
       {RawOptions{{"blocks", "64"}}, RawOptions{{"selector", "src-addr"}},
        RawOptions{{"services", "443 by src-addr"}}, RawOptions{{"seed", "99"}}}) {
    const Change change = change_to(more);
    EXPECT_FALSE(change.agreed.keeps_blocks) << more.begin()->first;
    EXPECT_NE(change.agreed.hash, change_to({}).agreed.hash) << more.begin()->first;
  }
}

TEST(Reload, WhatEverythingIsBuiltUponIsRefusedByName) {
  for (const auto& [name, value] :
       RawOptions{{"id", "2"}, {"nic", "eth1"}, {"mac", "02:00:00:00:00:09"}, {"label", "other"}}) {
    const auto change = plan_change(options_with({}), options_with({{name, value}}), kLease);
    ASSERT_FALSE(change.has_value()) << name;
    EXPECT_EQ(change.error().code, ExitCode::kBadConfiguration);
    EXPECT_NE(change.error().sentence.find(name + " cannot change"), string::npos)
        << change.error().sentence;
  }
}

TEST(Reload, TheInsideStaysAsItIs) {
  const RawOptions inside = {{"inside-ip", "10.2.0.1/24,10.2.0.2"}, {"inside-nic", "eth1"}};
  const auto refusal = [](const RawOptions& from, const RawOptions& to) {
    const auto change = plan_change(options_with(from), options_with(to), kLease);
    return change ? string() : change.error().sentence.substr(0, 28);
  };
  EXPECT_EQ(refusal({}, inside), "inside-nic cannot change whi");
  EXPECT_EQ(refusal(inside, {}), "inside-nic cannot change whi");
  RawOptions other = inside;
  other["inside-nic"] = "eth2";
  EXPECT_EQ(refusal(inside, other), "inside-nic cannot change whi");
  other = inside;
  other["inside-ip"] = "10.2.0.1/24";
  EXPECT_EQ(refusal(inside, other), "inside-ip cannot change whil");
  other["inside-ip"] = "10.2.0.2 10.2.0.1/24";
  other["ip"] = "192.0.2.1,192.0.2.2";
  EXPECT_EQ(refusal(inside, other), "");
}

TEST(Wishes, AreReadAsTheyWereWritten) {
  for (const Wishes& wishes : {Wishes{}, Wishes{true, std::nullopt}, Wishes{false, {{7, 1}}},
                               Wishes{true, {{0, 65535}}}}) {
    EXPECT_EQ(wishes_from(to_text(wishes)), wishes);
  }
}

TEST(Wishes, WeightCountsUntilTheParameterChanges) {
  const Wishes wishes{false, {{7, 1}}};
  EXPECT_EQ(wishes.weight_for(1), 7);
  EXPECT_EQ(wishes.weight_for(2), 2);
  EXPECT_EQ(Wishes{}.weight_for(3), 3);
}

TEST(Wishes, DamagedOnesAreRefused) {
  for (const char* text :
       {"", "{", "[]", "{}", "{\"drained\":1}", "{\"drained\":true,\"weight\":70000}",
        "{\"drained\":true,\"weight\":3}", "{\"drained\":true,\"weight\":-1}"}) {
    EXPECT_FALSE(wishes_from(text).has_value()) << text;
  }
}

TEST(Wishes, FileIsReplacedWholeAndItsAbsenceIsNoWish) {
  const string path = testing::TempDir() + "wishes-" + std::to_string(getpid());
  ASSERT_EQ(load_wishes(path).value(), Wishes{});
  ASSERT_TRUE(save_wishes(path, {true, std::nullopt}).has_value());
  EXPECT_EQ(load_wishes(path).value(), (Wishes{true, std::nullopt}));
  std::ofstream(path) << "half of";
  EXPECT_NE(load_wishes(path).error().sentence.find(path), string::npos);
  unlink(path.c_str());
  EXPECT_FALSE(save_wishes("/nowhere/at/all", {}).has_value());
}

TEST(Journal, KeepsTheNewestLinesInOrder) {
  Journal journal;
  for (unsigned i = 0; i < Journal::kMost + 5; ++i) {
    journal.add(std::chrono::milliseconds(1500) + std::chrono::seconds(i), LogLevel::kNotice,
                std::to_string(i));
  }
  journal.add(Nanos(0), LogLevel::kDebug, "not kept");
  const auto all = journal.last(Journal::kMost);
  ASSERT_EQ(all.size(), Journal::kMost);
  EXPECT_EQ(all.front().at("text"), "5");
  EXPECT_EQ(all.front().at("time"), "1970-01-01T00:00:06.500Z");
  EXPECT_EQ(journal.last(2).front().at("text"), std::to_string(Journal::kMost + 3));
  EXPECT_EQ(journal.last(2).front().at("level"), "notice");
}

}  // namespace
}  // namespace saru
