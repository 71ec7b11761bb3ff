// TinyCheckpoint: writes small random checkpoints, and broken ones, into a folder that cleans itself up.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/safetensors.hpp"

namespace wallx::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wallx_test_XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed: " + pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  // Writes a file of the folder and returns its path.
  std::string write(std::string_view name, std::string_view bytes) const {
    std::filesystem::remove(file(name));  // a new file: emptying an old one waits for the disk
    std::ofstream out(file(name), std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) throw std::runtime_error("cannot write " + file(name));
    return file(name);
  }

 private:
  std::string path_;
};

template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// --- numbers ---

// to the nearest bf16, ties to even; finite values only
inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// uniform in [-scale, scale)
inline std::vector<float> random_values(std::mt19937& random, std::int64_t size, float scale) {
  std::vector<float> out(static_cast<std::size_t>(size));
  for (float& v : out) v = scale * (static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f);
  return out;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// --- the file format ---

// 8 bytes of length, the header as it is, the data as it is
inline std::string safetensors(std::string_view header, std::string_view data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out.append(header).append(data);
}

struct RawTensor {
  std::string name;
  std::string dtype;  // "F32", "BF16", ...
  Shape shape;
  std::string bytes;
};

// `pad_to`: the data begins at a multiple of it, as real writers do with 8
inline std::string safetensors(const std::vector<RawTensor>& tensors, std::size_t pad_to = 8) {
  std::string header = "{", data;
  for (const RawTensor& tensor : tensors) {
    header.append(header.size() > 1 ? ",\"" : "\"").append(tensor.name).append("\":{\"dtype\":\"");
    header.append(tensor.dtype).append("\",\"shape\":").append(to_string(tensor.shape));
    header.append(",\"data_offsets\":[").append(std::to_string(data.size())).append(",");
    data += tensor.bytes;
    header.append(std::to_string(data.size())).append("]}");
  }
  header += "}";
  while ((8 + header.size()) % pad_to) header += ' ';
  return safetensors(header, data);
}

// --- config.json ---

// members of one JSON object, values as JSON text
class ConfigText {
 public:
  ConfigText(std::vector<std::pair<std::string, std::string>> members) : members_(std::move(members)) {}
  ConfigText& set(std::string_view key, std::string value) {
    for (auto& [name, text] : members_)
      if (name == key) return text = std::move(value), *this;
    members_.emplace_back(key, std::move(value));
    return *this;
  }
  ConfigText& erase(std::string_view key) {
    if (std::erase_if(members_, [&](const auto& m) { return m.first == key; }) != 1)
      throw std::runtime_error("no key " + std::string(key));
    return *this;
  }
  const std::vector<std::pair<std::string, std::string>>& members() const { return members_; }
  std::string text() const {
    std::string out;
    for (const auto& [name, value] : members_)
      out.append(out.empty() ? "{\"" : ",\n \"").append(name).append("\": ").append(value);
    return out + "}";
  }

 private:
  std::vector<std::pair<std::string, std::string>> members_;
};

// --- the checkpoint ---

// Dimensions of a network that is small but uses every feature: grouped heads, two windows per side, a
// full-attention block, two experts of different width. As it stands a "v1" one; see `mixture`.
struct TinyModel {
  std::int64_t hidden = 32, layers = 2, heads = 4, kv_heads = 2, head_dim = 8;
  std::int64_t text_inner = 48, action_inner = 24, vocab = 40;
  std::int64_t vision_depth = 2, vision_hidden = 16, vision_heads = 2, vision_inner = 20;
  bool is_head_tied = true;
  unsigned seed = 1;
  std::int64_t action_stream = 0;  // width of the action expert; 0: shared attention
  std::int64_t action_width = 0, state_width = 0, condition_width = 0;
  bool is_adaptive = false, is_state_text = false;
  std::vector<std::pair<std::string, std::string>> flags;  // more members of config.json

  // attention and norms per expert, the action head narrower than its expert, the state than the stream
  static TinyModel mixture() {
    TinyModel model;
    model.action_stream = 16;
    model.action_width = 12;
    model.state_width = 24;
    return model;
  }
  static TinyModel adaptive() {
    TinyModel model = mixture();
    model.is_adaptive = true;
    model.condition_width = 10;
    return model;
  }
  static constexpr std::int64_t kPatchWidth = 3 * 2 * 2 * 2;  // channels, frames, 2 x 2 px
  static constexpr std::int64_t kActionDim = 4, kStateDim = 5;
  static constexpr std::int64_t kVisionStart = 29, kImage = 30, kVideo = 31, kState = 33;

  ConfigText vision_config() const {
    return ConfigText({{"depth", std::to_string(vision_depth)},
                       {"hidden_size", std::to_string(vision_hidden)},
                       {"num_heads", std::to_string(vision_heads)},
                       {"intermediate_size", std::to_string(vision_inner)},
                       {"in_chans", "3"},
                       {"patch_size", "2"},
                       {"temporal_patch_size", "2"},
                       {"spatial_merge_size", "2"},
                       {"window_size", "8"},
                       {"fullatt_block_indexes", "[1]"},
                       {"hidden_act", "\"silu\""},
                       {"out_hidden_size", std::to_string(hidden)}});
  }
  std::string expert_config(std::int64_t inner, std::int64_t width = 0) const {
    return join("{\"hidden_size\": ", width ? width : hidden, ", \"intermediate_size\": ", inner,
                ", \"hidden_act\": \"silu\"}");
  }
  ConfigText config() const {
    const std::int64_t stream = action_stream ? action_stream : hidden;
    ConfigText config(
        {{"model_type", "\"qwen2_5_vl\""},
         {"hidden_size", std::to_string(hidden)},
         {"num_hidden_layers", std::to_string(layers)},
         {"num_attention_heads", std::to_string(heads)},
         {"num_key_value_heads", std::to_string(kv_heads)},
         {"head_dim", std::to_string(head_dim)},
         {"hidden_act", "\"silu\""},
         {"rms_norm_eps", "1e-06"},
         {"rope_theta", "10000.0"},
         {"rope_scaling", R"({"type": "mrope", "mrope_section": [1, 1, 2]})"},
         {"tie_word_embeddings", is_head_tied ? "true" : "false"},
         {"vision_start_token_id", std::to_string(kVisionStart)},
         {"image_token_id", std::to_string(kImage)},
         {"video_token_id", std::to_string(kVideo)},
         {"num_experts", "2"},
         {"experts", join("[", expert_config(text_inner), ", ", expert_config(action_inner, stream), "]")},
         {"dim_inputs", join("[", hidden, ", ", stream, "]")},
         {"vision_config", vision_config().text()},
         {"dof_config", R"({"arm": 3, "gripper": 1})"},
         {"agent_pos_config", R"({"arm": 3, "gripper": 2})"},
         {"attention_moe", action_stream ? "true" : "false"},
         {"mlp_moe", "true"}});
    if (action_stream) {
      config.set("norm_moe", "true").set("noise_scheduler", R"({"s": 0.75})");
      config.set("action_hidden_size", std::to_string(action_width));
      config.set("state_hidden_size", std::to_string(state_width));
      config.set("use_state_string_representation", is_state_text ? "true" : "false");
    }
    if (is_adaptive) config.set("use_adarms", "true").set("adarms_cond_dim", std::to_string(condition_width));
    for (const auto& [key, value] : flags) config.set(key, value);
    return config;
  }

  // names and shapes of everything the network needs, in no particular order
  std::vector<std::pair<std::string, Shape>> shapes() const {
    std::vector<std::pair<std::string, Shape>> out;
    const auto add = [&](const std::string& name, Shape shape) { out.emplace_back(name, std::move(shape)); };
    const auto linear = [&](const std::string& name, std::int64_t to, std::int64_t from, bool has_bias) {
      add(name + ".weight", {to, from});
      if (has_bias) add(name + ".bias", {to});
    };
    const std::int64_t v = vision_hidden, merged = 4 * v;
    add("visual.patch_embed.proj.weight", {v, 3, 2, 2, 2});
    for (std::int64_t i = 0; i < vision_depth; ++i) {
      const std::string block = join("visual.blocks.", i, ".");
      add(block + "norm1.weight", {v});
      add(block + "norm2.weight", {v});
      linear(block + "attn.qkv", 3 * v, v, true);
      linear(block + "attn.proj", v, v, true);
      linear(block + "mlp.gate_proj", vision_inner, v, true);
      linear(block + "mlp.up_proj", vision_inner, v, true);
      linear(block + "mlp.down_proj", v, vision_inner, true);
    }
    add("visual.merger.ln_q.weight", {v});
    linear("visual.merger.mlp.0", merged, merged, true);
    linear("visual.merger.mlp.2", hidden, merged, true);
    add("model.embed_tokens.weight", {vocab, hidden});
    const std::int64_t streams[] = {hidden, action_stream}, inners[] = {text_inner, action_inner};
    const auto norm = [&](const std::string& name) {
      if (!action_stream) return add(name + ".weight", {hidden});
      add(name + "s.0.weight", {hidden});
      if (is_adaptive) return linear(name + "s.1.dense", 3 * action_stream, condition_width, true);
      add(name + "s.1.weight", {action_stream});
    };
    norm("model.norm");
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::string layer = join("model.layers.", i, "."), attn = layer + "self_attn.";
      norm(layer + "input_layernorm");
      norm(layer + "post_attention_layernorm");
      for (int e = 0; e < (action_stream ? 2 : 1); ++e) {
        const std::string ending = action_stream ? join("_proj_experts.", e) : "_proj";
        linear(attn + "q" + ending, heads * head_dim, streams[e], true);
        linear(attn + "k" + ending, kv_heads * head_dim, streams[e], true);
        linear(attn + "v" + ending, kv_heads * head_dim, streams[e], true);
        linear(attn + "o" + ending, streams[e], heads * head_dim, false);
      }
      for (int e = 0; e < 2; ++e) {
        const std::string moe = layer + join("moe.experts.", e, ".");
        const std::int64_t stream = action_stream ? streams[e] : hidden;
        linear(moe + "gate_proj", inners[e], stream, false);
        linear(moe + "up_proj", inners[e], stream, false);
        linear(moe + "down_proj", stream, inners[e], false);
      }
    }
    if (!is_head_tied) add("lm_head.weight", {vocab, hidden});
    const std::string head = "action_preprocessor.";
    const std::int64_t a = action_stream ? action_width : hidden;
    const std::int64_t with_mask = has_flag("proj_with_mask", "false") ? 1 : 2;
    if (!is_state_text)
      linear(head + "propri_proj", action_stream ? state_width : hidden, with_mask * kStateDim, false);
    linear(head + "w1", a, with_mask * kActionDim, false);
    if (is_adaptive) {
      linear(head + "time_mlp_in", 14, a, true);
      linear(head + "time_mlp_out", condition_width, 14, true);
    } else {
      linear(head + "w2", a, 2 * a, false);
      linear(head + "w3", a, a, false);
    }
    linear(head + "action_proj_back", kActionDim, a, false);
    return out;
  }

  bool has_flag(std::string_view key, std::string_view value) const {
    return std::count(flags.begin(), flags.end(), std::pair<std::string, std::string>(key, value)) > 0;
  }

  // random values of a size that keeps activations near one; norms around one
  std::vector<std::pair<RawTensor, std::vector<float>>> values() const {
    std::mt19937 random(seed);
    std::vector<std::pair<RawTensor, std::vector<float>>> out;
    for (const auto& [name, shape] : shapes()) {
      const std::int64_t fan_in = shape.size() > 1 ? num_elements(shape) / shape[0] : 100;
      std::vector<float> v =
          random_values(random, num_elements(shape), 1.7f / std::sqrt(static_cast<float>(fan_in)));
      const bool is_norm = name.find("norm") != std::string::npos || name.find("ln_q") != std::string::npos;
      if (is_norm && name.find(".dense.") == std::string::npos)
        for (float& one : v) one += 1.0f;
      out.push_back({{name, "F32", shape, {}}, std::move(v)});
    }
    return out;
  }

  enum class Storage {
    f32,
    bf16,         // rounded, two bytes each
    f32_of_bf16,  // the same rounded values, four bytes each
  };
  std::vector<RawTensor> tensors(Storage storage = Storage::f32) const {
    std::vector<RawTensor> out;
    for (auto& [tensor, v] : values()) {
      std::vector<float> kept = v;
      std::vector<std::uint16_t> halves;
      for (float& one : kept) {
        halves.push_back(to_bf16(one));
        if (storage != Storage::f32) one = from_bf16(halves.back());
      }
      const bool is_half = storage == Storage::bf16;
      out.push_back(
          {tensor.name, is_half ? "BF16" : "F32", tensor.shape, is_half ? bytes_of(halves) : bytes_of(kept)});
    }
    return out;
  }
  void write(const TemporaryFolder& folder, Storage storage = Storage::f32) const {
    folder.write("config.json", config().text());
    folder.write("model.safetensors", safetensors(tensors(storage)));
  }
};

}  // namespace wallx::test
