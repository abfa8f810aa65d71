#include "common/format/safetensors.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/random.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

// A header's length as the file has it, and the header.
std::string Head(const std::string& json) {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8)
    bytes.push_back(static_cast<char>(static_cast<uint64_t>(json.size()) >> shift & 0xff));
  return bytes + json;
}

using Metadata = std::map<std::string, std::string>;

template <typename T>
absl::Span<const char> Bytes(const std::vector<T>& values) {
  return absl::MakeConstSpan(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
std::vector<T> ReadAll(const SafetensorsReader& reader, size_t index, size_t count, uint64_t offset = 0) {
  std::vector<T> values(count);
  const absl::Status status =
      reader.Read(index, offset, absl::MakeSpan(reinterpret_cast<char*>(values.data()), count * sizeof(T)));
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

class SafetensorsTest : public testing::Test {
 protected:
  std::string path() const { return folder_ / "model.safetensors"; }
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(std::vector<TensorInfo> tensors,
                                                            const Metadata& metadata = {}) {
    return SafetensorsWriter::Create(path(), std::move(tensors), metadata);
  }
  absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenBytes(const std::string& bytes) {
    EXPECT_TRUE(WriteFileAtomically(path(), bytes).ok());
    return SafetensorsReader::Open(path());
  }
  TemporaryFolder folder_;
};

// A file whose every byte is known: two tensors, metadata, numbers by hand.
TEST_F(SafetensorsTest, TheBytesOfAFileAreTheStoredOnes) {
  auto writer = Create({{"b", DType::kF32, {2}}, {"a/k", DType::kI64, {1, 1}}}, {{"format", "basin"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Write(0, 0, Bytes(std::vector<float>{1.0f, -2.0f})).ok());
  ASSERT_TRUE((*writer)->Write(1, 0, Bytes(std::vector<int64_t>{258})).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  // Spaces pad the header to a multiple of 8.
  const std::string json =
      "{\"__metadata__\":{\"format\":\"basin\"},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"a/k\":{\"dtype\":\"I64\",\"shape\":[1,1],\"data_offsets\":[8,16]}}";
  const std::string padded = json + std::string((8 - json.size() % 8) % 8, ' ');
  const std::string data("\0\0\x80\x3f\0\0\0\xc0\x02\x01\0\0\0\0\0\0", 16);
  EXPECT_EQ(*ReadFile(path()), Head(padded) + data);
}

// Written by hand from the format's description: another order of keys than ours, a scalar, an empty tensor, padding.
TEST_F(SafetensorsTest, AFileOfAnotherWriterIsRead) {
  const std::string json =
      "{\"empty\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]},"
      "\"x\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
      "\"m\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[4,5]}}   ";
  auto reader = OpenBytes(Head(json) + std::string("\0\x3c\0\xc0\x01", 5));
  ASSERT_TRUE(reader.ok()) << reader.status();
  ASSERT_EQ((*reader)->tensors().size(), 3u);
  EXPECT_EQ((*reader)->tensors()[0].shape, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ((*reader)->tensors()[1].dtype, DType::kF16);
  EXPECT_EQ((*reader)->tensors()[2].name, "m");
  EXPECT_TRUE((*reader)->tensors()[2].shape.empty());
  EXPECT_TRUE((*reader)->metadata().empty());
  EXPECT_EQ(ReadAll<uint16_t>(**reader, 1, 2), (std::vector<uint16_t>{0x3c00, 0xc000}));
  EXPECT_EQ(ReadAll<uint8_t>(**reader, 2, 1), (std::vector<uint8_t>{1}));
}

TEST_F(SafetensorsTest, PiecesInAnyOrderMakeTheWhole) {
  std::vector<float> values(1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.5f;
  auto writer = Create({{"before", DType::kF32, {1}}, {"w", DType::kF32, {10, 100}}, {"none", DType::kF32, {0}}},
                       {{"é", "\"\n"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const size_t first : {800u, 0u, 400u, 600u, 200u}) {
    ASSERT_TRUE((*writer)->Write(1, first * 4, Bytes(values).subspan(first * 4, 800)).ok());
  }
  ASSERT_TRUE((*writer)->Write(0, 0, Bytes(std::vector<float>{7})).ok());
  EXPECT_FALSE(std::filesystem::exists(path()));  // not before it is whole
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(folder_.Names(), (std::vector<std::string>{"model.safetensors"}));

  auto reader = SafetensorsReader::Open(path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->metadata(), (Metadata{{"é", "\"\n"}}));
  EXPECT_EQ(ReadAll<float>(**reader, 0, 1)[0], 7.0f);
  EXPECT_EQ(ReadAll<float>(**reader, 1, 1000), values);
  EXPECT_EQ(ReadAll<float>(**reader, 1, 3, 997 * 4), (std::vector<float>(values.end() - 3, values.end())));
}

TEST_F(SafetensorsTest, EveryDTypeComesBack) {
  std::vector<TensorInfo> tensors;
  for (uint32_t number = 1; number <= 9; ++number)
    tensors.push_back({absl::StrCat("t", number), *DTypeFromNumber(number), {3}});
  auto writer = Create(tensors);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (size_t i = 0; i < tensors.size(); ++i) {
    ASSERT_TRUE(
        (*writer)->Write(i, 0, Bytes(std::vector<char>(3 * SizeOf(tensors[i].dtype), static_cast<char>(i + 1)))).ok());
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  auto reader = SafetensorsReader::Open(path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ((*reader)->tensors()[i].dtype, tensors[i].dtype);
    const size_t size = SizeOf(tensors[i].dtype);
    std::vector<char> bytes(3 * size);
    ASSERT_TRUE((*reader)->Read(i, 0, absl::MakeSpan(bytes)).ok());
    EXPECT_EQ(bytes, std::vector<char>(3 * size, static_cast<char>(i + 1)));
  }
}

TEST_F(SafetensorsTest, AFileWithoutTensorsIsAFile) {
  auto writer = Create({});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Finish().ok());
  auto reader = SafetensorsReader::Open(path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE((*reader)->tensors().empty());
}

TEST_F(SafetensorsTest, WithoutFinishTheOldFileStaysAndNothingElse) {
  ASSERT_TRUE(WriteFileAtomically(path(), "old").ok());
  {
    auto writer = Create({{"w", DType::kF32, {4}}});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Write(0, 0, Bytes(std::vector<float>(4))).ok());
  }
  EXPECT_EQ(folder_.Names(), (std::vector<std::string>{"model.safetensors"}));
  EXPECT_EQ(*ReadFile(path()), "old");
}

TEST_F(SafetensorsTest, WhatAKilledWriterLeavesHasANameThatIsPassedOver) {
  const pid_t killed = fork();
  ASSERT_GE(killed, 0);
  if (killed == 0) {
    auto writer = Create({{"w", DType::kF32, {4}}});
    raise(SIGKILL);
  }
  ASSERT_EQ(waitpid(killed, nullptr, 0), killed);
  ASSERT_EQ(folder_.Names(), (std::vector<std::string>{absl::StrCat(".model.safetensors.basin-tmp.", killed)}));
  EXPECT_TRUE(IsTemporaryName(folder_.Names()[0]));
  // The longest name there may be can be written too.
  const std::string longest(255, 'n');
  EXPECT_TRUE(WriteFileAtomically(folder_ / longest, "x").ok());
  for (const char* own :
       {"model.safetensors", "model.basin-tmp.1", ".model.basin-tmp.", ".model.basin-tmp.1x", ".hidden"}) {
    EXPECT_FALSE(IsTemporaryName(own)) << own;
  }
}

TEST_F(SafetensorsTest, BytesThatWereNeverGivenKeepsTheFileAway) {
  auto writer = Create({{"w", DType::kF32, {4}}});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Write(0, 0, Bytes(std::vector<float>(1))).ok());
  ASSERT_TRUE((*writer)->Write(0, 8, Bytes(std::vector<float>(2))).ok());
  const absl::Status status = (*writer)->Finish();
  writer->reset();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "12 of 16 bytes of \"w\"")) << status;
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(SafetensorsTest, BytesGivenTwiceDoNotHideBytesThatAreMissing) {
  auto writer = Create({{"w", DType::kF32, {4}}});
  ASSERT_TRUE(writer.ok());
  const std::vector<float> two(2);
  for (int time = 0; time < 2; ++time) ASSERT_TRUE((*writer)->Write(0, 0, Bytes(two)).ok());
  absl::Status status = (*writer)->Finish();
  EXPECT_TRUE(absl::StrContains(status.message(), ": 8 of 16 bytes of \"w\"")) << status;
  ASSERT_TRUE((*writer)->Write(0, 6, Bytes(two)).ok());
  status = (*writer)->Finish();
  EXPECT_TRUE(absl::StrContains(status.message(), ": 14 of 16 bytes of \"w\"")) << status;
  ASSERT_TRUE((*writer)->Write(0, 8, Bytes(two)).ok());
  status = (*writer)->Finish();
  EXPECT_TRUE(status.ok()) << status;
}

// Random parts against one flag a byte. The file may be named exactly when every flag is set.
TEST_F(SafetensorsTest, FinishCountsExactlyTheBytesThatWereGiven) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Random random(seed);
    const size_t size = 1 + random.Below(40);
    std::vector<bool> given(size);
    auto writer = Create({{"w", DType::kU8, {static_cast<int64_t>(size)}}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int part = 0; part < 60; ++part) {
      const size_t begin = random.Below(size + 1), length = random.Below(std::min<size_t>(size - begin, 6) + 1);
      ASSERT_TRUE((*writer)->Write(0, begin, std::vector<char>(length)).ok());
      std::fill_n(given.begin() + static_cast<std::ptrdiff_t>(begin), length, true);
      const auto count = std::count(given.begin(), given.end(), true);
      const absl::Status status = (*writer)->Finish();
      ASSERT_EQ(status.ok(), static_cast<size_t>(count) == size) << "seed " << seed << ": " << status;
      if (status.ok()) break;
      ASSERT_TRUE(absl::StrContains(status.message(), absl::StrCat(": ", count, " of ", size, " bytes")))
          << "seed " << seed << ": " << status;
    }
  }
}

TEST_F(SafetensorsTest, WritesOutsideATensorAreRefusedAndChangeNothing) {
  auto writer = Create({{"w", DType::kF32, {4}}, {"v", DType::kF32, {1}}});
  ASSERT_TRUE(writer.ok());
  const std::vector<float> ones(5, 1.0f), four(4, 4.0f);
  EXPECT_EQ((*writer)->Write(0, 0, Bytes(ones)).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*writer)->Write(0, 4, Bytes(four)).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*writer)->Write(0, 17, {}).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*writer)->Write(0, ~uint64_t{0}, Bytes(four)).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*writer)->Write(2, 0, Bytes(four)).code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE((*writer)->Write(0, 0, Bytes(four)).ok());
  ASSERT_TRUE((*writer)->Write(1, 0, Bytes(std::vector<float>(1))).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_FALSE((*writer)->Finish().ok());
  EXPECT_FALSE((*writer)->Write(0, 0, Bytes(four)).ok());
  EXPECT_EQ(folder_.Names(), (std::vector<std::string>{"model.safetensors"}));
}

TEST_F(SafetensorsTest, TensorsThatNoFileCanHaveAreRefused) {
  const std::vector<std::vector<TensorInfo>> cases = {
      {{"", DType::kF32, {1}}},
      {{"__metadata__", DType::kF32, {1}}},
      {{"a", DType::kF32, {1}}, {"a", DType::kF32, {2}}},
      {{"\xff", DType::kF32, {1}}},
      {{"a", DType::kF32, {-1}}},
      {{"a", DType::kF32, {int64_t{1} << 62}}},
      {{"a", DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}}},
      {{"a", DType::kI8, {INT64_MAX}}, {"b", DType::kI8, {INT64_MAX}}, {"c", DType::kI8, {INT64_MAX}}},
      {{"a", static_cast<DType>(0), {1}}},
  };
  for (const auto& tensors : cases) {
    const absl::Status status = Create(tensors).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_EQ(Create({}, {{"key", "\xff"}}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(SafetensorsTest, AFolderThatIsNotThereIsNamed) {
  const absl::Status status = SafetensorsWriter::Create(folder_ / "no/model.safetensors", {}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(status.message(), "/no/model.safetensors")) << status;
}

// RLIMIT_FSIZE stands for a disk with room for that many bytes.
TEST_F(SafetensorsTest, ADiskWithoutRoomIsToldAndLeavesNothing) {
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  absl::Cleanup restore = [&] {
    setrlimit(RLIMIT_FSIZE, &old_limit);
    signal(SIGXFSZ, old_handler);
  };
  rlimit small = old_limit;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  auto writer = Create({{"w", DType::kF32, {2000}}});
  absl::Status failed = writer.status();
  if (failed.ok()) failed = (*writer)->Write(0, 0, Bytes(std::vector<float>(2000)));
  EXPECT_FALSE(failed.ok());
  EXPECT_TRUE(absl::StrContains(failed.message(), path())) << failed;
  if (writer.ok()) {
    EXPECT_FALSE((*writer)->Finish().ok());
    writer->reset();
  }
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(SafetensorsTest, AFileThatIsCutWhileOpenIsDataLoss) {
  const std::string head = Head("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}");
  auto reader = OpenBytes(head + std::string(8, '\0'));
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::filesystem::resize_file(path(), head.size() + 4);
  std::vector<char> out(8);
  EXPECT_EQ((*reader)->Read(0, 0, absl::MakeSpan(out)).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace basin
