#include "common/format/csv.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr size_t kChunkBytes = size_t{64} << 10;
constexpr size_t kMaxColumns = 1 << 14;
constexpr int kEnd = -1;            // instead of a byte
constexpr size_t kFewColumns = 12;  // as many as a message can list

// What surrounds the next byte.
enum class Place {
  kFieldStart,
  kPlain,       // within a field without quotes
  kQuoted,      // within quotes
  kAfterQuote,  // behind a quote that closes the field, or is the first of a doubled one
};

}  // namespace

absl::StatusOr<std::unique_ptr<CsvReader>> CsvReader::Open(const std::string& path, const CsvOptions& options) {
  const gzFile opened = gzopen(path.c_str(), "rb");
  if (opened == nullptr) return ErrnoStatus(errno == 0 ? ENOMEM : errno, absl::StrCat("open ", path));
  const std::shared_ptr<gzFile_s> file(opened, [](gzFile f) { gzclose(f); });
  const auto read = [file, path](absl::Span<char> out) -> absl::StatusOr<size_t> {
    const int got = gzread(file.get(), out.data(), static_cast<unsigned>(out.size()));
    int code = Z_OK;
    const char* message = gzerror(file.get(), &code);
    // A gzip stream that is cut short is an error that gzread itself does not return.
    if (got < 0 || (got == 0 && code == Z_BUF_ERROR)) {
      return absl::DataLossError(absl::StrCat(path, ": ", message, "; the file is damaged, get it again"));
    }
    return static_cast<size_t>(got);
  };
  return FromSource(path, read, options);
}

absl::StatusOr<std::unique_ptr<CsvReader>> CsvReader::FromSource(std::string name, Source source,
                                                                 const CsvOptions& options) {
  std::unique_ptr<CsvReader> reader(new CsvReader(std::move(name), std::move(source), options));
  BASIN_RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

absl::Status CsvReader::ReadHeader() {
  BASIN_ASSIGN_OR_RETURN(const bool there, ReadRecord());
  if (!there) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": empty; expected a first line with the columns' names"));
  }
  std::set<absl::string_view> seen;
  for (size_t i = 0; i < fields_.size(); ++i) {
    // What spreadsheets put before UTF-8 is no part of a name.
    if (i == 0 && fields_[0].substr(0, 3) == "\xEF\xBB\xBF") fields_[0].remove_prefix(3);
    if (!seen.insert(fields_[i]).second) {
      return Wrong(absl::StrCat("column name \"", fields_[i], "\" stands twice in the header; rename one"));
    }
    columns_.emplace_back(fields_[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> CsvReader::Find(absl::string_view column) const {
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  if (found != columns_.end()) return static_cast<size_t>(found - columns_.begin());
  const std::optional<std::string> nearest = Nearest(column, columns_);
  return absl::NotFoundError(absl::StrCat(name_, ": no column is named \"", column, "\"",
                                          nearest ? absl::StrCat("; did you mean \"", *nearest, "\"?")
                                          : columns_.size() <= kFewColumns
                                              ? absl::StrCat("; its columns: ", absl::StrJoin(columns_, ", "))
                                              : absl::StrCat("; its first line names ", columns_.size(), " columns")));
}

absl::StatusOr<bool> CsvReader::Next() {
  BASIN_RETURN_IF_ERROR(failed_);
  while (true) {
    absl::StatusOr<bool> there = ReadRecord();
    if (!there.ok()) failed_ = there.status();
    if (!there.ok() || !*there) return there;
    if (columns_.size() > 1 && fields_.size() == 1 && record_.empty()) continue;  // an empty line
    if (fields_.size() == columns_.size()) return true;
    return failed_ = Wrong(absl::StrCat(fields_.size(), " fields, expected ", columns_.size(),
                                        " as in the header; a field with a delimiter in it needs double quotes"));
  }
}

absl::Status CsvReader::ErrorAt(size_t column, absl::string_view message) const {
  return Wrong(absl::StrCat("column ", column + 1, " (", columns_[column], "): ", message));
}

absl::Status CsvReader::Wrong(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, ":", record_line_, ": ", message));
}

int CsvReader::Refill() {
  if (ended_) return kEnd;
  chunk_.resize(kChunkBytes);
  const absl::StatusOr<size_t> got = source_(absl::MakeSpan(chunk_));
  ended_ = !got.ok() || *got == 0;
  if (!got.ok()) failed_ = got.status();
  chunk_at_ = 0;
  chunk_end_ = ended_ ? 0 : *got;
  return ended_ ? kEnd : static_cast<unsigned char>(chunk_[chunk_at_++]);
}

absl::StatusOr<bool> CsvReader::ReadRecord() {
  record_.clear();
  ends_.clear();
  record_line_ = line_;
  Place place = Place::kFieldStart;
  uint64_t quote_line = 0;  // where the open quote stands
  const auto column = [this] { return absl::StrCat("column ", ends_.size() + 1, ": "); };
  while (true) {
    const int byte = NextByte();
    if (byte == kEnd) {
      BASIN_RETURN_IF_ERROR(failed_);
      if (place == Place::kQuoted) {
        return Wrong(absl::StrCat(column(), "the double quote in line ", quote_line, " is never closed"));
      }
      // The last record needs no line end.
      if (place == Place::kFieldStart && ends_.empty()) return false;
      break;
    }
    if (byte == '\n') ++line_;
    if (byte == '\0') return Wrong(absl::StrCat(column(), "a zero byte; is the file text in UTF-8?"));
    if (place == Place::kQuoted) {
      if (byte == '"') {
        place = Place::kAfterQuote;
        continue;
      }
    } else if (byte == '\n') {
      break;
    } else if (byte == '\r') {
      const int next = NextByte();
      BASIN_RETURN_IF_ERROR(failed_);
      if (next == '\n') ++line_;
      if (next == '\n' || next == kEnd) break;
      return Wrong(absl::StrCat(column(), "a carriage return without a line feed; put the field into double quotes"));
    } else if (byte == options_.delimiter) {
      ends_.push_back(record_.size());
      if (ends_.size() >= kMaxColumns) return Wrong(absl::StrCat("more than ", kMaxColumns, " columns"));
      place = Place::kFieldStart;
      continue;
    } else if (byte == '"') {
      if (place == Place::kPlain) {
        return Wrong(absl::StrCat(column(), "a double quote within a field that does not begin with one; put the ",
                                  "whole field into quotes and double those within"));
      }
      if (place == Place::kFieldStart) {
        place = Place::kQuoted;
        quote_line = line_;
        continue;
      }
      place = Place::kQuoted;  // a doubled quote: one of them is text
    } else if (place == Place::kAfterQuote) {
      return Wrong(absl::StrCat(column(), "text behind the closing double quote; double the quotes within a field"));
    } else {
      place = Place::kPlain;
    }
    if (record_.size() >= options_.max_record_bytes) {
      return Wrong(absl::StrCat("a record of more than ", options_.max_record_bytes, " bytes",
                                place == Place::kQuoted
                                    ? absl::StrCat("; is the double quote in line ", quote_line, " closed?")
                                    : std::string("; is this a text file?")));
    }
    record_.push_back(static_cast<char>(byte));
  }
  ends_.push_back(record_.size());
  fields_.clear();
  size_t begin = 0;
  for (const size_t end : ends_) {
    fields_.push_back(absl::string_view(record_).substr(begin, end - begin));
    begin = end;
  }
  return true;
}

}  // namespace basin
