/* rx_number.c: sets of numbers as languages of their JSON spellings: ranges, multiples. Numbers are compared as text: digit by
 * digit in plain spelling, and in scientific spelling where it has one digit that is not 0 before the point (as programs print
 * it). A set with a bound has no other spellings than these two.
 */
#include "rx.h"

#include <string.h>

#define DIGITS_MAX 400u
#define FRACTION_SHOWN 17u /* digits behind the point that a double's shortest spelling may have */

/* What a double holds without becoming infinite or 0: larger powers are no number that two readers agree on. */
#define POWER "0?(?:[0-9]{1,2}|[12][0-9]{2})"
#define LARGE "[1-9](?:\\.[0-9]{1,17}0*)?[eE][+-]?30[0-7]|1(?:\\.[0-6][0-9]{0,16}0*)?[eE]\\+?308"
/* 9000000000000000 to 2^53 - 1 */
#define BELOW_2_53 "900[0-6][0-9]{12}|90070[0-9]{11}|90071[0-8][0-9]{10}|900719[0-8][0-9]{9}|9007199[01][0-9]{8}|" \
    "90071992[0-4][0-9]{7}|900719925[0-3][0-9]{6}|9007199254[0-6][0-9]{5}|90071992547[0-3][0-9]{4}|" \
    "9007199254740[0-8][0-9]{2}|90071992547409[0-8][0-9]|900719925474099[01]"
/* With a point and something behind it at most 13 digits before it: so a reader's double is no whole number by rounding. */
static const char plain[] = "(0|[1-9][0-9]{0,12})(\\.[0-9]+)?|[1-9][0-9]*|[1-9][0-9]{0,14}\\.0+|[1-8][0-9]{15}\\.0+|"
    "9[0-9]{14}[02468]\\.0+|(?:" BELOW_2_53 ")\\.0+"; /* from 2^53 on doubles are even */
static const char scientific[] = "[1-9](\\.[0-9]{1,17}0*)?[eE](\\+?(0?[0-9]|[1-9][0-9]|[12][0-9]{2})|"
    "-(0?[1-9]|[1-9][0-9]|[12][0-9]{2}))|" LARGE;
static const char mantissas[] = "[1-9](\\.[0-9]{1,17}0*)?", zero[] = "0(\\.0+)?";

static uint32_t pattern(struct rx *x, const char *text)
{
    uint32_t out;
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = rx_pattern(x, text, strlen(text), true, &out, &err);
    if (rc)
        x->failed = rc;
    return out;
}

uint32_t rx_json_number(struct rx *x)
{
    return pattern(x, "-?((0|[1-9][0-9]*)(\\.[0-9]+)?|(0|[1-9][0-9]{0,7})(\\.[0-9]+)?[eE][+-]?" POWER "|" LARGE ")");
}

uint32_t rx_json_integer(struct rx *x)
{
    uint32_t out = pattern(x, "(0|[1-9][0-9]*)(\\.0+)?|(0|[1-9][0-9]{0,7})(\\.0+)?[eE]\\+?" POWER "|[1-9](\\.0+)?[eE]\\+?30[0-7]|"
        "1(\\.0+)?[eE]\\+?308|1\\.[0-6][0-9]{0,16}0*[eE]\\+?308");
    uint32_t d = rx_range(x, '0', '9'), head = pattern(x, "[1-9]\\."), zeros = rx_rep(x, rx_range(x, '0', '0'), 0, RX_INF);
    for (uint32_t n = 1; n <= FRACTION_SHOWN; n++) { /* 1.5e1: no more digits than the power takes */
        uint32_t power = pattern(x, n < 10 ? "[eE]\\+?0?" : "[eE]\\+?1");
        power = rx_cat(x, power, rx_range(x, '0' + n % 10, '0' + n % 10));
        if (n == FRACTION_SHOWN)
            power = rx_alt(x, power, pattern(x, "[eE]\\+?(1[89]|[2-9][0-9]|[12][0-9][0-9]|30[0-7])"));
        out = rx_alt(x, out, rx_cat(x, head, rx_cat(x, rx_rep(x, d, 1, n), rx_cat(x, zeros, power))));
    }
    return rx_cat(x, rx_rep(x, rx_range(x, '-', '-'), 0, 1), out);
}

uint32_t rx_json_whole(struct rx *x)
{
    return pattern(x, "-?(0|[1-9][0-9]*)");
}

uint32_t rx_json_number_compared(struct rx *x)
{
    return rx_cat(x, rx_rep(x, rx_range(x, '-', '-'), 0, 1), rx_alt(x, pattern(x, plain), pattern(x, scientific)));
}

/* ---- bounds ------------------------------------------------------------------------------------------------------------- */

/* whole.fraction with neither a leading nor a closing zero; 0 is "" and "". */
struct decimal {
    char whole[DIGITS_MAX], fraction[DIGITS_MAX];
    uint32_t n_whole, n_fraction;
    bool negative;
};

static bool read_decimal(const char *text, size_t size, struct decimal *d)
{
    char digits[DIGITS_MAX];
    int32_t n = 0, point = -1, exponent = 0;
    size_t i = size > 0 && text[0] == '-';
    *d = (struct decimal){ .negative = i == 1 };
    for (; i < size && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.')
            point = n;
        else if (n == (int32_t)DIGITS_MAX)
            return false;
        else
            digits[n++] = text[i];
    }
    if (i < size) {
        bool down = text[++i] == '-';
        i += text[i] == '-' || text[i] == '+';
        for (; i < size; i++) {
            exponent = exponent * 10 + (text[i] - '0');
            if (exponent > 100000)
                return false;
        }
        exponent = down ? -exponent : exponent;
    }
    point = (point < 0 ? n : point) + exponent;
    int32_t lead = 0;
    while (lead < n && digits[lead] == '0')
        lead++;
    while (n > lead && digits[n - 1] == '0')
        n--;
    if (lead == n) { /* -0 is 0 */
        d->negative = false;
        return true;
    }
    for (int32_t at = point < lead ? point : lead; at < (n > point ? n : point); at++) {
        char c = at >= lead && at < n ? digits[at] : '0';
        uint32_t *count = at < point ? &d->n_whole : &d->n_fraction;
        if (*count == DIGITS_MAX)
            return false;
        (at < point ? d->whole : d->fraction)[(*count)++] = c;
    }
    return true;
}

static uint32_t digit(struct rx *x, int lo, int hi)
{
    return lo > hi ? RX_EMPTY : rx_range(x, (uint32_t)lo, (uint32_t)hi);
}

static uint32_t any_digits(struct rx *x)
{
    return rx_rep(x, digit(x, '0', '9'), 0, RX_INF);
}

/* Digits behind a point that make at least (strict: more than) the fraction f. Without the point; zeros may be missing. */
static uint32_t fraction_from(struct rx *x, const char *f, uint32_t n, bool strict)
{
    uint32_t any = any_digits(x);
    uint32_t out = strict ? rx_cat(x, any, rx_cat(x, digit(x, '1', '9'), any)) : any;
    for (uint32_t i = n; i-- > 0;)
        out = rx_alt(x, rx_cat(x, digit(x, f[i] + 1, '9'), any), rx_cat(x, digit(x, f[i], f[i]), out));
    return out;
}

/* "" or a point and digits, which make at least the fraction. */
static uint32_t tail_from(struct rx *x, const char *f, uint32_t n, bool strict)
{
    uint32_t some = rx_and(x, fraction_from(x, f, n, strict), rx_rep(x, digit(x, '0', '9'), 1, RX_INF));
    uint32_t out = rx_cat(x, digit(x, '.', '.'), some);
    return n == 0 && !strict ? rx_alt(x, RX_EPS, out) : out;
}

/* Digits without a leading zero that make a whole number greater than w; or equal, with `same` behind them. */
static uint32_t whole_from(struct rx *x, const char *w, uint32_t n, uint32_t more, uint32_t same)
{
    uint32_t d = digit(x, '0', '9'), out = same;
    for (uint32_t i = n; i-- > 0;) {
        uint32_t rest = rx_cat(x, rx_rep(x, d, n - 1 - i, n - 1 - i), more);
        out = rx_alt(x, rx_cat(x, digit(x, w[i] + 1, '9'), rest), rx_cat(x, digit(x, w[i], w[i]), out));
    }
    uint32_t longer = rx_cat(x, digit(x, '1', '9'), rx_cat(x, rx_rep(x, d, n, RX_INF), more));
    return rx_alt(x, longer, out);
}

/* The part behind e that makes a power greater than e. */
static uint32_t power_above(struct rx *x, int32_t e)
{
    char digits[12];
    uint32_t n = 0, zeros = rx_rep(x, digit(x, '0', '0'), 0, RX_INF), d = digit(x, '0', '9');
    int32_t v = e < 0 ? -e : e;
    for (int32_t t = v; t > 0; t /= 10)
        digits[n++] = (char)('0' + t % 10);
    for (uint32_t i = 0; i < n / 2; i++) {
        char swap = digits[i];
        digits[i] = digits[n - 1 - i];
        digits[n - 1 - i] = swap;
    }
    uint32_t some = rx_rep(x, d, 1, RX_INF);
    uint32_t above = rx_cat(x, zeros, whole_from(x, digits, n, RX_EPS, RX_EMPTY));
    uint32_t plus = rx_rep(x, digit(x, '+', '+'), 0, 1), minus = digit(x, '-', '-');
    if (e >= 0)
        return rx_cat(x, plus, above);
    uint32_t same = rx_cat(x, zeros, rx_text(x, digits, n));
    uint32_t below = rx_and(x, some, rx_not(x, rx_alt(x, above, same)));
    return rx_alt(x, rx_cat(x, plus, some), rx_cat(x, minus, below));
}

static uint32_t power(struct rx *x, int32_t e)
{
    return rx_and(x, power_above(x, e - 1), rx_not(x, power_above(x, e)));
}

/* Spellings of magnitudes, without a sign, of at least d. */
static uint32_t magnitude_from(struct rx *x, const struct decimal *d, bool strict)
{
    uint32_t more = pattern(x, "(\\.[0-9]+)?"), e = pattern(x, "[eE]"), out;
    char m[2 * DIGITS_MAX];
    uint32_t n = 0, skip = 0;
    if (d->n_whole == 0 && d->n_fraction == 0) {
        uint32_t all = rx_alt(x, pattern(x, plain), pattern(x, scientific));
        return strict ? rx_and(x, all, rx_not(x, pattern(x, zero))) : all;
    }
    uint32_t tail = tail_from(x, d->fraction, d->n_fraction, strict);
    if (d->n_whole == 0) { /* 0.x, or any whole number from 1 on */
        out = rx_alt(x, rx_cat(x, digit(x, '0', '0'), tail), rx_cat(x, pattern(x, "[1-9][0-9]*"), more));
    } else {
        out = whole_from(x, d->whole, d->n_whole, more, tail);
    }
    while (d->n_whole == 0 && d->fraction[skip] == '0')
        skip++;
    memcpy(m, d->whole, d->n_whole);
    n = d->n_whole;
    memcpy(m + n, d->fraction + skip, d->n_fraction - skip);
    n += d->n_fraction - skip;
    while (n > 1 && m[n - 1] == '0')
        n--;
    int32_t top = d->n_whole > 0 ? (int32_t)d->n_whole - 1 : -1 - (int32_t)skip;
    uint32_t mantissa = whole_from(x, m, 1, RX_EMPTY, tail_from(x, m + 1, n - 1, strict));
    uint32_t greater = rx_cat(x, digit(x, m[0] + 1, '9'), more);
    mantissa = rx_alt(x, greater, mantissa);
    uint32_t same = rx_cat(x, mantissa, rx_cat(x, e, power(x, top)));
    uint32_t above = rx_cat(x, rx_cat(x, pattern(x, mantissas), e), power_above(x, top));
    return rx_alt(x, out, rx_and(x, pattern(x, scientific), rx_alt(x, same, above)));
}

bool rx_number_from(struct rx *x, const char *bound, size_t size, bool strict, uint32_t *out)
{
    struct decimal d;
    *out = RX_EMPTY;
    if (!read_decimal(bound, size, &d))
        return false;
    struct decimal none = { .n_whole = 0 };
    uint32_t minus = digit(x, '-', '-'), all = magnitude_from(x, &none, false);
    if (!d.negative) {
        bool is_zero = d.n_whole + d.n_fraction == 0;
        uint32_t least = magnitude_from(x, &d, strict);
        *out = is_zero && !strict ? rx_alt(x, least, rx_cat(x, minus, pattern(x, zero))) : least;
        return true;
    }
    /* v >= -d: not the magnitudes that are greater than d */
    uint32_t beyond = magnitude_from(x, &d, !strict);
    *out = rx_alt(x, all, rx_cat(x, minus, rx_and(x, all, rx_not(x, beyond))));
    return true;
}

/* Whether a whole number is a double as it is: found out for those below 2^63. */
static bool is_double(const struct decimal *d)
{
    uint64_t v = 0;
    for (uint32_t i = 0; i < d->n_whole && d->n_whole < 19; i++)
        v = v * 10 + (uint64_t)(d->whole[i] - '0');
    return v != 0 && (uint64_t)(double)v == v;
}

/* The spellings of a number that is not 0, of at most 15 digits and 13 before the point: plain, or scientific. */
static uint32_t spellings(struct rx *x, const struct decimal *d)
{
    char m[2 * DIGITS_MAX], power[2];
    uint32_t n = 0, skip = 0, zeros = rx_rep(x, digit(x, '0', '0'), 0, RX_INF), point = digit(x, '.', '.');
    uint32_t no_fraction = rx_rep(x, rx_cat(x, point, rx_rep(x, digit(x, '0', '0'), 1, RX_INF)), 0, 1);
    uint32_t fraction = rx_cat(x, point, rx_cat(x, rx_text(x, d->fraction, d->n_fraction), zeros));
    uint32_t whole = d->n_whole > 0 ? rx_text(x, d->whole, d->n_whole) : digit(x, '0', '0');
    uint32_t out = rx_cat(x, whole, d->n_fraction > 0 ? fraction : no_fraction);
    while (d->n_whole == 0 && d->fraction[skip] == '0')
        skip++;
    memcpy(m, d->whole, d->n_whole);
    memcpy(m + d->n_whole, d->fraction + skip, d->n_fraction - skip);
    n = d->n_whole + d->n_fraction - skip;
    while (n > 1 && m[n - 1] == '0')
        n--;
    uint32_t top = d->n_whole > 0 ? d->n_whole - 1 : skip + 1, few = top < 10;
    power[0] = (char)('0' + top / 10);
    power[1] = (char)('0' + top % 10);
    uint32_t e = rx_cat(x, rx_rep(x, digit(x, '0', '0'), 0, few), rx_text(x, power + few, 2 - few));
    e = rx_cat(x, d->n_whole > 0 ? rx_rep(x, digit(x, '+', '+'), 0, 1) : digit(x, '-', '-'), e);
    uint32_t rest = n > 1 ? rx_cat(x, point, rx_cat(x, rx_text(x, m + 1, n - 1), zeros)) : no_fraction;
    uint32_t mantissa = rx_cat(x, digit(x, m[0], m[0]), rest);
    out = rx_alt(x, out, rx_cat(x, mantissa, rx_cat(x, pattern(x, "[eE]"), e)));
    return rx_cat(x, d->negative ? digit(x, '-', '-') : RX_EPS, out);
}

bool rx_number_equal(struct rx *x, const char *number, size_t size, uint32_t *out)
{
    uint32_t from, above;
    struct decimal d;
    if (!read_decimal(number, size, &d))
        return false;
    uint32_t n_shown = d.n_whole;
    while (n_shown > 0 && d.whole[n_shown - 1] == '0')
        n_shown--;
    if (n_shown > 15 && d.n_fraction == 0) { /* more digits than a double tells apart: as a whole number only */
        uint32_t zeros = is_double(&d) ? pattern(x, "(\\.0+)?") : RX_EPS;
        *out = rx_cat(x, d.negative ? digit(x, '-', '-') : RX_EPS, rx_cat(x, rx_text(x, d.whole, d.n_whole), zeros));
        return true;
    }
    if (n_shown + d.n_fraction > 0 && d.n_whole <= 13 && d.n_whole + d.n_fraction <= 15) {
        *out = spellings(x, &d);
        return true;
    }
    if (!rx_number_from(x, number, size, false, &from) || !rx_number_from(x, number, size, true, &above))
        return false;
    *out = rx_and(x, from, rx_not(x, above));
    return true;
}

/* ---- multiples ------------------------------------------------------------------------------------------------------------- */

/* The digits read so far make a whole number m, of which `rem` is m mod p; `f` of them stand behind the point, and `z` zeros
 * wait there, which count only if another digit follows. The value is m / 10^f * 10^x, a multiple of p / 10^k where
 * m * 10^(x - f + k) is one of p: for all x from some least one on. */
enum { AT_SIGN, AT_FIRST, AT_ZERO, AT_WHOLE, AT_POINT, AT_FRACTION };
#define FRACTION_MAX 18u

struct place {
    uint32_t at, f, z;
    bool strict; /* no more digits behind the point than the divisor has */
};

static uint32_t pack(struct place p)
{
    return p.at | p.f << 4 | p.z << 9 | (uint32_t)p.strict << 14;
}

static struct place unpack(uint32_t v)
{
    return (struct place){ v & 15, v >> 4 & 31, v >> 9 & 31, v >> 14 & 1 };
}

/* The least power of ten that makes a multiple; INT32_MAX: none does. */
static int32_t least_power(struct rx_divisor d, uint32_t rem, uint32_t f)
{
    uint64_t v = rem % d.p;
    int32_t n = 0;
    for (; v != 0 && n < 32; n++) /* p has at most 31 factors of 2 or 5 */
        v = v * 10 % d.p;
    return v == 0 ? n + (int32_t)f - (int32_t)d.k : INT32_MAX;
}

bool rx_mod_nullable(const struct rx *x, uint32_t divisor, uint32_t rem, uint32_t phase)
{
    struct place at = unpack(phase);
    bool whole = at.at == AT_ZERO || at.at == AT_WHOLE || at.at == AT_FRACTION;
    return whole && least_power(x->divisor[divisor], rem, at.f) <= 0;
}

/* Ten more digits reach any remainder, an exponent takes the point away again. */
bool rx_mod_is_open(uint32_t phase)
{
    struct place p = unpack(phase);
    return p.at <= AT_WHOLE || (!p.strict && p.at <= AT_FRACTION && p.f + p.z + 10 < FRACTION_MAX);
}

static void put(struct rx *x, uint32_t lo, uint32_t hi, uint32_t node)
{
    if (node != RX_EMPTY && rx_grow(x, &x->scratch, &x->scratch_cap, (uint64_t)x->n_scratch + 1, sizeof *x->scratch))
        x->scratch[x->n_scratch++] = (struct rx_move){ lo, hi, node };
}

static void put_digits(struct rx *x, uint32_t divisor, uint32_t from, uint32_t rem, uint64_t scale, struct place to)
{
    uint32_t p = x->divisor[divisor].p;
    for (uint32_t c = from; c < 10; c++)
        put(x, '0' + c, '0' + c, rx_mod(x, divisor, (uint32_t)((rem * scale + c) % p), pack(to)));
}

/* The largest power of ten behind one digit and f more that leaves a whole number which a double holds as it is: the digits
 * times 5^n are at most 2^53. Below 10^8 all are. */
static int32_t largest_power(uint32_t f)
{
    uint64_t room = (uint64_t)1 << 53;
    int32_t n = 0;
    for (uint32_t i = 0; i <= f; i++)
        room /= 10;
    for (; room >= 5; room /= 5)
        n++;
    return room > 0 ? (int32_t)f + n : 7;
}

static void put_exponent(struct rx *x, uint32_t divisor, uint32_t rem, struct place at)
{
    int32_t least = least_power(x->divisor[divisor], rem, at.f);
    uint32_t p = x->divisor[divisor].p;
    for (uint32_t i = 0; i < x->divisor[divisor].k && p % 5 == 0; i++) /* 0.5 is a power of two as well */
        p /= 5;
    uint32_t node = least == INT32_MAX ? RX_EMPTY : power_above(x, least - 1);
    if ((p & (p - 1)) != 0 && node != RX_EMPTY) /* what a double rounds is sure to be a multiple of powers of two only */
        node = rx_and(x, node, rx_not(x, power_above(x, largest_power(at.f))));
    put(x, 'E', 'E', node);
    put(x, 'e', 'e', node);
}

static void fraction_moves(struct rx *x, uint32_t divisor, uint32_t rem, struct place at)
{
    uint32_t p = x->divisor[divisor].p;
    uint64_t scale = 1;
    struct place zero_more = at, digit_more = { AT_FRACTION, at.f + at.z + 1, 0, at.strict };
    bool full = at.f + at.z >= (at.strict ? x->divisor[divisor].k : FRACTION_MAX);
    zero_more.at = AT_FRACTION;
    zero_more.z += !full;
    put(x, '0', '0', rx_mod(x, divisor, rem, pack(zero_more)));
    for (uint32_t i = 0; i < at.z + 1; i++)
        scale = scale * 10 % p;
    if (!full)
        put_digits(x, divisor, 1, rem, scale, digit_more);
}

void rx_mod_moves(struct rx *x, uint32_t node)
{
    uint32_t divisor = x->node[node].b, rem = x->node[node].lo;
    struct place at = unpack(x->node[node].hi), to = at;
    x->work += 48; /* ten moves with a division each, hardly ever to where another one leads */
    switch (at.at) {
    case AT_SIGN:
        to.at = AT_FIRST;
        put(x, '-', '-', rx_mod(x, divisor, 0, pack(to))); /* and what AT_FIRST has */
        /* fall through */
    case AT_FIRST:
        to.at = AT_ZERO;
        put(x, '0', '0', rx_mod(x, divisor, 0, pack(to)));
        to.at = AT_WHOLE;
        put_digits(x, divisor, 1, 0, 0, to);
        break;
    case AT_ZERO:
    case AT_WHOLE:
        to.at = AT_POINT;
        put(x, '.', '.', rx_mod(x, divisor, rem, pack(to)));
        to.at = AT_WHOLE;
        if (at.at == AT_WHOLE)
            put_digits(x, divisor, 0, rem, 10, to);
        put_exponent(x, divisor, rem, at);
        break;
    case AT_POINT: fraction_moves(x, divisor, rem, at); break;
    case AT_FRACTION:
        fraction_moves(x, divisor, rem, at);
        put_exponent(x, divisor, rem, at);
        break;
    default: break;
    }
}

/* strict: for intersections with other sets, whose emptiness must be found out. A divisor with other factors than 2 and 5
 * always is. */
uint32_t rx_multiple(struct rx *x, uint32_t p, uint32_t k, bool strict)
{
    uint32_t i = 0, odd = p;
    while (odd % 2 == 0)
        odd /= 2;
    while (odd % 5 == 0)
        odd /= 5;
    while (i < x->n_divisor && (x->divisor[i].p != p || x->divisor[i].k != k))
        i++;
    if (!rx_grow(x, &x->divisor, &x->divisor_cap, (uint64_t)i + 1, sizeof *x->divisor))
        return RX_EMPTY;
    x->divisor[i] = (struct rx_divisor){ p, k };
    x->n_divisor += i == x->n_divisor;
    return rx_mod(x, i, 0, pack((struct place){ .at = AT_SIGN, .strict = strict || odd > 1 }));
}

bool rx_divisor_read(const char *number, size_t size, uint32_t *p, uint32_t *k)
{
    struct decimal d;
    uint64_t v = 0;
    if (!read_decimal(number, size, &d) || d.negative || d.n_whole + d.n_fraction == 0 || d.n_fraction > 18)
        return false;
    for (uint32_t i = 0; i < d.n_whole + d.n_fraction; i++) {
        v = v * 10 + (uint64_t)((i < d.n_whole ? d.whole[i] : d.fraction[i - d.n_whole]) - '0');
        if (v > 0x7FFFFFFF)
            return false;
    }
    *p = (uint32_t)v;
    *k = d.n_fraction;
    return true;
}
