/* synth_plan.c: which tensors a checkpoint of the family has, under which names, of which type, and
 * how their random numbers are spread. One table of roles serves both file formats. The GGUF mixes
 * follow llama.cpp's quantizer (src/llama-quant.cpp), so that files have the types that users meet.
 */
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- what a checkpoint consists of ----------------------------------------------------------- */

enum dim { NONE, MODEL, TWO_MODEL, QUERY, KEY, HEAD, FF, EXPERT_FF, SHARED_FF, EXPERTS, VOCAB };
enum part { TOP, ATTENTION, QK_NORM, DENSE, MOE, MTP, MTP_OWN };
enum kind { NORM, MATRIX, BIAS, ROUTER, ROUTER_BIAS, EMBED, OUTPUT };

struct row {
    uint8_t part, kind, out, in; /* out NONE: a vector */
    bool per_expert;
    const char *gguf, *hf;
};

static const struct row rows[] = {
    {TOP, EMBED, VOCAB, MODEL, false, "token_embd.weight", "model.embed_tokens.weight"},
    {ATTENTION, NORM, NONE, MODEL, false, "attn_norm.weight", "input_layernorm.weight"},
    {ATTENTION, MATRIX, QUERY, MODEL, false, "attn_q.weight", "self_attn.q_proj.weight"},
    {ATTENTION, BIAS, NONE, QUERY, false, "attn_q.bias", "self_attn.q_proj.bias"},
    {ATTENTION, MATRIX, KEY, MODEL, false, "attn_k.weight", "self_attn.k_proj.weight"},
    {ATTENTION, BIAS, NONE, KEY, false, "attn_k.bias", "self_attn.k_proj.bias"},
    {ATTENTION, MATRIX, KEY, MODEL, false, "attn_v.weight", "self_attn.v_proj.weight"},
    {ATTENTION, BIAS, NONE, KEY, false, "attn_v.bias", "self_attn.v_proj.bias"},
    {ATTENTION, MATRIX, MODEL, QUERY, false, "attn_output.weight", "self_attn.o_proj.weight"},
    {QK_NORM, NORM, NONE, HEAD, false, "attn_q_norm.weight", "self_attn.q_norm.weight"},
    {QK_NORM, NORM, NONE, HEAD, false, "attn_k_norm.weight", "self_attn.k_norm.weight"},
    {ATTENTION, NORM, NONE, MODEL, false, "post_attention_norm.weight",
        "post_attention_layernorm.weight"},
    {DENSE, MATRIX, FF, MODEL, false, "ffn_gate.weight", "mlp.gate_proj.weight"},
    {DENSE, MATRIX, FF, MODEL, false, "ffn_up.weight", "mlp.up_proj.weight"},
    {DENSE, MATRIX, MODEL, FF, false, "ffn_down.weight", "mlp.down_proj.weight"},
    {MOE, ROUTER, EXPERTS, MODEL, false, "ffn_gate_inp.weight", "mlp.gate.weight"},
    {MOE, ROUTER_BIAS, NONE, EXPERTS, false, "exp_probs_b.bias",
        "mlp.gate.e_score_correction_bias"},
    {MOE, MATRIX, EXPERT_FF, MODEL, true, "ffn_gate_exps.weight", "gate_proj.weight"},
    {MOE, MATRIX, EXPERT_FF, MODEL, true, "ffn_up_exps.weight", "up_proj.weight"},
    {MOE, MATRIX, MODEL, EXPERT_FF, true, "ffn_down_exps.weight", "down_proj.weight"},
    {MOE, MATRIX, SHARED_FF, MODEL, false, "ffn_gate_shexp.weight",
        "mlp.shared_experts.gate_proj.weight"},
    {MOE, MATRIX, SHARED_FF, MODEL, false, "ffn_up_shexp.weight",
        "mlp.shared_experts.up_proj.weight"},
    {MOE, MATRIX, MODEL, SHARED_FF, false, "ffn_down_shexp.weight",
        "mlp.shared_experts.down_proj.weight"},
    {MTP, NORM, NONE, MODEL, false, "nextn.enorm.weight", "enorm.weight"},
    {MTP, NORM, NONE, MODEL, false, "nextn.hnorm.weight", "hnorm.weight"},
    {MTP, MATRIX, MODEL, TWO_MODEL, false, "nextn.eh_proj.weight", "eh_proj.weight"},
    {MTP, NORM, NONE, MODEL, false, "nextn.shared_head_norm.weight", "shared_head.norm.weight"},
    {MTP_OWN, EMBED, VOCAB, MODEL, false, "nextn.embed_tokens.weight", "embed_tokens.weight"},
    {MTP_OWN, OUTPUT, VOCAB, MODEL, false, "nextn.shared_head_head.weight",
        "shared_head.head.weight"},
    {TOP, NORM, NONE, MODEL, false, "output_norm.weight", "model.norm.weight"},
    {TOP, OUTPUT, VOCAB, MODEL, false, "output.weight", "lm_head.weight"},
};

static uint64_t dim_of(const struct hparams *hp, uint8_t dim)
{
    switch (dim) {
    case MODEL: return hp->d_model;
    case TWO_MODEL: return 2ull * hp->d_model;
    case QUERY: return (uint64_t)hp->n_head * hp->d_head;
    case KEY: return (uint64_t)hp->n_head_kv * hp->d_head;
    case HEAD: return hp->d_head;
    case FF: return hp->d_ff;
    case EXPERT_FF: return hp->d_ff_exp;
    case SHARED_FF: return (uint64_t)hp->d_ff_exp * hp->n_expert_shared;
    case EXPERTS: return hp->n_expert;
    case VOCAB: return hp->n_vocab;
    default: return 1;
    }
}

static bool in_layer(const struct synth *s, const struct row *r, uint32_t layer)
{
    bool mtp = layer >= s->hp.n_layer;
    switch (r->part) {
    case ATTENTION: return r->kind != BIAS || s->hp.qkv_bias;
    case QK_NORM: return s->hp.qk_norm;
    case DENSE: return layer < s->hp.n_layer_dense;
    case MOE: return layer >= s->hp.n_layer_dense;
    case MTP: return mtp;
    case MTP_OWN: return mtp && s->mtp_own_head;
    default: return false;
    }
}

/* Spreads under which activations keep their size from layer to layer: a matrix keeps the size of a
 * normalized input, what goes back into the residual stream is of about its size. */
static void spread(const struct row *r, uint64_t n_in, float *mean, float *std)
{
    float unit = 1.0f / sqrtf((float)n_in);
    *mean = 0;
    switch (r->kind) {
    case NORM: *mean = 1, *std = 0.1f; break;
    case BIAS: *std = 0.3f; break;
    case ROUTER: *std = SYNTH_LOGIT_STD * unit; break;
    case ROUTER_BIAS: *mean = 0.4f, *std = 0.15f; break;
    case EMBED: *std = 1; break;
    case OUTPUT: *std = 3 * unit; break;
    default: *std = unit; break;
    }
}

/* ---- types of a GGUF ------------------------------------------------------------------------- */

enum rule { SAME, Q2_K_M, Q3_K_M, Q3_K_L, Q4_K_S, K_M, IQ4, MXFP4_MOE };

struct mix {
    const char *name;
    uint32_t base, embed, output;
    uint32_t rule;
};

static const struct mix mixes[] = {
    {"F32", W_F32, W_F32, W_F32, SAME},
    {"F16", W_F16, W_F16, W_F16, SAME},
    {"BF16", W_BF16, W_BF16, W_BF16, SAME},
    {"Q8_0", W_Q8_0, W_Q8_0, W_Q8_0, SAME},
    {"Q4_0", W_Q4_0, W_Q4_0, W_Q6_K, SAME},
    {"Q4_1", W_Q4_1, W_Q4_1, W_Q6_K, SAME},
    {"Q5_0", W_Q5_0, W_Q5_0, W_Q6_K, SAME},
    {"Q5_1", W_Q5_1, W_Q5_1, W_Q6_K, SAME},
    {"Q2_K", W_Q2_K, W_Q2_K, W_Q6_K, Q2_K_M},
    {"Q3_K_S", W_Q3_K, W_Q3_K, W_Q6_K, SAME},
    {"Q3_K_M", W_Q3_K, W_Q3_K, W_Q6_K, Q3_K_M},
    {"Q3_K_L", W_Q3_K, W_Q3_K, W_Q6_K, Q3_K_L},
    {"Q4_K_S", W_Q4_K, W_Q4_K, W_Q6_K, Q4_K_S},
    {"Q4_K_M", W_Q4_K, W_Q4_K, W_Q6_K, K_M},
    {"Q5_K_S", W_Q5_K, W_Q5_K, W_Q6_K, SAME},
    {"Q5_K_M", W_Q5_K, W_Q5_K, W_Q6_K, K_M},
    {"Q6_K", W_Q6_K, W_Q6_K, W_Q6_K, SAME},
    {"IQ4_NL", W_IQ4_NL, W_IQ4_NL, W_Q6_K, IQ4},
    {"IQ4_XS", W_IQ4_XS, W_IQ4_XS, W_Q6_K, IQ4},
    {"MXFP4_MOE", W_MXFP4, W_Q8_0, W_Q8_0, MXFP4_MOE},
    /* every matrix in one type, the head and embedding too */
    {"pure-Q2_K", W_Q2_K, W_Q2_K, W_Q2_K, SAME},
    {"pure-Q3_K", W_Q3_K, W_Q3_K, W_Q3_K, SAME},
    {"pure-Q4_0", W_Q4_0, W_Q4_0, W_Q4_0, SAME},
    {"pure-Q4_K", W_Q4_K, W_Q4_K, W_Q4_K, SAME},
    {"pure-Q5_K", W_Q5_K, W_Q5_K, W_Q5_K, SAME},
    {"pure-MXFP4", W_MXFP4, W_MXFP4, W_MXFP4, SAME},
};

static const struct mix *find_mix(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(mixes); i++)
        if (strcasecmp(mixes[i].name, name) == 0)
            return &mixes[i];
    return NULL;
}

static bool more_bits(uint32_t i, uint32_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static bool is(const struct row *r, const char *prefix)
{
    return strncmp(r->gguf, prefix, strlen(prefix)) == 0;
}

/* n: all layers, the MTP layer among them. */
static uint32_t mixed(
    const struct mix *m, const struct hparams *hp, const struct row *r, uint32_t i, uint32_t n)
{
    bool v = is(r, "attn_v"), down = is(r, "ffn_down"), o = is(r, "attn_output");
    bool gqa4 = hp->n_head / hp->n_head_kv >= 4;
    switch (m->rule) {
    case Q2_K_M: return v ? (gqa4 ? W_Q4_K : W_Q3_K) : down || o ? W_Q3_K : m->base;
    case Q3_K_M:
        return v      ? (i < 2 ? W_Q5_K : W_Q4_K)
               : down ? (i < n / 16 ? W_Q5_K : W_Q4_K)
               : o    ? W_Q4_K
                      : m->base;
    case Q3_K_L: return v || down || o ? W_Q5_K : m->base;
    case Q4_K_S: return (v && i < 4) || (down && i < n / 8) ? W_Q5_K : m->base;
    case K_M: return (v || down) && more_bits(i, n) ? W_Q6_K : m->base;
    case IQ4: return (v && gqa4) || (down && i < n / 8) ? W_Q5_K : m->base;
    case MXFP4_MOE: return r->per_expert ? m->base : W_Q8_0;
    default: return m->base;
    }
}

/* Rows that are no whole number of blocks get a type of smaller blocks. */
static uint32_t fitted(uint32_t format, uint64_t n_in)
{
    if (n_in % weight_block(format).n != 0)
        switch (format) {
        case W_Q2_K:
        case W_Q3_K: format = W_Q4_0; break;
        case W_Q4_K: format = W_Q5_0; break;
        case W_Q5_K: format = W_Q5_1; break;
        case W_Q6_K: format = W_Q8_0; break;
        case W_IQ4_XS: format = W_IQ4_NL; break;
        default: break;
        }
    return n_in % weight_block(format).n == 0 ? format : W_F16;
}

static uint32_t gguf_format(const struct synth *s, const struct row *r, uint32_t layer)
{
    const struct mix *m = find_mix(s->type);
    if (r->out == NONE || r->kind == ROUTER)
        return W_F32;
    uint32_t format = r->part == TOP && r->kind == EMBED ? m->embed
                      : r->part == TOP && r->kind == OUTPUT
                          ? m->output
                          : mixed(m, &s->hp, r, layer, s->hp.n_layer + s->hp.n_nextn);
    return fitted(format, dim_of(&s->hp, r->in));
}

/* ---- types of a Hugging Face folder ---------------------------------------------------------- */

static const char *const hf_types[] = {"bf16", "f16", "f32", "fp8", "fp8-block", "int4"};

bool synth_type_known(const char *type, bool gguf)
{
    for (size_t i = 0; !gguf && i < ARRAY_LEN(hf_types); i++)
        if (strcasecmp(hf_types[i], type) == 0)
            return true;
    return gguf && find_mix(type) != NULL;
}

const char *synth_types(bool gguf)
{
    return gguf ? "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M "
                  "Q5_K_S Q5_K_M Q6_K IQ4_NL "
                  "IQ4_XS MXFP4_MOE pure-Q2_K pure-Q3_K pure-Q4_0 pure-Q4_K pure-Q5_K pure-MXFP4"
                : "bf16 f16 f32 fp8 fp8-block int4";
}

/* The matrices that published FP8 and int4 checkpoints quantize. */
static bool is_linear(const struct row *r)
{
    return (r->kind == MATRIX && r->part != MTP) || (r->kind == OUTPUT && r->part == MTP_OWN);
}

/* ---- the list -------------------------------------------------------------------------------- */

static struct synth_tensor *add(struct synth_plan *p, const char *name, const char *suffix,
    uint32_t format, uint32_t n_dim, const uint64_t dim[3], float mean, float std)
{
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 1024;
        void *grown = realloc(p->tensors, capacity * sizeof *p->tensors);
        p->failed |= grown == NULL;
        if (grown != NULL)
            p->tensors = grown, p->capacity = capacity;
    }
    size_t size = strlen(name) + strlen(suffix) + 1;
    char *text = arena_alloc(&p->arena, size, 1);
    p->failed |= text == NULL;
    if (p->failed)
        return &p->nowhere;
    snprintf(text, size, "%s%s", name, suffix);
    struct synth_tensor *t = &p->tensors[p->n++];
    *t = (struct synth_tensor){.name = text,
        .format = format,
        .n_dim = n_dim,
        .dim = {dim[0], dim[1], dim[2]},
        .mean = mean,
        .std = std};
    uint64_t n = 1;
    for (uint32_t i = 0; i < n_dim; i++)
        n *= dim[i];
    struct weight_block b = weight_block(format);
    t->bytes = format == W_I4_PACKED ? n * 4 : format == SYNTH_SHAPE ? 16 : n / b.n * b.bytes;
    return t;
}

/* Root mean square of a random E4M3 byte. */
static float f8_rms(void)
{
    double sum = 0;
    for (uint32_t i = 0; i < 127; i++)
        sum += (double)f32_from_e4m3((uint8_t)i) * (double)f32_from_e4m3((uint8_t)i);
    return (float)sqrt(sum / 127);
}

/* 128 where every quantized matrix has rows of a multiple of it, else 32. */
static uint32_t group_size(const struct hparams *hp)
{
    bool fits = true;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        fits = fits && (!is_linear(&rows[i]) || dim_of(hp, rows[i].in) % 128 == 0);
    return fits ? 128 : 32;
}

static void skew(const struct synth *s, const struct row *r, struct synth_tensor *t)
{
    t->skew = r->kind == ROUTER_BIAS ? s->skew : 0;
    t->n_used = s->hp.n_expert_used;
}

static void add_hf(
    const struct synth *s, struct synth_plan *p, const struct row *r, const char *name)
{
    uint64_t n_out = dim_of(&s->hp, r->out), n_in = dim_of(&s->hp, r->in);
    const uint64_t whole[3] = {r->out == NONE ? n_in : n_out, n_in, 1};
    bool quantized = is_linear(r);
    uint32_t plain = strcasecmp(s->type, "f32") == 0   ? W_F32
                     : strcasecmp(s->type, "f16") == 0 ? W_F16
                                                       : W_BF16;
    float mean, std;
    spread(r, n_in, &mean, &std);
    if (quantized && strncasecmp(s->type, "fp8", 3) == 0) {
        bool block = s->type[3] != '\0';
        float scale = std / f8_rms();
        const uint64_t dim[3] = {
            block ? (n_out + 127) / 128 : n_out, block ? (n_in + 127) / 128 : 1, 1};
        add(p, name, "", W_F8, 2, whole, 0, std);
        add(p, name, block ? "_scale_inv" : "_scale", block ? W_F32 : W_BF16, 2, dim, scale,
            0.1f * scale);
    } else if (quantized && strcasecmp(s->type, "int4") == 0) {
        float scale = std / 4.64f;
        const uint64_t words[3] = {n_out, n_in / 8, 1},
                       groups[3] = {n_out, n_in / group_size(&s->hp), 1};
        add(p, name, "_packed", W_I4_PACKED, 2, words, 0, std);
        add(p, name, "_scale", W_BF16, 2, groups, scale, 0.1f * scale)->flip = true;
        add(p, name, "_shape", SYNTH_SHAPE, 2, whole, 0, 0);
    } else {
        skew(s, r,
            add(p, name, "", r->kind == ROUTER_BIAS ? W_F32 : plain, r->out == NONE ? 1 : 2, whole,
                mean, std));
    }
}

static void add_row(
    const struct synth *s, struct synth_plan *p, const struct row *r, uint32_t layer)
{
    char name[128];
    uint64_t n_out = dim_of(&s->hp, r->out), n_in = dim_of(&s->hp, r->in);
    if (s->gguf) {
        const uint64_t dim[3] = {r->per_expert    ? s->hp.n_expert
                                 : r->out == NONE ? n_in
                                                  : n_out,
            r->per_expert ? n_out : n_in, n_in};
        float mean, std;
        spread(r, n_in, &mean, &std);
        if (r->part == TOP)
            snprintf(name, sizeof name, "%s", r->gguf);
        else
            snprintf(name, sizeof name, "blk.%u.%s", layer, r->gguf);
        skew(s, r,
            add(p, name, "", gguf_format(s, r, layer),
                r->per_expert    ? 3
                : r->out == NONE ? 1
                                 : 2,
                dim, mean, std));
        return;
    }
    for (uint32_t e = 0; e < (r->per_expert ? s->hp.n_expert : 1); e++) {
        if (r->part == TOP)
            snprintf(name, sizeof name, "%s", r->hf);
        else if (r->per_expert)
            snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%u.%s", layer, e, r->hf);
        else
            snprintf(name, sizeof name, "model.layers.%u.%s", layer, r->hf);
        add_hf(s, p, r, name);
    }
}

int32_t synth_plan_make(
    const struct synth *s, struct mem *m, struct synth_plan *plan, glm_error *err)
{
    uint32_t n_layer = s->hp.n_layer + s->hp.n_nextn;
    *plan = (struct synth_plan){0};
    arena_init(&plan->arena, m);
    if (!s->gguf && strcasecmp(s->type, "int4") == 0)
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            if (is_linear(&rows[i]) && dim_of(&s->hp, rows[i].in) % 32 != 0)
                return err_set(err, GLM_EINVAL, 0, rows[i].hf,
                    "int4 needs rows of a multiple of 32, not %llu",
                    (unsigned long long)dim_of(&s->hp, rows[i].in));
    for (size_t i = 0; i < ARRAY_LEN(rows) && rows[i].part == TOP; i++)
        add_row(s, plan, &rows[i], 0);
    for (uint32_t layer = 0; layer < n_layer; layer++)
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            if (in_layer(s, &rows[i], layer))
                add_row(s, plan, &rows[i], layer);
    for (size_t i = 1; i < ARRAY_LEN(rows); i++)
        if (rows[i].part == TOP)
            add_row(s, plan, &rows[i], 0);
    return plan->failed ? err_nomem(err, "the list of tensors") : GLM_OK;
}

void synth_plan_free(struct synth_plan *plan)
{
    free(plan->tensors);
    arena_free(&plan->arena);
    *plan = (struct synth_plan){0};
}

void synth_plan_split(const struct synth *s, struct synth_plan *plan, uint64_t align)
{
    uint64_t total = 0, before = 0, at = 0;
    for (size_t i = 0; i < plan->n; i++)
        total += plan->tensors[i].bytes;
    for (size_t i = 0, file = 0; i < plan->n; i++) {
        struct synth_tensor *t = &plan->tensors[i];
        uint64_t wanted = total ? before * s->n_split / (total + 1) : 0; /* cut by bytes */
        if (wanted > file)
            file++, at = 0;
        at = (at + align - 1) / align * align;
        t->file = (uint32_t)file;
        t->offset = at;
        at += t->bytes;
        before += t->bytes;
    }
}
