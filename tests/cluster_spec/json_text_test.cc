#include "cluster_spec/json_text.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"

namespace basin {
namespace {

std::string ErrorOfJson(absl::string_view text) {
  const auto document = ParseJson(text, "T");
  return document.ok() ? "no error" : std::string(document.status().message());
}

TEST(JsonTextTest, ReadsEveryKindWithItsPosition) {
  const auto document =
      ParseJson("{\"a\": [1, -2.5e3, true, null],\n \"\xC3\xA4\": \"x\\n\\u00e4\\ud83d\\ude00\"}", "T");
  ASSERT_TRUE(document.ok()) << document.status();
  const JsonValue* list = document->root.Find("a");
  ASSERT_NE(list, nullptr);
  ASSERT_EQ(list->items.size(), 4u);
  EXPECT_EQ(list->items[1].text, "-2.5e3");
  EXPECT_TRUE(list->items[2].boolean);
  EXPECT_EQ(list->items[3].kind, JsonValue::Kind::kNull);
  const JsonValue* text = document->root.Find("\xC3\xA4");
  ASSERT_NE(text, nullptr);
  EXPECT_EQ(text->text, "x\n\xC3\xA4\xF0\x9F\x98\x80");
  EXPECT_EQ(text->at.line, 2u);
  EXPECT_EQ(text->at.column, 7u);
  EXPECT_TRUE(document->warnings.empty());
}

TEST(JsonTextTest, TrailingCommaIsAcceptedWithAWarningThatNamesLineAndColumn) {
  const auto document = ParseJson("{\"a\": [1,\n2,\n],}", "T");
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(document->root.Find("a")->items.size(), 2u);
  ASSERT_EQ(document->warnings.size(), 2u);
  EXPECT_TRUE(absl::StartsWith(document->warnings[0], "T line 2 column 2: a comma before ']'"))
      << document->warnings[0];
  EXPECT_TRUE(absl::StartsWith(document->warnings[1], "T line 3 column 2: a comma before '}'"))
      << document->warnings[1];
}

TEST(JsonTextTest, NoOtherLeniencyIsGiven) {
  for (const char* text :
       {"[,]",     "[1,,]",         "{,}",         "[1 2]",        "{\"a\" 1}",        "{a: 1}", "[01]",
        "[1.]",    "[+1]",          "[.5]",        "[NaN]",        "[Infinity]",       "[1e]",   "// c\n{}",
        "[tru]",   "\"\\x\"",       "\"\\ud800\"", "\"\\udc00\"",  "\"\\u12g4\"",      "[\"a",   "[",
        "{\"a\":", "\"tab\there\"", "\"\xff\"",    "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "-",      "{}}"})
    EXPECT_TRUE(absl::StartsWith(ErrorOfJson(text), "T line ")) << text << " -> " << ErrorOfJson(text);
}

TEST(JsonTextTest, OfARepeatedKeyTheLastWins) {
  const auto document = ParseJson("{\"a\": 1, \"b\": 2, \"a\": 3}", "T");
  ASSERT_TRUE(document.ok());
  EXPECT_EQ(document->root.Find("a")->text, "3");
  EXPECT_EQ(document->root.members.size(), 2u);
  ASSERT_EQ(document->warnings.size(), 1u);
  EXPECT_TRUE(absl::StartsWith(document->warnings[0], "T line 1 column 18: key \"a\" stands here again"))
      << document->warnings[0];
}

TEST(JsonTextTest, AByteOrderMarkIsAnError) {
  EXPECT_EQ(ErrorOfJson("\xEF\xBB\xBF{}"),
            "T line 1 column 1: expected JSON, found a byte-order mark; save the text as UTF-8 without one");
}

TEST(JsonTextTest, SingleQuotesAreAnError) {
  EXPECT_EQ(ErrorOfJson("{'a': 1}"),
            "T line 1 column 2: expected a key, found a single quote; JSON takes double quotes only");
  EXPECT_EQ(ErrorOfJson("{\"a\":\n 'b'}"),
            "T line 2 column 2: expected a value, found a single quote; JSON takes double quotes only");
}

TEST(JsonTextTest, TrailingTextIsAnError) {
  EXPECT_EQ(ErrorOfJson("{}\n x"),
            "T line 2 column 2: expected the end of the text, found 'x'; remove what follows the value");
}

TEST(JsonTextTest, AnEmptyTextIsAnError) {
  EXPECT_EQ(ErrorOfJson(""), "T line 1 column 1: is set but empty; unset it, or set it to {}");
  EXPECT_EQ(ErrorOfJson(" \n"), "T line 2 column 1: is set but empty; unset it, or set it to {}");
}

TEST(JsonTextTest, NestingIsLimited) {
  EXPECT_TRUE(ParseJson(std::string(64, '[') + std::string(64, ']'), "T").ok());
  EXPECT_EQ(ErrorOfJson(std::string(65, '[') + std::string(65, ']')),
            "T line 1 column 65: nested more than 64 deep; flatten it");
  EXPECT_NE(ErrorOfJson(std::string(1000000, '[')), "no error");
}

TEST(JsonTextTest, QuotedTextReadsBack) {
  for (const std::string& text :
       {std::string("a\"b\\c\n\x01\x7f"), std::string("\xC3\xA4\xF0\x9F\x98\x80"), std::string("\0x", 2)}) {
    const auto document = ParseJson(JsonQuote(text), "T");
    ASSERT_TRUE(document.ok()) << document.status();
    EXPECT_EQ(document->root.text, text);
  }
  EXPECT_EQ(JsonQuote("\xff"), "\"\\ufffd\"");
}

}  // namespace
}  // namespace basin
