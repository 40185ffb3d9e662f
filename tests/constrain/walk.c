/* walk.c: random walks through a constraint. Reads lines {"schema" | "regex" | "choices" | "tools", "template",
 * "walks", "seed"}, and takes, token by token, what the masks allow, until the text may end and a coin says so.
 * Writes {"error": null or {"pointer", "message"}, "walks": [{"end", "why", "text", "calls"}]}: end is "end"; "long",
 * where the walk was given up; or what is wrong with the engine: a dead end, a mask that does not agree with what is
 * accepted, that is another one after going back, canonical tokens that are refused. Whether a text is valid, the
 * reader of this judges.
 */
#include "../../lib/text/constraint.h"
#include "../../tools/lines.h"
#include "../../tools/report.h"
#include "../../tools/text_model.h"

#include <stdio.h>
#include <string.h>

#define STEPS_MAX 700u
#define HURRY 40u        /* from here on, what closes comes first */
#define CANDIDATES 4096u /* allowed tokens looked at for a choice */
#define PROBES 24u

struct walker {
    struct mem *mem;
    const struct tok *tok;
    struct con_vocab *vocab;
    uint32_t n_word, n_vocab;
    uint32_t *mask, *other;
    uint64_t random;
    struct buf text;
    struct ids ids, again;
    uint64_t *mask_hash; /* [STEPS_MAX] of the mask before each token */
    const char *wrong;
    glm_error why; /* the library's own words about it, if it has any */
};

static uint64_t draw(struct walker *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random * 0x2545F4914F6CDD1Dull >> 11;
}

static bool chance(struct walker *w, uint32_t percent)
{
    return draw(w) % 100 < percent;
}

static bool allowed(const uint32_t *mask, int32_t id)
{
    return mask[id >> 5] >> (id & 31) & 1;
}

static bool is_stop(const struct walker *w, int32_t id)
{
    const struct tok *t = w->tok;
    return id == tok_id(t, TOK_ENDOFTEXT) || id == tok_id(t, TOK_USER) || id == tok_id(t, TOK_OBSERVATION);
}

static uint64_t hash_of(const uint32_t *mask, uint32_t n_word)
{
    uint64_t h = 1469598103934665603ull;
    for (uint32_t i = 0; i < n_word; i++)
        h = (h ^ mask[i]) * 1099511628211ull;
    return h;
}

/* How welcome a token is: closing ones when time is short, short ones as the walk's style says. */
static uint32_t weight(const struct walker *w, int32_t id, uint32_t style, bool hurry)
{
    size_t size;
    const char *bytes = tok_bytes(w->tok, id, &size);
    if (tok_is_added(w->tok, id))
        return hurry ? 10000 : 300;
    if (!bytes || !size)
        return 1;
    bool closes = size <= 2 && memchr("\"}]", bytes[0], 3) != NULL;
    if (hurry)
        return closes ? 10000 : size == 1 && bytes[0] != ' ' && bytes[0] != '\n' && bytes[0] != '\t' ? 20 : 1;
    return closes ? 100 : size == 1 ? (style == 0 ? 20 : 200) : style == 2 ? 0 : 1;
}

/* An allowed token that is no stop; -1: there is none. */
static int32_t choose(struct walker *w, uint32_t style, bool hurry)
{
    uint64_t total = 0;
    int32_t chosen = -1;
    uint32_t first = (uint32_t)(draw(w) % w->n_word), seen = 0;

    for (uint32_t k = 0; k < w->n_word && seen < CANDIDATES; k++) {
        uint32_t i = (first + k) % w->n_word, word = w->mask[i];
        for (; word; word &= word - 1) {
            int32_t id = (int32_t)(i * 32 + (uint32_t)__builtin_ctz(word));
            if (is_stop(w, id))
                continue;
            seen++;
            total += weight(w, id, style, hurry) + 1;
            if (draw(w) % total < weight(w, id, style, hurry) + 1)
                chosen = id;
        }
    }
    return chosen;
}

/* Single bytes and markup are among the candidates wherever the search began: their ids are few and far. */
static int32_t choose_common(struct walker *w, uint32_t style, bool hurry)
{
    int32_t chosen = choose(w, style, hurry);
    uint64_t total = chosen >= 0 ? weight(w, chosen, style, hurry) + 1 : 0;

    for (int32_t id = 0; id < (int32_t)w->n_vocab; id += id == 511 ? (int32_t)w->n_vocab - 600 - 511 : 1) {
        if (!allowed(w->mask, id) || is_stop(w, id) || (id > 511 && !tok_is_added(w->tok, id)))
            continue;
        total += weight(w, id, style, hurry) + 1;
        if (draw(w) % total < weight(w, id, style, hurry) + 1)
            chosen = id;
    }
    return chosen;
}

/* Whether tokens drawn at random are accepted exactly where the mask has them. */
static void probe(struct walker *w, struct con_run *run)
{
    glm_error err = GLM_ERROR_INIT;
    for (uint32_t i = 0; i < PROBES && !w->wrong; i++) {
        struct con_run *fork = NULL;
        int32_t id = i % 2 ? choose(w, 0, false) : (int32_t)(draw(w) % w->n_vocab);
        if (id < 0 || is_stop(w, id))
            continue;
        if (con_fork(run, &fork, &err)) {
            w->wrong = "a fork failed";
            return;
        }
        bool takes = con_accept(fork, id, &err) == 0;
        if (takes != allowed(w->mask, id))
            w->wrong = takes ? "accepted what the mask forbids" : "refused what the mask allows";
        con_close(fork);
    }
}

static bool take(struct walker *w, struct con_run *run, int32_t id)
{
    size_t size;
    const char *bytes = tok_bytes(w->tok, id, &size);

    if (con_accept(run, id, &w->why)) {
        w->wrong = "refused a token of its mask";
        return false;
    }
    ids_put(&w->ids, id);
    buf_put(&w->text, bytes, size);
    return true;
}

/* After going back anywhere, the mask is what it was. */
static void go_back(struct walker *w, struct con_run *run, size_t n_step)
{
    glm_error err = GLM_ERROR_INIT;
    size_t to = n_step ? draw(w) % n_step : 0;
    if (!n_step)
        return;
    con_rewind(run, to);
    if (con_mask(run, w->other, &err) || hash_of(w->other, w->n_word) != w->mask_hash[to])
        w->wrong = "another mask after going back";
}

/* The canonical tokens of an accepted text are accepted too. */
static void retrace(struct walker *w, struct con_run *run)
{
    glm_error err = GLM_ERROR_INIT;
    con_rewind(run, 0);
    w->again.n = 0;
    if (tok_encode(w->tok, w->text.data ? w->text.data : "", w->text.size, 0, &w->again, &err))
        w->wrong = "accepted text that is not UTF-8";
    for (size_t i = 0; i < w->again.n && !w->wrong; i++)
        if (con_mask(run, w->other, &err) || !allowed(w->other, w->again.id[i]) ||
            con_accept(run, w->again.id[i], &err))
            w->wrong = "refuses the canonical tokens of a text that it accepted";
    if (!w->wrong && !con_can_end(run))
        w->wrong = "does not end behind the canonical tokens of a text that ended";
}

/* One walk; how it ended. */
static const char *walk(struct walker *w, struct con_run *run, bool is_text)
{
    uint32_t style = (uint32_t)(draw(w) % 3), hurry = HURRY + (uint32_t)(draw(w) % HURRY);
    size_t n = 0;
    const char *end = "long";

    w->ids.n = 0;
    w->wrong = NULL;
    w->why = (glm_error)GLM_ERROR_INIT;
    buf_clear(&w->text);
    for (; n < STEPS_MAX && !w->wrong; n++) {
        if (con_mask(run, w->mask, &w->why)) {
            w->wrong = "no mask";
            break;
        }
        w->mask_hash[n] = hash_of(w->mask, w->n_word);
        bool can_end = con_can_end(run);
        if (can_end != allowed(w->mask, tok_id(w->tok, TOK_ENDOFTEXT)) && is_text) {
            w->wrong = "the mask and con_can_end differ about the end";
            break;
        }
        int32_t id = choose_common(w, style, n > hurry);
        if (can_end && (id < 0 || chance(w, n > hurry ? 95 : 35))) {
            end = "end";
            break;
        }
        if (id < 0) {
            w->wrong = "dead end";
            break;
        }
        if (chance(w, 10))
            probe(w, run);
        if (!w->wrong && !take(w, run, id))
            break;
    }
    if (!w->wrong && chance(w, 50))
        go_back(w, run, n);
    if (!w->wrong && is_text && strcmp(end, "end") == 0)
        retrace(w, run);
    return w->wrong ? w->wrong : end;
}

/* The calls in the walk's tokens, as a conversation would deliver them. */
static int32_t put_calls(struct walker *w, struct buf *out, const struct tool_types *types, enum chat_family family,
    glm_error *err)
{
    struct stream *s = NULL;
    struct stream_text turn;
    struct stream_sink sink;
    enum stream_finish finish = STREAM_OPEN;
    int32_t rc;

    stream_text_init(&turn, w->mem);
    sink = stream_text_sink(&turn);
    rc = stream_open(w->mem, w->tok, types, family, false, &s, err);
    for (size_t i = 0; i < w->ids.n && !rc; i++)
        rc = stream_put(s, w->ids.id[i], &sink, err);
    if (!rc)
        rc = stream_end(s, false, &sink, &finish, err);
    for (size_t i = 0; i < turn.n_call && !rc; i++) {
        buf_str(out, i ? ", {\"name\": " : "{\"name\": ");
        json_put_string(out, turn.calls[i].name, turn.calls[i].name_size);
        buf_str(out, ", \"arguments\": ");
        json_put_string(out, turn.calls[i].arguments, turn.calls[i].arguments_size);
        buf_char(out, '}');
    }
    stream_close(s);
    stream_text_free(&turn);
    return rc;
}

static int32_t put_walk(struct walker *w, struct buf *out, struct con_grammar *g, const struct tool_types *types,
    enum chat_family family, glm_error *err)
{
    struct con_run *run = NULL;
    int32_t rc = con_open(w->mem, g, &run, err);
    if (rc)
        return rc;
    const char *end = walk(w, run, types == NULL);
    con_close(run);
    buf_str(out, "{\"end\": ");
    json_put_string(out, end, strlen(end));
    buf_str(out, ", \"why\": ");
    json_put_string(out, w->why.message, strlen(w->why.message));
    buf_str(out, ", \"text\": ");
    json_put_string(out, w->text.data, utf8_valid_prefix(w->text.data, w->text.size));
    buf_str(out, ", \"calls\": [");
    if (types)
        rc = put_calls(w, out, types, family, err);
    buf_str(out, "]}");
    return rc;
}

static void put_error(struct buf *out, const glm_error *err)
{
    buf_str(out, "{\"error\": {\"pointer\": ");
    json_put_string(out, err->where, strlen(err->where));
    buf_str(out, ", \"message\": ");
    json_put_string(out, err->message, strlen(err->message));
    buf_str(out, "}, \"walks\": []}");
}

static struct con_spec spec_of(const struct json *root)
{
    const struct json *regex = json_get(root, "regex"), *name = json_get(root, "template");
    struct con_spec spec = { .schema = json_get(root, "schema"), .choices = json_get(root, "choices"),
        .tools = json_get(root, "tools"), .family = name && json_is_text(name, "4.7") ? CHAT_47 : CHAT_45 };

    spec.kind = spec.tools ? CON_TURN : regex ? CON_REGEX : spec.choices ? CON_CHOICE : spec.schema ? CON_SCHEMA
        : CON_OBJECT;
    if (regex) {
        spec.regex = regex->text;
        spec.regex_size = regex->size;
    }
    if (spec.tools)
        spec.choice = CON_REQUIRED;
    return spec;
}

static int32_t answer(struct lines *l, struct walker *w, const struct json *tools, glm_error *err)
{
    const struct json *root = l->doc.root;
    struct con_spec spec = spec_of(root);
    struct con_grammar *g = NULL;
    struct tool_types *types = NULL;
    uint64_t n = 1, seed = 1;
    int32_t rc;

    if (con_compile(w->mem, w->vocab, &spec, &g, err)) {
        put_error(&l->out, err);
        return 0;
    }
    rc = tools ? tool_types_open(w->mem, tools, &types, err) : 0;
    json_u64(json_get(root, "walks"), &n);
    json_u64(json_get(root, "seed"), &seed);
    w->random = seed * 0x9E3779B97F4A7C15ull + 88172645463325252ull;
    buf_str(&l->out, "{\"error\": null, \"walks\": [");
    for (uint64_t i = 0; i < n && !rc; i++) {
        if (i)
            buf_str(&l->out, ", ");
        rc = put_walk(w, &l->out, g, types, spec.family, err);
    }
    buf_str(&l->out, "]}");
    tool_types_close(types);
    con_release(g);
    return rc;
}

static int answer_all(struct walker *w)
{
    struct lines l;
    int status;

    lines_open(&l, w->mem, "walk");
    while ((status = lines_next(&l)) == LINES_GO_ON) {
        glm_error err = GLM_ERROR_INIT;
        status = answer(&l, w, json_get(l.doc.root, "tools"), &err) ? lines_bad(&l, &err) : lines_answer(&l);
        if (status != LINES_GO_ON)
            break;
    }
    lines_close(&l);
    return status;
}

int main(int argc, char **argv)
{
    struct mem m;
    struct text_model t;
    struct walker w = { 0 };
    glm_error err = GLM_ERROR_INIT;
    int status;

    if (argc != 3 || strcmp(argv[1], "constrain") != 0)
        return report_usage("walk", "usage: walk constrain MODEL");
    mem_init(&m, NULL);
    status = text_model_open(&t, &m, argv[2], NULL, true, "walk");
    if (status != EXIT_FINE)
        return status;
    w = (struct walker){ .mem = &m, .tok = t.tok, .n_vocab = tok_n(t.tok) };
    if (con_vocab_open(&m, t.tok, 0, &w.vocab, &err))
        return report_error("walk", &err);
    w.n_word = con_n_word(w.vocab);
    w.mask = mem_alloc(&m, w.n_word * sizeof *w.mask);
    w.other = mem_alloc(&m, w.n_word * sizeof *w.other);
    w.mask_hash = mem_alloc(&m, STEPS_MAX * sizeof *w.mask_hash);
    buf_init(&w.text, &m);
    ids_init(&w.ids, &m);
    ids_init(&w.again, &m);
    if (!w.mask || !w.other || !w.mask_hash)
        return report_failed("walk", "out of memory");
    status = answer_all(&w);
    ids_free(&w.again);
    ids_free(&w.ids);
    buf_free(&w.text);
    mem_free(&m, w.mask_hash);
    mem_free(&m, w.other);
    mem_free(&m, w.mask);
    con_vocab_close(w.vocab);
    text_model_close(&t);
    return status;
}
