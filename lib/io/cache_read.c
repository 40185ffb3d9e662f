/* cache_read.c: the cache's threads. A slot to be read stands in one of two queues, that of blocks that somebody waits for
 * or that of guesses; readers take pieces of the first one there is, so that several work on one block when only one is
 * missing. The last piece makes the slot ready. */
#include "cache_int.h"

#define PIECE_BYTES ((uint64_t)1 << 20)
#define ALIGN ((uint64_t)FS_DIRECT_ALIGN)

/* ---- queues ------------------------------------------------------------------------------------------------------- */

static void append(struct slot_queue *q, struct slot *s)
{
    s->next = NULL;
    if (q->last)
        q->last->next = s;
    else
        q->first = s;
    q->last = s;
    s->queued = true;
}

static void take_out(struct slot_queue *q, struct slot *s)
{
    struct slot *before = NULL;
    for (struct slot *at = q->first; at && at != s; at = at->next)
        before = at;
    if (before)
        before->next = s->next;
    else
        q->first = s->next;
    if (q->last == s)
        q->last = before;
    s->queued = false;
}

static struct slot_queue *queue_of(struct cache *c, const struct slot *s) { return s->urgent ? &c->urgent : &c->idle; }

void read_begin(struct cache *c, struct slot *s, bool urgent)
{
    s->state = SLOT_READING;
    s->run = s->n_flying = 0;
    s->at = 0;
    s->failed = false;
    s->urgent = urgent;
    append(queue_of(c, s), s);
    monitor_wake(c->lock);
}

void read_hurry(struct cache *c, struct slot *s)
{
    if (s->urgent)
        return;
    if (s->queued)
        take_out(&c->idle, s);
    s->urgent = true;
    if (s->run != UINT32_MAX)
        append(&c->urgent, s);
}

/* ---- pieces ------------------------------------------------------------------------------------------------------- */

struct piece {
    struct slot *slot;
    uint32_t file;
    uint64_t offset, bytes, need; /* a direct read has whole pages; the file may end behind `need` */
    uint8_t *to;
    uint32_t before; /* of those bytes, some are there only to begin with a whole page */
    bool direct, failed;
};

/* The slot's next piece; its last one takes the slot out of its queue. Piece borders are the same for both ways of reading. */
static void cut(struct cache *c, struct slot *s, struct piece *p)
{
    struct layout l;
    const struct run *r;
    uint64_t before, span, at = s->at, end;

    block_lay_out(&c->blocks[s->block], &l);
    r = &l.run[s->run];
    before = r->offset % ALIGN;
    span = before + r->bytes; /* from the run's first page on */
    end = at + PIECE_BYTES < span ? at + PIECE_BYTES : span;
    *p = (struct piece){ .slot = s, .file = r->file, .direct = c->direct[r->file].file.fs && !c->direct[r->file].off };
    p->before = at == 0 ? (uint32_t)before : 0;
    if (!p->direct)
        at += p->before;
    p->offset = r->offset - before + at;
    p->need = end - at;
    p->bytes = p->direct ? (p->need + ALIGN - 1) & ~(ALIGN - 1) : p->need;
    p->to = s->data + r->at - before + at;
    s->n_flying++;
    s->at = end;
    if (end < span)
        return;
    s->at = 0;
    if (++s->run == l.n_run) {
        take_out(queue_of(c, s), s);
        s->run = UINT32_MAX;
    }
}

/* A file system may open a file for direct reads and then refuse them: what really fails, fails in both ways. */
static int32_t read_piece(struct cache *c, struct piece *p, glm_error *err)
{
    const struct cache_file *f = &c->files[p->file];
    uint32_t skip = p->direct ? p->before : 0;
    int32_t rc;

    if (p->direct && !fs_read_direct(&c->direct[p->file].file, p->offset, p->to, p->bytes, p->need, f->name, NULL))
        return GLM_OK;
    rc = fs_read(f->file, p->offset + skip, p->to + skip, p->need - skip, f->name, err);
    fs_forget(f->file, p->offset, p->bytes);
    p->failed = p->direct && !rc;
    return rc;
}

static void finish(struct cache *c, const struct piece *p, int32_t rc, const glm_error *err)
{
    struct slot *s = p->slot;

    s->n_flying--;
    if (p->failed)
        c->direct[p->file].off = true;
    c->stats.bytes_read += rc ? 0 : p->bytes;
    if (rc) {
        c->failure = *err;
        s->failed = true;
        if (s->queued)
            take_out(queue_of(c, s), s);
        s->run = UINT32_MAX;
    }
    if (s->queued || s->n_flying)
        return;
    s->state = s->failed ? SLOT_FAILED : SLOT_READY;
    c->n_done++;
    monitor_wake(c->lock);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

/* Inside the lock. Whoever comes first. */
static void warm(struct cache *c)
{
    bool (*one)(void *user, uint32_t i) = c->warm, more = one != NULL;

    c->warm = NULL;
    for (uint32_t i = 0; more && !c->stop; i++) {
        monitor_leave(c->lock);
        more = one(c->warm_user, i);
        monitor_enter(c->lock);
    }
}

static void work(void *arg)
{
    struct cache *c = arg;

    monitor_enter(c->lock);
    warm(c);
    while (!c->stop) {
        struct slot *s = c->urgent.first ? c->urgent.first : c->idle.first;
        glm_error err = GLM_ERROR_INIT;
        struct piece p;
        int32_t rc;
        if (!s) {
            monitor_wait(c->lock);
            continue;
        }
        cut(c, s, &p);
        monitor_leave(c->lock);
        rc = read_piece(c, &p, &err);
        monitor_enter(c->lock);
        finish(c, &p, rc, &err);
    }
    monitor_leave(c->lock);
}

int32_t readers_open(struct cache *c, uint32_t n, glm_error *err)
{
    for (; c->n_reader < n && c->n_reader < ARRAY_LEN(c->readers); c->n_reader++) {
        int32_t rc = thread_open(c->mem, work, c, &c->readers[c->n_reader], err);
        if (rc)
            return rc;
    }
    return GLM_OK;
}

void readers_close(struct cache *c)
{
    if (!c->lock)
        return;
    monitor_enter(c->lock);
    c->stop = true;
    monitor_wake(c->lock);
    monitor_leave(c->lock);
    for (uint32_t i = 0; i < c->n_reader; i++)
        thread_join(c->readers[i]);
}
