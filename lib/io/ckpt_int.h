/* ckpt_int.h: what the parts of lib/io share behind io.h. ckpt.c owns the object, its files and its tensor table; hf_*.c
 * and gguf_*.c fill it and answer which tensor has a role. */
#ifndef GLM_IO_CKPT_INT_H
#define GLM_IO_CKPT_INT_H

#include "io.h"

#define IO_NAME_MAX 512u               /* a tensor's name, with its NUL */
#define IO_METADATA_MAX (1ull << 30)   /* a GGUF's or index's metadata; safetensors headers end at 100 MB by their spec */

struct io_file {
    struct file file;
    const char *name;          /* in the arena */
    uint64_t data_offset;      /* where tensor data begins */
    const uint8_t *data;       /* the mapping or the read copy of [data_offset, data_offset + data_size); NULL until io_data */
    uint64_t data_size;
    const void *map;           /* what fs_map gave, to be unmapped; NULL for a copy */
    uint64_t map_size;
    void *copy;                /* owned, GLM_WEIGHTS_READ or files without map */
};

struct io_tensor {
    const char *name;          /* in the arena */
    uint32_t file;             /* index into files */
    uint32_t type;             /* enum safetensors dtype or ggml type, the format's own numbering */
    uint32_t n_dim;
    uint64_t dim[8];           /* outermost first */
    uint64_t offset, bytes;    /* from the file's data_offset; checked against data_size */
    struct io_piece *piece;    /* NULL until io_data with by_tensor */
};

/* A tensor's bytes by themselves. */
struct io_piece {
    struct io_piece *next;
    const struct io_file *file;
    const uint8_t *data;
    const void *map;           /* to be unmapped; NULL for a copy */
    void *copy;                /* owned */
    uint64_t size;
    bool soon;                 /* asked for by a role that every pass reads whole */
};

struct ckpt;
struct io_format {
    const char *kind;                                                 /* "hf", "gguf", "tokenizer" */
    const char *(*type_name)(uint32_t type);
    int32_t (*weight)(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out, uint32_t n_in,
        bool optional, struct weight *out, glm_error *err);
    void (*role_name)(const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size);
    void (*close)(struct ckpt *c);                                     /* frees c->state; may be NULL */
};

struct ckpt {
    struct mem *mem;
    struct ckpt_options opt;
    struct arena arena;        /* names, tables, metadata text */
    const char *path;
    const struct io_format *format;
    void *state;               /* the format's own */
    bool has_hparams;
    struct hparams hp;
    struct generation_defaults gen;
    struct vocab_source vocab;
    char *vocab_text;          /* owned: the text that vocab is a view of, where it is a JSON file's */
    const char *template_text;
    size_t template_size;
    struct io_file *files;     /* this array, the next and the index lie in the arena */
    uint32_t n_file;
    struct io_tensor *tensors;
    size_t n_tensor;
    struct io_piece *pieces;   /* in the arena */
    uint64_t piece_bytes;      /* that were read */
    enum role asked;           /* by ckpt_weight */
    struct place *places;      /* [PLACE_COUNT] while ckpt_places asks, else NULL */
    uint32_t *index;           /* open-addressing hash of names, built by io_index: tensor + 1, 0 where free */
    size_t index_size;         /* a power of two */
    uint64_t seed;             /* of the hash: a file cannot choose names that collide */
};

/* ckpt.c */
uint64_t io_hash(uint64_t seed, const char *name, size_t size);
const char *io_tail(const char *name); /* its last bytes: a message has room for no more */
int32_t io_index(struct ckpt *c, glm_error *err);                       /* after tensors are filled; a doubled name: GLM_EFORMAT */
const struct io_tensor *io_find(const struct ckpt *c, const char *name); /* NULL: none */
/* The bytes of a tensor: maps or reads its file at first use, from one thread (during open). */
int32_t io_data(struct ckpt *c, const struct io_tensor *t, const uint8_t **data, glm_error *err);
/* The bytes [skip, skip + bytes) of a tensor as one of a matrix's pointers; for ckpt_places only where they lie, and NULL. */
int32_t io_part(struct ckpt *c, const struct io_tensor *t, uint64_t skip, uint64_t bytes, int kind, const void **at,
    glm_error *err);
/* A copy of a small tensor's first bytes: maps nothing that is not mapped yet. */
int32_t io_copy(struct ckpt *c, const struct io_tensor *t, void *to, uint64_t bytes, glm_error *err);
int32_t io_check_hparams(const struct hparams *hp, const char *where, glm_error *err); /* limits and cross-field rules */
bool io_is_file(struct ckpt *c, const char *dir, const char *name, char *path, size_t size); /* dir/name exists; path filled */
void io_generation_unset(struct generation_defaults *g);
/* Offset of a tensor in its file, for messages. */
uint64_t io_file_offset(const struct ckpt *c, const struct io_tensor *t);

/* hf.c: c->path is a folder with config.json. gguf.c: c->path is a file that begins with "GGUF". */
int32_t hf_open(struct ckpt *c, glm_error *err);
int32_t gguf_open(struct ckpt *c, glm_error *err);

#endif
