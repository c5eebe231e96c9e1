// SPDX-License-Identifier: GPL-2.0-or-later
// What a process leaves for the next one of the same boot.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "agent/core/state.h"
#include "agent/lock.h"
#include "cpg/wire.h"

namespace saru {
namespace {

using std::chrono::seconds;

RunFiles files() {
  RunFiles run;
  run.marker = testing::TempDir() + "marker-" + std::to_string(getpid());
  run.partner = testing::TempDir() + "partner-" + std::to_string(getpid());
  return run;
}

TEST(Marker, IsReadAsItWasWritten) {
  const RunFiles run = files();
  EXPECT_FALSE(read_marker(run).has_value());
  ASSERT_TRUE(set_marker(run, {seconds(3), std::nullopt}).has_value());
  EXPECT_EQ(read_marker(run)->lease, seconds(3));
  EXPECT_FALSE(read_marker(run)->ended.has_value());
  ASSERT_TRUE(set_marker(run, {seconds(3), seconds(100)}).has_value());
  EXPECT_EQ(read_marker(run)->ended, seconds(100));
  remove_marker(run);
  EXPECT_FALSE(read_marker(run).has_value());
}

TEST(Marker, ThatIsDamagedCountsAsAnUncleanEnd) {
  const RunFiles run = files();
  for (const char* text : {"", "x", "3000000000 ", "3000000000 x\n", "3000000000 12"}) {
    std::ofstream(run.marker) << text;
    ASSERT_TRUE(read_marker(run).has_value()) << text;
    EXPECT_FALSE(read_marker(run)->ended.has_value()) << text;
  }
  remove_marker(run);
}

TEST(Marker, NoLeaseIsLongerThanAMessageCanSay) {
  const RunFiles run = files();
  std::ofstream(run.marker) << "3000000000000\n";  // 50 minutes
  EXPECT_EQ(read_marker(run)->lease, kLongestLease);
  remove_marker(run);
}

TEST(Marker, WaitsTheLongerLeaseFromTheEnd) {
  const Marker unclean{seconds(3), std::nullopt};
  EXPECT_EQ(unclean.wait(seconds(1), seconds(500)), guarded(seconds(3)));
  EXPECT_EQ(unclean.wait(seconds(5), seconds(500)), guarded(seconds(5)));
  const Marker clean{seconds(3), seconds(499)};
  EXPECT_EQ(clean.wait(seconds(1), seconds(500)), guarded(seconds(3)) - seconds(1));
  EXPECT_EQ(clean.wait(seconds(1), seconds(600)), Nanos(0));
}

TEST(PartnerClosed, IsReadAsItWasWrittenOrNotAtAll) {
  const RunFiles run = files();
  EXPECT_EQ(read_partner_closed(run), std::nullopt);
  const RingId ring{NodeId{4294967295}, 18446744073709551615ULL};
  ASSERT_TRUE(keep_partner_closed(run, ring).has_value());
  EXPECT_EQ(read_partner_closed(run), ring);
  for (const char* text : {"", "1", "1 ", "1 x\n", "1 8", "x 8\n", "-1 8\n", "1 8 9\n",
                           "4294967296 8\n", "1 18446744073709551616\n"}) {
    std::ofstream(run.partner) << text;
    EXPECT_EQ(read_partner_closed(run), std::nullopt) << text;
  }
  unlink(run.partner.c_str());
}

// Found by tests/fuzz: the sum overflowed, and there was nothing to wait for.
TEST(Marker, WithAnEndThatHasNotBeenWaitsTheWholeLease) {
  const RunFiles run = files();
  std::ofstream(run.marker) << "3000000000 99999999999999999999\n";
  const auto marker = read_marker(run);
  ASSERT_TRUE(marker && marker->ended);
  EXPECT_EQ(marker->wait(seconds(1), seconds(500)), guarded(seconds(3)));
  EXPECT_EQ((Marker{seconds(3), seconds(501)}.wait(seconds(1), seconds(500))), guarded(seconds(3)));
  remove_marker(run);
}

}  // namespace
}  // namespace saru
