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

enum act_form backend_form(const struct backend *be, const struct weight *w)
{
    if (be->float_activations)
        return ACT_F32;
    return k_has_q8(w->format) ? ACT_Q8 : k_has_bf16(w) ? ACT_BF16 : ACT_F32;
}

size_t act_row_bytes(uint32_t n_in, enum act_form form)
{
    return form == ACT_Q8 ? q8_row_bytes(n_in) : form == ACT_BF16 ? bf16_row_bytes(n_in) : 0;
}

size_t act_row_bytes_max(uint32_t n_in)
{
    size_t a = q8_row_bytes(n_in), b = bf16_row_bytes(n_in);
    return a > b ? a : b;
}

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

/* Tiles of one task, of the whole operation. At the head of the task's scratch: in a cache line of its own. */
struct share {
    atomic_uint next;
    uint32_t begin, end;
};

struct slice {
    struct backend *be;
    const struct op *op;
    uint8_t *work;
    const struct stop *stop;
    uint64_t end, tile_ns;  /* os_now_ns of the slice's end; 0: when stopped, or when another pass wants the threads */
    atomic_bool begun;      /* a tile has been taken: every slice gets on by one at least */
};

static struct share *share_of(const struct backend *be, uint8_t *work, uint32_t index)
{
    return (struct share *)(void *)(work + index * task_bytes(be));
}

static void share_out(const struct backend *be, uint8_t *work, uint32_t n_tile)
{
    for (uint32_t i = 0; i < be->width; i++) {
        struct share *s = share_of(be, work, i);
        s->begin = (uint32_t)((uint64_t)n_tile * i / be->width);
        s->end = (uint32_t)((uint64_t)n_tile * (i + 1) / be->width);
        atomic_init(&s->next, s->begin);
    }
}

static uint32_t tiles_taken(const struct backend *be, uint8_t *work)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < be->width; i++) {
        struct share *s = share_of(be, work, i);
        n += min_u32(atomic_load_explicit(&s->next, memory_order_relaxed), s->end) - s->begin;
    }
    return n;
}

static bool slice_over(struct slice *s)
{
    if (!atomic_load_explicit(&s->begun, memory_order_relaxed))
        return false;
    if (s->end)
        return os_now_ns() + s->tile_ns > s->end;
    return stop_asked(s->stop) || atomic_load_explicit(&s->be->n_running, memory_order_relaxed) > 1;
}

/* A task takes the tiles of its share in order, so that each can ask for the weights of the next; then those that others
 * have left: balanced whatever a tile costs, and right in any order of tasks. A task that comes late finds the slice over. */
static void GLM_CALL slice_task(void *task, uint32_t index)
{
    struct slice *s = task;
    uint8_t *scratch = s->work + index * task_bytes(s->be) + SHARE_BYTES;

    for (uint32_t i = 0; i < s->be->width; i++) {
        struct share *from = share_of(s->be, s->work, (index + i) % s->be->width);
        struct turn t = { .tile = UINT32_MAX - 1 };
        while (atomic_load_explicit(&from->next, memory_order_relaxed) < from->end) {
            uint32_t before = t.tile;
            if (slice_over(s))
                return;
            t.tile = atomic_fetch_add_explicit(&from->next, 1, memory_order_relaxed);
            if (t.tile >= from->end)
                break;
            atomic_store_explicit(&s->begun, true, memory_order_relaxed);
            t.warm = i == 0 ? t.tile > from->begin : t.tile == before + 1;
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

/* Without a deadline a slice goes on until somebody wants something, else as long as a unit of work may take. */
static uint64_t slice_end(struct backend *be, uint64_t now, uint64_t deadline)
{
    uint64_t end = now + SLICE_NS;
    if (!deadline && atomic_load_explicit(&be->n_running, memory_order_relaxed) == 1)
        return 0;
    return deadline && deadline < end ? deadline : end;
}

static void slice_run(struct backend *be, const struct op *op, struct op_state *st, uint8_t *work, uint64_t deadline,
    const struct stop *stop)
{
    uint64_t begin = os_now_ns();
    uint32_t left = st->n_tile - st->tile, width = left < be->width ? left : be->width, n;
    struct slice s = { .be = be, .op = op, .work = work, .stop = stop, .tile_ns = st->ns_per_tile };

    s.end = slice_end(be, begin, deadline);
    atomic_init(&s.begun, false);
    pool_run(be->pool, slice_task, &s, width);
    n = tiles_taken(be, work) - st->tile;
    st->tile += n;
    if (n)
        st->ns_per_tile = (os_now_ns() - begin) * width / n;
}

static bool op_run(struct backend *be, const struct op *op, struct op_state *st, uint8_t *work, uint64_t deadline,
    const struct stop *stop)
{
    if (!st->planned) {
        struct tile_cost cost = { 0, 0 };
        st->n_tile = op_plan(be, op, &cost);
        st->ns_per_tile = predicted_ns(&cost);
        st->tile = 0;
        st->planned = true;
        share_out(be, work, st->n_tile);
    }
    while (st->tile < st->n_tile) {
        slice_run(be, op, st, work, deadline, stop);
        if (st->tile < st->n_tile && ((deadline && os_now_ns() + st->ns_per_tile > deadline) || stop_asked(stop)))
            return false;
    }
    return true;
}

bool backend_run(struct backend *be, const struct op *op, struct op_state *st, void *work, uint64_t deadline,
    const struct stop *stop)
{
    atomic_fetch_add(&be->n_running, 1);
    bool done = op_run(be, op, st, work, deadline, stop);
    atomic_fetch_sub(&be->n_running, 1);
    return done;
}
