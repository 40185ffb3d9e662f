/* gguf_int.h: what the three GGUF files share. gguf_meta.c reads one file's header, keys and tensor
 * table from memory (never from a mapping); gguf.c joins the splits and fills the checkpoint;
 * gguf_weights.c knows tensor types and names. Format: https://github.com/ggml-org/ggml,
 * docs/gguf.md, version 3, little endian.
 */
#ifndef GLM_IO_GGUF_INT_H
#define GLM_IO_GGUF_INT_H

#include "ckpt_int.h"

/* Real files have about 50 keys and 1,800 tensors; a file with more than this was not made for us.
 */
#define GGUF_KV_MAX 4096u
#define GGUF_TENSOR_MAX 65536u
#define GGUF_KEY_MAX 65535u
#define GGUF_ALIGN_MAX (1u << 20)

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct gguf_kv {
    uint64_t key; /* offset of the key's bytes */
    uint32_t key_size, hash;
    uint32_t type, element; /* element: of an array */
    uint64_t value; /* offset of the value, of a string's bytes or of an array's first element */
    uint64_t count; /* bytes of a string, elements of an array */
};

/* One file's metadata: its first `loaded` bytes. Offsets are the file's. Zeroed or half-read:
 * gguf_meta_free is fine. */
struct gguf_meta {
    struct mem *mem;
    const struct file *file;
    const char *name; /* the file's, for messages */
    uint8_t *data;
    uint64_t loaded, pos;
    uint64_t n_tensor, alignment;
    uint64_t infos; /* offset of the tensor table */
    struct gguf_kv *kv;
    uint32_t n_kv;
};

#define GGUF_PLACE 640u

/* "FILE: WHAT", or "FILE" where what is NULL; what need not be NUL-terminated. */
const char *gguf_place(const char *file, const char *what, size_t size, char place[GGUF_PLACE]);

int32_t gguf_meta_read(
    struct gguf_meta *g, struct mem *m, const struct file *file, const char *name, glm_error *err);
void gguf_meta_free(struct gguf_meta *g);
/* Reads the tensor table into out[n_tensor], names in the arena; *data_offset is where tensor data
 * begins. */
int32_t gguf_meta_tensors(struct gguf_meta *g, struct arena *arena, uint32_t i_file,
    struct io_tensor *out, uint64_t *data_offset, glm_error *err);

const struct gguf_kv *gguf_find(const struct gguf_meta *g, const char *key); /* NULL: none */
/* Getters leave *out alone where the key is missing, which is an error if `required`. A wrong type
 * is an error. Any integer type will do where the value fits. */
int32_t gguf_u32(
    const struct gguf_meta *g, const char *key, bool required, uint32_t *out, glm_error *err);
int32_t gguf_f64(
    const struct gguf_meta *g, const char *key, bool required, double *out, glm_error *err);
int32_t gguf_bool(
    const struct gguf_meta *g, const char *key, bool required, bool *out, glm_error *err);
/* The bytes are the metadata's own, not NUL-terminated. */
int32_t gguf_string(const struct gguf_meta *g, const char *key, bool required, const char **text,
    size_t *size, glm_error *err);
/* NULL in *out: missing. */
int32_t gguf_array(const struct gguf_meta *g, const char *key, uint32_t element,
    const struct gguf_kv **out, glm_error *err);
/* The string at *pos, which moves behind it; the array was checked when the metadata was read. */
void gguf_next_string(const struct gguf_meta *g, uint64_t *pos, const char **text, size_t *size);

/* gguf_weights.c */
struct weight_block gguf_type_block(uint32_t type); /* {0, 0}: not known, so bytes are not either */
const char *gguf_type_name(uint32_t type);
int32_t gguf_weight(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out,
    uint32_t n_in, bool optional, struct weight *out, glm_error *err);
void gguf_role_name(
    const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size);

#endif
