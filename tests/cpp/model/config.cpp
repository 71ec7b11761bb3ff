// ConfigTest: flags choose the variant, and those that no variant has are refused by name; impossible values
// never reach the network. SPDX-License-Identifier: Apache-2.0
#include "model/config.hpp"

#include "base/errors.hpp"
#include "check.hpp"
#include "model/variant.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

ModelConfig load(const std::string& text) {
  const TemporaryFolder folder;
  folder.write("config.json", text);
  return ModelConfig::load(folder.path());
}
ModelConfig load(const ConfigText& config) { return load(config.text()); }

ConfigText with(std::string_view key, std::string value) {
  return TinyModel().config().set(key, std::move(value));
}
ConfigText with_vision(std::string_view key, std::string value) {
  return with("vision_config", TinyModel().vision_config().set(key, std::move(value)).text());
}
ConfigText with_expert(const std::string& expert) {
  return with("experts", join("[", TinyModel().expert_config(48), ", ", expert, "]"));
}

struct Refused {
  std::string key, value;
  const char* part;
};

// what the mixture-of-transformers checkpoints write beyond ours
ConfigText mixture(const std::vector<std::pair<std::string, std::string>>& more) {
  ConfigText config = TinyModel().config();
  config.set("attention_moe", "true").set("norm_moe", "true").set("action_hidden_size", "12");
  config.set("dim_inputs", "[32, 16]").set("noise_scheduler", R"({"s": 0.75})");
  config.set("experts",
             join("[", TinyModel().expert_config(48), R"(, {"hidden_size": 16, "intermediate_size": 24}])"));
  for (const auto& [key, value] : more) config.set(key, value);
  return config;
}

}  // namespace

TEST(reads_every_dimension) {
  const ModelConfig c = load(TinyModel().config());
  CHECK_EQ(c.architecture, "v1");
  CHECK_EQ(c.hidden_size, 32);
  CHECK_EQ(c.num_layers, 2);
  CHECK_EQ(c.num_heads, 4);
  CHECK_EQ(c.num_kv_heads, 2);
  CHECK_EQ(c.head_dim, 8);
  CHECK_EQ(c.rms_norm_eps, 1e-6f);
  CHECK_EQ(c.rope_theta, 10000.0);
  CHECK(c.mrope_section == (std::vector<std::int64_t>{1, 1, 2}));
  CHECK(c.is_head_tied);
  CHECK(c.expert_sizes == (std::vector<std::int64_t>{48, 24}));
  CHECK_EQ(c.image_token_id, 30);
  CHECK_EQ(c.video_token_id, 31);
  CHECK_EQ(c.vision_start_token_id, 29);
  CHECK_EQ(c.vision.depth, 2);
  CHECK_EQ(c.vision.head_dim(), 8);
  CHECK_EQ(c.vision.patch_width(), 24);
  CHECK_EQ(c.vision.window_size, 8);
  CHECK(c.vision.full_attention_blocks == std::vector<std::int64_t>{1});
  CHECK_EQ(c.action_dim(), 4);
  CHECK_EQ(c.state_dim(), 5);
  CHECK(c.dof == (Slots{{"arm", 3}, {"gripper", 1}}));
  CHECK(c.agent_pos == (Slots{{"arm", 3}, {"gripper", 2}}));
  CHECK(c.unknown_keys.empty());
}

TEST(keys_that_may_be_absent_have_defaults) {
  ConfigText config = TinyModel().config();
  for (const char* key : {"head_dim", "tie_word_embeddings", "num_experts", "dim_inputs", "attention_moe",
                          "mlp_moe", "hidden_act"})
    config.erase(key);
  const ModelConfig c = load(config);
  CHECK_EQ(c.head_dim, 8);
  CHECK(!c.is_head_tied);
  for (const char* key : {"head_dim", "tie_word_embeddings", "num_experts", "dim_inputs", "attention_moe"})
    config.set(key, "null");  // as absent
  CHECK_EQ(load(config).head_dim, 8);
  CHECK(load(config).expert_widths == (std::vector<std::int64_t>{32, 32}));
  ConfigText vision = TinyModel().vision_config();
  CHECK_EQ(load(with("vision_config", vision.erase("in_chans").text())).vision.in_channels, 3);
  CHECK_EQ(load(with("vision_config", vision.set("in_channels", "4").text())).vision.in_channels, 4);
}

TEST(every_missing_key_is_named) {
  for (const char* key :
       {"model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "rms_norm_eps", "rope_theta", "rope_scaling", "experts", "image_token_id", "video_token_id",
        "vision_start_token_id", "vision_config", "dof_config", "agent_pos_config"})
    CHECK_THROWS(load(TinyModel().config().erase(key)), CheckpointError, join(key, ": missing").c_str());
  for (const char* key :
       {"depth", "hidden_size", "num_heads", "intermediate_size", "patch_size", "temporal_patch_size",
        "spatial_merge_size", "window_size", "out_hidden_size", "fullatt_block_indexes"})
    CHECK_THROWS(load(with("vision_config", TinyModel().vision_config().erase(key).text())), CheckpointError,
                 join("vision_config.", key, ": missing").c_str());
  CHECK_THROWS(load(with("rope_scaling", "{}")), CheckpointError, "rope_scaling.mrope_section: missing");
  CHECK_THROWS(load(with_expert(R"({"hidden_size": 32})")), CheckpointError,
               "experts[1].intermediate_size: missing");
  CHECK_THROWS(load(with_expert(R"({"intermediate_size": 24})")), CheckpointError,
               "experts[1].hidden_size: missing");
}

TEST(flags_choose_the_row_of_the_table) {
  const struct {
    std::vector<std::pair<std::string, std::string>> flags;
    const char* name;
  } cases[] = {
      {{}, "mot-0.1"},
      {{{"use_state_string_representation", "true"}}, "mot-0.5"},
      {{{"use_adarms", "true"}, {"mot_opt", "true"}}, "mot-adarms"},
      {{{"use_adarms", "true"}, {"use_state_string_representation", "true"}}, "mot-adarms"},
  };
  for (const auto& c : cases) {
    const ModelConfig config = load(mixture(c.flags));
    CHECK_EQ(config.architecture, c.name);
    CHECK(config.has_expert_attention);
    CHECK(config.does_pad_masked_dims);
    CHECK_EQ(config.has_adaptive_norms, config.architecture == "mot-adarms");
    CHECK_EQ(config.is_state_text, c.flags.size() > 0 && c.flags.back().first != "mot_opt");
    CHECK_EQ(config.condition_width, config.has_adaptive_norms ? 12 : 0);
  }
  // every row is reached by some flags, and by its own name only
  for (const Variant& variant : variants()) {
    int found = variant.name == "v1";
    for (const auto& c : cases) found += variant.name == c.name;
    CHECK(found >= 1);
  }
}

TEST(reads_what_sets_the_mixtures_apart) {
  const ModelConfig c = load(mixture({{"state_hidden_size", "24"},
                                      {"causal_action_attention_mask", "true"},
                                      {"proj_with_mask", "false"},
                                      {"use_x_pred", "true"},
                                      {"use_adarms", "true"},
                                      {"adarms_cond_dim", "10"}}));
  CHECK(c.expert_widths == (std::vector<std::int64_t>{32, 16}));
  CHECK_EQ(c.action_width, 12);
  CHECK_EQ(c.state_width, 24);
  CHECK_EQ(c.condition_width, 10);
  CHECK(c.is_action_causal && !c.does_project_mask && c.does_predict_actions);
  CHECK_EQ(c.time_scale, 0.75f);
  CHECK_EQ(c.time_shift, 1.0f);
  const ModelConfig plain = load(mixture({}));
  CHECK(!plain.is_action_causal && plain.does_project_mask && !plain.does_predict_actions);
  CHECK_EQ(plain.state_width, 32);
  CHECK_EQ(load(mixture({{"noise_scheduler", R"({"s": 1, "time_shift": 3})"}})).time_shift, 3.0f);
  CHECK_EQ(load(mixture({{"noise_scheduler", R"({"s": 1, "time_shift": null})"}})).time_shift, 1.0f);
  CHECK_EQ(load(mixture({{"time_shift", "2"}})).time_shift, 2.0f);
  // the widths may stand in the experts only
  CHECK(load(mixture({}).erase("dim_inputs")).expert_widths == (std::vector<std::int64_t>{32, 16}));
}

// the first generation of the reference reads neither
TEST(v1_takes_no_time_scale_from_its_config) {
  const ModelConfig c = load(with("noise_scheduler", R"({"s": 0.75, "time_shift": 3})"));
  CHECK_EQ(c.time_scale, 1.0f);
  CHECK_EQ(c.time_shift, 1.0f);
  CHECK(!c.does_pad_masked_dims);
  CHECK(c.expert_widths == (std::vector<std::int64_t>{32, 32}));
  CHECK_EQ(c.action_width, 32);
}

// wall-oss-0.5 has its slots elsewhere
TEST(slots_may_come_from_the_caller) {
  const ConfigText bare = mixture({}).erase("dof_config").erase("agent_pos_config");
  CHECK(load(bare).dof.empty());
  CHECK_EQ(load(bare).action_dim(), 0);
  const TemporaryFolder folder;
  folder.write("config.json", bare.text());
  const Slots dof{{"hand", 3}, {"thumb", 2}}, agent_pos{{"hand", 7}};
  const ModelConfig c = ModelConfig::load(folder.path(), dof, agent_pos);
  CHECK(c.dof == dof && c.agent_pos == agent_pos);
  // the caller's win over the file's
  folder.write("config.json", mixture({}).text());
  CHECK_EQ(ModelConfig::load(folder.path()).action_dim(), 4);
  CHECK_EQ(ModelConfig::load(folder.path(), dof).action_dim(), 5);
  CHECK_EQ(ModelConfig::load(folder.path(), dof).state_dim(), 5);
  CHECK_THROWS(ModelConfig::load(folder.path(), {{"hand", 0}}), ConfigError, "hand has width 0");
  CHECK_THROWS(ModelConfig::load(folder.path(), {}, {{"hand", 4097}}), ConfigError, "hand has width 4097");
}

// its config.yml, which the caller reads, also says how the state is told
TEST(the_caller_may_say_that_the_state_is_text) {
  const TemporaryFolder folder;
  folder.write("config.json", mixture({}).text());
  CHECK(!ModelConfig::load(folder.path()).is_state_text);
  const ModelConfig text = ModelConfig::load(folder.path(), {}, {}, true);
  CHECK(text.is_state_text);
  CHECK_EQ(text.architecture, "mot-0.5");
  folder.write("config.json", mixture({{"use_state_string_representation", "true"}}).text());
  CHECK_EQ(ModelConfig::load(folder.path(), {}, {}, false).architecture, "mot-0.1");
}

TEST(the_horizon_is_the_flow_s) {
  CHECK_EQ(load(mixture({})).horizon, 0);
  CHECK_EQ(load(mixture({{"action_horizon", "32"}})).horizon, 32);
  CHECK_EQ(load(mixture({{"action_horizon", "32"}, {"action_horizon_flow", "10"}})).horizon, 10);
  CHECK_THROWS(load(mixture({{"action_horizon_flow", "0"}})), CheckpointError, "action_horizon_flow");
}

TEST(flags_that_no_variant_has_are_refused_by_name) {
  CHECK_THROWS(load(with("norm_moe", "true")), CheckpointError, "norm_moe: no known variant");
  CHECK_THROWS(load(mixture({{"norm_moe", "false"}})), CheckpointError, "norm_moe: no known variant");
  CHECK_THROWS(load(with("use_adarms", "true")), CheckpointError, "use_adarms: no known variant");
  CHECK_THROWS(load(with("use_x_pred", "true")), CheckpointError, "use_x_pred: no known variant");
  CHECK_THROWS(load(with("mlp_moe", "false")), CheckpointError, "mlp_moe: false is no known variant");
  CHECK_THROWS(load(mixture({{"use_flow_action_expert", "false"}})), CheckpointError,
               "use_flow_action_expert: false is no known variant");
  const Refused cases[] = {
      {"dim_inputs", "[32, 34]", "experts[1].hidden_size: 16, expected 34 as in dim_inputs"},
      {"dim_inputs", "[32]", "dim_inputs: 1 given, expected 2"},
      {"dim_inputs", "[16, 16]", "experts[0].hidden_size: 32, expected 16 as in dim_inputs"},
      {"dim_inputs", "[32, 12]", "experts[1].hidden_size: 16, expected 12 as in dim_inputs"},
      {"action_hidden_size", "18", "action_hidden_size: 18 is outside [4, 16]"},
      {"action_hidden_size", "7", "action_hidden_size: 7 is odd"},
      {"action_hidden_size", "2", "action_hidden_size: 2 is outside"},
      {"state_hidden_size", "34", "state_hidden_size: 34 is outside [4, 32]"},
      {"noise_scheduler", "{}", "noise_scheduler.s: missing"},
      {"noise_scheduler", "[]", "noise_scheduler.s: missing"},
      {"noise_scheduler", R"({"s": 0})", "noise_scheduler.s: 0 is outside"},
      {"noise_scheduler", R"({"s": 1.5})", "noise_scheduler.s: 1.5 is outside"},
      {"noise_scheduler", R"({"s": 1, "time_shift": 0})", "noise_scheduler.time_shift: 0 is outside"},
      {"attention_moe", "1", "attention_moe: expected a boolean"},
  };
  for (const Refused& c : cases) CHECK_THROWS(load(mixture({{c.key, c.value}})), CheckpointError, c.part);
  for (const char* width : {"34", "15", "2"}) {
    const std::string experts = join("[", TinyModel().expert_config(48), R"(, {"hidden_size": )", width,
                                     R"(, "intermediate_size": 24}])");
    CHECK_THROWS(load(mixture({{"experts", experts}}).erase("dim_inputs")), CheckpointError,
                 "expected an even number from 4 to hidden_size 32 for the action expert");
  }
  CHECK_THROWS(load(mixture({}).erase("noise_scheduler")), CheckpointError, "noise_scheduler: missing");
  CHECK_THROWS(load(mixture({{"use_adarms", "true"}, {"adarms_cond_dim", "0"}})), CheckpointError,
               "adarms_cond_dim: 0 is outside");
}

TEST(other_networks_are_refused) {
  CHECK_THROWS(load(with("model_type", "\"llama\"")), CheckpointError, "unknown architecture 'llama'");
  CHECK_THROWS(load(with("model_type", "\"llama\"")), CheckpointError, "wall-oss-flow-0.1, wall-oss-0.5");
  CHECK_THROWS(load(with("model_type", "\"qwen2_vl\"")), CheckpointError, "unknown architecture 'qwen2_vl'");
  CHECK_THROWS(load(with("model_type", "3")), CheckpointError, "model_type: expected a string");
  CHECK_THROWS(load(TinyModel().config().erase("experts").erase("mlp_moe")), CheckpointError,
               "without experts is not a WALL-OSS checkpoint");
}

TEST(impossible_values_are_refused_with_their_bound) {
  const Refused cases[] = {
      {"hidden_size", "0", "hidden_size: 0 is outside [4, "},
      {"hidden_size", "-32", "hidden_size: -32 is outside"},
      {"hidden_size", "32.5", "hidden_size: expected a whole number"},
      {"hidden_size", "\"32\"", "hidden_size: expected a number, found a string"},
      {"hidden_size", "1e9", "is outside [4, "},
      {"hidden_size", "33", "hidden_size"},  // the time embedding is half sine, half cosine
      {"hidden_size", "2", "hidden_size"},
      {"num_hidden_layers", "0", "num_hidden_layers: 0 is outside"},
      {"num_attention_heads", "0", "num_attention_heads: 0 is outside"},
      {"num_key_value_heads", "3", "num_key_value_heads: 3 does not divide num_attention_heads 4"},
      {"head_dim", "7", "head_dim: 7 is odd"},
      {"head_dim", "0", "head_dim: 0 is outside"},
      {"head_dim", "10", "must be three numbers that add up to head_dim / 2 = 5"},
      {"rms_norm_eps", "0", "rms_norm_eps"},
      {"rms_norm_eps", "-1e-6", "rms_norm_eps"},
      {"rms_norm_eps", "1e-300", "rms_norm_eps"},  // zero as a float
      {"rms_norm_eps", "1e300", "rms_norm_eps"},
      {"rope_theta", "0", "rope_theta"},
      {"rope_theta", "-1", "rope_theta"},
      {"rope_theta", "1e300", "rope_theta"},
      {"rope_theta", "null", "rope_theta: expected a number, found null"},
      {"rope_scaling", R"({"mrope_section": [2, 2]})", "must be three numbers"},
      {"rope_scaling", R"({"mrope_section": [1, 1, 1]})", "must be three numbers"},
      {"rope_scaling", R"({"mrope_section": [1, 1, 1, 1]})", "must be three numbers"},
      {"rope_scaling", R"({"mrope_section": [-4, 4, 4]})", "must be three numbers"},
      {"rope_scaling", R"({"mrope_section": "1 1 2"})", "rope_scaling.mrope_section: expected an array"},
      {"rope_scaling", R"({"type": "yarn", "mrope_section": [1, 1, 2]})", "'yarn' is not supported"},
      {"rope_scaling", R"({"rope_type": "dynamic", "mrope_section": [1, 1, 2]})",
       "'dynamic' is not supported"},
      {"hidden_act", "\"gelu\"", "hidden_act: 'gelu' is not supported, expected 'silu'"},
      {"use_sliding_window", "true", "use_sliding_window: true is not supported"},
      {"image_token_id", "-1", "image_token_id: -1 is outside [0, "},
      {"tie_word_embeddings", "1", "tie_word_embeddings: expected a boolean"},
      {"num_experts", "3", "num_experts: 3"},
      {"experts", "[]", "experts: 0 given, expected 2"},
      {"experts", "{}", "experts: expected an array"},
      {"experts", "[1, 2]", "experts[0].intermediate_size: missing"},
      {"dim_inputs", "[32, 16]", "experts[1].hidden_size: 32, expected 16 as in dim_inputs"},
      {"dim_inputs", "[32]", "dim_inputs"},
      {"dof_config", "{}", "dof_config: is empty"},
      {"dof_config", "[3]", "dof_config: expected an object"},
      {"dof_config", R"({"arm": 0})", "dof_config: arm has width 0, expected 1 to 4096"},
      {"dof_config", R"({"arm": 5000})", "arm has width 5000"},
      {"dof_config", R"({"arm": 3, "arm": 3})", "key 'arm' stands twice"},
      {"agent_pos_config", R"({"arm": 1.5})", "agent_pos_config: expected a whole number"},
      {"vision_config", "[]", "vision_config.depth: missing"},
  };
  for (const Refused& c : cases) CHECK_THROWS(load(with(c.key, c.value)), CheckpointError, c.part);
  // without head_dim it is hidden_size / heads
  CHECK_THROWS(load(with("num_attention_heads", "6").erase("head_dim")), CheckpointError,
               "num_attention_heads");
  CHECK_THROWS(load(with("num_attention_heads", "64")
                        .set("rope_scaling", R"({"mrope_section": [0, 0, 0]})")
                        .erase("head_dim")),
               CheckpointError, "num_attention_heads");
}

TEST(impossible_vision_values_are_refused_with_their_bound) {
  const Refused cases[] = {
      {"depth", "0", "vision_config.depth: 0 is outside"},
      {"hidden_size", "18",
       "vision_config.num_heads: 2 heads do not divide hidden_size 18 into multiples of 4"},
      {"num_heads", "3", "3 heads do not divide"},
      {"num_heads", "16", "16 heads do not divide"},
      {"patch_size", "0", "vision_config.patch_size: 0 is outside"},
      {"patch_size", "2000", "vision_config.patch_size: 2000 is outside"},
      {"in_chans", "16777216", "vision_config.in_chans: 16777216 is outside"},
      {"in_channels", "16777216", "vision_config.in_channels: 16777216 is outside"},
      {"temporal_patch_size", "16777216", "vision_config.temporal_patch_size: 16777216 is outside"},
      {"spatial_merge_size", "4194304", "vision_config.spatial_merge_size: 4194304 is outside"},
      {"window_size", "10", "vision_config.window_size: 10 px is not a multiple"},
      {"window_size", "2", "vision_config.window_size: 2 px is not a multiple"},
      {"out_hidden_size", "16", "vision_config.out_hidden_size: 16, expected hidden_size 32"},
      {"hidden_act", "\"quick_gelu\"", "vision_config.hidden_act: 'quick_gelu' is not supported"},
      {"fullatt_block_indexes", "1", "vision_config.fullatt_block_indexes: expected an array"},
  };
  for (const Refused& c : cases) CHECK_THROWS(load(with_vision(c.key, c.value)), CheckpointError, c.part);
}

TEST(impossible_experts_are_refused) {
  CHECK_THROWS(load(with_expert(R"({"hidden_size": 16, "intermediate_size": 24})")), CheckpointError,
               "experts[1].hidden_size: 16, expected 32 as in dim_inputs");
  CHECK_THROWS(load(with_expert(R"({"hidden_size": 32, "intermediate_size": 0})")), CheckpointError,
               "experts[1].intermediate_size: 0 is outside");
  CHECK_THROWS(load(with_expert(R"({"hidden_size": 32, "intermediate_size": 24, "hidden_act": "relu"})")),
               CheckpointError, "experts[1].hidden_act: 'relu' is not supported");
}

TEST(unknown_keys_are_reported_and_not_refused) {
  const ModelConfig c =
      load(with("frobnicate", "[1]").set("action_horizon_fancy", "32").set("vocab_size", "7"));
  CHECK(c.unknown_keys == (std::vector<std::string>{"frobnicate", "action_horizon_fancy"}));
}

TEST(files_that_are_not_a_config_are_refused) {
  const TemporaryFolder folder;
  CHECK_THROWS(ModelConfig::load(folder.path()), CheckpointError, "config.json: cannot open");
  CHECK_THROWS(ModelConfig::load(folder.file("absent")), CheckpointError, "config.json: cannot open");
  CHECK_THROWS(load(std::string()), CheckpointError, "config.json: not valid JSON");
  CHECK_THROWS(load(std::string("{\"a\": }")), CheckpointError, "at byte 6");
  CHECK_THROWS(load(std::string("[]")), CheckpointError, "config.json: not a JSON object");
  CHECK_THROWS(load(std::string("{}")), CheckpointError, "model_type: missing");
}

// either a usable config or a CheckpointError: values taken from other places of the same file
TEST(configs_with_swapped_values_load_or_throw_and_nothing_else) {
  std::mt19937 random(5);
  const auto members = TinyModel().config().members();
  const char* odd[] = {"null", "true", "-1", "0", "1e15", "16777216", "[]", "{}", "\"\"", "[1, 2, 3]", "0.5"};
  const TemporaryFolder folder;
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    ConfigText config(members);
    for (auto edits = random() % 3 + 1; edits > 0; --edits) {
      const auto& key = members[random() % members.size()].first;
      config.set(key,
                 random() % 2 ? odd[random() % std::size(odd)] : members[random() % members.size()].second);
    }
    folder.write("config.json", config.text());
    try {
      const ModelConfig c = ModelConfig::load(folder.path());
      CHECK(c.head_dim >= 2 && c.action_dim() > 0 && c.state_dim() > 0 && c.vision.patch_width() > 0);
    } catch (const CheckpointError& error) {
      ++refused;
      CHECK(std::strstr(error.what(), folder.path().c_str()) != nullptr);
    }
  }
  CHECK(refused > 1000);
}

}  // namespace wallx::test
