#include "estimator/agent/mpi_door.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

class MpiDoorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/mpi-door-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    base_ = path;
    auto folder = MakeNodeFolder(base_ + std::string(100, 'x'), "r1", 0);  // longer than a socket's path may be
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_ = *std::move(folder);
    auto door = MpiDoor::Open(folder_);
    ASSERT_TRUE(door.ok()) << door.status();
    door_.emplace(*std::move(door));
  }
  void TearDown() override {
    std::filesystem::remove_all(base_);
    std::filesystem::remove_all(base_ + std::string(100, 'x'));
  }
  // The next call.
  agent::MpiCall Next() {
    for (std::vector<agent::MpiCall> calls;;) {
      std::vector<pollfd> waits;
      door_->AddWaits(&waits);
      poll(waits.data(), waits.size(), 10'000);
      calls = door_->Poll();
      if (!calls.empty()) return calls[0];
    }
  }
  static agent::MpiCall Rank(uint32_t rank) {
    agent::MpiCall call;
    call.mutable_rank()->set_rank(rank);
    agent::Variable* variable = call.mutable_rank()->add_environment();
    variable->set_name("PMIX_RANK");
    variable->set_value(std::string(100'000, 'v'));
    return call;
  }

  std::string base_;
  NodeFolder folder_;
  std::optional<MpiDoor> door_;
};

TEST_F(MpiDoorTest, ARankIsAnsweredWhenItHasEnded) {
  absl::StatusOr<agent::MpiAnswer> answer;
  std::thread caller([&] { answer = CallAgent(folder_.path, Rank(3)); });
  const agent::MpiCall call = Next();
  EXPECT_EQ(call.rank().rank(), 3u);
  EXPECT_EQ(call.rank().environment(0).value().size(), 100'000u);
  door_->AnswerRank(2, 7, "another's");
  door_->AnswerRank(3, 0, "");
  caller.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->code(), 0);
}

TEST_F(MpiDoorTest, ADaemonIsToldWhatIsWrong) {
  agent::MpiCall daemon;
  daemon.mutable_daemon()->set_node(1);
  daemon.mutable_daemon()->set_command("orted -mca a \"b\"");
  absl::StatusOr<agent::MpiAnswer> answer;
  std::thread caller([&] { answer = CallAgent(folder_.path, daemon); });
  EXPECT_EQ(Next().daemon().command(), "orted -mca a \"b\"");
  door_->AnswerDaemon(1, "no");
  caller.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->problem(), "no");
  EXPECT_NE(answer->code(), 0);
}

TEST_F(MpiDoorTest, WhoWaitsIsReleasedByTheEndOfTheAgent) {
  absl::StatusOr<agent::MpiAnswer> answer;
  std::thread caller([&] { answer = CallAgent(folder_.path, Rank(0)); });
  Next();
  door_.reset();
  caller.join();
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
}

TEST_F(MpiDoorTest, WithoutAnAgentTheCallFailsAtOnce) {
  door_.reset();
  EXPECT_FALSE(CallAgent(folder_.path, Rank(0)).ok());
  EXPECT_FALSE(CallAgent(base_ + "/not-there", Rank(0)).ok());
}

TEST_F(MpiDoorTest, WhoSpeaksNonsenseIsCut) {
  const auto socket = ConnectIn(folder_, "mpi.sock");
  ASSERT_TRUE(socket.ok()) << socket.status();
  const std::string nonsense("\xff\xff\xff\xff nonsense", 13);
  ASSERT_EQ(send(socket->get(), nonsense.data(), nonsense.size(), 0), 13);
  char byte;
  ssize_t got = -1;
  for (int i = 0; i < 1000 && got < 0; ++i) {
    EXPECT_TRUE(door_->Poll().empty());
    got = recv(socket->get(), &byte, 1, MSG_DONTWAIT);
  }
  EXPECT_EQ(got, 0);
}

}  // namespace
}  // namespace basin
