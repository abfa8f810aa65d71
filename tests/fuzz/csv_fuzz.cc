// Input: a byte that says how large the pieces are in which the text comes, then the text. However it is cut, the same
// records or the same complaint come out; and what was read, written again with every field in quotes, reads the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"
#include "common/format/csv.h"

namespace {

struct Outcome {
  std::vector<std::vector<std::string>> records;  // the header first
  absl::Status status;
};

Outcome ReadAll(const std::string& text, size_t piece) {
  size_t at = 0;
  const auto source = [&](absl::Span<char> out) -> absl::StatusOr<size_t> {
    const size_t bytes = std::min({piece, out.size(), text.size() - at});
    std::copy_n(text.data() + at, bytes, out.data());
    at += bytes;
    return bytes;
  };
  basin::CsvOptions options;
  options.max_record_bytes = 512;
  Outcome outcome;
  auto reader = basin::CsvReader::FromSource("fuzz", source, options);
  outcome.status = reader.status();
  if (!reader.ok()) return outcome;
  outcome.records.push_back((*reader)->columns());
  while (true) {
    const auto there = (*reader)->Next();
    outcome.status = there.status();
    if (!there.ok() || !*there) break;
    BASIN_CHECK((*reader)->fields().size() == (*reader)->columns().size());
    outcome.records.emplace_back();
    for (const absl::string_view field : (*reader)->fields()) outcome.records.back().emplace_back(field);
  }
  if (!outcome.status.ok()) BASIN_CHECK((*reader)->Next().status() == outcome.status);
  return outcome;
}

std::string Quoted(const std::vector<std::vector<std::string>>& records) {
  std::string text;
  for (const auto& record : records) {
    for (size_t i = 0; i < record.size(); ++i) {
      absl::StrAppend(&text, i == 0 ? "" : ",", "\"", absl::StrReplaceAll(record[i], {{"\"", "\"\""}}), "\"");
    }
    text += "\r\n";
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = ReadAll(text, text.size() + 1), cut = ReadAll(text, size_t{1} + data[0]);
  BASIN_CHECK(whole.status == cut.status && whole.records == cut.records);
  if (!whole.status.ok()) {
    BASIN_CHECK(!whole.status.message().empty());
    return 0;
  }
  // A name that begins with another byte order mark would lose it on the second reading.
  if (whole.records[0][0].rfind("\xEF\xBB\xBF", 0) == 0) return 0;
  // In one column an empty text in quotes and an empty line are the same record.
  const Outcome again = ReadAll(Quoted(whole.records), 7);
  BASIN_CHECK(again.status.ok() && again.records == whole.records);
  return 0;
}
