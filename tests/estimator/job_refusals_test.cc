// Wrong job files, and those that ask for what is not there yet: each with its place, both fields, and the change.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/exit_code.h"
#include "estimator/job/job.h"

namespace basin {
namespace {

constexpr char kSmallestJob[] = "entry_script: basin:mlp\ndistributed_backend: ps\n";

struct Refusal {
  const char* added;     // to the smallest job
  const char* expected;  // part of the message
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};
constexpr auto kLater = absl::StatusCode::kUnimplemented;

void ExpectRefusals(const char* job_text, absl::Span<const Refusal> refusals) {
  for (const Refusal& refusal : refusals) {
    const auto job = ParseJob(absl::StrCat(job_text, refusal.added), "job.yaml");
    ASSERT_FALSE(job.ok()) << refusal.added;
    EXPECT_TRUE(absl::StrContains(job.status().message(), refusal.expected)) << refusal.added << job.status();
    EXPECT_EQ(job.status().code(), refusal.code) << refusal.added << job.status();
    EXPECT_EQ(ExitCodeFor(job.status()), kExitUsage) << refusal.added << job.status();
  }
}

TEST(JobRefusalsTest, WrongValuesAreRefusedWithPlaceAndReason) {
  const Refusal refusals[] = {
      {"worker_cout: 2\n", "job.yaml:3:1: unknown field \"worker_cout\"; did you mean \"worker_count\"?"},
      {"worker_count: 2\nworker_count: 3\n", "job.yaml:4:1: field \"worker_count\" is given twice"},
      {"worker_count: two\n", "job.yaml:3:1: worker_count: expected a whole number from 0 to 1024, found \"two\""},
      {"worker_count: 0\n", "at least one worker"},
      {"worker_count: -1\n", "worker_count: expected a whole number"},
      {"parameter_server_count: -1\n", "parameter_server_count: expected a whole number"},
      {"parameter_server_count: 0\n", "built-in programs need at least one"},
      {"node_count: 0\n", "node_count: expected a whole number from 1"},
      {"process_count_per_node: 0\n", "process_count_per_node: expected a whole number from 1"},
      {"compute_target: ../x\n", "compute_target: \"../x\" is no target's name"},
      {"network: {ports: 20000}\n", "network.ports: expected FIRST-LAST"},
      {"network: {ports: 20000-20000}\nworker_count: 2\n", "3 tasks of one node need a port each"},
      {"distributed_training: {Horovod: {}}\n", "unknown configuration \"Horovod\""},
      {"distributed_training: {ParameterServer: {worker: 3}}\n",
       "unknown field \"distributed_training.ParameterServer.worker\""},
      {"distributed_training: [1]\n", "distributed_training: expected one of ParameterServer"},
      {"training: {rule: {name: adamm}}\n", "did you mean \"adam\"?"},
      {"training: {rule: {learning_rate: 1}}\n", "training.rule.name: not given"},
      {"training: {rule: {name: adam, beta1: 1}}\n", "job.yaml:3:31: training.rule.beta1: found 1"},
      {"training: {rule: {name: adam, learning_rate: fast}}\n", "learning_rate: expected a number"},
      {"script_params: {hidden: 1}\n", "\"hidden\" is no flag"},
      {"script_params: {--token-file: x}\n", "--token-file is set by the launcher"},
      {"script_params: {--a: [1]}\n", "--a: expected a value, {input: NAME}, or \"\" for a bare flag, found a list"},
      {"script_params: {--a: }\n", "--a: expected a value, {input: NAME}, or \"\" for a bare flag, found nothing"},
      {"script_params: {--a: {input: mnist}}\n", "no input is named \"mnist\"; inputs: none"},
      {"inputs: [{name: data}]\n", "inputs[0].path: not given"},
      {"inputs: [{name: 1x, path: /}]\n", "\"1x\" is no name"},
      {"inputs: [{name: a, path: /}, {name: A, path: /}]\n", "\"A\" is there twice"},
      {"environment_variables: {TF_CONFIG: x}\n", "TF_CONFIG is set by the launcher"},
      {"environment_variables: {BASIN_INPUT_X: x}\n", "BASIN_INPUT_X is set by the launcher"},
      {"environment_variables: {A: x, A: y}\n", "A is given twice"},
      {"secrets: [RANK]\n", "secrets: RANK is set by the launcher"},
      {"secrets: ['A=B']\n", "secrets: \"A=B\" is no variable's name"},
      {"secrets: [A, A]\n", "secrets: A is given twice"},
      {"secrets: A\n", "secrets: expected a list, each a variable's name, found \"A\"; write [\"A\"]"},
      {"setup: {a: b}\n", "setup: expected a list"},
      {"pip_packages: ['-r x']\n", "pip_packages: \"-r x\" is no package; options go into a requirements file"},
      {"pip_packages: [{a: b}]\n", "pip_packages: expected a package in the list, found a mapping"},
      {"framework_version: latest one\n", "\"latest one\" is no version of TensorFlow"},
      {"pip_requirements_file: r.txt\n", "source_directory: not given, but a file of packages lies beneath it"},
      {"source_directory: .\npip_requirements_file: ../r.txt\n", "\"../r.txt\" is no file beneath source_directory"},
      {"source_directory: .\nenvironment_definition: {name: x}\n",
       "environment_definition: expected a file beneath source_directory, found a mapping"},
      {"snapshot_limit_mb: 0\n", "snapshot_limit_mb: expected a whole number from 1"},
      {"use_gpu: maybe\n", "use_gpu: expected true or false"},
      {"chief_count: 2\n", "chief_count: expected a whole number from 0 to 1"},
      {"evaluator_count: 2\n", "evaluator_count: expected a whole number from 0 to 1"},
      {"experiment: ../up\n", "cannot name a folder"},
      {"max_run_duration_seconds: 0\n", "max_run_duration_seconds"},
      {"parameter_server: mine\n", "parameter_server: found \"mine\", expected basin"},
      {"setup: [\"a\\0b\"]\n", "setup: a text with a zero byte"},
      {"setup: [\"a\\Nb\"]\n", "setup: a text that is no UTF-8; write the character itself"},
      {"inputs: [\n", "job.yaml:4:1: not valid YAML or JSON"},
      {"---\na: b\n", "expected one document, found more than one"},
      {"inputs: &a [{name: x, path: *a}]\n", "job.yaml:3:29: an alias to what it stands in"},
      {"# \xff\n", "job.yaml: not a text in UTF-8"},
  };
  ExpectRefusals(kSmallestJob, refusals);
}

// The validation list of the estimator, row by row, where the text alone decides; the other rows are in
// job_checks_test.cc and plan_test.cc.
TEST(JobRefusalsTest, ConflictsNameBothFieldsAndTheChange) {
  const Refusal refusals[] = {
      {"distributed_training: {ParameterServer: {worker_count: 3}}\nworker_count: 2\n",
       "3 conflicts with worker_count: 2; remove one"},
      {"distributed_training: Mpi\n", "distributed_training: Mpi conflicts with distributed_backend: ps"},
      {"process_count_per_node: 2\n",
       "process_count_per_node: found 2, which conflicts with the ps backend; set "
       "worker_count"},
      {"parameter_server: script\n", "parameter_server: script needs an entry_script of your own"},
      {"environment_definition: e.yml\npip_packages: [x]\ncustom_docker_image: y\n",
       "environment_definition: conflicts with pip_packages, custom_docker_image; keep"},
      {"environment_definition: e.yml\nuser_managed: true\nframework_version: 2.1\n",
       "environment_definition: conflicts with framework_version, user_managed; keep"},
      {"conda_dependencies_file: e.yml\npip_packages: [x]\nconda_packages: [y]\n",
       "conda_dependencies_file: conflicts with conda_packages, pip_packages; put all packages into the file"},
      {"conda_dependencies_file_path: e.yml\npip_requirements_file: x\n",
       "conda_dependencies_file_path: conflicts with pip_requirements_file"},
      {"custom_docker_image: y\nuse_docker: false\n",
       "custom_docker_image: conflicts with use_docker: false; remove one"},
      {"custom_docker_image: y\n", "custom_docker_image: conflicts with entry_script: basin:mlp, which is Basin's own"},
      {"custom_docker_base_image: y\n", "custom_docker_base_image: conflicts with entry_script: basin:mlp"},
      {"shm_size: 1g\n", "shm_size: is of a container, and without custom_docker_image tasks run on the node itself"},
      {"shm_size: 1g\n", "kubernetes: {shm_size: 512Mi}"},
      {"user_managed: true\nconda_packages: [x]\n", "user_managed: true conflicts with conda_packages"},
      {"user_managed: true\nframework_version: 2.1\n", "user_managed: true conflicts with framework_version"},
      {"source_directory: .\npip_requirements_file: a\npip_requirements_file_path: b\n",
       "pip_requirements_file_path: is the older spelling of pip_requirements_file, which is given too"},
      {"framework_version: '2.1'\npip_packages: [keras, 'TensorFlow[and-cuda] >= 2']\n",
       "framework_version: 2.1 conflicts with \"TensorFlow[and-cuda] >= 2\" in pip_packages; remove one of the two"},
      {"secrets: [A]\nenvironment_variables: {A: b}\n", "secrets: A is also in environment_variables"},
      {"workers_per_gpu: 2\n", "workers_per_gpu: found 2, but use_gpu is false; set use_gpu: true"},
      {"use_gpu: true\nenvironment_variables: {CUDA_VISIBLE_DEVICES: '0'}\n",
       "use_gpu: true gives each worker its own CUDA_VISIBLE_DEVICES, which conflicts with the one in "
       "environment_variables"},
  };
  ExpectRefusals(kSmallestJob, refusals);

  const Refusal without_backend[] = {
      {"node_count: 2\n",
       "node_count: found 2, but no backend is given, and without one the job is one process; set "
       "distributed_backend: ps and worker_count: 2"},
      {"process_count_per_node: 4\n",
       "process_count_per_node: found 4, but no backend is given, and without one the "
       "job is one process; set distributed_backend: mpi (or ps with worker_count: 4)"},
      {"worker_count: 2\n", "worker_count: found 2, but no backend"},
      {"custom_docker_image: 'a b'\n",
       "custom_docker_image: \"a b\" is no image; write its name as docker pull takes it"},
      {"custom_docker_image: -v\n", "custom_docker_image: \"-v\" is no image"},
      {"custom_docker_image: Conda/image:1\n",
       "\"Conda/image:1\" is no image: in the name of one only the tag may have"},
      {"custom_docker_image: quay.io/a/B\n", "\"quay.io/a/B\" is no image: in the name of one only the tag"},
      {"custom_docker_image: a\nshm_size: big\n", "shm_size: expected a size such as 512m or 2g, found \"big\""},
      {"custom_docker_image: a\nshm_size: 0\n", "shm_size: expected a size"},
      {"custom_docker_image: a\nshm_size: 1g\ndistributed_backend: mpi\n", "shm_size: conflicts with the mpi backend"},
      {"parameter_server_count: 2\n", "parameter_server_count: found 2, but no backend"},
      {"chief_count: 1\n", "chief_count: found 1, but no backend"},
      {"evaluator_count: 1\n", "evaluator_count: found 1, but no backend"},
      {"parameter_server: script\n", "parameter_server: script needs distributed_backend: ps"},
      {"distributed_backend: nccl\n", "distributed_backend: unknown backend \"nccl\"; supported: ps"},
      {"training: {rule: {name: adam}}\n", "training: rule is for entry_script: basin:PROGRAM"},
      {"resume_from: /c\nscript_params: {--resume-from: /d}\n",
       "resume_from: conflicts with --resume-from in script_params"},
  };
  ExpectRefusals("entry_script: train.py\n", without_backend);
}

TEST(JobRefusalsTest, WhatIsNotThereYetIsRefusedByName) {
  const Refusal refusals[] = {
      {"image_registry_details: {address: a}\n", "image_registry_details: this version", kLater},
      {"restart_policy: always\n", "restart_policy: this version", kLater},
      {"max_restarts: 3\n", "max_restarts: this version", kLater},
      {"vm_size: STANDARD_D2\n", "vm_size: this version", kLater},
      {"resume_from: latest\n", "resume_from: this version keeps no checkpoints", kLater},
      {"resume_from: /c/1\n",
       "resume_from: basin:mlp resumes from no checkpoint in this version; start it from a "
       "model with script_params: {--init-from: FILE}",
       kLater},
      {"training: {tables: {a: b}}\n", "training.tables: this version", kLater},
      {"training: {dense: ddp}\n", "training.dense: this version", kLater},
      {"training: {checkpoint: {dir: /c}}\n", "training.checkpoint: this version", kLater},
      {"training: {consistency: sync}\n", "training.consistency: this version", kLater},
      {"network: {interface: ib0}\n", "network.interface: this version", kLater},
      {"network: {security: none}\n", "network.security: found \"none\"", kLater},
  };
  ExpectRefusals(kSmallestJob, refusals);
}

TEST(JobRefusalsTest, MpiHasItsOwnCounts) {
  const Refusal refusals[] = {
      {"distributed_backend: MPI\nnode_count: 512\nprocess_count_per_node: 2\n",
       "process_count_per_node: 512 nodes x 2 processes are too many; a run has at most 1024 tasks"},
      {"distributed_backend: mpi\nnode_count: 513\n", "node_count: 513 nodes x 1 processes are too many"},
      {"distributed_backend: mpi\nuse_gpu: true\nworkers_per_gpu: 2\n",
       "workers_per_gpu: conflicts with the mpi backend, where every process sees all GPUs of its node"},
      {"distributed_training: {Mpi: {worker_count: 3}}\n", "unknown field \"distributed_training.Mpi.worker_count\""},
      {"distributed_training: {Mpi: {process_count_per_node: 0}}\n",
       "distributed_training.Mpi.process_count_per_node: expected a whole number from 1"},
      {"distributed_backend: mpi\nworker_count: 2\n", "worker_count: conflicts with the mpi backend"},
      {"distributed_backend: mpi\nparameter_server_count: 2\n", "parameter_server_count: conflicts with the mpi"},
      {"distributed_backend: mpi\nevaluator_count: 1\n", "evaluator_count: conflicts with the mpi"},
  };
  ExpectRefusals("entry_script: train.py\n", refusals);
  const Refusal built_in[] = {
      {"distributed_backend: mpi\nworker_count: 3\nnode_count: 2\n",
       "worker_count: 3 ranks do not spread evenly over node_count: 2; with mpi each node has as many: set "
       "worker_count: 4"},
      {"distributed_backend: mpi\nworker_count: 3\nprocess_count_per_node: 2\n",
       "worker_count: 3, but node_count and process_count_per_node make 2 ranks"},
      {"distributed_backend: mpi\nchief_count: 1\n", "chief_count: conflicts with the mpi"}};
  ExpectRefusals("entry_script: basin:mlp\n", built_in);
  const Refusal tables[] = {
      {"distributed_backend: mpi\n", "entry_script: basin:wide_deep has its weights and embeddings in tables", kLater}};
  ExpectRefusals("entry_script: basin:wide_deep\n", tables);
}

}  // namespace
}  // namespace basin
