/* hparams.c: the rules that an architecture's numbers must keep, whatever format they came from.
 * Everything that lib/model and the kernels divide, index or multiply by has passed here. Pure
 * checks: no memory, no state.
 */
#include "ckpt_int.h"

#include <math.h>

struct range {
    const char *name;
    uint64_t value, low, high;
};

static int32_t check_ranges(const struct hparams *hp, const char *where, glm_error *err)
{
    const struct range ranges[] = {
        {"the layer count", hp->n_layer, 1, HP_LAYER_MAX},
        {"the count of leading dense layers", hp->n_layer_dense, 0, hp->n_layer},
        {"the count of next-token-prediction layers", hp->n_nextn, 0, 1},
        {"the model width", hp->d_model, 1, HP_WIDTH_MAX},
        {"the head count", hp->n_head, 1, HP_WIDTH_MAX},
        {"the key-value head count", hp->n_head_kv, 1, hp->n_head},
        {"the head width", hp->d_head, 2, HP_HEAD_DIM_MAX},
        {"the rotated part of a head", hp->n_rot, 2, hp->d_head},
        {"the width of all heads", (uint64_t)hp->n_head * hp->d_head, 2, HP_WIDTH_MAX},
        {"the feed-forward width", hp->d_ff, 1, HP_WIDTH_MAX},
        {"the expert width", hp->d_ff_exp, 1, HP_WIDTH_MAX},
        {"the expert count", hp->n_expert, 1, HP_EXPERT_MAX},
        {"the count of experts used", hp->n_expert_used, 1, hp->n_expert},
        {"the count of shared experts", hp->n_expert_shared, 1, HP_EXPERT_MAX},
        {"the width of the shared experts", (uint64_t)hp->d_ff_exp * hp->n_expert_shared, 1,
            HP_WIDTH_MAX},
        {"the count of expert groups", hp->n_group, 1, hp->n_expert},
        {"the count of expert groups used", hp->n_group_used, 1, hp->n_group},
        {"the vocabulary size", hp->n_vocab, 1, HP_VOCAB_MAX},
        {"the context length", hp->n_ctx_train, 1, HP_CTX_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        const struct range *r = &ranges[i];
        if (r->value < r->low || r->value > r->high)
            return err_set(err, GLM_EFORMAT, 0, where, "%s is %llu, which is not in %llu to %llu",
                r->name, (unsigned long long)r->value, (unsigned long long)r->low,
                (unsigned long long)r->high);
    }
    return GLM_OK;
}

/* NaN fails every comparison, so each test is written to accept, not to refuse. */
static int32_t check_floats(const struct hparams *hp, const char *where, glm_error *err)
{
    if (!(hp->rope_theta >= 1.0 && hp->rope_theta <= 1e12))
        return err_set(err, GLM_EFORMAT, 0, where, "the rotary base is not in 1 to 1e12");
    if (!(hp->norm_eps > 0.0f && hp->norm_eps <= 1.0f))
        return err_set(
            err, GLM_EFORMAT, 0, where, "the epsilon of the norms is not above 0 and at most 1");
    if (!(hp->routed_scale > 0.0f && hp->routed_scale <= 1e6f))
        return err_set(err, GLM_EFORMAT, 0, where,
            "the scale of routed experts is not above 0 and at most 1e6");
    return GLM_OK;
}

int32_t io_check_hparams(const struct hparams *hp, const char *where, glm_error *err)
{
    int32_t rc = check_ranges(hp, where, err);
    if (rc == GLM_OK)
        rc = check_floats(hp, where, err);
    if (rc != GLM_OK)
        return rc;
    if (hp->n_head % hp->n_head_kv != 0)
        return err_set(err, GLM_EFORMAT, 0, where,
            "%u heads cannot share %u key-value heads evenly", hp->n_head, hp->n_head_kv);
    if (hp->d_head % 2 != 0 || hp->n_rot % 2 != 0)
        return err_set(err, GLM_EFORMAT, 0, where,
            "the head width %u and its rotated part %u must be even", hp->d_head, hp->n_rot);
    if (hp->n_expert % hp->n_group != 0)
        return err_set(err, GLM_EFORMAT, 0, where, "%u experts do not divide into %u groups",
            hp->n_expert, hp->n_group);
    uint32_t group_size = hp->n_expert / hp->n_group;
    if (hp->n_group > 1 && group_size < 2) /* a group is rated by its two best */
        return err_set(err, GLM_EFORMAT, 0, where,
            "groups of one expert cannot be routed: %u experts in %u groups", hp->n_expert,
            hp->n_group);
    if (hp->n_expert_used > hp->n_group_used * group_size)
        return err_set(err, GLM_EFORMAT, 0, where,
            "%u experts a token are more than the %u of the groups used", hp->n_expert_used,
            hp->n_group_used * group_size);
    return GLM_OK;
}

void io_generation_unset(struct generation_defaults *g)
{
    *g = (struct generation_defaults){.temperature = NAN,
        .top_p = NAN,
        .min_p = NAN,
        .repeat_penalty = NAN,
        .top_k = -1,
        .do_sample = -1};
}
