/* checkasm.h: compares each fast kernel with the reference, bit for bit, on random shapes and
 * hostile values. Memory for a case is taken from pages between inaccessible ones, so that a read
 * past the end of weights or rows is a fault.
 */
#ifndef GLM_CHECKASM_H
#define GLM_CHECKASM_H

#include "../../kernels/kernels.h"

#define MAX_BLOCKS 64

struct check {
    struct kernels ref, fast,
        prior; /* prior: the level below, whose functions were checked already */
    const char *level;               /* for messages */
    const char *name;                /* of the kernel under check */
    uint64_t random;
    uint32_t n_case, n_fail;
    struct {
        void *at;
        size_t size;
    } block[MAX_BLOCKS];             /* memory of the current case */
    uint32_t n_block;
};

/* ---- random and memory (main.c) -------------------------------------------------------------- */

uint64_t rand_u64(struct check *c);
uint32_t rand_below(struct check *c, uint32_t n);
uint32_t rand_in(struct check *c, uint32_t low, uint32_t high); /* both included */
float rand_float(struct check *c);                             /* about normal, deviation 1 */
void rand_bytes(struct check *c, void *to, size_t size);
/* Activations: mostly ordinary; at times zeros, huge, subnormal or not finite. */
void rand_rows(struct check *c, float *x, uint32_t n);

/* Inaccessible pages around; it ends at the last byte before one or begins right behind one, as
 * `align` allows. */
void *case_alloc(struct check *c, size_t size, size_t align);
void case_free(struct check *c); /* all memory of the case */

/* Scratch with guard bytes on both sides. */
void *scratch_alloc(struct check *c, size_t size);
bool scratch_intact(const void *scratch, size_t size);

/* Counts a case, prints a message on failure. a is the reference's; NaNs are equal to each other.
 */
bool same_floats(struct check *c, const float *a, const float *b, size_t n, const char *what);
bool same_bytes(struct check *c, const void *a, const void *b, size_t n, const char *what);
void fail(struct check *c, const char *what);

/* ---- weights (weights.c) --------------------------------------------------------------------- */

extern const char *const format_name[W_FORMAT_COUNT];
uint32_t rand_n_in(
    struct check *c, uint32_t format, uint32_t limit); /* a size that the format can have */
/* Valid random weights; hostile: extreme scales and quants among them. n_out may grow to what the
 * format needs. */
void rand_weight(struct check *c, uint32_t format, uint32_t n_out, uint32_t n_in, bool hostile,
    struct weight *w);
uint64_t weight_bytes(const struct weight *w); /* that one pass over it reads */

/* ---- checks (check_*.c) ---------------------------------------------------------------------- */

void check_decode_row(struct check *c);
void check_matmul_f32(struct check *c);
void check_swiglu_f32(struct check *c);
void check_matmul_q8(struct check *c);
void check_swiglu_q8(struct check *c);
void check_quantize_q8(struct check *c);
void check_matmul_bf16(struct check *c);
void check_swiglu_bf16(struct check *c);
void check_round_bf16(struct check *c);
void check_rms_norm(struct check *c);
void check_rope(struct check *c);
void check_dot(struct check *c);
void check_add(struct check *c);
void check_axpy(struct check *c);
void check_kv_store(struct check *c);
void check_attention(struct check *c);
void check_attention_merge(struct check *c);

void bench_decode_row(struct check *c);
void bench_matmul_f32(struct check *c);
void bench_swiglu_f32(struct check *c);
void bench_matmul_q8(struct check *c);
void bench_swiglu_q8(struct check *c);
void bench_quantize_q8(struct check *c);
void bench_matmul_bf16(struct check *c);
void bench_swiglu_bf16(struct check *c);
void bench_round_bf16(struct check *c);
void bench_vectors(struct check *c);
void bench_attention(struct check *c);

/* Prints one line: work (GOP or GB) a second of the fast function, and its speed over the
 * reference. Runs them in turns and takes medians. */
struct bench {
    const char *what;
    double gop, gb; /* of one run; 0: not shown */
    void (*run)(const struct kernels *k, void *arg);
    void *arg;
};
void bench_print(struct check *c, const struct bench *b);

#endif
