/* tok_decode.c: from ids back to text, a token at a time. A decoder holds at most three bytes of an
 * unfinished character; it owns no memory.
 */
#include "tok_int.h"

#define REPLACEMENT "\xEF\xBF\xBD"

const char *tok_bytes(const struct tok *t, int32_t id, size_t *size)
{
    *size = 0;
    if (id < 0 || (uint32_t)id >= t->n || t->token[id].kind == TOK_ABSENT)
        return NULL;
    *size = t->token[id].size;
    return t->pool + t->token[id].at;
}

/* Length of the character that a lead byte announces; 0 for a byte that cannot lead. */
static uint32_t announced(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* Whether c may follow the n_held bytes of a well-formed beginning (Unicode 16.0, table 3-7). */
static bool continues(const char *held, uint32_t n_held, uint8_t c)
{
    uint8_t low = 0x80, high = 0xBF;
    if (n_held == 1) {
        switch ((uint8_t)held[0]) {
        case 0xE0: low = 0xA0; break;
        case 0xED: high = 0x9F; break;
        case 0xF0: low = 0x90; break;
        case 0xF4: high = 0x8F; break;
        default: break;
        }
    }
    return c >= low && c <= high;
}

/* One byte of a text that is not plainly well-formed. */
static void put_byte(struct tok_decoder *d, char c, struct buf *out)
{
    if (d->n_held) {
        if (continues(d->held, d->n_held, (uint8_t)c)) {
            d->held[d->n_held++] = c;
            if (d->n_held == announced((uint8_t)d->held[0])) {
                buf_put(out, d->held, d->n_held);
                d->n_held = 0;
            }
            return;
        }
        tok_decode_end(d, out);
    }
    uint32_t n = announced((uint8_t)c);
    if (n == 0)
        buf_put(out, REPLACEMENT, 3);
    else if (n == 1)
        buf_char(out, c);
    else
        d->held[d->n_held++] = c;
}

void tok_decode_bytes(struct tok_decoder *d, const char *bytes, size_t size, struct buf *out)
{
    size_t i = 0;
    while (i < size) {
        if (!d->n_held) {
            size_t n = utf8_valid_prefix(bytes + i, size - i);
            if (n)
                buf_put(out, bytes + i, n);
            i += n;
            if (i == size)
                break;
        }
        put_byte(d, bytes[i++], out);
    }
}

void tok_decode(const struct tok *t, struct tok_decoder *d, int32_t id, struct buf *out)
{
    size_t size;
    const char *bytes = tok_bytes(t, id, &size);
    if (size)
        tok_decode_bytes(d, bytes, size, out);
}

void tok_decode_end(struct tok_decoder *d, struct buf *out)
{
    if (d->n_held)
        buf_put(out, REPLACEMENT, 3);
    d->n_held = 0;
}
