// Hostile and broken files: each is refused with the file's name and what is wrong.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/format/safetensors.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape, ",\"data_offsets\":", offsets,
                      "}");
}

TEST(SafetensorsHeaderTest, WhatIsWrongIsNamed) {
  const struct {
    std::string json;
    uint64_t buffer_bytes;
    std::string expected;
  } cases[] = {
      {"", 0, "no JSON object"},
      {"[]", 0, "no JSON object"},
      {"{", 0, "no JSON object"},
      {"{}{}", 0, "no JSON object"},
      {"{\"a\":{\"dtype\":\"F32\"", 0, "no JSON object"},
      {"{\"\xff\":{}}", 0, "no JSON object"},
      {std::string("{}\0", 3), 0, "no JSON object"},
      {"{\"a\":null}", 0, "expected dtype, shape and two data_offsets"},
      {"{\"a\":[]}", 0, "expected dtype, shape"},
      {"{\"a\":{}}", 0, "expected dtype, shape"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "expected dtype, shape"},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "expected dtype, shape"},
      {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "expected dtype, shape"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":\"1\",\"data_offsets\":[0,4]}}", 4, "expected dtype, shape"},
      {"{" + Tensor("a", "F8_E4M3", "[1]", "[0,1]") + "}", 1, "dtype F8_E4M3 is unknown"},
      {"{" + Tensor("a", "F32", "[[1]]", "[0,4]") + "}", 4, "a dimension is no whole number"},
      {"{" + Tensor("a", "F32", "[-1]", "[0,4]") + "}", 4, "a dimension is no whole number"},
      {"{" + Tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4, "a dimension is no whole number"},
      {"{" + Tensor("a", "F32", "[18446744073709551616]", "[0,4]") + "}", 4, "a dimension is no whole number"},
      {"{" + Tensor("a", "F32", "[18446744073709551615]", "[0,4]") + "}", 4, "a dimension is no whole number"},
      {"{" + Tensor("a", "F32", "[1]", "[0,-4]") + "}", 4, "a data offset is no whole number"},
      {"{" + Tensor("a", "F32", "[1]", "[4]") + "}", 4, "two data_offsets"},
      {"{" + Tensor("a", "F32", "[1]", "[0,4,8]") + "}", 4, "two data_offsets"},
      {"{" + Tensor("a", "F32", "[1]", "[4,0]") + "}", 4, "do not fit dtype and shape"},
      {"{" + Tensor("a", "F32", "[2]", "[0,4]") + "}", 4, "do not fit dtype and shape"},
      {"{" + Tensor("a", "F32", "[4611686018427387904,4]", "[0,0]") + "}", 0, "do not fit dtype and shape"},
      {"{" + Tensor("a", "F32", "[2]", "[0,8]") + "}", 4, "cover 8 bytes, the file holds 4"},
      {"{" + Tensor("a", "U8", "[3]", "[18446744073709551612,18446744073709551615]") + "}", 4,
       "begins at 18446744073709551612, expected 0"},
      {"{" + Tensor("a", "F32", "[1]", "[0,4]") + "," + Tensor("b", "F32", "[1]", "[2,6]") + "}", 6,
       "\"b\" begins at 2, expected 4"},
      {"{" + Tensor("a", "F32", "[1]", "[0,4]") + "," + Tensor("b", "F32", "[1]", "[0,4]") + "}", 4,
       "begins at 0, expected 4"},
      {"{" + Tensor("a", "F32", "[1]", "[0,4]") + "," + Tensor("b", "F32", "[1]", "[8,12]") + "}", 12,
       "begins at 8, expected 4"},
      {"{" + Tensor("a", "F32", "[1]", "[4,8]") + "}", 8, "begins at 4, expected 0"},
      {"{" + Tensor("a", "F32", "[1]", "[0,4]") + "}", 5, "cover 4 bytes, the file holds 5"},
      {"{}", 1, "cover 0 bytes, the file holds 1"},
      {"{\"__metadata__\":[]}", 0, "__metadata__ is no object"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\" is no string"},
      // Given twice: another reader may take the other one.
      {"{" + Tensor("a", "F32", "[1]", "[0,4]") + "," + Tensor("a", "F32", "[1]", "[0,4]") + "}", 4,
       "\"a\" stands twice"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
       "\"dtype\" stands twice"},
      {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "\"a\" stands twice"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" stands twice"},
      {"{\"__metadata__\":{\"\":\"1\",\"\":\"2\"}}", 0, "\"\" stands twice"},
  };
  for (const auto& item : cases) {
    const absl::Status status = ParseSafetensorsHeader(item.json, item.buffer_bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << item.json << ": " << status;
    EXPECT_TRUE(absl::StrContains(status.message(), item.expected))
        << item.json << ": " << status << "\nexpected: " << item.expected;
  }
}

// "dtype" in two tensors is no key given twice.
TEST(SafetensorsHeaderTest, TheSameKeyInTwoObjectsIsFine) {
  const auto header = ParseSafetensorsHeader("{\"__metadata__\":{\"a\":\"\"}," + Tensor("a", "F32", "[1]", "[0,4]") +
                                                 "," + Tensor("b", "F32", "[1]", "[4,8]") + "}",
                                             8);
  EXPECT_TRUE(header.ok()) << header.status();
}

TEST(SafetensorsHeaderTest, OrderInTheHeaderIsFreeAndEmptyTensorsLieAnywhere) {
  const auto header =
      ParseSafetensorsHeader("{" + Tensor("b", "F32", "[1]", "[4,8]") + "," + Tensor("e", "F32", "[0]", "[4,4]") + "," +
                                 Tensor("a", "F32", "[1]", "[0,4]") + "," + Tensor("z", "F32", "[4,3,0]", "[8,8]") +
                                 ",\"__metadata__\":{\"k\":\"v\"}}  ",
                             8);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.size(), 4u);
  EXPECT_EQ(header->tensors[0].name, "a");  // in the order of their bytes
  EXPECT_EQ(header->begins, (std::vector<uint64_t>{0, 4, 4, 8}));
  EXPECT_EQ(header->sizes, (std::vector<uint64_t>{4, 0, 4, 0}));
  EXPECT_EQ(header->metadata.at("k"), "v");
}

TEST(SafetensorsHeaderTest, DeepNestingIsRefused) {
  const absl::Status status = ParseSafetensorsHeader("{\"a\":" + std::string(100'000, '['), 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

class SafetensorsFileTest : public testing::Test {
 protected:
  absl::Status Open(const std::string& bytes) {
    EXPECT_TRUE(WriteFileAtomically(path_, bytes).ok());
    return SafetensorsReader::Open(path_).status();
  }
  TemporaryFolder folder_;
  const std::string path_ = folder_ / "x.safetensors";
};

TEST_F(SafetensorsFileTest, LengthsAreNotBelieved) {
  const std::string seven(7, '\0');
  const struct {
    std::string bytes, expected;
  } cases[] = {
      {"", "too short"},
      {seven, "too short"},
      {seven + '\0', "no JSON object"},
      {std::string("\x03\0\0\0\0\0\0\0{}", 10), "a header of 3 bytes in a file of 10"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "a header of 18446744073709551615 bytes"},
      {std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10), "a header of 100000001 bytes"},
      {std::string("\0\xe1\xf5\x05\0\0\0\0{}", 10), "a header of 100000000 bytes in a file of 10"},
      {std::string("\x02\0\0\0\0\0\0\0{}x", 11), "cover 0 bytes, the file holds 1"},
  };
  for (const auto& item : cases) {
    const absl::Status status = Open(item.bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), item.expected)) << status << "\nexpected: " << item.expected;
    EXPECT_TRUE(absl::StrContains(status.message(), path_)) << status;
  }
}

TEST_F(SafetensorsFileTest, AFileThatIsNoneIsNamed) {
  EXPECT_EQ(SafetensorsReader::Open(path_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsReader::Open(folder_.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace basin
