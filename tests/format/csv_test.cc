#include "common/format/csv.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

using Records = std::vector<std::vector<std::string>>;

// A reader of a text that comes in pieces of so many bytes.
absl::StatusOr<std::unique_ptr<CsvReader>> ReaderOf(const std::string& text, size_t piece = 3,
                                                    CsvOptions options = {}) {
  auto at = std::make_shared<size_t>(0);
  return CsvReader::FromSource(
      "t.csv",
      [text, piece, at](absl::Span<char> out) -> absl::StatusOr<size_t> {
        const size_t bytes = std::min({piece, out.size(), text.size() - *at});
        std::copy_n(text.data() + *at, bytes, out.data());
        *at += bytes;
        return bytes;
      },
      options);
}

// All records, or the complaint as a single field.
Records RecordsOf(CsvReader& reader) {
  Records records;
  while (true) {
    const auto there = reader.Next();
    if (!there.ok()) return {{std::string(there.status().message())}};
    if (!*there) return records;
    records.emplace_back();
    for (const absl::string_view field : reader.fields()) records.back().emplace_back(field);
  }
}

Records RecordsOf(const std::string& text) {
  auto reader = ReaderOf(text);
  if (!reader.ok()) return {{std::string(reader.status().message())}};
  return RecordsOf(**reader);
}

TEST(CsvTest, ReadsRecordsByTheHeadersColumns) {
  auto reader = ReaderOf("carrier,dep_delay\nUA,2\r\nAA,\n");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->columns(), (std::vector<std::string>{"carrier", "dep_delay"}));
  EXPECT_EQ(*(*reader)->Find("dep_delay"), 1u);
  EXPECT_EQ(RecordsOf(**reader), (Records{{"UA", "2"}, {"AA", ""}}));
  EXPECT_FALSE(*(*reader)->Next());
}

TEST(CsvTest, QuotedFieldsMayHoldDelimitersQuotesAndLines) {
  EXPECT_EQ(RecordsOf("a,b\n\"x, y\",\"he said \"\"no\"\"\"\n\"two\r\nlines\",\"\"\n"),
            (Records{{"x, y", "he said \"no\""}, {"two\r\nlines", ""}}));
}

TEST(CsvTest, TheLastLineNeedsNoEnd) {
  EXPECT_EQ(RecordsOf("a,b\n1,2"), (Records{{"1", "2"}}));
  EXPECT_EQ(RecordsOf("a,b\n1,"), (Records{{"1", ""}}));
  EXPECT_EQ(RecordsOf("a,b\n1,\"2\""), (Records{{"1", "2"}}));
  EXPECT_EQ(RecordsOf("a,b\n1,2\r"), (Records{{"1", "2"}}));
}

TEST(CsvTest, EmptyLinesAreSkippedWhereTheyCannotBeRecords) {
  EXPECT_EQ(RecordsOf("a,b\n\n1,2\n\r\n3,4\n\n"), (Records{{"1", "2"}, {"3", "4"}}));
  EXPECT_EQ(RecordsOf("a\n1\n\n2\n"), (Records{{"1"}, {""}, {"2"}}));
}

TEST(CsvTest, AByteOrderMarkIsNoPartOfTheFirstName) {
  auto reader = ReaderOf("\xEF\xBB\xBFx,y\n1,2\n");
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->columns()[0], "x");
}

TEST(CsvTest, AnotherDelimiter) {
  CsvOptions options;
  options.delimiter = '\t';
  auto reader = ReaderOf("a\tb\n1,5\t2\n", 3, options);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(RecordsOf(**reader), (Records{{"1,5", "2"}}));
}

TEST(CsvTest, ComplaintsNameFileLineAndColumn) {
  const std::pair<const char*, const char*> cases[] = {
      {"a,b\n1,2\n1,2,3\n", "t.csv:3: 3 fields, expected 2"},
      {"a,b\n\"1\n\",2\n5\n", "t.csv:4: 1 fields, expected 2"},  // lines within quotes count
      {"a,b\n1,x\"y\n", "t.csv:2: column 2: a double quote within"},
      {"a,b\n1,\"x\"y\n", "t.csv:2: column 2: text behind the closing double quote"},
      {"a,b\n1,2\n\"3,4\n5,6\n", "t.csv:3: column 1: the double quote in line 3 is never closed"},
      {"a,b\n1\r2,3\n", "t.csv:2: column 1: a carriage return without a line feed"},
      {"", "t.csv: empty"},
      {"a,b,a\n", "t.csv:1: column name \"a\" stands twice"},
  };
  for (const auto& [text, message] : cases) {
    const Records got = RecordsOf(text);
    ASSERT_EQ(got.size(), 1u) << text;
    EXPECT_TRUE(absl::StartsWith(got[0][0], message)) << got[0][0];
  }
  const Records zero = RecordsOf(std::string("a,b\n1,\0", 7));
  EXPECT_TRUE(absl::StartsWith(zero[0][0], "t.csv:2: column 2: a zero byte")) << zero[0][0];
}

TEST(CsvTest, AfterAComplaintNothingMoreIsRead) {
  auto reader = ReaderOf("a,b\n1\n2,3\n");
  ASSERT_TRUE(reader.ok());
  const absl::Status first = (*reader)->Next().status();
  EXPECT_EQ(first.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*reader)->Next().status(), first);
}

TEST(CsvTest, AMissingColumnIsNamedWithTheNearest) {
  auto reader = ReaderOf("carrier,origin\n");
  ASSERT_TRUE(reader.ok());
  const absl::Status near = (*reader)->Find("carier").status(), far = (*reader)->Find("distance").status();
  EXPECT_EQ(near.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(near.message(), "did you mean \"carrier\"?")) << near;
  EXPECT_TRUE(absl::StrContains(far.message(), "its columns: carrier, origin")) << far;
}

TEST(CsvTest, AUsersComplaintNamesThePlaceToo) {
  auto reader = ReaderOf("carrier,dep_delay\nUA,2\nAA,late\n");
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(*(*reader)->Next());
  ASSERT_TRUE(*(*reader)->Next());
  EXPECT_EQ((*reader)->line(), 3u);
  EXPECT_EQ((*reader)->ErrorAt(1, "\"late\" is no number").message(),
            "t.csv:3: column 2 (dep_delay): \"late\" is no number");
}

// A text of one piece, repeated for ever: only a bound can end the reading.
TEST(CsvTest, ARecordMayNotGrowWithoutBound) {
  for (const std::string piece : {"x", "\"\n\n\n\n\n\n", ",,,,,,,,"}) {
    bool first = true;
    auto reader = CsvReader::FromSource("endless", [&first, piece](absl::Span<char> out) -> absl::StatusOr<size_t> {
      const std::string text = first ? absl::StrCat("a,b\n", piece) : piece.substr(piece.size() - 1);
      first = false;
      std::copy(text.begin(), text.end(), out.begin());
      return text.size();
    });
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ((*reader)->Next().status().code(), absl::StatusCode::kInvalidArgument) << piece;
  }
}

TEST(CsvTest, FilesMayBePlainOrGzip) {
  const TemporaryFolder folder;
  std::string text = "n,square\n";
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&text, i, ",", i * i, "\n");
  ASSERT_TRUE(WriteFileAtomically(folder / "plain.csv", text).ok());
  const gzFile zip = gzopen((folder / "zip.csv.gz").c_str(), "wb");
  gzwrite(zip, text.data(), static_cast<unsigned>(text.size()));
  gzclose(zip);
  for (const std::string name : {"plain.csv", "zip.csv.gz"}) {
    auto reader = CsvReader::Open(folder / name);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const Records records = RecordsOf(**reader);
    ASSERT_EQ(records.size(), 20000u) << name;
    EXPECT_EQ(records[19999], (std::vector<std::string>{"19999", "399960001"}));
  }
}

TEST(CsvTest, ADamagedGzipFileIsTold) {
  const TemporaryFolder folder;
  std::string text = "n\n";
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&text, i * 7919 % 10007, "\n");
  const gzFile zip = gzopen((folder / "whole.gz").c_str(), "wb");
  gzwrite(zip, text.data(), static_cast<unsigned>(text.size()));
  gzclose(zip);
  const std::string whole = *ReadFile(folder / "whole.gz");
  ASSERT_TRUE(WriteFileAtomically(folder / "cut.gz", whole.substr(0, whole.size() / 2)).ok());
  auto reader = CsvReader::Open(folder / "cut.gz");
  absl::Status status = reader.status();
  while (status.ok()) {
    const auto there = (*reader)->Next();
    status = there.status();
    ASSERT_TRUE(!there.ok() || *there) << "read to the end of half a file";
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_EQ(CsvReader::Open(folder / "none.csv").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace basin
