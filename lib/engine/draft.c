/* draft.c: speculative decoding with the checkpoint's own multi-token-prediction (MTP) layer. From the trunk's state at
 * position p and the token at p + 1 that layer foretells the token at p + 2. The trunk then computes the next token and the
 * foretold one in one pass; if it draws the same token, its second row gives another one at once.
 *
 * Every token is drawn from the trunk's logits of its position with that position's random number: the text is the same
 * with and without drafts, bit for bit. Drafts are drawn with the same random number as the token that they foretell,
 * which makes them agree more often than the most likely token would at a temperature.
 *
 * The MTP layer has keys and values of its own in the session's pages. They are right below n_pos; the trunk's states from
 * there on wait in `hidden` until the layer is run over them. Drafts are made for sessions that step alone: in a batch the
 * rows of others pay more.
 *
 * A draft that came true is taken up in the step after: the host has had the events of the token before by then, and has
 * perhaps answered a call.
 *
 * Cost of a token without drafts: one pass of one row. With: a pass of two rows and one of the MTP layer for 1 + a tokens,
 * a the share of right drafts. Whether that pays depends on the machine and the model, so it is measured.
 */
#include "engine_int.h"

#include <string.h>

#define PROBE_PLAIN 8u      /* tokens timed without drafts, */
#define PROBE_DRAFTED 24u   /* and with them, before they are compared */
#define PROBE_AGAIN 512u    /* tokens until the times without are taken again */

void draft_init(struct draft *d, const glm_session *s, uint32_t mode)
{
    bool can = s->model->net->hp.n_nextn > 0 && mode != GLM_SPECULATION_OFF;
    *d = (struct draft){ .mode = can ? mode : GLM_SPECULATION_OFF };
}

void draft_free(struct draft *d, struct mem *m)
{
    mem_free(m, d->hidden);
    mem_free(m, d->ids);
    d->hidden = NULL;
    d->ids = NULL;
}

int32_t draft_reserve(glm_session *s, uint32_t n_row, glm_error *err)
{
    struct draft *d = &s->draft;
    struct mem *m = &s->model->mem;
    size_t width = s->model->info.d_model * sizeof(float);
    float *hidden;
    int32_t *ids;

    if (d->mode == GLM_SPECULATION_OFF || n_row + 2 <= d->capacity)
        return GLM_OK;
    hidden = mem_array(m, (size_t)n_row + 2, width);
    ids = mem_array(m, (size_t)n_row + 2, sizeof *ids);
    if (!hidden || !ids) {
        mem_free(m, hidden);
        mem_free(m, ids);
        return err_nomem(err, "drafts");
    }
    if (d->n_hidden)
        memcpy(hidden, d->hidden, d->n_hidden * width);
    draft_free(d, m);
    d->hidden = hidden;
    d->ids = ids;
    d->capacity = n_row + 2;
    return GLM_OK;
}

int32_t draft_copy(glm_session *to, const glm_session *from, glm_error *err)
{
    const struct draft *f = &from->draft;
    struct draft *d = &to->draft;
    int32_t rc;

    if (d->mode == GLM_SPECULATION_OFF || f->capacity == 0)
        return GLM_OK;
    rc = draft_reserve(to, (uint32_t)f->capacity - 2, err);
    if (rc)
        return rc;
    memcpy(d->hidden, f->hidden, f->n_hidden * from->model->info.d_model * sizeof(float));
    d->n_hidden = f->n_hidden;
    d->n_pos = f->n_pos;
    d->on = f->on;
    d->time = f->time;
    return GLM_OK;
}

/* ---- does it pay ------------------------------------------------------------------------------------------------------ */

/* Or is it not known yet? */
static bool worth_it(const struct draft *d)
{
    const struct draft_time *t = &d->time;
    if (d->mode != GLM_SPECULATION_AUTO)
        return d->mode == GLM_SPECULATION_ON;
    return t->n_drafted < PROBE_DRAFTED || t->n_plain < PROBE_PLAIN || t->drafted < t->plain;
}

static void share_time(glm_session *s)
{
    monitor_enter(s->model->lock);
    s->model->draft_time = s->draft.time;
    monitor_leave(s->model->lock);
}

/* A session that has measured nothing yet begins with what others found. */
static void learn_time(glm_session *s)
{
    struct draft_time *t = &s->draft.time;
    if (s->draft.mode != GLM_SPECULATION_AUTO || t->plain > 0)
        return;
    monitor_enter(s->model->lock);
    *t = s->model->draft_time;
    monitor_leave(s->model->lock);
}

double draft_speedup(const glm_session *s)
{
    const struct draft_time *t = &s->draft.time;
    return t->of_drafted >= PROBE_DRAFTED && t->of_plain >= PROBE_PLAIN ? t->plain / t->drafted : 0;
}

/* Some tokens without drafts give the time to compare with. */
static bool is_time(const struct draft *d)
{
    return worth_it(d) && (d->mode == GLM_SPECULATION_ON || d->time.n_plain >= PROBE_PLAIN);
}

/* ---- what is known of the past ----------------------------------------------------------------------------------- */

/* States wait for positions [n_pos, past.n). */
static bool is_whole(const glm_session *s) { return s->draft.n_pos + s->draft.n_hidden == s->past.n; }

void draft_drop(glm_session *s) { s->draft.has = s->draft.running = s->draft.verify = false; }

size_t draft_begin(glm_session *s, size_t common)
{
    struct draft *d = &s->draft;
    size_t known = common ? common - 1 : 0;

    learn_time(s);
    draft_drop(s);
    d->on = worth_it(d);
    if (!d->on)
        return common;
    if (d->n_pos > known)
        d->n_hidden = 0;
    d->n_pos = d->n_pos < known ? d->n_pos : known;
    if (d->n_pos + d->n_hidden > common)
        d->n_hidden = common - d->n_pos;
    if (d->n_pos + d->n_hidden == common)
        return common;
    d->n_hidden = 0;
    if (d->n_pos == known) /* one token again, for its state */
        return known;
    d->on = false;
    return common;
}

void draft_truncate(glm_session *s, size_t n)
{
    struct draft *d = &s->draft;
    draft_drop(s);
    if (d->n_pos > n)
        d->n_pos = n;
    if (d->n_pos + d->n_hidden > n)
        d->n_hidden = n - d->n_pos;
}

void draft_computed(glm_session *s, const struct pass *p, uint32_t row, uint32_t n_row)
{
    struct draft *d = &s->draft;
    size_t width = s->model->info.d_model;

    if (!d->on)
        return;
    if (d->n_hidden + n_row > d->capacity || d->n_pos + d->n_hidden + n_row != s->past.n) {
        d->on = false; /* it has fallen behind: states are lost */
        d->n_hidden = 0;
        return;
    }
    memcpy(d->hidden + d->n_hidden * width, pass_hidden(p, row), n_row * width * sizeof(float));
    d->n_hidden += n_row;
}

/* Into a mean of the last tokens. One that took far longer than others was interrupted: it counts as a slow one. */
static void add_time(double *mean, uint32_t *of, double each, uint64_t n, double usual)
{
    if (usual > 0 && each > 4 * usual)
        each = 4 * usual;
    *of += n < DRAFT_MEAN - *of ? (uint32_t)n : DRAFT_MEAN - *of;
    *mean += (each - *mean) * (n < *of ? (double)n / *of : 1.0);
}

/* ns: since the last call; n: tokens that came of it. Now and then other sessions hear of the means. */
void draft_timed(glm_session *s, uint64_t ns, uint64_t n)
{
    struct draft *d = &s->draft;
    struct draft_time *t = &d->time;
    double each;

    d->ns += ns;
    if (d->mode != GLM_SPECULATION_AUTO || n == 0)
        return;
    each = (double)d->ns / (double)n;
    d->ns = 0;
    if (d->caught_up) { /* that is paid once */
        d->caught_up = d->with_draft = false;
        return;
    }
    if (d->with_draft) {
        t->n_drafted += n;
        add_time(&t->drafted, &t->of_drafted, each, n, t->plain);
    } else {
        t->n_plain += n;
        add_time(&t->plain, &t->of_plain, each, n, t->plain);
    }
    d->with_draft = false;
    if (t->n_plain + t->n_drafted >= PROBE_AGAIN) {
        t->n_drafted = worth_it(d) ? PROBE_DRAFTED : 0;
        t->n_plain = 0;
    }
    if ((t->n_plain + t->n_drafted) % PROBE_PLAIN == 0)
        share_time(s);
}

/* ---- drafts ---------------------------------------------------------------------------------------------------------- */

static int32_t token_at(const glm_session *s, size_t pos)
{
    return pos < s->past.n ? s->past.id[pos] : s->queue.id[s->queue_done + pos - s->past.n];
}

bool draft_due(const glm_session *s)
{
    const struct draft *d = &s->draft;
    size_t left = s->queue.n - s->queue_done;

    if (d->running)
        return true;
    if (!d->on || d->has || left == 0 || d->n_hidden == 0 || !is_whole(s) || d->n_hidden > s->pass_rows)
        return false;
    if (s->state == SESSION_PREFILL)
        return true;
    return s->state == SESSION_DECODE && is_time(d);
}

static int32_t begin(glm_session *s, glm_error *err)
{
    struct draft *d = &s->draft;
    struct batch b = { .ids = d->ids, .segments = &s->segment, .n_segment = 1, .logit_rows = &d->logit_row };

    for (size_t i = 0; i < d->n_hidden; i++)
        d->ids[i] = token_at(s, d->n_pos + i + 1);
    b.n_row = (uint32_t)d->n_hidden;
    d->caught_up |= b.n_row > 2;
    d->logit_row = b.n_row - 1;
    b.n_logit = s->state == SESSION_DECODE && s->queue.n - s->queue_done == 1;
    b.mtp_hidden = d->hidden;
    s->segment = (struct segment){ .n_row = b.n_row, .pos = (uint32_t)d->n_pos };
    s->seq = &s->kv.seq;
    b.seqs = &s->seq;
    s->has_logits = false;
    d->wants = b.n_logit != 0;
    return pass_begin(s->pass, &b, err);
}

/* Where nothing can be drawn there is no draft: that is for the trunk to say. */
static void finish(glm_session *s)
{
    struct draft *d = &s->draft;
    const struct turn *t = &s->turn;
    const uint32_t *mask;

    d->running = false;
    d->n_pos += d->n_hidden;
    d->n_hidden = 0;
    d->with_draft |= d->wants;
    d->has = d->wants && t->n_left > 0 && !constrain_mask(s, &mask, NULL) && !sample_draw(s->sampler, &t->sample,
        pass_logits(s->pass, 0), mask, s->past.id, s->past.n, s->past.n + 1, &d->id, NULL);
}

int32_t draft_run(glm_session *s, uint64_t deadline, const struct stop *stop, bool *done, glm_error *err)
{
    int32_t rc;
    *done = false;
    if (!s->draft.running) {
        rc = begin(s, err);
        if (rc)
            return rc;
        s->draft.running = true;
    }
    rc = pass_run(s->pass, deadline, stop, done, err);
    if (rc || !*done)
        return rc;
    finish(s);
    return GLM_OK;
}

bool draft_joins(glm_session *s)
{
    struct draft *d = &s->draft;
    d->verify = d->has && s->state == SESSION_DECODE && s->queue.n - s->queue_done == 1;
    d->has = false;
    if (d->verify) {
        d->ids[0] = s->queue.id[s->queue_done];
        d->ids[1] = d->id;
        s->stats.n_drafted++;
    }
    return d->verify;
}

bool draft_accept(glm_session *s)
{
    struct draft *d = &s->draft;

    if (!d->verify || s->pass_running)
        return false;
    d->verify = false;
    if ( s->state != SESSION_DECODE || s->queue.n - s->queue_done != 1 || s->queue.id[s->queue_done] != d->id)
        return false;
    ids_append(&s->past, &d->id, 1);
    s->queue.n = s->queue_done = 0;
    s->has_logits = true;
    s->last_logits = pass_logits(s->pass, 1);
    s->last_hidden = pass_hidden(s->pass, 1);
    draft_computed(s, s->pass, 1, 1);
    s->stats.n_accepted++;
    d->with_draft = true; /* this token's time is that of drafts, too */
    return true;
}
