/* prompt.c: from the conversation to the ids that the model is to see. Where the host has asked for it, the oldest turns
 * are left out when the context cannot hold all of them; they stay in the conversation. */
#include "engine_int.h"

#include <string.h>

static size_t count_lead(const struct messages *v)
{
    size_t n = 0;
    while (n < v->n && v->item[n].chat.role == GLM_ROLE_SYSTEM)
        n++;
    return n;
}

static struct chat_options template_arguments(const glm_session *s, const glm_turn_options *opt)
{
    struct chat_options how = { .family = s->model->family, .add_generation_prompt = true };
    how.enable_thinking = opt->thinking == GLM_THINK_OFF ? CHAT_FALSE : CHAT_TRUE;
    how.clear_thinking = opt->keep_thoughts ? CHAT_FALSE : CHAT_UNDEFINED;
    return how;
}

static const struct json *shown_tools(const glm_session *s, const glm_turn_options *opt)
{
    return s->tools && opt->tool_choice != GLM_TOOLS_NONE ? s->tools->doc.root : NULL;
}

/* The prompt without the messages between the leading system messages and `first`. ends: [messages], or NULL. */
static int32_t render(const glm_session *s, const glm_turn_options *opt, size_t first, struct ids *out, size_t *ends,
    glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct chat_options how = template_arguments(s, opt);
    struct chat_message *chat;
    struct arena arena;
    size_t n;
    int32_t rc;

    arena_init(&arena, m);
    chat = messages_chat(&s->messages, count_lead(&s->messages), first, &arena, &n);
    rc = !chat ? err_nomem(err, "the prompt")
               : chat_render_ids(s->model->tok, m, chat, n, shown_tools(s, opt), &how, out, ends, err);
    arena_free(&arena);
    return rc;
}

/* Ids in front of the first message: those of the declared tools. */
static int32_t head_length(const glm_session *s, const glm_turn_options *opt, uint64_t *n, glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct chat_options how = template_arguments(s, opt);
    struct ids out;
    int32_t rc;

    how.add_generation_prompt = false;
    ids_init(&out, m);
    rc = chat_render_ids(s->model->tok, m, NULL, 0, shown_tools(s, opt), &how, &out, NULL, err);
    *n = out.n;
    ids_free(&out);
    return rc;
}

/* ---- which turns stay ------------------------------------------------------------------------------------------- */

/* The prompt as it stands: what it would lose if it began at a later message. */
struct fit {
    const glm_session *s;
    size_t n_lead, first;
    const size_t *ends;  /* of the messages that are in the prompt */
    uint64_t total, head;
};

static uint64_t length_from(const struct fit *f, size_t first)
{
    size_t shown = f->n_lead + first - f->first; /* messages in front of it now */
    uint64_t base = f->n_lead ? f->ends[f->n_lead - 1] : f->head;
    return f->total - (shown ? f->ends[shown - 1] - base : 0);
}

/* The message to begin with so that the prompt has at most `most` ids. Once turns have to go, more go than would do, so
 * that the next turns find room, and their prefix in the cache, too. 0: even the current turn alone is too long. */
static size_t first_that_fits(const struct fit *f, uint64_t most)
{
    const struct messages *v = &f->s->messages;
    size_t fits = 0;
    for (size_t i = f->first + 1; i < v->n; i++) {
        if (v->item[i].chat.role != GLM_ROLE_USER || length_from(f, i) > most)
            continue;
        fits = i;
        if (length_from(f, i) <= most - most / 4)
            break;
    }
    return fits;
}

static int32_t drop_turns(const glm_session *s, const glm_turn_options *opt, uint64_t most, struct prompt *p,
    glm_error *err)
{
    struct mem *m = &s->model->mem;
    size_t *ends = mem_array(m, s->messages.n + 1, sizeof *ends);
    struct fit f = { .s = s, .n_lead = count_lead(&s->messages), .ends = ends };
    size_t first = 0;
    int32_t rc;

    f.first = p->first > f.n_lead ? p->first : f.n_lead;
    if (!ends)
        return err_nomem(err, "the prompt");
    p->ids.n = 0;
    rc = render(s, opt, p->first, &p->ids, ends, err);
    if (!rc)
        rc = head_length(s, opt, &f.head, err);
    f.total = p->ids.n;
    if (!rc && s->messages.n > f.n_lead)
        first = first_that_fits(&f, most);
    mem_free(m, ends);
    if (rc || first == 0)
        return rc;
    p->first = first;
    p->ids.n = 0;
    return render(s, opt, first, &p->ids, NULL, err);
}

/* ---- the prompt ---------------------------------------------------------------------------------------------------- */

void prompt_init(struct prompt *p, const glm_session *s)
{
    ids_init(&p->ids, &s->model->mem);
    p->first = s->first_message;
    p->body = 0;
}

/* Behind the last <|assistant|>: the generation prompt's, since no content holds that id. */
static size_t find_body(const glm_session *s, const struct ids *ids)
{
    int32_t assistant = tok_id(s->model->tok, TOK_ASSISTANT);
    size_t n = ids->n;
    while (n > 0 && ids->id[n - 1] != assistant)
        n--;
    return n;
}

int32_t prompt_build(const glm_session *s, const glm_turn_options *opt, uint64_t want, struct prompt *p, glm_error *err)
{
    int32_t rc = render(s, opt, p->first, &p->ids, NULL, err);

    if (!rc && s->overflow == GLM_OVERFLOW_DROP_OLDEST && want < s->n_ctx && p->ids.n > s->n_ctx - want)
        rc = drop_turns(s, opt, s->n_ctx - want, p, err);
    p->body = rc ? 0 : find_body(s, &p->ids);
    return rc;
}

size_t prompt_common(const glm_session *s, const struct prompt *p)
{
    const struct ids *a = &s->past, *b = &p->ids;
    size_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->id[i] == b->id[i])
        i++;
    return i;
}
