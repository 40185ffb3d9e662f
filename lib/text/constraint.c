/* constraint.c: the lives of vocabularies, grammars and runs, and how a run takes tokens. */
#include "constraint_int.h"

#define DEFAULT_BYTES (64u << 20)
#define DEFAULT_CACHE (24u << 20)
#define DEFAULT_STATES 400000u
#define DEFAULT_WORK 300000u

/* ---- vocabularies --------------------------------------------------------------------------------------------------------- */

int32_t con_vocab_open(struct mem *m, const struct tok *t, uint32_t n_vocab, struct con_vocab **out, glm_error *err)
{
    *out = NULL;
    uint32_t n = n_vocab > tok_n(t) ? n_vocab : tok_n(t);
    struct con_vocab *v = mem_zalloc(m, sizeof *v);
    if (v == NULL)
        return err_nomem(err, "a vocabulary's trie");
    v->mem = m;
    v->tok = t;
    v->n_word = (n + 31) / 32;
    v->normal = mem_zarray(m, v->n_word, sizeof *v->normal);
    int32_t rc = v->normal != NULL ? trie_open(m, t, &v->trie, err) : err_nomem(err, "a vocabulary's trie");
    for (uint32_t i = 0; !rc && i < v->trie->n; i++)
        if (v->trie->node[i].id >= 0)
            v->normal[v->trie->node[i].id / 32] |= 1u << v->trie->node[i].id % 32;
    if (rc)
        con_vocab_close(v);
    else
        *out = v;
    return rc;
}

void con_vocab_close(struct con_vocab *v)
{
    if (v == NULL)
        return;
    trie_close(v->trie);
    mem_free(v->mem, v->normal);
    mem_free(v->mem, v);
}

uint32_t con_n_word(const struct con_vocab *v)
{
    return v->n_word;
}

/* ---- grammars ---------------------------------------------------------------------------------------------------------------- */

/* A value with all below it, independent of its document. */
static const struct json *copy(struct con_grammar *g, const struct json *from)
{
    struct json *to = from != NULL ? schema_alloc(&g->schema, from->span, sizeof *to) : NULL;
    if (to == NULL)
        return NULL;
    memcpy(to, from, from->span * sizeof *to);
    for (uint32_t i = 0; i < from->span; i++)
        if (to[i].type == JSON_STRING || to[i].type == JSON_NUMBER) {
            char *text = schema_alloc(&g->schema, (size_t)to[i].size + 1, 1);
            if (text == NULL)
                return NULL;
            memcpy(text, from[i].text, to[i].size);
            to[i].text = text;
        }
    return to;
}

static void set_punctuation(struct con_grammar *g)
{
    static const char marks[] = "{}[],:";
    struct rx *x = &g->rx;
    uint32_t space = rx_rep(x, rx_range(x, ' ', ' '), 0, 1);
    for (uint32_t i = 0; marks[i]; i++) {
        uint32_t mark = rx_range(x, (uint8_t)marks[i], (uint8_t)marks[i]);
        g->punct[i][0] = rx_state_of(x, mark);
        g->punct[i][1] = rx_state_of(x, rx_cat(x, space, mark));
    }
    g->newline = rx_state_of(x, rx_range(x, '\n', '\n'));
}

static int32_t compile_choice(struct con_grammar *g, const struct json *list, glm_error *err)
{
    uint32_t out = RX_EMPTY;
    if (list == NULL || list->type != JSON_ARRAY || list->count == 0)
        return err_set(err, GLM_ESCHEMA, 0, NULL, "choices are an array of strings with at least one in it");
    for (const struct json *v = json_first(list); v; v = json_next(list, v)) {
        if (v->type != JSON_STRING)
            return err_set(err, GLM_ESCHEMA, v->offset, NULL, "choices are strings");
        out = rx_alt(&g->rx, out, rx_text(&g->rx, v->text, v->size));
    }
    g->root = rx_state_of(&g->rx, out);
    return 0;
}

static int32_t compile_schema(struct con_grammar *g, const struct json *schema)
{
    struct schema *s = &g->schema;
    if (schema == NULL || schema_document(s, schema))
        return s->failed;
    g->root = schema->type == JSON_OBJECT || schema->type == JSON_TRUE || schema->type == JSON_FALSE
        ? term_place(s, schema) : schema_refuse(s, schema, "", "a schema is an object or a boolean");
    if (!schema_finish(s, &g->root, 1) && !s->term[g->root].live)
        schema_fail(s, GLM_ESCHEMA, schema, "nothing fits this schema");
    return s->failed;
}

static int32_t compile(struct con_grammar *g, const struct con_spec *spec, glm_error *err)
{
    static const struct json any = { .type = JSON_TRUE, .span = 1 };
    static const char type[] = "type", object[] = "object";
    static const struct json any_object[3] = { { .type = JSON_OBJECT, .span = 3, .count = 1 },
        { .type = JSON_STRING, .span = 1, .size = 4, .text = type }, { .type = JSON_STRING, .span = 1, .size = 6, .text = object } };
    const struct json *from = spec->kind == CON_OBJECT ? any_object : spec->kind == CON_VALUE ? &any : spec->schema;
    uint32_t node;
    int32_t rc;
    set_punctuation(g);
    switch (spec->kind) {
    case CON_SCHEMA:
    case CON_OBJECT:
    case CON_VALUE: return compile_schema(g, copy(g, from));
    case CON_REGEX:
        rc = rx_pattern(&g->rx, spec->regex, spec->regex_size, true, &node, err);
        g->root = rc ? 0 : rx_state_of(&g->rx, node);
        break;
    case CON_CHOICE: rc = compile_choice(g, spec->choices, err); break;
    default:
        g->choice = spec->choice;
        g->family = spec->family;
        g->in_thought = spec->in_thought;
        g->may_think = spec->may_think;
        g->is_pattern = spec->schema == NULL && spec->regex != NULL;
        g->has_answer = spec->schema != NULL || g->is_pattern;
        if (g->is_pattern) {
            rc = rx_pattern(&g->rx, spec->regex, spec->regex_size, true, &node, err);
            g->root = rc ? 0 : rx_state_of(&g->rx, node);
            break;
        }
        if (g->has_answer)
            return compile_schema(g, copy(g, spec->schema));
        return call_compile(g, spec, copy(g, spec->tools), err);
    }
    if (!rc && !g->rx.failed && g->root == 0)
        return err_set(err, GLM_ESCHEMA, 0, NULL, "no text matches");
    return rc;
}

static uint64_t or_default(uint64_t v, uint64_t otherwise)
{
    return v ? v : otherwise;
}

int32_t con_compile(struct mem *m, struct con_vocab *v, const struct con_spec *spec, struct con_grammar **out, glm_error *err)
{
    static const struct con_limits none = { 0 };
    const struct con_limits *limits = spec->limits ? spec->limits : &none;
    glm_error local = GLM_ERROR_INIT;
    *out = NULL;
    if (err == NULL) /* what is refused is noted there */
        err = &local;
    struct con_grammar *g = mem_zalloc(m, sizeof *g);
    if (g == NULL)
        return err_nomem(err, "a grammar");
    if (pthread_mutex_init(&g->lock, NULL) != 0) {
        mem_free(m, g);
        return err_nomem(err, "a grammar's lock");
    }
    g->mem = m;
    g->vocab = v;
    g->refs = 1;
    g->kind = spec->kind == CON_OBJECT || spec->kind == CON_VALUE ? CON_SCHEMA : spec->kind;
    g->cache_max = or_default(limits->cache_bytes, DEFAULT_CACHE);
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++)
        g->special[i] = tok_id(v->tok, (enum tok_special)i);
    int32_t rc = rx_init(&g->rx, m, err);
    if (!rc) {
        g->rx.byte_max = or_default(limits->bytes, DEFAULT_BYTES);
        g->rx.state_max = (uint32_t)or_default(limits->states, DEFAULT_STATES);
        g->rx.work_max = (uint32_t)or_default(limits->work, DEFAULT_WORK);
        g->rx.deadline_ns = limits->compile_ns ? os_now_ns() + limits->compile_ns : 0;
        rc = schema_open(&g->schema, m, &g->rx, err);
    }
    if (!rc)
        rc = compile(g, spec, err);
    if (!rc)
        rc = g->schema.failed; /* the copy of the tools, too */
    if (!rc)
        rc = rx_check(&g->rx, NULL, err);
    g->rx.deadline_ns = 0;
    if (!rc) {
        g->n_start = g->schema.n_term;
        g->start = mem_zarray(m, g->n_start, sizeof *g->start);
        g->scratch_bits = mem_array(m, v->n_word, sizeof *g->scratch_bits);
        if (g->start == NULL || g->scratch_bits == NULL)
            rc = err_nomem(err, "a grammar");
    }
    g->schema.err = NULL;
    if (rc)
        con_release(g);
    else
        *out = g;
    return rc;
}

void con_hold(struct con_grammar *g)
{
    atomic_fetch_add(&g->refs, 1);
}

void con_release(struct con_grammar *g)
{
    if (g == NULL || atomic_fetch_sub(&g->refs, 1) != 1)
        return;
    for (struct inside *in = g->oldest, *next; in != NULL; in = next) {
        next = in->next;
        mem_free(g->mem, in);
    }
    mem_free(g->mem, g->by_state);
    mem_free(g->mem, g->start);
    mem_free(g->mem, g->scratch_bits);
    tool_types_close(g->types);
    schema_close(&g->schema);
    rx_free(&g->rx);
    pthread_mutex_destroy(&g->lock);
    mem_free(g->mem, g);
}

/* ---- runs ---------------------------------------------------------------------------------------------------------------------- */

static bool note_moment(struct con_run *r, uint32_t first)
{
    if (r->n_moment == r->moment_cap) {
        uint32_t cap = r->moment_cap ? r->moment_cap * 2 : 64;
        struct moment *grown = mem_resize(r->mem, r->moment, cap * sizeof *grown);
        if (grown == NULL) {
            r->failed = GLM_ENOMEM;
            return false;
        }
        r->moment = grown;
        r->moment_cap = cap;
    }
    r->moment[r->n_moment++] = (struct moment){ first, r->n_config - first, r->n_frame, r->n_words };
    return true;
}

static int32_t failure(struct con_run *r, glm_error *err)
{
    int32_t rc = rx_check(&r->g->rx, NULL, err);
    if (!rc && r->failed)
        rc = r->failed == GLM_ENOMEM ? err_nomem(err, "a constraint's state")
            : err_set(err, r->failed, 0, NULL, "the grammar is in more states at once than its limits allow");
    r->failed = 0;
    return rc;
}

int32_t con_open(struct mem *m, struct con_grammar *g, struct con_run **out, glm_error *err)
{
    *out = NULL;
    struct con_run *r = mem_zalloc(m, sizeof *r);
    if (r == NULL)
        return err_nomem(err, "a constraint's state");
    r->mem = m;
    r->g = g;
    con_hold(g);
    pthread_mutex_lock(&g->lock);
    g->rx.work = 0;
    run_start(r);
    note_moment(r, 0);
    int32_t rc = failure(r, err);
    pthread_mutex_unlock(&g->lock);
    if (rc)
        con_close(r);
    else
        *out = r;
    return rc;
}

void con_close(struct con_run *r)
{
    if (r == NULL)
        return;
    con_release(r->g);
    mem_free(r->mem, r->config);
    mem_free(r->mem, r->frame);
    mem_free(r->mem, r->words);
    mem_free(r->mem, r->moment);
    mem_free(r->mem, r);
}

static void *duplicate(struct con_run *r, const void *from, uint32_t *cap, uint32_t n, size_t size)
{
    *cap = n > 64 ? n : 64;
    void *to = mem_array(r->mem, *cap, size);
    if (to == NULL)
        r->failed = GLM_ENOMEM;
    else if (n > 0)
        memcpy(to, from, n * size);
    return to;
}

int32_t con_fork(const struct con_run *from, struct con_run **out, glm_error *err)
{
    *out = NULL;
    struct con_run *r = mem_alloc(from->mem, sizeof *r);
    if (r == NULL)
        return err_nomem(err, "a constraint's state");
    *r = *from;
    con_hold(r->g);
    r->config = duplicate(r, from->config, &r->config_cap, r->n_config, sizeof *r->config);
    r->frame = duplicate(r, from->frame, &r->frame_cap, r->n_frame, sizeof *r->frame);
    r->words = duplicate(r, from->words, &r->words_cap, r->n_words, sizeof *r->words);
    r->moment = duplicate(r, from->moment, &r->moment_cap, r->n_moment, sizeof *r->moment);
    if (r->failed) {
        con_close(r);
        return err_nomem(err, "a constraint's state");
    }
    *out = r;
    return 0;
}

static void back_to(struct con_run *r, const struct moment *m)
{
    r->n_config = m->first + m->n;
    r->n_frame = m->n_frame;
    r->n_words = m->n_words;
}

/* A token's bytes, one after the other; the configurations in between are dropped. */
static void take_bytes(struct con_run *r, const char *bytes, size_t size)
{
    uint32_t from = r->moment[r->n_moment - 1].first, n = r->moment[r->n_moment - 1].n, start = from + n;
    for (size_t i = 0; i < size && n > 0 && !r->failed; i++) {
        uint32_t at = r->n_config;
        run_step(r, from, n, (uint8_t)bytes[i]);
        n = r->n_config - at;
        if (at > start) {
            memmove(r->config + start, r->config + at, n * sizeof *r->config);
            r->n_config = start + n;
        }
        from = start;
    }
}

static bool special_of(const struct con_grammar *g, int32_t id, enum tok_special *which)
{
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++)
        if (g->special[i] == id) {
            *which = (enum tok_special)i;
            return true;
        }
    return false;
}

static bool is_stop(enum tok_special which)
{
    return which == TOK_ENDOFTEXT || which == TOK_USER || which == TOK_OBSERVATION;
}

int32_t con_accept(struct con_run *r, int32_t id, glm_error *err)
{
    const struct moment now = r->moment[r->n_moment - 1];
    enum tok_special which;
    size_t size = 0;
    const char *bytes = NULL;
    bool ends = con_can_end(r);
    pthread_mutex_lock(&r->g->lock);
    r->g->rx.work = 0;
    if (id >= 0 && special_of(r->g, id, &which)) {
        if (ends && is_stop(which))
            run_put(r, (struct config){ .kind = C_DONE }, r->n_config);
        else
            run_step_special(r, now.first, now.n, which);
    } else if (id >= 0 && (uint32_t)id < tok_n(r->g->vocab->tok) && !tok_is_added(r->g->vocab->tok, id) &&
        (bytes = tok_bytes(r->g->vocab->tok, id, &size)) != NULL) {
        take_bytes(r, bytes, size);
    }
    bool moved = r->n_config > now.first + now.n;
    if (moved && !r->failed)
        note_moment(r, now.first + now.n);
    int32_t rc = failure(r, err);
    pthread_mutex_unlock(&r->g->lock);
    if (!rc && !moved)
        rc = err_set(err, GLM_EINVAL, 0, NULL, "the token does not fit the grammar here");
    if (rc)
        back_to(r, &now);
    return rc;
}

bool con_can_end(const struct con_run *r)
{
    const struct moment *m = &r->moment[r->n_moment - 1];
    for (uint32_t i = 0; i < m->n; i++)
        if (call_can_end(r, &r->config[m->first + i]))
            return true;
    return false;
}

bool con_is_free(const struct con_run *r)
{
    const struct moment *m = &r->moment[r->n_moment - 1];
    return m->n == 1 && r->config[m->first].kind == C_FREE;
}

size_t con_n_token(const struct con_run *r)
{
    return r->n_moment - 1;
}

void con_rewind(struct con_run *r, size_t n_token)
{
    if (n_token + 1 >= r->n_moment)
        return;
    r->n_moment = (uint32_t)n_token + 1;
    back_to(r, &r->moment[n_token]);
}
