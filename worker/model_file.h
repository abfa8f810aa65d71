// Between the parameter servers and model.safetensors, a variable at a time: a model may be larger than a worker's
// memory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "basin/client.h"
#include "worker/train/program.h"

namespace basin {

// A client's outcome as an absl::Status.
inline absl::Status ToAbslStatus(const Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

// Pulls each variable and writes it; the file is there when all of it is, under its name.
absl::Status ExportModel(Client& client, const std::vector<std::pair<std::string, Variable>>& variables,
                         const std::string& path, const std::string& program);

// The same of a model in this process: `parameters` by variable.
absl::Status WriteModel(const std::vector<VariableDecl>& variables, const std::vector<std::vector<float>>& parameters,
                        const std::string& path, const std::string& program);

// Reads each variable of the file and assigns it. Every variable must be there with its shape; others are an error too.
absl::Status AssignFromFile(Client& client, const std::vector<std::pair<std::string, Variable>>& variables,
                            const std::string& path);

// The whole model, for a program's variables; the shapes must be the program's.
absl::StatusOr<std::vector<std::vector<float>>> ReadModel(const std::vector<VariableDecl>& variables,
                                                          const std::string& path);

}  // namespace basin
