// TensorBoard's event files: scalars over steps. A file is a sequence of records; a record is
//
//   u64 length | u32 masked CRC32C of the length | `length` bytes of an Event message | u32 masked CRC32C of these
//
// all little-endian. The first record names the version, each further one here holds one scalar. Encode and check only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace basin {

// The record that a file begins with. `wall_time`: seconds since 1970.
std::string EventFileHeader(double wall_time);

// The record of one scalar.
std::string ScalarEvent(double wall_time, int64_t step, absl::string_view tag, double value);

struct EventFileScan {
  size_t records = 0;      // whole and sound, from the beginning; the header is one of them
  size_t sound_bytes = 0;  // how far they reach: what follows is torn or no event file
};
EventFileScan ScanEventFile(absl::string_view bytes);

}  // namespace basin
