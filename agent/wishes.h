// SPDX-License-Identifier: GPL-2.0-or-later
// What the administrator asked of this node with saructl (drain, weight). Kept in a file until the
// machine boots, so that a sarud that is restarted does not take blocks that it was told to leave.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "agent/exit_code.h"

namespace saru {

struct Wishes {
  struct Weight {
    std::uint16_t value = 1;
    std::uint16_t instead_of = 1;  // the parameter's; once that is changed, it counts again
    bool operator==(const Weight&) const = default;
  };
  bool drained = false;
  std::optional<Weight> weight;
  bool operator==(const Wishes&) const = default;

  // The weight that counts where the parameter says `parameter`.
  std::uint16_t weight_for(std::uint16_t parameter) const;
};

[[nodiscard]] std::string to_text(const Wishes& wishes);
// nullopt when the text is nobody's wishes.
[[nodiscard]] std::optional<Wishes> wishes_from(const std::string& text);

// No file is no wish. A file that cannot be understood is a failure: better asked for again than
// forgotten.
[[nodiscard]] tl::expected<Wishes, Failure> load_wishes(const std::string& path);
// All or nothing: a full disk leaves the old file.
[[nodiscard]] tl::expected<void, Failure> save_wishes(const std::string& path,
                                                      const Wishes& wishes);

}  // namespace saru
