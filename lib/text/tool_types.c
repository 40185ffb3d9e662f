/* tool_types.c: which JSON types each declared argument may have, read off the tools' schemas once.
 * Everything lies in one arena that lives until tool_types_close. Only types are looked at: whether
 * a value is valid is the constraint's business.
 */
#include "place.h"
#include "text.h"

#include <string.h>

struct argument {
    struct vocab_text key;
    uint32_t types;
};

struct tool_type {
    struct vocab_text name;
    struct argument *arguments;  /* [n_argument] */
    struct vocab_text *required; /* [n_required] */
    size_t n_argument, n_required;
    uint32_t other; /* types of keys that are not declared */
};

struct tool_types {
    struct mem *mem;
    struct arena arena;
    struct tool_type *tools; /* [n_tool] */
    size_t n_tool;
};

/* ---- the types of a schema ------------------------------------------------------------------- */

/* Enough for any schema that people write; what lies deeper, or in a circle of references, may be
 * any type. A document's whole work is limited, too: else references to references, each of them
 * searched for among many members, take hours. */
#define WALK_DEPTH 12u
#define WALK_BUDGET 512u
#define WALK_WORK (UINT64_C(1) << 22) /* members looked at in all of a document's references */

struct walk {
    const struct json *root; /* what "#" in a reference means */
    uint32_t budget;         /* schemas that one argument may still look at */
    uint64_t *work;          /* what is left of WALK_WORK */
};

static uint32_t types_of_name(const struct json *name)
{
    static const struct {
        const char *name;
        uint32_t types;
    } known[] = {
        {"string", TOOL_STRING},
        {"integer", TOOL_INTEGER},
        {"number", TOOL_INTEGER | TOOL_REAL},
        {"boolean", TOOL_BOOLEAN},
        {"null", TOOL_NULL},
        {"array", TOOL_ARRAY},
        {"object", TOOL_OBJECT},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (json_is_text(name, known[i].name))
            return known[i].types;
    return TOOL_ANY;
}

static uint32_t types_of_value(const struct json *v)
{
    int64_t i;
    uint64_t u;
    switch (v->type) {
    case JSON_NULL: return TOOL_NULL;
    case JSON_FALSE:
    case JSON_TRUE: return TOOL_BOOLEAN;
    case JSON_NUMBER: return json_i64(v, &i) || json_u64(v, &u) ? TOOL_INTEGER : TOOL_REAL;
    case JSON_STRING: return TOOL_STRING;
    case JSON_ARRAY: return TOOL_ARRAY;
    default: return TOOL_OBJECT;
    }
}

static uint32_t types_of_list(const struct json *list, uint32_t (*types)(const struct json *))
{
    uint32_t any_of = 0;
    for (const struct json *v = json_first(list); v; v = json_next(list, v))
        any_of |= types(v);
    return any_of;
}

/* One step of a JSON pointer: the member or element that the token names. */
static const struct json *step_into(
    struct walk *w, const struct json *v, const char *token, size_t size)
{
    size_t index = 0;
    if (*w->work < v->count)
        return NULL;
    *w->work -= v->count;
    if (v->type == JSON_ARRAY) {
        for (size_t i = 0; i < size; i++) {
            if (token[i] < '0' || token[i] > '9' || index > UINT32_MAX)
                return NULL;
            index = index * 10 + (size_t)(token[i] - '0');
        }
    }
    for (const struct json *at = json_first(v); at; at = json_next(v, at)) {
        if (v->type == JSON_ARRAY && index-- == 0)
            return at;
        if (v->type == JSON_OBJECT) { /* ~1 is a slash, ~0 a tilde */
            size_t i = 0, k = 0;
            for (; i < size && k < at->size; i++, k++) {
                char c = token[i];
                if (c == '~' && i + 1 < size && (token[i + 1] == '0' || token[i + 1] == '1'))
                    c = token[++i] == '0' ? '~' : '/';
                if (c != at->text[k])
                    break;
            }
            if (i == size && k == at->size)
                return at + 1;
        }
    }
    return NULL;
}

static const struct json *referenced(struct walk *w, const struct json *ref)
{
    const struct json *root = w->root;
    if (ref->type != JSON_STRING || ref->size == 0 || ref->text[0] != '#')
        return NULL;
    const char *at = ref->text + 1, *end = ref->text + ref->size;
    while (root != NULL && at < end) {
        if (*at++ != '/')
            return NULL;
        const char *stop = memchr(at, '/', (size_t)(end - at));
        stop = stop != NULL ? stop : end;
        root = step_into(w, root, at, (size_t)(stop - at));
        at = stop;
    }
    return root;
}

static uint32_t types_of_schema(struct walk *w, const struct json *schema, uint32_t depth);

static uint32_t types_of_branches(struct walk *w, const struct json *list, uint32_t depth)
{
    uint32_t any_of = 0;
    for (const struct json *v = json_first(list); v; v = json_next(list, v))
        any_of |= types_of_schema(w, v, depth);
    return any_of != 0 ? any_of : TOOL_ANY;
}

/* The depth is ours, not the document's: WALK_DEPTH frames at most. */
static uint32_t types_of_schema(struct walk *w, const struct json *schema, uint32_t depth)
{
    const struct json *v;
    uint32_t types = TOOL_ANY;
    bool nullable = false;
    if (schema == NULL || schema->type != JSON_OBJECT || depth == WALK_DEPTH || w->budget == 0)
        return TOOL_ANY;
    if (*w->work < 16 + schema->count) /* its keywords are searched for one by one */
        return TOOL_ANY;
    *w->work -= 16 + schema->count;
    w->budget--;
    if ((v = json_get(schema, "type")) != NULL)
        types &= v->type == JSON_ARRAY ? types_of_list(v, types_of_name) : types_of_name(v);
    if ((v = json_get(schema, "enum")) != NULL && v->type == JSON_ARRAY)
        types &= types_of_list(v, types_of_value);
    if ((v = json_get(schema, "const")) != NULL)
        types &= types_of_value(v);
    if ((v = json_get(schema, "$ref")) != NULL)
        types &= types_of_schema(w, referenced(w, v), depth + 1);
    if ((v = json_get(schema, "anyOf")) != NULL && v->type == JSON_ARRAY)
        types &= types_of_branches(w, v, depth + 1);
    if ((v = json_get(schema, "oneOf")) != NULL && v->type == JSON_ARRAY)
        types &= types_of_branches(w, v, depth + 1);
    if ((v = json_get(schema, "allOf")) != NULL && v->type == JSON_ARRAY)
        for (const struct json *part = json_first(v); part; part = json_next(v, part))
            types &= types_of_schema(w, part, depth + 1);
    if (json_bool(json_get(schema, "nullable"), &nullable) && nullable) /* OpenAPI 3.0 */
        types |= TOOL_NULL;
    return types != 0 ? types : TOOL_ANY; /* nothing fits: the schema is no help */
}

/* ---- the declared tools ---------------------------------------------------------------------- */

static bool copy_text(struct arena *a, const struct json *v, struct vocab_text *out)
{
    *out = (struct vocab_text){arena_copy(a, v->text, v->size), v->size};
    return out->text != NULL;
}

static bool read_arguments(
    struct arena *a, const struct json *parameters, uint64_t *work, struct tool_type *tool)
{
    const struct json *properties = json_get(parameters, "properties");
    struct walk w = {parameters, WALK_BUDGET, work};
    tool->other = types_of_schema(&w, json_get(parameters, "additionalProperties"), 0);
    if (properties == NULL || properties->type != JSON_OBJECT || properties->count == 0)
        return true;
    size_t bytes;
    if (!ck_size((uint64_t)properties->count * sizeof *tool->arguments, &bytes))
        return false;
    tool->arguments = arena_alloc(a, bytes, _Alignof(struct argument));
    if (tool->arguments == NULL)
        return false;
    for (const struct json *key = json_first(properties); key; key = json_next(properties, key)) {
        struct argument *to = &tool->arguments[tool->n_argument++];
        w.budget = WALK_BUDGET;
        to->types = types_of_schema(&w, key + 1, 0);
        if (!copy_text(a, key, &to->key))
            return false;
    }
    return true;
}

static bool read_required(struct arena *a, const struct json *parameters, struct tool_type *tool)
{
    const struct json *list = json_get(parameters, "required");
    if (list == NULL || list->type != JSON_ARRAY || list->count == 0)
        return true;
    size_t bytes;
    if (!ck_size((uint64_t)list->count * sizeof *tool->required, &bytes))
        return false;
    tool->required = arena_alloc(a, bytes, _Alignof(struct vocab_text));
    if (tool->required == NULL)
        return false;
    for (const struct json *key = json_first(list); key; key = json_next(list, key))
        if (key->type == JSON_STRING && !copy_text(a, key, &tool->required[tool->n_required++]))
            return false;
    return true;
}

static int32_t read_tool(struct tool_types *t, const struct json *item, size_t i_tool,
    uint64_t *work, glm_error *err)
{
    const struct json *function = json_get(item, "function");
    const struct json *record = function != NULL && function->type == JSON_OBJECT ? function : item;
    const struct json *name = json_get(record, "name"),
                      *parameters = json_get(record, "parameters");
    struct tool_type *tool = &t->tools[i_tool];
    *tool = (struct tool_type){.other = TOOL_ANY};
    if (name == NULL || name->type != JSON_STRING || name->size == 0) {
        struct place p = {{0}, 0};
        place_index(&p, i_tool);
        place_text(&p, record == item ? "/name" : "/function/name");
        return err_set(err, GLM_ESCHEMA, item->offset, p.text,
            "a tool needs a name, a string that is not empty");
    }
    if (!copy_text(&t->arena, name, &tool->name) ||
        !read_arguments(&t->arena, parameters, work, tool) ||
        !read_required(&t->arena, parameters, tool))
        return err_nomem(err, "the tools' types");
    return 0;
}

int32_t tool_types_open(
    struct mem *m, const struct json *tools, struct tool_types **out, glm_error *err)
{
    *out = NULL;
    bool none = tools == NULL || tools->type == JSON_NULL;
    if (!none && tools->type != JSON_ARRAY)
        return err_set(err, GLM_ESCHEMA, tools->offset, NULL, "tools must be a JSON array");
    struct tool_types *t = mem_zalloc(m, sizeof *t);
    if (t == NULL)
        return err_nomem(err, "the tools' types");
    t->mem = m;
    arena_init(&t->arena, m);
    int32_t rc = 0;
    uint64_t work = WALK_WORK;
    if (!none && tools->count > 0) {
        size_t bytes;
        if (ck_size((uint64_t)tools->count * sizeof *t->tools, &bytes))
            t->tools = arena_alloc(&t->arena, bytes, _Alignof(struct tool_type));
        if (t->tools == NULL)
            rc = err_nomem(err, "the tools' types");
        for (const struct json *item = json_first(tools); item && !rc;
             item = json_next(tools, item))
            rc = read_tool(t, item, t->n_tool++, &work, err);
    }
    if (rc)
        tool_types_close(t);
    else
        *out = t;
    return rc;
}

void tool_types_close(struct tool_types *t)
{
    if (t == NULL)
        return;
    arena_free(&t->arena);
    mem_free(t->mem, t);
}

/* ---- asking ---------------------------------------------------------------------------------- */

static bool same(const struct vocab_text *a, const char *text, size_t size)
{
    return a->size == size && memcmp(a->text, text, size) == 0;
}

const struct tool_type *tool_types_find(const struct tool_types *t, const char *name, size_t size)
{
    for (size_t i = 0; t != NULL && i < t->n_tool; i++)
        if (same(&t->tools[i].name, name, size))
            return &t->tools[i];
    return NULL;
}

uint32_t tool_type_of(const struct tool_type *tool, const char *key, size_t size)
{
    if (tool == NULL)
        return TOOL_ANY;
    for (size_t i = 0; i < tool->n_argument; i++)
        if (same(&tool->arguments[i].key, key, size))
            return tool->arguments[i].types;
    return tool->other;
}

const char *tool_type_required(const struct tool_type *tool, size_t i, size_t *size)
{
    *size = 0;
    if (tool == NULL || i >= tool->n_required)
        return NULL;
    *size = tool->required[i].size;
    return tool->required[i].text;
}
