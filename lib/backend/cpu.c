/* cpu.c: the CPU backend's object and its slicing of operations. It owns the kernel table and the threads;
 * both live as long as the model. */
#include "backend_int.h"

#define SLICE_NS 700000u         /* a slice's planned length: under the 1 ms that a unit of work may take */
#define BYTES_PER_US 4000u       /* pessimistic rates of one thread, until a slice has been measured */
#define MACS_PER_US 16000u
#define SHARE_BYTES 64u          /* of a task's tiles, before its scratch */

int32_t backend_open(struct mem *m, const struct backend_options *opt, struct backend **out, glm_error *err)
{
    struct backend *be = mem_zalloc(m, sizeof *be);
    int32_t rc;

    *out = NULL;
    if (!be)
        return err_nomem(err, "the CPU backend");
    be->mem = m;
    be->float_activations = opt->float_activations;
    be->cpu = cpu_detect() & opt->cpu_mask;
    kernels_ref(&be->k);
    kernels_x86(&be->k, be->cpu);
    rc = pool_open(m, opt->n_threads, opt->runner, &be->pool, err);
    if (rc)
        goto fail;
    be->width = pool_width(be->pool);
    be->scratch_bytes = (opt->scratch_bytes + 63) & ~(size_t)63;
    *out = be;
    return GLM_OK;
fail:
    backend_close(be);
    return rc;
}

void backend_close(struct backend *be)
{
    if (!be)
        return;
    pool_close(be->pool);
    mem_free(be->mem, be);
}

size_t backend_scratch_bytes(uint32_t n_in_max, uint32_t d_head, uint32_t n_q)
{
    size_t mm = k_scratch_bytes(n_in_max), at = k_attention_scratch_bytes(d_head, n_q);
    return (((mm > at ? mm : at) + 63) & ~(size_t)63) + FINE_BYTES;
}

static size_t task_bytes(const struct backend *be) { return SHARE_BYTES + be->scratch_bytes; }

size_t backend_work_bytes(const struct backend *be) { return task_bytes(be) * be->width; }
uint32_t backend_width(const struct backend *be) { return be->width; }
void backend_each(struct backend *be, glm_task_fn fn, void *task, uint32_t count) { pool_run(be->pool, fn, task, count); }
uint32_t backend_cpu(const struct backend *be) { return be->cpu; }

void backend_decode(const struct backend *be, const struct weight *w, uint32_t row, float *out)
{
    be->k.decode_row(w, row, out);
}

bool backend_wants_q8(const struct backend *be, const struct weight *w)
{
    return !be->float_activations && k_has_q8(w->format);
}

size_t act_q8_bytes(uint32_t n_in, uint32_t n_row) { return q8_row_bytes(n_in) * (size_t)n_row; }

size_t kv_page_bytes(const struct kv_shape *s, uint32_t type)
{
    return (size_t)s->n_layer * s->n_head_kv * kv_head_bytes(type, s->d_head);
}

static size_t scale_bytes(uint32_t type) { return type >= KV_INT8 ? sizeof(float) : 0; }

size_t kv_position_bytes(const struct kv_shape *s, uint32_t type)
{
    return (size_t)s->n_layer * s->n_head_kv * 2 * (s->d_head * kv_elem_bytes(type) + scale_bytes(type));
}

/* Of each layer and KV head: keys, values, and their scales where the type has any. */
bool kv_page_run(const struct kv_shape *s, uint32_t type, uint32_t n_pos, size_t i, size_t *offset, size_t *bytes)
{
    size_t n_run = scale_bytes(type) ? 4 : 2, row = s->d_head * kv_elem_bytes(type), k = i % n_run;

    if (i / n_run >= (size_t)s->n_layer * s->n_head_kv)
        return false;
    *offset = i / n_run * kv_head_bytes(type, s->d_head);
    *offset += k < 2 ? k * KV_PAGE * row : 2 * KV_PAGE * row + (k - 2) * KV_PAGE * sizeof(float);
    *bytes = n_pos * (k < 2 ? row : sizeof(float));
    return true;
}

/* ---- slices ---------------------------------------------------------------------------------------------------- */

/* Tiles of one task. At the head of the task's scratch: in a cache line of its own. */
struct share {
    atomic_uint next;
    uint32_t end;
};

struct slice {
    const struct backend *be;
    const struct op *op;
    uint8_t *work;
    uint32_t n_task;
};

static struct share *share_of(const struct slice *s, uint32_t index)
{
    return (struct share *)(void *)(s->work + index * task_bytes(s->be));
}

/* A task takes the tiles of its share in order, so that each can ask for the weights of the next; then those that others
 * have left: balanced whatever a tile costs, and right in any order of tasks. */
static void GLM_CALL slice_task(void *task, uint32_t index)
{
    struct slice *s = task;
    uint8_t *scratch = s->work + index * task_bytes(s->be) + SHARE_BYTES;

    for (uint32_t i = 0; i < s->n_task; i++) {
        struct share *from = share_of(s, (index + i) % s->n_task);
        struct turn t = { .tile = UINT32_MAX - 1 };
        for (;;) {
            uint32_t before = t.tile;
            t.tile = atomic_fetch_add_explicit(&from->next, 1, memory_order_relaxed);
            if (t.tile >= from->end)
                break;
            t.warm = t.tile == before + 1;
            t.has_next = t.tile + 1 < from->end;
            op_tile(s->be, s->op, &t, scratch);
        }
    }
}

static uint64_t predicted_ns(const struct tile_cost *c)
{
    uint64_t b = c->bytes * 1000u / BYTES_PER_US, m = c->macs * 1000u / MACS_PER_US;
    return (b > m ? b : m) + 200;
}

/* Tiles that fit the time left, at least one per thread. */
static uint32_t slice_tiles(const struct backend *be, const struct op_state *st, uint64_t left_ns)
{
    uint64_t ns = left_ns < SLICE_NS ? left_ns : SLICE_NS;
    uint64_t n = ns / (st->ns_per_tile ? st->ns_per_tile : 1) * be->width;
    uint32_t left = st->n_tile - st->tile;
    if (n < be->width)
        n = be->width;
    return n < left ? (uint32_t)n : left;
}

static void slice_run(struct backend *be, const struct op *op, struct op_state *st, void *work, uint32_t n)
{
    uint64_t begin = os_now_ns();
    uint32_t width = n < be->width ? n : be->width;
    struct slice s = { .be = be, .op = op, .work = work, .n_task = width };

    for (uint32_t i = 0; i < width; i++) {
        struct share *share = share_of(&s, i);
        atomic_init(&share->next, st->tile + (uint32_t)((uint64_t)n * i / width));
        share->end = st->tile + (uint32_t)((uint64_t)n * (i + 1) / width);
    }
    pool_run(be->pool, slice_task, &s, width);
    st->tile += n;
    st->ns_per_tile = (os_now_ns() - begin) * width / n;
}

bool backend_run(struct backend *be, const struct op *op, struct op_state *st, void *work, uint64_t deadline,
    const struct stop *stop)
{
    if (!st->planned) {
        struct tile_cost cost = { 0, 0 };
        st->n_tile = op_plan(be, op, &cost);
        st->ns_per_tile = predicted_ns(&cost);
        st->tile = 0;
        st->planned = true;
    }
    while (st->tile < st->n_tile) {
        uint64_t now = deadline ? os_now_ns() : 0;
        slice_run(be, op, st, work, slice_tiles(be, st, deadline > now ? deadline - now : deadline ? 0 : SLICE_NS));
        if (st->tile < st->n_tile && ((deadline && os_now_ns() >= deadline) || stop_asked(stop)))
            return false;
    }
    return true;
}
