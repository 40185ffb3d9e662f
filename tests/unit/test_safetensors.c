/* test_safetensors.c: the container's header under every kind of damage: truncation at each byte,
 * boundary values in each number, overlaps, holes, doubled names, depth bombs. What is refused must
 * say where, and cost little memory.
 */
#include "io_files.h"

static const char config[] =
    "{\"model_type\":\"glm4_moe\",\"hidden_size\":4,\"num_hidden_layers\":1,\"first_k_dense_"
    "replace\":0,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":4,\"intermediate_size\":4,"
    "\"moe_intermediate_size\":4,\"n_routed_experts\":2,\"num_experts_per_tok\":1,\"n_shared_"
    "experts\":1,"
    "\"vocab_size\":8,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"routed_scaling_"
    "factor\":1.0,"
    "\"rope_theta\":10000}";

#define NORM "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]}"

static struct mf files;
static struct mem mem;

static void setup(void)
{
    mf_init(&files);
    mem_init(&mem, NULL);
    mf_text(&files, "m/config.json", config);
}

static void teardown(void)
{
    mf_free(&files);
    ck_assert_uint_eq(mem.used, 0);
}

/* The status of a file with this header and n_data zero bytes. */
static int32_t open_header(const char *header, size_t n_header, size_t n_data, glm_error *err)
{
    uint8_t *data = calloc(1, n_data + 1);
    struct ckpt *c;
    put_container(&files, "m/model.safetensors", header, n_header, data, n_data);
    free(data);
    int32_t rc = open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, err);
    if (rc == GLM_OK)
        ckpt_close(c);
    return rc;
}

static int32_t open_text(const char *header, size_t n_data, glm_error *err)
{
    return open_header(header, strlen(header), n_data, err);
}

START_TEST(reads_what_is_written)
{
    static struct st_maker s;
    struct ckpt *c;
    glm_error err;
    maker_begin(&s);
    maker_add(&s, "model.norm.weight", "BF16", "[4]", NULL, 8);
    maker_add(&s, "b", "F32", "[2,3]", NULL, 24);
    maker_add(&s, "empty", "I64", "[0,5]", NULL, 0);
    maker_add(&s, "scalar", "F16", "[]", NULL, 2);
    maker_end(&s, &files, "m/model.safetensors");
    ck_assert_int_eq(open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    ck_assert_uint_eq(ckpt_n_tensor(c), 4);
    ck_assert_str_eq(ckpt_kind(c), "hf");
    struct tensor_entry e;
    ckpt_tensor(c, 1, &e);
    ck_assert_str_eq(e.name, "b");
    ck_assert_str_eq(e.type, "F32");
    ck_assert_str_eq(e.file, "m/model.safetensors");
    ck_assert_uint_eq(e.n_dim, 2);
    ck_assert_uint_eq(e.dim[0], 2);
    ck_assert_uint_eq(e.dim[1], 3);
    ck_assert_uint_eq(e.offset, 8 + s.n_header + 8);
    ck_assert_uint_eq(e.bytes, 24);
    ck_assert_uint_eq(ckpt_weight_bytes(c), 34);
    ckpt_close(c);
}
END_TEST

/* Tensors need not be listed in the order of their bytes; spaces may follow the header. */
START_TEST(order_and_padding_are_free)
{
    glm_error err;
    ck_assert_int_eq(
        open_text("{\"c\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[9,12]}," NORM
                  ",\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"shape\":[1],\"data_offsets\":[8,"
                  "9],\"dtype\":\"I8\"}}     ",
            12, &err),
        GLM_OK);
}
END_TEST

START_TEST(refuses_bad_headers)
{
    static const struct {
        const char *header;
        size_t n_data;
        const char *says;
    } bad[] = {
        {"", 8, "bytes"},
        {" {" NORM "}", 8, "begin"},
        {"\xef\xbb\xbf{" NORM "}", 8, "begin"},
        {"[1]", 8, "begin"},
        {"{" NORM, 8, ""},
        {"{" NORM "}}", 8, ""},
        {"{" NORM "}x", 8, ""},
        {"{" NORM ",}", 8, ""},
        {"{" NORM "," NORM "}", 16, ""},
        {"{" NORM "," NORM "}", 8, ""},
        {"{" NORM ",\"model.norm\\u002eweight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_"
         "offsets\":[8,16]}}",
            16, "twice"},
        {"{" NORM "}", 9, "rest"},
        {"{" NORM "}", 7, "cut short"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[9,11]}}", 11, "hole"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[7,9]}}", 10, "overlap"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[10,8]}}", 10, "begin"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,10]}}", 10,
            "needs 3"},
        {"{" NORM ",\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[8,10]}}", 10, "needs"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8]}}", 10, "begin"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10,10]}}", 10,
            "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8.0,10]}}", 10,
            "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,1e1]}}", 10,
            "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[-8,10]}}", 10,
            "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,1e999]}}", 10,
            "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,\"10\"]}}", 10,
            "offsets"},
        {"{" NORM
         ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,18446744073709551617]}}",
            10, "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":8}}", 10, "offsets"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[-2],\"data_offsets\":[8,10]}}", 10, "shape"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2.0],\"data_offsets\":[8,10]}}", 10,
            "shape"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[null],\"data_offsets\":[8,10]}}", 10,
            "shape"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[[2]],\"data_offsets\":[8,10]}}", 10,
            "shape"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":2,\"data_offsets\":[8,10]}}", 10, "shape"},
        {"{" NORM
         ",\"a\":{\"dtype\":\"U8\",\"shape\":[2,1,1,1,1,1,1,1,1],\"data_offsets\":[8,10]}}",
            10, "shape"},
        {"{" NORM
         ",\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,2],\"data_offsets\":[8,10]}}",
            10, "overflow"},
        {"{" NORM ",\"a\":{\"dtype\":8,\"shape\":[2],\"data_offsets\":[8,10]}}", 10, "dtype"},
        {"{" NORM ",\"a\":{\"dtype\":null,\"shape\":[2],\"data_offsets\":[8,10]}}", 10, "dtype"},
        {"{" NORM ",\"a\":{\"shape\":[2],\"data_offsets\":[8,10]}}", 10, "lacks"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"data_offsets\":[8,10]}}", 10, "lacks"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2]}}", 10, "lacks"},
        {"{" NORM
         ",\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10]}}",
            10, "twice"},
        {"{" NORM ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10],\"x\":1}}", 10,
            "besides"},
        {"{" NORM ",\"a\":[]}", 8, "object"},
        {"{" NORM ",\"a\":null}", 8, "object"},
        {"{" NORM ",\"\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10]}}", 10, "name"},
        {"{" NORM ",\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10]}}", 10,
            "name"},
        {"{" NORM ",\"\xff\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10]}}", 10, ""},
        {"{" NORM ",\"__metadata__\":{\"a\":1}}", 8, "string"},
        {"{" NORM ",\"__metadata__\":{\"a\":{}}}", 8, "string"},
        {"{" NORM ",\"__metadata__\":[]}", 8, "object"},
        {"{\"__metadata__\":{}," NORM ",\"__metadata__\":{}}", 8, "twice"},
        {"{}", 0, "model.norm.weight"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        glm_error err;
        int32_t rc = open_text(bad[i].header, bad[i].n_data, &err);
        ck_assert_msg(
            rc == GLM_EFORMAT || rc == GLM_EUTF8, "%s: %d %s", bad[i].header, rc, err.message);
        ck_assert_msg(
            strstr(err.message, bad[i].says) != NULL, "%s: %s", bad[i].header, err.message);
        ck_assert_msg(strstr(err.where, "model.safetensors") != NULL, "%s", err.where);
    }
}
END_TEST

START_TEST(refuses_long_names_and_depth)
{
    static char header[2200000];
    glm_error err;
    size_t n = (size_t)snprintf(header, sizeof(header), "{" NORM ",\"");
    memset(header + n, 'x', 600);
    n += 600;
    n += (size_t)snprintf(header + n, sizeof(header) - n,
        "\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10]}}");
    ck_assert_int_eq(open_header(header, n, 10, &err), GLM_EFORMAT);
    for (int object = 0; object < 2; object++) {
        n = (size_t)snprintf(header, sizeof(header), "{\"__metadata__\":");
        for (int i = 0; i < 400000; i++)
            n += (size_t)snprintf(header + n, sizeof(header) - n, object ? "{\"a\":" : "[");
        ck_assert_int_lt(open_header(header, n, 0, &err), 0);
        n = (size_t)snprintf(header, sizeof(header), "{");
        for (int i = 0; i < 400000; i++)
            n += (size_t)snprintf(header + n, sizeof(header) - n, object ? "\"a\":{" : "[");
        ck_assert_int_lt(open_header(header, n, 0, &err), 0);
    }
}
END_TEST

/* Each number of the header over the values where arithmetic breaks; the file is good for exactly
 * the right one. */
START_TEST(sweeps_every_number)
{
    static const char *const templates[] = {
        "{\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[%s,8]}}",
        "{\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,%s]}}",
        "{\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[0,8]}}",
        "{\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[4,%s],\"data_offsets\":[0,8]}}",
        "{\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[%s,4,1],\"data_offsets\":[0,8]}}",
    };
    static const char *const good[] = {"0", "8", "4", "1", "1"};
    static const char *const values[] = {"0", "1", "4", "7", "8", "9", "2147483647", "2147483648",
        "4294967295", "4294967296", "4611686018427387905", "9223372036854775807",
        "9223372036854775808", "9223372036854775812", "18446744073709551614",
        "18446744073709551615", "18446744073709551616", "340282366920938463463374607431768211456"};
    for (size_t t = 0; t < ARRAY_LEN(templates); t++)
        for (size_t v = 0; v < ARRAY_LEN(values); v++) {
            char header[256];
            glm_error err;
            snprintf(header, sizeof(header), templates[t], values[v]);
            int32_t rc = open_text(header, 8, &err);
            ck_assert_msg((rc == GLM_OK) == (strcmp(values[v], good[t]) == 0), "%s: %d %s", header,
                rc, err.message);
        }
}
END_TEST

START_TEST(sweeps_the_header_length)
{
    const char *header = "{" NORM "}";
    size_t n = strlen(header);
    const uint64_t values[] = {0, 1, 2, n - 1, n, n + 1, n + 7, n + 8, n + 9, 0x7fffffff,
        0x80000000u, 0xffffffffu, 100000000, 100000001, 1ull << 63, (1ull << 63) - 1, UINT64_MAX,
        UINT64_MAX - 7, UINT64_MAX - 8, UINT64_MAX - n};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        glm_error err;
        struct ckpt *c;
        put_container(&files, "m/model.safetensors", header, n, "\0\0\0\0\0\0\0", 8);
        struct mf_entry *e = mf_find(&files, "m/model.safetensors");
        for (unsigned b = 0; b < 8; b++)
            e->bytes[b] = (uint8_t)(values[i] >> 8 * b);
        int32_t rc = open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err);
        ck_assert_int_eq(rc, values[i] == n ? GLM_OK : GLM_EFORMAT);
        ckpt_close(c);
    }
}
END_TEST

/* A real file cut at every byte of its header and at 500 places of its data. */
START_TEST(truncation)
{
    struct mf_entry *e;
    struct ckpt *c;
    glm_error err;
    mf_load(&files, "golden/air-fused/config.json", "m/config.json");
    mf_load(&files, "golden/air-fused/model.safetensors", "m/model.safetensors");
    e = mf_find(&files, "m/model.safetensors");
    size_t whole = e->size, data = 7248 + 8;
    uint8_t *bytes = e->bytes;
    for (size_t size = 0; size < whole; size += size <= data ? 1 : (whole - data) / 500) {
        uint8_t *cut = malloc(size > 0 ? size : 1);
        memcpy(cut, bytes, size);
        e->bytes = cut;
        e->size = size;
        int32_t rc = open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err);
        ck_assert_msg(rc == GLM_EFORMAT, "%zu: %d", size, rc);
        free(cut);
    }
    e->bytes = bytes;
    e->size = whole;
    ck_assert_int_eq(open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    ckpt_close(c);
}
END_TEST

/* Every byte of the header changed in three ways: an answer, never a fault. */
START_TEST(byte_damage)
{
    glm_error err;
    struct ckpt *c;
    mf_load(&files, "golden/air-fused/config.json", "m/config.json");
    mf_load(&files, "golden/air-fused/model.safetensors", "m/model.safetensors");
    struct mf_entry *e = mf_find(&files, "m/model.safetensors");
    for (size_t i = 0; i < 7256; i += i < 64 ? 1 : 3) {
        const uint8_t was = e->bytes[i], change[] = {0x00, 0x80, 0x01, 0x22};
        for (size_t k = 0; k < sizeof(change); k++) {
            e->bytes[i] = k == 0 ? 0 : was ^ change[k];
            if (open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err) == GLM_OK)
                ckpt_close(c);
        }
        e->bytes[i] = was;
    }
}
END_TEST

START_TEST(unknown_types_fail_at_use)
{
    static struct st_maker s;
    struct ckpt *c;
    struct weight w;
    glm_error err;
    maker_begin(&s);
    maker_add(&s, "model.norm.weight", "BF16", "[4]", NULL, 8);
    maker_add(&s, "model.visual.x", "Q9_Z", "[4]", NULL, 5);
    maker_add(&s, "lm_head.weight", "Q9_Z", "[8,4]", NULL, 7);
    maker_add(&s, "model.embed_tokens.weight", "I32", "[8,4]", NULL, 128);
    maker_end(&s, &files, "m/model.safetensors");
    ck_assert_int_eq(open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    ck_assert_int_eq(ckpt_weight(c, ROLE_HEAD, 0, 0, 8, 4, false, &w, &err), GLM_ENOTSUP);
    ck_assert_str_eq(err.where, "lm_head.weight");
    ck_assert_int_eq(ckpt_weight(c, ROLE_EMBED, 0, 0, 8, 4, false, &w, &err), GLM_ENOTSUP);
    ck_assert_ptr_nonnull(strstr(err.message, "I32"));
    ck_assert_int_eq(ckpt_weight(c, ROLE_NORM, 0, 0, 1, 4, false, &w, &err), GLM_OK);
    ck_assert_uint_eq(w.format, W_BF16);
    ckpt_close(c);
}
END_TEST

/* 100,000 tensors that overlap, and a million: refused without large tables. */
START_TEST(refusal_costs_little)
{
    for (int million = 0; million < 2; million++) {
        size_t n = million ? 700000 : 100000, size = n * 64 + 64, at = 0;
        char *header = malloc(size);
        glm_error err;
        at += (size_t)snprintf(header + at, size - at, "{");
        for (size_t i = 0; i < n; i++)
            at += (size_t)snprintf(header + at, size - at,
                "%s\"%zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                i > 0 ? "," : "", i, 0, 1);
        header[at++] = '}';
        mem_init(&mem, NULL);
        uint64_t start = os_now_ns();
        ck_assert_int_eq(open_header(header, at, 100000, &err), GLM_EFORMAT);
        ck_assert_uint_lt(mem.peak, (16u << 20) + 2 * at);
        ck_assert_uint_lt(os_now_ns() - start, 20000000000u);
        free(header);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tc = tcase_create("container");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, reads_what_is_written);
    tcase_add_test(tc, order_and_padding_are_free);
    tcase_add_test(tc, refuses_bad_headers);
    tcase_add_test(tc, refuses_long_names_and_depth);
    tcase_add_test(tc, sweeps_every_number);
    tcase_add_test(tc, sweeps_the_header_length);
    tcase_add_test(tc, truncation);
    tcase_add_test(tc, byte_damage);
    tcase_add_test(tc, unknown_types_fail_at_use);
    tcase_add_test(tc, refusal_costs_little);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
