/* test_synth.c: `glm45 synth`: every type it offers opens, binds all weights, decodes to the spread
 * that was meant and is of the types that llama.cpp's quantizer would have chosen; the same seed
 * gives the same bytes; what is wrong is told.
 */
#include "ckpt_walk.h"

#include "kernels/kernels.h"
#include "lib/text/text.h"
#include "tools/tools.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static struct mem mem;
static struct fs fs;
static glm_error err;

static void setup(void)
{
    snprintf(dir, sizeof dir, "/tmp/glm45-synth-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    mem_init(&mem, NULL);
    fs_init(&fs, NULL);
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_uint_eq(mem.used, 0);
}

static const char *in_dir(const char *name)
{
    static char path[8][128];
    static unsigned next;
    char *p = path[next++ % 8];
    snprintf(p, 128, "%s/%s", dir, name);
    return p;
}

/* Runs the command with "synth --quiet -o OUT" and words behind it. */
static int synth(const char *out, const char *words)
{
    static char text[256];
    static char name[] = "synth", quiet[] = "--quiet", o[] = "-o";
    char *argv[40] = {name, quiet, o}, *save = NULL;
    int n = 3;
    argv[n++] = (char *)(uintptr_t)in_dir(out);
    snprintf(text, sizeof text, "%s", words);
    for (char *w = strtok_r(text, " ", &save); w != NULL && n < 39; w = strtok_r(NULL, " ", &save))
        argv[n++] = w;
    return synth_main(n, argv);
}

static struct ckpt *opened(const char *name)
{
    struct ckpt *c = NULL;
    const struct ckpt_options opt = {.fs = &fs};
    err = (glm_error)GLM_ERROR_INIT;
    int32_t status = ckpt_open(&mem, in_dir(name), &opt, &c, &err);
    ck_assert_msg(status == GLM_OK, "%s: %s", err.where, err.message);
    return c;
}

/* ---- spreads --------------------------------------------------------------------------------- */

static float wanted_std(enum role role, uint32_t n_in)
{
    switch (role) {
    case ROLE_EMBED:
    case ROLE_MTP_EMBED: return 1;
    case ROLE_HEAD:
    case ROLE_MTP_HEAD: return 3 / sqrtf((float)n_in);
    case ROLE_ROUTER: return 1.5f / sqrtf((float)n_in);
    case ROLE_ROUTER_BIAS: return 0.15f;
    case ROLE_Q_BIAS:
    case ROLE_K_BIAS:
    case ROLE_V_BIAS: return 0.3f;
    default: return 1 / sqrtf((float)n_in);
    }
}

static void check_spread(void *user, enum role role, const struct weight *w)
{
    struct kernels k;
    bool finite = true; /* an assertion an element would take hours */
    double sum = 0, square = 0, n = (double)w->n_out * w->n_in;
    float *row = malloc(w->n_in * sizeof *row);
    unsigned *count = user;
    kernels_ref(&k);
    for (uint32_t o = 0; o < w->n_out; o++) {
        k.decode_row(w, o, row);
        for (uint32_t i = 0; i < w->n_in; i++) {
            finite = finite && isfinite(row[i]);
            sum += (double)row[i];
            square += (double)row[i] * (double)row[i];
        }
    }
    free(row);
    ++*count;
    ck_assert_msg(finite, "role %u: not finite", role);
    if (n < 1000) /* too few for statistics */
        return;
    double mean = sum / n, std = sqrt(square / n - mean * mean),
           wanted = (double)wanted_std(role, w->n_in);
    ck_assert_msg(
        std > 0.8 * wanted && std < 1.25 * wanted, "role %u: std %g, not %g", role, std, wanted);
    ck_assert_msg(fabs(mean) < 0.05 * wanted, "role %u: mean %g of std %g", role, mean, wanted);
}

static void check_weights(const char *name)
{
    unsigned count = 0;
    struct ckpt *c = opened(name);
    const struct walk k = {.c = c, .err = &err, .each = check_spread, .user = &count};
    int32_t status = walk_weights(&k);
    ck_assert_msg(status == GLM_OK, "%s: %s", err.where, err.message);
    ck_assert_uint_gt(count, 40);
    ckpt_close(c);
}

static const char *const gguf_types[] = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0",
    "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",
    "IQ4_NL", "IQ4_XS", "MXFP4_MOE", "pure-Q2_K", "pure-Q3_K", "pure-Q4_0", "pure-Q4_K",
    "pure-Q5_K", "pure-MXFP4"};

START_TEST(every_gguf_type)
{
    char words[128];
    snprintf(words, sizeof words, "--shape tiny --mtp on --mtp-own-head on --qk-norm on --type %s",
        gguf_types[_i]);
    ck_assert_int_eq(synth("m.gguf", words), 0);
    check_weights("m.gguf");
}
END_TEST

static const char *const hf_types[] = {"bf16", "f16", "f32", "fp8", "fp8-block", "int4"};

START_TEST(every_hf_type)
{
    char words[128];
    snprintf(words, sizeof words, "--shape tiny --mtp on --qk-norm on --split 3 --type %s",
        hf_types[_i]);
    ck_assert_int_eq(synth("m", words), 0);
    check_weights("m");
    struct ckpt *c = opened("m");
    ck_assert(ckpt_hparams(c)->n_nextn == 1 && ckpt_hparams(c)->qk_norm &&
              ckpt_hparams(c)->norm_eps == 1e-5f);
    ckpt_close(c);
}
END_TEST

/* ---- types ----------------------------------------------------------------------------------- */

/* llama.cpp's quantizer made the golden files of this shape. */
static const char *const golden[] = {"BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K",
    "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4_MOE"};

START_TEST(types_as_llama_cpp_chooses_them)
{
    char path[512], words[64], *text;
    struct json_doc doc;
    size_t size;
    const char *data = getenv("GLM_TEST_DATA");
    snprintf(words, sizeof words, "--shape tiny --type %s", golden[_i]);
    ck_assert_int_eq(synth("m.gguf", words), 0);
    snprintf(path, sizeof path, "%s/golden/air256-gguf-%s/expect.json", data ? data : "tests/data",
        golden[_i]);
    ck_assert_int_eq(fs_load(&mem, &fs, path, 1 << 20, &text, &size, &err), GLM_OK);
    ck_assert_int_eq(json_parse(&mem, text, size, 0, path, &doc, &err), GLM_OK);
    const struct json *types = json_get(doc.root, "tensor_types");
    struct ckpt *c = opened("m.gguf");
    ck_assert_uint_eq(ckpt_n_tensor(c), types->count);
    for (size_t i = 0; i < ckpt_n_tensor(c); i++) {
        struct tensor_entry t;
        ckpt_tensor(c, i, &t);
        ck_assert_ptr_nonnull(json_get(types, t.name));
        ck_assert_msg(json_is_text(json_get(types, t.name), t.type), "%s is %s", t.name, t.type);
    }
    ckpt_close(c);
    json_free(&doc);
    mem_free(&mem, text);
}
END_TEST

/* Rows of 1,408 as in Air: no multiple of 256, so experts' down projections take smaller blocks. */
START_TEST(air_rows_fall_back)
{
    struct ckpt *c;
    struct tensor_entry t;
    ck_assert_int_eq(
        synth("m.gguf",
            "--shape air --layers 3 --experts 2 --hidden 256 --heads 2 --kv-heads 1 --ff 10944 "
            "--vocab 300 --mtp off --type Q4_K_M"),
        0);
    c = opened("m.gguf");
    unsigned seen = 0;
    for (size_t i = 0; i < ckpt_n_tensor(c); i++) {
        ckpt_tensor(c, i, &t);
        if (strstr(t.name, "ffn_down") != NULL) /* of 3 layers the last has more bits */
            seen += strcmp(t.type, strstr(t.name, "blk.2.") ? "Q8_0" : "Q5_0") == 0;
        if (strstr(t.name, "_exps") != NULL && strstr(t.name, "down") == NULL)
            seen += strcmp(t.type, "Q4_K") == 0;
        if (strcmp(t.name, "output.weight") == 0)
            seen += strcmp(t.type, "Q6_K") == 0;
    }
    ck_assert_uint_eq(seen, 5 + 4 + 1);
    ckpt_close(c);
}
END_TEST

/* ---- the same bytes -------------------------------------------------------------------------- */

struct digest {
    struct sha256 h;
};

static void add_bytes(void *user, enum role role, const struct weight *w)
{
    struct digest *d = user;
    (void)role;
    sha256_put(&d->h, w->data, w->n_out * w->row_bytes);
}

static void digest(const char *name, uint8_t out[32])
{
    struct digest d;
    struct ckpt *c = opened(name);
    const struct walk k = {.c = c, .err = &err, .each = add_bytes, .user = &d};
    sha256_init(&d.h);
    ck_assert_int_eq(walk_weights(&k), GLM_OK);
    sha256_end(&d.h, out);
    ckpt_close(c);
}

START_TEST(seeds_and_splits)
{
    uint8_t a[32], b[32];
    ck_assert_int_eq(synth("a.gguf", "--shape tiny --type Q5_K_M --seed 7"), 0);
    ck_assert_int_eq(synth("b.gguf", "--shape tiny --type Q5_K_M --seed 7 --split 4"), 0);
    ck_assert_int_eq(synth("c.gguf", "--shape tiny --type Q5_K_M --seed 8"), 0);
    ck_assert_int_ne(access(in_dir("b.gguf"), F_OK), 0);
    digest("a.gguf", a);
    digest("b-00001-of-00004.gguf", b);
    ck_assert_int_eq(memcmp(a, b, 32), 0);
    digest("c.gguf", b);
    ck_assert_int_ne(memcmp(a, b, 32), 0);
}
END_TEST

/* How often each of 64 experts has a place among the best 4, over rows of random logits. */
static void count_chosen(const float *bias, uint32_t n_token, uint32_t count[64])
{
    uint64_t state = 1;
    memset(count, 0, 64 * sizeof *count);
    for (uint32_t t = 0; t < n_token; t++) {
        double score[64];
        for (uint32_t e = 0; e < 64; e++) {
            double normal = -6; /* a sum of 12 uniform numbers */
            for (uint32_t i = 0; i < 12; i++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                normal += (double)(state >> 11) * 0x1p-53;
            }
            score[e] = 1 / (1 + exp(-1.5 * normal)) + (double)bias[e];
        }
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t best = 0;
            for (uint32_t e = 1; e < 64; e++)
                best = score[e] > score[best] ? e : best;
            score[best] = -1;
            count[best]++;
        }
    }
}

static int more_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Shares go down as rank^-S: with 1, the first quarter of the experts has two thirds of the work; with none, less. */
START_TEST(skewed_routing)
{
    static const struct {
        const char *words;
        double low, high;
    } cases[] = {{"--skew 1", 0.6, 0.75}, {"--skew 0.5", 0.4, 0.55}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ckpt_options o = {.fs = &fs};
        struct ckpt *c;
        struct weight w;
        uint32_t count[64];
        double first = 0;
        char words[128], name[16];
        snprintf(name, sizeof name, "%zu.gguf", i);
        snprintf(words, sizeof words, "--shape tiny --experts 64 --experts-used 4 %s", cases[i].words);
        ck_assert_int_eq(synth(name, words), 0);
        ck_assert_int_eq(ckpt_open(&mem, in_dir(name), &o, &c, &err), GLM_OK);
        ck_assert_int_eq(ckpt_weight(c, ROLE_ROUTER_BIAS, ckpt_hparams(c)->n_layer_dense, 0, 1, 64, false, &w, &err), GLM_OK);
        ck_assert_uint_eq(w.format, W_F32);
        float bias[64];
        memcpy(bias, w.data, sizeof bias);
        count_chosen(bias, 4000, count);
        ckpt_close(c);
        qsort(count, 64, sizeof *count, more_first);
        for (uint32_t e = 0; e < 16; e++)
            first += count[e] / 16000.0;
        ck_assert_msg(first > cases[i].low && first < cases[i].high, "%s: %f", cases[i].words, first);
    }
}
END_TEST

START_TEST(shapes_from_files)
{
    ck_assert_int_eq(synth("a.gguf", "--shape nano --mtp on --type Q8_0"), 0);
    char words[256];
    snprintf(words, sizeof words, "--shape %s --type bf16", in_dir("a.gguf"));
    ck_assert_int_eq(synth("b", words), 0);
    snprintf(words, sizeof words, "--shape %s --type F16", in_dir("b/config.json"));
    ck_assert_int_eq(synth("c.gguf", words), 0);
    struct ckpt *a = opened("a.gguf"), *c = opened("c.gguf");
    struct hparams ha = *ckpt_hparams(a), hc = *ckpt_hparams(c);
    ck_assert(ha.n_layer == hc.n_layer && ha.d_model == hc.d_model && ha.n_rot == hc.n_rot &&
              ha.d_ff == hc.d_ff);
    ck_assert(
        ha.n_expert == hc.n_expert && ha.n_vocab == hc.n_vocab && ha.rope_theta == hc.rope_theta);
    ck_assert(
        ha.norm_eps == hc.norm_eps && ha.qk_norm == hc.qk_norm && ha.n_ctx_train == hc.n_ctx_train);
    ckpt_close(a);
    ckpt_close(c);
}
END_TEST

START_TEST(tokenizer_is_put_in)
{
    static const char json[] =
        "{\"added_tokens\": [{\"id\": 5, \"content\": \"<|endoftext|>\", \"special\": true}, "
        "{\"id\": 6, \"content\": \"<think>\", \"special\": false}], \"model\": {\"type\": "
        "\"BPE\", \"vocab\": {\"a\": 0, "
        "\"b\": 1, \"ab\": 2, \"\\u0120\": 3}, \"merges\": [[\"a\", \"b\"]]}}";
    FILE *f = fopen(in_dir("tokenizer.json"), "w");
    fputs(json, f);
    fclose(f);
    char words[256];
    snprintf(words, sizeof words, "--shape tiny --vocab 300 --tokenizer %s --chat-template %s",
        in_dir("tokenizer.json"), in_dir("tokenizer.json"));
    ck_assert_int_eq(synth("m.gguf", words), 0);
    struct ckpt *c = opened("m.gguf");
    struct vocab_source v = ckpt_vocab(c);
    size_t size;
    ck_assert(v.n_token == 300 && v.n_merge == 1);
    ck_assert(v.merges[0].size == 3 && memcmp(v.merges[0].text, "a b", 3) == 0);
    ck_assert(v.tokens[2].size == 2 && memcmp(v.tokens[2].text, "ab", 2) == 0 && v.types[2] == 1);
    ck_assert(v.tokens[3].size == 2 && v.types[5] == 3 && v.types[6] == 4 && v.types[4] == 5 &&
              v.types[299] == 5);
    ck_assert(ckpt_generation(c)->n_eos == 1 && ckpt_generation(c)->eos[0] == 5);
    ck_assert_str_eq(ckpt_template(c, &size), json);
    ckpt_close(c);
    ck_assert_int_eq(synth("h", words), 0);
    c = opened("h");
    ck_assert(ckpt_vocab(c).kind == VOCAB_JSON && ckpt_vocab(c).json_size == sizeof json - 1);
    ck_assert(ckpt_generation(c)->n_eos == 1 && ckpt_generation(c)->eos[0] == 5);
    ckpt_close(c);
    snprintf(
        words, sizeof words, "--shape tiny --vocab 5 --tokenizer %s", in_dir("tokenizer.json"));
    ck_assert_int_ne(synth("n.gguf", words), 0); /* an id beyond it */
}
END_TEST

/* As many tokens as the family has, without a tokenizer to take them from. */
START_TEST(a_toy_vocabulary_opens)
{
    struct tok *tok = NULL;
    ck_assert_int_eq(synth("m.gguf", "--shape tiny --vocab 151552"), 0);
    struct ckpt *c = opened("m.gguf");
    struct vocab_source v = ckpt_vocab(c);
    ck_assert_msg(tok_open(&mem, &v, 151552, &tok, &err) == GLM_OK, "%s", err.message);
    ck_assert_uint_eq(tok_n(tok), 256); /* the bytes; the rest is unused */
    tok_close(tok);
    ckpt_close(c);
}
END_TEST

/* ---- wrong use ------------------------------------------------------------------------------- */

static const struct {
    const char *words;
    int status;
} wrong[] = {{"--shape nothing", 2}, {"--type Q9", 2}, {"--type bf17 --format hf", 2},
    {"--layers x", 2}, {"--layers", 2}, {"--what", 2}, {"--mtp maybe", 2},
    {"--experts-used 200", 2}, {"--kv-heads 7", 2}, {"--split 0", 2},
    {"--shape tiny --vocab 20", 2}, {"--format zip", 2}, {"--seed -1", 2}, {"--skew x", 2}, {"--skew 9", 2},
    {"--shape tiny --tokenizer /nonexistent/t.json", 1}, {"--shape tiny -o /nonexistent/m.gguf", 1},
    {"--shape glm45 --hidden 1000000 --head-dim 2 --rot-dim 2 --heads 8 --vocab 16000000 --layers "
     "1000",
        1}};

START_TEST(wrong_use)
{
    int saved = dup(2), quiet = open(in_dir("stderr"), O_RDWR | O_CREAT, 0600);
    dup2(quiet, 2);
    int status = synth("m.gguf", wrong[_i].words);
    dup2(saved, 2);
    char text[1024] = "";
    ssize_t n = pread(quiet, text, sizeof text - 1, 0);
    ck_assert_int_eq(status, wrong[_i].status);
    ck_assert_msg(
        n > 20 && strncmp(text, "glm45 synth: ", 13) == 0 && strchr(text, '\n') == text + n - 1,
        "%s", text);
    ck_assert_int_ne(access(in_dir("m.gguf"), F_OK), 0); /* nothing is left */
    close(saved);
    close(quiet);
}
END_TEST

START_TEST(nothing_is_overwritten)
{
    ck_assert_int_eq(synth("m.gguf", "--shape tiny"), 0);
    ck_assert_int_eq(synth("m.gguf", "--shape tiny"), 2);
    ck_assert_int_eq(synth("m.gguf", "--shape tiny --force"), 0);
    ck_assert_int_eq(synth("m", "--shape tiny"), 0);
    ck_assert_int_eq(synth("m", "--shape tiny --force"), 2);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("synth");
    TCase *t = tcase_create("synth");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, every_gguf_type, 0, ARRAY_LEN(gguf_types));
    tcase_add_loop_test(t, every_hf_type, 0, ARRAY_LEN(hf_types));
    tcase_add_loop_test(t, types_as_llama_cpp_chooses_them, 0, ARRAY_LEN(golden));
    tcase_add_test(t, air_rows_fall_back);
    tcase_add_test(t, seeds_and_splits);
    tcase_add_test(t, skewed_routing);
    tcase_add_test(t, shapes_from_files);
    tcase_add_test(t, tokenizer_is_put_in);
    tcase_add_test(t, a_toy_vocabulary_opens);
    tcase_add_loop_test(t, wrong_use, 0, ARRAY_LEN(wrong));
    tcase_add_test(t, nothing_is_overwritten);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *r = srunner_create(suite());
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
