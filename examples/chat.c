/* chat.c: asks a question, lets the model call a tool, prints the answer.
 *
 *     chat MODEL [QUESTION]
 *
 * cc chat.c $(pkg-config --cflags --libs glm45)
 */
#include <glm45/glm45.h>
#include <stdio.h>
#include <string.h>

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\","
    "  \"description\": \"Get the weather of a city.\","
    "  \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}},"
    "                 \"required\": [\"city\"]}}}]";

/* The tool. arguments is one JSON object; a real host hands it to its JSON parser. */
static const char *weather(const char *arguments)
{
    return strstr(arguments, "\"Oslo\"") ? "{\"result\": \"rain, 7 C\"}" : "{\"result\": \"sunny, 21 C\"}";
}

/* Carries out a call, or says why not: the model can make something of both. */
static int32_t answer_call(glm_session *chat, const glm_event *call, glm_error *err)
{
    int known = strcmp(call->name, "get_weather") == 0;
    fprintf(stderr, "[%s %s]\n", call->name, call->arguments);
    return glm_tool_result(chat, call->call_id, known ? weather(call->arguments) : "{\"error\": \"no such tool\"}",
        GLM_NTS, err);
}

int main(int argc, char **argv)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_model *model = NULL;
    glm_session *chat = NULL;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: chat MODEL [QUESTION]\n");
        return 2;
    }
    if (glm_model_open(argv[1], NULL, &model, &err) || glm_session_open(model, NULL, &chat, &err) ||
        glm_session_tools(chat, tools, GLM_NTS, &err) ||
        glm_session_say(chat, GLM_ROLE_USER, argc > 2 ? argv[2] : "What is the weather in Oslo?", GLM_NTS, &err))
        goto fail;

    while (ev.type != GLM_EVENT_TURN_END) {
        if (glm_session_step(chat, NULL, &ev, &err))
            goto fail;
        if (ev.type == GLM_EVENT_TEXT) {
            fwrite(ev.text, 1, ev.text_size, stdout);
            fflush(stdout);
        }
        if (ev.type == GLM_EVENT_TOOL_CALL && answer_call(chat, &ev, &err))
            goto fail;
    }
    putchar('\n');
fail:
    if (err.code)
        fprintf(stderr, "%s: %s\n", glm_status_name(err.code), err.message);
    glm_session_close(chat);
    glm_model_close(model);
    return err.code != 0;
}
