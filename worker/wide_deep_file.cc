#include "worker/wide_deep_file.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/dtype.h"
#include "common/base/status_macros.h"
#include "common/format/safetensors.h"

namespace basin {
namespace {

constexpr size_t kRowsAtOnce = 4096;
constexpr char kProgram[] = "wide_deep";

template <class T>
absl::Span<const char> Bytes(const T* values, size_t count) {
  return {reinterpret_cast<const char*>(values), count * sizeof(T)};
}

// The keys of each table that the training part has.
std::vector<std::vector<uint64_t>> LearnedKeys(const FeatureData& data) {
  std::vector<std::vector<uint64_t>> keys(1);
  for (size_t feature = 0; feature < data.schema().features(); ++feature) {
    const std::vector<uint64_t> of_feature = data.TrainKeys(feature);
    keys[0].insert(keys[0].end(), of_feature.begin(), of_feature.end());
    if (feature < data.schema().categories.size()) keys.push_back(of_feature);
  }
  return keys;
}

// What the file's tensors are, for a model: variables, the scale, then keys and rows of each table. `rows`: of each
// table.
std::vector<TensorInfo> TensorsOf(const WideDeep& model, int64_t numeric, const std::vector<int64_t>& rows) {
  std::vector<TensorInfo> tensors;
  for (const VariableDecl& variable : model.variables())
    tensors.push_back({variable.name, DType::kF32, variable.shape});
  tensors.push_back({"numeric/mean", DType::kF32, {numeric}});
  tensors.push_back({"numeric/deviation", DType::kF32, {numeric}});
  for (size_t i = 0; i < rows.size(); ++i) {
    const TableDecl& table = model.tables()[i];
    tensors.push_back({absl::StrCat(table.name, "/keys"), DType::kI64, {rows[i]}});
    tensors.push_back({absl::StrCat(table.name, "/rows"), DType::kF32, {rows[i], int64_t{table.dim}}});
  }
  return tensors;
}

std::string Text(const TensorInfo& tensor) {
  return absl::StrCat(Name(tensor.dtype), " [", absl::StrJoin(tensor.shape, ", "), "]");
}

// A model file's tensors, by name.
class Tensors {
 public:
  Tensors(const SafetensorsReader& reader, std::string path) : reader_(reader), path_(std::move(path)) {}

  absl::StatusOr<size_t> Find(const std::string& name) const {
    for (size_t i = 0; i < reader_.tensors().size(); ++i) {
      if (reader_.tensors()[i].name == name) return i;
    }
    return absl::InvalidArgumentError(
        absl::StrCat(path_, " has no tensor \"", name, "\"; is it of another schema, or of another --hidden?"));
  }

  // All of the tensor, which must be as `wanted`.
  template <class T>
  absl::Status Read(const TensorInfo& wanted, std::vector<T>* out) const {
    BASIN_ASSIGN_OR_RETURN(const size_t at, Find(wanted.name));
    const TensorInfo& found = reader_.tensors()[at];
    if (found.dtype != wanted.dtype || found.shape != wanted.shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": \"", wanted.name, "\" is ", Text(found), ", the model's is ", Text(wanted),
                       "; give it the schema, --hidden and --embedding-dim that it was trained with"));
    }
    size_t elements = 1;
    for (const int64_t dim : wanted.shape) elements *= static_cast<size_t>(dim);
    out->resize(elements);
    return reader_.Read(at, 0, absl::MakeSpan(reinterpret_cast<char*>(out->data()), elements * sizeof(T)));
  }

  // The first dimension, 0 of a scalar.
  absl::StatusOr<int64_t> Rows(const std::string& name) const {
    BASIN_ASSIGN_OR_RETURN(const size_t at, Find(name));
    return reader_.tensors()[at].shape.empty() ? 0 : reader_.tensors()[at].shape[0];
  }

 private:
  const SafetensorsReader& reader_;
  const std::string path_;
};

}  // namespace

absl::Status WriteWideDeep(const WideDeep& model, WideDeepParameters& parameters, const FeatureData& data,
                           const std::string& path) {
  const std::vector<std::vector<uint64_t>> learned = LearnedKeys(data);
  const NumericScale scale = data.TrainScale();
  std::vector<int64_t> rows;
  for (const std::vector<uint64_t>& keys : learned) rows.push_back(static_cast<int64_t>(keys.size()));
  BASIN_ASSIGN_OR_RETURN(
      auto writer,
      SafetensorsWriter::Create(path, TensorsOf(model, static_cast<int64_t>(scale.mean.size()), rows),
                                {{"format", "basin"}, {"program", kProgram}, {"seed", absl::StrCat(model.seed())}}));
  std::vector<TableKeys> keys(model.tables().size());
  WideDeepValues values;
  const auto pull = [&]() -> absl::Status {
    model.Resize(keys, &values);
    BASIN_RETURN_IF_ERROR(parameters.StartPull(keys, &values));
    return parameters.Settle();
  };
  BASIN_RETURN_IF_ERROR(pull());
  size_t tensor = 0;
  for (const std::vector<float>& variable : values.dense) {
    BASIN_RETURN_IF_ERROR(writer->Write(tensor++, 0, Bytes(variable.data(), variable.size())));
  }
  for (const std::vector<float>& numbers : {scale.mean, scale.deviation}) {
    BASIN_RETURN_IF_ERROR(writer->Write(tensor++, 0, Bytes(numbers.data(), numbers.size())));
  }
  for (size_t table = 0; table < learned.size(); ++table, tensor += 2) {
    const std::vector<uint64_t>& all = learned[table];
    BASIN_RETURN_IF_ERROR(writer->Write(tensor, 0, Bytes(all.data(), all.size())));
    for (size_t begin = 0; begin < all.size(); begin += kRowsAtOnce) {
      const size_t end = std::min(begin + kRowsAtOnce, all.size());
      keys[table].keys.assign(all.begin() + static_cast<ptrdiff_t>(begin), all.begin() + static_cast<ptrdiff_t>(end));
      BASIN_RETURN_IF_ERROR(pull());
      BASIN_RETURN_IF_ERROR(writer->Write(tensor + 1, begin * model.tables()[table].dim * sizeof(float),
                                          Bytes(values.rows[table].data(), values.rows[table].size())));
    }
    keys[table].keys.clear();
  }
  return writer->Finish();
}

absl::StatusOr<LoadedWideDeep> ReadWideDeep(const FeatureSchema& schema, WideDeepOptions options,
                                            const std::string& path) {
  BASIN_ASSIGN_OR_RETURN(const auto reader, SafetensorsReader::Open(path));
  const auto seed = reader->metadata().find("seed"), program = reader->metadata().find("program");
  if (program == reader->metadata().end() || program->second != kProgram || seed == reader->metadata().end() ||
      !absl::SimpleAtoi(seed->second, &options.seed)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no model of program wide_deep by its metadata; is it of another --program?"));
  }
  BASIN_ASSIGN_OR_RETURN(WideDeep model, WideDeep::Make(schema, options));
  const Tensors tensors(*reader, path);
  std::vector<int64_t> rows;
  for (const TableDecl& table : model.tables()) {
    BASIN_ASSIGN_OR_RETURN(const int64_t of_table, tensors.Rows(absl::StrCat(table.name, "/keys")));
    rows.push_back(of_table);
  }
  const std::vector<TensorInfo> wanted = TensorsOf(model, static_cast<int64_t>(schema.numeric.size()), rows);
  if (reader->tensors().size() != wanted.size()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has ", reader->tensors().size(), " tensors, expected ",
                                                   wanted.size(),
                                                   "; is it of another schema, or of another --hidden?"));
  }
  // The rule is of no use to a model that is trained no further.
  auto parameters = std::make_unique<LocalWideDeepParameters>(model, RuleSpec{});
  size_t at = 0;
  for (std::vector<float>& variable : parameters->dense()) {
    BASIN_RETURN_IF_ERROR(tensors.Read(wanted[at++], &variable));
  }
  NumericScale scale;
  BASIN_RETURN_IF_ERROR(tensors.Read(wanted[at++], &scale.mean));
  BASIN_RETURN_IF_ERROR(tensors.Read(wanted[at++], &scale.deviation));
  for (size_t table = 0; table < rows.size(); ++table, at += 2) {
    std::vector<uint64_t> keys;
    std::vector<float> values;
    BASIN_RETURN_IF_ERROR(tensors.Read(wanted[at], &keys));
    BASIN_RETURN_IF_ERROR(tensors.Read(wanted[at + 1], &values));
    const size_t dim = model.tables()[table].dim;
    for (size_t i = 0; i < keys.size(); ++i) {
      parameters->table(table).Assign(keys[i], absl::MakeConstSpan(values).subspan(i * dim, dim));
    }
  }
  return LoadedWideDeep{std::move(model), std::move(parameters), std::move(scale)};
}

}  // namespace basin
