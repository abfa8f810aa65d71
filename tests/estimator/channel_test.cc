#include "estimator/agent/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace basin {
namespace {

std::string Frame(const std::string& message) {
  std::string frame(4, '\0');
  for (int i = 0; i < 4; ++i) frame[i] = static_cast<char>(message.size() >> (8 * i));
  return frame + message;
}

// Two ends of a socket, both non-blocking.
class ChannelTest : public ::testing::Test {
 protected:
  ChannelTest() {
    signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds_), 0);
  }
  ~ChannelTest() override {
    for (const int fd : fds_) {
      if (fd >= 0) close(fd);
    }
  }
  void CloseFar() {
    close(fds_[1]);
    fds_[1] = -1;
  }
  static std::vector<std::string> Received(Channel& channel) {
    std::vector<std::string> all;
    std::string message;
    while (channel.Next(&message)) all.push_back(message);
    return all;
  }

  int fds_[2] = {-1, -1};
};

TEST_F(ChannelTest, MessagesArriveWholeAndInOrderHoweverTheyAreCut) {
  Channel near(fds_[0], fds_[0]);
  const std::string stream = Frame("one") + Frame("") + Frame(std::string(70'000, 'x')) + Frame("four");
  std::vector<std::string> all;
  for (size_t at = 0, step = 1; at < stream.size(); at += step, step = step * 2 + 1) {
    ASSERT_GT(write(fds_[1], stream.data() + at, std::min(step, stream.size() - at)), 0);
    ASSERT_TRUE(near.Fill().ok());
    for (std::string& message : Received(near)) all.push_back(std::move(message));
  }
  EXPECT_EQ(all, (std::vector<std::string>{"one", "", std::string(70'000, 'x'), "four"}));
}

TEST_F(ChannelTest, ControlOvertakesDataThatWaits) {
  Channel near(fds_[0], fds_[0]);
  Channel far(fds_[1], fds_[1]);
  ASSERT_TRUE(near.SendData("data 1", 6).ok());
  ASSERT_TRUE(near.SendData("data 2", 6).ok());
  ASSERT_TRUE(near.SendControl("control 1").ok());
  ASSERT_TRUE(near.SendControl("control 2").ok());
  ASSERT_TRUE(near.Flush().ok());
  EXPECT_FALSE(near.wants_to_write());
  ASSERT_TRUE(far.Fill().ok());
  EXPECT_EQ(Received(far), (std::vector<std::string>{"control 1", "control 2", "data 1", "data 2"}));
}

TEST_F(ChannelTest, DataStopsAtTheWindowAndGoesOnWithCredit) {
  Channel near(fds_[0], fds_[0]);
  Channel far(fds_[1], fds_[1]);
  const auto send_all = [&] {
    size_t sent = 0;
    while (near.CanSendData()) {
      EXPECT_TRUE(near.SendData(std::string(kMostDataBytes, 'd'), kMostDataBytes).ok());
      sent += kMostDataBytes;
      EXPECT_TRUE(near.Flush().ok());
      EXPECT_TRUE(far.Fill().ok());
      Received(far);
    }
    return sent;
  };
  EXPECT_EQ(send_all(), kDataWindowBytes);
  near.AddCredit(kMostDataBytes);
  EXPECT_EQ(send_all(), kMostDataBytes);
  // Credit that was never owed gives no larger window.
  near.AddCredit(~uint64_t{0});
  EXPECT_EQ(send_all(), kDataWindowBytes);
}

TEST_F(ChannelTest, DataWaitsForItsPredecessorsToLeave) {
  Channel near(fds_[0], fds_[0]);
  int sent = 0;
  while (near.CanSendData()) {
    ASSERT_TRUE(near.SendData(std::string(kMostDataBytes, 'd'), kMostDataBytes).ok());
    ASSERT_LT(++sent, 32);  // nothing was flushed: memory is not taken for the whole window
  }
  EXPECT_GT(sent, 0);
}

TEST_F(ChannelTest, ControlIsBoundedWhereThePeerDoesNotRead) {
  Channel near(fds_[0], fds_[0]);
  absl::Status status;
  size_t queued = 0;
  while (status.ok() && queued < 2 * kMostQueuedControlBytes) {
    status = near.SendControl(std::string(1 << 20, 'c'));
    queued += 1 << 20;
    if (status.ok()) status = near.Flush();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(near.wants_to_write());
}

TEST_F(ChannelTest, AMessageLongerThanAFrameIsNotSent) {
  Channel near(fds_[0], fds_[0]);
  EXPECT_EQ(near.SendControl(std::string(kMostFrameBytes + 1, 'x')).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(near.wants_to_write());
  EXPECT_TRUE(near.SendControl(std::string(kMostFrameBytes, 'x')).ok());
}

TEST_F(ChannelTest, AHostileLengthIsRefusedBeforeItsBytesCome) {
  Channel near(fds_[0], fds_[0]);
  const std::string hostile = Frame("fine") + std::string("\xff\xff\xff\x7f", 4);
  ASSERT_EQ(write(fds_[1], hostile.data(), hostile.size()), static_cast<ssize_t>(hostile.size()));
  ASSERT_TRUE(near.Fill().ok());
  EXPECT_EQ(Received(near), std::vector<std::string>{"fine"});
  ASSERT_EQ(write(fds_[1], "more", 4), 4);
  const absl::Status status = near.Fill();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("2147483647"), absl::string_view::npos) << status;
  EXPECT_TRUE(Received(near).empty());
}

TEST_F(ChannelTest, WhatCameWholeBeforeTheEndIsStillGiven) {
  Channel near(fds_[0], fds_[0]);
  const std::string cut = Frame("whole") + Frame("cut short").substr(0, 8);
  ASSERT_EQ(write(fds_[1], cut.data(), cut.size()), static_cast<ssize_t>(cut.size()));
  CloseFar();
  absl::Status status = near.Fill();
  if (status.ok()) status = near.Fill();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(near.received(), cut.size());
  EXPECT_EQ(near.Fill().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(near.received(), cut.size());  // an end brings nothing
  EXPECT_EQ(Received(near), std::vector<std::string>{"whole"});
}

TEST_F(ChannelTest, WritingToAPeerThatIsGoneIsUnavailable) {
  Channel near(fds_[0], fds_[0]);
  CloseFar();
  ASSERT_TRUE(near.SendControl("anyone?").ok());
  EXPECT_EQ(near.Flush().code(), absl::StatusCode::kUnavailable);
}

TEST(CreditMeterTest, AllThatIsStoredComesBackInLargePieces) {
  CreditMeter meter;
  uint64_t given = 0, pieces = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t credit = meter.Stored(10'000);
    given += credit;
    pieces += credit > 0;
  }
  EXPECT_LE(10'000'000 - given, kDataWindowBytes / 4);
  EXPECT_LT(pieces, 20u);
}

absl::StatusOr<bool> TakeInSteps(MagicReader& reader, const std::string& text, size_t step, std::string* rest) {
  for (size_t at = 0; at < text.size(); at += step) {
    absl::StatusOr<bool> found = reader.Take(text.substr(at, step), rest);
    if (!found.ok()) return found;
    if (*found) {
      if (at + step < text.size()) *rest += text.substr(at + step);
      return true;
    }
  }
  return false;
}

TEST(MagicReaderTest, TheMagicIsFoundAfterBannersHoweverTheStreamIsCut) {
  for (const std::string& banner :
       {std::string(), std::string("Welcome to host 7!\n"), std::string("no newline at its end"),
        std::string("BASIN-AGENT is nice\nBASIN-AGENT 12x\n"), std::string(kMostBytesBeforeMagic, 'b')}) {
    for (const size_t step : {size_t{1}, size_t{3}, size_t{1000}, size_t{1} << 20}) {
      MagicReader reader;
      std::string rest;
      const auto found = TakeInSteps(reader, banner + "BASIN-AGENT 1 0.1.0\n\x05\0\0\0hello", step, &rest);
      ASSERT_TRUE(found.ok()) << found.status();
      ASSERT_TRUE(*found);
      EXPECT_EQ(reader.version(), "0.1.0");
      EXPECT_EQ(reader.skipped(), banner);
      EXPECT_EQ(rest.substr(0, 1), "\x05");
    }
  }
}

TEST(MagicReaderTest, TooMuchTextBeforeIsAnErrorThatShowsTheLastOfIt) {
  MagicReader reader;
  std::string rest;
  const auto found = TakeInSteps(
      reader,
      std::string(kMostBytesBeforeMagic, 'b') + "\nbash: basin: command not found \x1b[31m\nBASIN-AGENT 1 0.1.0\n",
      size_t{1} << 20, &rest);
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(found.status().message().find("command not found ?[31m"), absl::string_view::npos) << found.status();
}

TEST(MagicReaderTest, WithoutTheMagicTheTextIsKeptForTheError) {
  MagicReader reader;
  std::string rest;
  const auto found = reader.Take("bash: basin: command not found\n", &rest);
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(*found);
  EXPECT_EQ(reader.skipped(), "bash: basin: command not found\n");
}

TEST(MagicReaderTest, AnotherProtocolIsRefusedByItsNumber) {
  MagicReader reader;
  std::string rest;
  const auto found = reader.Take("BASIN-AGENT 2 9.0\n", &rest);
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(found.status().message().find("protocol 2"), absl::string_view::npos);
}

TEST(MagicReaderTest, AFirstLineThatNeverEndsIsRefused) {
  MagicReader reader;
  std::string rest;
  const auto found = TakeInSteps(reader, "BASIN-AGENT 1 " + std::string(1000, 'v'), 10, &rest);
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace basin
