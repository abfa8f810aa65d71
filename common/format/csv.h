// Text tables, CSV as in RFC 4180: records end with LF or CRLF, fields may stand in double quotes, and a quote within
// such a field is doubled. The first record is the header. A record at a time, so that memory is bounded by the longest
// record and not by the file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace basin {

struct CsvOptions {
  char delimiter = ',';
  // Longest record, line ends within quotes included. Longer ones are an error: most often a quote is not closed.
  size_t max_record_bytes = size_t{1} << 20;
};

// Not thread-safe.
class CsvReader final {
 public:
  // Fills `out` from its begin and returns how many bytes, 0 at the end only.
  using Source = std::function<absl::StatusOr<size_t>(absl::Span<char> out)>;

  // Plain or gzip. Reads the header: INVALID_ARGUMENT where there is none, or a column's name stands twice.
  static absl::StatusOr<std::unique_ptr<CsvReader>> Open(const std::string& path, const CsvOptions& options = {});
  // `name` is for messages.
  static absl::StatusOr<std::unique_ptr<CsvReader>> FromSource(std::string name, Source source,
                                                               const CsvOptions& options = {});

  const std::vector<std::string>& columns() const { return columns_; }
  // Place of the column with this name. NOT_FOUND names the file, the nearest name, or all where there are few.
  absl::StatusOr<size_t> Find(absl::string_view column) const;

  // Reads the next record; false at the end. Empty lines are skipped where there is more than one column. Afterwards
  // fields() has one text a column. INVALID_ARGUMENT names the file, line and column, and no more can be read.
  absl::StatusOr<bool> Next();
  // Of the last record; valid until the next Next.
  const std::vector<absl::string_view>& fields() const { return fields_; }
  // Where the last record began, counted from 1.
  uint64_t line() const { return record_line_; }
  // INVALID_ARGUMENT "flights.csv:17: column 6 (dep_delay): MESSAGE", for what a reader of the fields finds wrong.
  absl::Status ErrorAt(size_t column, absl::string_view message) const;

 private:
  CsvReader(std::string name, Source source, const CsvOptions& options)
      : name_(std::move(name)), source_(std::move(source)), options_(options) {}
  absl::Status ReadHeader();
  // Splits one record into fields_; false at the end of the input.
  absl::StatusOr<bool> ReadRecord();
  // The next byte, or -1 at the end, or where the source failed and failed_ says why.
  int NextByte() { return chunk_at_ < chunk_end_ ? static_cast<unsigned char>(chunk_[chunk_at_++]) : Refill(); }
  int Refill();
  absl::Status Wrong(absl::string_view message) const;

  const std::string name_;
  const Source source_;
  const CsvOptions options_;
  std::vector<char> chunk_;
  size_t chunk_at_ = 0, chunk_end_ = 0;
  bool ended_ = false;
  absl::Status failed_;
  uint64_t line_ = 1, record_line_ = 1;
  std::vector<std::string> columns_;
  std::string record_;        // the fields' texts, one behind the other
  std::vector<size_t> ends_;  // of each field in record_
  std::vector<absl::string_view> fields_;
};

}  // namespace basin
