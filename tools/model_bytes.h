/* model_bytes.h: how many bytes of weights one decoded token reads, from a checkpoint's headers. bench and inspect use it:
 * the public API does not say it. Public types only in this header.
 */
#ifndef GLM_TOOLS_MODEL_BYTES_H
#define GLM_TOOLS_MODEL_BYTES_H

#include <glm45/glm45.h>

struct model_bytes {
    uint64_t dense;       /* attention, norms, routers, dense and shared FFN, head, one row of the embedding */
    uint64_t experts;     /* those that one token is routed to, in all layers, at their mean size */
    uint64_t experts_all; /* all of them */
    uint64_t mtp;         /* the multi-token-prediction layer with its experts; decoding does not read it */
    uint64_t draft;       /* of it what one draft reads apart from experts: attention, projection, shared FFN, and its head */
    uint64_t draft_experts; /* those of one token */
    uint64_t kv_position; /* elements of keys and values of one position in the layers that decoding reads */
};

int32_t model_bytes_read(const char *path, struct model_bytes *out, glm_error *err);

#endif
