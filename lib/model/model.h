/* model.h: the family's architecture. A `net` binds a checkpoint's weights to layers; a `pass` carries
 * rows of tokens through them, as a sequence of operations on a backend that may be interrupted after
 * any slice. Depends on base, io and backend.
 *
 * A net is immutable after net_open: any number of passes on any threads. A pass belongs to one thread
 * at a time.
 */
#ifndef GLM_MODEL_MODEL_H
#define GLM_MODEL_MODEL_H

#include "../backend/backend.h"
#include "../io/cache.h"
#include "../io/io.h"

struct net_layer {
    float *attn_norm, *ffn_norm;      /* [d_model] */
    struct weight q, k, v, o;
    float *q_bias, *k_bias, *v_bias;  /* NULL: none */
    float *q_norm, *k_norm;           /* [d_head], NULL: none */
    bool moe;
    struct ffn dense;
    struct weight router;             /* [n_expert, d_model] */
    float *router_bias;               /* [n_expert] */
    struct ffn *experts;              /* [n_expert]; with a cache their pointers are NULL and the bytes are in its blocks */
    uint32_t first_block;             /* of expert 0 */
    struct ffn shared;
    bool has_shared;
    enum act_form attn_form, o_form, ffn_form, down_form; /* what their readers' activations are rounded to */
    bool v_fine;                      /* the values' are two int8 rows */
};

struct net {
    struct mem *mem;
    struct backend *be;
    struct ckpt *ckpt;                /* not owned */
    struct hparams hp;
    struct weight embed, head;
    float *norm;                      /* [d_model] */
    struct net_layer *layers;         /* [n_layer + n_nextn] */
    struct weight mtp_embed, mtp_head, mtp_proj;
    float *mtp_enorm, *mtp_hnorm, *mtp_norm;
    double *rope_freq;                /* [n_rot / 2] */
    struct arena arena;
    struct cache *cache;              /* of experts; NULL: they are mapped like everything else */
    uint32_t n_moe;                   /* layers with experts */
};

/* Binds every weight of the model; shapes are checked. The checkpoint must outlive the net. */
int32_t net_open(struct mem *m, struct ckpt *c, const struct backend_options *opt, struct net **out,
    glm_error *err);
/* The same with experts in a cache of that many bytes (0: mapped), for a checkpoint opened with by_tensor. */
int32_t net_open_cached(struct mem *m, struct ckpt *c, const struct backend_options *opt, uint64_t expert_cache_bytes,
    struct net **out, glm_error *err);
void net_close(struct net *n);
int32_t net_expert_bytes(struct ckpt *c, uint64_t *bytes, glm_error *err); /* that a cache of all experts would take */
struct kv_shape net_kv_shape(const struct net *n);
uint32_t net_n_layer(const struct net *n);  /* with the MTP layer */

/* What to compute. Rows of one segment are consecutive positions of one sequence, whose pages must be
 * there; the pass writes their keys and values. All arrays are copied or must live until the pass is
 * done, as noted. */
struct batch {
    const int32_t *ids;               /* [n_row], lives on */
    const struct segment *segments;   /* copied */
    uint32_t n_row, n_segment;
    struct kv_seq *const *seqs;       /* indexed by segment.seq; lives on */
    const uint32_t *logit_rows;       /* ascending; copied */
    uint32_t n_logit;
    const float *mtp_hidden;          /* not NULL: a pass of the MTP layer. [n_row, d_model] states after the
                                         final norm at each row's position; ids are then the next tokens */
    float *residual;                  /* NULL, or [n_layer + 1, residual_rows, d_model]: the stream after the
                                         embedding and after each layer, row r at residual_row + r */
    uint64_t residual_rows, residual_row;
};

struct pass;

/* Work space for up to n_row rows, n_logit of them with logits, at positions below n_ctx. */
int32_t pass_open(struct net *n, uint32_t n_row, uint32_t n_logit, uint32_t n_ctx, struct pass **out,
    glm_error *err);
void pass_close(struct pass *p);
uint64_t pass_bytes(const struct hparams *hp, uint32_t n_row, uint32_t n_logit, uint32_t n_ctx);
int32_t pass_begin(struct pass *p, const struct batch *b, glm_error *err);
/* Runs until it is done, or until the deadline passes or a stop is asked for (*done false: call again to go on, or
 * pass_begin to forget it). Errors: GLM_EIO, where experts are read as they are needed; the pass is over then. */
int32_t pass_run(struct pass *p, uint64_t deadline, const struct stop *stop, bool *done, glm_error *err);
double pass_progress(const struct pass *p);  /* 0 to 1 */
/* Of a finished pass. i counts logit rows. Overwritten by the next pass_begin. */
const float *pass_logits(const struct pass *p, uint32_t i);  /* [n_vocab] */
const float *pass_hidden(const struct pass *p, uint32_t row); /* [d_model] after the final norm, of any row; not of mtp_hidden */

#endif
