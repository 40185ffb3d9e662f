/* io.h: checkpoints. Finds out what lies at a path (a Hugging Face folder, a GGUF file or the first of its splits, a bare
 * tokenizer.json), checks every length in it, and hands out hyper-parameters, the tokenizer's source and views of the
 * weights by their role in the model. Depends on lib/base only.
 *
 * Headers are read into memory, never parsed from a mapping; weight bytes are mapped (or read, GLM_WEIGHTS_READ) file by
 * file and never copied, so every view lives as long as its checkpoint.
 */
#ifndef GLM_IO_IO_H
#define GLM_IO_IO_H

#include "../base/base.h"
#include "../base/vocab.h"
#include "../base/weight.h"

/* The architecture's numbers, checked at open against each other and against the limits below. */
struct hparams {
    uint32_t n_layer;          /* trunk layers, without the MTP layer */
    uint32_t n_layer_dense;    /* first_k_dense_replace, <= n_layer */
    uint32_t n_nextn;          /* MTP layers present in the file: 0 or 1 */
    uint32_t d_model, n_head, n_head_kv, d_head;
    uint32_t n_rot;            /* rotated leading elements of a head, even, <= d_head */
    uint32_t d_ff;             /* dense layers */
    uint32_t d_ff_exp;         /* one expert */
    uint32_t n_expert, n_expert_used, n_expert_shared; /* shared width = d_ff_exp * n_expert_shared */
    uint32_t n_group, n_group_used;
    uint32_t n_vocab, n_ctx_train;
    double rope_theta;
    float norm_eps, routed_scale;
    bool norm_topk, qk_norm, qkv_bias;
};

#define HP_LAYER_MAX 1024u
#define HP_WIDTH_MAX (1u << 20)   /* d_model, d_ff, d_ff_exp, n_head * d_head */
#define HP_EXPERT_MAX 4096u
#define HP_VOCAB_MAX (1u << 24)
#define HP_HEAD_DIM_MAX 512u
#define HP_CTX_MAX (1u << 28)

struct generation_defaults {      /* generation_config.json; unset floats are NaN, unset top_k is -1 */
    int32_t eos[8];
    uint32_t n_eos;
    float temperature, top_p, min_p, repeat_penalty;
    int32_t top_k;
    int8_t do_sample;             /* -1: not said */
};

/* A tensor by what it does. */
enum role {
    ROLE_EMBED,        /* [n_vocab, d_model] */
    ROLE_HEAD,         /* [n_vocab, d_model] */
    ROLE_NORM,         /* [d_model], before the head */
    /* in layer l */
    ROLE_ATTN_NORM,    /* [d_model] input_layernorm */
    ROLE_Q, ROLE_K, ROLE_V, ROLE_O,            /* [n_head * d_head, d_model] .. [d_model, n_head * d_head] */
    ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS,
    ROLE_Q_NORM, ROLE_K_NORM,                  /* [d_head] */
    ROLE_FFN_NORM,     /* [d_model] post_attention_layernorm */
    ROLE_GATE, ROLE_UP, ROLE_DOWN,             /* dense FFN */
    ROLE_ROUTER,       /* [n_expert, d_model] */
    ROLE_ROUTER_BIAS,  /* [n_expert] e_score_correction_bias */
    ROLE_EXP_GATE, ROLE_EXP_UP, ROLE_EXP_DOWN, /* expert e */
    ROLE_SHARED_GATE, ROLE_SHARED_UP, ROLE_SHARED_DOWN,
    /* in the MTP layer, l = n_layer */
    ROLE_MTP_ENORM, ROLE_MTP_HNORM,            /* [d_model] */
    ROLE_MTP_PROJ,     /* [d_model, 2 * d_model] eh_proj: embedding half first */
    ROLE_MTP_EMBED, ROLE_MTP_HEAD,             /* optional: the trunk's are used where absent */
    ROLE_MTP_NORM,     /* [d_model] shared_head.norm */
    ROLE_COUNT
};

struct ckpt;

struct ckpt_options {
    uint32_t weights;               /* GLM_WEIGHTS_* ; NONE: config and tokenizer only, and either may be missing */
    bool by_tensor;                 /* tensors are mapped (or read) one by one when they are first asked for, not whole files:
                                       what is only asked for by ckpt_places takes neither memory nor address space */
    const struct fs *fs;
    const glm_logger *log;          /* may be NULL */
    void *progress_user;            /* only GLM_WEIGHTS_READ has long work to report */
    int32_t (GLM_CALL *progress)(void *user, uint64_t done, uint64_t total);
};

int32_t ckpt_open(struct mem *m, const char *path, const struct ckpt_options *opt, struct ckpt **out, glm_error *err);
void ckpt_close(struct ckpt *c);

const struct hparams *ckpt_hparams(const struct ckpt *c);  /* NULL: a tokenizer only */
const struct generation_defaults *ckpt_generation(const struct ckpt *c);
struct vocab_source ckpt_vocab(const struct ckpt *c);      /* kind VOCAB_NONE: none */
/* Frees a tokenizer.json's text (20 MB for the family's): views from ckpt_vocab and the fingerprint are no longer to be had. */
void ckpt_drop_vocab(struct ckpt *c);
const char *ckpt_template(const struct ckpt *c, size_t *size); /* chat template text, or NULL */
const char *ckpt_path(const struct ckpt *c);
const char *ckpt_kind(const struct ckpt *c);               /* "hf", "gguf" or "tokenizer" */
void ckpt_fingerprint(const struct ckpt *c, uint8_t digest[32]); /* of hyper-parameters, tensor table and tokenizer */
uint64_t ckpt_weight_bytes(const struct ckpt *c);          /* of the files' tensor data */

/* The matrix of a role, its shape checked against n_out and n_in. layer and expert are ignored where the role has none.
 * Missing: GLM_EFORMAT naming the tensor that was looked for; with `optional`, GLM_OK and out->format W_NONE.
 * A type that is not supported: GLM_ENOTSUP naming tensor and type. Works for vectors too (n_out 1, n_in the length). */
int32_t ckpt_weight(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out, uint32_t n_in,
    bool optional, struct weight *out, glm_error *err);
/* Where bytes lie in the checkpoint's files. */
struct place {
    uint32_t file;
    uint64_t offset, bytes; /* 0 bytes: there are none */
};
enum { PLACE_DATA, PLACE_SCALE, PLACE_ZERO, PLACE_COUNT }; /* the pointers of a struct weight */
/* As ckpt_weight, but no byte is touched: out's data, scale and zero are NULL and place[PLACE_COUNT] says what they would
 * point to. */
int32_t ckpt_places(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out, uint32_t n_in,
    bool optional, struct weight *out, struct place *place, glm_error *err);
uint32_t ckpt_n_file(const struct ckpt *c);
const struct file *ckpt_file(const struct ckpt *c, uint32_t i, const char **name); /* open with by_tensor only */
/* Asks the system to bring in the i-th tensor that has been mapped by itself, token embeddings aside; false: there are no
 * more. Any thread. */
bool ckpt_will_need(const struct ckpt *c, uint32_t i);
/* The same by tensor name pieces for messages: "model.layers.3.mlp.experts.7.up_proj.weight" as the file spells it. */
void ckpt_role_name(const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size);

/* Every tensor, for `inspect`. */
struct tensor_entry {
    const char *name;
    const char *type;      /* the file's own word: "BF16", "Q4_K" */
    const char *file;
    uint32_t n_dim;
    uint64_t dim[8];       /* outermost first, whatever the file's order */
    uint64_t offset, bytes; /* in its file */
};
size_t ckpt_n_tensor(const struct ckpt *c);
void ckpt_tensor(const struct ckpt *c, size_t i, struct tensor_entry *out);

#endif
