#include <nlohmann/json.hpp>

#include "estimator/kubernetes/manifests.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

// The member by which Kubernetes' strategic merge knows the items of a list; "" for a list of anything else.
std::string KeyOf(const std::string& list, const Json& items) {
  std::string key = "name";
  if (list == "volumeMounts") key = "mountPath";
  if (list == "ports") key = "containerPort";
  if (list == "topologySpreadConstraints") key = "topologyKey";
  for (const Json& item : items) {
    if (!item.is_object() || !item.contains(key)) return "";
  }
  return items.empty() ? "" : key;
}

void MergeList(const std::string& name, const Json& from, Json* into) {
  const std::string key = KeyOf(name, from);
  if (key.empty() || !into->is_array() || (!into->empty() && KeyOf(name, *into) != key)) {
    *into = from;
    return;
  }
  for (const Json& item : from) {
    Json* found = nullptr;
    for (Json& other : *into) {
      if (other[key] == item[key]) found = &other;
    }
    found != nullptr ? MergeOverlay(item, found) : into->push_back(item);
  }
}

}  // namespace

void MergeOverlay(const Json& overlay, Json* into) {
  if (!overlay.is_object()) return;
  for (const auto& [name, value] : overlay.items()) {
    if (value.is_null()) {
      into->erase(name);
    } else if (value.is_object() && into->contains(name) && (*into)[name].is_object()) {
      MergeOverlay(value, &(*into)[name]);
    } else if (value.is_array() && into->contains(name)) {
      MergeList(name, value, &(*into)[name]);
    } else {
      (*into)[name] = value;
    }
  }
}

}  // namespace basin
