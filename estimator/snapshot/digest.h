// Digests of contents: BLAKE2b with 256 bits, from libsodium, as `b2sum -l 256` and Python's hashlib make them.
//
// Two contents of one digest would give a task another's files, so it must be collision resistant (XXH3 is not, and
// whoever may put a file into a source directory is not always who submits). Of what is: libsodium lies on every
// machine that has ZeroMQ, which links it, so the bundle grows by nothing; BLAKE2b is faster than a SHA-256 without
// hardware.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace basin {

inline constexpr size_t kDigestBytes = 32;

// One thread at a time; copies go on independently.
class Digester final {
 public:
  Digester();
  void Add(absl::string_view bytes);
  // 64 lower-case hex digits. Nothing may be added afterwards.
  std::string Finish();

 private:
  // As large and as aligned as libsodium's state, which stays out of this header.
  alignas(64) unsigned char state_[384];
};

std::string DigestOf(absl::string_view bytes);

// Whether the text is a digest, before it becomes part of a path. INVALID_ARGUMENT otherwise.
absl::Status CheckDigest(absl::string_view digest);

}  // namespace basin
