// ModelConfig: reading and checking config.json.
// SPDX-License-Identifier: Apache-2.0
#include "model/config.hpp"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <sstream>

#include "base/errors.hpp"
#include "base/json.hpp"
#include "model/variant.hpp"

namespace wallx {
namespace {

// keys that the reference writes; those this version does not need are known all the same
constexpr std::string_view kKnownKeys[] = {
    "_attn_implementation",
    "_name_or_path",
    "action_hidden_size",
    "action_horizon",
    "action_horizon_flow",
    "adarms_cond_dim",
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
    "time_shift",
    "torch_dtype",
    "transformers_version",
    "use_adarms",
    "use_cache",
    "use_flow_action_expert",
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

  const std::string& where() const { return where_; }
  [[noreturn]] void fail(std::string_view key, const std::string& what) const {
    throw CheckpointError(where_ + std::string(key) + ": " + what);
  }
  // there and not null: published files write null for "as by default"
  bool has(std::string_view key) const {
    const Json* value = object_.find(key);
    return value && value->type() != Json::Type::null;
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
    return has(key) ? integer(key) : fallback;
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
    return has(key) ? read(key, [](const Json& j) { return j.boolean(); }) : fallback;
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

void require_known_architecture(const Json& json, const Reader& reader) {
  const std::string type = reader.string("model_type");
  if (type.rfind("qwen2_5_vl", 0) != 0) {
    std::string known;
    for (const Variant& variant : variants())
      if (!variant.checkpoints.empty()) known.append(known.empty() ? "" : ", ").append(variant.checkpoints);
    reader.fail("model_type", "unknown architecture '" + type +
                                  "'; this version runs WALL-OSS on qwen2_5_vl (" + known + ")");
  }
  if (!json.find("mlp_moe") && !json.find("experts"))
    reader.fail("model_type", "'" + type + "' without experts is not a WALL-OSS checkpoint");
}

// the flags that choose the network, and with them the row of the table
void read_variant(const Reader& reader, std::optional<bool> is_state_text, ModelConfig& config) {
  config.has_expert_attention = reader.boolean_or("attention_moe", false);
  config.has_adaptive_norms = reader.boolean_or("use_adarms", false);
  config.is_state_text = is_state_text.value_or(reader.boolean_or("use_state_string_representation", false));
  config.is_action_causal = reader.boolean_or("causal_action_attention_mask", false);
  config.does_project_mask = reader.boolean_or("proj_with_mask", true);
  config.does_predict_actions = reader.boolean_or("use_x_pred", false);
  for (const char* key : {"mlp_moe", "use_flow_action_expert"})
    if (!reader.boolean_or(key, true)) reader.fail(key, "false is no known variant");
  if (reader.boolean_or("norm_moe", false) != config.has_expert_attention)
    reader.fail("norm_moe",
                "no known variant has norms per expert without attention per expert, or the "
                "other way round (attention_moe)");
  if (!config.has_expert_attention) {
    if (config.has_adaptive_norms)
      reader.fail("use_adarms", "no known variant has adaptive norms with shared attention (attention_moe)");
    // the two generations of the reference disagree on what to do with a predicted action
    if (config.does_predict_actions)
      reader.fail("use_x_pred", "no known variant predicts actions with shared attention (attention_moe)");
  }
  reader.require_false("use_sliding_window");
  const auto is_row = [&](const Variant& v) {
    return v.has_expert_attention == config.has_expert_attention &&
           v.has_adaptive_norms == config.has_adaptive_norms &&
           (v.is_state_text == config.is_state_text || !v.has_expert_attention || v.has_adaptive_norms);
  };
  const Variant& variant = *std::ranges::find_if(variants(), is_row);
  config.architecture = variant.name;
  config.does_pad_masked_dims = variant.does_pad_masked_dims;
  if (!variant.is_time_scaled) return;

  const Json& scheduler = reader.need("noise_scheduler");
  const Reader flow(scheduler, reader.where() + "noise_scheduler.");
  config.time_scale = static_cast<float>(flow.number("s", 1e-3, 1));
  if (flow.has("time_shift")) {
    config.time_shift = static_cast<float>(flow.number("time_shift", 1e-3, 1e3));
  } else if (reader.has("time_shift")) {
    config.time_shift = static_cast<float>(reader.number("time_shift", 1e-3, 1e3));
  }
}

void read_experts(const Reader& reader, ModelConfig& config) {
  const auto& experts =
      reader.read("experts", [](const Json& j) -> const std::vector<Json>& { return j.array(); });
  if (experts.size() != 2)
    reader.fail("experts", std::to_string(experts.size()) + " given, expected 2 (text and action)");
  if (const std::int64_t num = reader.integer_or("num_experts", 2); num != 2)
    reader.fail("num_experts", std::to_string(num) + ", expected 2 (text and action)");
  const char* key = reader.has("dim_inputs") ? "dim_inputs" : "experts";
  if (reader.has("dim_inputs")) config.expert_widths = reader.integers(key);
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const Reader expert(experts[i], reader.where() + "experts[" + std::to_string(i) + "].");
    config.expert_sizes.push_back(expert.integer("intermediate_size"));
    expert.require("hidden_act", "silu");
    const std::int64_t width = expert.integer("hidden_size");
    if (!reader.has("dim_inputs")) config.expert_widths.push_back(width);
    if (i < config.expert_widths.size() && width != config.expert_widths[i])
      expert.fail("hidden_size", std::to_string(width) + ", expected " +
                                     std::to_string(config.expert_widths[i]) + " as in dim_inputs");
  }
  if (config.expert_widths.size() != 2)
    reader.fail(key, std::to_string(config.expert_widths.size()) + " given, expected 2 (text and action)");
  const std::string whole = "hidden_size " + std::to_string(config.hidden_size);
  const std::int64_t text = config.expert_widths[0], action = config.expert_widths[1];
  if (text != config.hidden_size)
    reader.fail(key, std::to_string(text) + ", expected " + whole + " for the text expert");
  if (!config.has_expert_attention && action != config.hidden_size)
    reader.fail(key, std::to_string(action) + ", expected " + whole + " for both experts");
  if (action < 4 || action > config.hidden_size || action % 2)
    reader.fail(key, std::to_string(action) + ", expected an even number from 4 to " + whole +
                         " for the action expert");
}

void read_heads(const Reader& reader, ModelConfig& config) {
  const std::int64_t stream = config.expert_widths[1];
  const auto width_or = [&](const char* key, std::int64_t most) {
    const std::int64_t width = reader.has(key) ? reader.integer(key, 4, most) : most;
    if (width % 2) reader.fail(key, std::to_string(width) + " is odd");
    return width;
  };
  config.action_width = width_or("action_hidden_size", stream);
  config.state_width = width_or("state_hidden_size", config.hidden_size);
  if (config.has_adaptive_norms)
    config.condition_width =
        reader.has("adarms_cond_dim") ? reader.integer("adarms_cond_dim") : config.action_width;
}

// slots from config.json, or the caller's instead
Slots read_slots(const Reader& reader, const char* key, const Slots& given, bool is_required) {
  for (const auto& [name, width] : given)
    if (width < 1 || width > 4096)
      throw ConfigError(std::string(key) + " given to the engine: " + name + " has width " +
                        std::to_string(width) + ", expected 1 to 4096");
  if (!given.empty()) return given;
  return is_required || reader.has(key) ? reader.slots(key) : Slots{};
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

ModelConfig ModelConfig::load(const std::string& directory, const Slots& dof_given,
                              const Slots& agent_pos_given, std::optional<bool> is_state_text_given) {
  const std::string path = directory + "/config.json";
  Json json;
  try {
    json = Json::parse(read_text(path));
  } catch (const JsonError& e) {
    throw CheckpointError(path + ": " + e.what());
  }
  if (!json.is_object()) throw CheckpointError(path + ": not a JSON object");
  const Reader reader(json, path + ": ");
  require_known_architecture(json, reader);

  ModelConfig config;
  read_variant(reader, is_state_text_given, config);
  config.hidden_size = reader.integer("hidden_size", 4);
  if (config.hidden_size % 2) reader.fail("hidden_size", std::to_string(config.hidden_size) + " is odd");
  config.num_layers = reader.integer("num_hidden_layers");
  config.num_heads = reader.integer("num_attention_heads");
  config.num_kv_heads = reader.integer("num_key_value_heads");
  if (!reader.has("head_dim") && config.hidden_size % config.num_heads)
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

  read_experts(reader, config);
  read_heads(reader, config);

  config.vision = read_vision(reader.need("vision_config"), path + ": vision_config.");
  if (config.vision.out_hidden_size != config.hidden_size)
    reader.fail("vision_config.out_hidden_size", std::to_string(config.vision.out_hidden_size) +
                                                     ", expected hidden_size " +
                                                     std::to_string(config.hidden_size));
  const bool is_required = !config.has_expert_attention;
  config.dof = read_slots(reader, "dof_config", dof_given, is_required);
  config.agent_pos = read_slots(reader, "agent_pos_config", agent_pos_given, is_required);
  for (const char* key : {"action_horizon", "action_horizon_flow"})
    if (reader.has(key)) config.horizon = reader.integer(key);
  for (const auto& [key, value] : json.members())
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) == std::end(kKnownKeys))
      config.unknown_keys.push_back(key);
  return config;
}

}  // namespace wallx
