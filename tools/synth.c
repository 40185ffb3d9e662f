/* synth.c: `glm45 synth`: writes a checkpoint of random weights, in any shape and weight format, so
 * that tests and benchmarks need no download. Reads the arguments, decides the shape, and leaves
 * the rest to the other synth_*.c.
 */
#include "synth.h"
#include "tools.h"

#include "../lib/io/ckpt_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
    "usage: glm45 synth --shape SHAPE -o OUT [options]\n"
    "\n"
    "Writes a checkpoint of random weights: a GGUF file, or a Hugging Face folder.\n"
    "\n"
    "  -o, --out OUT        the file (NAME.gguf) or folder to make\n"
    "  --shape SHAPE        glm45 (355B), glm46, air (106B), nano (3M), tiny (1M), or the path of "
    "a checkpoint or of\n"
    "                       its config.json                                                     "
    "[air]\n"
    "  --type TYPE          weights of a GGUF: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_S "
    "Q3_K_M Q3_K_L\n"
    "                       Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ4_NL IQ4_XS MXFP4_MOE, pure-Q4_0 "
    "... [Q4_0]\n"
    "                       of a folder: bf16 f16 f32 fp8 fp8-block int4                         "
    "[bf16]\n"
    "  --format gguf|hf     if the name of OUT does not say it\n"
    "  --split N            in about N files of equal size                                       "
    "[1]\n"
    "  --seed N             another seed gives other numbers                                     "
    "[0]\n"
    "  --skew S             experts are chosen unevenly: the r-th most popular of a layer by a "
    "share of r^-S of the\n"
    "                       tokens (0: by random biases, which is uneven, too)                       "
    "[0]\n"
    "  --mtp on|off         with the layer that predicts the token after the next                "
    "[as the shape]\n"
    "  --mtp-own-head on|off  with its own embedding and head                                    "
    "[as the shape]\n"
    "  --tokenizer FILE     tokenizer.json to put in (default: a byte-level toy in a GGUF, none in "
    "a folder)\n"
    "  --chat-template FILE text of the chat template to put in\n"
    "  --layers --dense --hidden --heads --kv-heads --head-dim --rot-dim --ff --expert-ff "
    "--experts\n"
    "  --experts-used --shared --groups --groups-used --vocab --context N\n"
    "                       change a number of the shape\n"
    "  --qk-norm on|off     normalized queries and keys\n"
    "  --force              overwrite OUT if it is a file\n"
    "  --quiet              no progress on the terminal\n"
    "\n"
    "example: glm45 synth --shape air --layers 4 --type Q4_K_M -o air-4.gguf\n";

/* ---- shapes ---------------------------------------------------------------------------------- */

struct shape {
    const char *name;
    struct hparams hp;
    bool mtp_own_head;
};

static const struct shape shapes[] = {
    {"glm45",
        {.n_layer = 92,
            .n_layer_dense = 3,
            .n_nextn = 1,
            .d_model = 5120,
            .n_head = 96,
            .n_head_kv = 8,
            .d_head = 128,
            .n_rot = 64,
            .d_ff = 12288,
            .d_ff_exp = 1536,
            .n_expert = 160,
            .n_expert_used = 8,
            .n_expert_shared = 1,
            .n_group = 1,
            .n_group_used = 1,
            .n_vocab = 151552,
            .n_ctx_train = 131072,
            .rope_theta = 1e6,
            .norm_eps = 1e-5f,
            .routed_scale = 2.5f,
            .norm_topk = true,
            .qk_norm = true,
            .qkv_bias = true},
        true},
    {"glm46",
        {.n_layer = 92,
            .n_layer_dense = 3,
            .n_nextn = 1,
            .d_model = 5120,
            .n_head = 96,
            .n_head_kv = 8,
            .d_head = 128,
            .n_rot = 64,
            .d_ff = 12288,
            .d_ff_exp = 1536,
            .n_expert = 160,
            .n_expert_used = 8,
            .n_expert_shared = 1,
            .n_group = 1,
            .n_group_used = 1,
            .n_vocab = 151552,
            .n_ctx_train = 202752,
            .rope_theta = 1e6,
            .norm_eps = 1e-5f,
            .routed_scale = 2.5f,
            .norm_topk = true,
            .qk_norm = true,
            .qkv_bias = true},
        false},
    {"air",
        {.n_layer = 46,
            .n_layer_dense = 1,
            .n_nextn = 1,
            .d_model = 4096,
            .n_head = 96,
            .n_head_kv = 8,
            .d_head = 128,
            .n_rot = 64,
            .d_ff = 10944,
            .d_ff_exp = 1408,
            .n_expert = 128,
            .n_expert_used = 8,
            .n_expert_shared = 1,
            .n_group = 1,
            .n_group_used = 1,
            .n_vocab = 151552,
            .n_ctx_train = 131072,
            .rope_theta = 1e6,
            .norm_eps = 1e-5f,
            .routed_scale = 1,
            .norm_topk = true,
            .qkv_bias = true},
        true},
    {"nano",
        {.n_layer = 4,
            .n_layer_dense = 1,
            .n_nextn = 1,
            .d_model = 192,
            .n_head = 4,
            .n_head_kv = 2,
            .d_head = 48,
            .n_rot = 24,
            .d_ff = 512,
            .d_ff_exp = 64,
            .n_expert = 8,
            .n_expert_used = 2,
            .n_expert_shared = 1,
            .n_group = 1,
            .n_group_used = 1,
            .n_vocab = 1536,
            .n_ctx_train = 8192,
            .rope_theta = 1e4,
            .norm_eps = 1e-5f,
            .routed_scale = 1,
            .norm_topk = true,
            .qkv_bias = true},
        false},
    {"tiny",
        {.n_layer = 2,
            .n_layer_dense = 1,
            .n_nextn = 0,
            .d_model = 256,
            .n_head = 6,
            .n_head_kv = 1,
            .d_head = 32,
            .n_rot = 16,
            .d_ff = 160,
            .d_ff_exp = 96,
            .n_expert = 4,
            .n_expert_used = 2,
            .n_expert_shared = 1,
            .n_group = 1,
            .n_group_used = 1,
            .n_vocab = 288,
            .n_ctx_train = 8192,
            .rope_theta = 1e6,
            .norm_eps = 1e-5f,
            .routed_scale = 1,
            .norm_topk = true,
            .qkv_bias = true},
        false},
};

static void shape_eos(struct synth *s)
{
    static const int32_t family[] = {151329, 151336, 151338};
    s->n_eos = 1;
    s->eos[0] = (int32_t)s->hp.n_vocab - 1;
    if (s->hp.n_vocab > 151338) {
        memcpy(s->eos, family, sizeof family);
        s->n_eos = ARRAY_LEN(family);
    }
}

/* The shape of a checkpoint, a folder with config.json, or that file. */
static int32_t shape_from_path(struct synth *s, struct mem *m, const char *path, glm_error *err)
{
    struct fs fs;
    struct ckpt *c = NULL;
    char folder[4096];
    size_t n = strlen(path), tail = strlen("config.json");
    if (n >= sizeof folder)
        return err_set(err, GLM_EINVAL, 0, "--shape", "the path is too long");
    memcpy(folder, path, n + 1);
    if (n >= tail && strcmp(path + n - tail, "config.json") == 0 &&
        (n == tail || path[n - tail - 1] == '/'))
        memcpy(folder + n - tail, n == tail ? "." : "", n == tail ? 2 : 1);
    fs_init(&fs, NULL);
    const struct ckpt_options opt = {.weights = GLM_WEIGHTS_NONE, .fs = &fs};
    int32_t status = ckpt_open(m, folder, &opt, &c, err);
    if (status)
        return status;
    if (ckpt_hparams(c) == NULL)
        status = err_set(err, GLM_EINVAL, 0, path,
            "this has no shape: give a checkpoint, or a folder with config.json");
    else
        s->hp = *ckpt_hparams(c);
    ckpt_close(c);
    return status;
}

static int32_t find_shape(struct synth *s, struct mem *m, const char *name, glm_error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        if (strcmp(shapes[i].name, name) == 0) {
            s->hp = shapes[i].hp;
            s->mtp_own_head = shapes[i].mtp_own_head;
            return GLM_OK;
        }
    if (access(name, R_OK) != 0)
        return err_set(err, GLM_EINVAL, 0, "--shape",
            "\"%s\" is neither glm45, glm46, air, nano or tiny nor a path", name);
    return shape_from_path(s, m, name, err);
}

/* ---- arguments ------------------------------------------------------------------------------- */

struct number {
    const char *name;
    size_t offset; /* in struct hparams */
};

#define FIELD(f) offsetof(struct hparams, f)
static const struct number numbers[] = {
    {"--layers", FIELD(n_layer)},
    {"--dense", FIELD(n_layer_dense)},
    {"--hidden", FIELD(d_model)},
    {"--heads", FIELD(n_head)},
    {"--kv-heads", FIELD(n_head_kv)},
    {"--head-dim", FIELD(d_head)},
    {"--rot-dim", FIELD(n_rot)},
    {"--ff", FIELD(d_ff)},
    {"--expert-ff", FIELD(d_ff_exp)},
    {"--experts", FIELD(n_expert)},
    {"--experts-used", FIELD(n_expert_used)},
    {"--shared", FIELD(n_expert_shared)},
    {"--groups", FIELD(n_group)},
    {"--groups-used", FIELD(n_group_used)},
    {"--vocab", FIELD(n_vocab)},
    {"--context", FIELD(n_ctx_train)},
};

struct args {
    const char *shape, *format, *mtp, *own_head, *qk_norm, *split, *seed, *skew;
    const char *number[ARRAY_LEN(numbers)]; /* NULL: as the shape has it */
    bool help;
};

static bool parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && *out <= max;
}

static bool parse_skew(const char *text, float *out)
{
    char *end;
    *out = strtof(text, &end);
    return end != text && *end == '\0' && *out >= 0 && *out <= 4;
}

static int32_t parse_switch(const char *name, const char *text, bool *out, glm_error *err)
{
    if (text == NULL)
        return GLM_OK;
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
        return err_set(err, GLM_EINVAL, 0, name, "\"%s\" is neither on nor off", text);
    *out = strcmp(text, "on") == 0;
    return GLM_OK;
}

/* Where the value of an option goes; NULL: no such option. */
static const char **option(struct synth *s, struct args *a, const char *name)
{
    const struct {
        const char *name;
        const char **to;
    } options[] = {
        {"-o", &s->out},
        {"--out", &s->out},
        {"--type", &s->type},
        {"--tokenizer", &s->tokenizer},
        {"--chat-template", &s->chat_template},
        {"--shape", &a->shape},
        {"--format", &a->format},
        {"--mtp", &a->mtp},
        {"--mtp-own-head", &a->own_head},
        {"--qk-norm", &a->qk_norm},
        {"--split", &a->split},
        {"--seed", &a->seed},
        {"--skew", &a->skew},
    };
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (strcmp(options[i].name, name) == 0)
            return options[i].to;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (strcmp(numbers[i].name, name) == 0)
            return &a->number[i];
    return NULL;
}

static int32_t read_args(struct synth *s, struct args *a, int argc, char **argv, glm_error *err)
{
    for (int i = 1; i < argc; i++) {
        const char **to = option(s, a, argv[i]);
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            a->help = true;
        else if (strcmp(argv[i], "--force") == 0)
            s->force = true;
        else if (strcmp(argv[i], "--quiet") == 0)
            s->quiet = true;
        else if (to == NULL)
            return err_set(err, GLM_EINVAL, 0, argv[i], "no such option: see glm45 synth --help");
        else if (i + 1 == argc)
            return err_set(
                err, GLM_EINVAL, 0, argv[i], "a value must follow: see glm45 synth --help");
        else
            *to = argv[++i];
    }
    if (!a->help && s->out == NULL)
        return err_set(
            err, GLM_EINVAL, 0, "-o", "the name of the file or folder to make is missing");
    return GLM_OK;
}

static bool given(const struct args *a, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (strcmp(numbers[i].name, name) == 0)
            return a->number[i] != NULL;
    return false;
}

static int32_t change_shape(struct synth *s, const struct args *a, glm_error *err)
{
    bool mtp = s->hp.n_nextn > 0;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uint64_t v;
        if (a->number[i] == NULL)
            continue;
        if (!parse_u64(a->number[i], UINT32_MAX, &v))
            return err_set(
                err, GLM_EINVAL, 0, numbers[i].name, "\"%s\" is no whole number", a->number[i]);
        uint32_t number = (uint32_t)v;
        memcpy((char *)&s->hp + numbers[i].offset, &number, sizeof number);
        if (strcmp(numbers[i].name, "--head-dim") == 0)
            s->hp.n_rot = number / 2 & ~1u; /* --rot-dim comes later in the table */
    }
    if (s->hp.n_layer_dense > s->hp.n_layer)
        s->hp.n_layer_dense = s->hp.n_layer;
    if (s->hp.n_expert_used > s->hp.n_expert &&
        !given(a, "--experts-used")) /* --experts 4 alone is meant to work */
        s->hp.n_expert_used = s->hp.n_expert;
    int32_t status = parse_switch("--mtp", a->mtp, &mtp, err);
    status = status ? status : parse_switch("--mtp-own-head", a->own_head, &s->mtp_own_head, err);
    status = status ? status : parse_switch("--qk-norm", a->qk_norm, &s->hp.qk_norm, err);
    s->hp.n_nextn = mtp;
    return status ? status : io_check_hparams(&s->hp, "the shape", err);
}

static int32_t decide(struct synth *s, const struct args *a, struct mem *m, glm_error *err)
{
    size_t n = strlen(s->out);
    uint64_t n_split = 1;
    s->gguf = n > 5 && strcasecmp(s->out + n - 5, ".gguf") == 0;
    if (a->format != NULL) {
        if (strcmp(a->format, "gguf") != 0 && strcmp(a->format, "hf") != 0)
            return err_set(
                err, GLM_EINVAL, 0, "--format", "\"%s\" is neither gguf nor hf", a->format);
        s->gguf = strcmp(a->format, "gguf") == 0;
    }
    if (s->type == NULL)
        s->type = s->gguf ? "Q4_0" : "bf16";
    if (!synth_type_known(s->type, s->gguf))
        return err_set(
            err, GLM_EINVAL, 0, "--type", "\"%s\" is none of: %s", s->type, synth_types(s->gguf));
    if (a->split != NULL && (!parse_u64(a->split, 9999, &n_split) || n_split == 0))
        return err_set(err, GLM_EINVAL, 0, "--split", "\"%s\" is not in 1 to 9999", a->split);
    if (a->seed != NULL && !parse_u64(a->seed, UINT64_MAX, &s->seed))
        return err_set(err, GLM_EINVAL, 0, "--seed", "\"%s\" is no whole number", a->seed);
    s->n_split = (uint32_t)n_split;
    if (a->skew != NULL && !parse_skew(a->skew, &s->skew))
        return err_set(err, GLM_EINVAL, 0, "--skew", "\"%s\" is no number from 0 to 4", a->skew);
    int32_t status = find_shape(s, m, a->shape ? a->shape : "air", err);
    status = status ? status : change_shape(s, a, err);
    if (status == GLM_OK && s->gguf && s->tokenizer == NULL && s->hp.n_vocab < 257)
        status = err_set(
            err, GLM_EINVAL, 0, "--vocab", "the toy vocabulary of a GGUF has 257 tokens at least");
    shape_eos(s);
    struct stat st;
    if (status == GLM_OK && stat(s->out, &st) == 0 && (!s->force || S_ISDIR(st.st_mode)))
        status = err_set(err, GLM_EINVAL, 0, s->out, "this exists already: %s",
            S_ISDIR(st.st_mode) ? "remove it or choose another name"
                                : "choose another name, or --force");
    return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int32_t make(struct synth *s, struct mem *m, glm_error *err)
{
    struct synth_plan plan;
    struct synth_out o = {.s = s, .started = os_now_ns(), .tty = !s->quiet && isatty(2)};
    int32_t status = synth_plan_make(s, m, &plan, err);
    for (size_t i = 0; i < plan.n; i++)
        o.total += plan.tensors[i].bytes;
    status = status ? status : synth_room(s->out, o.total + (64u << 20), err);
    if (status == GLM_OK)
        status =
            s->gguf ? synth_write_gguf(s, m, &plan, &o, err) : synth_write_hf(s, m, &plan, &o, err);
    if (status == GLM_OK || o.drawn != 0)
        synth_progress(&o, true);
    if (status == GLM_OK && !s->quiet)
        printf("%s: %zu tensors, %.3f GB in %.1f s\n", s->out, plan.n, (double)o.total * 1e-9,
            (double)(os_now_ns() - o.started) * 1e-9);
    free(o.chunk);
    synth_plan_free(&plan);
    return status;
}

int synth_main(int argc, char **argv)
{
    struct mem m;
    struct synth s = {0};
    struct args a = {0};
    glm_error err = GLM_ERROR_INIT;
    mem_init(&m, NULL);
    if (argc < 2) {
        fputs(help, stderr);
        return 2;
    }
    int32_t status = read_args(&s, &a, argc, argv, &err);
    if (status == GLM_OK && a.help) {
        fputs(help, stdout);
        return 0;
    }
    status = status ? status : decide(&s, &a, &m, &err);
    int usage = status != GLM_OK;
    status = status ? status : make(&s, &m, &err);
    if (status != GLM_OK)
        fprintf(stderr, "glm45 synth: %s%s%s\n", err.where, err.where[0] ? ": " : "", err.message);
    return status == GLM_OK ? 0 : usage ? 2 : 1;
}
