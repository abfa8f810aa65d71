// Small tables of examples for tests of wide & deep: what shall be learned is known.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "worker/train/feature_data.h"

namespace basin {

inline constexpr char kShopSchema[] = R"(
label: {column: bought}
split: {column: day, test_from: "4"}
numeric: [price]
numeric_wide_only: [age]
categorical: [shop, user]
buckets: [{name: hour, column: minute, width: 60}]
crosses: [[shop, hour]]
)";

inline constexpr char kShopSchemaWithoutNumbers[] = R"(
label: {column: bought}
split: {column: day, test_from: "4"}
categorical: [shop, user]
crosses: [[shop, user]]
)";

// The label's log-odds: one for the shop, one for the user, one for the pair of shop and hour, which no sum of others
// gives, and a slope in the price. Days 0 to 3 are the training part; a tenth of the prices is missing.
inline std::string ShopCsv(size_t count, uint64_t seed) {
  std::string csv = "day,shop,user,minute,price,age,bought\n";
  for (uint64_t i = 0; i < count; ++i) {
    const auto draw = [&](uint64_t n, uint64_t below) { return RandomAt(seed, 16 * i + n) % below; };
    const uint64_t shop = draw(0, 5), user = draw(1, 30), minute = draw(2, 240), price = draw(3, 100);
    const double odds = 2 * UnitAt(7, shop) - 1 + 2 * UnitAt(8, user) - 1 + ((shop ^ (minute / 60)) & 1 ? 1.5 : -1.5) +
                        0.02 * (static_cast<double>(price) - 50);
    const bool bought = UnitAt(seed, 16 * i + 4) < 1 / (1 + std::exp(-odds));
    absl::StrAppend(&csv, draw(5, 5), ",s", shop, ",u", user, ",", minute, ",",
                    draw(6, 10) == 0 ? "" : absl::StrCat(price), ",", draw(7, 60), ",", bought ? 1 : 0, "\n");
  }
  return csv;
}

inline FeatureData ShopData(size_t count, uint64_t seed, const char* schema = kShopSchema) {
  const std::string text = ShopCsv(count, seed);
  size_t at = 0;
  auto csv = CsvReader::FromSource("shop.csv", [&](absl::Span<char> out) -> absl::StatusOr<size_t> {
    const size_t bytes = std::min(out.size(), text.size() - at);
    std::copy_n(text.data() + at, bytes, out.data());
    at += bytes;
    return bytes;
  });
  return *FeatureData::Read(**csv, *ParseFeatureSchema(schema, "shop.yaml"));
}

}  // namespace basin
