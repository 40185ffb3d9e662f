/* json_number.c: numbers between their decimal spelling and binary, exactly and without the C
 * library, whose functions read the locale and the rounding mode. Everything is integer arithmetic:
 * a host may compute with its own rounding. Owns nothing; big integers live on the stack (half a
 * KiB each). */
#include "base.h"
#include "base_int.h"

#include <string.h>

/* ---- decimal spelling ------------------------------------------------------------------------ */

/* |value| = 0.d1 d2 ... dn x 10^point, d1 and dn not zero; n = 0: zero. The digits stand in
 * first..end, maybe with a decimal point among them. */
struct decimal {
    const char *first, *end;
    size_t n;
    int64_t point;
    bool negative;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Far beyond any double, and no digits of a document can make up for it. */
#define EXPONENT_MAX (INT64_C(1) << 60)

static int64_t read_exponent(const char *text, const char *end)
{
    int64_t value = 0;
    bool negative = false;

    if (text == end)
        return 0;
    text++; /* the e */
    if (*text == '+' || *text == '-')
        negative = *text++ == '-';
    for (; text < end; text++)
        value = value > EXPONENT_MAX / 10 ? EXPONENT_MAX : 10 * value + (*text - '0');
    return negative ? -value : value;
}

static struct decimal read_decimal(const struct json *v)
{
    const char *at = v->text, *end = v->text + v->size;
    struct decimal d = {NULL, NULL, 0, 0, false};
    int64_t index = 0, dot = -1, first = 0, last = 0;

    if (*at == '-') {
        d.negative = true;
        at++;
    }
    for (; at < end && (is_digit(*at) || *at == '.'); at++) {
        if (*at == '.') {
            dot = index;
            continue;
        }
        if (*at != '0') {
            if (!d.first) {
                d.first = at;
                first = index;
            }
            d.end = at + 1;
            last = index;
        }
        index++;
    }
    if (d.first) {
        d.n = (size_t)(last - first + 1);
        d.point = (dot < 0 ? index : dot) - first + read_exponent(at, end);
    }
    return d;
}

/* The next digit at *at, which moves behind it. */
static char next_digit(const char **at)
{
    if (**at == '.')
        (*at)++;
    return *(*at)++;
}

bool decimal_equal(const struct json *a, const struct json *b)
{
    struct decimal x = read_decimal(a), y = read_decimal(b);

    if (x.n != y.n || x.point != y.point || (x.n && x.negative != y.negative))
        return false;
    for (size_t i = 0; i < x.n; i++)
        if (next_digit(&x.first) != next_digit(&y.first))
            return false;
    return true;
}

/* ---- integers -------------------------------------------------------------------------------- */

static bool magnitude(const struct decimal *d, uint64_t *out)
{
    const char *at = d->first;
    uint64_t value = 0;

    if (d->n && (d->point < (int64_t)d->n || d->point > 20))
        return false;
    for (int64_t i = 0; d->n && i < d->point; i++) {
        uint64_t digit = i < (int64_t)d->n ? (uint64_t)(next_digit(&at) - '0') : 0;
        if (!ck_mul(value, 10, &value) || !ck_add(value, digit, &value))
            return false;
    }
    *out = value;
    return true;
}

bool json_u64(const struct json *v, uint64_t *out)
{
    struct decimal d;
    uint64_t value;

    if (!v || v->type != JSON_NUMBER)
        return false;
    d = read_decimal(v);
    if (!magnitude(&d, &value) || (d.negative && value))
        return false;
    *out = value;
    return true;
}

bool json_i64(const struct json *v, int64_t *out)
{
    struct decimal d;
    uint64_t value;

    if (!v || v->type != JSON_NUMBER)
        return false;
    d = read_decimal(v);
    if (!magnitude(&d, &value) || value > (uint64_t)INT64_MAX + d.negative)
        return false;
    *out = d.negative ? -(int64_t)(value / 2) - (int64_t)(value - value / 2) : (int64_t)value;
    return true;
}

/* ---- big integers ---------------------------------------------------------------------------- */

/* The largest here: 771 digits over 10^1116, in front of which 64 bits of quotient: 3,800 bits. */
enum { BIG_WORDS = 128 };

struct big {
    uint32_t n; /* words; the last one is not zero */
    uint32_t w[BIG_WORDS];
};

static void big_set(struct big *b, uint64_t v)
{
    b->w[0] = (uint32_t)v;
    b->w[1] = (uint32_t)(v >> 32);
    b->n = b->w[1] ? 2 : b->w[0] ? 1 : 0;
}

/* b = b * factor + add */
static void big_scale(struct big *b, uint32_t factor, uint32_t add)
{
    uint64_t carry = add;

    for (uint32_t i = 0; i < b->n; i++) {
        carry += (uint64_t)b->w[i] * factor;
        b->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry)
        b->w[b->n++] = (uint32_t)carry;
}

static void big_scale_pow10(struct big *b, uint32_t exponent)
{
    for (; exponent >= 9; exponent -= 9)
        big_scale(b, 1000000000, 0);
    for (; exponent; exponent--)
        big_scale(b, 10, 0);
}

static void big_shift(struct big *b, uint32_t bits)
{
    uint32_t words = bits / 32;

    big_scale(b, UINT32_C(1) << bits % 32, 0);
    if (!words || !b->n)
        return;
    memmove(b->w + words, b->w, b->n * sizeof b->w[0]);
    memset(b->w, 0, words * sizeof b->w[0]);
    b->n += words;
}

static int32_t big_bits(const struct big *b)
{
    return b->n ? (int32_t)(32 * b->n) - __builtin_clz(b->w[b->n - 1]) : 0;
}

static int big_compare(const struct big *a, const struct big *b)
{
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    for (uint32_t i = a->n; i-- > 0;)
        if (a->w[i] != b->w[i])
            return a->w[i] < b->w[i] ? -1 : 1;
    return 0;
}

static void big_trim(struct big *b)
{
    while (b->n && !b->w[b->n - 1])
        b->n--;
}

/* a + b compared with c */
static int big_compare_sum(const struct big *a, const struct big *b, const struct big *c)
{
    struct big sum = *a;
    uint64_t carry = 0;

    for (uint32_t i = 0; i < b->n || carry; i++) {
        carry += (i < sum.n ? sum.w[i] : 0) + (uint64_t)(i < b->n ? b->w[i] : 0);
        sum.w[i] = (uint32_t)carry;
        carry >>= 32;
        if (i >= sum.n)
            sum.n = i + 1;
    }
    return big_compare(&sum, c);
}

/* a -= b * factor, where a has a word more than b or as many; returns what could not be taken from
 * a's highest word. */
static uint32_t big_take(struct big *a, const struct big *b, uint32_t factor)
{
    uint64_t carry = 0;

    for (uint32_t i = 0; i < a->n; i++) {
        uint64_t product = carry + (i < b->n ? (uint64_t)b->w[i] * factor : 0);
        uint32_t low = (uint32_t)product;
        carry = (product >> 32) + (a->w[i] < low);
        a->w[i] -= low;
    }
    return (uint32_t)carry;
}

/* a / b below 2^32, a becomes the remainder; b's highest bit is set: then the guess from the
 * highest words is at most two too large (Knuth, volume 2, 4.3.1 D). */
static uint32_t big_divide(struct big *a, const struct big *b)
{
    uint64_t top, guess;
    uint32_t missing;

    if (big_compare(a, b) < 0)
        return 0;
    top = a->w[a->n - 1];
    if (a->n > b->n)
        top = top << 32 | a->w[a->n - 2];
    guess = top / b->w[b->n - 1];
    if (guess > UINT32_MAX)
        guess = UINT32_MAX;
    missing = big_take(a, b, (uint32_t)guess);
    while (missing) { /* add b back */
        uint64_t carry = 0;
        for (uint32_t i = 0; i < a->n; i++) {
            carry += (uint64_t)a->w[i] + (i < b->n ? b->w[i] : 0);
            a->w[i] = (uint32_t)carry;
            carry >>= 32;
        }
        missing -= (uint32_t)carry;
        guess--;
    }
    big_trim(a);
    return (uint32_t)guess;
}

/* ---- decimal to double ----------------------------------------------------------------------- */

/* No tie between two doubles has more digits: beyond, only whether something follows matters. */
enum { DIGITS_MAX = 770 };

/* The double nearest to (quotient + something below 1 where inexact) x 2^-scale, as bits; quotient
 * >= 2^62. */
static uint64_t round_to_double(uint64_t quotient, bool inexact, int32_t scale)
{
    int32_t drop = 64 - __builtin_clzll(quotient) - 53;
    uint64_t kept, rest, half;

    if (drop < scale - 1074)
        drop = scale - 1074; /* subnormal */
    if (drop > 64)
        return 0;
    kept = drop < 64 ? quotient >> drop : 0;
    rest = drop < 64 ? quotient & ((UINT64_C(1) << drop) - 1) : quotient;
    half = UINT64_C(1) << (drop - 1);
    if (rest > half || (rest == half && (inexact || kept & 1)))
        kept++;
    return ((uint64_t)(drop - scale + 1074) << 52) + kept; /* kept carries into the exponent */
}

/* Digits as an integer x 10^exponent, as a fraction of big integers, as 63 or 64 bits. */
static uint64_t decimal_bits(const struct decimal *d)
{
    struct big num, den, high;
    const char *at = d->first;
    size_t n = d->n < DIGITS_MAX ? d->n : DIGITS_MAX;
    int64_t exponent = d->point - (int64_t)n;
    int32_t scale, align;
    uint64_t quotient;

    big_set(&num, 0);
    big_set(&den, 1);
    for (size_t i = 0; i < n; i++)
        big_scale(&num, 10, (uint32_t)(next_digit(&at) - '0'));
    if (d->n > n) { /* the last digit is not zero */
        big_scale(&num, 10, 1);
        exponent--;
    }
    if (exponent >= 0)
        big_scale_pow10(&num, (uint32_t)exponent);
    else
        big_scale_pow10(&den, (uint32_t)-exponent);
    scale = big_bits(&den) + 63 - big_bits(&num);
    align = (32 - big_bits(&den) % 32) % 32 + (scale < 0 ? 32 * ((31 - scale) / 32) : 0);
    big_shift(&den, (uint32_t)align);
    big_shift(&num, (uint32_t)(align + scale));
    high = den;
    big_shift(&high, 32);
    quotient = (uint64_t)big_divide(&num, &high) << 32;
    quotient |= big_divide(&num, &den);
    return round_to_double(quotient, num.n != 0, scale);
}

bool json_f64(const struct json *v, double *out)
{
    const uint64_t infinity = UINT64_C(0x7ff) << 52;
    struct decimal d;
    uint64_t bits = 0;

    if (!v || v->type != JSON_NUMBER)
        return false;
    d = read_decimal(v);
    if (d.n && d.point > 310)
        bits = infinity;
    else if (d.n && d.point > -345)
        bits = decimal_bits(&d);
    if (bits > infinity)
        bits = infinity;
    bits |= (uint64_t)d.negative << 63;
    memcpy(out, &bits, sizeof bits);
    return (bits & infinity) != infinity;
}

/* ---- double to decimal ----------------------------------------------------------------------- */

enum { SHORTEST_MAX = 17 };

/* The value as rest / unit, and half the distances to its neighbours in the same unit. */
struct interval {
    struct big rest, unit, above, below;
    bool even; /* then the ends of the interval round to the value, too */
};

static void interval_init(struct interval *i, uint64_t mantissa, int32_t exponent)
{
    bool narrow =
        mantissa == UINT64_C(1) << 52 && exponent > -1074; /* the neighbour below is half as far */
    uint32_t up = exponent > 0 ? (uint32_t)exponent : 0,
             down = exponent < 0 ? (uint32_t)-exponent : 0;

    big_set(&i->rest, mantissa);
    big_set(&i->unit, 1);
    big_set(&i->above, 1);
    big_set(&i->below, 1);
    big_shift(&i->rest, up + 1 + narrow);
    big_shift(&i->unit, down + 1 + narrow);
    big_shift(&i->above, up + narrow);
    big_shift(&i->below, up);
    i->even = !(mantissa & 1);
}

static bool reaches_unit(const struct interval *i)
{
    return big_compare_sum(&i->rest, &i->above, &i->unit) >= (i->even ? 0 : 1);
}

/* Brings the value into [unit / 10, unit); returns the power of ten taken out. */
static int32_t interval_scale(struct interval *i, uint64_t mantissa, int32_t exponent)
{
    int32_t log2 = 63 - __builtin_clzll(mantissa) + exponent;
    int32_t point =
        (log2 * 1233 - (log2 < 0 ? 4095 : 0)) / 4096; /* log10(2), from below or one too small */

    if (point >= 0) {
        big_scale_pow10(&i->unit, (uint32_t)point);
    } else {
        big_scale_pow10(&i->rest, (uint32_t)-point);
        big_scale_pow10(&i->above, (uint32_t)-point);
        big_scale_pow10(&i->below, (uint32_t)-point);
    }
    for (; reaches_unit(i); point++)
        big_scale(&i->unit, 10, 0);
    return point;
}

/* Steele and White's free-format digits: stop as soon as what is written is nearer to the value
 * than to any other. Returns the number of digits; value = 0.d1 d2 ... x 10^*point. */
static uint32_t shortest_digits(
    uint64_t mantissa, int32_t exponent, char digits[SHORTEST_MAX], int32_t *point)
{
    struct interval i;
    uint32_t n = 0;

    interval_init(&i, mantissa, exponent);
    *point = interval_scale(&i, mantissa, exponent);
    for (;;) {
        char digit = '0';
        bool low, high;

        big_scale(&i.rest, 10, 0);
        big_scale(&i.above, 10, 0);
        big_scale(&i.below, 10, 0);
        for (; big_compare(&i.rest, &i.unit) >= 0; digit++) {
            big_take(&i.rest, &i.unit, 1);
            big_trim(&i.rest);
        }
        low = big_compare(&i.rest, &i.below) < (i.even ? 1 : 0);
        high = reaches_unit(&i);
        if (low || high || n == SHORTEST_MAX - 1) {
            int half = big_compare_sum(&i.rest, &i.rest, &i.unit);
            if (low == high ? half > 0 || (half == 0 && digit & 1) : high)
                digit++;
            digits[n++] = digit;
            return n;
        }
        digits[n++] = digit;
    }
}

/* Python's repr: an exponent below 1e-4 and from 1e16 on, ".0" behind whole numbers. */
static void put_digits(struct buf *b, const char *digits, uint32_t n, int32_t point)
{
    if (point > 16 || point < -3) {
        uint32_t exponent = (uint32_t)(point > 0 ? point - 1 : 1 - point);
        buf_put(b, digits, 1);
        if (n > 1) {
            buf_char(b, '.');
            buf_put(b, digits + 1, n - 1);
        }
        buf_put(b, point > 0 ? "e+" : "e-", 2);
        if (exponent < 10)
            buf_char(b, '0');
        buf_u64(b, exponent);
    } else if (point <= 0) {
        buf_put(b, "0.000", (size_t)(2 - point));
        buf_put(b, digits, n);
    } else if (n <= (uint32_t)point) {
        buf_put(b, digits, n);
        buf_put(b, "0000000000000000", (uint32_t)point - n);
        buf_put(b, ".0", 2);
    } else {
        buf_put(b, digits, (uint32_t)point);
        buf_char(b, '.');
        buf_put(b, digits + point, n - (uint32_t)point);
    }
}

void json_put_f64(struct buf *b, double v)
{
    uint64_t bits, mantissa;
    int32_t exponent, point;
    uint32_t n;
    char digits[SHORTEST_MAX];

    memcpy(&bits, &v, sizeof bits);
    mantissa = bits & ((UINT64_C(1) << 52) - 1);
    exponent = (int32_t)(bits >> 52 & 0x7ff);
    if (exponent == 0x7ff && mantissa) {
        buf_put(b, "NaN", 3);
        return;
    }
    if (bits >> 63)
        buf_char(b, '-');
    if (exponent == 0x7ff) {
        buf_put(b, "Infinity", 8);
    } else if (!exponent && !mantissa) {
        buf_put(b, "0.0", 3);
    } else {
        if (exponent)
            mantissa |= UINT64_C(1) << 52;
        else
            exponent = 1;
        n = shortest_digits(mantissa, exponent - 1075, digits, &point);
        put_digits(b, digits, n, point);
    }
}
