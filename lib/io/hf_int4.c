/* hf_int4.c: views of the three int4 layouts in safetensors: compressed-tensors pack-quantized,
 * AutoAWQ and GPTQ. Checks the shape of every part against the matrix; owns nothing but copies of
 * g_idx, which indexes memory and therefore must not change under a host that rewrites a mapped
 * file.
 *
 *                       compressed-tensors          AutoAWQ               GPTQ
 *   nibbles, I32        weight_packed               qweight               qweight
 *                       [n_out, n_in / 8]           [n_in, n_out / 8]     [n_in / 8, n_out]
 *   scales              weight_scale                scales                scales
 *                       [n_out, n_group]            [n_group, n_out]      [n_group, n_out]
 *   zero points, I32    weight_zero_point           qzeros                qzeros
 *                       [ceil(n_out / 8), n_group]  [n_group, n_out / 8]  [n_group, n_out / 8]
 *   activation order    weight_g_idx [n_in]         none                  g_idx [n_in]
 */
#include "hf_int.h"

#include <string.h>

/* ---- group indices ------------------------------------------------------------------------- */

static uint64_t groups_hash(const struct ckpt *c, const int32_t *index, uint32_t n)
{
    return io_hash(c->seed, (const char *)index, (size_t)n * sizeof(*index));
}

static bool groups_grow(struct ckpt *c, struct hf *h)
{
    size_t capacity = h->group_capacity > 0 ? h->group_capacity * 2 : 64;
    struct hf_group *groups = mem_zarray(c->mem, capacity, sizeof(*groups));
    if (groups == NULL)
        return false;
    for (size_t i = 0; i < h->group_capacity; i++) {
        const struct hf_group *g = &h->groups[i];
        if (g->index == NULL)
            continue;
        size_t at = groups_hash(c, g->index, g->n) & (capacity - 1);
        while (groups[at].index != NULL)
            at = (at + 1) & (capacity - 1);
        groups[at] = *g;
    }
    mem_free(c->mem, h->groups);
    h->groups = groups;
    h->group_capacity = capacity;
    return true;
}

/* A copy of the index that lives as long as the checkpoint: the one kept before where an equal one
 * was. */
static const int32_t *groups_keep(struct ckpt *c, const int32_t *index, uint32_t n)
{
    struct hf *h = c->state;
    if (h->n_group * 2 >= h->group_capacity && !groups_grow(c, h))
        return NULL;
    size_t mask = h->group_capacity - 1, at = groups_hash(c, index, n) & mask;
    for (; h->groups[at].index != NULL; at = (at + 1) & mask)
        if (h->groups[at].n == n && memcmp(h->groups[at].index, index, n * sizeof(*index)) == 0)
            return h->groups[at].index;
    int32_t *copy = arena_alloc(&c->arena, n * sizeof(*copy), _Alignof(int32_t));
    if (copy == NULL)
        return NULL;
    memcpy(copy, index, n * sizeof(*copy));
    h->groups[at] = (struct hf_group){copy, n};
    h->n_group++;
    return copy;
}

/* The index of a checked copy: NULL where it only says i / block_in, or nothing (all -1). */
static int32_t checked_groups(struct ckpt *c, const struct io_tensor *t, const int32_t *index,
    uint32_t n_group, struct weight *w, glm_error *err)
{
    bool plain = true, unset = true;
    for (uint32_t i = 0; i < w->n_in; i++) {
        plain = plain && index[i] == (int32_t)(i / w->block_in);
        unset = unset && index[i] == -1;
    }
    if (plain || unset)
        return GLM_OK;
    for (uint32_t i = 0; i < w->n_in; i++)
        if (index[i] < 0 || (uint32_t)index[i] >= n_group)
            return err_set(err, GLM_EFORMAT, io_file_offset(c, t) + 4ull * i, t->name,
                "entry %u is group %d of %u", i, index[i], n_group);
    w->group = groups_keep(c, index, w->n_in);
    return w->group != NULL ? GLM_OK : err_nomem(err, "group indices");
}

static int32_t read_groups(
    struct ckpt *c, const struct io_tensor *t, uint32_t n_group, struct weight *w, glm_error *err)
{
    if (t == NULL)
        return GLM_OK;
    if (t->type != ST_I32)
        return hf_bad_type(c, t, "I32", err);
    if (!hf_is_shape(t, 1, w->n_in))
        return hf_bad_shape(c, t, 1, w->n_in, err);
    int32_t *index = mem_array(c->mem, w->n_in, sizeof(*index));
    if (index == NULL)
        return err_nomem(err, "group indices");
    int32_t rc = io_copy(c, t, index, w->n_in * sizeof(*index), err);
    if (rc == GLM_OK)
        rc = checked_groups(c, t, index, n_group, w, err);
    mem_free(c->mem, index);
    return rc;
}

/* ---- parts --------------------------------------------------------------------------------- */

/* MODULE + suffix of the given type and shape; *data is its first byte. */
static int32_t part(struct ckpt *c, const struct io_tensor *t, uint64_t n_row, uint64_t n_column,
    int kind, const void **data, glm_error *err)
{
    if (t->type != ST_I32)
        return hf_bad_type(c, t, "I32", err);
    if (t->n_dim != 2 || !hf_is_shape(t, n_row, n_column))
        return hf_bad_shape(c, t, n_row, n_column, err);
    return io_part(c, t, 0, t->bytes, kind, data, err);
}

static int32_t lacks(const struct hf_module *m, glm_error *err)
{
    return err_set(
        err, GLM_EFORMAT, 0, m->name, "there is no such tensor: an int4 matrix needs it");
}

/* The group size, from the count of groups that the scales have: the configuration's where it
 * agrees. */
static int32_t group_size(struct ckpt *c, const struct io_tensor *scale, uint64_t n_group,
    struct weight *w, glm_error *err)
{
    const struct hf *h = c->state;
    uint64_t size = h->quant.group_size;
    if (n_group == 0 || n_group > w->n_in)
        return hf_bad_shape(c, scale, w->n_out, 1, err);
    if (n_group == 1)
        size = w->n_in;
    else if (size == 0 || (w->n_in + size - 1) / size != n_group)
        size = w->n_in % n_group == 0 ? w->n_in / n_group : 0;
    if (size == 0 || (size % 8 != 0 && n_group > 1))
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, scale), scale->name,
            "divides %u inputs into %llu groups: only groups of a multiple of 8 are supported",
            w->n_in, (unsigned long long)n_group);
    w->block_in = (uint32_t)size;
    w->block_out = 1;
    return GLM_OK;
}

/* Scales [n_row, n_column], of which the one that counts groups is not known before. */
static int32_t read_scale(struct ckpt *c, const struct io_tensor *t, bool by_row, uint64_t *n_group,
    struct weight *w, glm_error *err)
{
    uint32_t bytes;
    if (!hf_scale_format(t->type, &w->scale_format, &bytes))
        return hf_bad_type(c, t, "F32, BF16 or F16", err);
    if (t->n_dim != 2 || t->dim[by_row ? 0 : 1] != w->n_out)
        return hf_bad_shape(c, t, by_row ? w->n_out : 1, by_row ? 1 : w->n_out, err);
    *n_group = t->dim[by_row ? 1 : 0];
    w->scale_row_bytes = t->dim[1] * bytes; /* at most the tensor's length, which fits */
    int32_t rc = group_size(c, t, *n_group, w, err);
    return rc == GLM_OK ? io_part(c, t, 0, t->bytes, PLACE_SCALE, &w->scale, err) : rc;
}

static int32_t check_four_bits(
    struct ckpt *c, const struct io_tensor *t, const struct weight *w, glm_error *err)
{
    const struct hf *h = c->state;
    if (h->quant.bits != 0 && h->quant.bits != 4)
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), t->name,
            "is packed in %u bits, only 4 are supported", h->quant.bits);
    if (w->n_in % 8 != 0)
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), t->name,
            "%u inputs are not a multiple of 8", w->n_in);
    return GLM_OK;
}

/* ---- compressed-tensors -------------------------------------------------------------------- */

/* The shape that the packer wrote down, where it did. */
static int32_t check_packed_shape(
    struct ckpt *c, const struct io_tensor *t, const struct weight *w, glm_error *err)
{
    uint64_t shape[2];
    uint8_t data[16];
    if (t == NULL)
        return GLM_OK;
    if ((t->type != ST_I64 && t->type != ST_I32) || !hf_is_shape(t, 1, 2))
        return hf_bad_type(c, t, "I64 [2]", err);
    int32_t rc = io_copy(c, t, data, t->type == ST_I64 ? 16 : 8, err);
    if (rc != GLM_OK)
        return rc;
    for (unsigned i = 0, n = t->type == ST_I64 ? 8 : 4; i < 2; i++) {
        shape[i] = 0;
        for (unsigned b = 0; b < n; b++)
            shape[i] |= (uint64_t)data[i * n + b] << 8 * b;
    }
    if (shape[0] == w->n_out && shape[1] == w->n_in)
        return GLM_OK;
    return err_set(err, GLM_EFORMAT, io_file_offset(c, t), t->name,
        "says [%llu, %llu], the configuration asks for [%u, %u]", (unsigned long long)shape[0],
        (unsigned long long)shape[1], w->n_out, w->n_in);
}

int32_t hf_packed_view(struct ckpt *c, struct hf_module *m, const struct io_tensor *packed,
    struct weight *w, glm_error *err)
{
    uint64_t n_group = 0;
    if (packed->type != ST_I32)
        return hf_bad_type(c, packed, "I32 (int4); U8 is NVFP4 or MXFP4, which is not", err);
    int32_t rc = check_four_bits(c, packed, w, err);
    if (rc == GLM_OK)
        rc = part(c, packed, w->n_out, w->n_in / 8, PLACE_DATA, &w->data, err);
    if (rc == GLM_OK)
        rc = check_packed_shape(c, hf_part(c, m, ".weight_shape"), w, err);
    if (rc != GLM_OK)
        return rc;
    w->format = W_I4_PACKED;
    w->row_bytes = w->n_in / 8 * 4;
    const struct io_tensor *t = hf_part(c, m, ".weight_scale");
    if (t == NULL)
        return lacks(m, err);
    rc = read_scale(c, t, true, &n_group, w, err);
    if (rc == GLM_OK && (t = hf_part(c, m, ".weight_zero_point")) != NULL) {
        rc = part(c, t, ((uint64_t)w->n_out + 7) / 8, n_group, PLACE_ZERO, &w->zero, err);
        w->zero_row_bytes = n_group * 4;
    }
    if (rc == GLM_OK)
        rc = read_groups(c, hf_part(c, m, ".weight_g_idx"), (uint32_t)n_group, w, err);
    return rc;
}

/* ---- AutoAWQ and GPTQ ---------------------------------------------------------------------- */

/* Which of the two: their shapes differ in every case. */
static int32_t find_layout(
    struct ckpt *c, const struct io_tensor *t, struct weight *w, glm_error *err)
{
    const struct hf *h = c->state;
    if (h->quant.gptq_v2 || h->quant.awq_gemv)
        return err_set(err, GLM_ENOTSUP, io_file_offset(c, t), t->name, "%s is not supported",
            h->quant.gptq_v2 ? "GPTQ's second format (gptq_v2)" : "AWQ's gemv layout");
    if (t->n_dim == 2 && t->dim[0] == w->n_in && t->dim[1] == w->n_out / 8) {
        w->format = W_I4_AWQ;
        w->row_bytes = w->n_out / 8 * 4;
    } else if (t->n_dim == 2 && t->dim[0] == w->n_in / 8 && t->dim[1] == w->n_out) {
        w->format = W_I4_GPTQ;
        w->row_bytes = (uint64_t)w->n_out * 4;
    } else {
        return hf_bad_shape(c, t, w->n_in / 8, w->n_out, err);
    }
    return GLM_OK;
}

int32_t hf_qweight_view(struct ckpt *c, struct hf_module *m, const struct io_tensor *qweight,
    struct weight *w, glm_error *err)
{
    uint64_t n_group = 0;
    int32_t rc = check_four_bits(c, qweight, w, err);
    if (rc == GLM_OK && w->n_out % 8 != 0)
        rc = err_set(err, GLM_ENOTSUP, io_file_offset(c, qweight), qweight->name,
            "%u outputs are not a multiple of 8", w->n_out);
    if (rc == GLM_OK)
        rc = find_layout(c, qweight, w, err);
    if (rc == GLM_OK)
        rc = part(c, qweight, qweight->dim[0], qweight->dim[1], PLACE_DATA, &w->data, err);
    if (rc != GLM_OK)
        return rc;
    const struct io_tensor *t = hf_part(c, m, ".scales");
    if (t == NULL)
        return lacks(m, err);
    rc = read_scale(c, t, false, &n_group, w, err);
    if (rc != GLM_OK)
        return rc;
    if ((t = hf_part(c, m, ".qzeros")) == NULL)
        return lacks(m, err);
    rc = part(c, t, n_group, w->n_out / 8, PLACE_ZERO, &w->zero, err);
    w->zero_row_bytes = w->n_out / 8 * 4;
    if (rc == GLM_OK && w->format == W_I4_GPTQ)
        rc = read_groups(c, hf_part(c, m, ".g_idx"), (uint32_t)n_group, w, err);
    return rc;
}
