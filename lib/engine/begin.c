/* begin.c: the first step of a turn, and of each message in it: what may be sampled, the prompt, and the memory that all of
 * it can need. Nothing of the session has changed where that fails. */
#include "engine_int.h"

#include <string.h>

#define TEXT_RESERVE (64u << 10) /* of each text buffer, so that ordinary answers allocate nothing */
#define EVENTS_RESERVE 64u
#define STREAM_RESERVE 1024u

/* ---- what may be sampled ------------------------------------------------------------------------------ */

static void allow(uint32_t *mask, int32_t id)
{
    if (id >= 0)
        mask[id / 32] |= 1u << id % 32;
}

/* Ordinary tokens and the ends of a message; in a conversation the tags of a thought, and those of a call where tools are
 * declared. */
static void build_mask(glm_session *s)
{
    static const enum tok_special ends[] = { TOK_ENDOFTEXT, TOK_USER, TOK_OBSERVATION };
    static const enum tok_special thoughts[] = { TOK_THINK, TOK_THINK_END };
    static const enum tok_special calls[] = { TOK_TOOL_CALL, TOK_TOOL_CALL_END, TOK_ARG_KEY, TOK_ARG_KEY_END,
        TOK_ARG_VALUE, TOK_ARG_VALUE_END };
    const glm_model *m = s->model;
    const struct generation_defaults *g = ckpt_generation(m->ckpt);
    uint32_t *mask = s->turn.base;
    bool code = s->turn.infill;

    memcpy(mask, m->plain_mask, ((size_t)m->info.n_vocab + 31) / 32 * sizeof *mask);
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        allow(mask, tok_id(m->tok, ends[i]));
    for (size_t i = 0; i < ARRAY_LEN(thoughts) && !code; i++)
        allow(mask, tok_id(m->tok, thoughts[i]));
    for (uint32_t i = 0; i < g->n_eos; i++)
        if ((uint32_t)g->eos[i] < m->info.n_vocab)
            allow(mask, g->eos[i]);
    if (!code && s->tools && s->turn.opt.tool_choice != GLM_TOOLS_NONE)
        for (size_t i = 0; i < ARRAY_LEN(calls); i++)
            allow(mask, tok_id(m->tok, calls[i]));
}

/* ---- begin -------------------------------------------------------------------------------------------- */

bool turn_due(const glm_session *s)
{
    if (s->infill.pending)
        return true;
    return s->messages.n > 0 && s->messages.item[s->messages.n - 1].chat.role != GLM_ROLE_ASSISTANT;
}

/* Tokens that the prompt has to leave room for. Without a number a host that lets old turns go gets a quarter of the
 * context, or what is usual. */
static uint64_t wanted(const glm_session *s, uint32_t asked)
{
    uint64_t quarter = s->n_ctx / 4;
    return asked ? asked : quarter < DEFAULT_MAX_TOKENS ? quarter : DEFAULT_MAX_TOKENS;
}

/* The tokens that may be generated: *n_left before, or with `first` those that the turn asks for. */
int32_t turn_check_length(const glm_session *s, uint64_t n_prompt, bool first, uint64_t *n_left, glm_error *err)
{
    uint64_t room = s->n_ctx > n_prompt ? s->n_ctx - n_prompt : 0, asked = first ? s->turn.opt.max_tokens : 0;

    if (room == 0 || asked > room)
        return err_set(err, GLM_ECONTEXT, n_prompt, NULL,
            "the prompt has %llu tokens and %llu are asked for, the context has %u: shorten it or open a larger session",
            (unsigned long long)n_prompt, (unsigned long long)(asked ? asked : 1), s->n_ctx);
    if (first)
        *n_left = asked ? asked : DEFAULT_MAX_TOKENS;
    *n_left = *n_left < room ? *n_left : room;
    return GLM_OK;
}

/* Tokens of the cache that the conversation's prompt would share; 0 where it cannot be rendered now. */
uint64_t turn_common(glm_session *s)
{
    struct prompt p;
    uint64_t n = 0;

    prompt_init(&p, s);
    if (!prompt_build(s, &s->options, wanted(s, s->options.max_tokens), &p, NULL))
        n = prompt_common(s, &p);
    ids_free(&p.ids);
    return n;
}

/* Of the texts and of the events that close a thought, one for each token. */
int32_t turn_reserve_text(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    struct buf *each[] = { &t->reasoning, &t->text, &t->calls, &t->ready };
    size_t phrase = t->opt.think_close ? strlen(t->opt.think_close) : 0;

    if (!events_reserve(&s->events, t->close.n + EVENTS_RESERVE, phrase + t->close.n + TEXT_RESERVE))
        return err_nomem(err, "events");
    for (size_t i = 0; i < ARRAY_LEN(each); i++) {
        buf_clear(each[i]);
        if (!buf_reserve(each[i], phrase + TEXT_RESERVE))
            return err_nomem(err, "the answer's text");
    }
    return GLM_OK;
}

int32_t turn_open_stream(glm_session *s, struct stream **out, glm_error *err)
{
    bool in_thought = s->model->family == CHAT_47 && s->turn.opt.thinking != GLM_THINK_OFF;
    int32_t rc = stream_open(&s->model->mem, s->model->tok, s->tools ? s->tools->types : NULL, s->model->family, in_thought,
        out, err);
    return rc ? rc : stream_reserve(*out, STREAM_RESERVE, err);
}

/* A thought's end is one pass, too: the last token and what closes it. */
uint64_t turn_pass_rows(const glm_session *s, uint64_t n)
{
    return n > s->turn.close.n + 1 ? n : s->turn.close.n + 1;
}

/* Queues the prompt's part that the cache does not hold. The last token is computed again if need be: its
 * logits are wanted. */
int32_t turn_queue(glm_session *s, const struct prompt *p, uint64_t n_left, glm_error *err)
{
    size_t n = p->ids.n, common = prompt_common(s, p), reused;
    int32_t rc;

    if (common == n)
        common--;
    reused = common; /* a token that drafts need again is in the cache all the same */
    common = draft_begin(s, common);
    rc = tokens_reserve(s, common, turn_pass_rows(s, n - common), n + n_left, err);
    if (!rc)
        rc = turn_reserve_text(s, err);
    if (rc)
        return rc;
    tokens_truncate(s, common);
    ids_append(&s->queue, p->ids.id + common, n - common);
    s->first_message = p->first;
    s->turn.body = p->body;
    s->turn.n_prompt = n;
    s->turn.n_reused = reused;
    return GLM_OK;
}

/* `run` may be NULL: no grammar. */
static void set_run(glm_session *s, struct con_run *run)
{
    con_close(s->turn.run);
    s->turn.run = run;
    s->turn.has_mask = false;
}

static bool reserve_masks(glm_session *s)
{
    struct turn *t = &s->turn;
    size_t n_word = ((size_t)s->model->info.n_vocab + 31) / 32;
    if (!t->base)
        t->base = mem_array(&s->model->mem, n_word, sizeof *t->base);
    if (!t->mask)
        t->mask = mem_array(&s->model->mem, n_word, sizeof *t->mask);
    return t->base && t->mask;
}

/* The next message of the model, with n_left tokens to go. */
static int32_t begin_message(glm_session *s, uint64_t *n_left, bool first, glm_error *err)
{
    struct stream *stream = NULL;
    struct con_run *run = NULL;
    struct prompt p;
    int32_t rc;

    prompt_init(&p, s);
    rc = prompt_build(s, &s->turn.opt, wanted(s, first ? s->turn.opt.max_tokens : 0), &p, err);
    if (!rc)
        rc = turn_check_length(s, p.ids.n, first, n_left, err);
    if (!rc)
        rc = turn_open_stream(s, &stream, err);
    if (!rc)
        rc = constrain_begin(s, first, &run, err);
    if (!rc)
        rc = turn_queue(s, &p, *n_left, err);
    ids_free(&p.ids);
    if (rc) {
        stream_close(stream);
        con_close(run);
        return rc;
    }
    stream_close(s->turn.stream);
    s->turn.stream = stream;
    set_run(s, run);
    s->turn.thought = stream_in_reasoning(stream);
    if (s->turn.stop)
        text_stop_begin(s->turn.stop, "", 0);
    return GLM_OK;
}

static void begin_text(glm_session *s, uint64_t n_left)
{
    struct turn *t = &s->turn;
    t->stopped = t->ruled = false;
    t->n_thought = 0;
    t->n_left = n_left;
    text_loop_begin(&t->loop);
    atomic_store(&s->end_thought, false);
    turn_drop_calls(s);
    s->state = SESSION_PREFILL;
    s->stats.n_prompt += t->n_prompt;
    s->stats.n_reused += t->n_reused;
}

int32_t turn_begin(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    bool first = !t->active;
    uint64_t n_left = t->n_left;
    int32_t rc;

    if (!first && n_left == 0) /* the message that called ended at its very limit */
        return turn_end(s, GLM_END_LENGTH, err);
    rc = first ? turn_freeze(s, err) : GLM_OK;
    if (rc)
        return rc;
    if (!reserve_masks(s))
        return err_nomem(err, "the token mask");
    t->infill = first && s->infill.pending;
    build_mask(s);
    rc = t->infill ? infill_begin(s, &n_left, err) : begin_message(s, &n_left, first, err);
    if (rc)
        return rc;
    if (t->infill)
        set_run(s, NULL);
    begin_text(s, n_left);
    if (first) {
        t->active = true;
        t->n_think = t->n_answer = t->prefill_ns = t->decode_ns = 0;
    }
    return GLM_OK;
}
