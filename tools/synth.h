/* synth.h: what the parts of `glm45 synth` share. synth.c reads the arguments and decides the
 * shape; synth_plan.c lists the tensors of a checkpoint and their types; synth_fill.c makes random
 * bytes of a type; synth_gguf.c and synth_hf.c write files; synth_vocab.c turns a tokenizer.json
 * into a GGUF vocabulary; synth_out.c is files that appear only whole.
 */
#ifndef GLM_TOOLS_SYNTH_H
#define GLM_TOOLS_SYNTH_H

#include "../lib/io/io.h"

#define SYNTH_SHAPE                                                                                \
    W_FORMAT_COUNT /* a weight_shape tensor of two I64: dim of the matrix that it belongs to */

/* What a checkpoint is to be. */
struct synth {
    struct hparams hp;
    int32_t eos[8];
    uint32_t n_eos;
    bool mtp_own_head; /* the MTP layer has its own embedding and head */
    uint64_t seed;
    float skew;       /* of the routing: experts are chosen in proportion to rank^-skew; 0: random biases */
    uint32_t n_split; /* files to write; 1: no splits */
    const char *type; /* as the user gave it */
    const char *out;
    const char *tokenizer;     /* path of a tokenizer.json, or NULL */
    const char *chat_template; /* path of its text, or NULL */
    bool gguf, quiet, force;
};

struct synth_tensor {
    char *name;
    uint32_t format; /* enum weight_format, or SYNTH_SHAPE */
    uint32_t n_dim;
    uint64_t dim[3]; /* outermost first */
    float mean, std; /* of the decoded numbers */
    bool flip;       /* random signs: scales of formats whose zero is not in the middle */
    float skew;      /* router biases, if not 0 */
    uint32_t n_used; /* experts of a token */
    uint32_t file;
    uint64_t bytes, offset; /* in its file's data */
};

struct synth_plan {
    struct arena arena;
    struct synth_tensor *tensors;
    size_t n, capacity;
    bool failed;
    struct synth_tensor nowhere; /* takes what a failed plan adds */
};

/* synth_plan.c */
bool synth_type_known(const char *type, bool gguf);
const char *synth_types(bool gguf); /* a list for messages */
int32_t synth_plan_make(
    const struct synth *s, struct mem *m, struct synth_plan *plan, glm_error *err);
void synth_plan_free(struct synth_plan *plan);
void synth_plan_split(
    const struct synth *s, struct synth_plan *plan, uint64_t align); /* files and offsets */

/* synth_fill.c */
uint64_t synth_key(uint64_t seed, const char *name);
/* Bytes [first, first + count) in units: blocks, or 8 elements of a plain format (the last may be
 * shorter). */
struct synth_unit {
    uint64_t n_unit;
    uint32_t bytes; /* of a unit */
};
struct synth_unit synth_units(const struct synth_tensor *t);
size_t synth_fill(
    const struct synth_tensor *t, uint64_t key, uint64_t first, uint64_t count, uint8_t *to);
#define SYNTH_LOGIT_STD 1.5f /* of the router's logits for a normalized row */

/* synth_out.c */
struct synth_out {
    const struct synth *s;
    uint64_t total, done, started, drawn; /* bytes, bytes, ns, ns */
    bool tty;
    uint8_t *chunk;
};
struct synth_file {
    int fd;
    char *path, *temp;
    uint64_t size;
};
int32_t synth_file_open(struct synth_file *f, const char *path, glm_error *err);
int32_t synth_file_write(struct synth_file *f, const void *bytes, size_t size, glm_error *err);
int32_t synth_file_pad(
    struct synth_file *f, uint64_t align, glm_error *err); /* to a multiple of align */
int32_t synth_file_tensor(
    struct synth_file *f, struct synth_out *o, const struct synth_tensor *t, glm_error *err);
int32_t synth_file_finish(struct synth_file *f, glm_error *err); /* under its name from here on */
void synth_file_drop(struct synth_file *f);                      /* what is unfinished is removed */
int32_t synth_room(const char *path, uint64_t bytes, glm_error *err);
void synth_progress(struct synth_out *o, bool last);

/* synth_vocab.c: the tokenizer part of a GGUF's keys, as views and copies in the arena. */
struct synth_vocab {
    struct json_doc doc;
    struct vocab_text *tokens, *merges;
    int32_t *types;
    size_t n_token, n_merge;
    char *template_text;
    size_t template_size;
};
int32_t synth_vocab_make(
    struct synth *s, struct mem *m, struct arena *arena, struct synth_vocab *v, glm_error *err);
void synth_vocab_free(struct mem *m, struct synth_vocab *v);

int32_t synth_write_gguf(
    struct synth *s, struct mem *m, struct synth_plan *plan, struct synth_out *o, glm_error *err);
int32_t synth_write_hf(
    struct synth *s, struct mem *m, struct synth_plan *plan, struct synth_out *o, glm_error *err);

#endif
