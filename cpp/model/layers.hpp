// Layers: the network's layers in the formats that are asked for: mapped where the file has them so, else packed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.hpp"
#include "backend/pack.hpp"
#include "model/precision.hpp"
#include "model/weights.hpp"

namespace wallx {

// A layer to pack: what `quantize` writes, under these names:
//   NAME.panels (panels, bytes / 64, 16, inputs of a group), NAME.scale, NAME.offset, NAME.bias (panels * 16)
struct PackJob {
  std::string name;
  Format format = Format::f32;
  bool has_bias = false;
  PackSource source;
  std::vector<const TensorEntry*> entries;  // that it reads, whose pages may go afterwards

  std::int64_t panels_bytes() const { return num_panels(source) * panel_bytes(format, source.in); }
};

// All that a quantized folder's file holds beside the normalizer's statistics.
struct PackPlan {
  std::vector<std::string> wide;  // in: patterns of layers that stay 16-bit
  std::vector<PackJob> packs;
  std::vector<std::pair<std::string, Format>> copies;  // tensors that keep name and shape; as f32 or bf16
};

// Keeps what it packed, for as long as the layers are in use.
class Layers {
 public:
  // With a plan, nothing is packed or kept: layers have no weights, and the plan has what would have been.
  Layers(Weights& weights, Backend& backend, const Precision& precision, PackPlan* plan = nullptr)
      : weights_(weights), backend_(backend), precision_(precision), plan_(plan) {}

  const Precision& precision() const { return precision_; }
  Weights& weights() { return weights_; }
  Backend& backend() { return backend_; }

  // Errors are those of Weights::take.
  const float* vector(const std::string& name, const Shape& shape);
  Linear linear(const std::string& prefix, std::int64_t out, std::int64_t in, bool has_bias, Format format);
  // the same for a weight of any shape that has `in` numbers an output, under its own name
  Linear flat(const std::string& name, const Shape& shape, Format format);
  // Columns [first, first + in) of PREFIX.weight (out x columns), without a bias.
  Linear columns(const std::string& prefix, std::int64_t out, std::int64_t columns, std::int64_t first,
                 std::int64_t in, Format format);
  // Layers of one input, each under its own name, or their rows one after the other under `stacked`. Fp32: one
  // for each; packed: one with all outputs in this order.
  std::vector<Linear> stacked(const std::string& stacked,
                              const std::vector<std::pair<std::string, std::int64_t>>& prefixes_and_outs,
                              std::int64_t in, bool has_bias, Format format);
  // Of `rows` rows in the file each, the first `out` are used.
  GatedLinear gated(const std::string& stacked, const std::string& gate, const std::string& up,
                    std::int64_t rows, std::int64_t out, std::int64_t in, bool has_bias, Format format);
  // rows that are looked up, as fp32 or bf16                                    (rows x width)
  const void* table(const std::string& name, const Shape& shape);
  // the table as the last layer
  Linear tied_head(const std::string& table_name, const Shape& shape, const void* table);

  std::size_t packed_bytes() const { return packed_bytes_; }
  std::size_t mapped_bytes() const { return mapped_bytes_; }  // of packed layers and tables that the file has so

 private:
  // some rows of a tensor, and some of their columns
  struct Part {
    const TensorEntry* weight = nullptr;
    const TensorEntry* bias = nullptr;
    std::int64_t rows = 0;
    std::int64_t columns = 0;  // of the tensor
    std::int64_t first_row = 0, first_column = 0;
  };
  const TensorEntry* source(const std::string& name, const Shape& shape);
  Part part(const std::string& prefix, std::int64_t rows, std::int64_t columns, bool has_bias);
  bool is_packed(const std::string& name) const { return weights_.contains(name + ".panels"); }
  Linear pack(const std::string& name, const std::vector<Part>& parts, std::int64_t in, bool is_gated,
              Format format);
  Linear map(const std::string& name, std::int64_t out, std::int64_t in, bool is_gated, bool has_bias,
             Format format);
  const void* map(const std::string& name, Dtype dtype, const Shape& shape);
  const void* to_device(const void* host, std::size_t bytes);

  Weights& weights_;
  Backend& backend_;
  Precision precision_;
  PackPlan* plan_;
  std::vector<Memory> memory_;
  std::size_t packed_bytes_ = 0, mapped_bytes_ = 0;
};

// of NAME.panels in a file
Shape panels_shape(Format format, std::int64_t panels, std::int64_t in);
bool has_scale(Format format);

// Packs on all cores of the process, and gives the source's pages back.
void run_job(const PackJob& job, const PackTarget& target);

}  // namespace wallx
