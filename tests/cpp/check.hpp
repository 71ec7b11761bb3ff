// Check: the C++ tests' harness, small enough to read: TEST(name) { CHECK(...); }; needs only a compiler.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

namespace wallx::test {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Failed {};  // thrown by REQUIRE

inline int& failures() {
  static int count = 0;
  return count;
}

inline void fail(const char* file, int line, const std::string& what) {
  ++failures();
  if (failures() <= 50) std::printf("  %s:%d: %s\n", file, line, what.c_str());
}

template <class A, class B>
std::string show(const char* text, const A& a, const B& b) {
  std::ostringstream out;
  out.precision(17);
  out << text << " (" << a << " against " << b << ")";
  return out.str();
}

struct Register {
  Register(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

inline int run_all(const char* filter) {
  int ran = 0, failed = 0;
  for (const Test& test : tests()) {
    if (filter && !std::strstr(test.name, filter)) continue;
    ++ran;
    const int before = failures();
    try {
      test.body();
    } catch (const Failed&) {
    } catch (const std::exception& error) {
      fail(test.name, 0, std::string("threw ") + error.what());
    }
    const bool ok = failures() == before;
    failed += !ok;
    std::printf("%s %s\n", ok ? "ok  " : "FAIL", test.name);
  }
  std::printf("%d passed, %d failed\n", ran - failed, failed);
  return failed == 0 && ran > 0 ? 0 : 1;
}

}  // namespace wallx::test

#define TEST(name)                                                          \
  static void test_##name();                                                \
  static const ::wallx::test::Register register_##name{#name, test_##name}; \
  static void test_##name()

#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition)) ::wallx::test::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (0)
#define CHECK_EQ(a, b)                                                                                       \
  do {                                                                                                       \
    if (!((a) == (b))) ::wallx::test::fail(__FILE__, __LINE__, ::wallx::test::show(#a " == " #b, (a), (b))); \
  } while (0)
#define CHECK_NEAR(a, b, tolerance)                                                        \
  do {                                                                                     \
    if (!(std::abs((a) - (b)) <= (tolerance)))                                             \
      ::wallx::test::fail(__FILE__, __LINE__, ::wallx::test::show(#a " ~ " #b, (a), (b))); \
  } while (0)
#define REQUIRE(condition)                                                \
  do {                                                                    \
    if (!(condition)) {                                                   \
      ::wallx::test::fail(__FILE__, __LINE__, "REQUIRE(" #condition ")"); \
      throw ::wallx::test::Failed{};                                      \
    }                                                                     \
  } while (0)
// the message must contain `part`
#define CHECK_THROWS(expression, Type, part)                                                   \
  do {                                                                                         \
    bool threw_ = false;                                                                       \
    try {                                                                                      \
      (void)(expression);                                                                      \
    } catch (const Type& error_) {                                                             \
      threw_ = true;                                                                           \
      if (!std::strstr(error_.what(), part))                                                   \
        ::wallx::test::fail(__FILE__, __LINE__,                                                \
                            std::string("message lacks '") + (part) + "': " + error_.what());  \
    }                                                                                          \
    if (!threw_) ::wallx::test::fail(__FILE__, __LINE__, #expression " did not throw " #Type); \
  } while (0)
