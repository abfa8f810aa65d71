#include "estimator/run/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/mutex.h"
#include "estimator/history/run_folder.h"
#include "estimator/run/control_socket.h"
#include "tests/estimator/fake_agents.h"

namespace basin {
namespace {

class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() : folder_(folder_path_) {
    EXPECT_TRUE(folder_.Create().ok());
    const auto job = ParseJob(R"(experiment: e
entry_script: basin:mlp
distributed_backend: ps
parameter_server_count: 1
worker_count: 2
node_count: 2
compute_target: lab
inputs: [{name: data, path: /data}]
)",
                              "job.yaml");
    EXPECT_TRUE(job.ok()) << job.status();
    run_.job = *job;
    run_.target.kind = TargetKind::kSsh;
    run_.target.nodes = {{"h0", "h0", "", 0}, {"h1", "h1", "", 0}};
    PlanFacts facts;
    facts.run_id = "r1";
    facts.nodes = {{"h0", {1, 2}, {}, ""}, {"h1", {1, 2}, {}, ""}};
    const auto plan = MakePlan(run_.job, facts);
    EXPECT_TRUE(plan.ok()) << plan.status();
    run_.plan = *plan;
    run_.record.run_id = "r1";
    run_.record.experiment = "e";
    history_ = *RunHistory::Open(folder_);
  }
  ~SupervisorTest() override {
    history_.reset();
    std::filesystem::remove_all(folder_path_);
  }

  RunOutcome Supervised(FakeLauncher& launcher) {
    auto outcome = Supervise(run_, folder_, launcher, *history_, options_);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return *std::move(outcome);
  }
  // Both nodes obey, each with its own state.
  FakeLauncher::Plot Obey() {
    return [this](uint32_t node, int) {
      FakeLauncher::Meeting meeting;
      meeting.answer = [this, node](const ToAgent& message, const FakeAgent::Say& say) {
        return agents_[node].Answer(message, say);
      };
      return meeting;
    };
  }
  std::string Read(const std::string& name) { return ReadFile(folder_path_ + "/" + name).value_or(""); }
  std::string AllFiles() {
    std::string all;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_path_)) {
      if (!entry.is_regular_file() || entry.path().filename() == "token") continue;
      absl::StrAppend(&all, ReadFile(entry.path().string()).value_or(""));
    }
    return all;
  }
  template <typename Predicate>
  int Count(uint32_t node, const Predicate& predicate) {
    MutexLock lock(agents_[node].mutex);
    return static_cast<int>(std::count_if(agents_[node].seen.begin(), agents_[node].seen.end(), predicate));
  }

  const std::string folder_path_ = testing::TempDir() + "/basin_supervisor_test_" + std::to_string(getpid()) + "/e/r1";
  RunFolder folder_;
  std::unique_ptr<RunHistory> history_;
  SupervisedRun run_;
  SuperviseOptions options_;
  Obedient agents_[2];
};

TEST_F(SupervisorTest, ARunGoesThroughItsNodesToItsEnd) {
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kCompleted);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.record.tasks[0].address, "h0:2222");
  EXPECT_EQ(outcome.record.tasks[2].address, "h1:2222");
  EXPECT_EQ(outcome.record.tasks[2].pid, 102);
  EXPECT_EQ(Read("outputs/model.txt"), "weights");  // worker 0's, for it is the chief
  EXPECT_EQ(Read("outputs/by-task/worker-1/model.txt"), "weights");
  EXPECT_TRUE(absl::StrContains(Read("plan.json"), "2222"));
  const std::string journal = Read("journal.jsonl");
  size_t at = 0;
  for (const char* state : {"Starting", "Provisioning", "Preparing", "Running", "Finalizing", "Completed"}) {
    const size_t found = journal.find(absl::StrCat("\"state\":\"", state, "\""), at);
    ASSERT_NE(found, std::string::npos) << state << "\n" << journal;
    at = found;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_path_ + "/supervisor.sock"));
}

TEST_F(SupervisorTest, TokenAndSecretsReachTheAgentsAndNoFile) {
  run_.secrets = {{"API_KEY", "swordfish-77"}};
  FakeLauncher launcher(Obey());
  Supervised(launcher);
  const std::string token = Read("token");
  ASSERT_GE(token.size(), 32u);
  EXPECT_EQ(Count(1, [&](const ToAgent& m) { return m.has_hello() && m.hello().token() == token; }), 1);
  EXPECT_EQ(Count(1,
                  [](const ToAgent& m) {
                    return m.has_start_task() && absl::StrContains(m.SerializeAsString(), "swordfish-77");
                  }),
            1);
  const std::string all = AllFiles();
  EXPECT_FALSE(absl::StrContains(all, "swordfish-77"));
  EXPECT_FALSE(absl::StrContains(all, token));
}

// Its states, in order.
std::vector<std::string> StatesIn(const std::string& journal) {
  std::vector<std::string> states;
  for (const absl::string_view line : absl::StrSplit(journal, '\n', absl::SkipEmpty())) {
    const auto event = nlohmann::json::parse(line);
    if (event["event"] == "state") states.push_back(event["state"]);
  }
  return states;
}

TEST_F(SupervisorTest, AJobThatTheBatchSystemTakesBackHasNoOtherEnd) {
  // As a task that ends, and as a node that is lost.
  for (const bool loses_node : {false, true}) {
    options_.batch_verdict = [] { return BatchVerdict{BatchVerdict::kRequeued, "back into the queue"}; };
    for (Obedient& agent : agents_) agent.keeps_tasks = true;
    FakeLauncher launcher([&](uint32_t node, int) {
      FakeLauncher::Meeting meeting;
      meeting.answer = [&, node](const ToAgent& message, const FakeAgent::Say& say) {
        const bool goes_on = agents_[node].Answer(message, say);
        if (node != 1 || !message.has_start_task()) return goes_on;
        if (!loses_node) Obedient::End(message.start_task().task(), 0, SIGTERM, say);
        return !loses_node;
      };
      return meeting;
    });
    const RunOutcome outcome = Supervised(launcher);
    EXPECT_EQ(outcome.phase, RunPhase::kQueued);
    const std::vector<std::string> states = StatesIn(Read("journal.jsonl"));
    ASSERT_FALSE(states.empty());
    EXPECT_EQ(states.back(), "Queued");
    EXPECT_EQ(std::count(states.begin(), states.end(), "Finalizing"), 0);
    for (Obedient& agent : agents_) agent.started.clear();
  }
}

TEST_F(SupervisorTest, InAnAllocationASecondSigtermKills) {
  options_.batch_verdict = [] { return BatchVerdict{}; };
  options_.limits.cancel_grace = absl::Hours(1);
  for (Obedient& agent : agents_) agent.keeps_tasks = true;
  // The tasks do not heed SIGTERM.
  agents_[1].before = [](const ToAgent& message, const FakeAgent::Say&) {
    if (!message.has_signal_task() || message.signal_task().kill()) return false;
    kill(getpid(), SIGTERM);
    return true;
  };
  options_.on_phase = [](RunPhase phase) {
    if (phase == RunPhase::kRunning) kill(getpid(), SIGTERM);
  };
  FakeLauncher launcher(Obey());
  EXPECT_EQ(Supervised(launcher).phase, RunPhase::kCanceled);
  EXPECT_EQ(Count(1, [](const ToAgent& m) { return m.has_signal_task() && m.signal_task().kill(); }), 1);
}

TEST_F(SupervisorTest, TheBatchSystemIsNotAskedOfEndsThatWereOrdered) {
  // The ps goes on until it is told to stop, because the training is over.
  agents_[0].keeps_tasks = true;
  agents_[0].before = [](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_start_task() || message.start_task().role() != "worker") return false;
    FromAgent reply;
    reply.mutable_task_started()->set_task(1);
    say(reply);
    Obedient::End(1, 0, 0, say);
    return true;
  };
  options_.limits.ps_linger = absl::ZeroDuration();
  int asked = 0;
  options_.batch_verdict = [&asked] { return ++asked, BatchVerdict{}; };
  FakeLauncher launcher(Obey());
  EXPECT_EQ(Supervised(launcher).phase, RunPhase::kCompleted);
  EXPECT_GE(Count(0, [](const ToAgent& m) { return m.has_signal_task(); }), 1);
  EXPECT_EQ(asked, 0);
}

TEST_F(SupervisorTest, AMissingInputNamesItsNodeAndStartsNothing) {
  agents_[1].before = [](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_check_inputs()) return false;
    FromAgent reply;
    reply.mutable_inputs_checked()->add_problems()->set_name("data");
    reply.mutable_inputs_checked()->mutable_problems(0)->set_problem("/data is not there");
    say(reply);
    return true;
  };
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kFailed);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.record.reason, "node h1: inputs: data: /data is not there");
  EXPECT_EQ(Count(0, [](const ToAgent& m) { return m.has_start_task(); }), 0);
  EXPECT_EQ(Count(0, [](const ToAgent& m) { return m.has_bye(); }), 1);
}

TEST_F(SupervisorTest, ABannerBeforeTheFirstLineIsSkippedAndShownWhereThatNeverComes) {
  const auto obey = Obey();
  FakeLauncher good([&](uint32_t node, int connection) {
    FakeLauncher::Meeting meeting = obey(node, connection);
    meeting.first_bytes = "Welcome to the lab!\n" + meeting.first_bytes;
    return meeting;
  });
  EXPECT_EQ(Supervised(good).phase, RunPhase::kCompleted);
  FakeLauncher bad([&](uint32_t node, int connection) {
    FakeLauncher::Meeting meeting = obey(node, connection);
    if (node == 1) meeting = {"This account is for mail only.\n", nullptr};
    return meeting;
  });
  const RunOutcome outcome = Supervised(bad);
  EXPECT_EQ(outcome.phase, RunPhase::kFailed);
  EXPECT_TRUE(absl::StrContains(outcome.record.reason, "node h1: no agent: This account is for mail only."))
      << outcome.record.reason;
}

TEST_F(SupervisorTest, ANodeWithoutProgramsIsToldToTheLauncher) {
  const auto obey = Obey();
  FakeLauncher launcher([&](uint32_t node, int connection) {
    FakeLauncher::Meeting meeting = obey(node, connection);
    if (node == 1) meeting = {"BASIN-NONE aarch64 glibc 2.36\n", nullptr};
    return meeting;
  });
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_TRUE(absl::StrContains(outcome.record.reason, "node h1: cannot be sent: BASIN-NONE aarch64 glibc 2.36"))
      << outcome.record.reason;
}

TEST_F(SupervisorTest, ATakenPortRepeatsTheStartWithoutThatPort) {
  std::atomic<int> starts = 0;
  agents_[0].keeps_tasks = true;  // ps 0 and worker 0 are up when worker 1 fails
  agents_[1].before = [&](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_start_task()) return false;
    FromAgent reply;
    reply.mutable_task_started()->set_task(2);
    say(reply);
    const bool first = starts++ == 0;
    if (!first) agents_[0].keeps_tasks = false;
    Obedient::End(2, first ? 1 : 0, 0, say, first);
    return true;
  };
  // The second time worker 0 ends by itself as well, whichever node is told first.
  agents_[0].before = [&](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_start_task() || message.start_task().role() != "worker" || starts == 0) return false;
    FromAgent reply;
    reply.mutable_task_started()->set_task(1);
    say(reply);
    Obedient::End(1, 0, 0, say);
    return true;
  };
  options_.limits.ps_linger = absl::ZeroDuration();
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kCompleted) << outcome.record.reason;
  EXPECT_EQ(outcome.record.tasks[2].address, "h1:2223");
  EXPECT_TRUE(absl::StrContains(Read("journal.jsonl"), "the start is repeated with other ports (1 of 3)"));
}

TEST_F(SupervisorTest, ADetachedRunReachesANodeAgainWithALargerEpoch) {
  options_.limits.detach_grace = absl::Minutes(10);
  for (Obedient& agent : agents_) agent.keeps_tasks = true;
  Mutex mutex;
  std::vector<uint64_t> epochs;
  const auto obey = Obey();
  FakeLauncher launcher([&](uint32_t node, int connection) {
    FakeLauncher::Meeting meeting = obey(node, connection);
    if (node != 1) return meeting;
    meeting.answer = [&, connection, answer = meeting.answer](const ToAgent& message, const FakeAgent::Say& say) {
      if (message.has_hello()) {
        MutexLock lock(mutex);
        epochs.push_back(message.hello().epoch());
      }
      const bool goes_on = answer(message, say);
      // Cut as soon as its task has started; after that it ends with 0.
      if (connection == 0 && message.has_start_task()) return false;
      if (connection == 1 && message.has_stream_files()) Obedient::End(2, 0, 0, say);
      return goes_on;
    };
    return meeting;
  });
  // Worker 0 ends once the other node has been reached again.
  agents_[0].before = [&](const ToAgent& message, const FakeAgent::Say& say) {
    if (message.has_ping()) {
      MutexLock lock(mutex);
      if (epochs.size() == 2) Obedient::End(1, 0, 0, say);
    }
    return false;
  };
  options_.limits.ping = absl::Milliseconds(50);
  options_.limits.ps_linger = absl::ZeroDuration();
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kCompleted) << outcome.record.reason;
  ASSERT_EQ(epochs.size(), 2u);
  EXPECT_GT(epochs[1], epochs[0]);
  EXPECT_TRUE(absl::StrContains(Read("journal.jsonl"), "\"state\":\"NotResponding\""));
}

TEST_F(SupervisorTest, AnAttachedRunFailsWithTheNodeThatIsLost) {
  for (Obedient& agent : agents_) agent.keeps_tasks = true;
  const auto obey = Obey();
  FakeLauncher launcher([&](uint32_t node, int connection) {
    FakeLauncher::Meeting meeting = obey(node, connection);
    if (node == 1) {
      meeting.answer = [answer = meeting.answer](const ToAgent& message, const FakeAgent::Say& say) {
        return answer(message, say) && !message.has_start_task();
      };
    }
    return meeting;
  });
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kFailed);
  EXPECT_TRUE(absl::StrContains(outcome.record.reason, "node h1: the connection ended")) << outcome.record.reason;
  EXPECT_EQ(launcher.connections(1), 1);
}

TEST_F(SupervisorTest, ANodeIsHeardByWhatTheConnectionKeepsToItself) {
  options_.limits.ping = absl::Milliseconds(100);
  options_.limits.lease = absl::Seconds(6);
  options_.limits.ps_linger = absl::ZeroDuration();
  std::atomic<int> pings[2] = {0, 0};
  for (const uint32_t node : {0, 1}) {
    agents_[node].keeps_tasks = true;
    // All that it says for longer than a lease is how much of the data it has stored.
    agents_[node].before = [&pings, node](const ToAgent& message, const FakeAgent::Say& say) {
      if (!message.has_ping()) return false;
      FromAgent credit;
      credit.mutable_credit()->set_bytes(1);
      say(credit);
      if (++pings[node] == 70) Obedient::End(node == 0 ? 1 : 2, 0, 0, say);
      return true;
    };
  }
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kCompleted) << outcome.record.reason;
}

TEST_F(SupervisorTest, CancelComesThroughTheSocket) {
  for (Obedient& agent : agents_) agent.keeps_tasks = true;
  std::thread canceler;
  options_.on_phase = [&](RunPhase phase) {
    if (phase != RunPhase::kRunning) return;
    canceler = std::thread([&] { EXPECT_TRUE(TellSupervisor(folder_path_, "cancel", absl::Seconds(60)).ok()); });
  };
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  canceler.join();
  EXPECT_EQ(outcome.phase, RunPhase::kCanceled);
  EXPECT_EQ(outcome.record.reason, "canceled by basin cancel");
  EXPECT_EQ(Read("outputs/model.txt"), "weights");
}

TEST_F(SupervisorTest, WhatTheAgentLeavesOutStaysOnItsNode) {
  agents_[1].before = [](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_collect_outputs()) return false;
    FromAgent reply;
    reply.mutable_collected()->add_left_out("worker/1/outputs/huge.bin (120 GB)");
    reply.mutable_collected()->add_left_out("worker/1/logs/1001 (beyond)");
    reply.mutable_collected()->set_left_out_count(200);
    say(reply);
    return true;
  };
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kCompleted);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.record.reason,
            "not stored here: 200 files (worker/1/outputs/huge.bin (120 GB), ...; the journal names 2); kept on node "
            "h1 in /base/runs/r1/node, which is yours to remove");
  EXPECT_TRUE(absl::StrContains(Read("journal.jsonl"), "\"/base/runs/r1/node\"")) << "`basin delete` looks there";
  const auto keeps = [](const ToAgent& m) { return m.has_bye() && m.bye().keep_folder(); };
  EXPECT_EQ(Count(0, keeps), 0);
  EXPECT_EQ(Count(1, keeps), 1);
}

TEST_F(SupervisorTest, OutputsThatCannotBeStoredAreNeitherDeletedNorForgotten) {
  // In place of a full disk: a file stands where the folder of the model must be.
  agents_[0].before = [this](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_collect_outputs()) return false;
    EXPECT_TRUE(WriteFileAtomically(folder_path_ + "/outputs/model", "in the way").ok());
    FromAgent chunk, reply;
    chunk.mutable_file_chunk()->set_stream(estimator::v1::OUTPUT);
    chunk.mutable_file_chunk()->set_task(1);
    chunk.mutable_file_chunk()->set_path("model/net.bin");
    chunk.mutable_file_chunk()->set_data("weights");
    chunk.mutable_file_chunk()->set_last(true);
    say(chunk);
    reply.mutable_collected()->set_files(1);
    say(reply);
    return true;
  };
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kCompleted);
  EXPECT_EQ(outcome.exit_code, 1) << "who goes on with the model must not think that it is here";
  EXPECT_EQ(outcome.record.exit_code, 1);
  EXPECT_TRUE(absl::StrContains(outcome.record.reason, "worker/0/outputs/model/net.bin (could not be stored here)"))
      << outcome.record.reason;
  const auto keeps = [](const ToAgent& m) { return m.has_bye() && m.bye().keep_folder(); };
  EXPECT_EQ(Count(0, keeps), 1);
  EXPECT_EQ(Count(1, keeps), 0);
  EXPECT_TRUE(absl::StrContains(Read("journal.jsonl"), "worker/0/outputs/model/net.bin"));
}

TEST_F(SupervisorTest, AnAgentOfAnotherVersionIsRefused) {
  agents_[1].before = [](const ToAgent& message, const FakeAgent::Say& say) {
    if (!message.has_hello()) return false;
    FromAgent reply;
    reply.mutable_welcome()->set_version("0.0.1");
    say(reply);
    return true;
  };
  FakeLauncher launcher(Obey());
  const RunOutcome outcome = Supervised(launcher);
  EXPECT_EQ(outcome.phase, RunPhase::kFailed);
  EXPECT_TRUE(absl::StrContains(outcome.record.reason, "node h1: its agent is of Basin 0.0.1, this is"));
}

}  // namespace
}  // namespace basin
