/* hf_weights.c: tensors of a Hugging Face folder by their role in the model: their names, and views
 * of plain and FP8 matrices and of slices of fused experts. What a module is stored as follows from
 * which tensors it has, not from what the configuration says. hf_int4.c has the packed formats.
 */
#include "hf_int.h"

#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

enum { IN_LAYER = 1, OF_EXPERT = 2, BARE = 4 /* the name is the tensor's, no ".weight" follows */ };

static const struct {
    const char *name;
    uint32_t flags;
} roles[ROLE_COUNT] = {
    [ROLE_EMBED] = {"embed_tokens", 0},
    [ROLE_HEAD] = {"lm_head", 0}, /* alone without the prefix */
    [ROLE_NORM] = {"norm", 0},
    [ROLE_ATTN_NORM] = {"input_layernorm", IN_LAYER},
    [ROLE_Q] = {"self_attn.q_proj", IN_LAYER},
    [ROLE_K] = {"self_attn.k_proj", IN_LAYER},
    [ROLE_V] = {"self_attn.v_proj", IN_LAYER},
    [ROLE_O] = {"self_attn.o_proj", IN_LAYER},
    [ROLE_Q_BIAS] = {"self_attn.q_proj.bias", IN_LAYER | BARE},
    [ROLE_K_BIAS] = {"self_attn.k_proj.bias", IN_LAYER | BARE},
    [ROLE_V_BIAS] = {"self_attn.v_proj.bias", IN_LAYER | BARE},
    [ROLE_Q_NORM] = {"self_attn.q_norm", IN_LAYER},
    [ROLE_K_NORM] = {"self_attn.k_norm", IN_LAYER},
    [ROLE_FFN_NORM] = {"post_attention_layernorm", IN_LAYER},
    [ROLE_GATE] = {"mlp.gate_proj", IN_LAYER},
    [ROLE_UP] = {"mlp.up_proj", IN_LAYER},
    [ROLE_DOWN] = {"mlp.down_proj", IN_LAYER},
    [ROLE_ROUTER] = {"mlp.gate", IN_LAYER},
    [ROLE_ROUTER_BIAS] = {"mlp.gate.e_score_correction_bias", IN_LAYER | BARE},
    [ROLE_EXP_GATE] = {"gate_proj", IN_LAYER | OF_EXPERT},
    [ROLE_EXP_UP] = {"up_proj", IN_LAYER | OF_EXPERT},
    [ROLE_EXP_DOWN] = {"down_proj", IN_LAYER | OF_EXPERT},
    [ROLE_SHARED_GATE] = {"mlp.shared_experts.gate_proj", IN_LAYER},
    [ROLE_SHARED_UP] = {"mlp.shared_experts.up_proj", IN_LAYER},
    [ROLE_SHARED_DOWN] = {"mlp.shared_experts.down_proj", IN_LAYER},
    [ROLE_MTP_ENORM] = {"enorm", IN_LAYER},
    [ROLE_MTP_HNORM] = {"hnorm", IN_LAYER},
    [ROLE_MTP_PROJ] = {"eh_proj", IN_LAYER},
    [ROLE_MTP_EMBED] = {"embed_tokens", IN_LAYER},
    [ROLE_MTP_HEAD] = {"shared_head.head", IN_LAYER},
    [ROLE_MTP_NORM] = {"shared_head.norm", IN_LAYER},
};

static void put(struct hf_module *m, const char *text)
{
    size_t n = strlen(text);
    if (n >= IO_NAME_MAX - m->size)
        n = IO_NAME_MAX - 1 - m->size;
    memcpy(m->name + m->size, text, n);
    m->size += n;
    m->name[m->size] = 0;
}

static void put_number(struct hf_module *m, uint32_t v)
{
    char digits[11];
    size_t at = sizeof(digits) - 1;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    put(m, digits + at);
}

static void put_layer(const struct hf *h, struct hf_module *m, uint32_t layer)
{
    m->size = 0;
    put(m, h->prefix);
    put(m, "layers.");
    put_number(m, layer);
    put(m, ".");
}

static void name_module(
    const struct hf *h, enum role role, uint32_t layer, uint32_t expert, struct hf_module *m)
{
    if (role == ROLE_HEAD && h->tied)
        role = ROLE_EMBED;
    m->size = 0;
    if ((roles[role].flags & IN_LAYER) != 0)
        put_layer(h, m, layer);
    else if (role != ROLE_HEAD)
        put(m, h->prefix);
    if ((roles[role].flags & OF_EXPERT) != 0) {
        put(m, "mlp.experts.");
        put_number(m, expert);
        put(m, ".");
    }
    put(m, roles[role].name);
}

const struct io_tensor *hf_part(const struct ckpt *c, struct hf_module *m, const char *suffix)
{
    size_t size = m->size;
    put(m, suffix);
    m->size = size;
    return io_find(c, m->name);
}

/* The tensor of all experts of a layer that recent transformers write: gate and up rows in one, or
 * down. */
static const struct io_tensor *fused(
    const struct ckpt *c, enum role role, uint32_t layer, struct hf_module *m)
{
    put_layer(c->state, m, layer);
    return hf_part(
        c, m, role == ROLE_EXP_DOWN ? "mlp.experts.down_proj" : "mlp.experts.gate_up_proj");
}

static void role_name(
    const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size)
{
    static const char *const ends[] = {".weight", ".weight_packed", ".qweight"};
    struct hf_module m;
    const struct io_tensor *t = NULL;
    name_module(c->state, role, layer, expert, &m);
    for (size_t i = 0; t == NULL && i < ARRAY_LEN(ends) && (roles[role].flags & BARE) == 0; i++)
        t = hf_part(c, &m, ends[i]);
    if (t == NULL && (roles[role].flags & OF_EXPERT) != 0)
        t = fused(c, role, layer, &m);
    if (t == NULL) {
        name_module(c->state, role, layer, expert, &m);
        put(&m, (roles[role].flags & BARE) != 0 ? "" : ".weight");
    }
    size_t n = strlen(m.name);
    if (size == 0)
        return;
    if (n >= size)
        n = size - 1;
    memcpy(name, m.name, n);
    name[n] = 0;
}

/* ---- what went wrong ----------------------------------------------------------------------- */

static int32_t missing(const struct ckpt *c, const char *name, glm_error *err)
{
    return err_set(err, GLM_EFORMAT, 0, name,
        "there is no such tensor in %s: the download is incomplete, or the "
        "configuration belongs to another model",
        io_tail(c->n_file > 1 ? c->path : c->files[0].name));
}

int32_t hf_bad_shape(
    const struct ckpt *c, const struct io_tensor *t, uint64_t n_out, uint64_t n_in, glm_error *err)
{
    return err_set(err, GLM_EFORMAT, io_file_offset(c, t), t->name,
        "has the shape [%llu, %llu]%s, the configuration asks for [%llu, %llu]",
        (unsigned long long)(t->n_dim > 0 ? t->dim[0] : 1),
        (unsigned long long)(t->n_dim > 1 ? t->dim[1] : 1),
        t->n_dim > 2 ? " and more dimensions" : "", (unsigned long long)n_out,
        (unsigned long long)n_in);
}

int32_t hf_bad_type(
    const struct ckpt *c, const struct io_tensor *t, const char *wanted, glm_error *err)
{
    return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), t->name,
        "has the type %s, supported is %s", st_type_name(t->type), wanted);
}

/* ---- views --------------------------------------------------------------------------------- */

bool hf_is_shape(const struct io_tensor *t, uint64_t n_out, uint64_t n_in)
{
    if (t->n_dim == 1)
        return n_out == 1 && t->dim[0] == n_in;
    return t->n_dim == 2 && t->dim[0] == n_out && t->dim[1] == n_in;
}

bool hf_scale_format(uint32_t st_type, uint32_t *format, uint32_t *bytes)
{
    *format = st_type == ST_F32    ? W_F32
              : st_type == ST_F16  ? W_F16
              : st_type == ST_BF16 ? W_BF16
                                   : W_NONE;
    *bytes = st_type == ST_F32 ? 4 : 2;
    return *format != W_NONE;
}

/* Which blocks a scale tensor's shape speaks of, whatever its name: one for all, one a row, or one
 * a block. */
static bool scale_blocks(const struct hf_quant *q, const struct io_tensor *s, struct weight *w)
{
    uint64_t rows = s->n_dim > 0 ? s->dim[0] : 1, columns = s->n_dim > 1 ? s->dim[1] : 1;
    bool one_block = w->n_out <= q->block_out && w->n_in <= q->block_in;
    if (s->n_dim > 2)
        return false;
    if (rows == 1 && columns == 1 && !one_block) {
        w->block_out = w->n_out;
        w->block_in = w->n_in;
        return true;
    }
    if (rows == w->n_out && columns == 1 && w->n_out > 1) {
        w->block_out = 1;
        w->block_in = w->n_in;
        return true;
    }
    w->block_out = q->block_out;
    w->block_in = q->block_in;
    return rows == ((uint64_t)w->n_out + q->block_out - 1) / q->block_out &&
           columns == ((uint64_t)w->n_in + q->block_in - 1) / q->block_in;
}

static int32_t fp8_scale(struct ckpt *c, struct hf_module *m, struct weight *w, glm_error *err)
{
    const struct hf *h = c->state;
    const struct io_tensor *s = hf_part(c, m, ".weight_scale");
    uint32_t bytes;
    if (s == NULL)
        s = hf_part(c, m, ".weight_scale_inv");
    if (s == NULL)
        return err_set(err, GLM_EFORMAT, 0, m->name,
            "there is no such tensor: an FP8 matrix needs its scales");
    if (!hf_scale_format(s->type, &w->scale_format, &bytes))
        return hf_bad_type(c, s, "F32, BF16 or F16", err);
    if (!scale_blocks(&h->quant, s, w))
        return hf_bad_shape(c, s,
            ((uint64_t)w->n_out + h->quant.block_out - 1) / h->quant.block_out,
            ((uint64_t)w->n_in + h->quant.block_in - 1) / h->quant.block_in, err);
    w->scale_row_bytes = ((uint64_t)w->n_in + w->block_in - 1) / w->block_in * bytes;
    return io_part(c, s, 0, s->bytes, PLACE_SCALE, &w->scale, err);
}

/* MODULE.weight, or a tensor whose name is whole already. */
static int32_t plain_view(struct ckpt *c, struct hf_module *m, const struct io_tensor *t,
    struct weight *w, glm_error *err)
{
    uint32_t bytes;
    if (t->type == ST_U8 || t->type == ST_F4)
        return hf_bad_type(
            c, t, "F32, F16, BF16, FP8 or int4: this looks like NVFP4 or MXFP4", err);
    if (t->type == ST_F8_E4M3) {
        w->format = W_F8;
        bytes = 1;
    } else if (!hf_scale_format(t->type, &w->format, &bytes)) {
        return hf_bad_type(c, t, "F32, F16, BF16, F8_E4M3 or int4", err);
    }
    if (!hf_is_shape(t, w->n_out, w->n_in))
        return hf_bad_shape(c, t, w->n_out, w->n_in, err);
    w->row_bytes = (uint64_t)w->n_in * bytes;
    int32_t rc = io_part(c, t, 0, t->bytes, PLACE_DATA, &w->data, err);
    if (rc != GLM_OK)
        return rc;
    return w->format == W_F8 ? fp8_scale(c, m, w, err) : GLM_OK;
}

/* Expert e's rows of [n_expert, 2 * d_ff_exp, d_model], gate before up, or of [n_expert, d_model,
 * d_ff_exp]. */
static int32_t fused_view(struct ckpt *c, enum role role, const struct io_tensor *t,
    uint32_t expert, struct weight *w, glm_error *err)
{
    uint64_t n_row = (uint64_t)w->n_out * (role == ROLE_EXP_DOWN ? 1 : 2), n_before, offset;
    uint32_t bytes;
    if (!hf_scale_format(t->type, &w->format, &bytes))
        return hf_bad_type(c, t, "F32, F16 or BF16 for experts fused into one tensor", err);
    if (t->n_dim != 3 || t->dim[0] != c->hp.n_expert || t->dim[1] != n_row || t->dim[2] != w->n_in)
        return err_set(err, GLM_EFORMAT, io_file_offset(c, t), t->name,
            "has another shape than the [%u, %llu, %u] that the configuration asks for",
            c->hp.n_expert, (unsigned long long)n_row, w->n_in);
    w->row_bytes = (uint64_t)w->n_in * bytes;
    n_before = expert * n_row + (role == ROLE_EXP_UP ? w->n_out : 0);
    if (expert >= c->hp.n_expert || !ck_mul(n_before, w->row_bytes, &offset))
        return err_set(err, GLM_EINVAL, 0, t->name, "there is no expert %u", expert);
    return io_part(c, t, offset, w->n_out * w->row_bytes, PLACE_DATA, &w->data, err);
}

static int32_t weight(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert,
    uint32_t n_out, uint32_t n_in, bool optional, struct weight *w, glm_error *err)
{
    struct hf_module m;
    const struct io_tensor *t;
    uint32_t flags = roles[role].flags;
    w->n_out = n_out;
    w->n_in = n_in;
    name_module(c->state, role, layer, expert, &m);
    t = hf_part(c, &m, (flags & BARE) != 0 ? "" : ".weight");
    if (t != NULL)
        return plain_view(c, &m, t, w, err);
    if ((flags & BARE) == 0) {
        if ((t = hf_part(c, &m, ".weight_packed")) != NULL)
            return hf_packed_view(c, &m, t, w, err);
        if ((t = hf_part(c, &m, ".qweight")) != NULL)
            return hf_qweight_view(c, &m, t, w, err);
    }
    struct hf_module whole;
    if ((flags & OF_EXPERT) != 0 && (t = fused(c, role, layer, &whole)) != NULL)
        return fused_view(c, role, t, expert, w, err);
    if (optional) {
        *w = (struct weight){0};
        return GLM_OK;
    }
    hf_part(c, &m, (flags & BARE) != 0 ? "" : ".weight");
    return missing(c, m.name, err);
}

static void close(struct ckpt *c)
{
    struct hf *h = c->state;
    mem_free(c->mem, h->chat_template);
    mem_free(c->mem, h->groups);
    mem_free(c->mem, h);
}

const struct io_format hf_format = {"hf", st_type_name, weight, role_name, close};
