/* events.c: the queue between what the engine produces and what the host takes, one event a step. */
#include "engine_int.h"

#include <string.h>

void events_init(struct events *q, struct mem *m)
{
    *q = (struct events){ .mem = m };
    buf_init(&q->bytes, m);
}

void events_free(struct events *q)
{
    mem_free(q->mem, q->item);
    buf_free(&q->bytes);
    *q = (struct events){ .mem = q->mem };
}

static bool grow(struct events *q, size_t capacity)
{
    struct queued *item = mem_resize(q->mem, q->item, capacity * sizeof *item);
    if (!item)
        return false;
    q->item = item;
    q->capacity = capacity;
    return true;
}

bool events_reserve(struct events *q, size_t n, size_t bytes)
{
    if (q->n + n > q->capacity && !grow(q, q->n + n))
        return false;
    if (buf_reserve(&q->bytes, bytes))
        return true;
    q->bytes.failed = false;
    return false;
}

struct queued *events_add(struct events *q, uint32_t type)
{
    struct queued *e;
    if (q->n == q->capacity && !grow(q, q->capacity ? 2 * q->capacity : 16))
        return NULL;
    e = &q->item[q->n++];
    memset(e, 0, sizeof *e);
    e->ev.type = type;
    e->text = e->name = e->arguments = SIZE_MAX;
    return e;
}

bool events_text(struct events *q, size_t *offset, const char *text, size_t size)
{
    size_t at = q->bytes.size;
    buf_put(&q->bytes, text, size);
    buf_char(&q->bytes, '\0');
    if (q->bytes.failed) {
        q->bytes.failed = false;
        q->bytes.size = at;
        return false;
    }
    *offset = at;
    return true;
}

static const char *at_offset(const struct events *q, size_t offset)
{
    return offset == SIZE_MAX ? NULL : q->bytes.data + offset;
}

bool events_take(struct events *q, glm_event *out)
{
    const struct queued *e;
    uint32_t struct_size = out->struct_size;

    if (q->head == q->n)
        return false;
    e = &q->item[q->head++];
    *out = e->ev;
    out->struct_size = struct_size;
    out->text = at_offset(q, e->text);
    out->name = at_offset(q, e->name);
    out->arguments = at_offset(q, e->arguments);
    out->pending = (uint32_t)(q->n - q->head);
    return true;
}

void events_recycle(struct events *q)
{
    if (q->head == q->n) {
        q->head = q->n = 0;
        buf_clear(&q->bytes);
    }
}

void events_clear(struct events *q)
{
    q->head = q->n = 0;
    buf_clear(&q->bytes);
}

bool events_copy(struct events *to, const struct events *from)
{
    for (size_t i = from->head; i < from->n; i++) {
        struct queued *e = events_add(to, GLM_EVENT_NONE);
        if (!e)
            return false;
        *e = from->item[i];
    }
    buf_put(&to->bytes, from->bytes.data, from->bytes.size);
    return !to->bytes.failed;
}

void events_cut(struct events *q, size_t n, size_t bytes)
{
    q->n = n;
    q->bytes.size = bytes;
}

static bool copy_text(struct events *to, size_t *offset, const struct events *from, size_t at, size_t size)
{
    return at == SIZE_MAX || events_text(to, offset, from->bytes.data + at, size);
}

bool events_move(struct events *to, struct events *from)
{
    size_t n = to->n, bytes = to->bytes.size;

    if (to->head == to->n) {
        struct events swap = *to;
        *to = *from;
        *from = swap;
        events_recycle(from);
        return true;
    }
    for (size_t i = from->head; i < from->n; i++) {
        const struct queued *e = &from->item[i];
        struct queued *copy = events_add(to, e->ev.type);
        if (copy) {
            copy->ev = e->ev;
            if (copy_text(to, &copy->text, from, e->text, e->ev.text_size) &&
                copy_text(to, &copy->name, from, e->name, e->ev.name_size) &&
                copy_text(to, &copy->arguments, from, e->arguments, e->ev.arguments_size))
                continue;
        }
        events_cut(to, n, bytes);
        return false;
    }
    from->head = from->n;
    events_recycle(from);
    return true;
}

uint64_t event_bytes(const glm_event *ev)
{
    return sizeof(struct queued) + ev->text_size + ev->name_size + ev->arguments_size;
}
