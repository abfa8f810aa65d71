#include <gnu/libc-version.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/run_flags.h"
#include "estimator/commands/runs_place.h"
#include "estimator/commands/start_run.h"
#include "estimator/environment/environment_spec.h"
#include "estimator/job/job.h"
#include "estimator/job/job_checks.h"
#include "estimator/kubernetes/manifests.h"
#include "estimator/kubernetes/pod_doctor.h"
#include "estimator/launch/bundle.h"
#include "estimator/launch/doctor.h"
#include "estimator/launch/doctor_node.h"
#include "estimator/launch/doctor_visit.h"
#include "estimator/launch/slurm_doctor.h"
#include "estimator/launch/ssh_launcher.h"
#include "estimator/run/send_programs.h"

namespace basin {
namespace {

struct DoctorFlags {
  std::string job;
  TargetFlags target;
  bool send = false;
  bool json = false;
};

int Report(const std::vector<DoctorFinding>& findings, bool as_json) {
  std::fputs((as_json ? FindingsToJson(findings) : FindingsToText(findings)).c_str(), stdout);
  return HasProblem(findings) ? kExitFailed : kExitOk;
}

// What submit refuses before it starts anything is wrong input here as well: else a job that passes would not start.
absl::Status CheckAsSubmitDoes(const CommandContext& context, const Job& job, Target target) {
  BASIN_RETURN_IF_ERROR(CheckJobFiles(job));
  const bool on_pods = target.kind == TargetKind::kKubernetes;
  BASIN_RETURN_IF_ERROR(CheckRolesOnTarget(job, target.kind == TargetKind::kSlurm || on_pods));
  if (on_pods) target.kubernetes = SettingsOfJob(target.kubernetes, job);
  BASIN_RETURN_IF_ERROR(CheckScriptTravels(job, target));
  BASIN_RETURN_IF_ERROR(ReadSecrets(context, job).status());
  return ReadEnvironmentSpec(job).status();
}

// Which machines a job will get only Slurm knows: it is asked, from here.
absl::StatusOr<int> ExamineSlurm(const CommandContext& context, const DoctorFlags& flags, const Job& job,
                                 Target& target) {
  target.slurm.options = MergedSlurmOptions(target.slurm.options, job.slurm);
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolderOf(context, ""));
  return Report(DiagnoseSlurm(target, job, LookAtSlurm(target, job, ProgramFor(target, ""), runs)), flags.json);
}

// All nodes once more where any of them lacked the programs, since they try each other; `visits` where none did.
std::vector<NodeVisit> SendAndVisitAgain(const Target& target, const DoctorNeeds& needs, const DoctorWay& way,
                                         Launcher& sender, std::vector<NodeVisit> visits) {
  std::vector<ProgramsReceiver> receivers;
  std::vector<size_t> nodes;
  for (size_t i = 0; i < visits.size(); ++i) {
    if (!visits[i].programs_missing) continue;
    nodes.push_back(i);
    receivers.push_back({{"doctor", static_cast<uint32_t>(i), target.nodes[i]},
                         absl::StrCat(kProgramsMissing, " ", visits[i].system.machine, " ", visits[i].system.libc)});
  }
  if (receivers.empty()) return visits;
  const std::vector<absl::Status> sent = SendProgramsAndWait(sender, receivers);
  visits = VisitNodes(target, needs, way);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (visits[nodes[i]].programs_missing) visits[nodes[i]].not_sent = std::string(sent[i].message());
  }
  return visits;
}

absl::StatusOr<int> Examine(const CommandContext& context, const DoctorFlags& flags) {
  std::optional<Job> job;
  std::string folder;
  if (!flags.job.empty()) {
    folder = FolderOf(flags.job);
    BASIN_ASSIGN_OR_RETURN(job, ReadJobFile(flags.job, JobOverrides{{}, {}, folder}));
  }
  BASIN_ASSIGN_OR_RETURN(Target target,
                         ChosenTarget(context, flags.target, job ? job->compute_target : "local", folder));
  if (flags.send && target.kind != TargetKind::kSsh) {
    return absl::InvalidArgumentError(absl::StrCat("--send: target ", target.name, " is of kind ",
                                                   TargetKindName(target.kind),
                                                   ", and programs are sent by ssh alone; leave it out"));
  }
  if (job) {
    job->compute_target = target.name;
    BASIN_RETURN_IF_ERROR(CheckAsSubmitDoes(context, *job, target));
  }
  if (target.kind == TargetKind::kSlurm) return ExamineSlurm(context, flags, job.value_or(Job()), target);
  if (target.kind == TargetKind::kKubernetes) {
    KubernetesSettings settings = target.kubernetes;
    if (job) settings = SettingsOfJob(settings, *job);
    const std::vector<DoctorFinding> findings = ExamineCluster(target.name, settings, job.has_value());
    // What is missing besides an image, which the findings have.
    if (job && !settings.image.empty()) BASIN_RETURN_IF_ERROR(CheckKubernetesJob(*job, settings));
    return Report(findings, flags.json);
  }
  DoctorNeeds needs = UsualNeeds(static_cast<int>(target.nodes.size()));
  if (job) {
    BASIN_RETURN_IF_ERROR(CheckTarget(*job, static_cast<int>(target.nodes.size())));
    target.nodes.resize(job->node_count);
    needs = NeedsOfJob(*job, flags.job, job->node_count);
  }

  DoctorWay way;
  way.version = BASIN_VERSION;
  DoctorBundle bundle;
  std::unique_ptr<Launcher> sender;
  if (target.kind == TargetKind::kLocal) {
    BASIN_ASSIGN_OR_RETURN(way.base, BaseFolder(context, target));
  } else {
    BASIN_ASSIGN_OR_RETURN(const Bundle found, BundleFor(target, BASIN_VERSION));
    bundle = {found.path, {found.machine, absl::StrCat("glibc ", gnu_get_libc_version())}};
    if (!found.path.empty()) way.sent = absl::StrCat(BASIN_VERSION, "-", found.digest);
    if (flags.send && !found.path.empty()) sender = MakeSshLauncher(target, BASIN_VERSION, found);
  }
  std::vector<NodeVisit> visits = VisitNodes(target, needs, way);
  if (sender != nullptr) visits = SendAndVisitAgain(target, needs, way, *sender, std::move(visits));
  return Report(Diagnose(target, needs, bundle, BASIN_VERSION, visits), flags.json);
}

}  // namespace

int DoctorNodeCommand() {
  SetLogPrefix("basin doctor-node");
  const absl::Status status = RunDoctorNode(BASIN_VERSION);
  if (status.ok()) return kExitOk;
  Error(absl::StrCat("it is started by basin doctor, which asks in lines of JSON; this one is none: ", status.message(),
                     "; use basin doctor"));
  return kExitUsage;
}

void AddDoctor(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* doctor =
      app.add_subcommand("doctor", "Looks whether a target's machines can run jobs, and says what to fix");
  const auto flags = std::make_shared<DoctorFlags>();  // the callback keeps it
  doctor->add_option("JOB", flags->job, "A job file: its target, and what it needs of the machines");
  AddTargetFlags(*doctor, &flags->target);
  doctor->add_flag("--send", flags->send, "Send Basin's programs to machines that lack them, to make all checks there");
  doctor->add_flag("--json", flags->json, "Print a list of {node, check, state, found, fix}");
  doctor->footer(
      "Each line is one check of one machine: ok, warning, or problem with its fix. Nothing is installed or changed "
      "there,\nbut that --send leaves Basin's programs in the target's folder, where the first job would.\n"
      "Exit code: 0 no problem, 1 a problem, 2 wrong input.");
  doctor->callback([&context, exit_code, flags] {
    const absl::StatusOr<int> code = Examine(context, *flags);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

}  // namespace basin
