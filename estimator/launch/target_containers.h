// The fields of a target that say how containers are run on its nodes: container_engine, container_engine_options,
// container_options. For the parsers of targets alone.
#pragma once

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "common/format/yaml_fields.h"
#include "estimator/container/container.h"

namespace basin {

absl::Status ReadContainerSettings(const YamlFields& fields, ContainerSettings* out);

// What differs from the defaults, as members of the target's JSON; and back, leaving alone what is not there.
void AddContainerSettings(const ContainerSettings& settings, nlohmann::ordered_json* out);
void ReadContainerSettings(const nlohmann::json& target, ContainerSettings* out);

}  // namespace basin
