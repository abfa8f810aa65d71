// A launcher and agents in memory, for the tests of the supervisor: real pipes and frames, no process.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "estimator/agent/agent.pb.h"
#include "estimator/agent/channel.h"
#include "estimator/launch/launcher.h"

namespace basin {

using estimator::v1::FromAgent;
using estimator::v1::ToAgent;

// One connection of a fake agent: answers each message by a function, until that closes it or the supervisor does.
class FakeAgent {
 public:
  using Say = std::function<void(const FromAgent&)>;
  // False: the connection ends.
  using Answer = std::function<bool(const ToAgent&, const Say&)>;

  FakeAgent(int in, int out, std::string first_bytes, Answer answer)
      : thread_([=, this, answer = std::move(answer)] {
          [[maybe_unused]] ssize_t ignored = write(out, first_bytes.data(), first_bytes.size());
          Serve(in, out, answer);
          close(in);
          close(out);
        }) {}
  ~FakeAgent() { thread_.join(); }

 private:
  static void Serve(int in, int out, const Answer& answer) {
    if (!answer) return;
    FrameReader reader;
    const Say say = [out](const FromAgent& message) {
      const std::string text = message.SerializeAsString();
      const uint32_t size = static_cast<uint32_t>(text.size());
      const std::string frame = std::string(reinterpret_cast<const char*>(&size), 4) + text;
      [[maybe_unused]] ssize_t ignored = write(out, frame.data(), frame.size());
    };
    char buffer[4096];
    for (ssize_t got; (got = read(in, buffer, sizeof(buffer))) > 0;) {
      EXPECT_TRUE(reader.Take(absl::string_view(buffer, static_cast<size_t>(got))).ok());
      for (std::string text; reader.Next(&text);) {
        ToAgent message;
        EXPECT_TRUE(message.ParseFromString(text));
        if (!answer(message, say)) return;
      }
    }
  }
  std::thread thread_;
};

class FakeLauncher final : public Launcher {
 public:
  // What the n-th connection (from 0) to a node meets.
  struct Meeting {
    std::string first_bytes = absl::StrCat(kAgentMagic, BASIN_VERSION, "\n");
    FakeAgent::Answer answer;
  };
  using Plot = std::function<Meeting(uint32_t node, int connection)>;
  explicit FakeLauncher(Plot plot) : plot_(std::move(plot)) {}

  absl::StatusOr<AgentPipe> Open(const AgentRequest& request) override {
    Meeting meeting = plot_(request.node, connections_[request.node]++);
    int to[2], from[2], errors[2];
    EXPECT_EQ(pipe2(to, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(from, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(errors, O_CLOEXEC), 0);
    close(errors[1]);
    for (const int fd : {to[1], from[0], errors[0]}) fcntl(fd, F_SETFL, O_NONBLOCK);
    agents_.push_back(std::make_unique<FakeAgent>(to[0], from[1], meeting.first_bytes, meeting.answer));
    return AgentPipe{0, to[1], from[0], errors[0]};
  }
  absl::StatusOr<ProgramsTransfer> SendPrograms(const AgentRequest&, const std::string& text) override {
    return absl::FailedPreconditionError(absl::StrCat("cannot be sent: ", text));
  }
  std::string Complaint(const AgentRequest&, const PipeEnd& end) override {
    return absl::StrCat("no agent: ", end.printed);
  }
  int connections(uint32_t node) { return connections_[node]; }

 private:
  Plot plot_;
  std::map<uint32_t, int> connections_;
  std::vector<std::unique_ptr<FakeAgent>> agents_;
};

// An agent that does all that it is asked, and whose tasks end with 0 at once. Shared by its connections.
struct Obedient {
  // Where given, sees each message first; true: it has dealt with it.
  std::function<bool(const ToAgent&, const FakeAgent::Say&)> before;
  std::atomic<bool> keeps_tasks = false;  // tasks run until they are told to stop
  std::vector<ToAgent> seen;
  std::map<uint32_t, int> started;
  std::set<uint32_t> alive;
  Mutex mutex;

  bool Answer(const ToAgent& message, const FakeAgent::Say& say) {
    MutexLock lock(mutex);  // of each connection a thread
    seen.push_back(message);
    if (before && before(message, say)) return true;
    FromAgent reply;
    if (message.has_hello()) {
      reply.mutable_welcome()->set_version(BASIN_VERSION);
      reply.mutable_welcome()->set_node_folder("/base/runs/r1/node");
      reply.mutable_welcome()->set_rejoined(!started.empty());
      for (const auto& [task, pid] : started) {
        reply.mutable_welcome()->add_started()->set_task(task);
        reply.mutable_welcome()->mutable_started()->rbegin()->set_pid(pid);
      }
      say(reply);
    } else if (message.has_check_inputs()) {
      reply.mutable_inputs_checked();
      say(reply);
    } else if (message.has_hold_ports()) {
      uint32_t port = 2222;
      for (uint32_t i = 0; i < message.hold_ports().count(); ++port) {
        bool avoided = false;
        for (const uint32_t avoid : message.hold_ports().avoid()) avoided = avoided || avoid == port;
        if (avoided) continue;
        reply.mutable_ports_held()->add_ports(port);
        ++i;
      }
      if (message.hold_ports().count() == 0) reply.mutable_ports_held();
      say(reply);
    } else if (message.has_start_task()) {
      const uint32_t task = message.start_task().task();
      started[task] = 100 + static_cast<int>(task);
      reply.mutable_task_started()->set_task(task);
      reply.mutable_task_started()->set_pid(started[task]);
      say(reply);
      if (keeps_tasks) {
        alive.insert(task);
      } else {
        End(task, 0, 0, say);
      }
    } else if (message.has_signal_task()) {
      const uint32_t task = message.signal_task().task();
      if (alive.erase(task) > 0) End(task, 0, 15, say);
    } else if (message.has_collect_outputs()) {
      FromAgent chunk;
      chunk.mutable_file_chunk()->set_stream(estimator::v1::OUTPUT);
      chunk.mutable_file_chunk()->set_path("model.txt");
      chunk.mutable_file_chunk()->set_data("weights");
      chunk.mutable_file_chunk()->set_last(true);
      for (const auto& [task, pid] : started) {
        chunk.mutable_file_chunk()->set_task(task);
        say(chunk);
      }
      reply.mutable_collected();
      say(reply);
    } else if (message.has_bye()) {
      reply.mutable_goodbye();
      say(reply);
      return false;
    }
    return true;
  }
  static void End(uint32_t task, int code, int signal, const FakeAgent::Say& say, bool port_taken = false) {
    FromAgent exited, gone;
    exited.mutable_task_exited()->set_task(task);
    exited.mutable_task_exited()->set_code(code);
    exited.mutable_task_exited()->set_signal(signal);
    exited.mutable_task_exited()->set_port_taken(port_taken);
    gone.mutable_task_gone()->set_task(task);
    say(exited);
    say(gone);
  }
};

}  // namespace basin
