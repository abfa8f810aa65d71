#include "cluster_spec/tools/balance_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cluster_spec/placement.h"
#include "cluster_spec/table_placement.h"
#include "cluster_spec/tools/model_shapes.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr int kPsCounts[] = {1, 2, 7, 16, 100};

Placement Place(const std::vector<PlacedVariable>& variables, int ps_count) {
  auto placement = Placement::Make(ps_count).Extend(variables);
  BASIN_CHECK(placement.ok());
  return *std::move(placement);
}

Balance Sum(const std::string& model, const std::vector<uint64_t>& bytes) {
  Balance out{model, static_cast<int>(bytes.size()), *std::max_element(bytes.begin(), bytes.end()), 0};
  for (uint64_t each : bytes) out.total_bytes += each;
  return out;
}

std::vector<uint64_t> DenseBytes(const std::vector<PlacedVariable>& variables, int ps_count) {
  const Placement placement = Place(variables, ps_count);
  std::vector<uint64_t> out;
  for (int ps = 0; ps < ps_count; ++ps) out.push_back(placement.bytes_on(PsOrdinal(static_cast<uint32_t>(ps))));
  return out;
}

// Keys of all tables in each of the most buckets there are; fewer buckets are runs of these, because a bucket is the
// top bits of a hash.
std::vector<uint64_t> FineBuckets() {
  const TablePlacement finest = TablePlacement::Make(1024);
  std::vector<uint64_t> keys(finest.buckets());
  const int64_t most = *std::max_element(CriteoCardinalities().begin(), CriteoCardinalities().end());
  for (int64_t key = 0; key < most; ++key) {
    uint64_t tables = 0;
    for (int64_t rows : CriteoCardinalities()) tables += key < rows ? 1 : 0;
    keys[finest.BucketOf(static_cast<uint64_t>(key))] += tables;
  }
  return keys;
}

}  // namespace

std::vector<Balance> ComputeBalances() {
  std::vector<Balance> out;
  const std::pair<const char*, std::vector<PlacedVariable>> models[] = {
      {"ResNet-50", ResNet50()}, {"BERT-base", BertBase()}, {"DLRM, embeddings as variables", DlrmDense()}};
  for (const auto& [name, variables] : models) {
    for (int ps_count : kPsCounts) out.push_back(Sum(name, DenseBytes(variables, ps_count)));
  }
  const std::vector<uint64_t> fine = FineBuckets();
  for (int ps_count : kPsCounts) {
    std::vector<uint64_t> bytes = DenseBytes(DlrmPerceptrons(), ps_count);
    const TablePlacement table = TablePlacement::Make(ps_count);
    for (size_t i = 0; i < fine.size(); ++i) {
      const auto bucket = static_cast<uint32_t>(i * table.buckets() / fine.size());
      bytes[table.PsOf(bucket).value()] += fine[i] * static_cast<uint64_t>(kDlrmEmbeddingDim) * SizeOf(DType::kF32);
    }
    out.push_back(Sum("DLRM, embeddings as tables", bytes));
  }
  return out;
}

std::string BalanceMarkdown(const std::vector<Balance>& balances) {
  std::string out = "| model | MiB |";
  for (int ps_count : kPsCounts) absl::StrAppend(&out, " ", ps_count, " ps |");
  absl::StrAppend(&out, "\n|---|---|");
  for (size_t i = 0; i < std::size(kPsCounts); ++i) absl::StrAppend(&out, "---|");
  std::string row;
  for (const Balance& balance : balances) {
    if (balance.model != row)
      absl::StrAppend(&out, "\n| ", balance.model, " | ",
                      absl::StrFormat("%.1f", static_cast<double>(balance.total_bytes) / (1 << 20)), " |");
    row = balance.model;
    absl::StrAppend(&out, absl::StrFormat(" %.4f |", balance.ratio()));
  }
  return out + "\n";
}

}  // namespace basin
