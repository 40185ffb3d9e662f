/* session_args.c: see session_args.h. */
#include "session_args.h"
#include "progress.h"
#include "report.h"

#include <string.h>

static int32_t GLM_CALL on_read(void *user, uint64_t done, uint64_t total)
{
    progress_show(user, (double)done * 1e-6, (double)total * 1e-6, "MB");
    return 0;
}

/* The place of a name among n, of the first where it is NULL. UINT32_MAX: it is none of them. */
static uint32_t choice(const char *name, const char *const *names, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!name || strcmp(names[i], name) == 0)
            return i;
    return UINT32_MAX;
}

int session_args_options(const struct session_args *a, const char *command, glm_session_options *out)
{
    static const char *const kv_types[] = { "auto", "f32", "bf16", "int8", "fp8" };
    static const char *const overflows[] = { "error", "drop" };
    static const char *const speculations[] = { "auto", "off", "on" };

    out->n_ctx = (uint32_t)a->n_ctx;
    out->kv_type = choice(a->kv, kv_types, 5);
    if (out->kv_type == UINT32_MAX)
        return report_usage(command, "--kv: \"%s\" is none of auto, f32, bf16, int8, fp8", a->kv);
    out->overflow = choice(a->overflow, overflows, 2);
    if (out->overflow == UINT32_MAX)
        return report_usage(command, "--overflow: \"%s\" is neither error nor drop", a->overflow);
    out->speculation = choice(a->speculation, speculations, 3);
    if (out->speculation == UINT32_MAX)
        return report_usage(command, "--speculation: \"%s\" is none of auto, off, on", a->speculation);
    return EXIT_FINE;
}

int session_args_open(const struct session_args *a, const char *command, glm_model **model, glm_session **session)
{
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    struct progress progress;
    int32_t rc;

    *model = NULL;
    *session = NULL;
    if (session_args_options(a, command, &so) != EXIT_FINE)
        return EXIT_USAGE;
    if (a->template_name && strcmp(a->template_name, "4.5") != 0 && strcmp(a->template_name, "4.7") != 0)
        return report_usage(command, "--template: \"%s\" is neither 4.5 nor 4.7", a->template_name);
    if (a->template_name)
        mo.template_family = strcmp(a->template_name, "4.7") == 0 ? GLM_TEMPLATE_47 : GLM_TEMPLATE_45;
    mo.n_threads = (uint32_t)a->n_threads;
    mo.weights = a->read ? GLM_WEIGHTS_READ : GLM_WEIGHTS_MAP;
    mo.expert_cache_bytes = a->expert_cache;
    mo.progress = on_read;
    mo.progress_user = &progress;
    progress_begin(&progress, "reading the weights");
    rc = glm_model_open(a->model, &mo, model, &err);
    progress_end(&progress);
    if (!rc)
        rc = glm_session_open(*model, &so, session, &err);
    if (!rc)
        return EXIT_FINE;
    glm_model_close(*model);
    *model = NULL;
    return report_error(command, &err);
}

glm_turn_options session_args_turn(const struct session_args *a)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    o.max_tokens = (uint32_t)a->max_tokens;
    o.seed = a->has_seed ? a->seed : progress_now();
    if (a->has_temperature)
        o.temperature = (float)a->temperature;
    if (a->has_top_p)
        o.top_p = (float)a->top_p;
    if (a->has_min_p)
        o.min_p = (float)a->min_p;
    if (a->has_repeat_penalty)
        o.repeat_penalty = (float)a->repeat_penalty;
    if (a->has_top_k)
        o.top_k = (int32_t)a->top_k;
    if (a->has_max_seconds)
        o.max_ns = (uint64_t)(a->max_seconds * 1e9) + 1;
    o.stop = a->stop.item;
    o.n_stop = (uint32_t)a->stop.n;
    o.stop_lines = (uint32_t)a->stop_lines;
    o.stop_dedent = a->stop_dedent;
    return o;
}
