#include "estimator/launch/doctor_talk.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace basin {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorHello, version, host_name, machine, libc, gpus, gpu_problem,
                                                shm_bytes, open_files)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorPath, name, path)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorLookRequest, resolve, ports, first_port, last_port, bind_address,
                                                nonce, inputs, pip, conda, mpi, container)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorResolved, name, ips, problem)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorLook, resolved, ports, ports_problem, ports_note, input_problems,
                                                python_problem, conda_problem, mpi_problem, mpi_version,
                                                container_problem, container_found)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorPeer, node, address, ports, nonce)
NLOHMANN_JSON_SERIALIZE_ENUM(DoctorReach, {{DoctorReach::kUnreachable, "unreachable"},
                                           {DoctorReach::kAnswered, "answered"},
                                           {DoctorReach::kTimedOut, "timed_out"},
                                           {DoctorReach::kRefused, "refused"},
                                           {DoctorReach::kStranger, "stranger"}})
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorReached, node, port, address, how, problem)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorFolders, what, nonce, folders)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DoctorFolder, path, problem, is_there)

namespace {

using Json = nlohmann::json;

template <typename T>
void Put(const char* name, const std::optional<T>& value, Json* json) {
  if (value) (*json)[name] = *value;
}

template <typename T>
void Take(const char* name, const Json& json, std::optional<T>* value) {
  if (json.contains(name)) *value = json[name].get<T>();
}

}  // namespace

std::string DoctorMessageToLine(const DoctorMessage& message) {
  Json json = Json::object();
  Put("hello", message.hello, &json);
  Put("look_request", message.look_request, &json);
  Put("look", message.look, &json);
  Put("reach", message.reach, &json);
  Put("reached", message.reached, &json);
  Put("folders_request", message.folders_request, &json);
  Put("folders", message.folders, &json);
  // Names of files and hosts may be no UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<DoctorMessage> ParseDoctorLine(absl::string_view line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("no JSON object");
  DoctorMessage message;
  try {
    Take("hello", json, &message.hello);
    Take("look_request", json, &message.look_request);
    Take("look", json, &message.look);
    Take("reach", json, &message.reach);
    Take("reached", json, &message.reached);
    Take("folders_request", json, &message.folders_request);
    Take("folders", json, &message.folders);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
  const int there = message.hello.has_value() + message.look_request.has_value() + message.look.has_value() +
                    message.reach.has_value() + message.reached.has_value() + message.folders_request.has_value() +
                    message.folders.has_value();
  if (there != 1) return absl::InvalidArgumentError(absl::StrCat(there, " messages in one line"));
  return message;
}

}  // namespace basin
