/* header.c: the public header alone, as C99 and as C++11, with every INIT macro used. */
#include <glm45/glm45.h>

int header_alone(void);
int header_alone(void)
{
    glm_error a = GLM_ERROR_INIT;
    glm_model_options b = GLM_MODEL_OPTIONS_INIT;
    glm_model_info c = GLM_MODEL_INFO_INIT;
    glm_estimate d = GLM_ESTIMATE_INIT;
    glm_session_options e = GLM_SESSION_OPTIONS_INIT;
    glm_message f = GLM_MESSAGE_INIT;
    glm_turn_options g = GLM_TURN_OPTIONS_INIT;
    glm_event h = GLM_EVENT_INIT;
    glm_step i = GLM_STEP_INIT;
    glm_stats j = GLM_STATS_INIT;
    return a.code + (int)(b.struct_size + c.struct_size + d.struct_size + e.struct_size + f.struct_size + g.struct_size +
                          h.struct_size + i.struct_size + j.struct_size);
}
