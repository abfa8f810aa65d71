#include "estimator/job/job.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/job/job_fields.h"

namespace basin {
namespace {

constexpr char kSmallest[] = "entry_script: basin:mlp\ndistributed_backend: ps\n";

TEST(JobTest, LocalExampleIsUnderstood) {
  const auto job = ParseJob(R"(experiment: fashion-mnist
entry_script: basin:mlp            # a built-in program
script_params: {--hidden: "256", --epochs: 10, --verbose: ""}
inputs: [{name: data, path: /usr/share/datasets/fashion-mnist}]
compute_target: local
distributed_backend: PS
parameter_server_count: 2
worker_count: 3
evaluator_count: 1
training:
  rule: {name: adam, learning_rate: 0.001}
)",
                            "job.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->experiment, "fashion-mnist");
  EXPECT_EQ(job->program, "mlp");
  ASSERT_EQ(job->script_params.size(), 3u);
  EXPECT_EQ(job->script_params[0].flag, "--hidden");
  EXPECT_EQ(job->script_params[1].value, "10");
  EXPECT_EQ(job->script_params[2].value, "");
  ASSERT_EQ(job->inputs.size(), 1u);
  EXPECT_EQ(job->inputs[0].path, "/usr/share/datasets/fashion-mnist");
  EXPECT_EQ(job->parameter_server_count, 2);
  EXPECT_EQ(job->worker_count, 3);
  EXPECT_EQ(job->chief_count, 0);
  EXPECT_EQ(job->evaluator_count, 1);
  ASSERT_TRUE(job->rule.has_value());
  EXPECT_EQ(job->rule->name, "adam");
  EXPECT_DOUBLE_EQ(*job->rule->learning_rate, 0.001);
}

TEST(JobTest, DefaultsAreTheEstimators) {
  const auto job = ParseJob(kSmallest, "job.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->worker_count, 1);
  EXPECT_EQ(job->parameter_server_count, 1);
  EXPECT_EQ(job->cancel_grace_seconds, 5);
  EXPECT_EQ(job->ports.first, 20000);
  EXPECT_EQ(job->ports.last, 29999);
}

TEST(JobTest, JsonIsReadToo) {
  const auto job = ParseJob(
      "{\n\t\"entry_script\": \"basin:mlp\",\n\t\"distributed_backend\": \"ps\", \"worker_count\": 4}", "job.json");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->worker_count, 4);
}

TEST(JobTest, ResolvedJobParsesToTheSameJob) {
  const auto job = ParseJob(absl::StrCat(kSmallest,
                                         "script_params: {--b: 1, --a: x}\ninputs: [{name: d, path: /d}]\n"
                                         "training: {rule: {name: sgd, momentum: 0.9, nesterov: true}}\n"
                                         "environment_variables: {A: b}\nmax_run_duration_seconds: 9\n"),
                            "job.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  const std::string json = JobToJson(*job);
  const auto again = ParseJob(json, "job.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(JobToJson(*again), json);
}

TEST(JobTest, EmptyValuesAskForNothing) {
  const auto job = ParseJob(absl::StrCat(kSmallest, R"(source_directory:
compute_target: local
node_count: 1
process_count_per_node: 1
use_gpu: false
conda_packages: []
pip_packages: []
conda_dependencies_file:
environment_definition: null
custom_docker_image: ""
use_docker: true
user_managed: false
shm_size:
resume_from:
training: {consistency: async, tables: {}, checkpoint: }
network: {ports: 30000-30010, security: token, interface: ""}
roles: {}
)"),
                            "job.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->image, "");
  EXPECT_EQ(job->shm_bytes, 0);
  EXPECT_EQ(job->ports.first, 30000);
  EXPECT_EQ(job->source_directory, "");
  EXPECT_TRUE(job->warnings.empty());
}

TEST(JobTest, AnEmptyValueOfAnyFieldCountsAsNotGiven) {
  const auto plain = ParseJob(kSmallest, "job.yaml");
  ASSERT_TRUE(plain.ok()) << plain.status();
  const std::string given = kSmallest;
  for (const std::string& field : KnownJobFields()) {
    if (absl::StrContains(given, field + ":")) continue;
    for (const char* empty : {"null", "\"\"", "[]", "{}"}) {
      const auto job = ParseJob(absl::StrCat(given, field, ": ", empty, "\n"), "job.yaml");
      ASSERT_TRUE(job.ok()) << job.status();
      EXPECT_EQ(JobToJson(*job), JobToJson(*plain)) << field << ": " << empty;
    }
  }
}

TEST(JobTest, DistributedTrainingGivesTheCounts) {
  const auto job =
      ParseJob("entry_script: basin:mlp\ndistributed_training: {ParameterServer: {worker_count: 2}}\n", "j");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->backend, Backend::kPs);
  EXPECT_EQ(job->worker_count, 2);
  EXPECT_TRUE(ParseJob("entry_script: basin:mlp\ndistributed_training: TensorflowConfiguration\n", "j").ok());
  // Both spellings may stand together where they agree, and neither is warned of.
  const auto both = ParseJob(
      "entry_script: a.py\ndistributed_backend: PS\nworker_count: 3\ndistributed_training: "
      "{TensorflowConfiguration: {worker_count: 3, parameter_server_count: 2}}\n",
      "j");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->parameter_server_count, 2);
  EXPECT_TRUE(both->warnings.empty());
}

TEST(JobTest, AScriptOfTheUsersOwn) {
  JobOverrides overrides;
  overrides.base_folder = "/home/me";
  const auto job = ParseJob(R"(
source_directory: ./my-tf-proj
entry_script: ./src/train.py
script_params: {--program: mine, --data-folder: {input: mnist}, --verbose: ""}
inputs: [{name: mnist, path: /data/mnist}]
compute_target: two-hosts
distributed_backend: ps
parameter_server: script
node_count: 2
worker_count: 2
chief_count: 1
evaluator_count: 1
use_gpu: true
workers_per_gpu: 2
pip_packages: [keras, " numpy==1.26 "]
conda_packages: [scikit-learn]
pip_requirements_file: requirements.txt
framework_version: 2.15.1
setup: |
  module load cuda

  ulimit -n 4096
secrets: [WANDB_KEY]
environment_variables: {A: b}
snapshot_limit_mb: 20
resume_from: ckpt/17
max_run_duration_seconds: 60
cancel_grace_seconds: 9
)",
                            "job.yaml", overrides);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->script, "src/train.py");
  EXPECT_EQ(job->program, "");
  EXPECT_EQ(job->source_directory, "/home/me/my-tf-proj");
  EXPECT_EQ(job->script_params[0].flag, "--program");  // reserved by basin-worker alone
  EXPECT_EQ(job->script_params[1].value, "/data/mnist");
  EXPECT_EQ(job->compute_target, "two-hosts");
  EXPECT_TRUE(job->script_parameter_server);
  EXPECT_EQ(job->node_count, 2);
  EXPECT_TRUE(job->use_gpu);
  EXPECT_EQ(job->workers_per_gpu, 2);
  EXPECT_EQ(job->packages.pip, (std::vector<std::string>{"keras", "numpy==1.26"}));
  EXPECT_EQ(job->packages.conda, std::vector<std::string>{"scikit-learn"});
  EXPECT_EQ(job->packages.pip_requirements_file, "requirements.txt");
  EXPECT_EQ(job->framework_version, "2.15.1");
  EXPECT_EQ(job->setup, (std::vector<std::string>{"module load cuda", "ulimit -n 4096"}));
  EXPECT_EQ(job->secrets, std::vector<std::string>{"WANDB_KEY"});
  EXPECT_EQ(job->snapshot_limit_mb, 20);
  EXPECT_EQ(job->resume_from, "/home/me/ckpt/17");
  const auto again = ParseJob(JobToJson(*job), "job.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *job);
}

TEST(JobTest, WithoutABackendThereIsOneProcess) {
  for (const char* script : {"train.py", "basin:mlp"}) {
    // The defaults may be written out, as the Azure SDK does.
    const auto job = ParseJob(
        absl::StrCat("entry_script: ", script, "\nworker_count: 1\nparameter_server_count: 1\nnode_count: 1\n"), "j");
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->backend, Backend::kNone);
    EXPECT_EQ(job->parameter_server_count, 0);
  }
  const auto job = ParseJob("entry_script: train.py\n", "j", {{}, {}, "/home/me", ""});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->source_directory, "/home/me");
}

TEST(JobTest, DeprecatedSpellingsWorkWithOneWarningEach) {
  const auto pip = ParseJob("entry_script: a.py\npip_requirements_file_path: r.txt\n", "job.yaml");
  ASSERT_TRUE(pip.ok()) << pip.status();
  EXPECT_EQ(pip->packages.pip_requirements_file, "r.txt");
  ASSERT_EQ(pip->warnings.size(), 1u);
  EXPECT_EQ(pip->warnings[0],
            "job.yaml:2:1: pip_requirements_file_path: a deprecated spelling; write pip_requirements_file");
  const auto conda = ParseJob("entry_script: a.py\nconda_dependencies_file_path: env.yml\n", "job.yaml");
  ASSERT_TRUE(conda.ok()) << conda.status();
  EXPECT_EQ(conda->packages.conda_dependencies_file, "env.yml");
  EXPECT_EQ(conda->warnings.size(), 1u);
}

TEST(JobTest, EntryScriptIsAProgramOrAFileBeneathTheSource) {
  const auto message = [](const char* text) { return std::string(ParseJob(text, "j").status().message()); };
  EXPECT_TRUE(absl::StrContains(message("distributed_backend: ps\n"), "entry_script: not given"));
  EXPECT_TRUE(absl::StrContains(message("entry_script: basin:softmx\n"), "did you mean \"basin:softmax\"?"));
  for (const char* wrong : {"/abs/train.py", "../train.py", "a/../../b.py", "src/", "."}) {
    EXPECT_TRUE(absl::StrContains(message(absl::StrCat("entry_script: ", wrong, "\n").c_str()),
                                  "is no file beneath source_directory"))
        << wrong;
  }
  EXPECT_TRUE(absl::StrContains(message("entry_script: ./basin:mlp\n"), "rename it"));
  EXPECT_TRUE(absl::StrContains(message("[1]"), "expected a mapping"));
  // In which yaml-cpp finds documents without an end.
  EXPECT_TRUE(absl::StrContains(message(","), "expected one document, found more than one"));
  EXPECT_TRUE(absl::StrContains(message(""), "found nothing") ||
              absl::StrContains(message(""), "expected one document"));
}

TEST(JobTest, OverridesReplaceAndAdd) {
  JobOverrides overrides;
  overrides.params = {"--lr=.1", "--verbose", "--data-folder=x=y"};
  overrides.inputs = {"mnist=/elsewhere"};
  const auto job = ParseJob(absl::StrCat(kSmallest,
                                         "inputs: [{name: mnist, path: /here}]\n"
                                         "script_params: {--from: {input: mnist}, --lr: 1}\n"),
                            "job.yaml", overrides);
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->script_params.size(), 4u);
  EXPECT_EQ(job->script_params[0].value, "/elsewhere");
  EXPECT_EQ(job->script_params[1].value, ".1");
  EXPECT_EQ(job->script_params[2].flag, "--verbose");
  EXPECT_EQ(job->script_params[3].value, "x=y");
  overrides.inputs = {"mnist"};
  EXPECT_FALSE(ParseJob(kSmallest, "job.yaml", overrides).ok());
}

TEST(JobTest, OverrideOfAnInputThatTheFileLacksIsRefused) {
  JobOverrides overrides;
  overrides.inputs = {"mnst=/elsewhere"};
  const absl::Status misspelt =
      ParseJob(absl::StrCat(kSmallest, "inputs: [{name: mnist, path: /here}]\n"), "job.yaml", overrides).status();
  EXPECT_EQ(misspelt.message(),
            "--input mnst=/elsewhere: no input is named \"mnst\"; did you mean \"mnist\"? inputs: mnist; correct the "
            "name, or add {name: mnst, path: PATH} to inputs in job.yaml");
  const absl::Status without = ParseJob(kSmallest, "job.yaml", overrides).status();
  EXPECT_TRUE(absl::StrContains(without.message(), "inputs: none; correct")) << without;
}

TEST(JobTest, OverridesChangeTheTargetAndNothingElse) {
  JobOverrides overrides;
  overrides.target = "two-hosts";
  const auto job = ParseJob(kSmallest, "job.yaml", overrides);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->compute_target, "two-hosts");
  overrides.params = {"node_count=2"};
  const absl::Status refused = ParseJob(kSmallest, "job.yaml", overrides).status();
  for (const char* part : {"node_count is a field of the job file", "script_params", "inputs", "the target"}) {
    EXPECT_TRUE(absl::StrContains(refused.message(), part)) << refused;
  }
  overrides.params = {"--a=\xff"};
  EXPECT_TRUE(absl::StrContains(ParseJob(kSmallest, "j", overrides).status().message(), "not in UTF-8"));
}

TEST(JobTest, RelativeInputsAreTakenFromTheBaseFolder) {
  JobOverrides overrides;
  overrides.base_folder = "/jobs";
  const auto job =
      ParseJob(absl::StrCat(kSmallest, "inputs: [{name: a, path: d/a}, {name: b, path: /b}]\n"), "j", overrides);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->inputs[0].path, "/jobs/d/a");
  EXPECT_EQ(job->inputs[1].path, "/b");
}

TEST(JobTest, AnImageAndItsSharedMemoryAreRead) {
  for (const auto& [text, bytes] : {std::pair<const char*, int64_t>("2g", int64_t{2} << 30),
                                    {"512M", int64_t{512} << 20},
                                    {"1gb", int64_t{1} << 30},
                                    {"65536", 65536},
                                    {"64k", 65536},
                                    {"10b", 10}}) {
    const auto job = ParseJob(
        absl::StrCat("entry_script: train.py\ncustom_docker_image: a/b:1\nshm_size: ", text, "\n"), "job.yaml");
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->image, "a/b:1");
    EXPECT_EQ(job->shm_bytes, bytes) << text;
    const auto again = ParseJob(JobToJson(*job), "job.json");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, *job);
  }
  for (const char* image : {"a/b:Cuda12", "Host:5000/a/b", "/images/Train.sif", "Quay.io/a@sha256:00ff"}) {
    const auto capitals =
        ParseJob(absl::StrCat("entry_script: train.py\ncustom_docker_image: ", image, "\n"), "job.yaml");
    EXPECT_TRUE(capitals.ok()) << capitals.status();
  }
  const auto older = ParseJob("entry_script: train.py\ncustom_docker_base_image: a\n", "job.yaml");
  ASSERT_TRUE(older.ok()) << older.status();
  EXPECT_EQ(older->image, "a");
  EXPECT_EQ(older->warnings.size(), 1u);
}

}  // namespace
}  // namespace basin
