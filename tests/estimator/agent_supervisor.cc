#include "tests/estimator/agent_supervisor.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "common/base/secret.h"

namespace basin::testing {
namespace {

constexpr char kMark[] = "BASIN_TEST_MARK";

bool IsZombie(const std::string& pid) {
  const std::string stat = Content("/proc/" + pid + "/stat");
  const size_t at = stat.rfind(')');
  return at == std::string::npos || at + 2 >= stat.size() || stat[at + 2] == 'Z' || stat[at + 2] == 'X';
}

}  // namespace

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

bool WaitUntil(const std::function<bool()>& condition, absl::Duration deadline) {
  const absl::Time end = absl::Now() + deadline;
  while (!condition()) {
    if (absl::Now() > end) return false;
    poll(nullptr, 0, 10);
  }
  return true;
}

Playground::Playground() : mark_(SecretHex(16)) {
  char name[] = "/tmp/basin_agent_test_XXXXXX";
  path_ = mkdtemp(name);
  setenv(kMark, mark_.c_str(), 1);
}

Playground::~Playground() {
  for (const auto& [pid, command] : Marked()) kill(pid, SIGKILL);
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::vector<std::pair<pid_t, std::string>> Playground::Marked() const {
  std::vector<std::pair<pid_t, std::string>> found;
  DIR* proc = opendir("/proc");
  while (const dirent* entry = readdir(proc)) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid) || pid == getpid()) continue;
    const std::string folder = absl::StrCat("/proc/", pid);
    if (!absl::StrContains(Content(folder + "/environ"), absl::StrCat(kMark, "=", mark_))) continue;
    if (IsZombie(entry->d_name)) continue;
    found.emplace_back(pid, absl::StrReplaceAll(Content(folder + "/cmdline"), {{std::string(1, '\0'), " "}}));
  }
  closedir(proc);
  return found;
}

std::vector<pid_t> Playground::MarkedWith(const std::string& text) const {
  std::vector<pid_t> pids;
  for (const auto& [pid, command] : Marked()) {
    if (absl::StrContains(command, text)) pids.push_back(pid);
  }
  return pids;
}

bool Playground::WaitUntilRuns(const std::vector<std::string>& commands) const {
  return WaitUntil([&] {
    const std::vector<std::pair<pid_t, std::string>> all = Marked();
    return std::all_of(commands.begin(), commands.end(), [&](const std::string& command) {
      return std::any_of(all.begin(), all.end(), [&](const auto& one) { return one.second == command + " "; });
    });
  });
}

bool Playground::WaitUntilNothingIsLeft() const {
  const bool gone = WaitUntil([this] { return Marked().empty(); });
  for (const auto& [pid, command] : Marked()) ADD_FAILURE() << "still there: " << pid << " " << command;
  return gone;
}

TestSupervisor::TestSupervisor(const Playground& ground, const std::string& run, const std::vector<std::string>& more)
    : run_(run), errors_path_(absl::StrCat(ground.path(), "/relay-", SecretHex(4), ".err")) {
  signal(SIGPIPE, SIG_IGN);
  int in[2], out[2];
  EXPECT_EQ(pipe2(in, O_CLOEXEC), 0);
  EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
  const std::string program = absl::StrCat(std::getenv("BASIN_BINARY_DIR"), "/bin/basin");
  relay_ = fork();
  if (relay_ == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(open(errors_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), 2);
    for (const std::string& variable : more) putenv(strdup(variable.c_str()));
    execl(program.c_str(), "basin", "agent", "--run", run.c_str(), "--node", "0", "--base", ground.base().c_str(),
          nullptr);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  input_ = UniqueFd(in[1]);
  output_ = UniqueFd(out[0]);
  fcntl(input_.get(), F_SETFL, O_NONBLOCK);
  fcntl(output_.get(), F_SETFL, O_NONBLOCK);
  channel_ = std::make_unique<Channel>(output_.get(), input_.get());
}

TestSupervisor::~TestSupervisor() { KillRelay(); }

void TestSupervisor::KillRelay() {
  if (relay_ <= 0) return;
  kill(relay_, SIGKILL);
  waitpid(relay_, nullptr, 0);
  relay_ = 0;
}

std::string TestSupervisor::errors() const { return Content(errors_path_); }

bool TestSupervisor::MeetAgent() {
  MagicReader reader;
  const absl::Time end = absl::Now() + kDeadline;
  while (absl::Now() < end) {
    pollfd wait = {output_.get(), POLLIN, 0};
    if (poll(&wait, 1, 1000) <= 0) continue;
    char bytes[4096];
    const ssize_t got = read(output_.get(), bytes, sizeof bytes);
    if (got <= 0) return false;
    std::string rest;
    const absl::StatusOr<bool> found = reader.Take(std::string(bytes, static_cast<size_t>(got)), &rest);
    if (!found.ok()) return false;
    if (*found) return channel_->Take(rest).ok();
  }
  return false;
}

void TestSupervisor::Send(const agent::ToAgent& message) {
  ASSERT_TRUE(channel_->SendControl(message.SerializeAsString()).ok());
  channel_->Flush().IgnoreError();
}

void TestSupervisor::SendRaw(const std::string& bytes) {
  [[maybe_unused]] const ssize_t ignored = write(input_.get(), bytes.data(), bytes.size());
}

agent::Hello TestSupervisor::HelloOf(uint64_t epoch, uint32_t grace_ms) const {
  agent::Hello hello;
  hello.set_run_id(run_);
  hello.set_epoch(epoch);
  hello.set_token(token);
  hello.set_lease_ms(600'000);  // it does not ping
  hello.set_grace_ms(grace_ms);
  hello.set_cancel_grace_ms(cancel_grace_ms);
  return hello;
}

agent::Welcome TestSupervisor::Join(uint64_t epoch, uint32_t grace_ms) {
  EXPECT_TRUE(MeetAgent()) << errors();
  agent::ToAgent message;
  *message.mutable_hello() = HelloOf(epoch, grace_ms);
  Send(message);
  return Next(agent::FromAgent::kWelcome).welcome();
}

void TestSupervisor::TakeMessages() {
  std::string bytes;
  while (channel_->Next(&bytes)) {
    agent::FromAgent message;
    if (!message.ParseFromString(bytes)) stream_problem = "a frame that is no message";
    if (message.body_case() == agent::FromAgent::kCredit) {
      channel_->AddCredit(message.credit().bytes());
    } else if (message.body_case() != agent::FromAgent::kFileChunk) {
      messages_.push_back(std::move(message));
    } else {
      const agent::FileChunk& chunk = message.file_chunk();
      if (const uint64_t credit = meter_.Stored(chunk.data().size()); credit > 0) {
        agent::ToAgent answer;
        answer.mutable_credit()->set_bytes(credit);
        Send(answer);
      }
      if (chunk.stream() == agent::OUTPUT) {
        outputs.push_back(chunk);
        continue;
      }
      std::string& text = streams[{chunk.stream(), chunk.task(), chunk.path()}];
      if (chunk.offset() != text.size()) {
        stream_problem = absl::StrCat(chunk.path(), ": offset ", chunk.offset(), ", has ", text.size());
      }
      text += chunk.data();
    }
  }
}

bool TestSupervisor::PumpUntil(const std::function<bool()>& done, absl::Duration deadline) {
  const absl::Time end = absl::Now() + deadline;
  TakeMessages();
  while (!done()) {
    if (ended_ || absl::Now() > end) return false;
    pollfd waits[] = {{reads_ ? output_.get() : -1, POLLIN, 0},
                      {channel_->wants_to_write() ? input_.get() : -1, POLLOUT, 0}};
    poll(waits, 2, 20);
    channel_->Flush().IgnoreError();
    if (reads_ && !channel_->Fill().ok()) ended_ = true;
    TakeMessages();
  }
  return true;
}

bool TestSupervisor::Has(agent::FromAgent::BodyCase kind) const {
  return std::any_of(messages_.begin(), messages_.end(),
                     [&](const auto& message) { return message.body_case() == kind; });
}

agent::FromAgent TestSupervisor::Next(agent::FromAgent::BodyCase kind) {
  if (!PumpUntil([&] { return Has(kind); })) {
    ADD_FAILURE() << "no message of kind " << kind << (ended_ ? "; the relay has ended: " : ""), errors();
    for (const auto& message : messages_) ADD_FAILURE() << message.body_case() << " " << message.refused().reason();
    return {};
  }
  const auto at = std::find_if(messages_.begin(), messages_.end(),
                               [&](const auto& message) { return message.body_case() == kind; });
  agent::FromAgent message = std::move(*at);
  messages_.erase(at);
  return message;
}

agent::TaskExited TestSupervisor::WaitForEnd(uint32_t task) {
  const auto is_end = [&](const agent::FromAgent& message) {
    return message.body_case() == agent::FromAgent::kTaskExited && message.task_exited().task() == task;
  };
  const auto is_gone = [&](const agent::FromAgent& message) {
    return message.body_case() == agent::FromAgent::kTaskGone && message.task_gone().task() == task;
  };
  const bool came = PumpUntil([&] {
    return std::any_of(messages_.begin(), messages_.end(), is_end) &&
           std::any_of(messages_.begin(), messages_.end(), is_gone);
  });
  EXPECT_TRUE(came) << "task " << task << " has not ended";
  if (!came) return {};
  const auto end = std::find_if(messages_.begin(), messages_.end(), is_end);
  EXPECT_LT(end - messages_.begin(), std::find_if(messages_.begin(), messages_.end(), is_gone) - messages_.begin());
  agent::TaskExited exited = end->task_exited();
  std::erase_if(messages_, [&](const auto& message) { return is_end(message) || is_gone(message); });
  return exited;
}

void TestSupervisor::StreamFiles() {
  agent::ToAgent message;
  for (const auto& [key, text] : streams) {
    agent::FilePosition* position = message.mutable_stream_files()->add_positions();
    position->set_stream(static_cast<agent::StreamKind>(std::get<0>(key)));
    position->set_task(std::get<1>(key));
    position->set_path(std::get<2>(key));
    position->set_offset(text.size());
  }
  message.mutable_stream_files();
  Send(message);
}

std::string TestSupervisor::Stream(agent::StreamKind kind, uint32_t task, const std::string& path) const {
  const auto found = streams.find({kind, task, path});
  return found == streams.end() ? "" : found->second;
}

size_t TestSupervisor::LogBytes(uint32_t task) const {
  const auto found = streams.find({agent::LOG, task, ""});
  return found == streams.end() ? 0 : found->second.size();
}

agent::ToAgent TestSupervisor::Bash(uint32_t task, const std::string& script) {
  agent::ToAgent message;
  agent::StartTask& start = *message.mutable_start_task();
  start.set_task(task);
  start.set_role("worker");
  start.set_index(task);
  for (const std::string& word : {std::string("bash"), std::string("-c"), script}) start.add_argv(word);
  return message;
}

}  // namespace basin::testing
