/* tokens.c: the token level. A session's queue of ids is computed chunk by chunk through forward passes; the
 * conversation level is built on it. */
#include "engine_int.h"

#include <string.h>

#define LOGIT_BYTES (64u << 20) /* of a chunk whose rows all want logits */

static uint32_t min_u64(uint64_t a, uint64_t b) { return (uint32_t)(a < b ? a : b); }

static bool ids_reserve(struct ids *v, size_t n)
{
    int32_t *id;
    if (n <= v->capacity)
        return true;
    id = mem_resize(v->mem, v->id, n * sizeof *id);
    if (!id)
        return false;
    v->id = id;
    v->capacity = n;
    return true;
}

static uint32_t rows_with_logits(const glm_model *m, uint32_t rows)
{
    uint64_t each = (uint64_t)m->info.n_vocab * sizeof(float);
    uint64_t n = LOGIT_BYTES / each;
    return rows == GLM_ROWS_ALL ? min_u64(n ? n : 1, PREFILL_ROWS) : 1;
}

/* A pass with room for n_row rows, n_logit of them with logits. The old one goes only when the new one is there. */
static int32_t reserve_pass(glm_session *s, uint32_t n_row, uint32_t n_logit, glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct pass *pass;
    uint32_t *rows;
    int32_t rc;

    if (s->draft.mode != GLM_SPECULATION_OFF) { /* the next token and a draft */
        n_row = n_row < 2 ? 2 : n_row;
        n_logit = n_logit < 2 ? 2 : n_logit;
    }
    rc = draft_reserve(s, n_row > s->pass_rows ? n_row : s->pass_rows, err);
    if (rc || (s->pass && n_row <= s->pass_rows && n_logit <= s->pass_logits))
        return rc;
    n_row = n_row > s->pass_rows ? n_row : s->pass_rows;
    n_logit = n_logit > s->pass_logits ? n_logit : s->pass_logits;
    rows = mem_array(m, n_logit, sizeof *rows);
    if (!rows)
        return err_nomem(err, "logit rows");
    rc = pass_open(s->model->net, n_row, n_logit, s->n_ctx, &pass, err);
    if (rc) {
        mem_free(m, rows);
        return rc;
    }
    pass_close(s->pass);
    mem_free(m, s->logit_rows);
    s->pass = pass;
    s->logit_rows = rows;
    s->pass_rows = n_row;
    s->pass_logits = n_logit;
    s->has_logits = false;
    draft_drop(s);
    return GLM_OK;
}

static int32_t reserve_tokens(glm_session *s, uint64_t from, uint64_t n_pos, glm_error *err)
{
    int32_t rc;
    if (!ids_reserve(&s->past, n_pos) || !ids_reserve(&s->queue, s->queue.n + n_pos))
        return err_nomem(err, "token ids");
    rc = kv_reserve(&s->kv, from, n_pos, err);
    if (!rc && !s->sampler)
        rc = sampler_open(&s->model->mem, s->model->info.n_vocab, &s->sampler, err);
    return rc;
}

/* A pass of the session's own, for the chunks of n_new tokens; or in a batch, whose pass is shared, room for the results
 * that the session keeps when that pass goes on to others. */
static int32_t reserve_results(glm_session *s, uint64_t n_new, uint32_t rows, glm_error *err)
{
    uint32_t n_row = min_u64(n_new, PREFILL_ROWS), n_logit = rows_with_logits(s->model, rows);
    const glm_model_info *info = &s->model->info;

    if (!s->in_batch)
        return reserve_pass(s, n_row, min_u64(n_logit, n_row), err);
    if (rows == GLM_ROWS_ALL || s->logits.capacity >= info->n_vocab * sizeof(float))
        return GLM_OK;
    s->has_logits = false;
    buf_clear(&s->logits);
    buf_clear(&s->hidden);
    if (!buf_reserve(&s->hidden, info->d_model * sizeof(float)) || !buf_reserve(&s->logits, info->n_vocab * sizeof(float)))
        return err_nomem(err, "the logits of a session");
    return GLM_OK;
}

/* Everything that this will need, so that later steps allocate nothing. */
int32_t tokens_reserve(glm_session *s, uint64_t from, uint64_t n_new, uint64_t n_pos, glm_error *err)
{
    int32_t rc = reserve_tokens(s, from, n_pos, err);
    return rc ? rc : reserve_results(s, n_new, GLM_ROWS_LAST, err);
}

int32_t tokens_ready(glm_session *s, glm_error *err)
{
    if (s->pass_running && !s->in_batch)
        return GLM_OK;
    return reserve_results(s, s->queue.n - s->queue_done, tokens_all_rows(s) ? GLM_ROWS_ALL : GLM_ROWS_LAST, err);
}

void tokens_truncate(glm_session *s, size_t n)
{
    if (n < s->past.n) {
        s->past.n = n;
        s->has_logits = false;
    }
    draft_truncate(s, n);
    s->n_fed = s->n_kept = 0; /* no feed's rows any more */
    tokens_drop_queue(s);
}

/* Forgets what was not computed. Keys and values beyond `past` may be half-written; they are never read. */
void tokens_drop_queue(glm_session *s)
{
    s->queue.n = s->queue_done = 0;
    s->pass_running = false;
    draft_drop(s);
    batch_leave(s);
}

/* ---- chunks ----------------------------------------------------------------------------------------- */

bool tokens_all_rows(const glm_session *s) { return s->state == SESSION_FEED && s->feed_rows == GLM_ROWS_ALL; }

/* Most rows with logits in one pass. */
uint32_t tokens_logit_rows(const glm_model *m) { return rows_with_logits(m, GLM_ROWS_ALL); }

void tokens_chunk(const glm_session *s, struct chunk *c, uint32_t *logit_rows)
{
    c->n_logit = 0;
    if (tokens_all_rows(s))
        while (c->n_logit < c->n_row) {
            logit_rows[c->logit + c->n_logit] = c->row + c->n_logit;
            c->n_logit++;
        }
    else if (c->n_row == s->queue.n - s->queue_done)
        logit_rows[c->logit + c->n_logit++] = c->row + c->n_row - 1;
}

static int32_t keep_rows(glm_session *s, const struct pass *p, const struct chunk *c, glm_error *err)
{
    const glm_model_info *info = &s->model->info;

    buf_put(&s->logits, pass_logits(p, c->logit), (size_t)c->n_row * info->n_vocab * sizeof(float));
    buf_put(&s->hidden, pass_hidden(p, c->row), (size_t)c->n_row * info->d_model * sizeof(float));
    if (s->logits.failed || s->hidden.failed)
        return err_nomem(err, "the logits of all rows");
    s->n_kept += c->n_row;
    return GLM_OK;
}

static const float *kept(const struct buf *b, uint64_t row, uint32_t n)
{
    return (const float *)(const void *)b->data + row * n;
}

int32_t tokens_computed(glm_session *s, const struct pass *p, const struct chunk *c, glm_error *err)
{
    const glm_model_info *info = &s->model->info;
    bool all = tokens_all_rows(s);
    int32_t rc = all ? keep_rows(s, p, c, err) : GLM_OK;

    if (rc)
        return rc;
    ids_append(&s->past, s->queue.id + s->queue_done, c->n_row);
    s->queue_done += c->n_row;
    draft_computed(s, p, c->row, c->n_row);
    if (s->queue_done < s->queue.n)
        return GLM_OK;
    s->queue.n = s->queue_done = 0;
    s->has_logits = true;
    s->last_logits = all ? kept(&s->logits, s->n_kept - 1, info->n_vocab) : pass_logits(p, c->logit);
    s->last_hidden = all ? kept(&s->hidden, s->n_kept - 1, info->d_model) : pass_hidden(p, c->row + c->n_row - 1);
    return GLM_OK;
}

void tokens_keep_last(glm_session *s)
{
    if (!s->has_logits || s->last_logits == kept(&s->logits, 0, 0) || s->n_kept)
        return;
    memcpy(s->logits.data, s->last_logits, s->model->info.n_vocab * sizeof(float));
    memcpy(s->hidden.data, s->last_hidden, s->model->info.d_model * sizeof(float));
    s->last_logits = kept(&s->logits, 0, 0);
    s->last_hidden = kept(&s->hidden, 0, 0);
}

static int32_t begin_chunk(glm_session *s, glm_error *err)
{
    struct chunk *c = &s->chunk;
    size_t left = s->queue.n - s->queue_done;
    struct batch b = { .ids = s->queue.id + s->queue_done, .segments = &s->segment, .n_segment = 1 };

    *c = (struct chunk){ .n_row = min_u64(left, tokens_all_rows(s) ? s->pass_logits : s->pass_rows) };
    tokens_chunk(s, c, s->logit_rows);
    s->segment = (struct segment){ .seq = 0, .row = 0, .n_row = c->n_row, .pos = (uint32_t)s->past.n };
    s->seq = &s->kv.seq;
    b.n_row = c->n_row;
    b.seqs = &s->seq;
    b.logit_rows = s->logit_rows;
    b.n_logit = c->n_logit;
    if (draft_joins(s)) {
        b.ids = s->draft.ids;
        b.n_row = s->segment.n_row = b.n_logit = 2;
        s->logit_rows[1] = 1;
    }
    s->has_logits = false;
    return pass_begin(s->pass, &b, err);
}

int32_t tokens_run(glm_session *s, uint64_t deadline, bool *done, glm_error *err)
{
    const atomic_bool *cancel = &s->cancel;
    const struct stop stop = { &cancel, 1 };
    int32_t rc = GLM_OK;

    *done = false;
    if (!s->pass_running && draft_due(s)) {
        batch_leave(s);
        rc = draft_run(s, deadline, &stop, done, err);
        if (rc || !*done || (deadline && os_now_ns() >= deadline)) {
            *done = false;
            return rc;
        }
        *done = false;
    }
    if (!s->pass_running) {
        batch_leave(s);
        rc = begin_chunk(s, err);
        if (rc)
            return rc;
        s->pass_running = true;
    }
    rc = pass_run(s->pass, deadline, &stop, done, err);
    if (rc || !*done)
        return rc;
    s->pass_running = false;
    return tokens_computed(s, s->pass, &s->chunk, err);
}

/* Results of every row of a feed, so that computing them cannot fail for want of memory. */
static int32_t reserve_rows(glm_session *s, size_t n, glm_error *err)
{
    const glm_model_info *info = &s->model->info;
    uint64_t logits, hidden;
    if (!ck_mul(n, info->n_vocab * sizeof(float), &logits) || !ck_mul(n, info->d_model * sizeof(float), &hidden))
        return err_nomem(err, "the logits of all rows");
    buf_clear(&s->logits);
    buf_clear(&s->hidden);
    s->n_kept = 0;
    s->has_logits = false;
    if (!buf_reserve(&s->logits, logits) || !buf_reserve(&s->hidden, hidden))
        return err_nomem(err, "the logits of all rows");
    return GLM_OK;
}

/* ---- what the host does with tokens -------------------------------------------------------------------- */

int32_t session_feed(glm_session *s, const int32_t *ids, size_t n, uint32_t rows, glm_error *err)
{
    uint64_t n_pos = (uint64_t)s->past.n + n;
    int32_t rc;

    if (s->state != SESSION_IDLE || s->events.head < s->events.n)
        return err_set(err, GLM_ESTATE, 0, NULL, "the session is computing: step it to the end or cancel first");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= s->model->info.n_vocab)
            return err_set(err, GLM_EINVAL, i, "ids", "token id %d is outside the vocabulary of %u", ids[i],
                s->model->info.n_vocab);
    if (n_pos > s->n_ctx)
        return err_set(err, GLM_ECONTEXT, s->n_ctx, NULL, "%zu tokens and %zu in the cache exceed the context of %u",
            n, s->past.n, s->n_ctx);
    rc = constrain_fed(s, ids, n, err);
    if (rc)
        return rc;
    rc = reserve_tokens(s, s->past.n, n_pos, err); /* the first step takes the work space */
    if (!rc && rows == GLM_ROWS_ALL)
        rc = reserve_rows(s, n, err);
    if (rc) {
        constrain_unfed(s, n);
        return rc;
    }
    ids_append(&s->queue, ids, n);
    buf_clear(&s->logits);
    buf_clear(&s->hidden);
    s->has_logits = false;
    s->n_fed = n;
    s->n_kept = 0;
    s->feed_rows = rows;
    s->state = SESSION_FEED;
    atomic_store(&s->cancel, false);
    return GLM_OK;
}

/* The last row's results are at last_logits and last_hidden, those of a feed with GLM_ROWS_ALL kept. */
static int32_t find_row(const glm_session *s, uint64_t row, bool *last, glm_error *err)
{
    uint64_t n = s->n_fed ? s->n_fed : 1;

    if (s->state != SESSION_IDLE || !s->has_logits)
        return err_set(err, GLM_ESTATE, 0, NULL, "no results to read: feed tokens and step to GLM_EVENT_READY first");
    *last = row == GLM_LAST_ROW || row == n - 1;
    if (!*last && row >= n)
        return err_set(err, GLM_EINVAL, row, "row", "the last feed had %llu rows", (unsigned long long)s->n_fed);
    if (!*last && s->n_kept == 0)
        return err_set(err, GLM_ESTATE, row, "row", "only the last row was kept: feed with GLM_ROWS_ALL");
    return GLM_OK;
}

int32_t session_logits(glm_session *s, uint64_t row, const float **logits, glm_error *err)
{
    bool last = false;
    int32_t rc = find_row(s, row, &last, err);
    if (!rc)
        *logits = last ? s->last_logits : kept(&s->logits, row, s->model->info.n_vocab);
    return rc;
}

int32_t session_hidden(glm_session *s, uint64_t row, const float **hidden, glm_error *err)
{
    bool last = false;
    int32_t rc = find_row(s, row, &last, err);
    if (!rc)
        *hidden = last ? s->last_hidden : kept(&s->hidden, row, s->model->info.d_model);
    return rc;
}

/* The draw for the next position. Greedy and sampled alike depend on the logits, the options and the position only. */
int32_t tokens_draw(glm_session *s, const struct sample_options *o, const uint32_t *mask, int32_t *id, glm_error *err)
{
    return sample_draw(s->sampler, o, s->last_logits, mask, s->past.id, s->past.n, s->past.n, id, err);
}

int32_t session_mask(glm_session *s, const uint32_t **bits, glm_error *err)
{
    int32_t rc;
    if (s->state != SESSION_IDLE)
        return err_set(err, GLM_ESTATE, 0, NULL, "a turn is under way: masks are for the token level");
    rc = constrain_tokens(s, bits, err);
    if (!rc && !*bits)
        return err_set(err, GLM_ESTATE, 0, NULL, "every token may come: give an answer_schema or answer_pattern first");
    return rc;
}

int32_t session_sample(glm_session *s, int32_t *id, glm_error *err)
{
    struct sample_options o;
    const uint32_t *mask;
    int32_t rc;
    if (s->state != SESSION_IDLE || !s->has_logits)
        return err_set(err, GLM_ESTATE, 0, NULL, "no logits to sample from: feed tokens and step to GLM_EVENT_READY first");
    rc = turn_sample_options(s, &o, err);
    if (!rc)
        rc = constrain_tokens(s, &mask, err);
    return rc ? rc : tokens_draw(s, &o, mask, id, err);
}
