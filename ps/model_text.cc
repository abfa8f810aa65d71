#include "ps/model_text.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/dtype.h"

namespace basin {

std::string ShapeText(const wire::v1::Variable& variable) {
  return absl::StrCat("[", absl::StrJoin(variable.shape(), ", "), "]");
}

std::string DTypeText(uint32_t number) {
  const std::optional<DType> dtype = DTypeFromNumber(number);
  return dtype ? std::string(Name(*dtype)) : absl::StrCat("dtype ", number);
}

std::string StatisticText(wire::v1::Statistic statistic) {
  switch (statistic) {
    case wire::v1::STATISTIC_UNSPECIFIED:
      return "trained by its rule";
    case wire::v1::STATISTIC_MEAN:
      return "a statistic (mean)";
    case wire::v1::STATISTIC_SUM:
      return "a statistic (sum)";
    case wire::v1::STATISTIC_LAST:
      return "a statistic (last)";
    default:
      return absl::StrCat("statistic ", static_cast<int>(statistic));
  }
}

std::string ConsistencyText(wire::v1::Consistency consistency) {
  switch (consistency) {
    case wire::v1::CONSISTENCY_ASYNC:
      return "async";
    case wire::v1::CONSISTENCY_BOUNDED_STALENESS:
      return "bounded_staleness";
    case wire::v1::CONSISTENCY_SYNC:
      return "sync";
    default:
      return absl::StrCat("consistency ", static_cast<int>(consistency));
  }
}

std::string InputText(const wire::v1::Input& input) {
  return absl::StrCat(input.items(), " items in pieces of ", input.piece_items(), ", ", input.epochs(),
                      " epochs, shuffle seed ", input.shuffle_seed());
}

std::string AdmissionText(const wire::v1::Table& table) {
  return absl::StrCat("after ", table.admit_after(), table.admit_after() == 1 ? " push" : " pushes",
                      " with probability ", table.admit_probability());
}

std::string EvictionText(const wire::v1::Table& table) {
  return absl::StrCat(table.evict_unused_ms() == 0 ? "never for disuse"
                                                   : absl::StrCat("after ", table.evict_unused_ms(), " ms of disuse"),
                      ", ", table.max_bytes() == 0 ? "no max_bytes" : absl::StrCat("max_bytes ", table.max_bytes()));
}

}  // namespace basin
