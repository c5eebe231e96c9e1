// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/config_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "agent/options.h"

namespace saru {
namespace {

using std::string;

ConfigName judge(std::string_view name) {
  if (name == "ip") return ConfigName::kList;
  if (name == "reload") return ConfigName::kNotInFiles;
  const bool known = name == "nic" || name == "services" || name == "lease-ms" || name == "id";
  return known ? ConfigName::kValue : ConfigName::kUnknown;
}

TEST(ConfigFile, HasNamesValuesCommentsAndQuotes) {
  const auto read = parse_config("web.conf",
                                 "# one address\n"
                                 "\n"
                                 "  nic = eth0   # to the clients\r\n"
                                 "; ip = 10.0.0.9\n"
                                 "ip=10.0.0.1\n"
                                 "ip = 10.0.0.2, 2001:db8::2/64\n"
                                 "services = \"443 by src-addr, 53/udp by src-addr-port\" # two\n"
                                 "lease-ms =",
                                 &judge);
  ASSERT_TRUE(read) << read.error().sentence;
  ASSERT_EQ(read->size(), 4u);
  EXPECT_EQ(read->at("nic").text, "eth0");
  EXPECT_EQ(read->at("nic").line, 3u);
  EXPECT_EQ(read->at("ip").text, "10.0.0.1,10.0.0.2, 2001:db8::2/64");
  EXPECT_EQ(read->at("services").text, "443 by src-addr, 53/udp by src-addr-port");
  EXPECT_EQ(read->at("lease-ms").text, "");
}

struct Bad {
  const char* content;
  const char* sentence;
};

class BadFile : public testing::TestWithParam<Bad> {};

TEST_P(BadFile, IsRefusedWithItsNameAndLine) {
  const auto read = parse_config("/etc/saru/web.conf", GetParam().content, &judge);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ExitCode::kBadConfiguration);
  EXPECT_EQ(read.error().sentence, string("/etc/saru/web.conf:") + GetParam().sentence);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadFile,
    testing::Values(
        Bad{"nic=eth0\nwieght=3\n", "2: unknown name \"wieght\"; sarud --help lists the names"},
        Bad{"lease_ms=800", "1: unknown name \"lease_ms\"; here it is called lease-ms"},
        Bad{"cluster_id=2", "1: unknown name \"cluster_id\"; here it is called id"},
        Bad{"\n\nreload=yes", "3: reload is for the command line alone: remove this line"},
        Bad{"nic=eth0\nnic=eth1", "2: nic was given before, in line 1: keep one of them"},
        Bad{"[web]\n", "1: there are no sections: one file is for one id"},
        Bad{"nic eth0\n", "1: a line must look like name = value, not \"nic eth0\""},
        Bad{"=eth0", "1: unknown name \"\"; sarud --help lists the names"},
        Bad{"services=\"443 by src-addr", "1: services: the quote is not closed"},
        Bad{"nic=\"eth0\"1", "1: nic: only a comment may follow the closing quote"},
        Bad{"nic=eth\"0\"",
            "1: nic: a quote in the middle of a value: quote all of it, or nothing"},
        Bad{"nic=eth0\x01", "1: the line has characters that are no text"}));

// A file of its own for each test.
class ConfigOnDisk : public testing::Test {
 protected:
  void SetUp() override {
    const int fd = mkstemp(path_.data());
    ASSERT_GE(fd, 0);
    close(fd);
  }
  void TearDown() override { unlink(path_.c_str()); }

  tl::expected<CommandLine, Failure> read(const string& content,
                                          std::vector<const char*> words = {}) {
    std::ofstream(path_) << content;
    words.insert(words.begin(), {"sarud", "--config", path_.c_str()});
    return read_command_line(static_cast<int>(words.size()), words.data());
  }

  // What sarud complains about.
  string refusal(const string& content, std::vector<const char*> words = {}) {
    const auto line = read(content, std::move(words));
    if (!line) return line.error().sentence;
    const auto options = validate(line->raw);
    return options ? "" : at_origin(*line, options.error()).sentence;
  }

  string path_ = testing::TempDir() + "saru-config-XXXXXX";
};

TEST_F(ConfigOnDisk, SaysWhatTheCommandLineDoesNotSay) {
  const auto line = read("ip=10.0.0.1\nnic=eth0\nweight=3\nblocks=64\n",
                         {"--weight", "5", "--foreground", "--mac", ""});
  ASSERT_TRUE(line) << line.error().sentence;
  const auto options = validate(line->raw);
  ASSERT_TRUE(options) << options.error().sentence;
  EXPECT_EQ(options->addresses.size(), 1u);
  EXPECT_EQ(options->nic, "eth0");
  EXPECT_EQ(options->weight, 5u);
  EXPECT_EQ(options->blocks, 64u);
  EXPECT_TRUE(options->foreground);
}

TEST_F(ConfigOnDisk, AddressesOfTheCommandLineReplaceThoseOfTheFile) {
  const auto line = read("ip=10.0.0.1\nip=10.0.0.2\nnic=eth0\n", {"--ip", "10.0.0.3"});
  ASSERT_TRUE(line) << line.error().sentence;
  EXPECT_EQ(line->raw.at("ip"), "10.0.0.3,");
}

TEST_F(ConfigOnDisk, AWrongValueIsNamedWithFileAndLine) {
  EXPECT_EQ(refusal("ip=10.0.0.1\nnic=eth0\nweight=many\n"),
            path_ + ":3: weight must be a number from 0 to 65535, not \"many\"");
  EXPECT_EQ(refusal("nic=eth0\n"),
            path_ + ": no address to serve: give ip, for example ip=192.0.2.10");
  // Not what the command line says in place of the file.
  EXPECT_EQ(refusal("ip=10.0.0.1\nnic=eth0\nweight=3\n", {"--weight", "many"}),
            "weight must be a number from 0 to 65535, not \"many\"");
}

TEST_F(ConfigOnDisk, MustNotBeWritableByOthers) {
  EXPECT_EQ(refusal("ip=10.0.0.1\nnic=eth0\n"), "");
  chmod(path_.c_str(), 0602);
  EXPECT_EQ(refusal("ip=10.0.0.1\nnic=eth0\n"),
            path_ + ": others than its owner may write it: chmod go-w " + path_);
}

TEST_F(ConfigOnDisk, MustBelongToRootOrToWhoeverReadsIt) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  ASSERT_EQ(chown(path_.c_str(), 12345, 0), 0);
  EXPECT_EQ(refusal("ip=10.0.0.1\nnic=eth0\n"),
            path_ + ": belongs to uid 12345, who could change it: chown root " + path_);
}

TEST_F(ConfigOnDisk, MustBeAFileOfReasonableSize) {
  EXPECT_EQ(refusal(string(70000, '#')),
            path_ + ": is larger than 64 KiB; it is not a file for sarud");
  unlink(path_.c_str());
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(read_config(path_, &judge).error().sentence,
            path_ + ": is no file; give a file of lines like nic=eth0");
  unlink(path_.c_str());
  const auto missing = read_config(path_, &judge);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ExitCode::kBadConfiguration);
  EXPECT_EQ(missing.error().sentence,
            path_ + ": cannot open the configuration file: No such file or directory");
}

}  // namespace
}  // namespace saru
