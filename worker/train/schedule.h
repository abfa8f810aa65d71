// Learning rates over a run.
#pragma once

#include <cmath>
#include <numbers>
#include <optional>

#include "absl/strings/string_view.h"

namespace basin {

enum class Schedule {
  kConstant,
  kLinear,  // to zero at the end
  kCosine,  // half a cosine, to zero at the end (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5 without restarts)
};

inline std::optional<Schedule> ScheduleFromName(absl::string_view name) {
  if (name == "constant") return Schedule::kConstant;
  if (name == "linear") return Schedule::kLinear;
  if (name == "cosine") return Schedule::kCosine;
  return std::nullopt;
}

// `progress` of the run in [0, 1].
inline float RateAt(Schedule schedule, float base, double progress) {
  switch (schedule) {
    case Schedule::kLinear:
      return static_cast<float>(base * (1 - progress));
    case Schedule::kCosine:
      return static_cast<float>(base * 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    case Schedule::kConstant:
      break;
  }
  return base;
}

}  // namespace basin
