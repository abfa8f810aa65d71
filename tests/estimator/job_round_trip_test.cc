// Random jobs, written and read again.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "estimator/job/job.h"

namespace basin {
namespace {

class RandomJobs {
 public:
  explicit RandomJobs(uint32_t seed) : random_(seed) {}

  Job Next() {
    Job job;
    job.experiment = absl::StrCat("e", Below(1000), Coin() ? "-x.y_z" : "");
    Coin() ? MakeScript(&job) : MakeBuiltIn(&job);
    if (Coin()) job.compute_target = absl::StrCat("target-", Below(10));
    job.snapshot_limit_mb = 1 + Below(1000);
    job.use_gpu = Coin();
    if (job.use_gpu) job.workers_per_gpu = 1 + Below(4);
    for (int i = Below(3); i > 0; --i) job.script_params.push_back({absl::StrCat("--flag", i), Text()});
    for (int i = Below(3); i > 0; --i) {
      job.inputs.push_back({absl::StrCat("in_", i), absl::StrCat("/data/", Word(), "/*.csv")});
    }
    for (int i = Below(3); i > 0; --i) job.environment_variables.emplace_back(absl::StrCat("V", i, Word()), Text());
    for (int i = Below(3); i > 0; --i) job.setup.push_back(absl::StrCat("module load ", Text()));
    for (int i = Below(3); i > 0; --i) job.secrets.push_back(absl::StrCat("SECRET_", i));
    job.ports.first = 10000 + Below(1000);
    job.ports.last = job.ports.first + 100 + Below(1000);
    if (Coin()) job.max_run_duration_seconds = 1 + Below(1 << 20);
    job.cancel_grace_seconds = Below(3601);
    return job;
  }

 private:
  int Below(int limit) { return static_cast<int>(random_() % static_cast<uint32_t>(limit)); }
  bool Coin() { return Below(2) == 0; }
  std::string Word() { return absl::StrCat("w", Below(100000)); }

  // What a YAML reader could take for something else.
  std::string Text() {
    static const char* const kTexts[] = {"",       "true",        "null",   "~",      "1e9",    "- a",
                                         "{a: b}", "it's \"so\"", "a: b #", "\t",     "a\nb\r", "\x01\x7f",
                                         "ü…",     "\u2028x",     "*x &y",  "\\u0041"};
    std::string text;
    for (int i = Below(3); i >= 0; --i) text += kTexts[Below(std::size(kTexts))];
    return text;
  }

  void MakeScript(Job* job) {
    job->script = Coin() ? "train.py" : "src/run me.sh";
    job->source_directory = absl::StrCat("/home/", Word());
    if (Coin()) job->resume_from = absl::StrCat("/ckpt/", Word());
    if (Coin()) {
      MakePs(job);
      job->script_parameter_server = Coin();
    } else {
      job->parameter_server_count = 0;
    }
    MakePackages(job);
  }

  void MakeBuiltIn(Job* job) {
    job->program = BuiltInPrograms()[Below(static_cast<int>(BuiltInPrograms().size()))];
    if (Coin()) job->source_directory = "/src";
    if (Coin()) {
      MakePs(job);
      job->parameter_server_count = 1 + Below(4);
    } else {
      job->parameter_server_count = 0;
    }
    if (!Coin()) return;
    RuleChoice rule;
    rule.name = Coin() ? "adam" : "momentum";
    if (Coin()) rule.learning_rate = Below(1000000) / 3e6;
    if (Coin()) rule.momentum = Below(1000) / 1001.0;
    if (Coin()) rule.beta1 = 0.9;
    if (Coin()) rule.beta2 = 0.999;
    if (Coin()) rule.epsilon = 1e-8;
    rule.nesterov = Coin();
    job->rule = rule;
  }

  void MakePs(Job* job) {
    job->backend = Backend::kPs;
    job->node_count = 1 + Below(4);
    job->parameter_server_count = Below(4);
    job->worker_count = 1 + Below(8);
    job->chief_count = Below(2);
    job->evaluator_count = Below(2);
  }

  void MakePackages(Job* job) {
    Packages& packages = job->packages;
    switch (Below(5)) {
      case 0:
        packages.pip = {Word(), absl::StrCat(Word(), "==1.2")};
        packages.conda = {Word()};
        if (Coin()) packages.pip_requirements_file = "requirements/all.txt";
        if (Coin()) job->framework_version = "2.15.1";
        break;
      case 1:
        packages.conda_dependencies_file = "env.yml";
        break;
      case 2:
        packages.environment_definition = "env.yml";
        break;
      case 3:
        packages.user_managed = true;
        break;
      default:
        break;
    }
  }

  std::mt19937 random_;
};

TEST(JobRoundTripTest, RandomJobsParseToThemselves) {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    const Job job = RandomJobs(seed).Next();
    const std::string json = JobToJson(job);
    const auto again = ParseJob(json, "job.json");
    ASSERT_TRUE(again.ok()) << "seed " << seed << ": " << again.status() << "\n" << json;
    ASSERT_EQ(*again, job) << "seed " << seed << "\n" << json << "\n" << JobToJson(*again);
  }
}

}  // namespace
}  // namespace basin
