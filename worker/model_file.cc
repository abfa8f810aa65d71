#include "worker/model_file.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/dtype.h"
#include "common/base/status_macros.h"
#include "common/format/safetensors.h"

namespace basin {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

uint64_t Elements(const std::vector<int64_t>& shape) {
  uint64_t elements = 1;
  for (const int64_t dim : shape) elements *= static_cast<uint64_t>(dim);
  return elements;
}

// Index in the file of each wanted tensor; the file must have exactly these.
absl::StatusOr<std::vector<size_t>> Match(const SafetensorsReader& reader, const std::string& path,
                                          const std::vector<std::pair<std::string, std::vector<int64_t>>>& wanted) {
  std::vector<size_t> at;
  for (const auto& [name, shape] : wanted) {
    size_t found = reader.tensors().size();
    for (size_t i = 0; i < reader.tensors().size(); ++i) {
      if (reader.tensors()[i].name == name) found = i;
    }
    if (found == reader.tensors().size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, " has no tensor \"", name, "\", which the model needs; is it of another program or --hidden?"));
    }
    const TensorInfo& tensor = reader.tensors()[found];
    if (tensor.dtype != DType::kF32 || tensor.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": \"", name, "\" is ", Name(tensor.dtype), " ",
                                                     ShapeText(tensor.shape), ", the model's is f32 ",
                                                     ShapeText(shape)));
    }
    at.push_back(found);
  }
  if (reader.tensors().size() != wanted.size()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has ", reader.tensors().size(), " tensors, the model ",
                                                   wanted.size(), " variables; is it of another program or --hidden?"));
  }
  return at;
}

absl::Span<char> Bytes(std::vector<float>& values) {
  return absl::MakeSpan(reinterpret_cast<char*>(values.data()), values.size() * sizeof(float));
}

}  // namespace

absl::Status ExportModel(Client& client, const std::vector<std::pair<std::string, Variable>>& variables,
                         const std::string& path, const std::string& program) {
  std::vector<TensorInfo> tensors;
  for (const auto& [name, variable] : variables) tensors.push_back({name, DType::kF32, variable.shape});
  BASIN_ASSIGN_OR_RETURN(auto writer,
                         SafetensorsWriter::Create(path, tensors, {{"format", "basin"}, {"program", program}}));
  for (size_t i = 0; i < variables.size(); ++i) {
    std::vector<float> values(Elements(variables[i].second.shape));
    BASIN_RETURN_IF_ERROR(ToAbslStatus(client.Pull({{variables[i].second, values}}).Wait()));
    BASIN_RETURN_IF_ERROR(writer->Write(i, 0, Bytes(values)));
  }
  return writer->Finish();
}

absl::Status WriteModel(const std::vector<VariableDecl>& variables, const std::vector<std::vector<float>>& parameters,
                        const std::string& path, const std::string& program) {
  std::vector<TensorInfo> tensors;
  for (const VariableDecl& variable : variables) tensors.push_back({variable.name, DType::kF32, variable.shape});
  BASIN_ASSIGN_OR_RETURN(auto writer,
                         SafetensorsWriter::Create(path, tensors, {{"format", "basin"}, {"program", program}}));
  for (size_t i = 0; i < variables.size(); ++i) {
    BASIN_RETURN_IF_ERROR(writer->Write(
        i, 0, {reinterpret_cast<const char*>(parameters[i].data()), parameters[i].size() * sizeof(float)}));
  }
  return writer->Finish();
}

absl::Status AssignFromFile(Client& client, const std::vector<std::pair<std::string, Variable>>& variables,
                            const std::string& path) {
  BASIN_ASSIGN_OR_RETURN(auto reader, SafetensorsReader::Open(path));
  std::vector<std::pair<std::string, std::vector<int64_t>>> wanted;
  for (const auto& [name, variable] : variables) wanted.emplace_back(name, variable.shape);
  BASIN_ASSIGN_OR_RETURN(const std::vector<size_t> at, Match(*reader, path, wanted));
  for (size_t i = 0; i < variables.size(); ++i) {
    std::vector<float> values(Elements(variables[i].second.shape));
    BASIN_RETURN_IF_ERROR(reader->Read(at[i], 0, Bytes(values)));
    BASIN_RETURN_IF_ERROR(ToAbslStatus(client.Assign({{variables[i].second, values}}).Wait()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<float>>> ReadModel(const std::vector<VariableDecl>& variables,
                                                          const std::string& path) {
  BASIN_ASSIGN_OR_RETURN(auto reader, SafetensorsReader::Open(path));
  std::vector<std::pair<std::string, std::vector<int64_t>>> wanted;
  for (const VariableDecl& variable : variables) wanted.emplace_back(variable.name, variable.shape);
  BASIN_ASSIGN_OR_RETURN(const std::vector<size_t> at, Match(*reader, path, wanted));
  std::vector<std::vector<float>> parameters;
  for (size_t i = 0; i < variables.size(); ++i) {
    parameters.emplace_back(Elements(variables[i].shape));
    BASIN_RETURN_IF_ERROR(reader->Read(at[i], 0, Bytes(parameters.back())));
  }
  return parameters;
}

}  // namespace basin
