#include "estimator/launch/targets_file.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/slurm_options.h"
#include "estimator/launch/target_containers.h"

namespace basin {
namespace {

constexpr int kMostSeconds = 7 * 24 * 3600;
constexpr int kMostPort = 65535;

bool IsNameOfTarget(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

// Nothing that ssh could take for an option or a shell for more than a word.
bool IsHostWord(absl::string_view word) {
  return !word.empty() && word[0] != '-' && std::all_of(word.begin(), word.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::string_view("-_.:%").find(c) != absl::string_view::npos;
  });
}

absl::Status ReadNode(const YAML::Node& node, const std::string& file, TargetNode* out) {
  if (node.IsScalar()) {
    absl::StatusOr<TargetNode> parsed = ParseHost(node.Scalar());
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(MarkText(file, node.Mark()), parsed.status().message()));
    }
    *out = *std::move(parsed);
    return absl::OkStatus();
  }
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields,
                         YamlFields::From(node, file, "nodes", {"name", "address", "user", "port"}));
  BASIN_RETURN_IF_ERROR(fields.Read("name", &out->name));
  if (!IsHostWord(out->name)) {
    return fields.ErrorAt("name", absl::StrCat("\"", out->name, "\" is no host as ssh takes it; write name: h0"));
  }
  out->address = out->name;
  BASIN_RETURN_IF_ERROR(fields.Read("address", &out->address));
  BASIN_RETURN_IF_ERROR(fields.Read("user", &out->user));
  BASIN_RETURN_IF_ERROR(fields.Read("port", &out->ssh_port, 1, kMostPort));
  if (!IsHostWord(out->address)) return fields.ErrorAt("address", "expected a host name or an address");
  if (!out->user.empty() && !IsHostWord(out->user)) return fields.ErrorAt("user", "expected a user's name");
  return absl::OkStatus();
}

absl::Status ReadSeconds(const YamlFields& fields, const char* name, int least, absl::Duration* out) {
  int seconds = static_cast<int>(absl::ToInt64Seconds(*out));
  BASIN_RETURN_IF_ERROR(fields.Read(name, &seconds, least, kMostSeconds));
  *out = absl::Seconds(seconds);
  return absl::OkStatus();
}

// A path of this machine, from the file's folder.
void BesideFile(const std::string& file, std::string* path) {
  if (path->empty()) return;
  const std::filesystem::path given = *path;
  if (given.is_relative()) *path = (std::filesystem::path(file).parent_path() / given).lexically_normal().string();
}

absl::Status ReadKubernetesTarget(const YamlFields& fields, const std::string& file, Target* target) {
  target->kind = TargetKind::kKubernetes;
  for (const char* name : {"nodes", "folder", "programs", "bundle", "ssh_config", "shared_folders", "container_engine",
                           "container_engine_options", "container_options"}) {
    if (!fields.Has(name)) continue;
    return fields.ErrorAt(name,
                          "is not of kind: kubernetes; what a cluster is told stands in its group kubernetes: {...}");
  }
  if (!fields.Has("kubernetes")) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(
      ReadKubernetesSettings(fields.Value("kubernetes"), file, fields.PathOf("kubernetes"), &target->kubernetes));
  BesideFile(file, &target->kubernetes.kubeconfig);
  if (target->kubernetes.kubectl.find('/') != std::string::npos) BesideFile(file, &target->kubernetes.kubectl);
  return absl::OkStatus();
}

absl::Status ReadSshTarget(const YamlFields& fields, const std::string& file, Target* target) {
  target->kind = TargetKind::kSsh;
  if (!fields.Has("nodes") || !fields.Value("nodes").IsSequence() || fields.Value("nodes").size() == 0) {
    const std::string needed = absl::StrCat("target ", target->name, " needs its machines: nodes: [h0, h1]");
    if (!fields.IsNamed("nodes")) return fields.ErrorAt("kind", needed);
    const YAML::Node found = fields.Value("nodes");
    return fields.ErrorAt("nodes", absl::StrCat(needed, "; found ", found.IsSequence() ? "none" : Describe(found)));
  }
  std::set<std::string> seen;
  for (const YAML::Node& one : fields.Value("nodes")) {
    TargetNode host;
    BASIN_RETURN_IF_ERROR(ReadNode(one, file, &host));
    if (!seen.insert(absl::StrCat(host.name, ":", host.ssh_port)).second) {
      return fields.ErrorAt("nodes", absl::StrCat(host.name, " is listed twice; two agents would share one folder"));
    }
    target->nodes.push_back(std::move(host));
  }
  BASIN_RETURN_IF_ERROR(fields.Read("bundle", &target->bundle));
  BASIN_RETURN_IF_ERROR(fields.Read("ssh_config", &target->ssh_config));
  BesideFile(file, &target->bundle);
  BesideFile(file, &target->ssh_config);
  return absl::OkStatus();
}

absl::Status ReadSlurmTarget(const YamlFields& fields, const std::string& file, Target* target) {
  target->kind = TargetKind::kSlurm;
  for (const auto& [name, why] :
       {std::pair("nodes", "Slurm chooses the machines"), std::pair("ssh_config", "Slurm starts everything, not ssh"),
        std::pair("bundle",
                  "Basin's programs are not sent under Slurm; name their folder on "
                  "a shared file system by programs")}) {
    if (fields.Has(name)) return fields.ErrorAt(name, absl::StrCat("is not of kind: slurm; remove it: ", why));
  }
  return ReadSlurmOptions(fields, file, &target->slurm.options);
}

// This machine, with settings of its own.
absl::Status ReadLocalTarget(const YamlFields& fields, Target* target) {
  target->nodes = {{"localhost", "127.0.0.1", "", 0}};
  BASIN_RETURN_IF_ERROR(fields.Read("folder", &target->folder));
  for (const char* name : {"nodes", "slurm", "programs", "bundle", "ssh_config", "shared_folders", "lease_seconds",
                           "detach_grace_seconds", "ping_seconds"}) {
    if (fields.Has(name)) return fields.ErrorAt(name, "a target of kind local is this machine alone; remove it");
  }
  return ReadContainerSettings(fields, &target->containers);
}

// Others have a kind of target for what is here a job's.
absl::Status UnknownKind(const YamlFields& fields, const std::string& kind) {
  std::string next;
  if (kind == "mpi") next = "set distributed_backend: mpi in the job; ";
  if (kind == "docker" || kind == "podman" || kind == "apptainer") {
    next = absl::StrCat("set custom_docker_image in the job, and container_engine: ", kind, " in the target; ");
  }
  return fields.ErrorAt("kind", absl::StrCat(next.empty() ? "unknown kind \"" : "is where the machines are, not \"",
                                             kind, "\"; ", next, "write kind: ssh, slurm, kubernetes or local"));
}

absl::StatusOr<Target> ReadTarget(const std::string& name, const YAML::Node& node, const std::string& file) {
  Target target;
  target.name = name;
  target.source = file;
  BASIN_ASSIGN_OR_RETURN(
      const YamlFields fields,
      YamlFields::From(node, file, name,
                       {"kind", "nodes", "slurm", "folder", "programs", "bundle", "ssh_config", "shared_folders",
                        "lease_seconds", "detach_grace_seconds", "ping_seconds", "container_engine",
                        "container_engine_options", "container_options", "kubernetes"}));
  std::string kind = "ssh";
  BASIN_RETURN_IF_ERROR(fields.Read("kind", &kind));
  if (fields.Has("kubernetes") && kind != "kubernetes") {
    return fields.ErrorAt("kubernetes", "is of targets of kind: kubernetes; set that, or remove this");
  }
  if (fields.Has("slurm") && kind != "slurm") {
    return fields.ErrorAt("slurm", "is of targets of kind: slurm; set that, or remove this");
  }
  if (kind == "local") {
    BASIN_RETURN_IF_ERROR(ReadLocalTarget(fields, &target));
    return target;
  }
  if (kind == "ssh") {
    BASIN_RETURN_IF_ERROR(ReadSshTarget(fields, file, &target));
  } else if (kind == "slurm") {
    BASIN_RETURN_IF_ERROR(ReadSlurmTarget(fields, file, &target));
  } else if (kind == "kubernetes") {
    BASIN_RETURN_IF_ERROR(ReadKubernetesTarget(fields, file, &target));
  } else {
    return UnknownKind(fields, kind);
  }
  BASIN_RETURN_IF_ERROR(fields.Read("folder", &target.folder));
  BASIN_RETURN_IF_ERROR(fields.Read("programs", &target.programs));
  if (!target.programs.empty() && target.programs[0] != '/' && !absl::StartsWith(target.programs, "~/")) {
    return fields.ErrorAt(
        "programs",
        absl::StrCat("expected the folder of basin on the machines, /opt/basin/bin or ~/basin/bin, found \"",
                     target.programs, "\"; write its whole path"));
  }
  if (fields.Has("shared_folders")) {
    const YAML::Node folders = fields.Value("shared_folders");
    if (!folders.IsSequence()) return fields.ErrorAt("shared_folders", "expected a list of folders: [/data]");
    for (const YAML::Node& folder : folders) {
      if (!folder.IsScalar() || folder.Scalar().empty() || folder.Scalar()[0] != '/') {
        return fields.ErrorAt("shared_folders", absl::StrCat("expected absolute paths, found ", Describe(folder)));
      }
      target.shared_folders.push_back(folder.Scalar());
    }
  }
  BASIN_RETURN_IF_ERROR(ReadContainerSettings(fields, &target.containers));
  BASIN_RETURN_IF_ERROR(ReadSeconds(fields, "lease_seconds", 2, &target.lease));
  BASIN_RETURN_IF_ERROR(ReadSeconds(fields, "detach_grace_seconds", 0, &target.detach_grace));
  BASIN_RETURN_IF_ERROR(ReadSeconds(fields, "ping_seconds", 1, &target.ping));
  if (target.ping * 2 > target.lease) {
    return fields.ErrorAt(
        fields.Has("ping_seconds") ? "ping_seconds" : "lease_seconds",
        absl::StrCat("the lease must hold at least two pings: lease_seconds is ", absl::ToInt64Seconds(target.lease),
                     ", ping_seconds ", absl::ToInt64Seconds(target.ping), "; set lease_seconds to ",
                     absl::ToInt64Seconds(target.ping * 2), " or more, or lower ping_seconds"));
  }
  return target;
}

}  // namespace

const char* TargetKindName(TargetKind kind) {
  switch (kind) {
    case TargetKind::kLocal:
      return "local";
    case TargetKind::kSsh:
      return "ssh";
    case TargetKind::kSlurm:
      return "slurm";
    case TargetKind::kKubernetes:
      return "kubernetes";
  }
  return "unknown";
}

absl::StatusOr<TargetNode> ParseHost(absl::string_view text) {
  const absl::Status wrong =
      absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no host; write HOST, USER@HOST or USER@HOST:PORT"));
  TargetNode node;
  absl::string_view rest = absl::StripAsciiWhitespace(text);
  if (const size_t at = rest.rfind('@'); at != absl::string_view::npos) {
    node.user = std::string(rest.substr(0, at));
    rest.remove_prefix(at + 1);
    if (!IsHostWord(node.user)) return wrong;
  }
  absl::string_view port;
  if (!rest.empty() && rest[0] == '[') {
    const size_t end = rest.find(']');
    if (end == absl::string_view::npos) return wrong;
    port = rest.substr(end + 1);
    rest = rest.substr(1, end - 1);
    if (!port.empty() && port[0] != ':') return wrong;
    if (!port.empty()) port.remove_prefix(1);
  } else if (std::count(rest.begin(), rest.end(), ':') == 1) {
    port = rest.substr(rest.find(':') + 1);
    rest = rest.substr(0, rest.find(':'));
    if (port.empty()) return wrong;
  }
  if (!port.empty() && (!absl::SimpleAtoi(port, &node.ssh_port) || node.ssh_port < 1 || node.ssh_port > kMostPort)) {
    return wrong;
  }
  if (!IsHostWord(rest)) return wrong;
  node.name = node.address = std::string(rest);
  return node;
}

absl::StatusOr<Target> TargetOfHosts(absl::string_view hosts) {
  Target target;
  target.kind = TargetKind::kSsh;
  std::vector<std::string> names;
  for (const absl::string_view word : absl::StrSplit(hosts, ',')) {
    absl::StatusOr<TargetNode> node = ParseHost(word);
    if (!node.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--hosts ", hosts, ": ", node.status().message()));
    }
    for (const TargetNode& other : target.nodes) {
      if (other.name == node->name && other.ssh_port == node->ssh_port) {
        return absl::InvalidArgumentError(absl::StrCat("--hosts: ", node->name, " is listed twice"));
      }
    }
    names.push_back(node->name);
    target.nodes.push_back(*std::move(node));
  }
  target.name = absl::StrJoin(names, ",");
  return target;
}

absl::StatusOr<std::vector<Target>> ParseTargets(absl::string_view text, const std::string& file) {
  std::vector<Target> targets;
  YAML::Node root;
  try {
    root = YAML::Load(std::string(text.data(), text.size()));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(MarkText(file, error.mark), error.msg));
  }
  if (root.IsNull()) return targets;
  std::vector<std::string> names;
  if (root.IsMap()) {
    for (const auto& item : root) {
      if (item.first.IsScalar()) names.push_back(item.first.Scalar());
    }
  }
  BASIN_ASSIGN_OR_RETURN(const YamlFields fields, YamlFields::From(root, file, "", names));
  for (const std::string& name : names) {
    if (name == "local") return fields.ErrorAt(name, "the target local is this machine, and is not defined in files");
    if (!IsNameOfTarget(name)) return fields.ErrorAt(name, "a target's name has letters, digits, '-', '_' and '.'");
    BASIN_ASSIGN_OR_RETURN(Target target, ReadTarget(name, fields.Value(name), file));
    targets.push_back(std::move(target));
  }
  return targets;
}

std::string TargetToJson(const Target& target) {
  nlohmann::ordered_json nodes = nlohmann::ordered_json::array();
  for (const TargetNode& node : target.nodes) {
    nlohmann::ordered_json one = {{"name", node.name}, {"address", node.address}};
    if (!node.user.empty()) one["user"] = node.user;
    if (node.ssh_port != 0) one["port"] = node.ssh_port;
    nodes.push_back(one);
  }
  nlohmann::ordered_json json = {{"name", target.name}, {"kind", TargetKindName(target.kind)}, {"nodes", nodes}};
  const std::pair<const char*, const std::string&> texts[] = {{"source", target.source},
                                                              {"folder", target.folder},
                                                              {"programs", target.programs},
                                                              {"bundle", target.bundle},
                                                              {"ssh_config", target.ssh_config}};
  for (const auto& [name, value] : texts) {
    if (!value.empty()) json[name] = value;
  }
  if (const std::string slurm = SlurmOptionsToJson(target.slurm.options); !slurm.empty()) {
    json["slurm"] = nlohmann::ordered_json::parse(slurm);
  }
  if (!target.slurm.job_id.empty()) json["slurm_job"] = target.slurm.job_id;
  if (!target.slurm.cpus.empty()) json["slurm_cpus"] = target.slurm.cpus;
  if (!target.shared_folders.empty()) json["shared_folders"] = target.shared_folders;
  if (target.kind == TargetKind::kKubernetes) {
    json["kubernetes"] = nlohmann::ordered_json::parse(KubernetesSettingsToJson(target.kubernetes));
  }
  AddContainerSettings(target.containers, &json);
  json["lease_seconds"] = absl::ToInt64Seconds(target.lease);
  json["detach_grace_seconds"] = absl::ToInt64Seconds(target.detach_grace);
  json["ping_seconds"] = absl::ToInt64Seconds(target.ping);
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<Target> ParseTargetJson(absl::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  const bool has_nodes = json.is_object() && json.contains("nodes") && json["nodes"].is_array();
  // Of a job that still waits in Slurm's queue there are none yet, of Kubernetes never.
  const std::string recorded_kind = json.is_object() ? json.value("kind", "") : "";
  const bool needs_nodes =
      recorded_kind != TargetKindName(TargetKind::kSlurm) && recorded_kind != TargetKindName(TargetKind::kKubernetes);
  if (!has_nodes || (json["nodes"].empty() && needs_nodes)) {
    return absl::InvalidArgumentError("no target is recorded there");
  }
  const auto text_of = [](const nlohmann::json& object, const char* name) {
    return object.contains(name) && object[name].is_string() ? object[name].get<std::string>() : std::string();
  };
  const auto seconds_of = [&json](const char* name, absl::Duration otherwise) {
    return json.contains(name) && json[name].is_number_integer() ? absl::Seconds(json[name].get<int64_t>()) : otherwise;
  };
  Target target;
  target.name = text_of(json, "name");
  for (const TargetKind kind : {TargetKind::kSsh, TargetKind::kSlurm, TargetKind::kKubernetes}) {
    if (text_of(json, "kind") == TargetKindName(kind)) target.kind = kind;
  }
  if (json.contains("kubernetes")) {
    BASIN_RETURN_IF_ERROR(
        ReadKubernetesSettings(YAML::Load(json["kubernetes"].dump()), "target", "kubernetes", &target.kubernetes));
  }
  if (json.contains("slurm")) {
    // The reader of the files knows the group.
    BASIN_ASSIGN_OR_RETURN(
        const YamlFields fields,
        YamlFields::From(YAML::Load(nlohmann::json({{"slurm", json["slurm"]}}).dump()), "target", "", {"slurm"}));
    BASIN_RETURN_IF_ERROR(ReadSlurmOptions(fields, "target", &target.slurm.options));
  }
  target.slurm.job_id = text_of(json, "slurm_job");
  if (json.contains("slurm_cpus") && json["slurm_cpus"].is_array()) {
    for (const nlohmann::json& cpus : json["slurm_cpus"]) {
      if (cpus.is_number_integer()) target.slurm.cpus.push_back(cpus.get<int>());
    }
  }
  for (const nlohmann::json& node : json["nodes"]) {
    TargetNode one{text_of(node, "name"), text_of(node, "address"), text_of(node, "user"), 0};
    if (node.contains("port") && node["port"].is_number_integer()) one.ssh_port = node["port"].get<int>();
    if (!IsHostWord(one.name)) return absl::InvalidArgumentError("a node of the recorded target has no name");
    target.nodes.push_back(std::move(one));
  }
  if (json.contains("shared_folders") && json["shared_folders"].is_array()) {
    for (const nlohmann::json& folder : json["shared_folders"]) {
      if (folder.is_string()) target.shared_folders.push_back(folder.get<std::string>());
    }
  }
  ReadContainerSettings(json, &target.containers);
  target.source = text_of(json, "source");
  target.folder = text_of(json, "folder");
  target.programs = text_of(json, "programs");
  target.bundle = text_of(json, "bundle");
  target.ssh_config = text_of(json, "ssh_config");
  target.lease = seconds_of("lease_seconds", target.lease);
  target.detach_grace = seconds_of("detach_grace_seconds", target.detach_grace);
  target.ping = seconds_of("ping_seconds", target.ping);
  return target;
}

}  // namespace basin
