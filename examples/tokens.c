/* tokens.c: the token level. How surprising is a text to the model, token by token? Prints every token with its
 * surprise in bits, and the sum: the size to which the model could compress the text.
 *
 *     tokens MODEL [TEXT]
 */
#include <glm45/glm45.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bits that the token costs when the model gives these logits before it. */
static double surprise(const float *logits, uint32_t n_vocab, int32_t id)
{
    double top = logits[0], sum = 0.0;
    for (uint32_t i = 1; i < n_vocab; i++)
        top = logits[i] > top ? logits[i] : top;
    for (uint32_t i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - top);
    return (log(sum) + top - (double)logits[id]) / log(2.0);
}

/* The text's ids behind the special tokens that every text of the family begins with. *ids: freed by the caller. */
static int32_t tokenize(const glm_model *model, const char *text, int32_t **ids, size_t *n, size_t *n_start, glm_error *err)
{
    static const char start[] = "[gMASK]<sop>";
    size_t room = strlen(text) + sizeof start; /* a token has at least one byte */
    int32_t rc;

    *ids = malloc(room * sizeof **ids);
    if (!*ids) {
        err->code = GLM_ENOMEM;
        return GLM_ENOMEM;
    }
    rc = glm_tokenize(model, start, GLM_NTS, GLM_TOKENIZE_SPECIALS, *ids, room, n_start, err);
    if (!rc)
        rc = glm_tokenize(model, text, GLM_NTS, 0, *ids + *n_start, room - *n_start, n, err);
    *n += *n_start;
    return rc;
}

static int32_t compute(glm_session *s, const int32_t *ids, size_t n, glm_error *err)
{
    glm_event ev = GLM_EVENT_INIT;
    int32_t rc = glm_session_feed(s, ids, n, GLM_ROWS_ALL, err);
    while (!rc && ev.type != GLM_EVENT_READY)
        rc = glm_session_step(s, NULL, &ev, err);
    return rc;
}

static int32_t print_surprises(const glm_model *model, glm_session *s, const int32_t *ids, size_t n, size_t n_start,
    glm_error *err)
{
    glm_model_info info = GLM_MODEL_INFO_INIT;
    double bits = 0.0;
    int32_t rc = glm_model_describe(model, &info, err);

    for (size_t i = n_start; !rc && i < n; i++) { /* the logits of row i - 1 speak of id i */
        const float *logits;
        char text[256];
        size_t size;
        rc = glm_session_logits(s, i - 1, &logits, err);
        if (!rc)
            rc = glm_detokenize(model, ids + i, 1, text, sizeof text, &size, err);
        if (rc)
            break;
        double b = surprise(logits, info.n_vocab, ids[i]);
        printf("%8.3f  %6d  %s\n", b, ids[i], strcmp(text, "\n") ? text : "(newline)");
        bits += b;
    }
    if (!rc)
        printf("%8.3f  bits in %zu tokens\n", bits, n - n_start);
    return rc;
}

int main(int argc, char **argv)
{
    glm_error err = GLM_ERROR_INIT;
    glm_model *model = NULL;
    glm_session *s = NULL;
    int32_t *ids = NULL;
    size_t n = 0, n_start = 0;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: tokens MODEL [TEXT]\n");
        return 2;
    }
    if (glm_model_open(argv[1], NULL, &model, &err) || glm_session_open(model, NULL, &s, &err) ||
        tokenize(model, argc > 2 ? argv[2] : "The answer is 42.", &ids, &n, &n_start, &err) ||
        compute(s, ids, n, &err) || print_surprises(model, s, ids, n, n_start, &err))
        fprintf(stderr, "%s: %s\n", glm_status_name(err.code), err.message);
    glm_session_close(s);
    glm_model_close(model);
    free(ids);
    return err.code != 0;
}
