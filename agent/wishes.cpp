// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/wishes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "agent/json_line.h"
#include "agent/lock.h"

namespace saru {
namespace {

using nlohmann::json;
using std::string;

tl::unexpected<Failure> file_failure(const string& doing, const string& path) {
  return tl::unexpected(
      Failure{ExitCode::kFailed, "cannot " + doing + " " + path + ": " + std::strerror(errno)});
}

std::optional<std::uint16_t> weight_of(const json& value) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > 0xffff) return std::nullopt;
  return value.get<std::uint16_t>();
}

bool write_all(int fd, const string& text) {
  return write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
}

}  // namespace

std::uint16_t Wishes::weight_for(std::uint16_t parameter) const {
  return weight && weight->instead_of == parameter ? weight->value : parameter;
}

string to_text(const Wishes& wishes) {
  json text = {{"drained", wishes.drained}};
  if (wishes.weight) {
    text["weight"] = wishes.weight->value;
    text["weight_instead_of"] = wishes.weight->instead_of;
  }
  return text.dump() + "\n";
}

std::optional<Wishes> wishes_from(const string& text) {
  const auto found = read_object(text);
  if (!found || !found->value("drained", json()).is_boolean()) return std::nullopt;
  const json& read = *found;
  Wishes wishes;
  wishes.drained = read["drained"].get<bool>();
  if (!read.contains("weight")) return wishes;
  const auto value = weight_of(read["weight"]);
  const auto instead_of = weight_of(read.value("weight_instead_of", json()));
  if (!value || !instead_of) return std::nullopt;
  wishes.weight = {*value, *instead_of};
  return wishes;
}

tl::expected<Wishes, Failure> load_wishes(const string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return Wishes{};
  if (fd < 0) return file_failure("read", path);
  char text[512] = {};
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got < 0) return file_failure("read", path);
  if (const auto wishes = wishes_from(text)) return *wishes;
  return tl::unexpected(Failure{
      ExitCode::kFailed, path + " does not say what saructl drain and saructl weight asked for; "
                                "remove it, and ask for it again once sarud runs"});
}

tl::expected<void, Failure> save_wishes(const string& path, const Wishes& wishes) {
  const string fresh = path + ".new";
  const int fd = create_anew(fresh);
  if (fd < 0) return file_failure("create", fresh);
  const bool written = write_all(fd, to_text(wishes));
  const int error = errno;
  close(fd);
  errno = error;
  if (written && rename(fresh.c_str(), path.c_str()) == 0) return {};
  auto failure = file_failure("write", path);
  unlink(fresh.c_str());
  return failure;
}

}  // namespace saru
