/* session_args.h: what chat and complete have in common: options of the model, the session and the sampling, and opening
 * both. Public API only.
 */
#ifndef GLM_TOOLS_SESSION_ARGS_H
#define GLM_TOOLS_SESSION_ARGS_H

#include "args.h"

#include <glm45/glm45.h>

struct session_args {
    const char *model, *kv, *speculation, *template_name;
    bool read;
    uint64_t expert_cache, n_threads, n_ctx, max_tokens, seed, top_k;
    double temperature, top_p, min_p, repeat_penalty;
    bool has_seed, has_top_k, has_temperature, has_top_p, has_min_p, has_repeat_penalty;
    /* of TURN_ARGS */
    struct arg_texts stop;   /* item is released with free() */
    double max_seconds;
    uint64_t stop_lines;
    bool has_max_seconds, stop_dedent;
    const char *overflow;    /* of chat */
};

/* Rows of a command's table, for `struct session_args s`. */
#define SESSION_ARGS(s)                                                                                                \
    { .name = "--threads", .kind = ARG_COUNT, .to = &(s).n_threads, .least = 1, .most = 1024 },                        \
    { .name = "--context", .kind = ARG_COUNT, .to = &(s).n_ctx, .least = 1, .most = UINT32_MAX },                      \
    { .name = "--kv", .kind = ARG_TEXT, .to = &(s).kv },                                                               \
    { .name = "--speculation", .kind = ARG_TEXT, .to = &(s).speculation },                                             \
    { .name = "--expert-cache", .kind = ARG_BYTES, .to = &(s).expert_cache, .most = UINT64_MAX },                     \
    { .name = "--read", .kind = ARG_FLAG, .to = &(s).read },                                                           \
    { .name = "--max-tokens", .kind = ARG_COUNT, .to = &(s).max_tokens, .least = 1, .most = UINT32_MAX },              \
    { .name = "--seed", .kind = ARG_COUNT, .to = &(s).seed, .most = UINT64_MAX, .given = &(s).has_seed },              \
    { .name = "--temperature", .kind = ARG_NUMBER, .to = &(s).temperature, .low = 0, .high = 100,                      \
        .given = &(s).has_temperature },                                                                               \
    { .name = "--top-p", .kind = ARG_NUMBER, .to = &(s).top_p, .low = 0, .high = 1, .given = &(s).has_top_p },         \
    { .name = "--min-p", .kind = ARG_NUMBER, .to = &(s).min_p, .low = 0, .high = 1, .given = &(s).has_min_p },         \
    { .name = "--top-k", .kind = ARG_COUNT, .to = &(s).top_k, .most = INT32_MAX, .given = &(s).has_top_k },            \
    { .name = "--repeat-penalty", .kind = ARG_NUMBER, .to = &(s).repeat_penalty, .low = 0, .high = 100,                \
        .given = &(s).has_repeat_penalty }

/* Rows of a command whose turns the library ends. */
#define TURN_ARGS(s)                                                                                                   \
    { .name = "--stop", .kind = ARG_TEXTS, .to = &(s).stop },                                                          \
    { .name = "--max-seconds", .kind = ARG_NUMBER, .to = &(s).max_seconds, .low = 0, .high = 1e9,                      \
        .given = &(s).has_max_seconds }

/* Their part of a help text. */
#define TURN_ARGS_HELP                                                                                                 \
    "  --stop TEXT           the answer ends where this stands in it, which is not written; may come again\n"          \
    "  --max-seconds S       most computing time of an answer\n"

#define SESSION_ARGS_HELP                                                                                              \
    "  --max-tokens N        most tokens to generate\n"                                                                \
    "  --temperature T       0: always the likeliest token          [the checkpoint's; likewise the next]\n"           \
    "  --top-p P, --min-p P, --top-k K, --repeat-penalty R\n"                                                          \
    "  --seed N              same seed, same answer                 [another one each time]\n"                         \
    "  --context N           most tokens of the conversation        [the model's]\n"                                   \
    "  --kv TYPE             of the KV cache: auto f32 bf16 int8 fp8 [auto]\n"                                         \
    "  --speculation HOW     drafts by the model's own layer for it: auto, off, on; the text is the same [auto]\n"      \
    "  --threads N           [the machine's cores, at most 8]\n"                                                       \
    "  --read                read the weights into memory instead of mapping the file\n"                              \
    "  --expert-cache BYTES  for models larger than the memory: keep so many bytes of experts, such as 20G, and read\n" \
    "                        the others when they are needed\n"

/* The session's part of the options. EXIT_FINE, or EXIT_USAGE after an error line. */
int session_args_options(const struct session_args *a, const char *command, glm_session_options *out);
/* Opens both. EXIT_FINE; else an error line was written and the status is to be exited with; both are NULL then. */
int session_args_open(const struct session_args *a, const char *command, glm_model **model, glm_session **session);
/* Points into `a`. */
glm_turn_options session_args_turn(const struct session_args *a);

#endif
