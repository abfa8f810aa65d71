#include "common/format/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
// Offsets are signed 64-bit numbers: 2^63 - 1, less the header and its length.
constexpr uint64_t kMaxFileBytes = INT64_MAX - kMaxHeaderBytes - 8;
constexpr char kMetadataKey[] = "__metadata__";

absl::string_view FormatName(DType type) {
  switch (type) {
    case DType::kF64:
      return "F64";
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kBool:
      return "BOOL";
  }
  return "?";
}

std::optional<DType> FromFormatName(absl::string_view name) {
  for (uint32_t number = 1; const std::optional<DType> type = DTypeFromNumber(number); ++number) {
    if (FormatName(*type) == name) return type;
  }
  return std::nullopt;
}

// nullopt where the product overflows.
std::optional<uint64_t> BytesOf(const TensorInfo& tensor) {
  uint64_t bytes = SizeOf(tensor.dtype);
  for (const int64_t dim : tensor.shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) return std::nullopt;
  }
  return bytes;
}

// Adds [begin, end) to ranges (begin -> end) that neither touch nor overlap, and keeps them so: parts written one after
// another are one range.
void AddRange(uint64_t begin, uint64_t end, std::map<uint64_t, uint64_t>& ranges) {
  if (begin == end) return;
  auto at = ranges.upper_bound(begin);
  if (at != ranges.begin() && std::prev(at)->second >= begin) --at;
  while (at != ranges.end() && at->first <= end) {
    begin = std::min(begin, at->first);
    end = std::max(end, at->second);
    at = ranges.erase(at);
  }
  ranges.emplace_hint(at, begin, end);
}

absl::Status ReadAll(int fd, const std::string& path, uint64_t at, absl::Span<char> out) {
  while (!out.empty()) {
    const ssize_t got = pread(fd, out.data(), out.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
    if (got == 0) return absl::DataLossError(absl::StrCat(path, ": ends at byte ", at, ", while it is read"));
    out.remove_prefix(static_cast<size_t>(got));
    at += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

// A new name lasts through a power cut only once its folder is synced.
absl::Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("open ", folder));
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  // EINVAL: a file system whose folders cannot be synced.
  return error == 0 || error == EINVAL ? absl::OkStatus() : ErrnoStatus(error, absl::StrCat("fsync ", folder));
}

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a valid safetensors file: ", what));
}

absl::StatusOr<TensorInfo> ParseTensor(const std::string& name, const nlohmann::json& entry, uint64_t& begin,
                                       uint64_t& end) {
  const std::string where = absl::StrCat("tensor \"", name, "\": ");
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    return Wrong(absl::StrCat(where, "expected dtype, shape and two data_offsets"));
  }
  TensorInfo tensor;
  tensor.name = name;
  const std::string dtype = entry["dtype"].get<std::string>();
  const std::optional<DType> known = FromFormatName(dtype);
  if (!known) return Wrong(absl::StrCat(where, "dtype ", dtype, " is unknown"));
  tensor.dtype = *known;
  for (const nlohmann::json& dim : entry["shape"]) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
      return Wrong(absl::StrCat(where, "a dimension is no whole number"));
    tensor.shape.push_back(static_cast<int64_t>(dim.get<uint64_t>()));
  }
  for (const nlohmann::json& offset : entry["data_offsets"]) {
    if (!offset.is_number_unsigned()) return Wrong(absl::StrCat(where, "a data offset is no whole number"));
  }
  begin = entry["data_offsets"][0].get<uint64_t>();
  end = entry["data_offsets"][1].get<uint64_t>();
  const std::optional<uint64_t> bytes = BytesOf(tensor);
  if (!bytes || end < begin || end - begin != *bytes)
    return Wrong(absl::StrCat(where, "data_offsets do not fit dtype and shape"));
  return tensor;
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& json, uint64_t data_bytes) {
  // A NUL ends the text for the JSON library, and what follows it would go unseen.
  if (json.find('\0') != std::string::npos) return Wrong("the header is no JSON object");
  // The library keeps the last of equal keys, another reader may keep the first: refused. Keys lie two objects deep at
  // most.
  std::set<std::string> seen[3];
  std::optional<std::string> twice;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::object_start && depth < 2) seen[depth + 1].clear();
    if (event == nlohmann::json::parse_event_t::key && depth <= 2 &&
        !seen[depth].insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  const nlohmann::json header = nlohmann::json::parse(json, watch, /*allow_exceptions=*/false);
  if (!header.is_object()) return Wrong("the header is no JSON object");
  if (twice) return Wrong(absl::StrCat("\"", *twice, "\" stands twice"));
  SafetensorsHeader out;
  std::vector<uint64_t> ends;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadataKey) {
      if (!entry.is_object()) return Wrong("__metadata__ is no object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return Wrong(absl::StrCat("__metadata__ \"", key, "\" is no string"));
        out.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    uint64_t begin = 0, end = 0;
    BASIN_ASSIGN_OR_RETURN(TensorInfo tensor, ParseTensor(name, entry, begin, end));
    out.tensors.push_back(std::move(tensor));
    out.begins.push_back(begin);
    ends.push_back(end);
  }
  // In the order of their bytes (empty ones before what starts where they stand), they must cover the data exactly.
  std::vector<size_t> order(out.tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return std::pair(out.begins[a], ends[a]) < std::pair(out.begins[b], ends[b]); });
  SafetensorsHeader sorted;
  sorted.metadata = std::move(out.metadata);
  uint64_t at = 0;
  for (const size_t i : order) {
    if (out.begins[i] != at)
      return Wrong(absl::StrCat("tensor \"", out.tensors[i].name, "\" begins at ", out.begins[i], ", expected ", at));
    at = ends[i];
    sorted.tensors.push_back(std::move(out.tensors[i]));
    sorted.begins.push_back(out.begins[i]);
    sorted.sizes.push_back(ends[i] - out.begins[i]);
  }
  if (at != data_bytes) return Wrong(absl::StrCat("tensors cover ", at, " bytes, the file holds ", data_bytes));
  return sorted;
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorInfo> tensors, const std::map<std::string, std::string>& metadata) {
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter);
  // Entry by entry: an ordered object searches all of its keys for each new one.
  std::string text = "{";
  const auto add = [&text](const std::string& name, const nlohmann::ordered_json& entry) {
    absl::StrAppend(&text, text.size() > 1 ? "," : "", nlohmann::json(name).dump(), ":", entry.dump());
  };
  std::set<std::string> names;
  uint64_t at = 0;
  try {
    if (!metadata.empty()) add(kMetadataKey, metadata);
    for (const TensorInfo& tensor : tensors) {
      const std::optional<uint64_t> bytes = BytesOf(tensor);
      if (!bytes || *bytes > kMaxFileBytes - at) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor \"", tensor.name,
                                                       "\" has no valid shape, or more bytes than a file can have"));
      }
      if (SizeOf(tensor.dtype) == 0)
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor \"", tensor.name, "\" has no valid dtype"));
      if (tensor.name.empty() || tensor.name == kMetadataKey) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": \"", tensor.name, "\" cannot be a tensor's name"));
      }
      if (!names.insert(tensor.name).second)
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor \"", tensor.name, "\" stands twice"));
      add(tensor.name, {{"dtype", std::string(FormatName(tensor.dtype))},
                        {"shape", tensor.shape},
                        {"data_offsets", {at, at + *bytes}}});
      writer->begins_.push_back(at);
      writer->sizes_.push_back(*bytes);
      at += *bytes;
    }
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a name or a metadata string is not UTF-8, which the format asks for"));
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data is aligned to 8 bytes
  if (text.size() > kMaxHeaderBytes)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", tensors.size(), " tensors make a header above the format's 100 MB"));
  for (uint64_t& begin : writer->begins_) begin += 8 + text.size();
  writer->written_.resize(tensors.size());
  writer->tensors_ = std::move(tensors);
  writer->path_ = path;
  writer->temporary_ = TemporaryPathFor(path);
  writer->fd_ = open(writer->temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (writer->fd_ < 0) return ErrnoStatus(errno, absl::StrCat("create ", path));
  uint64_t length = text.size();
  std::string prefix(8, '\0');
  for (char& byte : prefix) {
    byte = static_cast<char>(length & 0xff);
    length >>= 8;
  }
  BASIN_RETURN_IF_ERROR(WriteAllAt(writer->fd_, prefix + text, 0, path));
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

absl::Status SafetensorsWriter::Write(size_t tensor, uint64_t offset, absl::Span<const char> bytes) {
  if (tensor >= sizes_.size() || offset > sizes_[tensor] || bytes.size() > sizes_[tensor] - offset) {
    return absl::OutOfRangeError(absl::StrCat(path_, ": a write outside tensor ", tensor));
  }
  BASIN_RETURN_IF_ERROR(
      WriteAllAt(fd_, absl::string_view(bytes.data(), bytes.size()), begins_[tensor] + offset, path_));
  AddRange(offset, offset + bytes.size(), written_[tensor]);
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  for (size_t i = 0; i < sizes_.size(); ++i) {
    uint64_t written = 0;
    for (const auto& [begin, end] : written_[i]) written += end - begin;
    if (written == sizes_[i]) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", written, " of ", sizes_[i], " bytes of \"", tensors_[i].name, "\" were written"));
  }
  if (fsync(fd_) != 0) return ErrnoStatus(errno, absl::StrCat("fsync ", path_));
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("rename to ", path_));
  close(fd_);
  fd_ = -1;
  return SyncFolderOf(path_);
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::Open(const std::string& path) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  reader->path_ = path;
  reader->fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (reader->fd_ < 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  struct stat info;
  if (fstat(reader->fd_, &info) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", path));
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  unsigned char prefix[8];
  if (!S_ISREG(info.st_mode) || file_bytes < sizeof(prefix))
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a valid safetensors file: too short"));
  BASIN_RETURN_IF_ERROR(ReadAll(reader->fd_, path, 0, absl::MakeSpan(reinterpret_cast<char*>(prefix), sizeof(prefix))));
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
  if (length > kMaxHeaderBytes || length > file_bytes - 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a valid safetensors file: a header of ", length, " bytes in a file of ", file_bytes));
  }
  std::string json(length, '\0');
  BASIN_RETURN_IF_ERROR(ReadAll(reader->fd_, path, 8, absl::MakeSpan(json.data(), json.size())));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(json, file_bytes - 8 - length);
  if (!header.ok()) return absl::Status(header.status().code(), absl::StrCat(path, ": ", header.status().message()));
  for (uint64_t& begin : header->begins) begin += 8 + length;
  reader->tensors_ = std::move(header->tensors);
  reader->begins_ = std::move(header->begins);
  reader->sizes_ = std::move(header->sizes);
  reader->metadata_ = std::move(header->metadata);
  return reader;
}

SafetensorsReader::~SafetensorsReader() {
  if (fd_ >= 0) close(fd_);
}

absl::Status SafetensorsReader::Read(size_t tensor, uint64_t offset, absl::Span<char> out) const {
  BASIN_CHECK(tensor < sizes_.size() && offset <= sizes_[tensor] && out.size() <= sizes_[tensor] - offset);
  return ReadAll(fd_, path_, begins_[tensor] + offset, out);
}

}  // namespace basin
