#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
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

// The item of that name; null where there is none, or no list.
Json ItemOf(const Json& thing, const char* list, const char* key, const Json& name) {
  if (!thing.is_object() || !thing.contains(list) || !thing[list].is_array()) return Json();
  for (const Json& one : thing[list]) {
    if (one.is_object() && one.contains(key) && one[key] == name) return one;
  }
  return Json();
}

// The first item of the list that is not in `merged` as it was made.
std::string ChangedItem(const Json& made, const Json& merged, const char* list, const char* key) {
  if (!made.contains(list)) return "";
  for (const Json& one : made[list]) {
    if (ItemOf(merged, list, key, one[key]) != one) return one[key].get<std::string>();
  }
  return "";
}

}  // namespace

std::string WhatOverlayBreaks(const Json& made, const Json& merged) {
  const auto member = [](const Json& spec, const char* name) { return spec.contains(name) ? spec[name] : Json(); };
  for (const char* name : {"restartPolicy", "subdomain", "hostname"}) {
    if (member(made, name) == member(merged, name)) continue;
    return absl::StrCat(name, ": Basin and the cluster set it, and the run depends on it; remove it");
  }
  const Json& ours = made["containers"][0];
  const Json found = ItemOf(merged, "containers", "name", kPodContainer);
  if (found.is_null()) {
    return "containers: it leaves out the container \"basin\", in which the task runs; write containers: [{name: "
           "basin, ...}], or [{name: OTHER, ...}] for one beside it";
  }
  if (member(found, "command") != ours["command"] || found.contains("args")) {
    return "containers: the container \"basin\" runs Basin's own agent, which starts the task; remove command and args";
  }
  if (const std::string name = ChangedItem(made, merged, "volumes", "name"); !name.empty()) {
    return absl::StrCat("volumes: \"", name, "\" is Basin's own volume; give yours another name");
  }
  if (const std::string path = ChangedItem(ours, found, "volumeMounts", "mountPath"); !path.empty()) {
    return absl::StrCat("containers: volumeMounts: \"", path,
                        "\" is where Basin's own volume is; mount yours elsewhere",
                        path == "/dev/shm" ? ", or leave out shm_size" : "");
  }
  if (const std::string name = ChangedItem(ours, found, "env", "name"); !name.empty()) {
    return absl::StrCat("containers: env: Basin sets the variable ", name, "; remove it");
  }
  return "";
}

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
