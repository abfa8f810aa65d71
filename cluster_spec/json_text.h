// A strict reader of JSON (RFC 8259) that knows the line and column of everything it read. One leniency: a comma before
// a closing bracket is accepted with a warning, because the Azure page's example of TF_CONFIG has one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

// Both count from 1; a column is a code point.
struct JsonPosition {
  uint32_t line = 1;
  uint32_t column = 1;
};

struct JsonMember;

struct JsonValue {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  JsonPosition at;
  bool boolean = false;
  // A string's content, unescaped; a number as it was written.
  std::string text;
  std::vector<JsonValue> items;
  // In the order of first appearance; of a repeated key, the last value.
  std::vector<JsonMember> members;

  // nullptr where this is no object, or has no such key.
  const JsonValue* Find(absl::string_view key) const;
};

struct JsonMember {
  JsonPosition at;
  std::string key;
  JsonValue value;
};

struct JsonDocument {
  // The name given to ParseJson.
  std::string source;
  JsonValue root;
  // Trailing commas and repeated keys, each with its position.
  std::vector<std::string> warnings;

  // "<source> line 3 column 14"
  std::string Place(JsonPosition at) const;
};

// "an object", "a string" and so on.
absl::string_view Name(JsonValue::Kind kind);

// `source` is what messages call the text, such as "TF_CONFIG". Nesting is limited to 64.
absl::StatusOr<JsonDocument> ParseJson(absl::string_view text, absl::string_view source);

// `text` as a JSON string with its quotes. Bytes of UTF-8 pass unchanged, other bytes above 127 become U+FFFD.
std::string JsonQuote(absl::string_view text);

}  // namespace basin
