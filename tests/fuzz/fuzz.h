/* fuzz.h: what the fuzz targets share: taking an input apart, files in memory behind the file hook, and a check that
 * ends the process, which libFuzzer reports with the input. Each target is one file with LLVMFuzzerTestOneInput; its
 * first comment says what it promises beside "no crash, no leak, no sanitizer report".
 */
#ifndef GLM_TESTS_FUZZ_H
#define GLM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glm45/glm45.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                      \
    do                                                                                             \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    while (0)

/* A failure must say what it is. */
static inline void fuzz_check_error(int32_t rc, const glm_error *err)
{
    if (rc >= 0 || err->code != rc || err->message[0] == 0)
        fprintf(stderr, "status %d, but the record has %d: '%s' '%s'\n", rc, err->code, err->where, err->message);
    FUZZ_CHECK(rc < 0 && err->code == rc && err->message[0] != 0);
}

/* ---- an input in pieces ----------------------------------------------------------------------- */

struct fuzz_in {
    const uint8_t *at;
    size_t left;
};

static inline uint32_t fuzz_byte(struct fuzz_in *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

/* The next piece: up to a byte 0xff 0xff, which no UTF-8 text has, or all that is left. */
static inline const char *fuzz_part(struct fuzz_in *in, size_t *size)
{
    const uint8_t *from = in->at;
    size_t n = 0;
    while (n + 1 < in->left && (from[n] != 0xff || from[n + 1] != 0xff))
        n++;
    if (n + 1 >= in->left) {
        n = in->left;
        in->at += n;
        in->left = 0;
    } else {
        in->at += n + 2;
        in->left -= n + 2;
    }
    *size = n;
    return (const char *)from;
}

/* ---- files in memory --------------------------------------------------------------------------- */

enum { FUZZ_FILE_MAX = 8 };
struct fuzz_file {
    const char *name;
    uint8_t *bytes; /* owned: a block of its own, so that a sanitizer sees one byte too many */
    size_t size;
};
struct fuzz_files {
    struct fuzz_file file[FUZZ_FILE_MAX];
    size_t n, n_open;
    glm_files hook;
};

static int32_t GLM_CALL fuzz_open(void *user, const char *name, void **file, uint64_t *size)
{
    struct fuzz_files *f = user;
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->file[i].name, name) == 0) {
            *file = &f->file[i];
            *size = f->file[i].size;
            f->n_open++;
            return GLM_OK;
        }
    return GLM_EIO;
}

static int32_t GLM_CALL fuzz_read(void *user, void *file, uint64_t offset, void *to, uint64_t size)
{
    const struct fuzz_file *f = file;
    (void)user;
    FUZZ_CHECK(offset <= f->size && size <= f->size - offset);
    if (size > 0)
        memcpy(to, f->bytes + offset, size);
    return GLM_OK;
}

static int32_t GLM_CALL fuzz_map(
    void *user, void *file, uint64_t offset, uint64_t size, const void **at)
{
    const struct fuzz_file *f = file;
    (void)user;
    FUZZ_CHECK(offset <= f->size && size <= f->size - offset);
    *at = f->bytes + offset;
    return GLM_OK;
}

static void GLM_CALL fuzz_unmap(void *user, void *file, const void *at, uint64_t size)
{
    (void)user, (void)file, (void)at, (void)size;
}

static void GLM_CALL fuzz_close(void *user, void *file)
{
    struct fuzz_files *f = user;
    (void)file;
    f->n_open--;
}

static inline void fuzz_files_init(struct fuzz_files *f)
{
    memset(f, 0, sizeof *f);
    f->hook = (glm_files){(uint32_t)sizeof f->hook, 0, f, fuzz_open, fuzz_read, fuzz_map, fuzz_unmap, fuzz_close};
}

/* A file of head and then zeros. */
static inline void fuzz_files_add(struct fuzz_files *f, const char *name, const void *head, size_t size, size_t zeros)
{
    uint8_t *bytes = calloc(1, size + zeros + (size + zeros == 0));
    FUZZ_CHECK(bytes != NULL && f->n < FUZZ_FILE_MAX);
    if (size > 0)
        memcpy(bytes, head, size);
    f->file[f->n++] = (struct fuzz_file){name, bytes, size + zeros};
}

static inline void fuzz_files_free(struct fuzz_files *f)
{
    FUZZ_CHECK(f->n_open == 0);
    for (size_t i = 0; i < f->n; i++)
        free(f->file[i].bytes);
}

/* ---- a file of the tree -------------------------------------------------------------------------- */

/* $GLM_TEST_MODEL/name, or models/nano/name; the caller frees it. */
static inline char *fuzz_model_file(const char *name, size_t *size)
{
    char path[4096];
    const char *folder = getenv("GLM_TEST_MODEL");
    FILE *f;
    char *text;
    long n;

    snprintf(path, sizeof path, "%s/%s", folder ? folder : "models/nano", name);
    f = fopen(path, "rb");
    FUZZ_CHECK(f != NULL && fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0);
    rewind(f);
    text = malloc((size_t)n + 1);
    FUZZ_CHECK(text != NULL && fread(text, 1, (size_t)n, f) == (size_t)n);
    fclose(f);
    text[n] = 0;
    *size = (size_t)n;
    return text;
}

#endif
