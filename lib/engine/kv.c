/* kv.c: the pages of a session's KV cache. A page holds 64 positions of every layer; pages are taken before
 * a turn begins and stay until the session ends, so that computing never allocates. The model's cap counts
 * the pages of all sessions. */
#include "engine_int.h"

#include <string.h>

/* Models whose positions cost little keep them in float32: exact, and too small to matter. */
#define KV_F32_BYTES_PER_POSITION (16u << 10)

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

static void drop_pages(struct kv *kv, uint32_t from)
{
    for (uint32_t i = from; i < kv->seq.n_page; i++) {
        mem_free(&kv->model->mem, kv->seq.page[i]);
        atomic_fetch_sub(&kv->model->kv_used, kv->page_bytes);
    }
    kv->seq.n_page = from < kv->seq.n_page ? from : kv->seq.n_page;
}

void kv_close(struct kv *kv)
{
    if (!kv->model)
        return;
    drop_pages(kv, 0);
    mem_free(&kv->model->mem, kv->seq.page);
    *kv = (struct kv){ 0 };
}

static int32_t add_page(struct kv *kv, glm_error *err)
{
    glm_model *m = kv->model;
    uint64_t used = atomic_fetch_add(&m->kv_used, kv->page_bytes) + kv->page_bytes;
    void *page = NULL;

    if (m->kv_cap && used > m->kv_cap) {
        atomic_fetch_sub(&m->kv_used, kv->page_bytes);
        return err_set(err, GLM_ENOMEM, 0, "kv_bytes",
            "the KV cache needs %llu bytes, the model's cap is %llu: raise it, close sessions or ask for fewer tokens",
            (unsigned long long)used, (unsigned long long)m->kv_cap);
    }
    page = mem_alloc(&m->mem, kv->page_bytes);
    if (!page) {
        atomic_fetch_sub(&m->kv_used, kv->page_bytes);
        return err_nomem(err, "the KV cache");
    }
    kv->seq.page[kv->seq.n_page++] = page;
    return GLM_OK;
}

int32_t kv_reserve(struct kv *kv, uint64_t n_pos, glm_error *err)
{
    uint32_t before = kv->seq.n_page, want = (uint32_t)((n_pos + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS);
    int32_t rc = GLM_OK;

    if (want > kv->capacity) {
        void **page = mem_resize(&kv->model->mem, kv->seq.page, (size_t)want * sizeof *page);
        if (!page)
            return err_nomem(err, "the KV cache");
        kv->seq.page = page;
        kv->capacity = want;
    }
    while (!rc && kv->seq.n_page < want)
        rc = add_page(kv, err);
    if (rc)
        drop_pages(kv, before);
    return rc;
}
