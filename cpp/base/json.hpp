// Json: a strict reader of JSON texts: safetensors headers and published config files.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/errors.hpp"

namespace wallx {

// What is wrong with a text, and at which byte; callers add the file's name.
struct JsonError : WallxError {
  using WallxError::WallxError;
};

class Json {
 public:
  enum class Type { null, boolean, number, string, array, object };
  using Member = std::pair<std::string, Json>;

  // The whole text must be one value in UTF-8. Duplicate keys, over 64 levels of nesting, numbers beyond a
  // double, trailing bytes: JsonError.
  static Json parse(std::string_view text);

  Type type() const { return type_; }
  bool is_object() const { return type_ == Type::object; }
  bool is_array() const { return type_ == Type::array; }
  bool is_number() const { return type_ == Type::number; }

  // Each throws JsonError when the value is of another type.
  bool boolean() const;
  double number() const;
  std::int64_t integer() const;  // also when not a whole number between -2^53 and 2^53
  const std::string& string() const;
  const std::vector<Json>& array() const;
  const std::vector<Member>& members() const;

  const Json* find(std::string_view key) const;  // null when absent or not an object

 private:
  friend class JsonParser;
  Type type_ = Type::null;
  bool boolean_ = false;
  double number_ = 0;
  std::string string_;
  std::vector<Json> array_;
  std::vector<Member> members_;
};

}  // namespace wallx
