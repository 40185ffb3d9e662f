/* stream_text.c: a sink that collects a whole turn, for callers that want the result and not the
 * stream. What it holds lives until stream_text_free.
 */
#include "text.h"

#include <string.h>

void stream_text_init(struct stream_text *c, struct mem *m)
{
    *c = (struct stream_text){.mem = m};
    buf_init(&c->reasoning, m);
    buf_init(&c->content, m);
    arena_init(&c->arena, m);
}

void stream_text_free(struct stream_text *c)
{
    buf_free(&c->reasoning);
    buf_free(&c->content);
    arena_free(&c->arena);
    mem_free(c->mem, c->calls);
}

static int32_t add_call(struct stream_text *c, const struct stream_event *ev)
{
    if (c->n_call == c->capacity) {
        size_t capacity = 2 * c->capacity + 4;
        struct stream_call *calls = mem_array(c->mem, capacity, sizeof *calls);
        if (calls == NULL)
            return GLM_ENOMEM;
        if (c->n_call > 0)
            memcpy(calls, c->calls, c->n_call * sizeof *calls);
        mem_free(c->mem, c->calls);
        c->calls = calls;
        c->capacity = capacity;
    }
    struct stream_call call = {
        .name = arena_copy(&c->arena, ev->name, ev->name_size),
        .name_size = ev->name_size,
        .arguments = arena_copy(&c->arena, ev->arguments, ev->arguments_size),
        .arguments_size = ev->arguments_size,
    };
    if (call.name == NULL || call.arguments == NULL)
        return GLM_ENOMEM;
    c->calls[c->n_call++] = call;
    return 0;
}

static int32_t add_text(struct stream_text *c, bool is_content, const struct stream_event *ev)
{
    struct buf *to = is_content ? &c->content : &c->reasoning;
    if (!c->last[is_content] && to->size > 0)
        buf_char(to, '\n');
    buf_put(to, ev->text, ev->text_size);
    c->last[is_content] = 1;
    c->last[!is_content] = 0;
    return to->failed ? GLM_ENOMEM : 0;
}

static int32_t put(void *user, const struct stream_event *ev)
{
    struct stream_text *c = user;
    switch (ev->type) {
    case STREAM_REASONING: return add_text(c, false, ev);
    case STREAM_TEXT: return add_text(c, true, ev);
    case STREAM_CALL_BEGIN: c->last[0] = c->last[1] = 0; return 0;
    case STREAM_CALL: return add_call(c, ev);
    default: return 0;
    }
}

struct stream_sink stream_text_sink(struct stream_text *c)
{
    return (struct stream_sink){.user = c, .put = put};
}
