// Main: runs every test of one layer's test program.
// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"

int main(int argc, char** argv) { return wallx::test::run_all(argc > 1 ? argv[1] : nullptr); }
