// Precision: in which format each part of the network is kept and computed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "backend/layout.hpp"

namespace wallx {

struct Precision {
  std::string name;  // fp32, bf16, fp16, int8, mixed or w8
  Format vision = Format::f32;
  Format attention = Format::f32;     // projections q, k, v and o of the language part
  Format feed_forward = Format::f32;  // of both experts
  Format head = Format::f32;          // scores of the next token
  // at the network's edges, a small share of the work: patches, the wide layers of the action head, adaptive
  // norms, and the table of embeddings
  Format edge = Format::f32;
  Format cache = Format::f32;  // keys and values

  // Throws ConfigError naming the known ones.
  static Precision find(const std::string& name);
  static std::vector<std::string> names();
};

}  // namespace wallx
