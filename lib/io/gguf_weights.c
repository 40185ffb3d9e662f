/* gguf_weights.c: tensors of a GGUF file by their role in the model: ggml's type numbers, the
 * family's tensor names, and views of matrices, of slices of a fused attn_qkv and of expert slabs.
 * Keeps nothing: every answer is looked up in the checkpoint's table.
 */
#include "gguf_int.h"

#include <string.h>

/* ---- types (ggml.h, enum ggml_type) ---------------------------------------------------------- */

struct tensor_type {
    const char *name;
    uint16_t format;   /* enum weight_format; W_NONE: not supported */
    uint16_t n, bytes; /* of a block; 0: not known */
};

static const struct tensor_type types[] = {
    [0] = {"F32", W_F32, 1, 4},
    [1] = {"F16", W_F16, 1, 2},
    [2] = {"Q4_0", W_Q4_0, 32, 18},
    [3] = {"Q4_1", W_Q4_1, 32, 20},
    [6] = {"Q5_0", W_Q5_0, 32, 22},
    [7] = {"Q5_1", W_Q5_1, 32, 24},
    [8] = {"Q8_0", W_Q8_0, 32, 34},
    [9] = {"Q8_1", W_NONE, 32, 36},
    [10] = {"Q2_K", W_Q2_K, 256, 84},
    [11] = {"Q3_K", W_Q3_K, 256, 110},
    [12] = {"Q4_K", W_Q4_K, 256, 144},
    [13] = {"Q5_K", W_Q5_K, 256, 176},
    [14] = {"Q6_K", W_Q6_K, 256, 210},
    [15] = {"Q8_K", W_NONE, 256, 292},
    [16] = {"IQ2_XXS", W_NONE, 256, 66},
    [17] = {"IQ2_XS", W_NONE, 256, 74},
    [18] = {"IQ3_XXS", W_NONE, 256, 98},
    [19] = {"IQ1_S", W_NONE, 256, 50},
    [20] = {"IQ4_NL", W_IQ4_NL, 32, 18},
    [21] = {"IQ3_S", W_NONE, 256, 110},
    [22] = {"IQ2_S", W_NONE, 256, 82},
    [23] = {"IQ4_XS", W_IQ4_XS, 256, 136},
    [24] = {"I8", W_NONE, 1, 1},
    [25] = {"I16", W_NONE, 1, 2},
    [26] = {"I32", W_NONE, 1, 4},
    [27] = {"I64", W_NONE, 1, 8},
    [28] = {"F64", W_NONE, 1, 8},
    [29] = {"IQ1_M", W_NONE, 256, 56},
    [30] = {"BF16", W_BF16, 1, 2},
    [34] = {"TQ1_0", W_NONE, 256, 54},
    [35] = {"TQ2_0", W_NONE, 256, 66},
    [39] = {"MXFP4", W_MXFP4, 32, 17},
    [40] = {"NVFP4", W_NONE, 64, 36},
    [41] = {"Q1_0", W_NONE, 0, 0},
    [42] = {"Q2_0", W_NONE, 0, 0},
};

struct weight_block gguf_type_block(uint32_t type)
{
    if (type >= ARRAY_LEN(types))
        return (struct weight_block){0, 0};
    return (struct weight_block){types[type].n, types[type].bytes};
}

const char *gguf_type_name(uint32_t type)
{
    if (type < ARRAY_LEN(types) && types[type].name != NULL)
        return types[type].name;
    /* ik_llama.cpp numbers its own types from here; none of them can be read by other programs. */
    return type == 97 || (type >= 133 && type <= 158) || type >= 202 ? "of ik_llama.cpp"
                                                                     : "unknown";
}

static uint32_t type_format(uint32_t type)
{
    return type < ARRAY_LEN(types) ? types[type].format : W_NONE;
}

/* ---- names ----------------------------------------------------------------------------------- */

enum { PLAIN, IN_LAYER, IN_NEXTN };

static const struct {
    const char *name;
    uint32_t place;
} role_names[ROLE_COUNT] = {
    [ROLE_EMBED] = {"token_embd.weight", PLAIN},
    [ROLE_HEAD] = {"output.weight", PLAIN},
    [ROLE_NORM] = {"output_norm.weight", PLAIN},
    [ROLE_ATTN_NORM] = {"attn_norm.weight", IN_LAYER},
    [ROLE_Q] = {"attn_q.weight", IN_LAYER},
    [ROLE_K] = {"attn_k.weight", IN_LAYER},
    [ROLE_V] = {"attn_v.weight", IN_LAYER},
    [ROLE_O] = {"attn_output.weight", IN_LAYER},
    [ROLE_Q_BIAS] = {"attn_q.bias", IN_LAYER},
    [ROLE_K_BIAS] = {"attn_k.bias", IN_LAYER},
    [ROLE_V_BIAS] = {"attn_v.bias", IN_LAYER},
    [ROLE_Q_NORM] = {"attn_q_norm.weight", IN_LAYER},
    [ROLE_K_NORM] = {"attn_k_norm.weight", IN_LAYER},
    [ROLE_FFN_NORM] = {"post_attention_norm.weight",
        IN_LAYER}, /* applied after the residual add, despite its name */
    [ROLE_GATE] = {"ffn_gate.weight", IN_LAYER},
    [ROLE_UP] = {"ffn_up.weight", IN_LAYER},
    [ROLE_DOWN] = {"ffn_down.weight", IN_LAYER},
    [ROLE_ROUTER] = {"ffn_gate_inp.weight", IN_LAYER},
    [ROLE_ROUTER_BIAS] = {"exp_probs_b.bias", IN_LAYER},
    [ROLE_EXP_GATE] = {"ffn_gate_exps.weight", IN_LAYER},
    [ROLE_EXP_UP] = {"ffn_up_exps.weight", IN_LAYER},
    [ROLE_EXP_DOWN] = {"ffn_down_exps.weight", IN_LAYER},
    [ROLE_SHARED_GATE] = {"ffn_gate_shexp.weight", IN_LAYER},
    [ROLE_SHARED_UP] = {"ffn_up_shexp.weight", IN_LAYER},
    [ROLE_SHARED_DOWN] = {"ffn_down_shexp.weight", IN_LAYER},
    [ROLE_MTP_ENORM] = {"nextn.enorm.weight", IN_NEXTN},
    [ROLE_MTP_HNORM] = {"nextn.hnorm.weight", IN_NEXTN},
    [ROLE_MTP_PROJ] = {"nextn.eh_proj.weight", IN_NEXTN},
    [ROLE_MTP_EMBED] = {"nextn.embed_tokens.weight", IN_NEXTN},
    [ROLE_MTP_HEAD] = {"nextn.shared_head_head.weight", IN_NEXTN},
    [ROLE_MTP_NORM] = {"nextn.shared_head_norm.weight", IN_NEXTN},
};

/* "blk.LAYER.NAME", cut where it does not fit. */
static void layer_name(uint32_t layer, const char *name, char *out, size_t size)
{
    char text[16];
    size_t n = 0, at = 0;
    for (uint32_t v = layer; n == 0 || v > 0; v /= 10)
        text[n++] = (char)('0' + v % 10);
    for (const char *p = "blk."; *p && at + 1 < size; p++)
        out[at++] = *p;
    while (n > 0 && at + 1 < size)
        out[at++] = text[--n];
    if (at + 1 < size)
        out[at++] = '.';
    for (; *name && at + 1 < size; name++)
        out[at++] = *name;
    if (size > 0)
        out[at] = '\0';
}

static void copy_name(const char *name, char *out, size_t size)
{
    size_t n = strlen(name);
    if (size == 0)
        return;
    n = n < size ? n : size - 1;
    memcpy(out, name, n);
    out[n] = '\0';
}

void gguf_role_name(
    const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size)
{
    (void)expert; /* all experts of a layer are one tensor */
    if (role_names[role].place == PLAIN)
        copy_name(role_names[role].name, name, size);
    else
        layer_name(role_names[role].place == IN_NEXTN ? c->hp.n_layer : layer,
            role_names[role].name, name, size);
}

/* ---- views ----------------------------------------------------------------------------------- */

/* Where a role's rows (of a bias: elements) lie in a tensor that holds more than them. */
struct slice {
    uint64_t first, count, total; /* total 0: the tensor holds just these rows */
};

static bool is_bias(enum role role)
{
    return role == ROLE_Q_BIAS || role == ROLE_K_BIAS || role == ROLE_V_BIAS;
}

static bool is_expert(enum role role)
{
    return role == ROLE_EXP_GATE || role == ROLE_EXP_UP || role == ROLE_EXP_DOWN;
}

/* q, k and v may lie in one tensor: rows of q, then of k, then of v. */
static const struct io_tensor *find_fused(
    const struct ckpt *c, enum role role, uint32_t layer, struct slice *slice)
{
    char name[IO_NAME_MAX];
    uint64_t q = (uint64_t)c->hp.n_head * c->hp.d_head,
             kv = (uint64_t)c->hp.n_head_kv * c->hp.d_head;
    bool bias = is_bias(role);
    if (!bias && role != ROLE_Q && role != ROLE_K && role != ROLE_V)
        return NULL;
    layer_name(layer, bias ? "attn_qkv.bias" : "attn_qkv.weight", name, sizeof name);
    const struct io_tensor *t = io_find(c, name);
    if (t == NULL)
        return NULL;
    if (role == ROLE_Q || role == ROLE_Q_BIAS)
        *slice = (struct slice){0, q, q + 2 * kv};
    else if (role == ROLE_K || role == ROLE_K_BIAS)
        *slice = (struct slice){q, kv, q + 2 * kv};
    else
        *slice = (struct slice){q + kv, kv, q + 2 * kv};
    return t;
}

static const struct io_tensor *find(
    const struct ckpt *c, enum role role, uint32_t layer, struct slice *slice)
{
    char name[IO_NAME_MAX];
    *slice = (struct slice){0, 0, 0};
    gguf_role_name(c, role, layer, 0, name, sizeof name);
    const struct io_tensor *t = io_find(c, name);
    if (t == NULL && role == ROLE_HEAD) /* tied to the embedding */
        t = io_find(c, role_names[ROLE_EMBED].name);
    return t ? t : find_fused(c, role, layer, slice);
}

/* NVFP4 conversions put a factor beside a matrix as another tensor; without it the numbers would be
 * wrong. */
static bool has_scale(const struct ckpt *c, const struct io_tensor *t)
{
    char name[IO_NAME_MAX + 8];
    size_t n = strlen(t->name);
    if (n < 7 || strcmp(t->name + n - 7, ".weight") != 0)
        return false;
    memcpy(name, t->name, n - 6);
    memcpy(name + n - 6, "scale", 6);
    return io_find(c, name) != NULL;
}

static const char *place_of(const struct ckpt *c, const struct io_tensor *t, char place[GGUF_PLACE])
{
    return gguf_place(c->files[t->file].name, t->name, strlen(t->name), place);
}

static int32_t check_shape(const struct ckpt *c, const struct io_tensor *t, uint64_t n_slab,
    uint64_t n_row, uint64_t n_in, glm_error *err)
{
    char place[GGUF_PLACE];
    uint64_t dim[3] = {1, 1, 1}; /* slabs, rows, inputs; a vector is one row */
    if (t->n_dim <= 3)
        for (uint32_t i = 0; i < t->n_dim; i++)
            dim[3 - t->n_dim + i] = t->dim[i];
    if (t->n_dim <= 3 && dim[0] == n_slab && dim[1] == n_row && dim[2] == n_in)
        return GLM_OK;
    return err_set(err, GLM_EFORMAT, io_file_offset(c, t), place_of(c, t, place),
        "shape [%llu, %llu, %llu] (slabs, rows, inputs) found, [%llu, %llu, %llu] expected from "
        "the file's keys",
        (unsigned long long)dim[0], (unsigned long long)dim[1], (unsigned long long)dim[2],
        (unsigned long long)n_slab, (unsigned long long)n_row, (unsigned long long)n_in);
}

static int32_t check_type(const struct ckpt *c, const struct io_tensor *t, glm_error *err)
{
    char place[GGUF_PLACE];
    if (type_format(t->type) == W_NONE)
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), place_of(c, t, place),
            "type %s (%u) is not supported: use a file of F16, BF16, Q8_0, Q4_0 to Q6_K, IQ4 or "
            "MXFP4 tensors",
            gguf_type_name(t->type), t->type);
    if (has_scale(c, t))
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), place_of(c, t, place),
            "a scale tensor beside a matrix is not supported: use another file of this model");
    return GLM_OK;
}

static int32_t missing(const struct ckpt *c, enum role role, uint32_t layer, glm_error *err)
{
    char name[IO_NAME_MAX], place[GGUF_PLACE];
    gguf_role_name(c, role, layer, 0, name, sizeof name);
    return err_set(err, GLM_EFORMAT, 0, gguf_place(c->path, name, strlen(name), place),
        "the file lacks this tensor: it is incomplete, fetch or convert it again");
}

/* The part of a fused tensor must be what the caller asks for, and begin and end at whole blocks.
 */
static int32_t check_slice(const struct ckpt *c, const struct io_tensor *t,
    const struct slice *slice, uint64_t wanted, uint32_t block, glm_error *err)
{
    char place[GGUF_PLACE];
    if (slice->count != wanted || slice->first % block != 0 || slice->count % block != 0)
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), place_of(c, t, place),
            "q, k and v cannot be told apart in this tensor of type %s", gguf_type_name(t->type));
    return GLM_OK;
}

int32_t gguf_weight(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out,
    uint32_t n_in, bool optional, struct weight *out, glm_error *err)
{
    struct slice slice;
    const void *data = NULL;
    const struct io_tensor *t = find(c, role, layer, &slice);
    *out = (struct weight){.format = W_NONE};
    if (t == NULL)
        return optional ? GLM_OK : missing(c, role, layer, err);

    bool fused_bias = is_bias(role) && slice.total != 0;
    uint64_t n_slab = is_expert(role) ? c->hp.n_expert : 1;
    uint64_t n_row = slice.total && !fused_bias ? slice.total : n_out;
    int32_t status = check_type(c, t, err);
    status =
        status ? status : check_shape(c, t, n_slab, n_row, fused_bias ? slice.total : n_in, err);
    if (status)
        return status;
    if (is_expert(role) && expert >= n_slab)
        return err_set(err, GLM_EINVAL, expert, t->name, "expert %u of %u", expert, c->hp.n_expert);

    /* The whole tensor was checked to lie in the file, so nothing below can overflow or leave it.
     */
    struct weight_block block = gguf_type_block(t->type);
    uint64_t row_bytes = n_in / block.n * block.bytes, skip = slice.first * row_bytes;
    if (slice.total != 0)
        status =
            check_slice(c, t, &slice, fused_bias ? n_in : n_out, fused_bias ? block.n : 1, err);
    if (fused_bias)
        skip = slice.first / block.n * block.bytes;
    else if (is_expert(role))
        skip = (uint64_t)expert * n_out * row_bytes;
    status = status ? status : io_part(c, t, skip, n_out * row_bytes, PLACE_DATA, &data, err);
    if (status)
        return status;
    *out = (struct weight){.format = type_format(t->type),
        .n_out = n_out,
        .n_in = n_in,
        .data = data,
        .row_bytes = row_bytes};
    return GLM_OK;
}
