/* hf_index.c: model.safetensors.index.json: which file has which tensor. The map is trusted, not
 * the files' names: a tensor that a file has beyond the map is left out, one that the map promises
 * and no file has is an error. The map itself lives only while the files are opened.
 */
#include "hf_int.h"

#include <string.h>

#define INDEX_MAX (128u << 20)
#define FILE_MAX 4096u

/* A table of strings, each once. */
struct names {
    struct mem *mem;
    uint64_t seed;
    struct name {
        const char *text; /* in the checkpoint's arena */
        uint32_t file, seen;
    } * entry;
    size_t n, capacity;
    uint32_t *slot; /* entry + 1; 0: free */
    size_t n_slot;  /* a power of two, at least twice capacity */
};

static bool names_grow(struct names *t)
{
    size_t capacity = t->capacity > 0 ? t->capacity * 2 : 64;
    struct name *entry = mem_resize(t->mem, t->entry, capacity * sizeof(*entry));
    if (entry == NULL)
        return false;
    t->entry = entry;
    uint32_t *slot = mem_zarray(t->mem, capacity * 2, sizeof(*slot));
    if (slot == NULL)
        return false;
    mem_free(t->mem, t->slot);
    t->slot = slot;
    t->capacity = capacity;
    t->n_slot = capacity * 2;
    for (size_t i = 0; i < t->n; i++) {
        size_t at = io_hash(t->seed, entry[i].text, strlen(entry[i].text)) & (t->n_slot - 1);
        while (slot[at] != 0)
            at = (at + 1) & (t->n_slot - 1);
        slot[at] = (uint32_t)i + 1;
    }
    return true;
}

static struct name *names_find(const struct names *t, const char *text, size_t size)
{
    if (t->n_slot == 0)
        return NULL;
    size_t at = io_hash(t->seed, text, size) & (t->n_slot - 1);
    for (; t->slot[at] != 0; at = (at + 1) & (t->n_slot - 1)) {
        struct name *e = &t->entry[t->slot[at] - 1];
        if (strncmp(e->text, text, size) == 0 && e->text[size] == 0)
            return e;
    }
    return NULL;
}

/* A string that is not in the table yet; NULL: out of memory. */
static struct name *names_add(struct names *t, struct arena *arena, const char *text, size_t size)
{
    if (t->n == t->capacity && !names_grow(t))
        return NULL;
    const char *copy = arena_copy(arena, text, size);
    if (copy == NULL)
        return NULL;
    size_t at = io_hash(t->seed, text, size) & (t->n_slot - 1);
    while (t->slot[at] != 0)
        at = (at + 1) & (t->n_slot - 1);
    t->entry[t->n] = (struct name){.text = copy};
    t->slot[at] = (uint32_t)++t->n;
    return &t->entry[t->n - 1];
}

static void names_free(struct names *t)
{
    mem_free(t->mem, t->entry);
    mem_free(t->mem, t->slot);
}

/* ---- the map ------------------------------------------------------------------------------- */

struct map {
    struct ckpt *c;
    const char *path;
    struct names tensors, files;
    struct json_reader in;
    glm_error *err; /* never NULL */
};

static int32_t refuse(struct map *m, const char *why)
{
    return err_set(m->err, GLM_EFORMAT, m->in.value.offset, m->path, "%s", why);
}

/* A file's name must stay in the folder. */
static bool is_plain_name(const char *name, size_t size)
{
    if (size == 0 || size > 255 || name[0] == '.')
        return false;
    for (size_t i = 0; i < size; i++)
        if (name[i] == 0 || name[i] == '/' || name[i] == '\\' || name[i] == ':')
            return false;
    return true;
}

static int32_t map_entry(struct map *m, struct name *tensor)
{
    const struct json *v = &m->in.value;
    if (v->type != JSON_STRING || !is_plain_name(v->text, v->size))
        return refuse(m, "weight_map has a value that is not the plain name of a file");
    struct name *file = names_find(&m->files, v->text, v->size);
    if (file == NULL) {
        if (m->files.n == FILE_MAX)
            return refuse(m, "weight_map names more than 4,096 files");
        file = names_add(&m->files, &m->c->arena, v->text, v->size);
        if (file == NULL)
            return err_nomem(m->err, "the names of files");
    }
    tensor->file = (uint32_t)(file - m->files.entry);
    return GLM_OK;
}

/* The members of weight_map, the reader standing after its OPEN. */
static int32_t read_map(struct map *m)
{
    for (;;) {
        enum json_event ev = json_reader_next(&m->in, m->err);
        const struct json *key = &m->in.value;
        if (ev == JSON_EV_ERROR)
            return m->err->code;
        if (ev == JSON_EV_CLOSE)
            return GLM_OK;
        if (key->size == 0 || key->size >= IO_NAME_MAX || memchr(key->text, 0, key->size) != NULL)
            return refuse(m, "weight_map has a name that is empty, too long or has a zero byte");
        if (names_find(&m->tensors, key->text, key->size) != NULL)
            return refuse(m, "weight_map has a tensor twice");
        if (m->tensors.n == HF_TENSOR_MAX)
            return refuse(m, "weight_map has too many tensors");
        struct name *tensor = names_add(&m->tensors, &m->c->arena, key->text, key->size);
        if (tensor == NULL)
            return err_nomem(m->err, "the names of tensors");
        ev = json_reader_next(&m->in, m->err);
        if (ev == JSON_EV_ERROR)
            return m->err->code;
        int32_t rc = map_entry(m, tensor);
        if (rc != GLM_OK)
            return rc;
    }
}

static int32_t read_index(struct map *m)
{
    enum json_event ev = json_reader_next(&m->in, m->err);
    bool found = false;
    if (ev == JSON_EV_ERROR)
        return m->err->code;
    if (ev != JSON_EV_OPEN || m->in.value.type != JSON_OBJECT)
        return refuse(m, "the index is not a JSON object");
    while ((ev = json_reader_next(&m->in, m->err)) == JSON_EV_KEY) {
        bool map = json_is_text(&m->in.value, "weight_map");
        if (!map) {
            if (!json_reader_skip(&m->in, m->err))
                return m->err->code;
            continue;
        }
        if (found)
            return refuse(m, "weight_map is there twice");
        found = true;
        ev = json_reader_next(&m->in, m->err);
        if (ev == JSON_EV_ERROR)
            return m->err->code;
        if (ev != JSON_EV_OPEN || m->in.value.type != JSON_OBJECT)
            return refuse(m, "weight_map is not an object");
        int32_t rc = read_map(m);
        if (rc != GLM_OK)
            return rc;
    }
    if (ev == JSON_EV_ERROR || json_reader_next(&m->in, m->err) == JSON_EV_ERROR)
        return m->err->code;
    return found && m->tensors.n > 0 ? GLM_OK
                                     : err_set(m->err, GLM_EFORMAT, 0, m->path,
                                           "there is no weight_map, or nothing in it");
}

/* ---- the files ----------------------------------------------------------------------------- */

static const char *keep(void *user, uint32_t file, const char *name, int32_t *rc, glm_error *err)
{
    struct map *m = user;
    struct name *e = names_find(&m->tensors, name, strlen(name));
    if (e == NULL || e->file != file)
        return NULL;
    if (e->seen != 0) {
        *rc = err_set(
            err, GLM_EFORMAT, 0, m->c->files[file].name, "tensor %s is there twice", io_tail(name));
        return NULL;
    }
    e->seen = 1;
    return e->text;
}

static int32_t open_files(struct map *m)
{
    struct ckpt *c = m->c;
    size_t n_dir = (size_t)(strrchr(m->path, '/') - m->path);
    c->files = arena_alloc(&c->arena, m->files.n * sizeof(*c->files), _Alignof(struct io_file));
    c->tensors =
        arena_alloc(&c->arena, m->tensors.n * sizeof(*c->tensors), _Alignof(struct io_tensor));
    if (c->files == NULL || c->tensors == NULL)
        return err_nomem(m->err, "the table of tensors");
    const struct st_filter filter = {m, keep};
    for (uint32_t i = 0; i < m->files.n; i++) {
        const char *name = m->files.entry[i].text;
        char *path = arena_alloc(&c->arena, n_dir + strlen(name) + 2, 1);
        if (path == NULL)
            return err_nomem(m->err, "a path");
        memcpy(path, m->path, n_dir + 1);
        memcpy(path + n_dir + 1, name, strlen(name) + 1);
        c->files[i] = (struct io_file){.name = path};
        c->n_file = i + 1;
        int32_t rc = st_open(c, i, &filter, m->err);
        if (rc != GLM_OK)
            return rc;
    }
    for (size_t i = 0; i < m->tensors.n; i++)
        if (m->tensors.entry[i].seen == 0)
            return err_set(m->err, GLM_EFORMAT, 0, m->path,
                "tensor %s is not in %s, where the index says it is",
                io_tail(m->tensors.entry[i].text),
                io_tail(m->files.entry[m->tensors.entry[i].file].text));
    return GLM_OK;
}

int32_t hf_index_open(struct ckpt *c, const char *path, glm_error *err)
{
    glm_error own = GLM_ERROR_INIT;
    char *text = NULL;
    size_t size = 0;
    int32_t rc = fs_load(c->mem, c->opt.fs, path, INDEX_MAX, &text, &size, err);
    if (rc != GLM_OK)
        return rc;
    struct map m = {.c = c,
        .path = path,
        .err = err != NULL ? err : &own,
        .tensors = {.mem = c->mem, .seed = c->seed},
        .files = {.mem = c->mem, .seed = c->seed}};
    json_reader_init(&m.in, c->mem, text, size, path);
    rc = read_index(&m);
    json_reader_free(&m.in);
    mem_free(c->mem, text);
    if (rc == GLM_OK)
        rc = open_files(&m);
    names_free(&m.tensors);
    names_free(&m.files);
    return rc;
}
