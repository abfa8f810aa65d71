#include "estimator/snapshot/digest.h"

#include <sodium.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

using State = crypto_generichash_blake2b_state;

State* StateOf(unsigned char* bytes) { return reinterpret_cast<State*>(bytes); }

}  // namespace

Digester::Digester() {
  static_assert(sizeof(State) <= sizeof(state_) && alignof(State) <= 64);
  // Without it the slow portable implementation is used. Idempotent, and safe from several threads.
  static const int ready = sodium_init();
  BASIN_CHECK(ready >= 0);
  crypto_generichash_blake2b_init(StateOf(state_), nullptr, 0, kDigestBytes);
}

void Digester::Add(absl::string_view bytes) {
  crypto_generichash_blake2b_update(StateOf(state_), reinterpret_cast<const unsigned char*>(bytes.data()),
                                    bytes.size());
}

std::string Digester::Finish() {
  unsigned char digest[kDigestBytes];
  crypto_generichash_blake2b_final(StateOf(state_), digest, sizeof(digest));
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest), sizeof(digest)});
}

std::string DigestOf(absl::string_view bytes) {
  Digester digester;
  digester.Add(bytes);
  return digester.Finish();
}

absl::Status CheckDigest(absl::string_view digest) {
  const bool hex = digest.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
  if (hex && digest.size() == 2 * kDigestBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a snapshot's digest is ", 2 * kDigestBytes,
                                                 " lower-case hex digits, found \"",
                                                 absl::Utf8SafeCHexEscape(digest.substr(0, 80)), "\""));
}

}  // namespace basin
