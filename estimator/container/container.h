// Containers as values: what a job and its target ask for, and what a node has made of it. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

enum class ContainerEngine { kPodman, kDocker, kApptainer };
// "podman", "docker", "apptainer": also the program's name.
const char* Name(ContainerEngine engine);
std::optional<ContainerEngine> ContainerEngineOf(absl::string_view name);

// Of a target: how containers are run on its nodes.
struct ContainerSettings {
  // The first of these that a node has on its PATH.
  std::vector<ContainerEngine> engines = {ContainerEngine::kPodman, ContainerEngine::kDocker,
                                          ContainerEngine::kApptainer};
  std::vector<std::string> engine_options;  // the engine's own flags, before its command: --storage-driver vfs
  std::vector<std::string> options;         // of the command that runs a container, after Basin's: --cgroups=no-conmon
  bool operator==(const ContainerSettings&) const = default;
};

// What a node is to prepare.
struct ContainerRequest {
  ContainerSettings settings;
  std::string image;  // as the job names it
  int64_t shm_bytes = 0;
  bool gpus = false;
  std::vector<std::string> paths;  // of the node, to be seen in the container: inputs and the like, perhaps patterns
  bool operator==(const ContainerRequest&) const = default;
};

// Canonical JSON, and back (INVALID_ARGUMENT).
std::string ContainerRequestToText(const ContainerRequest& request);
absl::StatusOr<ContainerRequest> ParseContainerRequest(absl::string_view text);

// The image as a node has it.
struct NodeImage {
  ContainerEngine engine = ContainerEngine::kPodman;
  std::string program;   // the engine's, by its path
  std::string image;     // what the engine is told to run: an id that no tag can move, or a file
  std::string identity;  // hexadecimal, at least 12 digits: another one for other contents
  std::string version;   // "podman version 4.3.1"
  // Within the container the user is root, and outside the user: an engine that belongs to the user alone.
  bool is_rootless = false;
  bool operator==(const NodeImage&) const = default;
};
// As a JSON object, and back.
std::string NodeImageToJson(const NodeImage& image);
absl::StatusOr<NodeImage> ParseNodeImage(absl::string_view text);

// The name in full, as docker reads it: "miniconda" is docker.io/library/miniconda, "a/b" docker.io/a/b; "localhost/a",
// "registry:5000/a" and "quay.io/a/b" stand. Engines differ in what they make of a short one.
std::string FullImageName(const std::string& image);

// Whether the job names a file or folder of the node (apptainer's), not an image of a registry.
bool IsImageFile(const std::string& image);

}  // namespace basin
