/* utf8.c: strict UTF-8 as Unicode's table 3-7 has it: no overlong form, no surrogate, nothing above
 * U+10FFFF. Owns nothing. */
#include "base.h"

#include <string.h>

static bool is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

uint32_t utf8_decode(const char *text, size_t size, uint32_t *code_point)
{
    const unsigned char *s = (const unsigned char *)text;
    uint32_t c = s[0];

    if (c < 0x80) {
        *code_point = c;
        return 1;
    }
    if (c < 0xc2 || c > 0xf4)
        return 0;
    if (c < 0xe0) {
        if (size < 2 || !is_tail(s[1]))
            return 0;
        *code_point = (c & 0x1f) << 6 | (s[1] & 0x3f);
        return 2;
    }
    if (c < 0xf0) {
        if (size < 3 || !is_tail(s[1]) || !is_tail(s[2]))
            return 0;
        c = (c & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
        *code_point = c;
        return c < 0x800 || (c >= 0xd800 && c < 0xe000) ? 0 : 3;
    }
    if (size < 4 || !is_tail(s[1]) || !is_tail(s[2]) || !is_tail(s[3]))
        return 0;
    c = (c & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 |
        (s[3] & 0x3f);
    *code_point = c;
    return c < 0x10000 || c > 0x10ffff ? 0 : 4;
}

uint32_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        if (c >= 0xd800 && c < 0xe000)
            return 0;
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    if (c > 0x10ffff)
        return 0;
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t utf8_valid_prefix(const char *text, size_t size)
{
    size_t at = 0;

    while (at < size) {
        uint64_t eight;
        uint32_t n, c;

        if (size - at >= 8) {
            memcpy(&eight, text + at, 8);
            if (!(eight & 0x8080808080808080u)) {
                at += 8;
                continue;
            }
        }
        n = utf8_decode(text + at, size - at, &c);
        if (!n)
            break;
        at += n;
    }
    return at;
}

bool utf8_is_valid(const char *text, size_t size, size_t *bad)
{
    size_t at = utf8_valid_prefix(text, size);

    if (at == size)
        return true;
    if (bad)
        *bad = at;
    return false;
}

int32_t utf8_argument(const char *text, size_t *size, const char *what, glm_error *err)
{
    size_t bad;

    if (!text) {
        if (!*size)
            return GLM_OK;
        return err_set(
            err, GLM_EINVAL, 0, what, "%s is NULL: pass a text, or NULL with size 0", what);
    }
    if (*size == GLM_NTS)
        *size = strlen(text);
    if (*size > PTRDIFF_MAX)
        return err_set(err, GLM_EINVAL, 0, what,
            "the size of %s is larger than memory: pass its bytes or GLM_NTS", what);
    if (!utf8_is_valid(text, *size, &bad))
        return err_set(err, GLM_EUTF8, bad, what, "%s is not valid UTF-8 at byte %zu", what, bad);
    return GLM_OK;
}
