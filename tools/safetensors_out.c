/* safetensors_out.c: see safetensors_out.h. Format: 8 bytes of header size, a JSON header padded with spaces so that the
 * data is 8-byte aligned, the data (https://github.com/huggingface/safetensors#format).
 */
#include "safetensors_out.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int32_t st_out_add(struct st_out *o, const char *name, uint32_t n_dim, const uint64_t *dim, glm_error *err)
{
    struct st_tensor *t = &o->tensor[o->n];
    uint64_t bytes = sizeof(float);

    *t = (struct st_tensor){ .name = name, .n_dim = n_dim, .begin = o->n ? t[-1].end : 0 };
    for (uint32_t i = 0; i < n_dim; i++) {
        t->dim[i] = dim[i];
        if (!ck_mul(bytes, dim[i], &bytes))
            return err_set(err, GLM_ELIMIT, 0, name, "the tensor is too large for a file");
    }
    if (!ck_add(t->begin, bytes, &t->end) || t->end > INT64_MAX / 2)
        return err_set(err, GLM_ELIMIT, 0, name, "the tensor is too large for a file");
    o->n++;
    return GLM_OK;
}

static void put_header(const struct st_out *o, struct buf *b)
{
    buf_char(b, '{');
    for (uint32_t i = 0; i < o->n; i++) {
        const struct st_tensor *t = &o->tensor[i];
        buf_str(b, i ? ",\"" : "\"");
        buf_str(b, t->name);
        buf_str(b, "\":{\"dtype\":\"F32\",\"shape\":[");
        for (uint32_t d = 0; d < t->n_dim; d++) {
            if (d)
                buf_char(b, ',');
            buf_u64(b, t->dim[d]);
        }
        buf_str(b, "],\"data_offsets\":[");
        buf_u64(b, t->begin);
        buf_char(b, ',');
        buf_u64(b, t->end);
        buf_str(b, "]}");
    }
    buf_char(b, '}');
    while (b->size % 8 && !b->failed)
        buf_char(b, ' ');
}

int32_t st_out_open(struct st_out *o, struct mem *m, const char *path, glm_error *err)
{
    uint64_t total = o->n ? o->tensor[o->n - 1].end : 0, size;
    struct buf header;
    int32_t rc;

    buf_init(&header, m);
    put_header(o, &header);
    size = header.size;
    o->data = 8 + size;
    rc = header.failed ? err_nomem(err, "the file's header") : synth_room(path, o->data + total, err);
    if (!rc)
        rc = synth_file_open(&o->file, path, err);
    if (!rc)
        rc = synth_file_write(&o->file, &size, sizeof size, err);
    if (!rc)
        rc = synth_file_write(&o->file, header.data, size, err);
    if (!rc && ftruncate(o->file.fd, (off_t)(o->data + total)))
        rc = err_set(err, GLM_EIO, 0, path, "writing failed: %s", strerror(errno));
    buf_free(&header);
    return rc;
}

int32_t st_out_put(struct st_out *o, uint32_t i, uint64_t first, const float *values, uint64_t n, glm_error *err)
{
    const char *p = (const char *)values;
    uint64_t at = o->data + o->tensor[i].begin + first * sizeof *values, left = n * sizeof *values;

    while (left > 0) {
        ssize_t done = pwrite(o->file.fd, p, left, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_set(err, GLM_EIO, at, o->file.path, "writing failed: %s", strerror(done < 0 ? errno : ENOSPC));
        p += done, at += (uint64_t)done, left -= (uint64_t)done;
    }
    return GLM_OK;
}

int32_t st_out_finish(struct st_out *o, glm_error *err) { return synth_file_finish(&o->file, err); }

void st_out_drop(struct st_out *o) { synth_file_drop(&o->file); }
