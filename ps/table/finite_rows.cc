#include "ps/table/finite_rows.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ps/gradient_view.h"

namespace basin {

absl::Status CheckFinite(const StoredTableOptions& table, const char* keys, size_t n, const char* gradients,
                         DType type) {
  const GradientView all{.type = type, .data = gradients, .elements = n * table.dim};
  if (all.AllFinite()) return absl::OkStatus();
  const size_t at = std::min(all.FirstNotFinite(), all.elements - 1);
  uint64_t key = 0;
  std::memcpy(&key, keys + at / table.dim * sizeof(key), sizeof(key));
  return NotFiniteError(table, key, absl::StrCat(all.At(at)), at % table.dim);
}

absl::Status NotFiniteError(const StoredTableOptions& table, uint64_t key, absl::string_view what, size_t element) {
  return absl::InvalidArgumentError(absl::StrCat("table \"", table.name, "\": the gradient of key ", key, " is ", what,
                                                 " at element ", element,
                                                 ", expected finite numbers; nothing of the push was applied; look at "
                                                 "the loss or the learning rate of the worker"));
}

}  // namespace basin
