#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "estimator/kubernetes/manifests.h"

namespace basin {
namespace {

using Json = nlohmann::ordered_json;

// A word that no reader of YAML takes for anything but text; everything else is written as JSON writes it, which is
// YAML too.
bool IsPlain(const std::string& text) {
  if (text.empty() || !absl::ascii_isalpha(text[0])) return false;
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_' && c != '.' && c != '/') return false;
  }
  const std::string small = absl::AsciiStrToLower(text);
  for (const char* word : {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}) {
    if (small == word) return false;
  }
  return true;
}

std::string Scalar(const Json& value) {
  if (value.is_string() && IsPlain(value.get<std::string>())) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void Write(const Json& value, int indent, bool after_dash, std::string* out) {
  const std::string blanks(static_cast<size_t>(indent), ' ');
  bool first = after_dash;
  const auto item = [&](const std::string& lead, const Json& inner, bool dash) {
    absl::StrAppend(out, first ? "" : blanks, lead);
    first = false;
    const bool nested = (inner.is_object() || inner.is_array()) && !inner.empty();
    if (!nested) {
      absl::StrAppend(out, " ", Scalar(inner), "\n");
    } else if (dash && inner.is_object()) {
      absl::StrAppend(out, " ");
      Write(inner, indent + 2, /*after_dash=*/true, out);
    } else {
      absl::StrAppend(out, "\n");
      Write(inner, inner.is_array() && !dash ? indent : indent + 2, /*after_dash=*/false, out);
    }
  };
  if (value.is_object()) {
    for (const auto& [name, inner] : value.items()) item(absl::StrCat(Scalar(Json(name)), ":"), inner, false);
  } else {
    for (const Json& inner : value) item("-", inner, true);
  }
}

}  // namespace

std::string ManifestsToYaml(const std::vector<Json>& manifests) {
  std::string text;
  for (const Json& manifest : manifests) {
    if (!text.empty()) text += "---\n";
    Write(manifest, 0, /*after_dash=*/false, &text);
  }
  return text;
}

}  // namespace basin
