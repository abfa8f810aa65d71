#include "cluster_spec/tools/model_shapes.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

class Model {
 public:
  void Add(std::string name, std::vector<int64_t> shape) {
    variables_.push_back({std::move(name), DType::kF32, std::move(shape)});
  }
  void Dense(const std::string& name, int64_t in, int64_t out) {
    Add(name + "/kernel", {in, out});
    Add(name + "/bias", {out});
  }
  void Norm(const std::string& name, int64_t width) {
    Add(name + "/gamma", {width});
    Add(name + "/beta", {width});
  }
  void Conv(const std::string& name, int64_t kernel, int64_t in, int64_t out) {
    Add(name + "/kernel", {kernel, kernel, in, out});
    Norm(name + "/norm", out);
  }
  std::vector<PlacedVariable> Take() { return std::move(variables_); }

 private:
  std::vector<PlacedVariable> variables_;
};

}  // namespace

std::vector<PlacedVariable> ResNet50() {
  Model model;
  model.Conv("conv1", 7, 3, 64);
  const int blocks[] = {3, 4, 6, 3};
  int64_t in = 64;
  for (int stage = 0; stage < 4; ++stage) {
    const int64_t width = int64_t{64} << stage;
    for (int block = 0; block < blocks[stage]; ++block) {
      const std::string name = absl::StrCat("stage", stage + 1, "/block", block);
      model.Conv(name + "/reduce", 1, in, width);
      model.Conv(name + "/spatial", 3, width, width);
      model.Conv(name + "/expand", 1, width, 4 * width);
      if (block == 0) model.Conv(name + "/shortcut", 1, in, 4 * width);
      in = 4 * width;
    }
  }
  model.Dense("classifier", in, 1000);
  return model.Take();
}

std::vector<PlacedVariable> BertBase() {
  constexpr int64_t kHidden = 768, kInner = 3072;
  Model model;
  model.Add("embeddings/word", {30522, kHidden});
  model.Add("embeddings/position", {512, kHidden});
  model.Add("embeddings/token_type", {2, kHidden});
  model.Norm("embeddings/norm", kHidden);
  for (int layer = 0; layer < 12; ++layer) {
    const std::string name = absl::StrCat("layer", layer);
    for (const char* part : {"/query", "/key", "/value", "/attention_output"})
      model.Dense(name + part, kHidden, kHidden);
    model.Norm(name + "/attention_norm", kHidden);
    model.Dense(name + "/intermediate", kHidden, kInner);
    model.Dense(name + "/output", kInner, kHidden);
    model.Norm(name + "/output_norm", kHidden);
  }
  model.Dense("pooler", kHidden, kHidden);
  return model.Take();
}

std::vector<PlacedVariable> DlrmPerceptrons() {
  Model model;
  const auto chain = [&](const std::string& name, const std::vector<int64_t>& widths) {
    for (size_t i = 0; i + 1 < widths.size(); ++i) model.Dense(absl::StrCat(name, i), widths[i], widths[i + 1]);
  };
  chain("bottom", {13, 512, 256, 64, kDlrmEmbeddingDim});
  // Pairwise products of 27 vectors, and the bottom's output: 27 * 26 / 2 + 16.
  chain("top", {367, 512, 256, 1});
  return model.Take();
}

const std::vector<int64_t>& CriteoCardinalities() {
  static const auto& rows = *new std::vector<int64_t>{1460,  583,  10131227, 2202608, 305, 24,     12517,   633,   3,
                                                      93145, 5683, 8351593,  3194,    27,  14992,  5461306, 10,    5652,
                                                      2173,  4,    7046547,  18,      15,  286181, 105,     142572};
  return rows;
}

std::vector<PlacedVariable> DlrmDense() {
  std::vector<PlacedVariable> out = DlrmPerceptrons();
  for (size_t i = 0; i < CriteoCardinalities().size(); ++i)
    out.push_back({absl::StrCat("embedding", i), DType::kF32, {CriteoCardinalities()[i], kDlrmEmbeddingDim}});
  return out;
}

}  // namespace basin
