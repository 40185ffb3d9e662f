/* constrain.c: what the model may say next. While tools are declared, or an answer has a schema or pattern, a grammar of the
 * constraint engine (text/constraint.h) follows each message; before a token is drawn its mask is combined with the turn's
 * own. Grammars are compiled when tools and options are given, so that what cannot be enforced is refused there, and kept for
 * the next turns; forks share them.
 */
#include "engine_int.h"

#include <string.h>

/* ---- the vocabulary, once per model ------------------------------------------------------------------------------- */

/* Built outside the lock, which others need: of two that are built at once, one is thrown away. */
static int32_t model_vocab(glm_model *m, struct con_vocab **out, glm_error *err)
{
    struct con_vocab *fresh;
    int32_t rc;

    monitor_enter(m->lock);
    *out = m->con;
    monitor_leave(m->lock);
    if (*out)
        return GLM_OK;
    rc = con_vocab_open(&m->mem, m->tok, m->info.n_vocab, &fresh, err);
    if (rc)
        return rc;
    monitor_enter(m->lock);
    if (!m->con) {
        m->con = fresh;
        fresh = NULL;
    }
    *out = m->con;
    monitor_leave(m->lock);
    con_vocab_close(fresh);
    return GLM_OK;
}

/* ---- grammars that were compiled of late -------------------------------------------------------------------------- */

void grammars_clear(struct grammars *v, struct mem *m)
{
    for (size_t i = 0; i < GRAMMARS_KEPT; i++) {
        con_release(v->item[i].grammar);
        mem_free(m, v->item[i].key);
    }
    *v = (struct grammars){ .clock = 0 };
}

static int32_t grammars_copy(struct grammars *to, const struct grammars *from, struct mem *m, glm_error *err)
{
    for (size_t i = 0; i < GRAMMARS_KEPT; i++) {
        const struct grammar *f = &from->item[i];
        struct grammar *t = &to->item[i];
        if (!f->grammar)
            continue;
        t->key = mem_alloc(m, f->key_size);
        if (!t->key)
            return err_nomem(err, "grammars");
        memcpy(t->key, f->key, f->key_size);
        t->key_size = f->key_size;
        t->used = f->used;
        t->grammar = f->grammar;
        con_hold(t->grammar);
    }
    to->clock = from->clock;
    return GLM_OK;
}

static struct con_grammar *find(struct grammars *v, const struct buf *key)
{
    for (size_t i = 0; i < GRAMMARS_KEPT; i++) {
        struct grammar *g = &v->item[i];
        if (g->grammar && g->key_size == key->size && !memcmp(g->key, key->data, key->size)) {
            g->used = ++v->clock;
            return g->grammar;
        }
    }
    return NULL;
}

/* In place of the one that was not used for longest. Takes the grammar and the key's bytes. */
static void keep(struct grammars *v, struct mem *m, struct buf *key, struct con_grammar *grammar)
{
    struct grammar *oldest = &v->item[0];
    for (size_t i = 1; i < GRAMMARS_KEPT; i++)
        if (v->item[i].used < oldest->used)
            oldest = &v->item[i];
    con_release(oldest->grammar);
    mem_free(m, oldest->key);
    *oldest = (struct grammar){ .grammar = grammar, .key = key->data, .key_size = key->size, .used = ++v->clock };
    buf_init(key, m);
}

/* ---- what a message has to keep to --------------------------------------------------------------------------------- */

static enum con_tool_choice choice_of(const glm_turn_options *opt, bool first)
{
    switch (first ? opt->tool_choice : GLM_TOOLS_AUTO) { /* after a result the model may answer */
    case GLM_TOOLS_REQUIRED: return CON_REQUIRED;
    case GLM_TOOLS_NAMED: return CON_NAMED;
    default: return CON_AUTO;
    }
}

static bool has_answer(const glm_turn_options *opt) { return opt->answer_schema || opt->answer_pattern; }

static int32_t make_key(struct buf *key, const struct con_spec *spec, const glm_turn_options *opt, glm_error *err)
{
    const char *text[] = { spec->name, opt->answer_schema, opt->answer_pattern };
    buf_char(key, (char)(spec->kind + 1));
    buf_char(key, (char)(spec->choice + 1));
    buf_char(key, (char)(1 + spec->in_thought + 2 * spec->may_think + 4 * (spec->tools != NULL)));
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        buf_str(key, text[i] ? text[i] : "");
        buf_char(key, text[i] ? '\1' : '\2');
    }
    return key->failed ? err_nomem(err, "a grammar") : GLM_OK;
}

static int32_t compile(glm_session *s, struct con_spec *spec, const glm_turn_options *opt, struct con_grammar **out,
    glm_error *err)
{
    struct json_doc doc = { 0 };
    struct con_vocab *vocab;
    int32_t rc = model_vocab(s->model, &vocab, err);

    if (!rc && opt->answer_schema)
        rc = json_parse(&s->model->mem, opt->answer_schema, strlen(opt->answer_schema), JSON_REFUSE_DUPLICATES,
            "answer_schema", &doc, err);
    spec->schema = doc.root;
    if (!rc)
        rc = con_compile(&s->model->mem, vocab, spec, out, err);
    json_free(&doc);
    return rc;
}

static int32_t grammar_for(glm_session *s, struct con_spec *spec, const glm_turn_options *opt, struct con_grammar **out,
    glm_error *err)
{
    struct buf key;
    int32_t rc;

    buf_init(&key, &s->model->mem);
    rc = make_key(&key, spec, opt, err);
    *out = rc ? NULL : find(&s->grammars, &key);
    if (!rc && !*out) {
        rc = compile(s, spec, opt, out, err);
        if (!rc)
            keep(&s->grammars, &s->model->mem, &key, *out);
    }
    buf_free(&key);
    return rc;
}

int32_t constrain_message(glm_session *s, const glm_turn_options *opt, bool first, struct con_grammar **out, glm_error *err)
{
    bool thinks = opt->thinking != GLM_THINK_OFF, new_family = s->model->family == CHAT_47;
    bool with_tools = s->tools && opt->tool_choice != GLM_TOOLS_NONE;
    struct con_spec spec = { .kind = CON_TURN, .family = s->model->family, .choice = choice_of(opt, first) };

    *out = NULL;
    if (spec.choice != CON_AUTO && !with_tools)
        return err_set(err, GLM_EINVAL, opt->tool_choice, "tool_choice", "a call is asked for, but no tools are declared");
    if (!with_tools && !has_answer(opt))
        return GLM_OK;
    if (has_answer(opt)) {
        spec.choice = CON_NONE;
        spec.regex = opt->answer_pattern;
        spec.regex_size = opt->answer_pattern ? strlen(opt->answer_pattern) : 0;
    } else {
        spec.tools = s->tools->doc.root;
    }
    if (spec.choice == CON_NAMED) {
        spec.name = opt->tool_name;
        spec.name_size = strlen(opt->tool_name);
    }
    spec.in_thought = thinks && new_family;
    spec.may_think = thinks && !new_family;
    return grammar_for(s, &spec, opt, out, err);
}

/* ---- a message under way ---------------------------------------------------------------------------------------------- */

int32_t constrain_begin(glm_session *s, bool first, struct con_run **out, glm_error *err)
{
    struct con_grammar *grammar;
    int32_t rc = constrain_message(s, &s->turn.opt, first, &grammar, err);

    *out = NULL;
    return rc || !grammar ? rc : con_open(&s->model->mem, grammar, out, err);
}

/* The turn's own mask takes further tokens away; ends that only the checkpoint knows come where the text may end. */
static void combine(const glm_session *s)
{
    const struct turn *t = &s->turn;
    const struct generation_defaults *g = ckpt_generation(s->model->ckpt);
    size_t n_word = ((size_t)s->model->info.n_vocab + 31) / 32;
    bool can_end = con_can_end(t->run);

    for (size_t i = 0; i < n_word; i++)
        t->mask[i] &= t->base[i];
    for (uint32_t i = 0; i < g->n_eos && can_end; i++)
        if ((uint32_t)g->eos[i] < s->model->info.n_vocab)
            t->mask[g->eos[i] / 32] |= 1u << g->eos[i] % 32;
}

int32_t constrain_mask(glm_session *s, const uint32_t **mask, glm_error *err)
{
    struct turn *t = &s->turn;
    int32_t rc = GLM_OK;

    *mask = t->run ? t->mask : t->base;
    if (!t->run || t->has_mask)
        return GLM_OK;
    rc = con_mask(t->run, t->mask, err);
    if (rc)
        return rc;
    combine(s);
    t->has_mask = true;
    return GLM_OK;
}

int32_t constrain_take(glm_session *s, int32_t id, glm_error *err)
{
    s->turn.has_mask = false;
    return s->turn.run ? con_accept(s->turn.run, id, err) : GLM_OK;
}

void constrain_forget(glm_session *s, size_t n_token)
{
    struct con_run *run = s->turn.run;
    s->turn.has_mask = false;
    if (run)
        con_rewind(run, con_n_token(run) - n_token);
}

/* The only bit of a mask, or -1. */
static int32_t only_one(const uint32_t *mask, size_t n_word)
{
    int32_t id = -1;
    for (size_t i = 0; i < n_word; i++) {
        if (mask[i] == 0)
            continue;
        if (id >= 0 || (mask[i] & (mask[i] - 1)) != 0)
            return -1;
        id = (int32_t)(i * 32) + __builtin_ctz(mask[i]);
    }
    return id;
}

/* A draw could give nothing else: the token needs no logits, and is computed with the next ones in one pass. Not so where one
 * text must follow: it can be cut into tokens in many ways, and which one is the model's to say. */
int32_t constrain_forced(glm_session *s, bool *took, glm_error *err)
{
    const uint32_t *mask;
    int32_t id, rc;

    *took = false;
    if (!s->turn.run || con_is_free(s->turn.run))
        return GLM_OK;
    rc = constrain_mask(s, &mask, err);
    if (rc)
        return rc;
    id = only_one(mask, ((size_t)s->model->info.n_vocab + 31) / 32);
    *took = id >= 0;
    return *took ? turn_force(s, &id, 1, err) : GLM_OK;
}

/* ---- the token level ----------------------------------------------------------------------------------------------------- */

static int32_t token_run(glm_session *s, glm_error *err)
{
    const glm_turn_options *opt = &s->options;
    struct con_spec spec = { .kind = opt->answer_schema ? CON_SCHEMA : CON_REGEX };
    struct con_grammar *grammar;
    int32_t rc;

    if (s->token_run || !has_answer(opt))
        return GLM_OK;
    spec.regex = opt->answer_pattern;
    spec.regex_size = opt->answer_pattern ? strlen(opt->answer_pattern) : 0;
    rc = grammar_for(s, &spec, opt, &grammar, err);
    return rc ? rc : con_open(&s->model->mem, grammar, &s->token_run, err);
}

int32_t constrain_tokens(glm_session *s, const uint32_t **mask, glm_error *err)
{
    size_t n_word = ((size_t)s->model->info.n_vocab + 31) / 32;
    int32_t rc = s->model->tok ? token_run(s, err) : GLM_OK;

    *mask = NULL;
    if (rc || !s->token_run)
        return rc;
    if (!s->token_mask)
        s->token_mask = mem_array(&s->model->mem, n_word, sizeof *s->token_mask);
    if (!s->token_mask)
        return err_nomem(err, "the token mask");
    rc = con_mask(s->token_run, s->token_mask, err);
    *mask = s->token_mask;
    return rc;
}

int32_t constrain_fed(glm_session *s, const int32_t *ids, size_t n, glm_error *err)
{
    size_t before;
    int32_t rc = GLM_OK;

    if (!s->token_run)
        return GLM_OK;
    before = con_n_token(s->token_run);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = con_accept(s->token_run, ids[i], err);
        if (rc == GLM_EINVAL)
            err_set(err, rc, i, "ids", "token %d does not fit the answer's schema here", ids[i]);
    }
    if (rc)
        con_rewind(s->token_run, before);
    return rc;
}

void constrain_unfed(glm_session *s, size_t n)
{
    if (s->token_run)
        con_rewind(s->token_run, con_n_token(s->token_run) - n);
}

void constrain_close(glm_session *s)
{
    struct mem *m = &s->model->mem;
    con_close(s->turn.run);
    con_close(s->token_run);
    s->turn.run = s->token_run = NULL;
    mem_free(m, s->token_mask);
    mem_free(m, s->turn.base);
    grammars_clear(&s->grammars, m);
}

int32_t constrain_copy(glm_session *to, const glm_session *from, glm_error *err)
{
    int32_t rc = grammars_copy(&to->grammars, &from->grammars, &to->model->mem, err);
    if (!rc && from->turn.run)
        rc = con_fork(from->turn.run, &to->turn.run, err);
    if (!rc && from->token_run)
        rc = con_fork(from->token_run, &to->token_run, err);
    return rc;
}
