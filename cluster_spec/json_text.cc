#include "cluster_spec/json_text.h"

#include <cstddef>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr int kMaxDepth = 64;

std::string PlaceIn(absl::string_view source, JsonPosition at) {
  return absl::StrCat(source, " line ", at.line, " column ", at.column);
}

// The bytes of the well-formed UTF-8 sequence at the front, or 0. (Unicode 15, table 3-7.)
size_t Utf8Length(absl::string_view s) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto tail = [&](size_t i) { return byte(i) >= 0x80 && byte(i) <= 0xBF; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return s.empty() ? 0 : 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool second = byte(1) >= (lead == 0xE0 ? 0xA0u : 0x80u) && byte(1) <= (lead == 0xED ? 0x9Fu : 0xBFu);
    return second && tail(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool second = byte(1) >= (lead == 0xF0 ? 0x90u : 0x80u) && byte(1) <= (lead == 0xF4 ? 0x8Fu : 0xBFu);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

void AppendUtf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | code >> 6));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | code >> 12));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | code >> 18));
    out.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Reader {
 public:
  Reader(absl::string_view text, JsonDocument& document) : rest_(text), document_(document) {}

  absl::Status Read() {
    if (absl::StartsWith(rest_, "\xEF\xBB\xBF"))
      return Error("expected JSON, found a byte-order mark; save the text as UTF-8 without one");
    SkipSpace();
    if (rest_.empty()) return Error("is set but empty; unset it, or set it to {}");
    BASIN_RETURN_IF_ERROR(ReadValue(document_.root, 0));
    SkipSpace();
    if (!rest_.empty())
      return Error(absl::StrCat("expected the end of the text, found ", Found(), "; remove what follows the value"));
    return absl::OkStatus();
  }

 private:
  absl::Status Error(absl::string_view message) const { return ErrorAt(at_, message); }
  absl::Status ErrorAt(JsonPosition at, absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(document_.Place(at), ": ", message));
  }
  void Warn(JsonPosition at, absl::string_view message) {
    document_.warnings.push_back(absl::StrCat(document_.Place(at), ": ", message));
  }

  // What stands here, for a message.
  std::string Found() const {
    if (rest_.empty()) return "the end of the text";
    const unsigned char c = rest_[0];
    if (c < 0x20 || c == 0x7F) return absl::StrFormat("the control character 0x%02x", c);
    const size_t length = Utf8Length(rest_);
    if (length == 0) return absl::StrFormat("the byte 0x%02x, which is not UTF-8", c);
    return absl::StrCat("'", rest_.substr(0, length), "'");
  }

  char Peek() const { return rest_.empty() ? '\0' : rest_[0]; }

  void Advance(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (rest_[i] == '\n') {
        ++at_.line;
        at_.column = 1;
      } else if ((rest_[i] & 0xC0) != 0x80) {
        ++at_.column;
      }
    }
    rest_.remove_prefix(count);
  }

  void SkipSpace() {
    size_t count = 0;
    while (count < rest_.size() &&
           (rest_[count] == ' ' || rest_[count] == '\t' || rest_[count] == '\n' || rest_[count] == '\r'))
      ++count;
    Advance(count);
  }

  absl::Status ReadValue(JsonValue& out, int depth) {
    out.at = at_;
    switch (Peek()) {
      case '{':
      case '[':
        if (depth == kMaxDepth) return Error(absl::StrCat("nested more than ", kMaxDepth, " deep; flatten it"));
        return Peek() == '{' ? ReadObject(out, depth) : ReadArray(out, depth);
      case '"':
        out.kind = JsonValue::Kind::kString;
        return ReadString(out.text);
      case 't':
      case 'f':
      case 'n':
        return ReadWord(out);
      default:
        if (Peek() == '-' || IsDigit(Peek())) return ReadNumber(out);
    }
    if (Peek() == '\'') return Error("expected a value, found a single quote; JSON takes double quotes only");
    return Error(absl::StrCat("expected a value, found ", Found()));
  }

  absl::Status ReadWord(JsonValue& out) {
    for (absl::string_view word : {"true", "false", "null"}) {
      if (!absl::StartsWith(rest_, word)) continue;
      out.kind = word == "null" ? JsonValue::Kind::kNull : JsonValue::Kind::kBool;
      out.boolean = word == "true";
      Advance(word.size());
      return absl::OkStatus();
    }
    return Error(absl::StrCat("expected a value, found ", Found(), "; a string needs double quotes"));
  }

  absl::Status ReadNumber(JsonValue& out) {
    size_t i = 0;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < rest_.size() && IsDigit(rest_[i])) ++i;
      return i > begin;
    };
    if (rest_[i] == '-') ++i;
    const size_t whole = i;
    bool good = digits() && !(rest_[whole] == '0' && i > whole + 1);
    if (good && i < rest_.size() && rest_[i] == '.') {
      ++i;
      good = digits();
    }
    if (good && i < rest_.size() && (rest_[i] == 'e' || rest_[i] == 'E')) {
      ++i;
      if (i < rest_.size() && (rest_[i] == '+' || rest_[i] == '-')) ++i;
      good = digits();
    }
    if (!good) return Error(absl::StrCat("expected a JSON number, found ", JsonQuote(rest_.substr(0, i))));
    out.kind = JsonValue::Kind::kNumber;
    out.text = std::string(rest_.substr(0, i));
    Advance(i);
    return absl::OkStatus();
  }

  // Four hexadecimal digits at the front of rest_, consumed.
  std::optional<uint32_t> ReadHex4() {
    if (rest_.size() < 4) return std::nullopt;
    uint32_t code = 0;
    for (size_t i = 0; i < 4; ++i) {
      const char c = rest_[i];
      const int digit = IsDigit(c)             ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return std::nullopt;
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    Advance(4);
    return code;
  }

  absl::Status ReadEscape(std::string& out) {
    const JsonPosition at = at_;
    Advance(1);
    const char c = Peek();
    static constexpr absl::string_view kLetters = "\"\\/bfnrt";
    static constexpr absl::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (const size_t i = rest_.empty() ? absl::string_view::npos : kLetters.find(c); i != absl::string_view::npos) {
      out.push_back(kMeanings[i]);
      Advance(1);
      return absl::OkStatus();
    }
    if (c != 'u') return ErrorAt(at, absl::StrCat("expected an escape after '\\', found ", Found()));
    Advance(1);
    std::optional<uint32_t> code = ReadHex4();
    if (!code) return ErrorAt(at, "expected four hexadecimal digits after \\u");
    if (*code >= 0xD800 && *code <= 0xDBFF && absl::StartsWith(rest_, "\\u")) {
      Advance(2);
      const std::optional<uint32_t> low = ReadHex4();
      if (!low || *low < 0xDC00 || *low > 0xDFFF) return ErrorAt(at, "expected the second half of a surrogate pair");
      code = 0x10000 + ((*code - 0xD800) << 10) + (*low - 0xDC00);
    } else if (*code >= 0xD800 && *code <= 0xDFFF) {
      return ErrorAt(at, "found half of a surrogate pair alone");
    }
    AppendUtf8(*code, out);
    return absl::OkStatus();
  }

  absl::Status ReadString(std::string& out) {
    const JsonPosition begin = at_;
    Advance(1);
    while (true) {
      if (rest_.empty()) return ErrorAt(begin, "this string has no closing double quote");
      const unsigned char c = rest_[0];
      if (c == '"') {
        Advance(1);
        return absl::OkStatus();
      }
      if (c == '\\') {
        BASIN_RETURN_IF_ERROR(ReadEscape(out));
        continue;
      }
      const size_t length = c < 0x20 ? 0 : Utf8Length(rest_);
      if (length == 0) return Error(absl::StrCat("a string cannot hold ", Found(), "; write it as an escape"));
      out.append(rest_.data(), length);
      Advance(length);
    }
  }

  // After an element: consumes ',' or `close`; `more` says whether another element follows.
  absl::Status ReadSeparator(char close, bool& more) {
    SkipSpace();
    if (Peek() == ',') {
      const JsonPosition comma = at_;
      Advance(1);
      SkipSpace();
      if (Peek() != close) {
        more = true;
        return absl::OkStatus();
      }
      Warn(comma, absl::StrCat("a comma before '", absl::string_view(&close, 1),
                               "'; accepted here, but TensorFlow's own parser rejects it: remove it"));
    }
    if (Peek() != close || rest_.empty())
      return Error(absl::StrCat("expected ',' or '", absl::string_view(&close, 1), "', found ", Found()));
    Advance(1);
    more = false;
    return absl::OkStatus();
  }

  absl::Status ReadArray(JsonValue& out, int depth) {
    out.kind = JsonValue::Kind::kArray;
    Advance(1);
    SkipSpace();
    bool more = Peek() != ']';
    if (!more) Advance(1);
    while (more) {
      out.items.emplace_back();
      BASIN_RETURN_IF_ERROR(ReadValue(out.items.back(), depth + 1));
      BASIN_RETURN_IF_ERROR(ReadSeparator(']', more));
    }
    return absl::OkStatus();
  }

  absl::Status ReadObject(JsonValue& out, int depth) {
    out.kind = JsonValue::Kind::kObject;
    std::map<std::string, size_t> positions;
    Advance(1);
    SkipSpace();
    bool more = Peek() != '}';
    if (!more) Advance(1);
    while (more) {
      JsonMember member;
      member.at = at_;
      if (Peek() == '\'') return Error("expected a key, found a single quote; JSON takes double quotes only");
      if (Peek() != '"') return Error(absl::StrCat("expected a key in double quotes, found ", Found()));
      BASIN_RETURN_IF_ERROR(ReadString(member.key));
      SkipSpace();
      if (Peek() != ':') return Error(absl::StrCat("expected ':' after a key, found ", Found()));
      Advance(1);
      SkipSpace();
      BASIN_RETURN_IF_ERROR(ReadValue(member.value, depth + 1));
      const auto [it, fresh] = positions.emplace(member.key, out.members.size());
      if (fresh) {
        out.members.push_back(std::move(member));
      } else {
        Warn(member.at,
             absl::StrCat("key ", JsonQuote(member.key), " stands here again; the last one wins, remove the others"));
        out.members[it->second] = std::move(member);
      }
      BASIN_RETURN_IF_ERROR(ReadSeparator('}', more));
    }
    return absl::OkStatus();
  }

  absl::string_view rest_;
  JsonPosition at_;
  JsonDocument& document_;
};

}  // namespace

const JsonValue* JsonValue::Find(absl::string_view key) const {
  for (const JsonMember& member : members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

std::string JsonDocument::Place(JsonPosition at) const { return PlaceIn(source, at); }

absl::string_view Name(JsonValue::Kind kind) {
  switch (kind) {
    case JsonValue::Kind::kNull:
      return "null";
    case JsonValue::Kind::kBool:
      return "a boolean";
    case JsonValue::Kind::kNumber:
      return "a number";
    case JsonValue::Kind::kString:
      return "a string";
    case JsonValue::Kind::kArray:
      return "a list";
    case JsonValue::Kind::kObject:
      return "an object";
  }
  return "?";
}

absl::StatusOr<JsonDocument> ParseJson(absl::string_view text, absl::string_view source) {
  JsonDocument document;
  document.source = std::string(source);
  BASIN_RETURN_IF_ERROR(Reader(text, document).Read());
  return document;
}

std::string JsonQuote(absl::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const unsigned char c = text[0];
    const size_t length = Utf8Length(text);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c < 0x20 || c == 0x7F) {
      absl::StrAppend(&out, absl::StrFormat("\\u%04x", c));
    } else if (length == 0) {
      absl::StrAppend(&out, "\\ufffd");
    } else {
      out.append(text.data(), length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out.push_back('"');
  return out;
}

}  // namespace basin
