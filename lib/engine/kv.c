/* kv.c: the pages of a session's KV cache. A page holds 64 positions of every layer. Pages are taken before a turn
 * begins and stay until the session ends, so that computing never allocates. Forks share pages: each page counts its
 * owners, and one that is to be written is copied first if it has others. The model's cap counts every page once. */
#include "engine_int.h"

#include <string.h>

/* Models whose positions cost little keep them in float32: exact, and too small to matter. */
#define KV_F32_BYTES_PER_POSITION (16u << 10)

/* In front of every page's data, which keeps the allocation's alignment. */
struct page_head {
    atomic_uint owners;
};
#define PAGE_HEAD_BYTES 64u

uint32_t kv_auto(const struct hparams *hp)
{
    uint64_t n = 2ull * (hp->n_layer + hp->n_nextn) * hp->n_head_kv * hp->d_head * sizeof(float);
    return n <= KV_F32_BYTES_PER_POSITION ? GLM_KV_F32 : GLM_KV_BF16;
}

void kv_open(struct kv *kv, glm_model *m, uint32_t type)
{
    struct kv_shape shape = net_kv_shape(m->net);
    *kv = (struct kv){ .model = m, .seq = { .type = type } };
    kv->page_bytes = kv_page_bytes(&shape, type);
}

/* ---- one page ------------------------------------------------------------------------------------------ */

static struct page_head *head_of(void *page)
{
    return (struct page_head *)(void *)((unsigned char *)page - PAGE_HEAD_BYTES);
}

static bool is_shared(void *page)
{
    return atomic_load_explicit(&head_of(page)->owners, memory_order_acquire) > 1;
}

static int32_t page_new(struct kv *kv, void **page, glm_error *err)
{
    glm_model *m = kv->model;
    uint64_t used = atomic_fetch_add(&m->kv_used, kv->page_bytes) + kv->page_bytes;
    struct page_head *head = NULL;

    if (!m->kv_cap || used <= m->kv_cap)
        head = mem_alloc(&m->mem, PAGE_HEAD_BYTES + kv->page_bytes);
    if (head) {
        atomic_init(&head->owners, 1);
        *page = (unsigned char *)head + PAGE_HEAD_BYTES;
        return GLM_OK;
    }
    atomic_fetch_sub(&m->kv_used, kv->page_bytes);
    if (m->kv_cap && used > m->kv_cap)
        return err_set(err, GLM_ENOMEM, 0, "kv_bytes",
            "the KV cache needs %llu bytes, the model's cap is %llu: raise it, close sessions or ask for fewer tokens",
            (unsigned long long)used, (unsigned long long)m->kv_cap);
    return err_nomem(err, "the KV cache");
}

static void page_drop(struct kv *kv, void *page)
{
    if (atomic_fetch_sub_explicit(&head_of(page)->owners, 1, memory_order_acq_rel) != 1)
        return;
    mem_free(&kv->model->mem, head_of(page));
    atomic_fetch_sub(&kv->model->kv_used, kv->page_bytes);
}

/* ---- a session's pages ----------------------------------------------------------------------------------- */

static void drop_pages(struct kv *kv, uint32_t from)
{
    while (kv->seq.n_page > from)
        page_drop(kv, kv->seq.page[--kv->seq.n_page]);
}

void kv_close(struct kv *kv)
{
    if (!kv->model)
        return;
    drop_pages(kv, 0);
    mem_free(&kv->model->mem, kv->seq.page);
    *kv = (struct kv){ 0 };
}

static int32_t make_table(struct kv *kv, uint32_t n_page, glm_error *err)
{
    void **page;
    if (n_page <= kv->capacity)
        return GLM_OK;
    page = mem_resize(&kv->model->mem, kv->seq.page, (size_t)n_page * sizeof *page);
    if (!page)
        return err_nomem(err, "the KV cache");
    kv->seq.page = page;
    kv->capacity = n_page;
    return GLM_OK;
}

/* A copy of a shared page takes its place: the other owners keep theirs. */
static int32_t make_own(struct kv *kv, uint32_t i, glm_error *err)
{
    void *page = NULL;
    int32_t rc;

    if (!is_shared(kv->seq.page[i]))
        return GLM_OK;
    rc = page_new(kv, &page, err);
    if (rc)
        return rc;
    memcpy(page, kv->seq.page[i], kv->page_bytes);
    page_drop(kv, kv->seq.page[i]);
    kv->seq.page[i] = page;
    return GLM_OK;
}

int32_t kv_reserve(struct kv *kv, uint64_t from, uint64_t n_pos, glm_error *err)
{
    uint32_t before = kv->seq.n_page, want = (uint32_t)((n_pos + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS);
    int32_t rc = make_table(kv, want, err);

    for (uint32_t i = (uint32_t)(from / KV_PAGE_ROWS); !rc && i < before && i < want; i++)
        rc = make_own(kv, i, err);
    while (!rc && kv->seq.n_page < want) {
        rc = page_new(kv, &kv->seq.page[kv->seq.n_page], err);
        kv->seq.n_page += !rc;
    }
    if (rc)
        drop_pages(kv, before);
    return rc;
}

int32_t kv_fork(struct kv *to, const struct kv *from, uint64_t n_pos, glm_error *err)
{
    uint32_t n = (uint32_t)((n_pos + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS);
    int32_t rc = make_table(to, n, err);

    for (uint32_t i = 0; !rc && i < n; i++) {
        atomic_fetch_add_explicit(&head_of(from->seq.page[i])->owners, 1, memory_order_relaxed);
        to->seq.page[to->seq.n_page++] = from->seq.page[i];
    }
    return rc;
}

uint64_t kv_shared_bytes(const struct kv *kv)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < kv->seq.n_page; i++)
        n += is_shared(kv->seq.page[i]);
    return n * kv->page_bytes;
}
