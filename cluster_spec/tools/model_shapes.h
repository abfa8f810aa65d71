// The variables of three well-known models, layer by layer, for the placement table and its test.
#pragma once

#include <cstdint>
#include <vector>

#include "cluster_spec/placement.h"

namespace basin {

// 25,557,032 parameters (batch normalisation's moving statistics are not counted).
std::vector<PlacedVariable> ResNet50();
// 109,482,240 parameters, with the pooler.
std::vector<PlacedVariable> BertBase();
// The two multi-layer perceptrons of the DLRM for Criteo's Kaggle data set: 13-512-256-64-16 and 367-512-256-1.
std::vector<PlacedVariable> DlrmPerceptrons();

// Rows of the 26 categorical features of that data set, and the width of their embeddings.
const std::vector<int64_t>& CriteoCardinalities();
inline constexpr int64_t kDlrmEmbeddingDim = 16;
// DlrmPerceptrons, with the 26 embeddings as dense variables.
std::vector<PlacedVariable> DlrmDense();

}  // namespace basin
