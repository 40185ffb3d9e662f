/* cache.c: the table of blocks and slots, who holds and who waits, and which block goes when another one needs its place.
 *
 * What goes is the block of the lowest score among those that nobody holds or waits for. A score is the number of uses, each
 * counting half for every half_life of its age: between "least recently" (a short half-life) and "least frequently" used
 * (an endless one). Kept as a logarithm in units of time zero, a score only changes when its block is used. It stays when
 * the block goes. A prompt's pass uses nearly every expert, but each as often as it has rows, so that it does not flatten
 * what is known about them.
 */
#include "cache_int.h"

#include <math.h>
#include <string.h>

#define ALIGN ((uint64_t)FS_DIRECT_ALIGN)

__extension__ typedef unsigned __int128 u128;

static uint64_t align_up(uint64_t n) { return (n + ALIGN - 1) & ~(ALIGN - 1); }

void block_lay_out(const struct block *b, struct layout *l)
{
    uint64_t end = 0;

    l->n_run = 0;
    for (uint32_t i = 0; i < BLOCK_PARTS; i++) {
        const struct place *p = &b->part[i];
        struct run *last = l->n_run ? &l->run[l->n_run - 1] : NULL;
        if (!p->bytes)
            continue;
        if (last && last->file == p->file && last->offset + last->bytes == p->offset) {
            l->at[i] = last->at + last->bytes;
            last->bytes += p->bytes;
        } else {
            l->at[i] = align_up(end) + p->offset % ALIGN;
            l->run[l->n_run++] = (struct run){ p->file, p->offset, p->bytes, l->at[i] };
        }
        end = l->at[i] + p->bytes;
    }
    l->size = align_up(end);
}

/* The same for blocks of the same shape, wherever in their pages they begin. */
uint64_t cache_block_bytes(const struct block *b)
{
    struct layout l;
    uint64_t size = 0;

    block_lay_out(b, &l);
    for (uint32_t i = 0; i < l.n_run; i++)
        size += align_up(l.run[i].bytes) + ALIGN;
    return size;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Blocks of nearly one size share a class: at most a sixteenth of a slot is wasted, unless there are too many sizes. */
static void classify(struct cache *c)
{
    for (uint32_t b = 0; b < c->n_block; b++) {
        uint64_t size = cache_block_bytes(&c->blocks[b]), gap = UINT64_MAX;
        uint32_t best = 0;
        for (uint32_t i = 0; i < c->n_class; i++) {
            uint64_t have = c->classes[i].size, d = have > size ? have - size : size - have;
            if (d < gap) {
                gap = d;
                best = i;
            }
        }
        if (c->n_class < CLASS_MAX && (c->n_class == 0 || gap > size / 16)) {
            best = c->n_class++;
            c->classes[best] = (struct slot_class){ .size = size };
        }
        if (c->classes[best].size < size)
            c->classes[best].size = size;
        c->classes[best].n_block++;
        c->class_of[b] = (uint8_t)best;
    }
}

static uint32_t least_slots(const struct slot_class *k, uint32_t least) { return least < k->n_block ? least : k->n_block; }

/* First the least that each size needs; of the rest every block has the same share, whatever its size: layers are used
 * alike. */
static int32_t share_out(struct cache *c, uint64_t bytes, uint32_t least, glm_error *err)
{
    u128 need = 0, rest = 0;

    for (uint32_t i = 0; i < c->n_class; i++) {
        const struct slot_class *k = &c->classes[i];
        need += (u128)least_slots(k, least) * k->size;
        rest += (u128)(k->n_block - least_slots(k, least)) * k->size;
    }
    if (bytes < need)
        return err_set(err, GLM_EINVAL, (uint64_t)need, "expert_cache_bytes",
            "%llu bytes are too few to compute with: this model needs at least %llu", (unsigned long long)bytes,
            (unsigned long long)need);
    for (uint32_t i = 0; i < c->n_class; i++) {
        struct slot_class *k = &c->classes[i];
        uint32_t n = least_slots(k, least), more = k->n_block - n;
        k->n_slot = bytes - need < rest ? n + (uint32_t)((bytes - need) * more / rest) : k->n_block;
    }
    return GLM_OK;
}

static int32_t take_slots(struct cache *c, glm_error *err)
{
    for (uint32_t i = 0; i < c->n_class; i++) {
        struct slot_class *k = &c->classes[i];
        uint64_t bytes;
        size_t size;
        if (!ck_mul(k->size, k->n_slot, &bytes) || !ck_add(bytes, ALIGN, &bytes) || !ck_size(bytes, &size) ||
            !(k->memory = mem_alloc(c->mem, size)) || !(k->slots = mem_zarray(c->mem, k->n_slot, sizeof *k->slots)))
            return err_nomem(err, "the cache of experts");
        for (uint32_t j = 0; j < k->n_slot; j++)
            k->slots[j].data = (uint8_t *)align_up((uintptr_t)k->memory) + j * k->size;
    }
    return GLM_OK;
}

static int32_t take_tables(struct cache *c, const struct cache_options *opt, glm_error *err)
{
    c->files = mem_array(c->mem, opt->n_file, sizeof *c->files);
    c->direct = mem_zarray(c->mem, opt->n_file, sizeof *c->direct);
    c->blocks = mem_array(c->mem, opt->n_block, sizeof *c->blocks);
    c->class_of = mem_array(c->mem, opt->n_block, 1);
    c->slot_of = mem_zarray(c->mem, opt->n_block, sizeof(struct slot *));
    c->score = mem_array(c->mem, opt->n_block, sizeof *c->score);
    if (!c->files || !c->direct || !c->blocks || !c->class_of || !c->slot_of || !c->score)
        return err_nomem(err, "the cache of experts");
    memcpy(c->files, opt->files, opt->n_file * sizeof *c->files);
    memcpy(c->blocks, opt->blocks, opt->n_block * sizeof *c->blocks);
    c->n_file = opt->n_file;
    c->n_block = opt->n_block;
    for (uint32_t i = 0; i < c->n_block; i++)
        c->score[i] = -INFINITY;
    for (uint32_t i = 0; i < c->n_file && !opt->buffered; i++)
        fs_open_direct(opt->fs, c->files[i].name, &c->direct[i].file, NULL);
    return GLM_OK;
}

int32_t cache_open(struct mem *m, const struct cache_options *opt, struct cache **out, glm_error *err)
{
    struct cache *c = mem_zalloc(m, sizeof *c);
    uint32_t n_reader = opt->n_reader ? opt->n_reader : CACHE_READERS;
    int32_t rc;

    *out = NULL;
    if (!c)
        return err_nomem(err, "the cache of experts");
    c->mem = m;
    c->half_life = opt->half_life > 0 ? opt->half_life : CACHE_HALF_LIFE;
    c->warm = opt->warm;
    c->warm_user = opt->warm_user;
    c->failure = (glm_error)GLM_ERROR_INIT;
    rc = take_tables(c, opt, err);
    if (!rc) {
        classify(c);
        rc = share_out(c, opt->bytes, opt->least, err);
    }
    if (!rc)
        rc = take_slots(c, err);
    if (!rc)
        rc = monitor_open(m, &c->lock, err);
    if (!rc)
        rc = readers_open(c, fs_is_hosted(opt->fs) ? 1 : n_reader, err);
    if (rc) {
        cache_close(c);
        return rc;
    }
    *out = c;
    return GLM_OK;
}

void cache_close(struct cache *c)
{
    if (!c)
        return;
    readers_close(c);
    monitor_close(c->lock);
    for (uint32_t i = 0; i < c->n_class; i++) {
        mem_free(c->mem, c->classes[i].slots);
        mem_free(c->mem, c->classes[i].memory);
    }
    for (uint32_t i = 0; i < c->n_file; i++)
        fs_close(&c->direct[i].file);
    mem_free(c->mem, c->files);
    mem_free(c->mem, c->direct);
    mem_free(c->mem, c->blocks);
    mem_free(c->mem, c->class_of);
    mem_free(c->mem, c->slot_of);
    mem_free(c->mem, c->score);
    mem_free(c->mem, c);
}

/* ---- uses ------------------------------------------------------------------------------------------------------- */

static void add_uses(struct cache *c, uint32_t block, uint32_t n)
{
    double fresh = log2(n) + c->now / c->half_life, old = c->score[block];
    double high = fresh > old ? fresh : old, low = fresh > old ? old : fresh;
    c->score[block] = high + log2(1 + exp2(low - high));
}

void cache_note(struct cache *c, const uint32_t *block, const uint32_t *count, uint32_t n, double ticks)
{
    monitor_enter(c->lock);
    c->now += ticks;
    for (uint32_t i = 0; i < n; i++) {
        struct slot *s = c->slot_of[block[i]];
        bool ready = s && s->state == SLOT_READY;
        c->stats.n_hit += ready;
        c->stats.n_miss += !ready;
        if (s && s->prefetched) {
            c->stats.n_prefetch_used++;
            s->prefetched = false;
        }
        add_uses(c, block[i], count[i]);
    }
    monitor_leave(c->lock);
}

/* ---- places for blocks -------------------------------------------------------------------------------------------- */

/* Who has waited longest takes what others have read and not held yet: so somebody always gets on. */
static bool may_take(const struct cache *c, const struct slot *s, const struct cache_claim *for_whom)
{
    if (s->n_hold || s->state == SLOT_READING)
        return false;
    if (!s->wanted)
        return for_whom || !s->prefetched || s->round + 1 < c->round;
    return for_whom && s->wanted != for_whom && c->claims == for_whom;
}

/* NULL: none can be had now. */
static struct slot *find_place(struct cache *c, uint32_t block, const struct cache_claim *for_whom)
{
    const struct slot_class *k = &c->classes[c->class_of[block]];
    struct slot *best = NULL;

    for (uint32_t i = 0; i < k->n_slot; i++) {
        struct slot *s = &k->slots[i];
        if (s->state == SLOT_FREE)
            return s;
        if (may_take(c, s, for_whom) && (!best || c->score[s->block] < c->score[best->block]))
            best = s;
    }
    return best;
}

static void empty(struct cache *c, struct slot *s)
{
    if (s->state != SLOT_FREE)
        c->slot_of[s->block] = NULL;
    s->state = SLOT_FREE;
    s->wanted = NULL;
    s->prefetched = false;
}

static struct slot *begin(struct cache *c, uint32_t block, const struct cache_claim *for_whom)
{
    struct slot *s = find_place(c, block, for_whom);

    if (!s)
        return NULL;
    empty(c, s);
    s->block = block;
    s->wanted = for_whom;
    c->slot_of[block] = s;
    read_begin(c, s, for_whom != NULL);
    return s;
}

/* ---- holding ------------------------------------------------------------------------------------------------------ */

static void enqueue(struct cache *c, struct cache_claim *claim)
{
    struct cache_claim **end = &c->claims;
    if (claim->queued)
        return;
    while (*end)
        end = &(*end)->next;
    *end = claim;
    claim->next = NULL;
    claim->queued = true;
}

static void leave(struct cache *c, struct cache_claim *claim)
{
    struct cache_claim **at = &c->claims;

    while (claim->queued && *at != claim)
        at = &(*at)->next;
    if (claim->queued)
        *at = claim->next;
    claim->queued = false;
}

static void forget_wishes(struct cache *c, const struct cache_claim *claim, const uint32_t *block, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct slot *s = c->slot_of[block[i]];
        if (s && s->wanted == claim)
            s->wanted = NULL;
    }
}

static void hold(struct slot *s)
{
    s->n_hold++;
    s->wanted = NULL;
}

uint32_t cache_hold_most(const struct cache *c, uint32_t block)
{
    uint32_t n = c->classes[c->class_of[block]].n_slot;
    return n > 1 ? n / 2 : 1;
}

/* A block that this claim waits for could not be read. */
static bool has_failed(struct cache *c, const struct cache_claim *claim, const uint32_t *block, uint32_t n)
{
    bool failed = false;
    for (uint32_t i = 0; i < n; i++) {
        struct slot *s = c->slot_of[block[i]];
        if (s && s->state == SLOT_FAILED) {
            failed |= s->wanted == claim;
            empty(c, s);
        }
    }
    return failed;
}

/* Whether one block more of this size keeps to half of the slots: those that are held, or those that are read ahead. */
static bool within(const struct cache *c, uint32_t block, uint32_t count[CLASS_MAX])
{
    return count[c->class_of[block]]++ < cache_hold_most(c, block);
}

/* Reads what is not there, as far as there is place. */
static void want(struct cache *c, struct cache_claim *claim, const uint32_t *block, uint32_t n)
{
    uint32_t ahead[CLASS_MAX] = { 0 };

    for (uint32_t i = 0; i < n; i++) {
        struct slot *s = c->slot_of[block[i]];
        if (!within(c, block[i], ahead) || (!s && !(s = begin(c, block[i], claim))))
            continue;
        if (!s->wanted && !s->n_hold)
            s->wanted = claim;
        if (s->state == SLOT_READING)
            read_hurry(c, s);
    }
}

int32_t cache_hold(struct cache *c, struct cache_claim *claim, uint32_t *block, uint32_t n, bool all, uint32_t *n_held,
    glm_error *err)
{
    uint32_t n_ready = 0, held[CLASS_MAX] = { 0 };
    int32_t rc = GLM_OK;

    *n_held = 0;
    monitor_enter(c->lock);
    if (has_failed(c, claim, block, n)) {
        leave(c, claim);
        forget_wishes(c, claim, block, n);
        rc = err_set(err, c->failure.code, c->failure.offset, c->failure.where, "%s", c->failure.message);
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct slot *s = c->slot_of[block[i]];
        if (s && s->state == SLOT_READY && (all || within(c, block[i], held))) {
            uint32_t b = block[i];
            block[i] = block[n_ready];
            block[n_ready++] = b;
        }
    }
    if (n_ready >= (all ? n : 1)) {
        leave(c, claim);
        for (uint32_t i = 0; i < n_ready; i++)
            hold(c->slot_of[block[i]]);
        *n_held = n_ready;
        want(c, claim, block + n_ready, n - n_ready);
    } else {
        enqueue(c, claim);
        want(c, claim, block, n);
    }
    claim->seen = c->n_done;
out:
    monitor_leave(c->lock);
    return rc;
}

void cache_ask(struct cache *c, struct cache_claim *claim, const uint32_t *block, uint32_t n)
{
    monitor_enter(c->lock);
    has_failed(c, claim, block, n); /* an old failure: it is tried again */
    want(c, claim, block, n);
    monitor_leave(c->lock);
}

bool cache_is_whole(const struct cache *c)
{
    for (uint32_t i = 0; i < c->n_class; i++)
        if (c->classes[i].n_slot < c->classes[i].n_block)
            return false;
    return true;
}

void cache_wait(struct cache *c, struct cache_claim *claim, uint64_t ns)
{
    uint64_t begin = os_now_ns();

    monitor_enter(c->lock);
    if (claim->seen == c->n_done)
        monitor_wait_for(c->lock, ns);
    c->stats.wait_ns += os_now_ns() - begin;
    monitor_leave(c->lock);
}

void cache_quit(struct cache *c, struct cache_claim *claim, const uint32_t *block, uint32_t n)
{
    monitor_enter(c->lock);
    leave(c, claim);
    forget_wishes(c, claim, block, n);
    monitor_leave(c->lock);
}

void cache_drop(struct cache *c, const uint32_t *block, uint32_t n)
{
    monitor_enter(c->lock);
    for (uint32_t i = 0; i < n; i++)
        c->slot_of[block[i]]->n_hold--;
    c->n_done++; /* who waits for a place finds one */
    if (c->claims)
        monitor_wake(c->lock);
    monitor_leave(c->lock);
}

void cache_parts(const struct cache *c, uint32_t block, const void *at[BLOCK_PARTS])
{
    struct layout l;

    block_lay_out(&c->blocks[block], &l);
    for (uint32_t i = 0; i < BLOCK_PARTS; i++)
        at[i] = c->blocks[block].part[i].bytes ? c->slot_of[block]->data + l.at[i] : NULL;
}

void cache_prefetch(struct cache *c, const uint32_t *block, uint32_t n)
{
    monitor_enter(c->lock);
    c->round++;
    for (uint32_t i = 0; i < n; i++) {
        struct slot *s = c->slot_of[block[i]] ? NULL : begin(c, block[i], NULL);
        if (!s)
            continue;
        s->prefetched = true;
        s->round = c->round;
        c->stats.n_prefetched++;
    }
    monitor_leave(c->lock);
}

void cache_stats(struct cache *c, struct cache_stats *out)
{
    monitor_enter(c->lock);
    *out = c->stats;
    monitor_leave(c->lock);
}
