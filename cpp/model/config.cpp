// ModelConfig: reading and checking config.json.
// SPDX-License-Identifier: Apache-2.0
#include "model/config.hpp"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <sstream>

#include "base/errors.hpp"
#include "base/json.hpp"

namespace wallx {
namespace {

// keys that the reference writes; those this version does not need are known all the same
constexpr std::string_view kKnownKeys[] = {
    "_attn_implementation",
    "_name_or_path",
    "action_hidden_size",
    "agent_pos_config",
    "architectures",
    "attention_dropout",
    "attention_moe",
    "bos_token_id",
    "causal_action_attention_mask",
    "dim_inputs",
    "dof_config",
    "dtype",
    "eos_token_id",
    "experts",
    "flow_loss_weight",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "image_token_id",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_moe",
    "model_type",
    "mot_opt",
    "noise_scheduler",
    "norm_moe",
    "num_attention_heads",
    "num_experts",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "proj_with_mask",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "state_hidden_size",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_adarms",
    "use_cache",
    "use_sliding_window",
    "use_state_string_representation",
    "use_x_loss",
    "use_x_pred",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
    "vision_token_id",
    "vocab_size",
};

class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  [[noreturn]] void fail(std::string_view key, const std::string& what) const {
    throw CheckpointError(where_ + std::string(key) + ": " + what);
  }
  const Json& need(std::string_view key) const {
    const Json* value = object_.find(key);
    if (!value) fail(key, "missing");
    return *value;
  }
  template <class Read>
  auto read(std::string_view key, Read&& get) const {
    try {
      return get(need(key));
    } catch (const JsonError& e) {
      fail(key, e.what());
    }
  }
  std::int64_t integer(std::string_view key, std::int64_t min = 1, std::int64_t max = 1 << 24) const {
    const std::int64_t value = read(key, [](const Json& j) { return j.integer(); });
    if (value < min || value > max)
      fail(key,
           std::to_string(value) + " is outside [" + std::to_string(min) + ", " + std::to_string(max) + "]");
    return value;
  }
  std::int64_t integer_or(std::string_view key, std::int64_t fallback) const {
    return object_.find(key) ? integer(key) : fallback;
  }
  double number(std::string_view key, double min, double max) const {
    const double value = read(key, [](const Json& j) { return j.number(); });
    if (!(value >= min && value <= max)) {
      std::ostringstream what;
      what << value << " is outside [" << min << ", " << max << "]";
      fail(key, what.str());
    }
    return value;
  }
  bool boolean_or(std::string_view key, bool fallback) const {
    return object_.find(key) ? read(key, [](const Json& j) { return j.boolean(); }) : fallback;
  }
  std::string string(std::string_view key) const {
    return read(key, [](const Json& j) { return j.string(); });
  }
  std::vector<std::int64_t> integers(std::string_view key) const {
    return read(key, [](const Json& j) {
      std::vector<std::int64_t> out;
      for (const Json& item : j.array()) out.push_back(item.integer());
      return out;
    });
  }
  Slots slots(std::string_view key) const {
    return read(key, [&](const Json& j) {
      Slots out;
      for (const auto& [name, width] : j.members()) {
        if (width.integer() < 1 || width.integer() > 4096)
          fail(key, name + " has width " + std::to_string(width.integer()) + ", expected 1 to 4096");
        out.emplace_back(name, width.integer());
      }
      if (out.empty()) fail(key, "is empty");
      return out;
    });
  }
  void require(std::string_view key, std::string_view wanted, std::string_view or_else = {}) const {
    if (object_.find(key) && string(key) != wanted && string(key) != or_else)
      fail(key, "'" + string(key) + "' is not supported, expected '" + std::string(wanted) + "'");
  }
  void require_false(std::string_view key) const {
    if (boolean_or(key, false)) fail(key, "true is not supported");
  }

 private:
  const Json& object_;
  std::string where_;
};

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw CheckpointError(path +
                          ": cannot open; a checkpoint is a folder with config.json and *.safetensors");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

VisionConfig read_vision(const Json& json, const std::string& where) {
  const Reader reader(json, where);
  VisionConfig vision;
  vision.depth = reader.integer("depth");
  vision.hidden_size = reader.integer("hidden_size");
  vision.num_heads = reader.integer("num_heads");
  vision.intermediate_size = reader.integer("intermediate_size");
  // bounds far above any network, and low enough that no product of sizes overflows
  const char* channels = json.find("in_channels") ? "in_channels" : "in_chans";
  vision.in_channels = json.find(channels) ? reader.integer(channels, 1, 64) : 3;
  vision.patch_size = reader.integer("patch_size", 1, 1024);
  vision.temporal_patch_size = reader.integer("temporal_patch_size", 1, 64);
  vision.spatial_merge_size = reader.integer("spatial_merge_size", 1, 64);
  vision.window_size = reader.integer("window_size");
  vision.out_hidden_size = reader.integer("out_hidden_size");
  vision.full_attention_blocks = reader.integers("fullatt_block_indexes");
  reader.require("hidden_act", "silu");
  if (vision.hidden_size % vision.num_heads || vision.head_dim() % 4)
    reader.fail("num_heads", std::to_string(vision.num_heads) + " heads do not divide hidden_size " +
                                 std::to_string(vision.hidden_size) + " into multiples of 4");
  if (vision.window_size % (vision.patch_size * vision.spatial_merge_size))
    reader.fail("window_size",
                std::to_string(vision.window_size) + " px is not a multiple of patch_size x merge size");
  return vision;
}

void check_variant(const Json& json, const Reader& reader) {
  const std::string type = reader.string("model_type");
  if (type.rfind("qwen2_5_vl", 0) != 0)
    reader.fail("model_type",
                "unknown architecture '" + type +
                    "'; this version runs WALL-OSS on qwen2_5_vl (wall-oss-flow, wall-oss-fast)");
  const bool is_moe = json.find("mlp_moe") || json.find("experts");
  if (!is_moe || !json.find("dof_config")) {
    const bool is_05 = reader.boolean_or("attention_moe", false);
    if (!is_05)
      reader.fail("model_type", "'" + type + "' without experts and dof_config is not a WALL-OSS checkpoint");
  }
  if (reader.boolean_or("attention_moe", false) || reader.boolean_or("norm_moe", false)) {
    std::string name = "wall-oss-0.5";
    if (reader.boolean_or("use_adarms", false)) {
      name = "the adaptive-norm variant (use_adarms)";
    } else if (json.find("dof_config") && !reader.boolean_or("use_state_string_representation", false) &&
               !reader.boolean_or("mot_opt", false)) {
      name = "wall-oss-flow-0.1";
    }
    reader.fail("attention_moe",
                "this checkpoint is " + name +
                    " (attention and norms per expert), which this version does not run yet; it runs "
                    "wall-oss-flow and wall-oss-fast");
  }
  if (!reader.boolean_or("mlp_moe", true)) reader.fail("mlp_moe", "false: expected expert feed-forwards");
  // the same tensors would mean something else: other norms; actions predicted instead of their velocity
  for (const char* key : {"use_adarms", "use_x_pred", "use_sliding_window"}) reader.require_false(key);
}

}  // namespace

std::int64_t ModelConfig::action_dim() const {
  return std::accumulate(dof.begin(), dof.end(), std::int64_t{0},
                         [](auto n, const auto& s) { return n + s.second; });
}

std::int64_t ModelConfig::state_dim() const {
  return std::accumulate(agent_pos.begin(), agent_pos.end(), std::int64_t{0},
                         [](auto n, const auto& s) { return n + s.second; });
}

ModelConfig ModelConfig::load(const std::string& directory) {
  const std::string path = directory + "/config.json";
  Json json;
  try {
    json = Json::parse(read_text(path));
  } catch (const JsonError& e) {
    throw CheckpointError(path + ": " + e.what());
  }
  if (!json.is_object()) throw CheckpointError(path + ": not a JSON object");
  const Reader reader(json, path + ": ");
  check_variant(json, reader);

  ModelConfig config;
  config.architecture = "v1";
  config.hidden_size = reader.integer("hidden_size", 4);
  if (config.hidden_size % 2) reader.fail("hidden_size", std::to_string(config.hidden_size) + " is odd");
  config.num_layers = reader.integer("num_hidden_layers");
  config.num_heads = reader.integer("num_attention_heads");
  config.num_kv_heads = reader.integer("num_key_value_heads");
  if (!json.find("head_dim") && config.hidden_size % config.num_heads)
    reader.fail("num_attention_heads", std::to_string(config.num_heads) + " does not divide hidden_size " +
                                           std::to_string(config.hidden_size) + ", and head_dim is missing");
  config.head_dim = reader.integer_or("head_dim", config.hidden_size / config.num_heads);
  config.rms_norm_eps = static_cast<float>(reader.number("rms_norm_eps", 1e-20, 1));
  config.rope_theta = reader.number("rope_theta", 1, 1e12);
  config.is_head_tied = reader.boolean_or("tie_word_embeddings", false);
  config.image_token_id = reader.integer("image_token_id", 0);
  config.video_token_id = reader.integer("video_token_id", 0);
  config.vision_start_token_id = reader.integer("vision_start_token_id", 0);
  reader.require("hidden_act", "silu");
  if (config.num_heads % config.num_kv_heads)
    reader.fail("num_key_value_heads", std::to_string(config.num_kv_heads) +
                                           " does not divide num_attention_heads " +
                                           std::to_string(config.num_heads));
  if (config.head_dim % 2) reader.fail("head_dim", std::to_string(config.head_dim) + " is odd");

  const Reader rope(reader.need("rope_scaling"), path + ": rope_scaling.");
  for (const char* key : {"type", "rope_type"}) rope.require(key, "mrope", "default");
  config.mrope_section = rope.integers("mrope_section");
  if (config.mrope_section.size() != 3 || *std::ranges::min_element(config.mrope_section) < 0 ||
      std::accumulate(config.mrope_section.begin(), config.mrope_section.end(), std::int64_t{0}) * 2 !=
          config.head_dim)
    rope.fail("mrope_section",
              "must be three numbers that add up to head_dim / 2 = " + std::to_string(config.head_dim / 2));

  const auto& experts =
      reader.read("experts", [](const Json& j) -> const std::vector<Json>& { return j.array(); });
  if (experts.size() != 2)
    reader.fail("experts", std::to_string(experts.size()) + " given, expected 2 (text and action)");
  if (const std::int64_t num = reader.integer_or("num_experts", 2); num != 2)
    reader.fail("num_experts", std::to_string(num) + ", expected 2 (text and action)");
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const Reader expert(experts[i], path + ": experts[" + std::to_string(i) + "].");
    config.expert_sizes.push_back(expert.integer("intermediate_size"));
    expert.require("hidden_act", "silu");
    if (expert.integer("hidden_size") != config.hidden_size)
      expert.fail("hidden_size", std::to_string(expert.integer("hidden_size")) + ", expected hidden_size " +
                                     std::to_string(config.hidden_size));
  }
  if (json.find("dim_inputs")) {
    const std::vector<std::int64_t> widths = reader.integers("dim_inputs");
    if (widths.size() != 2)
      reader.fail("dim_inputs", std::to_string(widths.size()) + " given, expected 2 (text and action)");
    for (std::int64_t width : widths)
      if (width != config.hidden_size)
        reader.fail("dim_inputs", std::to_string(width) + ", expected hidden_size " +
                                      std::to_string(config.hidden_size) + " for both experts");
  }

  config.vision = read_vision(reader.need("vision_config"), path + ": vision_config.");
  if (config.vision.out_hidden_size != config.hidden_size)
    reader.fail("vision_config.out_hidden_size", std::to_string(config.vision.out_hidden_size) +
                                                     ", expected hidden_size " +
                                                     std::to_string(config.hidden_size));
  config.dof = reader.slots("dof_config");
  config.agent_pos = reader.slots("agent_pos_config");
  for (const auto& [key, value] : json.members())
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) == std::end(kKnownKeys))
      config.unknown_keys.push_back(key);
  return config;
}

}  // namespace wallx
