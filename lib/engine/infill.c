/* infill.c: turns that write the code between a prefix and a suffix. Their prompt is built when they are asked for and
 * waits for the next step; the conversation plays no part in it.
 *
 * The prompt: [gMASK]<sop>, the files of context, <|code_prefix|> prefix <|code_suffix|> suffix <|code_middle|>. Files are
 * written as the infilling guideline of CodeGeeX4, the code model of the GLM line, has it (THUDM/CodeGeeX4,
 * guides/Infilling_guideline.md): "###REFERENCE:", a newline, "###PATH:" and the path, a newline, the text. They stand in
 * front, so that they stay in the KV cache while the prefix is typed on.
 *
 * All text is data, never markup. It comes out as the model writes it: spaces and newlines are code.
 */
#include "engine_int.h"

#include <string.h>

void infill_init(struct infill *v, struct mem *m)
{
    *v = (struct infill){ .mem = m };
    ids_init(&v->prompt, m);
    buf_init(&v->line, m);
    buf_init(&v->decoded, m);
}

static void file_free(struct mem *m, struct infill_file *f)
{
    mem_free(m, f->path);
    ids_free(&f->ids);
}

void infill_free(struct infill *v)
{
    for (size_t i = 0; i < v->n_file; i++)
        file_free(v->mem, &v->file[i]);
    mem_free(v->mem, v->file);
    ids_free(&v->prompt);
    buf_free(&v->line);
    buf_free(&v->decoded);
}

static int32_t file_copy(struct mem *m, const struct infill_file *from, struct infill_file *to, glm_error *err)
{
    to->path = mem_alloc(m, strlen(from->path) + 1);
    ids_init(&to->ids, m);
    if (to->path)
        memcpy(to->path, from->path, strlen(from->path) + 1);
    ids_append(&to->ids, from->ids.id, from->ids.n);
    if (to->path && !to->ids.failed)
        return GLM_OK;
    file_free(m, to);
    return err_nomem(err, "a file of context");
}

int32_t infill_copy(struct infill *to, const struct infill *from, glm_error *err)
{
    int32_t rc = GLM_OK;
    to->file = mem_array(to->mem, from->n_file + 1, sizeof *to->file);
    to->capacity = from->n_file + 1;
    if (!to->file)
        return err_nomem(err, "the files of context");
    for (size_t i = 0; i < from->n_file && !rc; i++) {
        rc = file_copy(to->mem, &from->file[i], &to->file[i], err);
        to->n_file += !rc;
    }
    ids_append(&to->prompt, from->prompt.id, from->prompt.n);
    buf_put(&to->line, from->line.data, from->line.size);
    to->pending = from->pending;
    to->decoder = from->decoder;
    return rc || !(to->prompt.failed || to->line.failed) ? rc : err_nomem(err, "the code prompt");
}

/* ---- what the host gives ----------------------------------------------------------------------------------------- */

static const enum tok_special code_tokens[] = { TOK_CODE_PREFIX, TOK_CODE_SUFFIX, TOK_CODE_MIDDLE };

static int32_t check(const glm_session *s, glm_error *err)
{
    int32_t rc = session_check_idle(s, err);
    if (rc)
        return rc;
    if (s->turn.active)
        return err_set(err, GLM_ESTATE, 0, NULL, "a turn is under way: step to its end or cancel first");
    for (size_t i = 0; i < ARRAY_LEN(code_tokens); i++)
        if (tok_id(s->model->tok, code_tokens[i]) < 0)
            return err_set(err, GLM_ENOTSUP, 0, NULL, "the vocabulary has no %s: the checkpoint cannot fill in code",
                chat_spelling(code_tokens[i]));
    return GLM_OK;
}

/* The last line of the prefix as far as its indentation shows: the code goes on with that line. */
static void keep_line(struct buf *line, const char *prefix, size_t size)
{
    size_t begin = size;
    buf_clear(line);
    while (begin > 0 && prefix[begin - 1] != '\n')
        begin--;
    for (bool blank = true; begin < size && blank; begin++) {
        buf_char(line, prefix[begin]);
        blank = prefix[begin] == ' ' || prefix[begin] == '\t';
    }
}

static void put_special(const glm_session *s, struct ids *out, enum tok_special which)
{
    int32_t id = tok_id(s->model->tok, which);
    if (id >= 0)
        ids_put(out, id);
}

static int32_t build(const glm_session *s, const char *prefix, size_t prefix_size, const char *suffix, size_t suffix_size,
    struct ids *out, glm_error *err)
{
    const struct tok *t = s->model->tok;
    int32_t rc;

    put_special(s, out, TOK_GMASK);
    put_special(s, out, TOK_SOP);
    for (size_t i = 0; i < s->infill.n_file; i++)
        ids_append(out, s->infill.file[i].ids.id, s->infill.file[i].ids.n);
    put_special(s, out, TOK_CODE_PREFIX);
    rc = tok_encode(t, prefix, prefix_size, 0, out, err);
    put_special(s, out, TOK_CODE_SUFFIX);
    if (!rc)
        rc = tok_encode(t, suffix, suffix_size, 0, out, err);
    put_special(s, out, TOK_CODE_MIDDLE);
    return rc || !out->failed ? rc : err_nomem(err, "the code prompt");
}

int32_t session_infill(glm_session *s, const char *prefix, size_t prefix_size, const char *suffix, size_t suffix_size,
    glm_error *err)
{
    struct infill *v = &s->infill;
    struct ids prompt;
    struct buf line;
    int32_t rc = check(s, err);

    if (rc)
        return rc;
    ids_init(&prompt, v->mem);
    buf_init(&line, v->mem);
    rc = build(s, prefix, prefix_size, suffix, suffix_size, &prompt, err);
    keep_line(&line, prefix, prefix_size);
    if (!rc && line.failed)
        rc = err_nomem(err, "the code prompt");
    if (rc) {
        ids_free(&prompt);
        buf_free(&line);
        return rc;
    }
    ids_free(&v->prompt);
    buf_free(&v->line);
    v->prompt = prompt;
    v->line = line;
    v->pending = true;
    atomic_store(&s->cancel, false);
    return GLM_OK;
}

/* ---- files of context ---------------------------------------------------------------------------------------------- */

static int32_t file_open(const glm_session *s, const char *path, const char *text, size_t size, struct infill_file *out,
    glm_error *err)
{
    struct mem *m = s->infill.mem;
    struct buf b;
    int32_t rc;

    buf_init(&b, m);
    ids_init(&out->ids, m);
    out->path = mem_alloc(m, strlen(path) + 1);
    if (out->path)
        memcpy(out->path, path, strlen(path) + 1);
    buf_str(&b, "###REFERENCE:\n###PATH:");
    buf_str(&b, path);
    buf_char(&b, '\n');
    buf_put(&b, text, size);
    if (size && text[size - 1] != '\n')
        buf_char(&b, '\n');
    rc = b.failed || !out->path ? err_nomem(err, "a file of context")
                                : tok_encode(s->model->tok, b.data, b.size, 0, &out->ids, err);
    buf_free(&b);
    if (rc)
        file_free(m, out);
    return rc;
}

static size_t find_file(const struct infill *v, const char *path)
{
    size_t i = 0;
    while (i < v->n_file && strcmp(v->file[i].path, path))
        i++;
    return i;
}

static bool reserve_file(struct infill *v)
{
    size_t capacity = v->capacity ? 2 * v->capacity : 8;
    struct infill_file *file;
    if (v->n_file < v->capacity)
        return true;
    file = mem_resize(v->mem, v->file, capacity * sizeof *file);
    if (!file)
        return false;
    v->file = file;
    v->capacity = capacity;
    return true;
}

static void remove_file(struct infill *v, size_t i)
{
    if (i == v->n_file)
        return;
    file_free(v->mem, &v->file[i]);
    v->n_file--;
    memmove(&v->file[i], &v->file[i + 1], (v->n_file - i) * sizeof *v->file);
}

int32_t session_infill_file(glm_session *s, const char *path, const char *text, size_t size, glm_error *err)
{
    struct infill *v = &s->infill;
    struct infill_file file;
    size_t i = find_file(v, path);
    int32_t rc = check(s, err);

    if (rc)
        return rc;
    if (!text) {
        remove_file(v, i);
        return GLM_OK;
    }
    if (!reserve_file(v))
        return err_nomem(err, "a file of context");
    rc = file_open(s, path, text, size, &file, err);
    if (rc)
        return rc;
    if (i < v->n_file)
        file_free(v->mem, &v->file[i]);
    else
        v->n_file++;
    v->file[i] = file;
    return GLM_OK;
}

/* ---- the turn ---------------------------------------------------------------------------------------------------------- */

int32_t infill_begin(glm_session *s, uint64_t *n_left, glm_error *err)
{
    struct infill *v = &s->infill;
    struct prompt p = { .ids = v->prompt, .first = s->first_message };
    int32_t rc = turn_check_length(s, p.ids.n, true, n_left, err);

    if (!rc)
        rc = turn_queue(s, &p, *n_left, err);
    if (rc)
        return rc;
    v->pending = false;
    v->decoder = (struct tok_decoder){ .n_held = 0 };
    if (s->turn.stop)
        text_stop_begin(s->turn.stop, v->line.data, v->line.size);
    return GLM_OK;
}

/* A character that the end of the code would cut is never begun: what the decoder holds is dropped with it. */
int32_t infill_put(glm_session *s, int32_t id, glm_error *err)
{
    struct infill *v = &s->infill;
    buf_clear(&v->decoded);
    tok_decode(s->model->tok, &v->decoder, id, &v->decoded);
    if (v->decoded.failed || turn_answer(s, v->decoded.data, v->decoded.size))
        return err_nomem(err, "the code");
    return GLM_OK;
}
