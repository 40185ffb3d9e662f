/* experts_int.h: a pass's use of the cache of experts, between pass.c and experts.c. */
#ifndef GLM_MODEL_EXPERTS_INT_H
#define GLM_MODEL_EXPERTS_INT_H

#include "model.h"

/* The chosen experts of a layer are computed window by window: those that are there first, then the others as they come.
 * A window is held while its operations run, and only while its pass does: a pass that waits for its host's next step
 * keeps nobody from anything. */
struct experts {
    struct net *net;           /* with a cache; else NULL, and none of the functions below may be called */
    struct cache_claim claim;
    struct ffn *ffn;           /* [n_expert] of those held their matrices; of expert 0 its shape at least */
    uint32_t *block, *count;   /* [n_expert] scratch */
    bool fixed;                /* the window's operations have begun: it stays as it is */
    bool held;
};

int32_t experts_open(struct experts *x, struct net *n, glm_error *err);
void experts_close(struct experts *x);
/* Rows have been grouped: the layer's experts are known, none of them is in a window. */
void experts_routed(struct experts *x, const struct net_layer *l, struct routing *rt, uint32_t n_row);
/* Holds the next window, or the one that is fixed. *there false: the time is up, or a stop was asked for. */
int32_t experts_take(struct experts *x, const struct net_layer *l, struct routing *rt, uint64_t deadline,
    const struct stop *stop, bool *there, glm_error *err);
bool experts_next(struct experts *x, const struct net_layer *l, struct routing *rt); /* window done; false: it was the last */
void experts_pause(struct experts *x, const struct net_layer *l, struct routing *rt); /* the pass stops running */
/* Rows would be routed like this: read what is missing. */
void experts_foresee(struct experts *x, const struct net_layer *l, const struct routing *guess, uint32_t n_row);

#endif
