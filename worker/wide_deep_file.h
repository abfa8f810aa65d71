// Wide & deep models as model.safetensors: each variable by its name; "numeric/mean" and "numeric/deviation", by which
// numbers are standardised; and of each table "NAME/keys" ([n] i64, the bits of the keys) and "NAME/rows" ([n, dim]
// f32), for the keys that stand in the training part. A key that is not in the file has its initial value, which the
// metadata's "seed" gives.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/feature_data.h"
#include "worker/train/local_wide_deep.h"
#include "worker/train/wide_deep.h"
#include "worker/train/wide_deep_parameters.h"

namespace basin {

// Pulls all that the file holds, a number of rows at a time. The file is there when all of it is, under its name.
absl::Status WriteWideDeep(const WideDeep& model, WideDeepParameters& parameters, const FeatureData& data,
                           const std::string& path);

struct LoadedWideDeep {
  WideDeep model;
  std::unique_ptr<LocalWideDeepParameters> parameters;
  NumericScale scale;
};
// INVALID_ARGUMENT where the file is not of a model of this schema and these options (but for the seed, which is the
// file's).
absl::StatusOr<LoadedWideDeep> ReadWideDeep(const FeatureSchema& schema, WideDeepOptions options,
                                            const std::string& path);

}  // namespace basin
