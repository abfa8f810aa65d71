#include "common/rules/initializer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/rules/initial_value.h"

namespace basin {
namespace {

// Box, Muller, "A note on the generation of random normal deviates", Annals of Mathematical Statistics 29 (1958). Each
// element has two counters of its own; the second of the pair of deviates is not used, which keeps element i free of
// its neighbours. 1 - unit is in (0, 1], so that the logarithm is finite.
double StandardNormalAt(uint64_t seed, uint64_t i) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - UnitAt(seed, 2 * i)));
  return radius * std::cos(2.0 * 3.14159265358979323846 * UnitAt(seed, 2 * i + 1));
}

void FillUniform(double low, double high, uint64_t seed, uint64_t begin, absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<float>(low + (high - low) * UnitAt(seed, begin + i));
  }
}

void FillNormal(double mean, double deviation, uint64_t seed, uint64_t begin, absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<float>(mean + deviation * StandardNormalAt(seed, begin + i));
  }
}

absl::Status Wrong(absl::string_view initializer, absl::string_view field, float found, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("initializer ", initializer, ": ", field, " is ", found, ", expected ",
                                                 expected, "; correct the variable's initializer"));
}

}  // namespace

Fans FansOf(absl::Span<const int64_t> shape) {
  Fans fans;
  if (shape.size() == 1) {
    fans.in = fans.out = static_cast<double>(shape[0]);
  } else if (shape.size() >= 2) {
    double receptive_field = 1;
    for (const int64_t dimension : shape.first(shape.size() - 2)) receptive_field *= static_cast<double>(dimension);
    fans.in = receptive_field * static_cast<double>(shape[shape.size() - 2]);
    fans.out = receptive_field * static_cast<double>(shape[shape.size() - 1]);
  }
  return {std::max(1.0, fans.in), std::max(1.0, fans.out)};
}

absl::Status Validate(const InitSpec& spec) {
  switch (spec.kind) {
    case InitKind::kZeros:
    case InitKind::kGlorotUniform:
    case InitKind::kHeNormal:
    case InitKind::kAssigned:
      return absl::OkStatus();
    case InitKind::kConstant:
      if (!std::isfinite(spec.a)) return Wrong("constant", "value", spec.a, "a finite number");
      return absl::OkStatus();
    case InitKind::kUniform:
      if (!std::isfinite(spec.a)) return Wrong("uniform", "low", spec.a, "a finite number");
      if (!std::isfinite(spec.b)) return Wrong("uniform", "high", spec.b, "a finite number");
      if (spec.b < spec.a) return Wrong("uniform", "high", spec.b, absl::StrCat("at least low, which is ", spec.a));
      return absl::OkStatus();
    case InitKind::kNormal:
      if (!std::isfinite(spec.a)) return Wrong("normal", "mean", spec.a, "a finite number");
      if (!(std::isfinite(spec.b) && spec.b >= 0)) {
        return Wrong("normal", "standard deviation", spec.b, "a finite number of at least 0");
      }
      return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("initializer: kind is ", static_cast<int>(spec.kind),
                   ", expected 1 to 7 (InitKind in control.proto); a newer client may know "
                   "initializers that this build does not"));
}

void Fill(const InitSpec& spec, Fans fans, uint64_t begin, absl::Span<float> out) {
  switch (spec.kind) {
    case InitKind::kZeros:
    case InitKind::kAssigned:
      std::fill(out.begin(), out.end(), 0.0f);
      return;
    case InitKind::kConstant:
      std::fill(out.begin(), out.end(), spec.a);
      return;
    case InitKind::kUniform:
      return FillUniform(spec.a, spec.b, spec.seed, begin, out);
    case InitKind::kNormal:
      return FillNormal(spec.a, spec.b, spec.seed, begin, out);
    case InitKind::kGlorotUniform: {
      const double limit = std::sqrt(6.0 / (fans.in + fans.out));
      return FillUniform(-limit, limit, spec.seed, begin, out);
    }
    case InitKind::kHeNormal:
      return FillNormal(0, std::sqrt(2.0 / fans.in), spec.seed, begin, out);
  }
  BASIN_CHECK(false && "the caller validated the initializer");
}

void FillRow(const InitSpec& spec, uint64_t key, absl::Span<float> out) {
  switch (spec.kind) {
    case InitKind::kZeros:
    case InitKind::kConstant:
      return Fill(spec, Fans(), 0, out);
    case InitKind::kUniform:
    case InitKind::kNormal: {
      const InitialRow row = InitialRowOf(spec, key);
      for (size_t i = 0; i < out.size(); i += 2) {
        const InitialPair pair = InitialValuesAt(row, static_cast<uint32_t>(i / 2));
        out[i] = pair.first;
        if (i + 1 < out.size()) out[i + 1] = pair.second;
      }
      return;
    }
    case InitKind::kGlorotUniform:
    case InitKind::kHeNormal:
    case InitKind::kAssigned:
      break;
  }
  BASIN_CHECK(false && "rows have no fans, and nobody assigns them");
}

}  // namespace basin
