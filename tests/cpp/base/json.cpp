// JsonTest: what the strict reader accepts, what it refuses and with which words, and that no bytes crash it.
// SPDX-License-Identifier: Apache-2.0
#include "base/json.hpp"

#include <algorithm>
#include <random>
#include <string>

#include "check.hpp"

namespace wallx {
namespace {

std::string nested(int depth, const std::string& inside) {
  return std::string(static_cast<std::size_t>(depth), '[') + inside +
         std::string(static_cast<std::size_t>(depth), ']');
}

std::string quoted(const char* bytes) { return std::string("\"").append(bytes).append("\""); }
std::string string_of(const std::string& text) { return Json::parse(text).string(); }
double number_of(const std::string& text) { return Json::parse(text).number(); }

void require_utf8_free_message(const std::string& text) {
  try {
    (void)Json::parse(text);
    test::fail(__FILE__, __LINE__, "accepted");
  } catch (const JsonError& error) {
    for (const char* c = error.what(); *c; ++c) CHECK(static_cast<unsigned char>(*c) < 0x80);
  }
}

}  // namespace

TEST(reads_every_type) {
  const Json json = Json::parse(" { \"a\" : [ 1 , true , false , null , \"x\" , { } , [ ] ] }\r\n\t");
  REQUIRE(json.is_object());
  const std::vector<Json>& items = json.find("a")->array();
  REQUIRE(items.size() == 7);
  CHECK_EQ(items[0].number(), 1.0);
  CHECK(items[1].boolean());
  CHECK(!items[2].boolean());
  CHECK(items[3].type() == Json::Type::null);
  CHECK_EQ(items[4].string(), "x");
  CHECK(items[5].members().empty());
  CHECK(items[6].array().empty());
  CHECK(json.find("b") == nullptr);
  CHECK(items[0].find("a") == nullptr);
}

TEST(keeps_the_order_of_members) {
  const Json json = Json::parse(R"({"z": 1, "a": 2, "m": 3})");
  REQUIRE(json.members().size() == 3);
  CHECK_EQ(json.members()[0].first, "z");
  CHECK_EQ(json.members()[1].first, "a");
  CHECK_EQ(json.members()[2].first, "m");
}

TEST(reads_numbers_exactly) {
  CHECK_EQ(number_of("0"), 0.0);
  CHECK(std::signbit(number_of("-0")));
  CHECK_EQ(number_of("-12.5e-3"), -0.0125);
  CHECK_EQ(number_of("1E+2"), 100.0);
  CHECK_EQ(number_of("1e-06"), 1e-6);
  CHECK_EQ(number_of("0.1"), 0.1);
  CHECK_EQ(number_of("1.7976931348623157e308"), 1.7976931348623157e308);
  CHECK_EQ(number_of("5e-324"), 5e-324);
  CHECK_EQ(Json::parse("9007199254740991").integer(), std::int64_t{9007199254740991});
  CHECK_EQ(Json::parse("-9007199254740991").integer(), std::int64_t{-9007199254740991});
  CHECK_EQ(Json::parse("1e3").integer(), std::int64_t{1000});
}

TEST(refuses_numbers_that_json_does_not_have) {
  for (const char* text :
       {"01",    "-01", "00",  "1.",   ".5",    "-.5",      "-",         "+1",  "1e",  "1e+", "1.e3",
        "1.5.2", "1-2", "--1", "0x10", "1e5e5", "Infinity", "-Infinity", "NaN", "inf", "1_0", "1,0"})
    CHECK_THROWS(Json::parse(text), JsonError, "not valid JSON");
  CHECK_THROWS(Json::parse("1e400"), JsonError, "out of range");
  CHECK_THROWS(Json::parse("[-1e999]"), JsonError, "out of range");
}

TEST(refuses_integers_that_a_double_cannot_hold) {
  CHECK_THROWS(Json::parse("1.5").integer(), JsonError, "whole number");
  // 2^53 is also what 2^53 + 1 rounds to
  CHECK_THROWS(Json::parse("9007199254740992").integer(), JsonError, "whole number");
  CHECK_THROWS(Json::parse("9007199254740993").integer(), JsonError, "whole number");
  CHECK_THROWS(Json::parse("-9007199254740993").integer(), JsonError, "whole number");
  CHECK_THROWS(Json::parse("1e300").integer(), JsonError, "whole number");
}

TEST(reads_escapes) {
  CHECK_EQ(string_of(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  CHECK_EQ(string_of(R"("\u0041\u00e9\u20AC")"), "A\xC3\xA9\xE2\x82\xAC");
  CHECK_EQ(string_of(R"("\uD83D\uDE00")"), "\xF0\x9F\x98\x80");
  CHECK_EQ(string_of(R"("\uDBFF\uDFFF")"), "\xF4\x8F\xBF\xBF");
  CHECK_EQ(string_of(R"("\u0000")"), std::string(1, '\0'));
  CHECK_EQ(string_of("\"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \x7F\""),
           "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \x7F");
}

TEST(refuses_bad_escapes_and_surrogates) {
  for (const char* text :
       {R"("\uD83D")", R"("\uD83Dx")", R"("\uD83D\n")", R"("\uDE00")", R"("\uD83D\uD83D")",
        R"("\uD83D\u0041")", R"("\uD83D\uDBFF")", R"("\uD83D\uE000")", R"("\uD83D\uFFFF")"})
    CHECK_THROWS(Json::parse(text), JsonError, "lone surrogate");
  for (const char* text : {R"("\u12")", R"("\u12G4")", R"("\u+123")", R"("\u-123")", R"("\u 123")",
                           R"("\u0x12")", R"("\uD83D\u12")"})
    CHECK_THROWS(Json::parse(text), JsonError, "\\u escape");
  for (const char* text : {R"("\x41")", R"("\a")", R"("\U0041")", R"("\0")"})
    CHECK_THROWS(Json::parse(text), JsonError, "unknown escape");
}

TEST(refuses_bytes_that_are_not_utf8) {
  for (const char* bytes : {"\x80", "\xBF", "\xC3", "\xC3(", "\xE2\x82", "\xE2\x82(", "\xF0\x9F\x98", "\xFF",
                            "\xFE", "\xC0\x80" /* overlong */, "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF",
                            "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xED\xA0\x80" /* surrogate */,
                            "\xED\xBF\xBF", "\xF4\x90\x80\x80" /* above 10FFFF */, "\xF5\x80\x80\x80"}) {
    const std::string text = quoted(bytes);
    CHECK_THROWS(Json::parse(text), JsonError, "UTF-8");
    CHECK_THROWS(Json::parse(text.substr(0, text.size() - 1)), JsonError, "not valid JSON");
    CHECK_THROWS(Json::parse("{" + text + ": 1}"), JsonError, "UTF-8");
    require_utf8_free_message(text);
    require_utf8_free_message(bytes);
  }
}

TEST(names_what_is_wrong_and_where) {
  const struct {
    const char* text;
    const char* part;
  } cases[] = {
      {"", "unexpected end at byte 0"},
      {"  ", "unexpected end at byte 2"},
      {"{", "unexpected end at byte 1"},
      {"[1,", "unexpected end at byte 3"},
      {"{\"a\"", "unexpected end at byte 4"},
      {"{\"a\":", "unexpected end at byte 5"},
      {"{\"a\":1", "unexpected end at byte 6"},
      {"{a:1}", "expected a key at byte 1"},
      {"{1:1}", "expected a key at byte 1"},
      {"{\"a\" 1}", "expected ':' at byte 5"},
      {"{\"a\":1 \"b\":2}", "expected ',' at byte 7"},
      {"[1 2]", "expected ',' at byte 3"},
      {"{\"a\":1,}", "expected a key at byte 7"},
      {"[1,]", "expected a value at byte 3"},
      {"[,1]", "expected a value at byte 1"},
      {"]", "expected a value at byte 0"},
      {"1 2", "bytes after the end of the value at byte 2"},
      {"{} x", "bytes after the end of the value at byte 3"},
      {"tru", "unknown word at byte 0"},
      {"[nul]", "unknown word at byte 1"},
      {"falsy", "unknown word at byte 0"},
      {"True", "expected a value at byte 0"},
      {"'a'", "expected a value at byte 0"},
      {"// c\n1", "expected a value at byte 0"},
      {"\xEF\xBB\xBF{}", "expected a value at byte 0"},
      {"\"abc", "unfinished string at byte 4"},
      {"\"abc\\", "unfinished string at byte 5"},
      {"\"a\nb\"", "control character in a string at byte 3"},
      {"{\"a\":1,\"b\":2,\"a\":3}", "key 'a' stands twice"},
      {"{\"a\":1,\"\\u0061\":3}", "key 'a' stands twice"},
      {"{\"x\":{\"b\":1,\"b\":1}}", "key 'b' stands twice"},
  };
  for (const auto& c : cases) CHECK_THROWS(Json::parse(c.text), JsonError, c.part);
  CHECK_THROWS(Json::parse(std::string("\"a\0b\"", 5)), JsonError, "control character");
  CHECK_THROWS(Json::parse(std::string("1\0", 2)), JsonError, "bytes after the end");
}

TEST(bounds_the_depth) {
  CHECK(Json::parse(nested(64, "")).is_array());
  CHECK(Json::parse(nested(64, "1")).is_array());
  CHECK_THROWS(Json::parse(nested(65, "")), JsonError, "nested too deeply at byte 64");
  CHECK_THROWS(Json::parse(nested(65, "1")), JsonError, "nested too deeply");
  CHECK_THROWS(Json::parse(std::string(5'000'000, '[')), JsonError, "nested too deeply");
  std::string objects;
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"\":";
  CHECK_THROWS(Json::parse(objects), JsonError, "nested too deeply");
}

TEST(names_the_type_it_found) {
  const Json number = Json::parse("1"), text = Json::parse("\"1\""), none = Json::parse("null");
  CHECK_THROWS(number.string(), JsonError, "expected a string, found a number");
  CHECK_THROWS(number.array(), JsonError, "expected an array, found a number");
  CHECK_THROWS(number.members(), JsonError, "expected an object, found a number");
  CHECK_THROWS(number.boolean(), JsonError, "expected a boolean, found a number");
  CHECK_THROWS(text.number(), JsonError, "expected a number, found a string");
  CHECK_THROWS(text.integer(), JsonError, "expected a number, found a string");
  CHECK_THROWS(none.number(), JsonError, "found null");
  CHECK_THROWS(Json::parse("[]").string(), JsonError, "found an array");
  CHECK_THROWS(Json::parse("{}").string(), JsonError, "found an object");
  CHECK_THROWS(Json::parse("true").string(), JsonError, "found a boolean");
}

TEST(no_prefix_of_a_document_is_a_document) {
  const std::string text = R"({"a": [1.5e3, "\u00e9\n", true, null], "b": {"c": [[], {}]}})";
  (void)Json::parse(text);
  for (std::size_t size = 0; size < text.size(); ++size)
    CHECK_THROWS(Json::parse(std::string_view(text).substr(0, size)), JsonError, "not valid JSON");
}

// every outcome but a value or a JsonError (another exception, a crash, a sanitizer's report) fails
TEST(mutated_documents_parse_or_throw_and_nothing_else) {
  const std::string seeds[] = {
      R"({"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
      R"({"rms_norm_eps": 1e-06, "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}, "x": null})",
      "[\"\\uD83D\\uDE00 \\\\ \xE2\x82\xAC\", -0.5E+10, [[[[]]]], {\"\": {\"\": true}}, false]",
  };
  const std::string alphabet = "{}[]\",:\\u0dDeE+-.19tfn \x80\xC3\xE2\xF0\xFF";
  std::mt19937 random(20240501);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 60000; ++round) {
    std::string text = seeds[random() % std::size(seeds)];
    for (auto edits = random() % 4 + 1; edits > 0 && !text.empty(); --edits) {
      const std::size_t at = random() % text.size();
      const std::size_t length = std::min<std::size_t>(random() % 6, text.size() - at);
      switch (random() % 6) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 2:
          text.erase(at, length);
          break;
        case 3:
          text.insert(at, text.substr(random() % text.size(), length));
          break;
        case 4:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        default:
          text.resize(at);
      }
    }
    // a copy of exactly this size, so that a read past the end is a read past an allocation
    const std::vector<char> exact(text.begin(), text.end());
    try {
      (void)Json::parse({exact.data(), exact.size()});
      ++accepted;
    } catch (const JsonError&) {
      ++refused;
    }
  }
  // both ways out were taken many times: the mutations are neither too weak nor too strong
  CHECK(accepted > 1000);
  CHECK(refused > 1000);
}

}  // namespace wallx
