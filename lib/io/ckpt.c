/* ckpt.c: the checkpoint object. Finds out which format lies at a path, owns files, tensor table
 * and name index, maps or reads weight bytes, and answers the questions of io.h that do not depend
 * on the format. Everything that it hands out lives until ckpt_close.
 */
#include "ckpt_int.h"

#include <string.h>

#define READ_CHUNK (16u << 20) /* bytes between two calls of the progress hook */
#define TOKENIZER_MAX (256u << 20)

/* ---- names --------------------------------------------------------------------------------- */

__extension__ typedef unsigned __int128 u128;

/* Folding the high half of a product into the low one makes every collision depend on the seed. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    u128 p = (u128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t io_hash(uint64_t seed, const char *name, size_t size)
{
    uint64_t h = seed ^ fold(size + 0x9e3779b97f4a7c15u, seed | 1u);
    while (size > 0) {
        uint64_t word = 0;
        size_t n = size < 8 ? size : 8;
        memcpy(&word, name, n);
        h = fold(h ^ word, seed ^ 0xd6e8feb86659fd93u) + 0xa0761d6478bd642fu;
        name += n;
        size -= n;
    }
    return fold(h, 0xe7037ed1a0b428dbu);
}

const char *io_tail(const char *name)
{
    size_t n = strlen(name);
    return n > 90 ? name + n - 90 : name;
}

int32_t io_index(struct ckpt *c, glm_error *err)
{
    size_t size = 16;
    if (c->n_tensor > UINT32_MAX / 4)
        return err_set(
            err, GLM_EFORMAT, 0, c->path, "%zu tensors are more than any model has", c->n_tensor);
    while (size < c->n_tensor * 2)
        size *= 2;
    uint32_t *index = arena_alloc(&c->arena, size * sizeof(*index), sizeof(*index));
    if (index == NULL)
        return err_nomem(err, "the index of tensors");
    memset(index, 0, size * sizeof(*index));
    for (size_t i = 0; i < c->n_tensor; i++) {
        const char *name = c->tensors[i].name;
        size_t at = io_hash(c->seed, name, strlen(name)) & (size - 1);
        for (; index[at] != 0; at = (at + 1) & (size - 1)) {
            const struct io_tensor *other = &c->tensors[index[at] - 1];
            if (strcmp(other->name, name) == 0)
                return err_set(err, GLM_EFORMAT, io_file_offset(c, &c->tensors[i]),
                    c->files[c->tensors[i].file].name, "tensor %s is there twice, first in %s",
                    io_tail(name), io_tail(c->files[other->file].name));
        }
        index[at] = (uint32_t)i + 1;
    }
    c->index = index;
    c->index_size = size;
    return GLM_OK;
}

const struct io_tensor *io_find(const struct ckpt *c, const char *name)
{
    if (c->index == NULL)
        return NULL;
    size_t mask = c->index_size - 1;
    for (size_t at = io_hash(c->seed, name, strlen(name)) & mask; c->index[at] != 0;
         at = (at + 1) & mask) {
        const struct io_tensor *t = &c->tensors[c->index[at] - 1];
        if (strcmp(t->name, name) == 0)
            return t;
    }
    return NULL;
}

/* ---- bytes --------------------------------------------------------------------------------- */

uint64_t io_file_offset(const struct ckpt *c, const struct io_tensor *t)
{
    return c->files[t->file].data_offset + t->offset;
}

static uint64_t bytes_loaded(const struct ckpt *c)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < c->n_file; i++)
        if (c->files[i].copy != NULL)
            done += c->files[i].data_size;
    return done;
}

static int32_t read_file(struct ckpt *c, struct io_file *f, glm_error *err)
{
    uint64_t before = bytes_loaded(c), total = ckpt_weight_bytes(c);
    size_t size;
    if (!ck_size(f->data_size, &size))
        return err_set(
            err, GLM_ENOMEM, 0, f->name, "the file is larger than this machine's address space");
    uint8_t *copy = mem_alloc(c->mem, size > 0 ? size : 1);
    if (copy == NULL)
        return err_nomem(err, "the weights in memory");
    int32_t rc = GLM_OK;
    for (size_t done = 0; done < size && rc == GLM_OK;) {
        size_t n = size - done < READ_CHUNK ? size - done : READ_CHUNK;
        rc = fs_read(&f->file, f->data_offset + done, copy + done, n, f->name, err);
        done += n;
        if (rc == GLM_OK && c->opt.progress != NULL &&
            c->opt.progress(c->opt.progress_user, before + done, total) != 0)
            rc = err_set(err, GLM_ESTATE, f->data_offset + done, f->name,
                "given up by the progress callback");
    }
    if (rc != GLM_OK) {
        mem_free(c->mem, copy);
        return rc;
    }
    f->copy = copy;
    f->data = copy;
    fs_close(&f->file);
    f->file = (struct file){0};
    return GLM_OK;
}

static int32_t map_file(struct io_file *f, glm_error *err)
{
    const void *at = NULL;
    int32_t rc = fs_map(&f->file, 0, f->file.size, &at, err);
    if (rc != GLM_OK)
        return rc;
    f->map = at;
    f->map_size = f->file.size;
    f->data = (const uint8_t *)at + f->data_offset;
    return GLM_OK;
}

static int32_t read_piece(struct ckpt *c, struct io_piece *p, uint64_t offset, glm_error *err)
{
    size_t size;
    if (!ck_size(p->size, &size) || (p->copy = mem_alloc(c->mem, size)) == NULL)
        return err_nomem(err, "the weights in memory");
    p->data = p->copy;
    c->piece_bytes += size;
    int32_t rc = fs_read(&p->file->file, offset, p->copy, size, p->file->name, err);
    if (rc == GLM_OK && c->opt.weights == GLM_WEIGHTS_READ && c->opt.progress != NULL &&
        c->opt.progress(c->opt.progress_user, c->piece_bytes, ckpt_weight_bytes(c)) != 0)
        rc = err_set(err, GLM_ESTATE, offset, p->file->name, "given up by the progress callback");
    return rc;
}

/* The checkpoint has the piece in its list even where this fails: closing frees what there is. */
static int32_t open_piece(struct ckpt *c, struct io_tensor *t, bool read, glm_error *err)
{
    struct io_piece *p = arena_alloc(&c->arena, sizeof(*p), _Alignof(struct io_piece));
    if (p == NULL)
        return err_nomem(err, "a tensor");
    *p = (struct io_piece){.next = c->pieces, .file = &c->files[t->file], .size = t->bytes};
    c->pieces = p;
    int32_t rc;
    if (read) {
        rc = read_piece(c, p, io_file_offset(c, t), err);
    } else {
        rc = fs_map(&p->file->file, io_file_offset(c, t), p->size, &p->map, err);
        p->data = p->map;
    }
    if (rc == GLM_OK)
        t->piece = p;
    return rc;
}

int32_t io_data(struct ckpt *c, const struct io_tensor *t, const uint8_t **data, glm_error *err)
{
    struct io_file *f = &c->files[t->file];
    bool read = c->opt.weights == GLM_WEIGHTS_READ || c->opt.fs->hook.map == NULL;
    if (c->opt.by_tensor) {
        int32_t rc = t->piece == NULL ? open_piece(c, &c->tensors[t - c->tensors], read, err) : GLM_OK;
        if (rc != GLM_OK)
            return rc;
        t->piece->soon |= c->asked != ROLE_EMBED;
        *data = t->piece->data;
        return GLM_OK;
    }
    if (f->data == NULL) {
        int32_t rc = read ? read_file(c, f, err) : map_file(f, err);
        if (rc != GLM_OK)
            return rc;
    }
    *data = f->data + t->offset;
    return GLM_OK;
}

int32_t io_part(struct ckpt *c, const struct io_tensor *t, uint64_t skip, uint64_t bytes, int kind,
    const void **at, glm_error *err)
{
    const uint8_t *data;
    *at = NULL;
    if (c->places != NULL) {
        c->places[kind] = (struct place){t->file, io_file_offset(c, t) + skip, bytes};
        return GLM_OK;
    }
    int32_t rc = io_data(c, t, &data, err);
    if (rc == GLM_OK)
        *at = data + skip;
    return rc;
}

int32_t io_copy(struct ckpt *c, const struct io_tensor *t, void *to, uint64_t bytes, glm_error *err)
{
    const struct io_file *f = &c->files[t->file];
    const uint8_t *data;
    if (c->opt.by_tensor)
        return fs_read(&f->file, io_file_offset(c, t), to, bytes, f->name, err);
    int32_t rc = io_data(c, t, &data, err);
    if (rc == GLM_OK)
        memcpy(to, data, (size_t)bytes);
    return rc;
}

/* With GLM_WEIGHTS_READ all reading happens in open: later nothing can fail for the disk's sake. */
static int32_t read_all(struct ckpt *c, glm_error *err)
{
    for (uint32_t i = 0; i < c->n_file; i++)
        if (c->files[i].data == NULL) {
            int32_t rc = read_file(c, &c->files[i], err);
            if (rc != GLM_OK)
                return rc;
        }
    return GLM_OK;
}

/* ---- open and close ------------------------------------------------------------------------ */

bool io_is_file(struct ckpt *c, const char *dir, const char *name, char *path, size_t size)
{
    size_t n_dir = strlen(dir), n_name = strlen(name);
    bool slash = n_dir > 0 && dir[n_dir - 1] != '/';
    if (n_dir + slash + n_name + 1 > size)
        return false;
    memcpy(path, dir, n_dir);
    if (slash)
        path[n_dir] = '/';
    memcpy(path + n_dir + slash, name, n_name + 1);
    return fs_exists(c->opt.fs, path);
}

static int32_t no_weight(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert,
    uint32_t n_out, uint32_t n_in, bool optional, struct weight *out, glm_error *err)
{
    (void)role, (void)layer, (void)expert, (void)n_out, (void)n_in, (void)optional, (void)out;
    return err_set(err, GLM_ESTATE, 0, c->path, "a tokenizer alone has no weights");
}

static void no_name(
    const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size)
{
    (void)c, (void)role, (void)layer, (void)expert;
    if (size > 0)
        name[0] = 0;
}

static const char *no_type(uint32_t type)
{
    (void)type;
    return "none";
}

static const struct io_format tokenizer_format = {
    "tokenizer", no_type, no_weight, no_name, NULL};

/* A tokenizer.json by itself, in a folder or named directly. */
static int32_t tokenizer_open(struct ckpt *c, const char *path, glm_error *err)
{
    if (c->opt.weights != GLM_WEIGHTS_NONE)
        return err_set(err, GLM_EINVAL, 0, path,
            "only a tokenizer lies here: open it with GLM_WEIGHTS_NONE, or put "
            "config.json and the weights beside it");
    size_t size = 0;
    int32_t rc = fs_load(c->mem, c->opt.fs, path, TOKENIZER_MAX, &c->vocab_text, &size, err);
    if (rc != GLM_OK)
        return rc;
    c->format = &tokenizer_format;
    const char *where = arena_copy(&c->arena, path, strlen(path));
    if (where == NULL)
        return err_nomem(err, "a path");
    c->vocab = (struct vocab_source){
        .kind = VOCAB_JSON, .where = where, .json = c->vocab_text, .json_size = size};
    return GLM_OK;
}

/* What a file at the path is, by its first bytes. */
static int32_t open_file(struct ckpt *c, glm_error *err)
{
    struct file file = {0};
    char head[17] = {0}; /* and a zero behind */
    const size_t n_head = sizeof(head) - 1;
    int32_t rc = fs_open(c->opt.fs, c->path, &file, err);
    if (rc != GLM_OK)
        return rc;
    uint64_t size = file.size;
    rc = fs_read(&file, 0, head, size < n_head ? size : n_head, c->path, err);
    fs_close(&file);
    if (rc != GLM_OK)
        return rc;
    if (size >= 4 && memcmp(head, "GGUF", 4) == 0)
        return gguf_open(c, err);
    size_t n = strlen(c->path), n_suffix = sizeof(".safetensors") - 1;
    if ((n > n_suffix && strcmp(c->path + n - n_suffix, ".safetensors") == 0) ||
        (size > 8 && head[8] == '{'))
        return err_set(err, GLM_EINVAL, 0, c->path,
            "a safetensors file has no configuration: give the folder that has "
            "it and config.json");
    if (head[strspn(head, " \t\r\n")] == '{')
        return tokenizer_open(c, c->path, err);
    return err_set(err, GLM_EFORMAT, 0, c->path,
        "neither a GGUF file, a tokenizer.json, nor a folder with config.json");
}

static int32_t open_path(struct ckpt *c, char *scratch, size_t size, glm_error *err)
{
    if (io_is_file(c, c->path, "config.json", scratch, size))
        return hf_open(c, err);
    if (io_is_file(c, c->path, "model.safetensors", scratch, size) ||
        io_is_file(c, c->path, "model.safetensors.index.json", scratch, size))
        return err_set(err, GLM_EIO, 0, c->path, "the folder has weights but no config.json");
    if (io_is_file(c, c->path, "tokenizer.json", scratch, size))
        return tokenizer_open(c, scratch, err);
    return open_file(c, err);
}

int32_t ckpt_open(struct mem *m, const char *path, const struct ckpt_options *opt,
    struct ckpt **out, glm_error *err)
{
    *out = NULL;
    if (path == NULL || path[0] == 0)
        return err_set(err, GLM_EINVAL, 0, "path", "no path was given");
    if (opt->weights > GLM_WEIGHTS_NONE)
        return err_set(
            err, GLM_EINVAL, 0, "weights", "%u is not one of GLM_WEIGHTS_*", opt->weights);
    struct ckpt *c = mem_zalloc(m, sizeof(*c));
    if (c == NULL)
        return err_nomem(err, "a checkpoint");
    c->mem = m;
    c->opt = *opt;
    c->seed = os_now_ns() * 0x9e3779b97f4a7c15u ^ (uint64_t)(uintptr_t)c;
    arena_init(&c->arena, m);
    io_generation_unset(&c->gen);
    int32_t rc;
    size_t n_path = strlen(path), n_scratch = n_path + 64;
    char *scratch = mem_alloc(m, n_scratch);
    c->path = arena_copy(&c->arena, path, n_path);
    if (scratch == NULL || c->path == NULL)
        rc = err_nomem(err, "a path");
    else
        rc = open_path(c, scratch, n_scratch, err);
    mem_free(m, scratch);
    if (rc == GLM_OK && opt->weights == GLM_WEIGHTS_READ && !opt->by_tensor)
        rc = read_all(c, err);
    if (rc != GLM_OK) {
        ckpt_close(c);
        return rc;
    }
    *out = c;
    return GLM_OK;
}

void ckpt_drop_vocab(struct ckpt *c)
{
    if (c->vocab_text == NULL)
        return;
    mem_free(c->mem, c->vocab_text);
    c->vocab_text = NULL;
    c->vocab = (struct vocab_source){0};
}

void ckpt_close(struct ckpt *c)
{
    if (c == NULL)
        return;
    if (c->format != NULL && c->format->close != NULL)
        c->format->close(c);
    for (struct io_piece *p = c->pieces; p != NULL; p = p->next) {
        if (p->map != NULL)
            fs_unmap(&p->file->file, p->map, p->size);
        mem_free(c->mem, p->copy);
    }
    for (uint32_t i = 0; i < c->n_file; i++) {
        struct io_file *f = &c->files[i];
        if (f->map != NULL)
            fs_unmap(&f->file, f->map, f->map_size);
        mem_free(c->mem, f->copy);
        fs_close(&f->file);
    }
    mem_free(c->mem, c->vocab_text);
    arena_free(&c->arena);
    mem_free(c->mem, c);
}

/* ---- answers ------------------------------------------------------------------------------- */

const struct hparams *ckpt_hparams(const struct ckpt *c)
{
    return c->has_hparams ? &c->hp : NULL;
}
const struct generation_defaults *ckpt_generation(const struct ckpt *c)
{
    return &c->gen;
}
struct vocab_source ckpt_vocab(const struct ckpt *c)
{
    return c->vocab;
}
const char *ckpt_path(const struct ckpt *c)
{
    return c->path;
}
const char *ckpt_kind(const struct ckpt *c)
{
    return c->format->kind;
}
size_t ckpt_n_tensor(const struct ckpt *c)
{
    return c->n_tensor;
}

const char *ckpt_template(const struct ckpt *c, size_t *size)
{
    *size = c->template_text != NULL ? c->template_size : 0;
    return c->template_text;
}

uint64_t ckpt_weight_bytes(const struct ckpt *c)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < c->n_file; i++)
        total +=
            c->files[i]
                .data_size; /* each is at most a file's size, and there are at most 2^32 files */
    return total;
}

void ckpt_tensor(const struct ckpt *c, size_t i, struct tensor_entry *out)
{
    const struct io_tensor *t = &c->tensors[i];
    *out = (struct tensor_entry){.name = t->name,
        .type = c->format->type_name(t->type),
        .file = c->files[t->file].name,
        .n_dim = t->n_dim,
        .offset = io_file_offset(c, t),
        .bytes = t->bytes};
    memcpy(out->dim, t->dim, sizeof(out->dim));
}

int32_t ckpt_weight(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out,
    uint32_t n_in, bool optional, struct weight *out, glm_error *err)
{
    if (c->opt.weights == GLM_WEIGHTS_NONE)
        return err_set(err, GLM_ESTATE, 0, c->path, "opened without weights");
    if ((unsigned)role >= ROLE_COUNT || n_out == 0 || n_in == 0)
        return err_set(err, GLM_EINVAL, 0, c->path, "no such weight: role %u, %u x %u",
            (unsigned)role, n_out, n_in);
    struct weight w = {0};
    c->asked = role;
    int32_t rc = c->format->weight(c, role, layer, expert, n_out, n_in, optional, &w, err);
    if (rc == GLM_OK)
        *out = w;
    return rc;
}

int32_t ckpt_places(struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out,
    uint32_t n_in, bool optional, struct weight *out, struct place *place, glm_error *err)
{
    memset(place, 0, PLACE_COUNT * sizeof(*place));
    c->places = place;
    int32_t rc = ckpt_weight(c, role, layer, expert, n_out, n_in, optional, out, err);
    c->places = NULL;
    return rc;
}

uint32_t ckpt_n_file(const struct ckpt *c)
{
    return c->n_file;
}

const struct file *ckpt_file(const struct ckpt *c, uint32_t i, const char **name)
{
    *name = c->files[i].name;
    return &c->files[i].file;
}

bool ckpt_will_need(const struct ckpt *c, uint32_t i)
{
    const struct io_piece *p = c->pieces;
    for (; p != NULL && i > 0; i--)
        p = p->next;
    if (p != NULL && p->map != NULL && p->soon)
        fs_will_need(&p->file->file, p->map, p->size);
    return p != NULL;
}

void ckpt_role_name(
    const struct ckpt *c, enum role role, uint32_t layer, uint32_t expert, char *name, size_t size)
{
    c->format->role_name(c, role, layer, expert, name, size);
}

/* ---- fingerprint --------------------------------------------------------------------------- */

static void put_u64(struct sha256 *h, uint64_t v)
{
    uint8_t b[8];
    for (unsigned i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> 8 * i);
    sha256_put(h, b, sizeof(b));
}

static void put_text(struct sha256 *h, const char *text, size_t size)
{
    put_u64(h, size);
    if (size > 0)
        sha256_put(h, text, size);
}

static void put_hparams(struct sha256 *h, const struct hparams *hp)
{
    const uint32_t n[] = {hp->n_layer, hp->n_layer_dense, hp->n_nextn, hp->d_model, hp->n_head,
        hp->n_head_kv, hp->d_head, hp->n_rot, hp->d_ff, hp->d_ff_exp, hp->n_expert,
        hp->n_expert_used, hp->n_expert_shared, hp->n_group, hp->n_group_used, hp->n_vocab,
        hp->n_ctx_train, hp->norm_topk, hp->qk_norm, hp->qkv_bias};
    for (size_t i = 0; i < ARRAY_LEN(n); i++)
        put_u64(h, n[i]);
    uint64_t theta;
    uint32_t eps, scale;
    memcpy(&theta, &hp->rope_theta, sizeof(theta));
    memcpy(&eps, &hp->norm_eps, sizeof(eps));
    memcpy(&scale, &hp->routed_scale, sizeof(scale));
    put_u64(h, theta);
    put_u64(h, eps);
    put_u64(h, scale);
}

static void put_vocab(struct sha256 *h, const struct vocab_source *v)
{
    put_u64(h, v->kind);
    put_text(h, v->json, v->json_size);
    if (v->kind != VOCAB_GGUF)
        return;
    put_text(h, v->model, v->model != NULL ? strlen(v->model) : 0);
    put_text(h, v->pre, v->pre != NULL ? strlen(v->pre) : 0);
    put_u64(h, v->n_token);
    for (uint32_t i = 0; i < v->n_token; i++) {
        put_text(h, v->tokens[i].text, v->tokens[i].size);
        put_u64(h, v->types != NULL ? (uint64_t)v->types[i] : 1);
    }
    put_u64(h, v->n_merge);
    for (uint64_t i = 0; i < v->n_merge; i++)
        put_text(h, v->merges[i].text, v->merges[i].size);
}

void ckpt_fingerprint(const struct ckpt *c, uint8_t digest[32])
{
    struct sha256 h;
    sha256_init(&h);
    put_text(&h, c->format->kind, strlen(c->format->kind));
    put_u64(&h, c->has_hparams);
    if (c->has_hparams)
        put_hparams(&h, &c->hp);
    put_u64(&h, c->n_tensor);
    for (size_t i = 0; i < c->n_tensor; i++) {
        const struct io_tensor *t = &c->tensors[i];
        put_text(&h, t->name, strlen(t->name));
        put_u64(&h, t->type);
        for (uint32_t d = 0; d < t->n_dim; d++)
            put_u64(&h, t->dim[d]);
        put_u64(&h, t->bytes);
    }
    put_vocab(&h, &c->vocab);
    sha256_end(&h, digest);
}
