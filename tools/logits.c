/* logits.c: `glm45 logits`: one sequence of token ids to the logits of every position, and what led to them. Runs the
 * forward pass itself, in chunks of rows; results go to the file chunk by chunk.
 */
#include "args.h"
#include "lines.h"
#include "progress.h"
#include "report.h"
#include "safetensors_out.h"
#include "tools.h"

#include "../lib/engine/engine_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_BYTES (64u << 20) /* of a chunk's logits */

static const char help[] =
    "usage: glm45 logits MODEL -o FILE.safetensors [--float] [--hidden] [--mtp] [--threads N]\n"
    "\n"
    "Reads one line [ids] and writes a file of float32 tensors: logits [T, V], the logits after each of the T ids.\n"
    "\n"
    "  -o, --out FILE   the file to make\n"
    "  --float          float32 activations throughout [as chat: int8 ones where the weights' format has them]\n"
    "  --hidden         also hidden [L + 1, T, h]: the residual stream after the embedding and after each layer\n"
    "  --mtp            also mtp_logits [T - 1, V]: the second prediction after each id but the last, from the model's\n"
    "                   multi-token-prediction layer and the id that really came\n"
    "  --threads N      [the machine's cores, at most 8]\n"
    "\n"
    "example: echo '[151331,151333,151336]' | glm45 logits GLM-4.5-Air -o out.safetensors --float\n";

struct job {
    const char *model, *out;
    bool float_activations, want_hidden, want_mtp;
    uint64_t n_threads;
    struct mem mem;
    struct fs fs;
    struct ckpt *ckpt;
    struct net *net;
    struct pass *pass;
    struct kv_seq seq;
    int32_t *ids;                /* [n] */
    uint32_t n, chunk;
    uint32_t *rows;              /* [chunk] 0, 1, 2, ... */
    float *residual;             /* [n_layer + 1, chunk, d_model] */
    float *states;               /* [n, d_model] after the final norm */
    struct st_out file;
    uint32_t i_hidden, i_mtp;    /* tensors of the file */
    bool nan;
    struct progress progress;
};

/* ---- input -------------------------------------------------------------------------------------------------------------- */

static int32_t take_ids(struct job *j, const struct json *list, glm_error *err)
{
    const struct hparams *hp = &j->net->hp;
    char pointer[32];
    uint64_t id;

    if (list->type != JSON_ARRAY || list->count == 0)
        return err_set(err, GLM_EINVAL, 0, "/", "an array of token ids is wanted, at least one");
    if (list->count > hp->n_ctx_train)
        return err_set(err, GLM_ECONTEXT, list->count, "/", "there are %u ids, the model was made for %u positions",
            list->count, hp->n_ctx_train);
    j->ids = mem_array(&j->mem, list->count, sizeof *j->ids);
    if (!j->ids)
        return err_nomem(err, "the ids");
    for (const struct json *v = json_first(list); v; v = json_next(list, v)) {
        snprintf(pointer, sizeof pointer, "/%u", j->n);
        if (!json_u64(v, &id))
            return err_set(err, GLM_EINVAL, v->offset, pointer, "a token id is wanted here, a whole number");
        if (id >= hp->n_vocab)
            return err_set(err, GLM_EINVAL, v->offset, pointer, "token id %llu is outside the vocabulary of %u",
                (unsigned long long)id, hp->n_vocab);
        j->ids[j->n++] = (int32_t)id;
    }
    return GLM_OK;
}

static int read_ids(struct job *j)
{
    struct lines l;
    glm_error err = GLM_ERROR_INIT;
    int status;

    lines_open(&l, &j->mem, "logits");
    status = lines_next(&l);
    if (status == EXIT_FINE)
        status = report_failed("logits", "stdin has no line; one with an array of token ids is wanted");
    else if (status == LINES_GO_ON)
        status = take_ids(j, l.doc.root, &err) ? lines_bad(&l, &err) : EXIT_FINE;
    lines_close(&l);
    return status;
}

/* ---- the model ------------------------------------------------------------------------------------------------------------ */

static int32_t open_model(struct job *j, glm_error *err)
{
    struct ckpt_options co = { .weights = GLM_WEIGHTS_MAP, .fs = &j->fs };
    struct backend_options bo = { .n_threads = (uint32_t)j->n_threads, .float_activations = j->float_activations,
        .cpu_mask = UINT32_MAX };
    int32_t rc;

    mem_init(&j->mem, NULL);
    fs_init(&j->fs, NULL);
    rc = ckpt_open(&j->mem, j->model, &co, &j->ckpt, err);
    if (!rc)
        rc = net_open(&j->mem, j->ckpt, &bo, &j->net, err);
    if (!rc && j->want_mtp && !j->net->hp.n_nextn)
        rc = err_set(err, GLM_ENOTSUP, 0, "--mtp", "the checkpoint has no multi-token-prediction layer: leave it out");
    return rc;
}

static int32_t open_kv(struct job *j, glm_error *err)
{
    struct kv_shape shape = net_kv_shape(j->net);
    uint32_t n_page = (j->n + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS;

    j->seq.type = j->float_activations ? GLM_KV_F32 : kv_auto(&j->net->hp);
    j->seq.page = mem_zarray(&j->mem, n_page, sizeof *j->seq.page);
    if (!j->seq.page)
        return err_nomem(err, "the KV cache");
    for (; j->seq.n_page < n_page; j->seq.n_page++) {
        j->seq.page[j->seq.n_page] = mem_alloc(&j->mem, kv_page_bytes(&shape, j->seq.type));
        if (!j->seq.page[j->seq.n_page])
            return err_nomem(err, "the KV cache");
    }
    return GLM_OK;
}

static int32_t open_work(struct job *j, glm_error *err)
{
    const struct hparams *hp = &j->net->hp;
    uint32_t most = CHUNK_BYTES / (hp->n_vocab * (uint32_t)sizeof(float));

    j->chunk = j->n < PREFILL_ROWS ? j->n : PREFILL_ROWS;
    j->chunk = most < j->chunk ? most ? most : 1 : j->chunk;
    j->rows = mem_array(&j->mem, j->chunk, sizeof *j->rows);
    if (j->want_hidden)
        j->residual = mem_array(&j->mem, (size_t)(hp->n_layer + 1) * j->chunk, hp->d_model * sizeof(float));
    if (j->want_mtp)
        j->states = mem_array(&j->mem, j->n, hp->d_model * sizeof(float));
    if (!j->rows || (j->want_hidden && !j->residual) || (j->want_mtp && !j->states))
        return err_nomem(err, "the results of a chunk");
    for (uint32_t i = 0; i < j->chunk; i++)
        j->rows[i] = i;
    return pass_open(j->net, j->chunk, j->chunk, j->n, &j->pass, err);
}

static int32_t open_file(struct job *j, glm_error *err)
{
    const struct hparams *hp = &j->net->hp;
    uint64_t logits[] = { j->n, hp->n_vocab }, mtp[] = { j->n - 1, hp->n_vocab };
    uint64_t hidden[] = { hp->n_layer + 1, j->n, hp->d_model };
    int32_t rc = st_out_add(&j->file, "logits", 2, logits, err);

    j->i_hidden = j->file.n;
    if (!rc && j->want_hidden)
        rc = st_out_add(&j->file, "hidden", 3, hidden, err);
    j->i_mtp = j->file.n;
    if (!rc && j->want_mtp)
        rc = st_out_add(&j->file, "mtp_logits", 2, mtp, err);
    return rc ? rc : st_out_open(&j->file, &j->mem, j->out, err);
}

/* ---- passes ----------------------------------------------------------------------------------------------------------------- */

/* n rows at pos: of the trunk, or of the MTP layer, whose row r sees the state at r and the id that came after it. */
static int32_t run(struct job *j, uint32_t pos, uint32_t n, bool mtp, glm_error *err)
{
    struct segment seg = { .n_row = n, .pos = pos };
    struct kv_seq *seqs = &j->seq;
    struct batch b = { .ids = j->ids + pos + mtp, .segments = &seg, .n_row = n, .n_segment = 1, .seqs = &seqs,
        .logit_rows = j->rows, .n_logit = n };
    struct fp_mode mode;
    int32_t rc;

    if (mtp) {
        b.mtp_hidden = j->states + (size_t)pos * j->net->hp.d_model;
    } else if (j->want_hidden) {
        b.residual = j->residual;
        b.residual_rows = j->chunk;
    }
    rc = pass_begin(j->pass, &b, err);
    if (rc)
        return rc;
    mode = fp_enter();
    for (bool done = false; !done && !rc;) {
        rc = pass_run(j->pass, os_now_ns() + 100000000u, NULL, &done, err);
        progress_show(&j->progress, pos + n * pass_progress(j->pass), j->n, "tokens");
    }
    fp_leave(mode);
    return rc;
}

static int32_t keep_logits(struct job *j, uint32_t tensor, uint32_t pos, uint32_t n, glm_error *err)
{
    uint32_t n_vocab = j->net->hp.n_vocab;
    const float *logits = pass_logits(j->pass, 0);

    for (size_t i = 0; i < (size_t)n * n_vocab && !j->nan; i++)
        j->nan = isnan(logits[i]);
    return st_out_put(&j->file, tensor, (uint64_t)pos * n_vocab, logits, (uint64_t)n * n_vocab, err);
}

static int32_t keep_hidden(struct job *j, uint32_t pos, uint32_t n, glm_error *err)
{
    uint32_t d = j->net->hp.d_model, n_layer = j->net->hp.n_layer;
    int32_t rc = GLM_OK;

    for (uint32_t l = 0; l <= n_layer && !rc; l++)
        rc = st_out_put(&j->file, j->i_hidden, ((uint64_t)l * j->n + pos) * d, j->residual + (size_t)l * j->chunk * d,
            (uint64_t)n * d, err);
    return rc;
}

static int32_t run_trunk(struct job *j, glm_error *err)
{
    uint32_t d = j->net->hp.d_model;
    int32_t rc = GLM_OK;

    progress_begin(&j->progress, "logits");
    for (uint32_t pos = 0, n; pos < j->n && !rc; pos += n) {
        n = j->n - pos < j->chunk ? j->n - pos : j->chunk;
        rc = run(j, pos, n, false, err);
        if (!rc)
            rc = keep_logits(j, 0, pos, n, err);
        if (!rc && j->want_hidden)
            rc = keep_hidden(j, pos, n, err);
        if (!rc && j->want_mtp)
            memcpy(j->states + (size_t)pos * d, pass_hidden(j->pass, 0), (size_t)n * d * sizeof(float));
    }
    progress_end(&j->progress);
    return rc;
}

static int32_t run_mtp(struct job *j, glm_error *err)
{
    int32_t rc = GLM_OK;

    progress_begin(&j->progress, "MTP logits");
    for (uint32_t pos = 0, n; pos < j->n - 1 && !rc; pos += n) {
        n = j->n - 1 - pos < j->chunk ? j->n - 1 - pos : j->chunk;
        rc = run(j, pos, n, true, err);
        if (!rc)
            rc = keep_logits(j, j->i_mtp, pos, n, err);
    }
    progress_end(&j->progress);
    return rc;
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

static int compute(struct job *j)
{
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = open_kv(j, &err);

    rc = rc ? rc : open_work(j, &err);
    rc = rc ? rc : open_file(j, &err);
    rc = rc ? rc : run_trunk(j, &err);
    if (!rc && j->want_mtp)
        rc = run_mtp(j, &err);
    rc = rc ? rc : st_out_finish(&j->file, &err);
    if (rc)
        return report_error("logits", &err);
    if (j->nan)
        report_note("logits", "%s: there are NaN among the logits: the weights are damaged or overflow", j->out);
    return EXIT_FINE;
}

static void job_free(struct job *j)
{
    st_out_drop(&j->file);
    pass_close(j->pass);
    for (uint32_t i = 0; i < j->seq.n_page; i++)
        mem_free(&j->mem, j->seq.page[i]);
    mem_free(&j->mem, j->seq.page);
    mem_free(&j->mem, j->states);
    mem_free(&j->mem, j->residual);
    mem_free(&j->mem, j->rows);
    mem_free(&j->mem, j->ids);
    net_close(j->net);
    ckpt_close(j->ckpt);
}

int logits_main(int argc, char **argv)
{
    struct job j = { .n_threads = 0 };
    const struct arg args[] = {
        { .name = "--out", .letter = "-o", .kind = ARG_TEXT, .to = &j.out },
        { .name = "--float", .kind = ARG_FLAG, .to = &j.float_activations },
        { .name = "--hidden", .kind = ARG_FLAG, .to = &j.want_hidden },
        { .name = "--mtp", .kind = ARG_FLAG, .to = &j.want_mtp },
        { .name = "--threads", .kind = ARG_COUNT, .to = &j.n_threads, .least = 1, .most = 1024 },
    };
    const struct arg_table table = { "logits", help, args, ARRAY_LEN(args), &j.model };
    glm_error err = GLM_ERROR_INIT;
    int status = args_read(&table, argc, argv);

    if (status != ARGS_GO_ON)
        return status;
    if (!j.out)
        return report_usage("logits", "-o: the name of the file to make is missing");
    status = open_model(&j, &err) ? report_error("logits", &err) : read_ids(&j);
    if (status == EXIT_FINE)
        status = compute(&j);
    job_free(&j);
    return status;
}
