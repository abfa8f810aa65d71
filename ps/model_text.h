// Parts of a declaration in words, for messages about them.
#pragma once

#include <cstdint>
#include <string>

#include "common/wire/control.pb.h"

namespace basin {

std::string ShapeText(const wire::v1::Variable& variable);
std::string DTypeText(uint32_t number);
std::string StatisticText(wire::v1::Statistic statistic);
std::string ConsistencyText(wire::v1::Consistency consistency);
std::string InputText(const wire::v1::Input& input);
// When a key gets its row, and when it loses it.
std::string AdmissionText(const wire::v1::Table& table);
std::string EvictionText(const wire::v1::Table& table);

}  // namespace basin
