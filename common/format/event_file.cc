#include "common/format/event_file.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/checksum.h"

namespace basin {
namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

constexpr size_t kHeadBytes = 8 + 4;
constexpr size_t kTailBytes = 4;

template <typename T>
std::string Fixed(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

uint32_t Fixed32(absl::string_view bytes) {
  uint32_t value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

// A CRC of bytes that hold CRCs is weak, so they are stored rotated and shifted.
uint32_t MaskedCrc(absl::string_view bytes) { return std::rotr(Crc32c(bytes.data(), bytes.size()), 15) + 0xa282ead8u; }

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
std::string Tag(int field, WireType type) { return Varint(static_cast<uint64_t>(field) << 3 | type); }
std::string BytesField(int field, absl::string_view bytes) {
  return absl::StrCat(Tag(field, kBytes), Varint(bytes.size()), bytes);
}

std::string Record(absl::string_view event) {
  const std::string length = Fixed<uint64_t>(event.size());
  return absl::StrCat(length, Fixed(MaskedCrc(length)), event, Fixed(MaskedCrc(event)));
}

}  // namespace

std::string EventFileHeader(double wall_time) {
  return Record(absl::StrCat(Tag(1, kFixed64), Fixed(wall_time), BytesField(3, "brain.Event:2")));
}

std::string ScalarEvent(double wall_time, int64_t step, absl::string_view tag, double value) {
  // Summary{value: {tag, simple_value}} in Event{wall_time, step, summary}.
  const std::string scalar = absl::StrCat(BytesField(1, tag), Tag(2, kFixed32), Fixed(static_cast<float>(value)));
  return Record(absl::StrCat(Tag(1, kFixed64), Fixed(wall_time), Tag(2, kVarint), Varint(static_cast<uint64_t>(step)),
                             BytesField(5, BytesField(1, scalar))));
}

EventFileScan ScanEventFile(absl::string_view bytes) {
  EventFileScan scan;
  while (bytes.size() >= kHeadBytes + kTailBytes) {
    uint64_t length;
    std::memcpy(&length, bytes.data(), sizeof(length));
    if (Fixed32(bytes.substr(8)) != MaskedCrc(bytes.substr(0, 8))) break;
    if (length > bytes.size() - kHeadBytes - kTailBytes) break;
    if (Fixed32(bytes.substr(kHeadBytes + length)) != MaskedCrc(bytes.substr(kHeadBytes, length))) break;
    const size_t whole = kHeadBytes + length + kTailBytes;
    bytes.remove_prefix(whole);
    scan.sound_bytes += whole;
    ++scan.records;
  }
  return scan;
}

}  // namespace basin
