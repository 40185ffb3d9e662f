/* inspect.h: what `glm45 inspect` found out about a checkpoint, for its two ways of showing it. */
#ifndef GLM_TOOLS_INSPECT_H
#define GLM_TOOLS_INSPECT_H

#include "args.h"
#include "model_bytes.h"

#include "../lib/io/io.h"
#include "../lib/text/text.h"

#define INSPECT_SUMS 1024 /* files, types */

struct inspected_sum {
    const char *name;
    uint64_t n, elements, bytes;
};

struct inspection {
    const char *path;
    bool no_tensors, json;
    struct arg_counts contexts;
    struct mem mem;
    struct fs fs;
    struct ckpt *ckpt;
    struct tok *tok;                  /* NULL: none */
    uint32_t n_token, n_added, n_missing;
    bool has_template, template_known;
    enum chat_family family;
    /* below: only of a checkpoint with a model */
    struct inspected_sum types[INSPECT_SUMS], files[INSPECT_SUMS];
    size_t n_type, n_file;
    glm_estimate estimates[ARG_COUNTS_MAX];
    struct model_bytes bytes;
};

void inspect_put_json(const struct inspection *x, struct buf *out);

#endif
