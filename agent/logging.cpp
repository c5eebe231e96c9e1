// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent/logging.h"

#include <qb/qblog.h>
#include <syslog.h>

#include <ctime>

namespace saru {
namespace {

constexpr char kSource[] = "sarud";
std::string prefix;
Journal journal;
std::vector<std::int32_t> targets;

std::uint8_t priority_of(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return LOG_ERR;
    case LogLevel::kWarning:
      return LOG_WARNING;
    case LogLevel::kNotice:
      return LOG_NOTICE;
    case LogLevel::kInfo:
      return LOG_INFO;
    case LogLevel::kDebug:
      break;
  }
  return LOG_DEBUG;
}

// Our own at the chosen level; of the libraries only what has gone wrong.
void allow(std::int32_t target, LogLevel threshold) {
  qb_log_filter_ctl(target, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, kSource, priority_of(threshold));
  qb_log_filter_ctl(target, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*", LOG_WARNING);
}

void let_through(std::int32_t target, LogLevel threshold) {
  targets.push_back(target);
  allow(target, threshold);
  qb_log_ctl(target, QB_LOG_CONF_ENABLED, QB_TRUE);
}

}  // namespace

void open_log(std::uint16_t id, bool to_stderr, const std::string& file, LogLevel threshold) {
  prefix = "saru " + std::to_string(id) + ": ";
  qb_log_init("sarud", LOG_DAEMON, LOG_EMERG);
  qb_log_ctl(QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  qb_log_filter_ctl(QB_LOG_SYSLOG, QB_LOG_FILTER_CLEAR_ALL, QB_LOG_FILTER_FILE, "*", LOG_TRACE);
  qb_log_format_set(QB_LOG_SYSLOG, "%b");
  let_through(QB_LOG_SYSLOG, threshold);
  if (!file.empty()) {
    const std::int32_t target = qb_log_file_open(file.c_str());
    if (target >= 0) {
      qb_log_format_set(target, "%T [%P] %-7p %b");
      let_through(target, threshold);
    }
  }
  if (!to_stderr) return;
  qb_log_format_set(QB_LOG_STDERR, "%T [%p] %b");
  let_through(QB_LOG_STDERR, threshold);
}

void close_log() { qb_log_fini(); }

void set_log_level(LogLevel threshold) {
  for (const std::int32_t target : targets) {
    qb_log_filter_ctl(target, QB_LOG_FILTER_CLEAR_ALL, QB_LOG_FILTER_FILE, "*", LOG_TRACE);
    allow(target, threshold);
  }
}

nlohmann::json recent_log(std::size_t count) { return journal.last(count); }

void write_log(LogLevel level, const std::string& text) {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  journal.add(std::chrono::seconds(now.tv_sec) + Nanos(now.tv_nsec), level, text);
  qb_log_from_external_source("write_log", kSource, "%s", priority_of(level), __LINE__, 0,
                              (prefix + text).c_str());
}

}  // namespace saru
