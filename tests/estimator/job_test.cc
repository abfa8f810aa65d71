#include "estimator/job.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

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

TEST(JobTest, ValuesThatAskForNothingNewAreAccepted) {
  const auto job = ParseJob(absl::StrCat(kSmallest, R"(source_directory: .
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
training: {consistency: async}
network: {ports: 30000-30010, security: token}
)"),
                            "job.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->ports.first, 30000);
}

TEST(JobTest, DistributedTrainingGivesTheCounts) {
  const auto job =
      ParseJob("entry_script: basin:mlp\ndistributed_training: {ParameterServer: {worker_count: 2}}\n", "j");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->worker_count, 2);
  EXPECT_TRUE(ParseJob("entry_script: basin:mlp\ndistributed_training: TensorflowConfiguration\n", "j").ok());
}

struct Refusal {
  const char* added;     // to the smallest job
  const char* expected;  // part of the message
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};
constexpr auto kLater = absl::StatusCode::kUnimplemented;

TEST(JobTest, WrongJobsAreRefusedWithPlaceAndReason) {
  const Refusal refusals[] = {
      {"worker_cout: 2\n", "job.yaml:3:1: unknown field \"worker_cout\"; did you mean \"worker_count\"?"},
      {"  \n", nullptr},
      {"worker_count: 2\nworker_count: 3\n", "job.yaml:4:1: field \"worker_count\" is given twice"},
      {"worker_count: two\n", "job.yaml:3:1: worker_count: expected a whole number from 0 to 1024, found \"two\""},
      {"worker_count: 0\n", "at least one worker"},
      {"worker_count: -1\n", "worker_count: expected a whole number"},
      {"parameter_server_count: 0\n", "the ps backend needs at least one"},
      {"node_count: 0\n", "node_count: expected a whole number from 1"},
      {"process_count_per_node: 0\n", "process_count_per_node: expected a whole number from 1"},
      {"node_count: 2\n", "job.yaml:3:1: node_count: this version cannot do that (found \"2\")", kLater},
      {"process_count_per_node: 2\n", "process_count_per_node", kLater},
      {"compute_target: slurm-a\n", "compute_target: this version cannot do that (found \"slurm-a\")", kLater},
      {"source_directory: src\n", "source_directory", kLater},
      {"use_gpu: true\n", "use_gpu", kLater},
      {"conda_packages: [numpy]\n", "conda_packages", kLater},
      {"pip_packages: [numpy]\n", "pip_packages", kLater},
      {"conda_dependencies_file: env.yml\n", "conda_dependencies_file", kLater},
      {"pip_requirements_file_path: r.txt\n", "pip_requirements_file_path", kLater},
      {"environment_definition: {name: x}\n", "environment_definition", kLater},
      {"custom_docker_image: debian\n", "custom_docker_image", kLater},
      {"framework_version: '2.1'\n", "framework_version", kLater},
      {"shm_size: 1g\n", "shm_size", kLater},
      {"resume_from: latest\n", "resume_from", kLater},
      {"secrets: [a]\n", "secrets", kLater},
      {"setup: make\n", "setup", kLater},
      {"roles: {ps: {nodes: 4}}\n", "roles", kLater},
      {"training: {tables: {}}\n", "training.tables", kLater},
      {"training: {dense: ddp}\n", "training.dense", kLater},
      {"training: {checkpoint: {dir: /c}}\n", "training.checkpoint", kLater},
      {"training: {consistency: sync}\n", "training.consistency", kLater},
      {"network: {interface: ib0}\n", "network.interface", kLater},
      {"network: {ports: 20000}\n", "network.ports: expected FIRST-LAST"},
      {"network: {ports: 20000-20000}\nworker_count: 2\n", "3 tasks need a port each"},
      {"environment_definition: {a: b}\npip_packages: [x]\ncustom_docker_image: y\n",
       "environment_definition: conflicts with pip_packages, custom_docker_image"},
      {"conda_dependencies_file: e.yml\npip_packages: [x]\n", "conda_dependencies_file: conflicts with pip_packages"},
      {"custom_docker_image: y\nuse_docker: false\n", "custom_docker_image: conflicts with use_docker: false"},
      {"user_managed: true\nconda_packages: [x]\n", "user_managed: true conflicts with conda_packages"},
      {"distributed_training: {Mpi: {process_count_per_node: 2}}\n", "cannot do Mpi", kLater},
      {"distributed_training: {Horovod: {}}\n", "unknown configuration \"Horovod\""},
      {"worker_count: 2\ndistributed_training: {ParameterServer: {worker_count: 3}}\n",
       "3 conflicts with worker_count: 2"},
      {"distributed_training: {ParameterServer: {worker: 3}}\n",
       "unknown field \"distributed_training.ParameterServer.worker\""},
      {"training: {rule: {name: adamm}}\n", "did you mean \"adam\"?"},
      {"training: {rule: {learning_rate: 1}}\n", "training.rule.name: not given"},
      {"training: {rule: {name: adam, beta1: 1}}\n", "job.yaml:3:31: training.rule.beta1: found 1"},
      {"training: {rule: {name: adam, learning_rate: fast}}\n", "learning_rate: expected a number"},
      {"script_params: {hidden: 1}\n", "\"hidden\" is no flag"},
      {"script_params: {--token-file: x}\n", "--token-file is set by the launcher"},
      {"script_params: {--a: [1]}\n", "--a: expected a value, or \"\" for a bare flag, found a list"},
      {"script_params: {--a: }\n", "--a: expected a value, or \"\" for a bare flag, found nothing"},
      {"script_params: {--a: {input: mnist}}\n", "no input is named \"mnist\"; inputs: none"},
      {"inputs: [{name: data}]\n", "inputs[0].path: not given"},
      {"inputs: [{name: 1x, path: /}]\n", "\"1x\" is no name"},
      {"inputs: [{name: a, path: /}, {name: A, path: /}]\n", "\"A\" is there twice"},
      {"environment_variables: {TF_CONFIG: x}\n", "TF_CONFIG is set by the launcher"},
      {"chief_count: 2\n", "chief_count: expected a whole number from 0 to 1"},
      {"evaluator_count: 2\n", "evaluator_count: expected a whole number from 0 to 1"},
      {"experiment: ../up\n", "cannot name a folder"},
      {"max_run_duration_seconds: 0\n", "max_run_duration_seconds"},
      {"inputs: [\n", "job.yaml:4:1: not valid YAML or JSON"},
      {"---\na: b\n", "expected one document, found 2"},
  };
  for (const Refusal& refusal : refusals) {
    const auto job = ParseJob(absl::StrCat(kSmallest, refusal.added), "job.yaml");
    if (refusal.expected == nullptr) {
      EXPECT_TRUE(job.ok()) << job.status();
      continue;
    }
    ASSERT_FALSE(job.ok()) << refusal.added;
    EXPECT_TRUE(absl::StrContains(job.status().message(), refusal.expected)) << refusal.added << job.status();
    EXPECT_EQ(job.status().code(), refusal.code) << refusal.added << job.status();
  }
}

TEST(JobTest, EntryScriptAndBackendAreNeeded) {
  const auto message = [](const char* text) { return std::string(ParseJob(text, "j").status().message()); };
  EXPECT_TRUE(absl::StrContains(message("distributed_backend: ps\n"), "entry_script: not given"));
  EXPECT_TRUE(
      absl::StrContains(message("entry_script: train.py\ndistributed_backend: ps\n"), "runs built-in programs alone"));
  EXPECT_TRUE(absl::StrContains(message("entry_script: basin:mlp\n"), "write distributed_backend: ps"));
  EXPECT_TRUE(absl::StrContains(message("entry_script: basin:mlp\ndistributed_backend: mpi\n"), "cannot do mpi"));
  EXPECT_TRUE(absl::StrContains(message("entry_script: basin:mlp\ndistributed_backend: nccl\n"),
                                "unknown backend \"nccl\"; supported: ps"));
  EXPECT_TRUE(absl::StrContains(message("[1]"), "expected a mapping"));
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

TEST(JobTest, RelativeInputsAreTakenFromTheBaseFolder) {
  JobOverrides overrides;
  overrides.base_folder = "/jobs";
  const auto job =
      ParseJob(absl::StrCat(kSmallest, "inputs: [{name: a, path: d/a}, {name: b, path: /b}]\n"), "j", overrides);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->inputs[0].path, "/jobs/d/a");
  EXPECT_EQ(job->inputs[1].path, "/b");
}

}  // namespace
}  // namespace basin
