#include "common/base/secret.h"

#include <sys/random.h>

#include "absl/strings/escaping.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {
void Fill(void* out, size_t size) {
  // Up to 256 bytes getrandom neither fails nor comes back short once the kernel's pool is ready.
  BASIN_CHECK(size <= 256 && getrandom(out, size, 0) == static_cast<ssize_t>(size));
}
}  // namespace

std::string SecretHex(int bytes) {
  std::string raw(bytes, '\0');
  Fill(raw.data(), raw.size());
  return absl::BytesToHexString(raw);
}

uint64_t SecretU64() {
  uint64_t value = 0;
  Fill(&value, sizeof(value));
  return value;
}

bool SecretEquals(absl::string_view a, absl::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace basin
