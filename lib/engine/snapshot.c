/* snapshot.c: sessions to snapshots and back. A session is loaded into one of its own, which is given out only once it is
 * whole; whatever fails, nothing else has changed. What the bytes mean lies in saved.c, how they lie in a file in
 * lib/io/snapshot.h. */
#include "../io/snapshot.h"
#include "engine_int.h"

#include <string.h>

#define CHUNK (64u << 10) /* of a section that is read into memory: more is taken only as bytes come */

/* ---- what model is it? ------------------------------------------------------------------------------------------ */

/* "air-q4_0.gguf (46 layers, width 4096, vocabulary 151552)": for people, so without its folder. */
static int32_t describe(glm_model *m, char to[SNAP_MODEL_MAX], glm_error *err)
{
    const char *path = ckpt_path(m->ckpt);
    size_t end = strlen(path), begin, size;
    struct buf b;
    bool failed;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    size = end - begin < 32 ? end - begin : 32;
    size = utf8_valid_prefix(path + begin, size);
    memset(to, 0, SNAP_MODEL_MAX);
    buf_init(&b, &m->mem);
    buf_put(&b, path + begin, size);
    buf_str(&b, " (");
    buf_u64(&b, m->info.n_layer);
    buf_str(&b, " layers, width ");
    buf_u64(&b, m->info.d_model);
    buf_str(&b, ", vocabulary ");
    buf_u64(&b, m->info.n_vocab);
    buf_str(&b, ")");
    if (!b.failed)
        memcpy(to, b.data, b.size < SNAP_MODEL_MAX ? b.size : SNAP_MODEL_MAX - 1);
    failed = b.failed;
    buf_free(&b);
    return failed ? err_nomem(err, "the model's name") : GLM_OK;
}

static bool layer_has(const struct net_layer *l, enum act_form form)
{
    return l->attn_form == form || l->o_form == form || l->ffn_form == form || l->down_form == form ||
           (l->v_fine && form == ACT_Q8);
}

static bool net_has(const struct net *n, enum act_form form)
{
    for (uint32_t i = 0; i < net_n_layer(n); i++)
        if (layer_has(&n->layers[i], form))
            return true;
    return false;
}

static uint64_t sum_row(const struct net *n, const struct weight *w, float *row, uint64_t sum)
{
    struct fp_mode mode = fp_enter();
    backend_decode(n->be, w, 0, row);
    fp_leave(mode);
    return checksum64(sum, row, (size_t)w->n_in * sizeof *row);
}

/* The fingerprint does not look at weights: a model that was trained further has the same one. The norms and a row of each
 * attention matrix tell such models apart without reading the file. */
static int32_t sum_weights(const struct net *n, struct mem *m, uint64_t *sum, glm_error *err)
{
    uint32_t d_model = n->hp.d_model, widest = n->hp.n_head * n->hp.d_head;
    float *row = mem_array(m, d_model > widest ? d_model : widest, sizeof *row);

    if (!row)
        return err_nomem(err, "a row of weights");
    *sum = checksum64(0, n->norm, d_model * sizeof *row);
    for (uint32_t i = 0; i < net_n_layer(n); i++) {
        const struct net_layer *l = &n->layers[i];
        *sum = checksum64(*sum, l->attn_norm, d_model * sizeof *row);
        *sum = checksum64(*sum, l->ffn_norm, d_model * sizeof *row);
        *sum = sum_row(n, &l->q, row, *sum);
        *sum = sum_row(n, &l->k, row, *sum);
        *sum = sum_row(n, &l->v, row, *sum);
        *sum = sum_row(n, &l->o, row, *sum);
    }
    mem_free(m, row);
    return GLM_OK;
}

static int32_t model_head(glm_model *m, struct snap_head *h, glm_error *err)
{
    int32_t rc;

    memset(h, 0, sizeof *h);
    memcpy(h->fingerprint, m->info.fingerprint, sizeof h->fingerprint);
    rc = describe(m, h->model, err);
    if (rc)
        return rc;
    h->rounding = (net_has(m->net, ACT_Q8) ? 1u : 0u) | (net_has(m->net, ACT_BF16) ? 2u : 0u);
    for (unsigned i = 0; i < SNAP_SECTION_COUNT; i++)
        h->plane[i] = 1;
    h->plane[SNAP_TOKENS] = sizeof(int32_t);
    return sum_weights(m->net, &m->mem, &h->weights, err);
}

/* The trunk's layers lie first in a page. Nothing is kept of the layer that predicts further tokens: it may be blank. */
static struct kv_shape saved_shape(const glm_model *m)
{
    struct kv_shape shape = net_kv_shape(m->net);
    shape.n_layer = m->info.n_layer;
    return shape;
}

static uint8_t kv_plane(uint32_t type) { return type == GLM_KV_F32 ? 4 : type == GLM_KV_BF16 ? 2 : 1; }

/* ---- save -------------------------------------------------------------------------------------------------------- */

struct parts {
    struct buf session, tools, messages;
};

static int32_t collect(const glm_session *s, struct parts *p, glm_error *err)
{
    saved_put_session(s, &p->session);
    if (s->tools)
        json_put_value(&p->tools, s->tools->doc.root);
    saved_put_messages(&s->messages, &p->messages);
    if (p->session.failed || p->tools.failed || p->messages.failed)
        return err_nomem(err, "a snapshot");
    return GLM_OK;
}

/* Only what `past` stands for: pages are taken for whole turns. */
static int32_t put_cache(struct snap_writer *w, const glm_session *s, glm_error *err)
{
    struct kv_shape shape = saved_shape(s->model);
    size_t offset, bytes;
    int32_t rc = GLM_OK;

    for (size_t at = 0; !rc && at < s->past.n; at += KV_PAGE_ROWS) {
        size_t n = s->past.n - at < KV_PAGE_ROWS ? s->past.n - at : KV_PAGE_ROWS;
        const char *page = s->kv.seq.page[at / KV_PAGE_ROWS];
        for (size_t i = 0; !rc && kv_page_run(&shape, s->kv.seq.type, (uint32_t)n, i, &offset, &bytes); i++)
            rc = snap_put(w, page + offset, bytes, err);
    }
    return rc;
}

static int32_t write_all(glm_session *s, const struct snap_sink *to, const struct parts *p, glm_error *err)
{
    struct kv_shape shape = saved_shape(s->model);
    struct snap_writer *w = NULL;
    struct snap_head h;
    int32_t rc = model_head(s->model, &h, err);

    h.kv_type = s->kv.seq.type;
    h.n_ctx = s->n_ctx;
    h.plane[SNAP_KV] = kv_plane(h.kv_type);
    h.bytes[SNAP_SESSION] = p->session.size;
    h.bytes[SNAP_TOOLS] = p->tools.size;
    h.bytes[SNAP_MESSAGES] = p->messages.size;
    h.bytes[SNAP_TOKENS] = (uint64_t)s->past.n * sizeof(int32_t);
    h.bytes[SNAP_KV] = (uint64_t)s->past.n * kv_position_bytes(&shape, h.kv_type);
    if (!rc)
        rc = snap_create(&s->model->mem, to, &h, &w, err);
    if (!rc)
        rc = snap_put(w, p->session.data, p->session.size, err);
    if (!rc)
        rc = snap_put(w, p->tools.data, p->tools.size, err);
    if (!rc)
        rc = snap_put(w, p->messages.data, p->messages.size, err);
    if (!rc)
        rc = snap_put(w, s->past.id, s->past.n * sizeof(int32_t), err);
    if (!rc)
        rc = put_cache(w, s, err);
    snap_writer_close(w);
    return rc;
}

static int32_t check_still(const glm_session *s, glm_error *err)
{
    if (s->events.head < s->events.n || s->failed)
        return err_set(err, GLM_ESTATE, s->events.n - s->events.head, NULL, "events are waiting: step until they are taken");
    if (s->state != SESSION_IDLE && s->state != SESSION_TOOLS)
        return err_set(err, GLM_ESTATE, 0, NULL, "the session is computing: step to the end or cancel first");
    return GLM_OK;
}

static int32_t save(glm_session *s, const struct snap_sink *to, glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct parts p;
    int32_t rc;

    buf_init(&p.session, m);
    buf_init(&p.tools, m);
    buf_init(&p.messages, m);
    rc = collect(s, &p, err);
    if (!rc)
        rc = write_all(s, to, &p, err);
    buf_free(&p.session);
    buf_free(&p.tools);
    buf_free(&p.messages);
    return rc;
}

static int32_t to_host(void *user, const void *data, size_t size, glm_error *err)
{
    const glm_stream *to = user;
    int32_t status = to->write(to->user, data, size);
    return status ? err_set(err, GLM_EIO, 0, "write", "the host's write returned %d", status) : GLM_OK;
}

int32_t session_save_to(glm_session *s, const glm_stream *to, glm_error *err)
{
    glm_stream copy = *to;
    struct snap_sink sink = { &copy, to_host };
    int32_t rc = check_still(s, err);
    return rc ? rc : save(s, &sink, err);
}

static int32_t to_file(void *user, const void *data, size_t size, glm_error *err)
{
    return replace_write(user, data, size, err);
}

int32_t session_save(glm_session *s, const char *path, glm_error *err)
{
    struct replacement file;
    struct snap_sink sink = { &file, to_file };
    int32_t rc = check_still(s, err);

    if (!rc)
        rc = replace_begin(&s->model->mem, NULL, path, &file, err);
    if (rc)
        return rc;
    rc = save(s, &sink, err);
    if (!rc)
        return replace_commit(&file, err);
    replace_abandon(&file);
    return rc;
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

struct loading {
    struct snap_reader *reader;
    struct snap_head head;
    const char *where;
    glm_session *s;
    size_t n_past;
};

static int32_t check_model(const struct loading *l, glm_model *m, glm_error *err)
{
    const struct snap_head *h = &l->head;
    struct snap_head own;
    int32_t rc = model_head(m, &own, err);

    if (rc)
        return rc;
    if (memcmp(h->fingerprint, own.fingerprint, sizeof own.fingerprint) != 0)
        return err_set(err, GLM_EMISMATCH, 0, l->where, "the snapshot belongs to %s; this model is %s", h->model, own.model);
    if (h->weights != own.weights)
        return err_set(err, GLM_EMISMATCH, 0, l->where,
            "the snapshot belongs to %s; this model, %s, has its shape but other weights", h->model, own.model);
    if (h->rounding != own.rounding)
        return err_set(err, GLM_EMISMATCH, 0, l->where, "the snapshot was computed with %s activations: open the model so",
            h->rounding ? "rounded" : "float32");
    return GLM_OK;
}

/* Every length is known to be possible before memory is taken for it. */
static int32_t check_sizes(struct loading *l, const glm_model *m, glm_error *err)
{
    const struct snap_head *h = &l->head;
    struct kv_shape shape = saved_shape(m);
    uint64_t n = h->bytes[SNAP_TOKENS] / sizeof(int32_t), kv = 0;
    bool known = h->kv_type >= GLM_KV_F32 && h->kv_type <= GLM_KV_FP8;

    if (known && !ck_mul(n, kv_position_bytes(&shape, h->kv_type), &kv))
        known = false;
    if (!known || h->n_ctx == 0 || h->n_ctx > m->info.n_ctx_train || n > h->n_ctx || h->bytes[SNAP_KV] != kv ||
        h->plane[SNAP_TOKENS] != sizeof(int32_t) || h->plane[SNAP_KV] != kv_plane(h->kv_type))
        return err_set(err, GLM_EFORMAT, 0, l->where, "the snapshot's header makes no sense for the model that it names");
    l->n_past = (size_t)n;
    return GLM_OK;
}

static int32_t check_options(const struct loading *l, const glm_session_options *opt, uint32_t *n_ctx, glm_error *err)
{
    static const char *const names[] = { "auto", "float32", "bfloat16", "int8", "fp8" };
    const struct snap_head *h = &l->head;

    *n_ctx = opt->n_ctx ? opt->n_ctx : h->n_ctx;
    if (opt->kv_type != GLM_KV_AUTO && opt->kv_type != h->kv_type)
        return err_set(err, GLM_EMISMATCH, h->kv_type, "kv_type", "the snapshot's KV cache is %s, not %s: leave kv_type 0",
            names[h->kv_type], names[opt->kv_type]);
    if (l->n_past > *n_ctx)
        return err_set(err, GLM_ECONTEXT, l->n_past, "n_ctx", "the snapshot holds %zu tokens, a context of %u is asked for",
            l->n_past, *n_ctx);
    return GLM_OK;
}

static int32_t read_section(struct loading *l, enum snap_section which, struct buf *b, glm_error *err)
{
    uint64_t left = l->head.bytes[which];
    int32_t rc = GLM_OK;

    buf_clear(b);
    while (!rc && left) {
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        if (!buf_reserve(b, n))
            return err_nomem(err, "a snapshot");
        rc = snap_get(l->reader, b->data + b->size, n, err);
        b->size += n;
        left -= n;
    }
    return rc;
}

static int32_t read_tools(struct loading *l, struct buf *b, glm_error *err)
{
    glm_error why = GLM_ERROR_INIT;
    int32_t rc = read_section(l, SNAP_TOOLS, b, err);

    if (rc || b->size == 0)
        return rc;
    rc = session_tools(l->s, b->data, b->size, &why);
    if (rc == GLM_ENOMEM)
        return err_nomem(err, "tools");
    return rc ? err_set(err, GLM_EFORMAT, snap_offset(l->reader), l->where, "the snapshot's tools: %s", why.message) : GLM_OK;
}

/* What is not tokens or cache. The session's own part lies in front, but is looked at last: it speaks of messages. */
static int32_t read_conversation(struct loading *l, struct buf *session, struct buf *other, glm_error *err)
{
    struct saved in;
    int32_t rc = read_section(l, SNAP_SESSION, session, err);

    if (!rc)
        rc = read_tools(l, other, err);
    if (!rc)
        rc = read_section(l, SNAP_MESSAGES, other, err);
    if (rc)
        return rc;
    in = (struct saved){ other->data, other->size, false, snap_offset(l->reader), l->where };
    rc = saved_take_messages(&in, l->s, err);
    in = (struct saved){ session->data, session->size, false, snap_offset(l->reader), l->where };
    return rc ? rc : saved_take_session(&in, l->s, err);
}

static int32_t read_tokens(struct loading *l, glm_error *err)
{
    glm_session *s = l->s;
    int32_t ids[1024];
    int32_t rc = GLM_OK;

    while (!rc && s->past.n < l->n_past) {
        size_t n = l->n_past - s->past.n < ARRAY_LEN(ids) ? l->n_past - s->past.n : ARRAY_LEN(ids);
        rc = snap_get(l->reader, ids, n * sizeof *ids, err);
        for (size_t i = 0; !rc && i < n; i++)
            if (ids[i] < 0 || (uint32_t)ids[i] >= s->model->info.n_vocab)
                rc = err_set(err, GLM_EFORMAT, snap_offset(l->reader), l->where,
                    "token %zu of the snapshot, %d, is outside the vocabulary", s->past.n + i, ids[i]);
        if (!rc)
            ids_append(&s->past, ids, n);
        if (s->past.failed)
            return err_nomem(err, "token ids");
    }
    return rc;
}

static int32_t read_cache(struct loading *l, glm_error *err)
{
    struct kv *kv = &l->s->kv;
    struct kv_shape shape = saved_shape(l->s->model);
    size_t offset, bytes;
    int32_t rc = GLM_OK;

    for (size_t at = 0; !rc && at < l->n_past; at += KV_PAGE_ROWS) {
        size_t n = l->n_past - at < KV_PAGE_ROWS ? l->n_past - at : KV_PAGE_ROWS;
        rc = kv_reserve(kv, at, at + n, err);
        for (size_t i = 0; !rc && kv_page_run(&shape, kv->seq.type, (uint32_t)n, i, &offset, &bytes); i++)
            rc = snap_get(l->reader, (char *)kv->seq.page[at / KV_PAGE_ROWS] + offset, bytes, err);
    }
    return rc;
}

static int32_t read_all(struct loading *l, glm_model *m, const glm_session_options *opt, glm_error *err)
{
    glm_session_options o = { .struct_size = sizeof o, .kv_type = l->head.kv_type, .event_bytes = opt->event_bytes };
    struct buf session, other;
    int32_t rc = check_model(l, m, err);

    o.speculation = opt->speculation;
    if (!rc)
        rc = check_sizes(l, m, err);
    if (!rc)
        rc = check_options(l, opt, &o.n_ctx, err);
    if (!rc)
        rc = session_open(m, &o, &l->s, err);
    if (rc)
        return rc;
    buf_init(&session, &m->mem);
    buf_init(&other, &m->mem);
    rc = read_conversation(l, &session, &other, err);
    buf_free(&session);
    buf_free(&other);
    if (!rc && opt->overflow)
        l->s->overflow = opt->overflow;
    if (!rc)
        rc = read_tokens(l, err);
    return rc ? rc : read_cache(l, err);
}

static int32_t load(glm_model *m, const struct snap_source *from, const glm_session_options *opt, bool whole,
    glm_session **out, glm_error *err)
{
    struct loading l = { .where = from->where };
    int32_t rc;

    *out = NULL;
    if (!m->net)
        return err_set(err, GLM_ESTATE, 0, NULL, "the model was opened without weights: nothing can be computed");
    rc = snap_open(&m->mem, from, &l.head, &l.reader, err);
    if (!rc)
        rc = read_all(&l, m, opt, err);
    if (!rc && whole)
        rc = snap_at_end(l.reader, err);
    snap_reader_close(l.reader);
    if (rc) {
        session_close(l.s);
        return rc;
    }
    *out = l.s;
    return GLM_OK;
}

static int32_t from_host(void *user, void *to, size_t size, size_t *got, glm_error *err)
{
    const glm_stream *from = user;
    int32_t status = from->read(from->user, to, size, got);
    return status ? err_set(err, GLM_EIO, 0, "read", "the host's read returned %d", status) : GLM_OK;
}

int32_t session_load_from(glm_model *m, const glm_stream *from, const glm_session_options *opt, glm_session **out,
    glm_error *err)
{
    glm_stream copy = *from;
    struct snap_source source = { &copy, from_host, "snapshot" };
    return load(m, &source, opt, false, out, err);
}

/* Snapshots are the operating system's files, like those that session_save writes, whatever hooks the model has. */
struct file_source {
    struct file file;
    const char *path;
    uint64_t at;
};

static int32_t from_file(void *user, void *to, size_t size, size_t *got, glm_error *err)
{
    struct file_source *f = user;
    uint64_t left = f->file.size - f->at;
    size_t n = left < size ? (size_t)left : size;
    int32_t rc = n ? fs_read(&f->file, f->at, to, n, f->path, err) : GLM_OK;

    *got = rc ? 0 : n;
    f->at += *got;
    return rc;
}

int32_t session_load(glm_model *m, const char *path, const glm_session_options *opt, glm_session **out, glm_error *err)
{
    struct fs fs;
    struct file_source f = { .path = path };
    struct snap_source source = { &f, from_file, path };
    int32_t rc;

    *out = NULL;
    fs_init(&fs, NULL);
    rc = fs_open(&fs, path, &f.file, err);
    if (rc)
        return rc;
    rc = load(m, &source, opt, true, out, err);
    fs_close(&f.file);
    return rc;
}
