/* fuzz_safetensors.c: a folder whose model.safetensors is the input (then zeros); its configuration is sound. */
#include "fuzz_checkpoint.h"

static const char config[] =
    "{\"architectures\":[\"Glm4MoeForCausalLM\"],\"model_type\":\"glm4_moe\",\"vocab_size\":16,\"hidden_size\":8,"
    "\"num_hidden_layers\":2,\"first_k_dense_replace\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
    "\"head_dim\":4,\"partial_rotary_factor\":0.5,\"intermediate_size\":8,\"moe_intermediate_size\":4,"
    "\"n_routed_experts\":2,\"n_shared_experts\":1,\"num_experts_per_tok\":1,\"n_group\":1,\"topk_group\":1,"
    "\"norm_topk_prob\":true,\"routed_scaling_factor\":1.0,\"use_qk_norm\":false,\"attention_bias\":true,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"max_position_embeddings\":64,\"tie_word_embeddings\":false,"
    "\"num_nextn_predict_layers\":1,\"hidden_act\":\"silu\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct fuzz_files f;
    size_t zeros = (size_t)fuzz_byte(&in) * 256;

    fuzz_files_init(&f);
    fuzz_files_add(&f, "m/config.json", config, sizeof config - 1, 0);
    fuzz_files_add(&f, "m/model.safetensors", in.at, in.left, zeros);
    fuzz_checkpoint(&f, "m", GLM_WEIGHTS_MAP);
    fuzz_files_free(&f);
    return 0;
}
