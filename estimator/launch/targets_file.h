// The targets file: names of groups of machines. Parsing is pure.
//
//   lab:                                  the name that compute_target and --target take
//     kind: ssh
//     nodes: [h0, ann@h1:2022, {name: h2, address: 10.0.0.7, user: ann, port: 2022}]
//     folder: /scratch/ann/basin          all from here on may be left out
//     programs: /opt/basin/bin
//     bundle: basin-0.4.0-linux-x86_64.tar.zst
//     ssh_config: ssh.conf
//     shared_folders: [/data]
//     lease_seconds: 30
//     detach_grace_seconds: 600
//     ping_seconds: 5
//     container_engine: [podman, docker]
//     container_engine_options: [--storage-driver, vfs]
//     container_options: [--cgroups=no-conmon]
//   here: {kind: local, container_engine: docker}
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/launch/target.h"

namespace basin {

// "h0", "ann@h0", "ann@h0:2022", "[fe80::1]:2022". INVALID_ARGUMENT where it is none, naming `text`.
absl::StatusOr<TargetNode> ParseHost(absl::string_view text);
// The target of `--hosts h0,h1`, named after its hosts.
absl::StatusOr<Target> TargetOfHosts(absl::string_view hosts);

// `file`: for messages, and for paths of this machine (bundle, ssh_config), which are taken from its folder.
// INVALID_ARGUMENT with line and column for what is wrong, with the nearest known name for an unknown field.
absl::StatusOr<std::vector<Target>> ParseTargets(absl::string_view text, const std::string& file);

// As a journal keeps it, and back.
std::string TargetToJson(const Target& target);
absl::StatusOr<Target> ParseTargetJson(absl::string_view json);

}  // namespace basin
