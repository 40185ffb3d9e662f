/* bench_steps.h: how far steps run over their time budget: what `glm45 bench --step-budget` measures, through the public
 * API alone.
 */
#ifndef GLM_TOOLS_BENCH_STEPS_H
#define GLM_TOOLS_BENCH_STEPS_H

#include "args.h"

#include <glm45/glm45.h>

struct step_times {         /* of the steps of one budget: how much longer than it they took, ms */
    uint64_t budget_ms, n;
    double p50, p99, most;
    double cpu_p99, cpu_most; /* the same in the calling thread's processor time: what is left without waiting for a
                                 processor that others use */
};

/* For each budget a session that computes n_prompt tokens of ids, then n_gen more one at a time and samples behind each.
 * out: [budgets->n]. A first session without budget brings the weights in. */
int32_t bench_steps(glm_model *m, const glm_session_options *so, const int32_t *ids, uint64_t n_prompt, uint64_t n_gen,
    const struct arg_counts *budgets, struct step_times *out, glm_error *err);
void bench_steps_put(const struct step_times *t, size_t n);
void bench_steps_put_json(const struct step_times *t, size_t n);

#endif
