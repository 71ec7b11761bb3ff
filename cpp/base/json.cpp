// Json: recursive descent over the bytes, with a bound on depth.
// SPDX-License-Identifier: Apache-2.0
#include "base/json.hpp"

#include <charconv>
#include <cmath>
#include <unordered_set>

namespace wallx {
namespace {

const char* name_of(Json::Type type) {
  switch (type) {
    case Json::Type::null:
      return "null";
    case Json::Type::boolean:
      return "a boolean";
    case Json::Type::number:
      return "a number";
    case Json::Type::string:
      return "a string";
    case Json::Type::array:
      return "an array";
    case Json::Type::object:
      return "an object";
  }
  return "?";
}

[[noreturn]] void wrong_type(const char* wanted, Json::Type found) {
  throw JsonError(std::string("expected ") + wanted + ", found " + name_of(found));
}

}  // namespace

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Json document() {
    Json value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) fail("bytes after the end of the value");
    return value;
  }

 private:
  static constexpr int kMaxDepth = 64;

  [[noreturn]] void fail(const std::string& what) const {
    throw JsonError("not valid JSON: " + what + " at byte " + std::to_string(at_));
  }
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  char peek() {
    skip_space();
    if (at_ >= text_.size()) fail("unexpected end");
    return text_[at_];
  }
  void expect(char c) {
    if (peek() != c) fail(std::string("expected '") + c + "'");
    ++at_;
  }
  void literal(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) fail("unknown word");
    at_ += word.size();
  }

  Json parse_value(int depth) {
    Json value;
    const char first = peek();
    if (depth >= kMaxDepth && (first == '{' || first == '[')) fail("nested too deeply");
    switch (first) {
      case '{':
        parse_object(value, depth);
        break;
      case '[':
        parse_array(value, depth);
        break;
      case '"':
        value.type_ = Json::Type::string;
        value.string_ = parse_string();
        break;
      case 't':
        literal("true");
        value.type_ = Json::Type::boolean;
        value.boolean_ = true;
        break;
      case 'f':
        literal("false");
        value.type_ = Json::Type::boolean;
        break;
      case 'n':
        literal("null");
        break;
      default:
        parse_number(value);
    }
    return value;
  }

  void parse_object(Json& value, int depth) {
    value.type_ = Json::Type::object;
    expect('{');
    if (peek() == '}') {
      ++at_;
      return;
    }
    std::unordered_set<std::string> seen;
    while (true) {
      if (peek() != '"') fail("expected a key");
      std::string key = parse_string();
      if (!seen.insert(key).second) fail("key '" + key + "' stands twice");
      expect(':');
      value.members_.emplace_back(std::move(key), parse_value(depth + 1));
      if (peek() == '}') {
        ++at_;
        return;
      }
      expect(',');
    }
  }

  void parse_array(Json& value, int depth) {
    value.type_ = Json::Type::array;
    expect('[');
    if (peek() == ']') {
      ++at_;
      return;
    }
    while (true) {
      value.array_.push_back(parse_value(depth + 1));
      if (peek() == ']') {
        ++at_;
        return;
      }
      expect(',');
    }
  }

  bool skip_digits() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    return at_ > begin;
  }
  bool skip_one_of(std::string_view allowed) {
    if (at_ >= text_.size() || allowed.find(text_[at_]) == std::string_view::npos) return false;
    ++at_;
    return true;
  }

  // JSON's grammar first: from_chars alone would also take 01, 1. and .5
  void parse_number(Json& value) {
    const std::size_t begin = at_;
    skip_one_of("-");
    bool is_number = skip_one_of("0") || skip_digits();
    if (is_number && skip_one_of(".")) is_number = skip_digits();
    if (is_number && skip_one_of("eE")) {
      skip_one_of("+-");
      is_number = skip_digits();
    }
    const auto [end, error] = std::from_chars(text_.data() + begin, text_.data() + at_, value.number_);
    const bool is_complete = end == text_.data() + at_;
    at_ = begin;
    if (!is_number) fail("expected a value");
    if (error != std::errc() || !is_complete) fail("number out of range");
    at_ = static_cast<std::size_t>(end - text_.data());
    value.type_ = Json::Type::number;
  }

  unsigned parse_hex4() {
    if (at_ + 4 > text_.size()) fail("unfinished \\u escape");
    unsigned code = 0;
    const char* first = text_.data() + at_;
    const auto [end, error] = std::from_chars(first, first + 4, code, 16);
    if (error != std::errc() || end != first + 4) fail("bad \\u escape");
    at_ += 4;
    return code;
  }

  static void append_utf8(std::string& out, unsigned code) {
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xC0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      out += static_cast<char>(0xE0 | (code >> 12));
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      out += static_cast<char>(0xF0 | (code >> 18));
      out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    }
  }

  // the bytes after `lead` of one character; refused: overlong forms, surrogates, above 10FFFF
  void copy_utf8(unsigned char lead, std::string& out) {
    const int num_more = lead >= 0xF0 && lead <= 0xF4   ? 3
                         : lead >= 0xE0 && lead <= 0xEF ? 2
                         : lead >= 0xC2 && lead <= 0xDF ? 1
                                                        : 0;
    if (num_more == 0) fail("not UTF-8");
    unsigned char min = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char max = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    out += static_cast<char>(lead);
    for (int i = 0; i < num_more; ++i) {
      const auto next = at_ < text_.size() ? static_cast<unsigned char>(text_[at_]) : 0;
      if (next < min || next > max) fail("not UTF-8");
      out += text_[at_++];
      min = 0x80;
      max = 0xBF;
    }
  }

  std::string parse_string() {
    expect('"');
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail("unfinished string");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
      if (static_cast<unsigned char>(c) >= 0x80) {
        copy_utf8(static_cast<unsigned char>(c), out);
        continue;
      }
      if (c != '\\') {
        out += c;
        continue;
      }
      if (at_ >= text_.size()) fail("unfinished string");
      switch (text_[at_++]) {
        case '"':
          out += '"';
          break;
        case '\\':
          out += '\\';
          break;
        case '/':
          out += '/';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case 'n':
          out += '\n';
          break;
        case 'r':
          out += '\r';
          break;
        case 't':
          out += '\t';
          break;
        case 'u': {
          unsigned code = parse_hex4();
          if (code >= 0xD800 && code < 0xDC00) {
            if (text_.substr(at_, 2) != "\\u") fail("lone surrogate");
            at_ += 2;
            const unsigned low = parse_hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail("lone surrogate");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          } else if (code >= 0xDC00 && code <= 0xDFFF) {
            fail("lone surrogate");
          }
          append_utf8(out, code);
          break;
        }
        default:
          fail("unknown escape");
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

bool Json::boolean() const {
  if (type_ != Type::boolean) wrong_type("a boolean", type_);
  return boolean_;
}
double Json::number() const {
  if (type_ != Type::number) wrong_type("a number", type_);
  return number_;
}
std::int64_t Json::integer() const {
  const double value = number();
  if (value != std::floor(value) || std::abs(value) >= 9007199254740992.0)
    throw JsonError("expected a whole number, found " + std::to_string(value));
  return static_cast<std::int64_t>(value);
}
const std::string& Json::string() const {
  if (type_ != Type::string) wrong_type("a string", type_);
  return string_;
}
const std::vector<Json>& Json::array() const {
  if (type_ != Type::array) wrong_type("an array", type_);
  return array_;
}
const std::vector<Json::Member>& Json::members() const {
  if (type_ != Type::object) wrong_type("an object", type_);
  return members_;
}
const Json* Json::find(std::string_view key) const {
  for (const Member& member : members_)
    if (member.first == key) return &member.second;
  return nullptr;
}

}  // namespace wallx
