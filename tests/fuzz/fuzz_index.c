/* fuzz_index.c: a folder of two sound shards whose model.safetensors.index.json is the input. */
#include "fuzz_checkpoint.h"

static const char config[] =
    "{\"architectures\":[\"Glm4MoeForCausalLM\"],\"model_type\":\"glm4_moe\",\"vocab_size\":16,\"hidden_size\":8,"
    "\"num_hidden_layers\":2,\"first_k_dense_replace\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
    "\"head_dim\":4,\"partial_rotary_factor\":0.5,\"intermediate_size\":8,\"moe_intermediate_size\":4,"
    "\"n_routed_experts\":2,\"n_shared_experts\":1,\"num_experts_per_tok\":1,\"n_group\":1,\"topk_group\":1,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"max_position_embeddings\":64}";
static const char first[] =
    "{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]},"
    "\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[16,8],\"data_offsets\":[32,544]}}";
static const char second[] =
    "{\"model.embed_tokens.weight\":{\"dtype\":\"BF16\",\"shape\":[16,8],\"data_offsets\":[0,256]}}";

static void add_shard(struct fuzz_files *f, const char *name, const char *header, size_t data)
{
    char bytes[1024] = {0};
    size_t n = strlen(header);
    bytes[0] = (char)(n & 255);
    bytes[1] = (char)(n >> 8);
    memcpy(bytes + 8, header, n);
    fuzz_files_add(f, name, bytes, 8 + n, data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_files f;

    fuzz_files_init(&f);
    fuzz_files_add(&f, "m/config.json", config, sizeof config - 1, 0);
    fuzz_files_add(&f, "m/model.safetensors.index.json", data, size, 0);
    add_shard(&f, "m/a.safetensors", first, 544);
    add_shard(&f, "m/b.safetensors", second, 256);
    fuzz_checkpoint(&f, "m", GLM_WEIGHTS_MAP);
    fuzz_files_free(&f);
    return 0;
}
