/* gguf_meta.c: reads the head of one GGUF file: header, key-value pairs, tensor table. Owns a copy
 * of the metadata's bytes (struct gguf_meta), read in growing steps and bounded by the file's size,
 * so a rejected file never costs more than itself. Every count and length is compared with what is
 * left of the file before it is used. Calls lib/base only.
 */
#include "gguf_int.h"

#include <string.h>

#define FIRST_READ (1u << 20)

static const char *const type_names[GGUF_TYPE_COUNT] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
static const uint8_t type_bytes[GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

const char *gguf_place(const char *file, const char *what, size_t size, char place[GGUF_PLACE])
{
    size_t n = strlen(file), max = GGUF_PLACE - 3;
    if (what == NULL)
        return file;
    size = size < max / 2 ? size : max / 2;
    if (n > max - size) { /* the end of a path says more than its beginning */
        file += n - (max - size);
        n = max - size;
    }
    memcpy(place, file, n);
    memcpy(place + n, ": ", 2);
    memcpy(place + n + 2, what, size);
    place[n + 2 + size] = '\0';
    return place;
}

static const char *key_place(
    const struct gguf_meta *g, const struct gguf_kv *kv, char place[GGUF_PLACE])
{
    return gguf_place(g->name, (const char *)g->data + kv->key, kv->key_size, place);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Makes the next `size` bytes available at g->data + g->pos. */
static int32_t need(struct gguf_meta *g, uint64_t size, glm_error *err)
{
    uint64_t end, want;
    if (!ck_add(g->pos, size, &end) || end > g->file->size)
        return err_set(err, GLM_EFORMAT, g->pos, g->name,
            "the file ends inside its metadata (%llu bytes wanted, %llu left): it is cut short or "
            "damaged",
            (unsigned long long)size, (unsigned long long)(g->file->size - g->pos));
    if (end <= g->loaded)
        return GLM_OK;
    if (end > IO_METADATA_MAX)
        return err_set(
            err, GLM_EFORMAT, g->pos, g->name, "metadata of more than 1 GiB: the file is damaged");
    want = g->loaded == 0 ? FIRST_READ : g->loaded + g->loaded / 2;
    want = want < end ? end : want;
    want = want < g->file->size ? want : g->file->size;
    want = want < IO_METADATA_MAX ? want : IO_METADATA_MAX;
    uint8_t *grown =
        g->data ? mem_resize(g->mem, g->data, (size_t)want) : mem_alloc(g->mem, (size_t)want);
    if (grown == NULL)
        return err_nomem(err, "GGUF metadata");
    g->data = grown;
    int32_t status =
        fs_read(g->file, g->loaded, g->data + g->loaded, want - g->loaded, g->name, err);
    if (status == GLM_OK)
        g->loaded = want;
    return status;
}

static uint64_t load_le(const uint8_t *p, uint32_t n_byte)
{
    uint64_t v = 0;
    for (uint32_t i = 0; i < n_byte; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static uint64_t load_u64(const uint8_t *p) /* one instruction */
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

static int32_t take(struct gguf_meta *g, uint32_t n_byte, uint64_t *out, glm_error *err)
{
    int32_t status = need(g, n_byte, err);
    if (status)
        return status;
    *out = load_le(g->data + g->pos, n_byte);
    g->pos += n_byte;
    return GLM_OK;
}

/* Moves over a string; *at and *size say where its bytes are. */
static int32_t take_string(struct gguf_meta *g, uint64_t *at, uint64_t *size, glm_error *err)
{
    int32_t status = take(g, 8, size, err);
    if (status == GLM_OK)
        status = need(g, *size, err);
    if (status)
        return status;
    *at = g->pos;
    g->pos += *size;
    return GLM_OK;
}

/* ---- key-value pairs ------------------------------------------------------------------------- */

static uint32_t hash_bytes(const uint8_t *p, size_t size)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

static const struct gguf_kv *find_bytes(
    const struct gguf_meta *g, const uint8_t *key, size_t size, uint32_t hash)
{
    for (uint32_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        if (kv->hash == hash && kv->key_size == size && memcmp(g->data + kv->key, key, size) == 0)
            return kv;
    }
    return NULL;
}

static int32_t take_key(struct gguf_meta *g, struct gguf_kv *kv, glm_error *err)
{
    uint64_t start = g->pos, size;
    size_t bad;
    int32_t status = take_string(g, &kv->key, &size, err);
    if (status)
        return status;
    const uint8_t *key = g->data + kv->key;
    if (size == 0 || size > GGUF_KEY_MAX || memchr(key, 0, (size_t)size) != NULL ||
        !utf8_is_valid((const char *)key, (size_t)size, &bad))
        return err_set(err, GLM_EFORMAT, start, g->name,
            "key %u has no usable name: the file is damaged", g->n_kv);
    kv->key_size = (uint32_t)size;
    kv->hash = hash_bytes(key, (size_t)size);
    if (find_bytes(g, key, (size_t)size, kv->hash) != NULL) {
        char place[GGUF_PLACE];
        return err_set(
            err, GLM_EFORMAT, start, key_place(g, kv, place), "this key is in the file twice");
    }
    return GLM_OK;
}

/* Moves over an array's elements. */
static int32_t skip_array(struct gguf_meta *g, const struct gguf_kv *kv, glm_error *err)
{
    uint64_t bytes, at, size, least = kv->element == GGUF_STRING ? 8 : type_bytes[kv->element];
    char place[GGUF_PLACE];
    if (!ck_mul(kv->count, least, &bytes) || bytes > g->file->size - g->pos)
        return err_set(err, GLM_EFORMAT, g->pos - 8, key_place(g, kv, place),
            "an array of %llu elements does not fit into the file's remaining %llu bytes",
            (unsigned long long)kv->count, (unsigned long long)(g->file->size - g->pos));
    if (kv->element != GGUF_STRING) {
        int32_t status = need(g, bytes, err);
        g->pos += status ? 0 : bytes;
        return status;
    }
    for (uint64_t i = 0; i < kv->count; i++) {
        /* A vocabulary is half a million strings: those already in memory are passed with one
         * comparison each. */
        uint64_t left = g->loaded - g->pos;
        if (left >= 8 && (size = load_u64(g->data + g->pos)) <= left - 8) {
            g->pos += 8 + size;
            continue;
        }
        int32_t status = take_string(g, &at, &size, err);
        if (status)
            return status;
    }
    return GLM_OK;
}

static int32_t take_value(struct gguf_meta *g, struct gguf_kv *kv, glm_error *err)
{
    char place[GGUF_PLACE];
    uint64_t type, element = 0;
    int32_t status = take(g, 4, &type, err);
    if (status)
        return status;
    if (type >= GGUF_TYPE_COUNT)
        return err_set(err, GLM_EFORMAT, g->pos - 4, key_place(g, kv, place),
            "unknown value type %llu", (unsigned long long)type);
    kv->type = (uint32_t)type;
    if (type == GGUF_STRING)
        return take_string(g, &kv->value, &kv->count, err);
    if (type != GGUF_ARRAY) {
        status = need(g, type_bytes[type], err);
        kv->value = g->pos;
        g->pos += status ? 0 : type_bytes[type];
        return status;
    }
    if ((status = take(g, 4, &element, err)) != GLM_OK)
        return status;
    if (element >= GGUF_TYPE_COUNT || element == GGUF_ARRAY)
        return err_set(err, GLM_EFORMAT, g->pos - 4, key_place(g, kv, place),
            "array elements of type %llu", (unsigned long long)element);
    kv->element = (uint32_t)element;
    if ((status = take(g, 8, &kv->count, err)) != GLM_OK)
        return status;
    kv->value = g->pos;
    return skip_array(g, kv, err);
}

/* ---- the whole head -------------------------------------------------------------------------- */

static int32_t read_header(struct gguf_meta *g, uint64_t *n_kv, glm_error *err)
{
    uint64_t magic = 0, version = 0;
    if (g->file->size < 24)
        return err_set(err, GLM_EFORMAT, 0, g->name, "%llu bytes are too few for a GGUF file",
            (unsigned long long)g->file->size);
    int32_t status = take(g, 4, &magic, err);
    if (status == GLM_OK && magic != 0x46554747u)
        return err_set(err, GLM_EFORMAT, 0, g->name,
            "this is not a GGUF file: it does not begin with \"GGUF\"");
    status = status ? status : take(g, 4, &version, err);
    if (status == GLM_OK && version == 0x03000000u)
        return err_set(
            err, GLM_ENOTSUP, 4, g->name, "a big-endian GGUF file: convert it to little endian");
    if (status == GLM_OK && version != 3)
        return err_set(err, GLM_ENOTSUP, 4, g->name,
            "GGUF version %llu, only 3 is supported: convert the model again",
            (unsigned long long)version);
    status = status ? status : take(g, 8, &g->n_tensor, err);
    status = status ? status : take(g, 8, n_kv, err);
    if (status)
        return status;
    /* The least that a pair (key length, one letter, type, one byte) and a tensor (name length, one
     * letter, one dimension, type, offset) take. */
    uint64_t left = g->file->size - g->pos;
    if (*n_kv > GGUF_KV_MAX || *n_kv > left / 14)
        return err_set(err, GLM_EFORMAT, 16, g->name,
            "%llu keys in a file of %llu bytes: it is damaged", (unsigned long long)*n_kv,
            (unsigned long long)g->file->size);
    if (g->n_tensor > GGUF_TENSOR_MAX || g->n_tensor > left / 33)
        return err_set(err, GLM_EFORMAT, 8, g->name,
            "%llu tensors in a file of %llu bytes: it is damaged", (unsigned long long)g->n_tensor,
            (unsigned long long)g->file->size);
    return GLM_OK;
}

static int32_t read_alignment(struct gguf_meta *g, glm_error *err)
{
    char place[GGUF_PLACE];
    const struct gguf_kv *kv = gguf_find(g, "general.alignment");
    g->alignment = 32;
    if (kv == NULL)
        return GLM_OK;
    if (kv->type == GGUF_U32)
        g->alignment = load_le(g->data + kv->value, 4);
    if (kv->type != GGUF_U32 || g->alignment < 8 || g->alignment > GGUF_ALIGN_MAX ||
        (g->alignment & (g->alignment - 1)) != 0)
        return err_set(err, GLM_EFORMAT, kv->value, key_place(g, kv, place),
            "must be a u32 that is a power of two from 8 to %u", GGUF_ALIGN_MAX);
    return GLM_OK;
}

int32_t gguf_meta_read(
    struct gguf_meta *g, struct mem *m, const struct file *file, const char *name, glm_error *err)
{
    uint64_t n_kv = 0;
    *g = (struct gguf_meta){.mem = m, .file = file, .name = name};
    int32_t status = read_header(g, &n_kv, err);
    if (status)
        return status;
    g->kv = mem_zarray(m, (size_t)n_kv + 1, sizeof *g->kv);
    if (g->kv == NULL)
        return err_nomem(err, "GGUF keys");
    for (uint64_t i = 0; i < n_kv; i++) {
        struct gguf_kv *kv = &g->kv[g->n_kv];
        status = take_key(g, kv, err);
        status = status ? status : take_value(g, kv, err);
        if (status)
            return status;
        g->n_kv++;
    }
    g->infos = g->pos;
    return read_alignment(g, err);
}

void gguf_meta_free(struct gguf_meta *g)
{
    if (g->mem == NULL)
        return;
    mem_free(g->mem, g->data);
    mem_free(g->mem, g->kv);
    *g = (struct gguf_meta){0};
}

/* ---- the tensor table ------------------------------------------------------------------------ */

static int32_t take_name(
    struct gguf_meta *g, struct arena *arena, const char **name, glm_error *err)
{
    uint64_t start = g->pos, at, size;
    size_t bad;
    int32_t status = take_string(g, &at, &size, err);
    if (status)
        return status;
    const char *text = (const char *)g->data + at;
    if (size == 0 || size >= IO_NAME_MAX || memchr(text, 0, (size_t)size) != NULL ||
        !utf8_is_valid(text, (size_t)size, &bad))
        return err_set(
            err, GLM_EFORMAT, start, g->name, "a tensor has no usable name: the file is damaged");
    *name = arena_copy(arena, text, (size_t)size);
    return *name ? GLM_OK : err_nomem(err, "tensor names");
}

/* Bytes of t, all products checked; 0 where the type is not known (its use is refused later). */
static bool tensor_bytes(struct io_tensor *t)
{
    struct weight_block block = gguf_type_block(t->type);
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dim; i++)
        if (!ck_mul(n, t->dim[i], &n))
            return false;
    t->bytes = 0;
    if (block.n == 0)
        return true;
    return t->dim[t->n_dim - 1] % block.n == 0 && ck_mul(n / block.n, block.bytes, &t->bytes);
}

static int32_t take_tensor(
    struct gguf_meta *g, struct arena *arena, struct io_tensor *t, glm_error *err)
{
    char place[GGUF_PLACE];
    uint64_t n_dim = 0, type = 0, start = g->pos;
    int32_t status = take_name(g, arena, &t->name, err);
    status = status ? status : take(g, 4, &n_dim, err);
    if (status)
        return status;
    gguf_place(g->name, t->name, strlen(t->name), place);
    if (n_dim < 1 || n_dim > 4)
        return err_set(err, GLM_EFORMAT, g->pos - 4, place, "%llu dimensions, 1 to 4 expected",
            (unsigned long long)n_dim);
    t->n_dim = (uint32_t)n_dim;
    for (uint32_t i = t->n_dim; i-- > 0;) { /* the file has the innermost first */
        if ((status = take(g, 8, &t->dim[i], err)) != GLM_OK)
            return status;
        if (t->dim[i] == 0)
            return err_set(err, GLM_EFORMAT, g->pos - 8, place, "a dimension is 0");
    }
    status = take(g, 4, &type, err);
    status = status ? status : take(g, 8, &t->offset, err);
    if (status)
        return status;
    t->type = (uint32_t)type;
    if (!tensor_bytes(t))
        return err_set(err, GLM_EFORMAT, start, place,
            "the shape does not fit type %s, or is too large for any file",
            gguf_type_name(t->type));
    if (t->offset % g->alignment != 0)
        return err_set(err, GLM_EFORMAT, g->pos - 8, place,
            "offset %llu is no multiple of the alignment %llu", (unsigned long long)t->offset,
            (unsigned long long)g->alignment);
    return GLM_OK;
}

/* Tensors lie one behind the other in the order of the table, as every writer puts them, inside the
 * file. */
static int32_t check_extents(const struct gguf_meta *g, const struct io_tensor *tensors,
    uint64_t data_offset, glm_error *err)
{
    char place[GGUF_PLACE];
    uint64_t size = g->file->size - data_offset, end = 0;
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        const struct io_tensor *t = &tensors[i];
        gguf_place(g->name, t->name, strlen(t->name), place);
        if (t->offset < end)
            return err_set(err, GLM_EFORMAT, g->infos, place,
                "offset %llu lies in the tensor before it", (unsigned long long)t->offset);
        if (!ck_add(t->offset, t->bytes, &end) || end > size)
            return err_set(err, GLM_EFORMAT, g->file->size, place,
                "%llu bytes at %llu of the data, but the file has only %llu: it is cut short, "
                "fetch it again",
                (unsigned long long)t->bytes, (unsigned long long)t->offset,
                (unsigned long long)size);
    }
    return GLM_OK;
}

int32_t gguf_meta_tensors(struct gguf_meta *g, struct arena *arena, uint32_t i_file,
    struct io_tensor *out, uint64_t *data_offset, glm_error *err)
{
    uint64_t start;
    g->pos = g->infos;
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        out[i] = (struct io_tensor){.file = i_file};
        int32_t status = take_tensor(g, arena, &out[i], err);
        if (status)
            return status;
    }
    if (!ck_add(
            g->pos, g->alignment - 1, &start)) /* the file's size bounds pos, so this cannot be */
        return err_set(err, GLM_EFORMAT, g->pos, g->name, "the metadata has no end");
    start &= ~(g->alignment - 1);
    if (start > g->file->size && g->n_tensor > 0)
        return err_set(err, GLM_EFORMAT, g->pos, g->name,
            "the file ends before its tensor data: fetch it again");
    *data_offset = start < g->file->size ? start : g->file->size;
    return check_extents(g, out, *data_offset, err);
}

/* ---- getters --------------------------------------------------------------------------------- */

const struct gguf_kv *gguf_find(const struct gguf_meta *g, const char *key)
{
    size_t size = strlen(key);
    return find_bytes(g, (const uint8_t *)key, size, hash_bytes((const uint8_t *)key, size));
}

/* Finds a key; false with *status where there is nothing to read. */
static bool lookup(const struct gguf_meta *g, const char *key, bool required,
    const struct gguf_kv **kv, int32_t *status, glm_error *err)
{
    char place[GGUF_PLACE];
    *kv = gguf_find(g, key);
    *status = *kv || !required ? GLM_OK
                               : err_set(err, GLM_EFORMAT, g->infos,
                                     gguf_place(g->name, key, strlen(key), place),
                                     "the file lacks this key: convert the model again");
    return *kv != NULL;
}

static int32_t wrong_type(
    const struct gguf_meta *g, const struct gguf_kv *kv, const char *expected, glm_error *err)
{
    char place[GGUF_PLACE];
    bool array = kv->type == GGUF_ARRAY;
    return err_set(err, GLM_EFORMAT, kv->value, key_place(g, kv, place), "%s expected, %s%s found",
        expected, array ? "array of " : "", type_names[array ? kv->element : kv->type]);
}

int32_t gguf_u32(
    const struct gguf_meta *g, const char *key, bool required, uint32_t *out, glm_error *err)
{
    char place[GGUF_PLACE];
    const struct gguf_kv *kv;
    int32_t status;
    if (!lookup(g, key, required, &kv, &status, err))
        return status;
    bool is_signed =
        kv->type == GGUF_I8 || kv->type == GGUF_I16 || kv->type == GGUF_I32 || kv->type == GGUF_I64;
    if (!is_signed && kv->type != GGUF_U8 && kv->type != GGUF_U16 && kv->type != GGUF_U32 &&
        kv->type != GGUF_U64)
        return wrong_type(g, kv, "a whole number", err);
    uint32_t n = type_bytes[kv->type];
    uint64_t v = load_le(g->data + kv->value, n);
    if ((is_signed && v >> (8 * n - 1) != 0) || v > UINT32_MAX)
        return err_set(err, GLM_EFORMAT, kv->value, key_place(g, kv, place),
            "the value is negative or above 2^32");
    *out = (uint32_t)v;
    return GLM_OK;
}

int32_t gguf_f64(
    const struct gguf_meta *g, const char *key, bool required, double *out, glm_error *err)
{
    const struct gguf_kv *kv;
    int32_t status;
    if (!lookup(g, key, required, &kv, &status, err))
        return status;
    if (kv->type == GGUF_F64) {
        uint64_t bits = load_le(g->data + kv->value, 8);
        memcpy(out, &bits, 8);
    } else if (kv->type == GGUF_F32)
        *out = f32_from_bits((uint32_t)load_le(g->data + kv->value, 4));
    else
        return wrong_type(g, kv, "a floating-point number", err);
    return GLM_OK;
}

int32_t gguf_bool(
    const struct gguf_meta *g, const char *key, bool required, bool *out, glm_error *err)
{
    char place[GGUF_PLACE];
    const struct gguf_kv *kv;
    int32_t status;
    if (!lookup(g, key, required, &kv, &status, err))
        return status;
    if (kv->type != GGUF_BOOL)
        return wrong_type(g, kv, "true or false", err);
    if (g->data[kv->value] > 1)
        return err_set(
            err, GLM_EFORMAT, kv->value, key_place(g, kv, place), "a truth value must be 0 or 1");
    *out = g->data[kv->value] == 1;
    return GLM_OK;
}

int32_t gguf_string(const struct gguf_meta *g, const char *key, bool required, const char **text,
    size_t *size, glm_error *err)
{
    const struct gguf_kv *kv;
    int32_t status;
    if (!lookup(g, key, required, &kv, &status, err))
        return status;
    if (kv->type != GGUF_STRING)
        return wrong_type(g, kv, "a string", err);
    *text = (const char *)g->data + kv->value;
    *size = (size_t)kv->count;
    return GLM_OK;
}

int32_t gguf_array(const struct gguf_meta *g, const char *key, uint32_t element,
    const struct gguf_kv **out, glm_error *err)
{
    *out = gguf_find(g, key);
    if (*out == NULL || ((*out)->type == GGUF_ARRAY && (*out)->element == element))
        return GLM_OK;
    const struct gguf_kv *kv = *out;
    *out = NULL;
    return wrong_type(
        g, kv, element == GGUF_STRING ? "an array of strings" : "an array of i32", err);
}

void gguf_next_string(const struct gguf_meta *g, uint64_t *pos, const char **text, size_t *size)
{
    *size = (size_t)load_u64(g->data + *pos);
    *text = (const char *)g->data + *pos + 8;
    *pos += 8 + *size;
}
