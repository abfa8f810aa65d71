#include "common/format/event_file.h"

#include <gtest/gtest.h>

#include <string>

namespace basin {
namespace {

std::string Hex(const std::string& bytes) {
  std::string out;
  for (const unsigned char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof(two), "%02x", c);
    out += two;
  }
  return out;
}

// Written by TensorFlow's own writer (tests/estimator/tensorboard_test.py reads ours with TensorBoard's).
TEST(EventFileTest, TheFirstRecordNamesTheVersion) {
  const std::string header = EventFileHeader(0.0);
  EXPECT_EQ(header.size(), 8u + 4 + 24 + 4);
  EXPECT_NE(header.find("brain.Event:2"), std::string::npos);
  EXPECT_EQ(Hex(header.substr(0, 12)), "1800000000000000a37f4b22") << "length 24 and its masked CRC32C";
}

TEST(EventFileTest, AScalarHasTheBytesOfItsMessage) {
  const std::string record = ScalarEvent(1.0, 300, "loss", 0.5);
  EXPECT_EQ(Hex(record.substr(12, record.size() - 16)),
            "09000000000000f03f"                // wall_time 1.0
            "10ac02"                            // step 300
            "2a0d0a0b0a046c6f7373150000003f");  // summary {value {tag "loss", simple_value 0.5}}
}

TEST(EventFileTest, NegativeStepsAndEmptyTagsAreSound) {
  const std::string record = ScalarEvent(1.0, -1, "", 1e300);
  EXPECT_EQ(ScanEventFile(record).records, 1u);
  EXPECT_NE(Hex(record).find("10ffffffffffffffffff01"), std::string::npos);
}

TEST(EventFileTest, AScanStopsAtWhatIsTornOrDamaged) {
  const std::string head = EventFileHeader(1), one = ScalarEvent(1, 1, "a", 1), two = ScalarEvent(2, 2, "b", 2);
  const std::string all = head + one + two;
  EXPECT_EQ(ScanEventFile(all).records, 3u);
  EXPECT_EQ(ScanEventFile(all).sound_bytes, all.size());
  for (size_t cut = 1; cut <= two.size(); ++cut) {
    const EventFileScan scan = ScanEventFile(absl::string_view(all).substr(0, all.size() - cut));
    EXPECT_EQ(scan.records, 2u) << cut;
    EXPECT_EQ(scan.sound_bytes, head.size() + one.size()) << cut;
  }
  for (size_t at = 0; at < one.size(); ++at) {
    std::string damaged = all;
    damaged[head.size() + at] ^= 0x10;
    EXPECT_EQ(ScanEventFile(damaged).records, 1u) << at;
  }
  EXPECT_EQ(ScanEventFile("").records, 0u);
  EXPECT_EQ(ScanEventFile(std::string(64, '\xff')).records, 0u);
}

}  // namespace
}  // namespace basin
