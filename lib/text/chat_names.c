/* chat_names.c: the family's special tokens by spelling, which template a checkpoint carries, and
 * the template's arguments. Constant tables only; nothing here allocates.
 */
#include "chat_int.h"

#include <string.h>

static const char *const spellings[TOK_SPECIAL_COUNT] = {
    [TOK_ENDOFTEXT] = "<|endoftext|>",
    [TOK_GMASK] = "[gMASK]",
    [TOK_SOP] = "<sop>",
    [TOK_EOP] = "<eop>",
    [TOK_SYSTEM] = "<|system|>",
    [TOK_USER] = "<|user|>",
    [TOK_ASSISTANT] = "<|assistant|>",
    [TOK_OBSERVATION] = "<|observation|>",
    [TOK_CODE_PREFIX] = "<|code_prefix|>",
    [TOK_CODE_MIDDLE] = "<|code_middle|>",
    [TOK_CODE_SUFFIX] = "<|code_suffix|>",
    [TOK_THINK] = "<think>",
    [TOK_THINK_END] = "</think>",
    [TOK_TOOL_CALL] = "<tool_call>",
    [TOK_TOOL_CALL_END] = "</tool_call>",
    [TOK_TOOL_RESPONSE] = "<tool_response>",
    [TOK_TOOL_RESPONSE_END] = "</tool_response>",
    [TOK_ARG_KEY] = "<arg_key>",
    [TOK_ARG_KEY_END] = "</arg_key>",
    [TOK_ARG_VALUE] = "<arg_value>",
    [TOK_ARG_VALUE_END] = "</arg_value>",
    [TOK_NOTHINK] = "/nothink",
};

const char *chat_spelling(enum tok_special which)
{
    return (size_t)which < TOK_SPECIAL_COUNT ? spellings[which] : NULL;
}

/* No spelling is the beginning of another one, so the first that fits is the only one. */
enum tok_special chat_spelled(const char *text, size_t n, size_t *size)
{
    *size = 0;
    if (n == 0 || (text[0] != '<' && text[0] != '/' && text[0] != '['))
        return TOK_SPECIAL_COUNT;
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++) {
        size_t length = strlen(spellings[i]);
        if (length <= n && memcmp(text, spellings[i], length) == 0) {
            *size = length;
            return (enum tok_special)i;
        }
    }
    return TOK_SPECIAL_COUNT;
}

/* ---- which template -------------------------------------------------------------------------- */

/* chat_template.jinja of zai-org/GLM-4.5 (the same in Air and 4.6) and of zai-org/GLM-4.7 (the same
 * in Flash). */
static const uint8_t hash_45[32] = {
    0x44, 0xf8, 0x15, 0x86, 0x8b, 0xf0, 0x2f, 0xa4, 0x58, 0xdd, 0x2f, 0x74, 0x1a, 0x33, 0x80, 0x46,
    0xf4, 0xbf, 0x45, 0xf3, 0x98, 0xeb, 0x6d, 0x06, 0x77, 0x66, 0x72, 0x6b, 0x9d, 0x96, 0xcc, 0xe3};
static const uint8_t hash_47[32] = {
    0xd6, 0x3a, 0xd5, 0x36, 0xc3, 0xc8, 0x18, 0x80, 0x04, 0x3e, 0x22, 0xec, 0x7f, 0xd0, 0x8d, 0xb4,
    0x2b, 0x4d, 0x8f, 0xb7, 0xc8, 0x9c, 0x71, 0x38, 0xbc, 0x56, 0x2b, 0xfa, 0x25, 0x28, 0x13, 0x75};

static bool mentions(const char *text, size_t size, const char *mark)
{
    struct chat_view whole = {text, size}, before, after;
    return chat_find(whole, mark, &before, &after);
}

enum chat_family chat_detect(const char *text, size_t size, bool *known)
{
    *known = true;
    if (text != NULL) {
        uint8_t digest[32];
        struct sha256 h;
        sha256_init(&h);
        sha256_put(&h, text, size);
        sha256_end(&h, digest);
        if (memcmp(digest, hash_45, sizeof digest) == 0)
            return CHAT_45;
        if (memcmp(digest, hash_47, sizeof digest) == 0)
            return CHAT_47;
        /* Republished files change spacing and comments. What the two can not do without: 4.5
         * switches thinking off by "/nothink"; 4.7 keeps old thoughts on request and puts no
         * newline behind a call's name. */
        if (mentions(text, size, "[gMASK]<sop>") && mentions(text, size, "<|observation|>") &&
            mentions(text, size, "<arg_key>")) {
            bool is_45 = mentions(text, size, "/nothink");
            bool is_47 = mentions(text, size, "clear_thinking") &&
                         mentions(text, size, "<tool_call>{function-name}<arg_key>");
            if (is_45 != is_47)
                return is_45 ? CHAT_45 : CHAT_47;
        }
    }
    *known = false;
    return CHAT_45;
}

/* ---- the template's arguments ---------------------------------------------------------------- */

static enum chat_flag flag_of(const struct json *v)
{
    return v == NULL ? CHAT_UNDEFINED : chat_truth(v) ? CHAT_TRUE : CHAT_FALSE;
}

int32_t chat_options_from_kwargs(
    const struct json *kwargs, struct chat_options *how, glm_error *err)
{
    if (kwargs != NULL && kwargs->type != JSON_NULL && kwargs->type != JSON_OBJECT)
        return err_set(err, GLM_EINVAL, kwargs->offset, NULL,
            "template arguments must be a JSON object or null");
    how->enable_thinking = flag_of(json_get(kwargs, "enable_thinking"));
    how->clear_thinking = flag_of(json_get(kwargs, "clear_thinking"));
    how->add_generation_prompt = chat_truth(json_get(kwargs, "add_generation_prompt"));
    return 0;
}
