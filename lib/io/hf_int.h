/* hf_int.h: what the parts that read a Hugging Face folder share. hf.c opens the folder,
 * hf_config.c reads its JSON files, hf_index.c its weight map, safetensors.c the weight files,
 * hf_weights.c and hf_int4.c give views of tensors.
 */
#ifndef GLM_IO_HF_INT_H
#define GLM_IO_HF_INT_H

#include "ckpt_int.h"

#define HF_TENSOR_MAX (1u << 19) /* GLM-4.5 in int4 has 220,000 */

/* ---- safetensors.c ------------------------------------------------------------------------- */

enum st_type {
    ST_BOOL,
    ST_U8,
    ST_I8,
    ST_F8_E5M2,
    ST_F8_E4M3,
    ST_F8_E8M0,
    ST_F8_E4M3FNUZ,
    ST_F8_E5M2FNUZ,
    ST_I16,
    ST_U16,
    ST_F16,
    ST_BF16,
    ST_I32,
    ST_U32,
    ST_F32,
    ST_C64,
    ST_F64,
    ST_I64,
    ST_U64,
    ST_F4,
    ST_F6_E2M3,
    ST_F6_E3M2,
    ST_UNKNOWN /* kept in the table, refused when used */
};

const char *st_type_name(uint32_t type);

/* Which tensors of a file go into the table, and under whose copy of their name. */
struct st_filter {
    void *user;
    /* The name as it is kept in the arena; NULL: leave the tensor out, or *rc says why not. */
    const char *(*keep)(void *user, uint32_t file, const char *name, int32_t *rc, glm_error *err);
};

/* Opens c->files[i_file] (its name is set), checks its whole header, and appends its tensors to
 * c->tensors. Without a filter all are kept and the table is allocated here; with one it has room.
 */
int32_t st_open(struct ckpt *c, uint32_t i_file, const struct st_filter *filter, glm_error *err);

/* ---- hf_index.c ---------------------------------------------------------------------------- */

/* Opens the files that model.safetensors.index.json at `path` names; a tensor comes from the file
 * that the map says. */
int32_t hf_index_open(struct ckpt *c, const char *path, glm_error *err);

/* ---- hf_config.c --------------------------------------------------------------------------- */

/* How the folder says its weights are quantized. What each tensor is, its own name, type and shape
 * tell. */
struct hf_quant {
    uint32_t block_out, block_in; /* of FP8 block scales, 128 x 128 unless said */
    uint32_t group_size;          /* of int4; 0: not said, or one group a row */
    bool gptq_v2, awq_gemv;       /* layouts that are refused when met */
    uint32_t bits;                /* 0: not said */
};

struct hf {
    struct hf_quant quant;
    bool tied;                       /* the head is the embedding */
    uint32_t n_nextn_config;         /* as the configuration says */
    const char *prefix;              /* "model." or "model.language_model." */
    char *chat_template; /* owned */
    /* copies of g_idx, found by content: gate and up of an expert have the same one */
    struct hf_group {
        const int32_t *index;
        uint32_t n;
    } * groups;
    size_t n_group, group_capacity; /* capacity: a power of two */
};

int32_t hf_config(struct ckpt *c, struct hf *h, const char *path, glm_error *err);
int32_t hf_generation(struct ckpt *c, const char *path, glm_error *err);
/* The chat template in tokenizer_config.json; none: *text stays NULL. */
int32_t hf_tokenizer_config(
    struct ckpt *c, const char *path, char **text, size_t *size, glm_error *err);

/* ---- hf_weights.c, hf_int4.c --------------------------------------------------------------- */

extern const struct io_format hf_format;

/* A module's tensors: its name with a changing end. */
struct hf_module {
    char name[IO_NAME_MAX];
    size_t size; /* of the module's part of the name */
};

/* The tensor MODULE + suffix; NULL: none. m->name spells it until the next call. */
const struct io_tensor *hf_part(const struct ckpt *c, struct hf_module *m, const char *suffix);
bool hf_scale_format(uint32_t st_type, uint32_t *format, uint32_t *bytes);
/* GLM_EFORMAT naming the tensor, the shape that it has and the one that it should have. */
int32_t hf_bad_shape(
    const struct ckpt *c, const struct io_tensor *t, uint64_t n_out, uint64_t n_in, glm_error *err);
int32_t hf_bad_type(
    const struct ckpt *c, const struct io_tensor *t, const char *wanted, glm_error *err);
bool hf_is_shape(const struct io_tensor *t, uint64_t n_out, uint64_t n_in);

int32_t hf_packed_view(struct ckpt *c, struct hf_module *m, const struct io_tensor *packed,
    struct weight *w, glm_error *err);
int32_t hf_qweight_view(struct ckpt *c, struct hf_module *m, const struct io_tensor *qweight,
    struct weight *w, glm_error *err);

#endif
