// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace saru {
namespace {

using std::string;
using std::string_view;

constexpr std::size_t kMostBytes = std::size_t{64} * 1024;
constexpr const char* kBlanks = " \t\r";

Failure bad(const string& where, const string& what) {
  return {ExitCode::kBadConfiguration, where + ": " + what};
}

string_view trimmed(string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

bool is_comment(string_view text) { return text.empty() || text[0] == '#' || text[0] == ';'; }

// "web # a comment", or "\"web\" # a comment". A sentence instead if it is neither.
tl::expected<string, string> parse_value(string_view text) {
  if (text.empty() || text[0] != '"') {
    for (std::size_t at = 0; (at = text.find('#', at)) != string_view::npos; ++at) {
      if (at == 0 || text[at - 1] == ' ' || text[at - 1] == '\t') {
        text = text.substr(0, at);
        break;
      }
    }
    text = trimmed(text);
    if (text.find('"') == string_view::npos) return string(text);
    return tl::unexpected<string>("a quote in the middle of a value: quote all of it, or nothing");
  }
  const std::size_t end = text.find('"', 1);
  if (end == string_view::npos) return tl::unexpected<string>("the quote is not closed");
  const string_view rest = trimmed(text.substr(end + 1));
  if (!rest.empty() && rest[0] != '#') {
    return tl::unexpected<string>("only a comment may follow the closing quote");
  }
  return string(text.substr(1, end - 1));
}

bool has_control_characters(string_view line) {
  return std::any_of(line.begin(), line.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  });
}

string advice_for(string name, NameJudge judge) {
  std::replace(name.begin(), name.end(), '_', '-');
  if (judge(name) == ConfigName::kValue || judge(name) == ConfigName::kList) {
    return "; here it is called " + name;
  }
  if (name == "cluster-id") return "; here it is called id";
  return "; sarud --help lists the names";
}

// One line into `values`; a sentence if it is not right.
tl::expected<void, string> take_line(string_view line, unsigned number, NameJudge judge,
                                     ConfigValues& values) {
  line = trimmed(line);
  if (is_comment(line)) return {};
  if (has_control_characters(line)) {
    return tl::unexpected<string>("the line has characters that are no text");
  }
  if (line[0] == '[') {
    return tl::unexpected<string>("there are no sections: one file is for one id");
  }
  const std::size_t equals = line.find('=');
  if (equals == string_view::npos) {
    return tl::unexpected<string>("a line must look like name = value, not \"" + string(line) +
                                  "\"");
  }
  const string name(trimmed(line.substr(0, equals)));
  const ConfigName kind = judge(name);
  if (kind == ConfigName::kUnknown) {
    return tl::unexpected("unknown name \"" + name + "\"" + advice_for(name, judge));
  }
  if (kind == ConfigName::kNotInFiles) {
    return tl::unexpected(name + " is for the command line alone: remove this line");
  }
  auto value = parse_value(trimmed(line.substr(equals + 1)));
  if (!value) return tl::unexpected(name + ": " + value.error());
  auto& kept = values[name];
  if (kept.line != 0 && kind != ConfigName::kList) {
    return tl::unexpected(name + " was given before, in line " + std::to_string(kept.line) +
                          ": keep one of them");
  }
  kept.text += (kept.text.empty() ? "" : ",") + *value;
  kept.line = number;
  return {};
}

class File {
 public:
  // Not to wait for the other end of a pipe.
  explicit File(const string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

// Whoever can write it decides what this node serves.
tl::expected<void, Failure> check_file(const string& path, const struct stat& file) {
  if (!S_ISREG(file.st_mode)) {
    return tl::unexpected(bad(path, "is no file; give a file of lines like nic=eth0"));
  }
  if (file.st_uid != 0 && file.st_uid != geteuid()) {
    return tl::unexpected(bad(path, "belongs to uid " + std::to_string(file.st_uid) +
                                        ", who could change it: chown root " + path));
  }
  if ((file.st_mode & S_IWOTH) != 0 || ((file.st_mode & S_IWGRP) != 0 && file.st_gid != 0)) {
    return tl::unexpected(bad(path, "others than its owner may write it: chmod go-w " + path));
  }
  if (static_cast<std::size_t>(file.st_size) > kMostBytes) {
    return tl::unexpected(bad(path, "is larger than 64 KiB; it is not a file for sarud"));
  }
  return {};
}

}  // namespace

tl::expected<ConfigValues, Failure> parse_config(const string& path, string_view content,
                                                 NameJudge judge) {
  ConfigValues values;
  unsigned number = 0;
  while (!content.empty()) {
    const std::size_t end = std::min(content.find('\n'), content.size());
    ++number;
    if (auto taken = take_line(content.substr(0, end), number, judge, values); !taken) {
      return tl::unexpected(bad(path + ":" + std::to_string(number), taken.error()));
    }
    content.remove_prefix(std::min(end + 1, content.size()));
  }
  return values;
}

tl::expected<ConfigValues, Failure> read_config(const string& path, NameJudge judge) {
  const auto cannot = [&path](const char* what) {
    return tl::unexpected(bad(path, string("cannot ") + what + ": " + std::strerror(errno)));
  };
  const File file(path);
  struct stat about;
  if (file.fd() < 0 || fstat(file.fd(), &about) != 0) return cannot("open the configuration file");
  if (auto good = check_file(path, about); !good) return tl::unexpected(good.error());
  string content(kMostBytes + 1, '\0');
  std::size_t length = 0;
  while (length < content.size()) {
    const ssize_t got = read(file.fd(), content.data() + length, content.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return cannot("read the configuration file");
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
  }
  if (length > kMostBytes) {
    return tl::unexpected(bad(path, "is larger than 64 KiB; it is not a file for sarud"));
  }
  return parse_config(path, string_view(content).substr(0, length), judge);
}

}  // namespace saru
