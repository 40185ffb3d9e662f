/* inspect.c: `glm45 inspect`: what a checkpoint holds: numbers of the model, tokenizer, chat template, tensors and where they
 * lie, sums, and the memory that running it takes. Weights are mapped, never read. inspect_json.c writes the same for
 * scripts.
 */
#include "inspect.h"
#include "args.h"
#include "report.h"
#include "tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: glm45 inspect MODEL [--no-tensors] [--context N,N,...] [--json]\n"
    "\n"
    "Shows what a checkpoint holds, and the memory that it needs. MODEL may also be a tokenizer.json.\n"
    "\n"
    "  --no-tensors        not the list of tensors (name, type, shape, file, offset, bytes)\n"
    "  --context N,N,...   context lengths to estimate memory for     [4096,32768 and the model's]\n"
    "  --json              one JSON document\n";

/* ---- gathering -------------------------------------------------------------------------------------------------------------- */

static void count_vocabulary(struct inspection *x)
{
    size_t size;
    for (uint32_t id = 0; id < tok_n(x->tok); id++)
        x->n_token += tok_bytes(x->tok, (int32_t)id, &size) != NULL;
    for (uint32_t id = 0; id < tok_n(x->tok); id++)
        x->n_added += tok_is_added(x->tok, (int32_t)id);
    for (int s = 0; s < TOK_SPECIAL_COUNT; s++)
        x->n_missing += tok_id(x->tok, (enum tok_special)s) < 0;
}

static int compare_types(const void *a, const void *b)
{
    const struct inspected_sum *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : strcmp(x->name, y->name);
}

/* false: more different names than there is room for; they count as "others". */
static void add_sum(struct inspected_sum *sums, size_t *n, const char *name, const struct tensor_entry *t)
{
    uint64_t elements = 1;
    size_t i = 0;
    while (i < *n && strcmp(sums[i].name, name) != 0)
        i++;
    if (i == *n && *n == INSPECT_SUMS)
        i = INSPECT_SUMS - 1;
    else if (i == *n)
        sums[(*n)++] = (struct inspected_sum){ .name = *n == INSPECT_SUMS ? "others" : name };
    for (uint32_t d = 0; d < t->n_dim; d++)
        elements *= t->dim[d];
    sums[i].n++;
    sums[i].elements += elements;
    sums[i].bytes += t->bytes;
}

static void sum_tensors(struct inspection *x)
{
    for (size_t i = 0; i < ckpt_n_tensor(x->ckpt); i++) {
        struct tensor_entry t;
        ckpt_tensor(x->ckpt, i, &t);
        add_sum(x->types, &x->n_type, t.type, &t);
        add_sum(x->files, &x->n_file, t.file, &t);
    }
    qsort(x->types, x->n_type, sizeof x->types[0], compare_types);
}

static int32_t estimate(struct inspection *x, glm_error *err)
{
    uint64_t train = ckpt_hparams(x->ckpt)->n_ctx_train;
    int32_t rc = GLM_OK;

    if (x->contexts.n == 0) {
        static const uint64_t usual[] = { 4096, 32768 };
        for (size_t i = 0; i < ARRAY_LEN(usual); i++)
            if (usual[i] < train)
                x->contexts.item[x->contexts.n++] = usual[i];
        x->contexts.item[x->contexts.n++] = train;
    }
    for (size_t i = 0; i < x->contexts.n && !rc; i++) {
        glm_session_options so = GLM_SESSION_OPTIONS_INIT;
        if (x->contexts.item[i] > train)
            return err_set(err, GLM_EINVAL, x->contexts.item[i], "--context", "the model was made for %llu positions",
                (unsigned long long)train);
        so.n_ctx = (uint32_t)x->contexts.item[i];
        x->estimates[i] = (glm_estimate)GLM_ESTIMATE_INIT;
        rc = glm_model_estimate(x->path, NULL, &so, 1, &x->estimates[i], err);
    }
    return rc ? rc : model_bytes_read(x->path, &x->bytes, err);
}

/* Once for the config and the tokenizer, which may be all there is, then with the weights' headers. */
static int32_t open_checkpoint(struct inspection *x, glm_error *err)
{
    struct ckpt_options how = { .weights = GLM_WEIGHTS_NONE, .fs = &x->fs };
    struct vocab_source vocab;
    size_t size = 0;
    const char *text;
    int32_t rc = ckpt_open(&x->mem, x->path, &how, &x->ckpt, err);

    if (!rc && ckpt_hparams(x->ckpt)) {
        ckpt_close(x->ckpt);
        x->ckpt = NULL;
        how.weights = GLM_WEIGHTS_MAP;
        rc = ckpt_open(&x->mem, x->path, &how, &x->ckpt, err);
    }
    if (rc)
        return rc;
    vocab = ckpt_vocab(x->ckpt);
    if (vocab.kind != VOCAB_NONE)
        rc = tok_open(&x->mem, &vocab, ckpt_hparams(x->ckpt) ? ckpt_hparams(x->ckpt)->n_vocab : 0, &x->tok, err);
    if (rc)
        return rc;
    if (x->tok)
        count_vocabulary(x);
    text = ckpt_template(x->ckpt, &size);
    x->has_template = text != NULL;
    x->family = text ? chat_detect(text, size, &x->template_known) : CHAT_45;
    if (!ckpt_hparams(x->ckpt))
        return GLM_OK;
    sum_tensors(x);
    return estimate(x, err);
}

/* ---- the table ---------------------------------------------------------------------------------------------------------------- */

static void put_number(const char *name, uint64_t v, const char *what)
{
    printf("  %-18s %12llu  %s\n", name, (unsigned long long)v, what);
}

static void put_model(const struct inspection *x)
{
    const struct hparams *hp = ckpt_hparams(x->ckpt);
    printf("model\n");
    put_number("layers", hp->n_layer, "");
    put_number("  of them dense", hp->n_layer_dense, "the first ones");
    put_number("MTP layers", hp->n_nextn, "predict the token after the next");
    put_number("width", hp->d_model, "");
    put_number("heads", hp->n_head, "");
    put_number("KV heads", hp->n_head_kv, "");
    put_number("head width", hp->d_head, "");
    put_number("  of it rotated", hp->n_rot, "");
    put_number("FFN width", hp->d_ff, "dense layers");
    put_number("expert width", hp->d_ff_exp, "");
    put_number("experts", hp->n_expert, "");
    put_number("  used by a token", hp->n_expert_used, "");
    put_number("  shared", hp->n_expert_shared, "");
    put_number("  groups", hp->n_group, "");
    put_number("  groups used", hp->n_group_used, "");
    put_number("vocabulary", hp->n_vocab, "rows of the embedding");
    put_number("context", hp->n_ctx_train, "positions");
    printf("  %-18s %12.6g\n  %-18s %12.6g\n  %-18s %12.6g\n", "rope theta", hp->rope_theta, "norm epsilon",
        (double)hp->norm_eps, "routed scale", (double)hp->routed_scale);
    printf("  %-18s %12s\n  %-18s %12s\n  %-18s %12s\n", "norm of top-k", hp->norm_topk ? "yes" : "no", "QK norm",
        hp->qk_norm ? "yes" : "no", "QKV bias", hp->qkv_bias ? "yes" : "no");
}

static void put_default(const char *name, float v)
{
    if (!isnan(v))
        printf("  %-18s %12.6g\n", name, (double)v);
}

static void put_generation(const struct inspection *x)
{
    const struct generation_defaults *g = ckpt_generation(x->ckpt);
    printf("generation\n  %-18s", "end tokens");
    for (uint32_t i = 0; i < g->n_eos; i++)
        printf(" %d", g->eos[i]);
    printf("%s\n", g->n_eos ? "" : " none");
    put_default("temperature", g->temperature);
    put_default("top-p", g->top_p);
    put_default("min-p", g->min_p);
    put_default("repeat penalty", g->repeat_penalty);
    if (g->top_k >= 0)
        printf("  %-18s %12d\n", "top-k", g->top_k);
}

static void put_text(const struct inspection *x)
{
    if (!x->tok) {
        printf("tokenizer\n  none: only the token level works\n");
    } else {
        printf("tokenizer\n");
        put_number("tokens", x->n_token, "");
        put_number("  of them added", x->n_added, "markup");
        put_number("largest id", tok_n(x->tok) - 1, "");
        if (x->n_missing)
            put_number("missing", x->n_missing, "of the family's special tokens");
    }
    printf("chat template\n  %s%s\n", x->family == CHAT_47 ? "GLM-4.7" : "GLM-4.5",
        !x->has_template ? " (there is none here; this is taken)" : x->template_known ? "" : " (not a known one; this is taken)");
}

static void put_tensors(const struct inspection *x)
{
    printf("tensors\n  %-52s %-8s %-22s %14s %14s  %s\n", "name", "type", "shape", "offset", "bytes", "file");
    for (size_t i = 0; i < ckpt_n_tensor(x->ckpt); i++) {
        struct tensor_entry t;
        char shape[128] = "";
        size_t n = 0;
        ckpt_tensor(x->ckpt, i, &t);
        for (uint32_t d = 0; d < t.n_dim && n < sizeof shape - 24; d++)
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%llu", d ? " x " : "", (unsigned long long)t.dim[d]);
        printf("  %-52s %-8s %-22s %14llu %14llu  %s\n", t.name, t.type, shape, (unsigned long long)t.offset,
            (unsigned long long)t.bytes, t.file);
    }
}

static void put_sums(const char *title, const struct inspected_sum *sums, size_t n)
{
    printf("%s\n", title);
    for (size_t i = 0; i < n; i++)
        printf("  %-40s %8llu tensors %18llu elements %12.6f GB\n", sums[i].name, (unsigned long long)sums[i].n,
            (unsigned long long)sums[i].elements, (double)sums[i].bytes * 1e-9);
}

static void put_memory(const struct inspection *x)
{
    printf("reading\n");
    printf("  a decoded token    %12.6f GB of weights, %.6f of them experts, and the keys and values of its context\n",
        (double)(x->bytes.dense + x->bytes.experts) * 1e-9, (double)x->bytes.experts * 1e-9);
    printf("memory in GB, for one session\n  %12s %12s %12s %12s\n", "context", "mapped", "private", "KV cache");
    for (size_t i = 0; i < x->contexts.n; i++)
        printf("  %12llu %12.4f %12.4f %12.4f\n", (unsigned long long)x->contexts.item[i],
            (double)x->estimates[i].mapped_bytes * 1e-9, (double)x->estimates[i].private_bytes * 1e-9,
            (double)x->estimates[i].kv_bytes * 1e-9);
}

static void put_all(const struct inspection *x)
{
    uint8_t print[32];
    ckpt_fingerprint(x->ckpt, print);
    printf("%s\n  %-18s %s\n  %-18s ", x->path, "format", ckpt_kind(x->ckpt), "fingerprint");
    for (size_t i = 0; i < sizeof print; i++)
        printf("%02x", print[i]);
    printf("\n");
    if (ckpt_hparams(x->ckpt)) {
        put_model(x);
        put_generation(x);
    }
    put_text(x);
    if (!ckpt_hparams(x->ckpt))
        return;
    if (!x->no_tensors)
        put_tensors(x);
    put_sums("files", x->files, x->n_file);
    put_sums("types", x->types, x->n_type);
    put_memory(x);
}

/* ---- the command -------------------------------------------------------------------------------------------------------------- */

static int show(struct inspection *x)
{
    struct buf out;
    if (!x->json) {
        put_all(x);
        return report_flush("inspect");
    }
    buf_init(&out, &x->mem);
    inspect_put_json(x, &out);
    buf_char(&out, '\n');
    int status;
    if (out.failed) {
        status = report_failed("inspect", "out of memory for the document");
    } else {
        fwrite(out.data, 1, out.size, stdout);
        status = report_flush("inspect");
    }
    buf_free(&out);
    return status;
}

static int run(struct inspection *x)
{
    glm_error err = GLM_ERROR_INIT;
    int status;

    mem_init(&x->mem, NULL);
    fs_init(&x->fs, NULL);
    status = open_checkpoint(x, &err) ? report_error("inspect", &err) : show(x);
    tok_close(x->tok);
    ckpt_close(x->ckpt);
    return status;
}

int inspect_main(int argc, char **argv)
{
    struct inspection *x = calloc(1, sizeof *x); /* its tables are larger than a stack frame should be */
    const struct arg args[] = {
        { .name = "--no-tensors", .kind = ARG_FLAG, .to = x ? &x->no_tensors : NULL },
        { .name = "--context", .kind = ARG_COUNTS, .to = x ? &x->contexts : NULL, .least = 1, .most = UINT32_MAX },
        { .name = "--json", .kind = ARG_FLAG, .to = x ? &x->json : NULL },
    };
    const struct arg_table table = { "inspect", help, args, ARRAY_LEN(args), x ? &x->path : NULL };
    int status;

    if (!x)
        return report_failed("inspect", "out of memory");
    status = args_read(&table, argc, argv);
    if (status == ARGS_GO_ON)
        status = run(x);
    free(x);
    return status;
}
