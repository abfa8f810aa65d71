#include "common/format/idx.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "absl/strings/match.h"
#include "common/base/files.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

std::string Number(uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(value >> shift & 0xff));
  return bytes;
}

std::string Idx(const std::vector<uint32_t>& dimensions, const std::string& elements, char type = 8) {
  std::string bytes = {'\0', '\0', type, static_cast<char>(dimensions.size())};
  for (const uint32_t dimension : dimensions) bytes += Number(dimension);
  return bytes + elements;
}

std::string Gzip(const std::string& plain) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, plain.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

class IdxTest : public testing::Test {
 protected:
  std::string File(const std::string& content, const std::string& name = "file") {
    const std::string path = folder_ / name;
    EXPECT_TRUE(WriteFileAtomically(path, content).ok());
    return path;
  }
  TemporaryFolder folder_;
};

TEST_F(IdxTest, ImagesAreReadPlainAndCompressedWhateverTheName) {
  const std::string plain = Idx({2, 2, 3}, "abcdefghijkl");
  for (const std::string& path : {File(plain, "plain.gz"), File(Gzip(plain), "compressed")}) {
    const auto images = ReadIdx(path);
    ASSERT_TRUE(images.ok()) << images.status();
    EXPECT_EQ(images->shape, (std::vector<int64_t>{2, 2, 3}));
    EXPECT_EQ(std::string(images->data.begin(), images->data.end()), "abcdefghijkl");
  }
}

TEST_F(IdxTest, LabelsAreRead) {
  const auto labels = ReadIdx(File(Gzip(Idx({3}, std::string("\x00\x07\xff", 3)))));
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_EQ(labels->data, (std::vector<uint8_t>{0, 7, 255}));
}

TEST_F(IdxTest, MoreThanAChunkIsRead) {
  std::string elements(3 << 20, '\0');
  for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<char>(i * 2654435761u >> 13);
  const auto images = ReadIdx(File(Gzip(Idx({3, 1024, 1024}, elements))));
  ASSERT_TRUE(images.ok()) << images.status();
  EXPECT_TRUE(std::equal(elements.begin(), elements.end(), images->data.begin(), images->data.end(),
                         [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; }));
}

TEST_F(IdxTest, AnEmptyArrayIsRead) {
  const auto images = ReadIdx(File(Idx({3, 5, 0}, "")));
  ASSERT_TRUE(images.ok()) << images.status();
  EXPECT_TRUE(images->data.empty());
}

TEST_F(IdxTest, AMissingFileIsNotFound) {
  const auto status = ReadIdx(folder_ / "none").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
}

TEST_F(IdxTest, AFolderIsRefused) { EXPECT_FALSE(ReadIdx(folder_.path()).ok()); }

TEST_F(IdxTest, WhatDoesNotFitIsNamed) {
  const struct {
    std::string content;
    absl::StatusCode code;
    std::string expected;
  } cases[] = {
      {"", absl::StatusCode::kDataLoss, "ends 4 bytes early"},
      {"PNG picture", absl::StatusCode::kInvalidArgument, "not an IDX file"},
      {std::string("\0\0\x08", 3), absl::StatusCode::kDataLoss, "ends 1 bytes early"},
      {Idx({4}, "abcd", 0x0d), absl::StatusCode::kInvalidArgument, "not an IDX file of unsigned bytes"},
      {Idx({}, "a"), absl::StatusCode::kInvalidArgument, "1 to 4 dimensions"},
      {Idx({1, 1, 1, 1, 1}, "a"), absl::StatusCode::kInvalidArgument, "1 to 4 dimensions"},
      {std::string("\0\0\x08\x03\0\0", 6), absl::StatusCode::kDataLoss, "ends 2 bytes early"},
      {Idx({2, 2, 2}, "abcdefg"), absl::StatusCode::kDataLoss, "ends 1 bytes early"},
      {Idx({2, 2, 2}, "abcdefghi"), absl::StatusCode::kInvalidArgument, "longer than its header says"},
      {Idx({1u << 31, 2, 1}, "abc"), absl::StatusCode::kInvalidArgument, "more than 1073741824 bytes"},
      {Idx({4294967295u, 4294967295u, 4294967295u}, "abc"), absl::StatusCode::kInvalidArgument,
       "more than 1073741824 bytes"},
      {Idx({1u << 10, 1u << 10, 1u << 10}, "abc"), absl::StatusCode::kDataLoss, "early"},
  };
  for (const auto& item : cases) {
    for (const std::string& path : {File(item.content), File(Gzip(item.content))}) {
      const auto status = ReadIdx(path).status();
      EXPECT_EQ(status.code(), item.code) << status;
      EXPECT_TRUE(absl::StrContains(status.message(), item.expected)) << status << "\nexpected: " << item.expected;
      EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
    }
  }
}

TEST_F(IdxTest, ACutGzipStreamIsDataLossWhereverItIsCut) {
  std::string elements(5000, '\0');
  for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<char>(i * 2654435761u >> 13);
  const std::string whole = Gzip(Idx({5, 10, 100}, elements));
  // From 18 on: before, zlib has not seen its header's end (10 bytes) or has nothing to give.
  for (size_t size = 18; size < whole.size(); size += size + 8 < whole.size() ? 97 : 1) {
    const auto status = ReadIdx(File(whole.substr(0, size))).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size << " of " << whole.size() << ": " << status;
  }
}

// A bit that pads the last byte of the compressed data means nothing: then the data is what it was.
TEST_F(IdxTest, AFlippedBitInAGzipStreamIsSeenWhereItMeansSomething) {
  const std::string plain = "abcdefghijkl";
  const std::string whole = Gzip(Idx({3, 2, 2}, plain));
  size_t meaningless = 0;
  for (size_t at = 10; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    const auto array = ReadIdx(File(damaged));
    if (!array.ok()) continue;
    ++meaningless;
    EXPECT_EQ(std::string(array->data.begin(), array->data.end()), plain) << at;
  }
  EXPECT_LE(meaningless, 1u);
}

// zlib inflates large reads straight into the caller's memory, and looks at what ends the stream only when asked for
// more.
TEST_F(IdxTest, ALargeArrayWhoseChecksumIsWrongOrCutIsDataLoss) {
  for (const uint32_t images : {1u, 2u, 3u}) {  // whole and part of the steps in which memory grows
    const size_t size = size_t{images} << 20;
    std::string elements(size, '\0');
    for (size_t i = 0; i < size; ++i) elements[i] = static_cast<char>(i * 2654435761u >> 13);
    const std::string whole = Gzip(Idx({images, 1024, 1024}, elements));
    for (size_t from_end = 1; from_end <= 8; ++from_end) {  // 4 bytes of CRC, 4 of length
      std::string damaged = whole;
      damaged[whole.size() - from_end] = static_cast<char>(damaged[whole.size() - from_end] ^ 0x10);
      EXPECT_EQ(ReadIdx(File(damaged)).status().code(), absl::StatusCode::kDataLoss)
          << "flipped " << from_end << " before the end";
      EXPECT_EQ(ReadIdx(File(whole.substr(0, whole.size() - from_end))).status().code(), absl::StatusCode::kDataLoss)
          << "cut by " << from_end;
    }
  }
}

}  // namespace
}  // namespace basin
