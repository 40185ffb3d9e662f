/* fuzz_json.c: the JSON reader and tree. What parses is written to a text that parses to as many values of the same types
 * and is a fixed point (numbers are rounded to a double at the first writing); reader and tree agree on what is JSON; a
 * number is the one that the C library reads. */
#include "fuzz.h"

#include "lib/base/base.h"

static bool reader_takes(struct mem *m, const char *text, size_t size, size_t *n_value)
{
    struct json_reader r;
    enum json_event ev;
    glm_error err = GLM_ERROR_INIT;

    *n_value = 0;
    json_reader_init(&r, m, text, size, "input");
    do {
        ev = json_reader_next(&r, &err);
        *n_value += ev == JSON_EV_VALUE || ev == JSON_EV_KEY || ev == JSON_EV_OPEN;
    } while (ev != JSON_EV_END && ev != JSON_EV_ERROR);
    if (ev == JSON_EV_ERROR)
        fuzz_check_error(err.code, &err);
    json_reader_free(&r);
    return ev == JSON_EV_END;
}

static void look_at(const struct json_doc *doc)
{
    for (size_t i = 0; i < doc->n_value; i++) {
        const struct json *v = doc->root + i;
        uint64_t u;
        int64_t s;
        double d;
        size_t bad;
        if (v->type == JSON_STRING)
            FUZZ_CHECK(utf8_is_valid(v->text, v->size, &bad) && v->text[v->size] == 0);
        if (json_u64(v, &u) && json_i64(v, &s))
            FUZZ_CHECK(u == (uint64_t)s);
        if (v->type == JSON_NUMBER) {
            bool finite = json_f64(v, &d);
            FUZZ_CHECK(strtod(v->text, NULL) == d && finite == (d - d == 0));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem m;
    struct json_doc doc = {0}, again = {0}, unique = {0};
    struct buf one, two;
    glm_error err = GLM_ERROR_INIT;
    size_t n;
    int32_t rc;

    mem_init(&m, NULL);
    buf_init(&one, &m);
    buf_init(&two, &m);
    rc = json_parse(&m, (const char *)data, size, 0, "input", &doc, &err);
    FUZZ_CHECK(reader_takes(&m, (const char *)data, size, &n) == (rc == GLM_OK));
    if (rc == GLM_OK) {
        FUZZ_CHECK(n == doc.n_value);
        look_at(&doc);
        json_put_value(&one, doc.root);
        FUZZ_CHECK(!one.failed);
        FUZZ_CHECK(json_parse(&m, one.data, one.size, 0, "output", &again, &err) == GLM_OK);
        FUZZ_CHECK(again.n_value == doc.n_value);
        for (size_t i = 0; i < doc.n_value; i++)
            FUZZ_CHECK(again.root[i].type == doc.root[i].type && again.root[i].count == doc.root[i].count);
        FUZZ_CHECK(json_equal(doc.root, doc.root));
        json_put_value(&two, again.root);
        FUZZ_CHECK(one.size == two.size && memcmp(one.data, two.data, one.size) == 0);
        if (json_parse(&m, (const char *)data, size, JSON_REFUSE_DUPLICATES, "input", &unique, &err))
            fuzz_check_error(err.code, &err);
    } else {
        fuzz_check_error(rc, &err);
        FUZZ_CHECK(err.offset <= size);
    }
    json_free(&doc);
    json_free(&again);
    json_free(&unique);
    buf_free(&one);
    buf_free(&two);
    FUZZ_CHECK(m.used == 0);
    return 0;
}
