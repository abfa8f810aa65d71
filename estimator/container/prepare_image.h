// Makes sure that this machine has a job's image, and with which engine. Blocks, for minutes where much is pulled.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/container/container.h"

namespace basin {

// Stands in the messages of FAILED_PRECONDITION between what was found and what to do about it; the last one counts.
constexpr char kNextStep[] = "\n  ";

// The first of the engines that is on PATH; an image that is there is taken as it is, another one is pulled, what the
// engine prints meanwhile going to `say`. `base`: where a file of apptainer's is kept (BASE/images/).
// FAILED_PRECONDITION where there is no engine, it does not work, or the image can be had neither here nor from its
// registry, with what to do.
// With `may_pull` false an image that is not there is NOT_FOUND.
absl::StatusOr<NodeImage> PrepareImage(const ContainerRequest& request, const std::string& base,
                                       const std::function<void(absl::string_view line)>& say, bool may_pull = true);

}  // namespace basin
