/* options.c: what a host asks of its turns. The session owns a copy of the options of turns to come; a turn makes another
 * at its first step, and with it everything that follows from them: they are frozen then. */
#include "engine_int.h"

#include <math.h>
#include <string.h>

glm_turn_options turn_options_default(void)
{
    glm_turn_options o = { .struct_size = sizeof o };
    o.temperature = o.top_p = o.min_p = o.repeat_penalty = NAN;
    o.top_k = -1;
    return o;
}

/* ---- copies --------------------------------------------------------------------------------------------------- */

static size_t text_size(const char *text) { return text ? strlen(text) + 1 : 0; }

static const char *put_text(char **to, const char *text)
{
    const char *copy = *to;
    if (!text)
        return NULL;
    memcpy(*to, text, text_size(text));
    *to += text_size(text);
    return copy;
}

/* One block: the array of stop strings, then all text. */
int32_t turn_options_copy(struct mem *m, const glm_turn_options *from, glm_turn_options *to, void **block, glm_error *err)
{
    size_t n_stop = from->n_stop, size = n_stop * sizeof *from->stop;
    const char **stop;
    char *text;

    size += text_size(from->tool_name) + text_size(from->think_close) + text_size(from->answer_schema) +
        text_size(from->answer_pattern);
    for (size_t i = 0; i < n_stop; i++)
        size += text_size(from->stop[i]);
    *to = *from;
    *block = NULL;
    to->stop = NULL;
    if (size == 0)
        return GLM_OK;
    *block = mem_alloc(m, size);
    if (!*block)
        return err_nomem(err, "the turn's options");
    stop = *block;
    text = (char *)*block + n_stop * sizeof *stop;
    to->tool_name = put_text(&text, from->tool_name);
    to->think_close = put_text(&text, from->think_close);
    to->answer_schema = put_text(&text, from->answer_schema);
    to->answer_pattern = put_text(&text, from->answer_pattern);
    for (size_t i = 0; i < n_stop; i++)
        stop[i] = put_text(&text, from->stop[i]);
    to->stop = n_stop ? stop : NULL;
    return GLM_OK;
}

/* ---- what the host sets ------------------------------------------------------------------------------------------ */

static struct text_stop_rules stop_rules(const glm_turn_options *o)
{
    return (struct text_stop_rules){ o->stop, o->n_stop, o->stop_lines, o->stop_dedent != 0 };
}

/* Of what an answer may be: what goes together. */
static int32_t check_answer(const glm_session *s, const glm_turn_options *opt, glm_error *err)
{
    bool answer = opt->answer_schema || opt->answer_pattern, named = opt->tool_choice == GLM_TOOLS_NAMED;

    if (named != (opt->tool_name != NULL))
        return err_set(err, GLM_EINVAL, 0, "tool_name", "with GLM_TOOLS_NAMED, and only with it, a tool is named");
    if (answer && opt->tool_choice >= GLM_TOOLS_REQUIRED)
        return err_set(err, GLM_EINVAL, 0, "tool_choice", "an answer of a given form and a call cannot both be asked for");
    if (opt->answer_schema && opt->answer_pattern)
        return err_set(err, GLM_EINVAL, 0, "answer_pattern", "the answer has a schema already");
    if (answer && !s->model->tok)
        return err_set(err, GLM_ENOTSUP, 0, "answer_schema", "the checkpoint has no tokenizer: nothing can be constrained");
    return GLM_OK;
}

static int32_t check(const glm_session *s, const glm_turn_options *opt, glm_error *err)
{
    struct text_stop_rules rules = stop_rules(opt);
    int32_t rc = check_answer(s, opt, err);

    if (rc)
        return rc;
    if (opt->n_logprobs)
        return err_set(err, GLM_ENOTSUP, 0, "n_logprobs", "not in this version of the library");
    if (opt->keep_thoughts && s->model->family != CHAT_47)
        return err_set(err, GLM_ENOTSUP, 0, "keep_thoughts", "the checkpoint's template always drops past thoughts");
    if (opt->think_tokens && opt->thinking != GLM_THINK_BUDGET)
        return err_set(err, GLM_EINVAL, opt->think_tokens, "think_tokens", "only with GLM_THINK_BUDGET");
    return text_stop_check(&rules, err);
}

int32_t session_turn(glm_session *s, const glm_turn_options *opt, glm_error *err)
{
    struct mem *m = &s->model->mem;
    glm_turn_options before = s->options, copy;
    struct sample_options sample;
    struct con_grammar *grammar;
    void *block = NULL;
    int32_t rc = check(s, opt, err);

    if (!rc)
        rc = turn_options_copy(m, opt, &copy, &block, err);
    if (rc)
        return rc;
    s->options = copy;
    rc = turn_sample_options(s, &sample, err);
    if (!rc && (copy.answer_schema || copy.answer_pattern || (copy.tool_name && s->tools)))
        rc = constrain_message(s, &copy, true, &grammar, err); /* what cannot be enforced is refused here */
    if (rc) {
        s->options = before;
        mem_free(m, block);
        return rc;
    }
    con_close(s->token_run);
    s->token_run = NULL;
    mem_free(m, s->options_block);
    s->options_block = block;
    return GLM_OK;
}

/* ---- what a turn makes of it ------------------------------------------------------------------------------------- */

static float choose(float asked, float file, float family)
{
    return !isnan(asked) ? asked : !isnan(file) ? file : family;
}

/* What the host asked for, else the checkpoint's generation_config, else the family's published settings. */
int32_t turn_sample_options(const glm_session *s, struct sample_options *out, glm_error *err)
{
    const struct generation_defaults *g = ckpt_generation(s->model->ckpt);
    const glm_turn_options *o = &s->options;
    bool greedy = g->do_sample == 0;

    out->temperature = choose(o->temperature, greedy ? 0.0f : g->temperature, s->model->family == CHAT_47 ? 1.0f : 0.6f);
    out->top_p = choose(o->top_p, g->top_p, 0.95f);
    out->min_p = choose(o->min_p, g->min_p, 0.0f);
    out->repeat_penalty = choose(o->repeat_penalty, g->repeat_penalty, 1.0f);
    out->top_k = o->top_k >= 0 ? o->top_k : g->top_k >= 0 ? g->top_k : 0;
    out->seed = o->seed;
    return sample_check(out, err);
}

/* The closing phrase is the host's text: data, like any other. */
static int32_t encode_close(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    const char *phrase = t->opt.think_close ? t->opt.think_close : "";
    int32_t end = tok_id(s->model->tok, TOK_THINK_END), rc;

    t->close.n = 0;
    t->close.failed = false;
    if (end < 0 && t->opt.thinking == GLM_THINK_BUDGET)
        return err_set(err, GLM_ENOTSUP, 0, "thinking", "the vocabulary has no </think>: thoughts cannot be closed");
    rc = tok_encode(s->model->tok, phrase, strlen(phrase), 0, &t->close, err);
    if (rc)
        return rc;
    ids_put(&t->close, end);
    return t->close.failed ? err_nomem(err, "the closing phrase") : GLM_OK;
}

int32_t turn_freeze(glm_session *s, glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct turn *t = &s->turn;
    struct text_stop_rules rules;
    int32_t rc;

    mem_free(m, t->opt_block);
    text_stop_close(t->stop);
    t->stop = NULL;
    rc = turn_options_copy(m, &s->options, &t->opt, &t->opt_block, err);
    if (!rc)
        rc = turn_sample_options(s, &t->sample, err);
    if (!rc)
        rc = encode_close(s, err);
    rules = stop_rules(&t->opt);
    if (!rc && (rules.n_stop || rules.lines || rules.dedent))
        rc = text_stop_open(m, &rules, &t->stop, err);
    return rc;
}

int32_t turn_copy_rules(struct mem *m, struct turn *to, const struct turn *from, glm_error *err)
{
    int32_t rc = turn_options_copy(m, &from->opt, &to->opt, &to->opt_block, err);
    if (!rc && from->stop)
        rc = text_stop_copy(m, from->stop, &to->stop, err);
    ids_append(&to->close, from->close.id, from->close.n);
    return rc || !to->close.failed ? rc : err_nomem(err, "the closing phrase");
}
