// SPDX-License-Identifier: GPL-2.0-or-later
// sarud's end of saru-fencing, the program that listens to Pacemaker's fencer with rights of its
// own: Pacemaker's libraries do not run in the process that may change the kernel's rules.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "agent/exit_code.h"
#include "agent/fencing_news.h"
#include "cpg/loop.h"

namespace saru {

class FencingWatch {
 public:
  using Listener = std::function<void(const FencingNews&)>;

  // Starts the program, which drops its rights by itself and ends when this object does. To be
  // called before confine(): afterwards no program can be started. It is looked for beside sarud,
  // then where it is installed.
  static tl::expected<std::unique_ptr<FencingWatch>, Failure> start(qb_loop_t* loop,
                                                                    const std::string& partner,
                                                                    NodeId self, Listener listener);
  ~FencingWatch();
  FencingWatch(const FencingWatch&) = delete;
  FencingWatch& operator=(const FencingWatch&) = delete;

 private:
  FencingWatch(qb_loop_t* loop, int fd, Listener listener);
  void on_readable();

  int fd_;
  Listener listener_;
  std::string rest_;  // of a line that has not come whole
  LoopFd readable_;
};

}  // namespace saru
