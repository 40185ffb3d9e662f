/* constraint_call.c: a turn: free text, thought, and tool calls in the family's markup, in which tags are tokens of their own.
 * What a call's grammar allows is what lib/text/stream*.c reads back as the same call: values are text for strings and JSON for
 * the rest, and where a schema allows both, text that would be read as the other is left out.
 */
#include "constraint_int.h"

enum { NEWLINE_ARGUMENTS, NEWLINE_VALUE, NEWLINE_NEXT }; /* C_NEWLINE's arg: what comes behind it */

static void put_free(struct con_run *r, uint32_t flags, uint32_t base)
{
    run_put(r, (struct config){ .kind = C_FREE, .arg = flags }, base);
}

static void put_newline(struct con_run *r, uint32_t frame, uint32_t next, uint32_t base)
{
    run_put(r, (struct config){ .kind = C_NEWLINE, .state = r->g->newline, .frame = frame, .arg = next }, base);
}

/* The answer's JSON; in between, one newline at most. A thought may still open where `think` says so. */
static void put_answer(struct con_run *r, bool think, uint32_t base)
{
    run_put(r, (struct config){ .kind = C_GLUE, .state = r->g->newline, .arg = think }, base);
    run_value(r, r->g->root, 0, 0, base);
}

void call_start(struct con_run *r, uint32_t base)
{
    const struct con_grammar *g = r->g;
    if (g->in_thought)
        put_free(r, FREE_THOUGHT, base);
    else if (g->has_answer)
        put_answer(r, g->may_think, base);
    else
        put_free(r, g->may_think ? FREE_START : 0, base);
}

bool call_can_end(const struct con_run *r, const struct config *c)
{
    enum con_tool_choice choice = r->g->choice;
    if (c->kind != C_FREE)
        return c->kind == C_DONE;
    if (r->g->has_answer)
        return false;
    return choice == CON_AUTO || choice == CON_NONE || (c->arg & FREE_CALLED);
}

/* ---- values between tags ------------------------------------------------------------------------------------------------------ */

static const char blanks[] = "[ \\t\\r\\n\\v\\f]*";

static uint32_t piece(struct rx *x, const char *pattern)
{
    uint32_t out;
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = rx_pattern(x, pattern, strlen(pattern), true, &out, &err);
    if (rc && !x->failed)
        x->failed = rc;
    return out;
}

/* Text that would not be taken for a string where the argument may have these types. */
static uint32_t read_otherwise(struct rx *x, uint32_t types)
{
    uint32_t out = RX_EMPTY, blank = piece(x, blanks);
    if (types & (TOOL_INTEGER | TOOL_REAL))
        out = rx_alt(x, out, rx_json_number(x));
    if (types & TOOL_BOOLEAN)
        out = rx_alt(x, out, piece(x, "true|false|True|False"));
    if (types & TOOL_NULL)
        out = rx_alt(x, out, piece(x, "null|None"));
    out = rx_cat(x, blank, rx_cat(x, out, blank));
    if (types & TOOL_ARRAY)
        out = rx_alt(x, out, rx_cat(x, blank, piece(x, "\\[[^]*")));
    if (types & TOOL_OBJECT)
        out = rx_alt(x, out, rx_cat(x, blank, piece(x, "\\{[^]*")));
    if (types == TOOL_ANY)
        out = rx_alt(x, out, rx_cat(x, blank, piece(x, "\"[^]*")));
    return out;
}

static uint32_t types_of(const struct con_run *r, const struct frame *f)
{
    const struct con_grammar *g = r->g;
    const struct object_shape *o = &g->schema.object[f->shape];
    const struct con_tool *tool = &g->tool[r->frame[f->parent].tool];
    if (f->label < o->n_key)
        return tool_type_of(tool->type, o->property[f->label].name.text, o->property[f->label].name.size);
    return tool_type_of(tool->type, "", 0); /* of keys that are not declared: an empty one never is */
}

void call_argument(struct con_run *r, uint32_t term, uint32_t frame, uint32_t base)
{
    struct con_grammar *g = r->g;
    struct rx *x = &g->rx;
    const struct norm n = g->schema.term[term].norm;
    uint32_t types = types_of(r, &r->frame[frame]), text = n.string;
    uint32_t at = run_frame(r, (struct frame){ .kind = F_ARGUMENT, .parent = frame });
    if (types != TOOL_STRING) {
        /* JSON; a string only where none of the types is one, and then with quotes */
        uint32_t start = r->n_config;
        run_value(r, term, at, 0, base);
        for (uint32_t i = start; i < r->n_config && (types & TOOL_STRING); i++) {
            struct config *c = &r->config[i];
            if (c->kind == C_SCALAR && n.string != RX_EMPTY && types != TOOL_ANY) {
                struct norm rest = n;
                rest.string = RX_EMPTY;
                uint32_t node = rest.number;
                if (rest.words & WORD_NULL)
                    node = rx_alt(x, node, rx_text(x, "null", 4));
                if (rest.words & WORD_TRUE)
                    node = rx_alt(x, node, rx_text(x, "true", 4));
                if (rest.words & WORD_FALSE)
                    node = rx_alt(x, node, rx_text(x, "false", 5));
                c->state = rx_state_of(x, node);
                if (c->state == 0)
                    *c = r->config[--r->n_config];
                break;
            }
        }
        text = (types & TOOL_STRING) ? rx_and(x, text, rx_not(x, read_otherwise(x, types))) : RX_EMPTY;
    }
    struct config raw = { .kind = C_RAW, .state = rx_state_of(x, text), .frame = at };
    if (raw.state == 0)
        return;
    run_put(r, raw, base);
    if (rx_accepts(x, raw.state))
        run_value_done(r, at, base);
}

/* ---- a call ---------------------------------------------------------------------------------------------------------------------- */

static void put_arguments(struct con_run *r, uint32_t frame, uint32_t base)
{
    struct con_grammar *g = r->g;
    const struct norm *n = &g->schema.term[g->tool[r->frame[frame].tool].term].norm;
    for (uint32_t i = 0; i < n->n_object; i++)
        if (g->schema.object[n->object[i]].live)
            run_object_next(r, (struct frame){ .kind = F_OBJECT, .parent = frame, .shape = n->object[i] }, true, base);
}

void call_exit(struct con_run *r, struct config c, uint32_t label, uint32_t base)
{
    uint32_t frame;
    switch (c.kind) {
    case C_NAME:
        frame = run_frame(r, (struct frame){ .kind = F_CALL, .tool = label });
        if (r->g->family == CHAT_45)
            put_newline(r, frame, NEWLINE_ARGUMENTS, base);
        else
            put_arguments(r, frame, base);
        break;
    case C_RAW_KEY: run_object_key(r, &c, label, base); break;
    case C_RAW: run_value_done(r, c.frame, base); break;
    case C_NEWLINE:
        if (c.arg == NEWLINE_ARGUMENTS)
            put_arguments(r, c.frame, base);
        else if (c.arg == NEWLINE_VALUE)
            run_put(r, (struct config){ .kind = C_VALUE, .frame = c.frame }, base);
        else
            run_value_done(r, r->frame[c.frame].parent, base);
        break;
    case C_GLUE:
        if (c.arg)
            run_put(r, (struct config){ .kind = C_GLUE, .arg = c.arg }, base);
        run_value(r, r->g->root, 0, 0, base);
        break;
    default: break;
    }
}

bool call_allows(const struct con_run *r, const struct config *c, enum tok_special which)
{
    const struct con_grammar *g = r->g;
    switch (c->kind) {
    case C_FREE:
        if (which == TOK_THINK)
            return (c->arg & FREE_START) && !(c->arg & FREE_THOUGHT);
        if (which == TOK_THINK_END)
            return (c->arg & FREE_THOUGHT) != 0;
        return which == TOK_TOOL_CALL && !(c->arg & FREE_THOUGHT) && !g->has_answer && g->names != 0;
    case C_GLUE: return which == TOK_THINK && c->arg;
    case C_ARGUMENTS:
        return (which == TOK_ARG_KEY && run_object_any_key(r, c->frame)) ||
            (which == TOK_TOOL_CALL_END && run_object_may_close(r, &r->frame[c->frame]));
    case C_KEY_END: return which == TOK_ARG_KEY_END;
    case C_VALUE: return which == TOK_ARG_VALUE;
    case C_VALUE_END: return which == TOK_ARG_VALUE_END;
    default: return false;
    }
}

void call_special(struct con_run *r, struct config c, enum tok_special which, uint32_t base)
{
    const struct con_grammar *g = r->g;
    bool old = g->family == CHAT_45;
    if (!call_allows(r, &c, which))
        return;
    switch (which) {
    case TOK_THINK: put_free(r, FREE_THOUGHT | (c.kind == C_FREE ? c.arg : 0), base); break;
    case TOK_THINK_END:
        if (g->has_answer)
            put_answer(r, false, base);
        else
            put_free(r, c.arg & ~(FREE_THOUGHT | FREE_START), base);
        break;
    case TOK_TOOL_CALL: run_put(r, (struct config){ .kind = C_NAME, .state = g->names }, base); break;
    case TOK_TOOL_CALL_END: put_free(r, FREE_CALLED, base); break;
    case TOK_ARG_KEY: run_object_raw_key(r, c.frame, base); break;
    case TOK_ARG_KEY_END:
        if (old)
            put_newline(r, c.frame, NEWLINE_VALUE, base);
        else
            run_put(r, (struct config){ .kind = C_VALUE, .frame = c.frame }, base);
        break;
    case TOK_ARG_VALUE: run_object_values(r, c.frame, base); break;
    case TOK_ARG_VALUE_END:
        if (old)
            put_newline(r, c.frame, NEWLINE_NEXT, base);
        else
            run_value_done(r, r->frame[c.frame].parent, base);
        break;
    default: break;
    }
}

/* ---- compiling --------------------------------------------------------------------------------------------------------------------- */

static bool fits_tags(const struct vocab_text *key)
{
    const char *space = " \t\r\n\v\f";
    return key->size > 0 && key->size < 60000 && !strchr(space, key->text[0]) && !strchr(space, key->text[key->size - 1]);
}

/* Keys that cannot stand between tags are no keys of a call. */
static void mark_call(struct con_grammar *g, struct con_tool *tool, glm_error *err)
{
    struct schema *s = &g->schema;
    const struct norm *n = term_norm(s, tool->term);
    bool any = false;
    for (uint32_t i = 0; n != NULL && i < n->n_object; i++) {
        struct object_shape *o = &s->object[n->object[i]];
        for (uint32_t k = 0; k < o->n_property && o->live; k++)
            if (!fits_tags(&o->property[k].name)) {
                if (o->property[k].required)
                    o->live = false;
                else
                    o->dead[k / 64] |= 1ull << k % 64;
            }
        any = any || o->live;
    }
    if (!any && !s->failed)
        schema_fail(s, GLM_ESCHEMA, s->root, "no arguments fit this schema");
    (void)err;
}

static const struct json *parameters_of(const struct json *item, bool *wrapped)
{
    const struct json *function = json_get(item, "function");
    *wrapped = function != NULL && function->type == JSON_OBJECT;
    return json_get(*wrapped ? function : item, "parameters");
}

static void set_prefix(struct schema *s, size_t i, bool wrapped)
{
    char digits[24];
    size_t at = sizeof digits, n = 0;
    const char *tail = wrapped ? "/function/parameters" : "/parameters";
    digits[--at] = 0;
    do {
        digits[--at] = (char)('0' + i % 10);
        i /= 10;
    } while (i > 0);
    s->prefix[n++] = '/';
    memcpy(s->prefix + n, digits + at, sizeof digits - at - 1);
    n += sizeof digits - at - 1;
    memcpy(s->prefix + n, tail, strlen(tail) + 1);
}

/* An object without a word about other keys takes none: that is what callers mean, and a subset of what they say. */
static const struct json *closed(struct schema *s, const struct json *from)
{
    static const char *const open[] = { "additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf",
        "oneOf", "$ref", "if", "not", "dependentSchemas", "dependencies", "propertyNames" };
    static const char name[] = "additionalProperties";
    bool close = from == NULL || from->type == JSON_OBJECT;
    for (size_t i = 0; i < ARRAY_LEN(open) && from != NULL && close; i++)
        close = json_get(from, open[i]) == NULL;
    if (!close)
        return from;
    uint32_t n = from != NULL ? from->span : 1;
    struct json *copy = schema_alloc(s, (size_t)n + 2, sizeof *copy);
    if (copy == NULL)
        return NULL;
    if (from != NULL)
        memcpy(copy, from, n * sizeof *copy);
    else
        copy[0] = (struct json){ .type = JSON_OBJECT, .span = 1 };
    copy[0].span += 2;
    copy[0].count++;
    copy[n] = (struct json){ .type = JSON_STRING, .span = 1, .text = name, .size = sizeof name - 1, .offset = copy[0].offset };
    copy[n + 1] = (struct json){ .type = JSON_FALSE, .span = 1, .offset = copy[0].offset };
    return copy;
}

static int32_t compile_tool(struct con_grammar *g, const struct json *item, size_t i, struct con_tool *tool)
{
    struct schema *s = &g->schema;
    bool wrapped;
    const struct json *parameters = parameters_of(item, &wrapped);
    const struct json *name = json_get(wrapped ? json_get(item, "function") : item, "name");
    if (parameters != NULL && parameters->type == JSON_NULL)
        parameters = NULL;
    set_prefix(s, i, wrapped);
    parameters = closed(s, parameters);
    if (s->failed || schema_document(s, parameters))
        return s->failed;
    tool->name = (struct vocab_text){ name->text, name->size };
    tool->type = tool_types_find(g->types, name->text, name->size);
    tool->term = term_place(s, parameters);
    const struct norm *n = term_norm(s, tool->term);
    for (uint32_t k = 0; n != NULL && k < n->n_object; k++)
        s->object[n->object[k]].is_call = true;
    if (!schema_finish(s, &tool->term, 1))
        mark_call(g, tool, s->err);
    return s->failed;
}

static int order(const struct con_tool *a, const struct con_tool *b)
{
    size_t n = a->name.size < b->name.size ? a->name.size : b->name.size;
    int c = memcmp(a->name.text, b->name.text, n);
    return c != 0 ? c : a->name.size < b->name.size ? -1 : a->name.size > b->name.size;
}

static int32_t add_names(struct con_grammar *g, const struct con_spec *spec, glm_error *err)
{
    struct vocab_text *names = schema_alloc(&g->schema, g->n_tool, sizeof *names);
    uint32_t n = 0;
    for (uint32_t i = 1; i < g->n_tool; i++) /* few, and mostly sorted by nobody: insertion */
        for (uint32_t k = i; k > 0 && order(&g->tool[k], &g->tool[k - 1]) < 0; k--) {
            struct con_tool swap = g->tool[k];
            g->tool[k] = g->tool[k - 1];
            g->tool[k - 1] = swap;
        }
    for (uint32_t i = 0; names != NULL && i < g->n_tool; i++) {
        const struct vocab_text *name = &g->tool[i].name;
        if (i > 0 && order(&g->tool[i - 1], &g->tool[i]) == 0)
            return err_set(err, GLM_ESCHEMA, 0, NULL, "two tools have the same name");
        if (!fits_tags(name) || memchr(name->text, '\n', name->size) != NULL)
            return err_set(err, GLM_ESCHEMA, 0, NULL, "a tool's name may not begin or end with space, nor hold a newline");
        if (spec->choice == CON_NAMED && (name->size != spec->name_size || memcmp(name->text, spec->name, name->size) != 0))
            continue;
        if (spec->choice == CON_NAMED)
            g->tool[0] = g->tool[i];
        names[n++] = g->tool[i].name;
    }
    if (spec->choice == CON_NAMED && n == 0)
        return err_set(err, GLM_ESCHEMA, 0, NULL, "the tool that was chosen by name is not declared");
    if (spec->choice == CON_NAMED)
        g->n_tool = 1;
    if (spec->choice != CON_NONE && n > 0)
        g->names = rx_state_of(&g->rx, rx_literals(&g->rx, names, n, true, RX_EMPTY));
    return g->schema.failed;
}

static bool has_name(const struct json *item)
{
    const struct json *function = json_get(item, "function");
    const struct json *name = json_get(function != NULL && function->type == JSON_OBJECT ? function : item, "name");
    return name != NULL && name->type == JSON_STRING && name->size > 0;
}

int32_t call_compile(struct con_grammar *g, const struct con_spec *spec, const struct json *tools, glm_error *err)
{
    static const enum tok_special needed[] = { TOK_TOOL_CALL, TOK_TOOL_CALL_END, TOK_ARG_KEY, TOK_ARG_KEY_END, TOK_ARG_VALUE,
        TOK_ARG_VALUE_END };
    bool none = tools == NULL || tools->type == JSON_NULL;
    int32_t rc = tool_types_open(g->mem, none ? NULL : tools, &g->types, err);
    if (rc)
        return rc;
    if (none || tools->count == 0) {
        if (spec->choice == CON_REQUIRED || spec->choice == CON_NAMED)
            return err_set(err, GLM_ESCHEMA, 0, NULL, "a tool must be called, but none is declared");
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (g->special[needed[i]] < 0 && spec->choice != CON_NONE)
            return err_set(err, GLM_ENOTSUP, 0, chat_spelling(needed[i]), "the vocabulary has no token for this tag");
    g->tool = schema_alloc(&g->schema, tools->count, sizeof *g->tool);
    for (const struct json *item = json_first(tools); item && g->tool && !rc; item = json_next(tools, item))
        rc = has_name(item) ? compile_tool(g, item, g->n_tool, &g->tool[g->n_tool]) : 0, g->n_tool++;
    if (!rc)
        rc = add_names(g, spec, err);
    g->schema.prefix[0] = 0;
    return rc ? rc : g->schema.failed;
}
