/* agent.c: an agent whose conversation outlives its process. Each run goes on where the last one stopped: the snapshot
 * holds the conversation, its tools and the KV cache, so nothing is computed twice. Calls are carried out as they come; the
 * model thinks, but not for long.
 *
 *     agent MODEL STATE QUESTION...
 */
#include <glm45/glm45.h>
#include <stdio.h>
#include <string.h>

#define THINK_TOKENS 300u

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\","
    "  \"description\": \"Get the weather of a city.\","
    "  \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}},"
    "                 \"required\": [\"city\"]}}}]";

/* The tool. A real host reads the arguments with its JSON parser: they are one object. */
static const char *weather(const char *arguments)
{
    return strstr(arguments, "\"Oslo\"") ? "{\"result\": \"rain, 7 C\"}" : "{\"result\": \"sunny, 21 C\"}";
}

static int32_t carry_out(glm_session *s, const glm_event *call, glm_error *err)
{
    int known = strcmp(call->name, "get_weather") == 0;
    printf("[%s %s]\n", call->name, call->arguments);
    return glm_tool_result(s, call->call_id, known ? weather(call->arguments) : "{\"error\": \"no such tool\"}", GLM_NTS,
        err);
}

static int file_exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

/* The conversation of the last run, or a new one. */
static int32_t open_or_load(glm_model *model, const char *state, glm_session **out, glm_error *err)
{
    glm_session_options options = GLM_SESSION_OPTIONS_INIT;
    int32_t rc;

    if (file_exists(state))
        return glm_session_load(model, state, NULL, out, err);
    options.overflow = GLM_OVERFLOW_DROP_OLDEST; /* an agent lives longer than its context */
    rc = glm_session_open(model, &options, out, err);
    return rc ? rc : glm_session_tools(*out, tools, GLM_NTS, err);
}

/* One turn. Where a tool loops or the thought goes in circles, the turn ends: the next question finds a good session. */
static int32_t answer(glm_session *s, const char *question, glm_error *err)
{
    glm_event ev = GLM_EVENT_INIT;
    int32_t rc = glm_session_say(s, GLM_ROLE_USER, question, GLM_NTS, err);

    while (!rc && ev.type != GLM_EVENT_TURN_END) {
        rc = glm_session_step(s, NULL, &ev, err);
        if (rc)
            break;
        if (ev.type == GLM_EVENT_TEXT)
            fwrite(ev.text, 1, ev.text_size, stdout);
        if (ev.type == GLM_EVENT_LOOP)
            glm_session_cancel(s);
        if (ev.type == GLM_EVENT_TOOL_CALL)
            rc = carry_out(s, &ev, err);
    }
    if (!rc)
        printf("\n(%llu of %llu prompt tokens were there already)\n", (unsigned long long)ev.n_reused,
            (unsigned long long)ev.n_prompt);
    return rc;
}

int main(int argc, char **argv)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options turn = GLM_TURN_OPTIONS_INIT;
    glm_model *model = NULL;
    glm_session *agent = NULL;

    if (argc < 4) {
        fprintf(stderr, "usage: agent MODEL STATE QUESTION...\n");
        return 2;
    }
    turn.thinking = GLM_THINK_BUDGET;
    turn.think_tokens = THINK_TOKENS;
    turn.temperature = 0;
    if (glm_model_open(argv[1], NULL, &model, &err) || open_or_load(model, argv[2], &agent, &err) ||
        glm_session_turn(agent, &turn, &err))
        goto fail;
    for (int i = 3; i < argc; i++)
        if (answer(agent, argv[i], &err))
            goto fail;
    if (glm_session_save(agent, argv[2], &err))
        goto fail;
fail:
    if (err.code)
        fprintf(stderr, "%s: %s\n", glm_status_name(err.code), err.message);
    glm_session_close(agent);
    glm_model_close(model);
    return err.code != 0;
}
