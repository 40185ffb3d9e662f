/* rx_format.c: JSON Schema's formats as patterns, from the RFCs that define them (3339, 5321, 1123, 4291, 3986, 3987, 6570,
 * 6901, 9562). A format that no automaton can check is refused; one that is not known is an annotation.
 */
#include "rx.h"

#include <string.h>

#define DATE "(?!0000)(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|" \
    "02-(?:0[1-9]|1\\d|2[0-8]))|(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
#define OFFSET "(?:[Zz]|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
/* A leap second is one only at 23:59:60 UTC; offsets of whole hours are those that are told from others. */
#define LEAP "(?:23:59:60(?:\\.\\d+)?(?:[Zz]|[+-]00:00)|" \
    "00:59:60(?:\\.\\d+)?\\+01:00|01:59:60(?:\\.\\d+)?\\+02:00|02:59:60(?:\\.\\d+)?\\+03:00|03:59:60(?:\\.\\d+)?\\+04:00|" \
    "04:59:60(?:\\.\\d+)?\\+05:00|05:59:60(?:\\.\\d+)?\\+06:00|06:59:60(?:\\.\\d+)?\\+07:00|07:59:60(?:\\.\\d+)?\\+08:00|" \
    "08:59:60(?:\\.\\d+)?\\+09:00|09:59:60(?:\\.\\d+)?\\+10:00|10:59:60(?:\\.\\d+)?\\+11:00|11:59:60(?:\\.\\d+)?\\+12:00|" \
    "01:29:60(?:\\.\\d+)?\\+01:30|23:29:60(?:\\.\\d+)?\\+23:30|" \
    "22:59:60(?:\\.\\d+)?(?:-01:00|\\+23:00)|21:59:60(?:\\.\\d+)?-02:00|20:59:60(?:\\.\\d+)?-03:00|" \
    "19:59:60(?:\\.\\d+)?-04:00|18:59:60(?:\\.\\d+)?-05:00|17:59:60(?:\\.\\d+)?-06:00|16:59:60(?:\\.\\d+)?-07:00|" \
    "15:59:60(?:\\.\\d+)?-08:00|14:59:60(?:\\.\\d+)?-09:00|13:59:60(?:\\.\\d+)?-10:00|12:59:60(?:\\.\\d+)?-11:00|" \
    "11:59:60(?:\\.\\d+)?-12:00|15:29:60(?:\\.\\d+)?-08:30|00:29:60(?:\\.\\d+)?(?:\\+00:30|-23:30))"
#define TIME "(?:(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d+)?" OFFSET "|" LEAP ")"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4 OCTET "(?:\\." OCTET "){3}"
#define H "[0-9A-Fa-f]{1,4}"
#define LS32 "(?:" H ":" H "|" IPV4 ")"
#define IPV6 "\1" /* stands for ipv6 below: patterns are put together when they are read */
static const char ipv6[] = "(?:(?:" H ":){6}" LS32 "|::(?:" H ":){5}" LS32 "|(?:" H ")?::(?:" H ":){4}" LS32 "|"
    "(?:(?:" H ":){0,1}" H ")?::(?:" H ":){3}" LS32 "|(?:(?:" H ":){0,2}" H ")?::(?:" H ":){2}" LS32 "|"
    "(?:(?:" H ":){0,3}" H ")?::" H ":" LS32 "|(?:(?:" H ":){0,4}" H ")?::" LS32 "|"
    "(?:(?:" H ":){0,5}" H ")?::" H "|(?:(?:" H ":){0,6}" H ")?::)";
#define ATEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define MAIL_HOST "(?:" LABEL "(?:\\." LABEL ")*|\\[" IPV4 "\\]|\\[IPv6:" IPV6 "\\])"
#define EMAIL "(?:" ATEXT "(?:\\." ATEXT ")*|\"(?:[ !#-\\[\\]-~]|\\\\[ -~])*\")@" MAIL_HOST
#define UTEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\u0080-\\uD7FF\\uE000-\\u{10FFFF}-]+"
#define ULABEL "[A-Za-z0-9\\u00C0-\\uD7FF\\uF900-\\uFDCF\\u{10000}-\\u{10FFFF}](?:[A-Za-z0-9\\u00C0-\\uD7FF-]{0,61}[A-Za-z0-9\\u00C0-\\uD7FF])?"
#define UMAIL "(?:" UTEXT "(?:\\." UTEXT ")*|\"(?:[ !#-\\[\\]-~\\u0080-\\uD7FF\\uE000-\\u{10FFFF}]|\\\\[ -~])*\")@(?:" ULABEL "(?:\\." ULABEL ")*|\\[" IPV4 "\\]|\\[IPv6:" IPV6 "\\])"

/* RFC 3986, and 3987 with U among the characters. */
#define PCT "%[0-9A-Fa-f]{2}"
#define SUB "!$&'()*+,;="
#define UNRESERVED "A-Za-z0-9._~\\-"
#define UCS "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{2FFFD}\\u{30000}-\\u{3FFFD}\\u{E1000}-\\u{EFFFD}"
#define PCHAR(U) "(?:[" UNRESERVED SUB ":@" U "]|" PCT ")"
#define SEGMENTS(U) "(?:/" PCHAR(U) "*)*"
#define AUTHORITY(U) "(?:(?:[" UNRESERVED SUB ":" U "]|" PCT ")*@)?" \
    "(?:\\[(?:" IPV6 "|[vV][0-9A-Fa-f]+\\.[" UNRESERVED SUB ":]+)\\]|(?:[" UNRESERVED SUB U "]|" PCT ")*)(?::\\d*)?"
#define AFTER(U, P) "(?:\\?(?:" PCHAR(U P) "|[/?])*)?(?:#(?:" PCHAR(U) "|[/?])*)?"
#define SCHEME "[A-Za-z][A-Za-z0-9+.\\-]*:"
#define PATHS(U) "(?://" AUTHORITY(U) SEGMENTS(U) "|/(?:" PCHAR(U) "+" SEGMENTS(U) ")?|" PCHAR(U) "+" SEGMENTS(U) ")?"
#define PRIVATE "\\uE000-\\uF8FF\\u{F0000}-\\u{FFFFD}\\u{100000}-\\u{10FFFD}"
#define URI(U, P) SCHEME PATHS(U) AFTER(U, P)
#define NO_COLON(U) "(?:[" UNRESERVED SUB "@" U "]|" PCT ")"
#define RELATIVE(U, P) "(?://" AUTHORITY(U) SEGMENTS(U) "|/(?:" PCHAR(U) "+" SEGMENTS(U) ")?|" NO_COLON(U) "+" SEGMENTS(U) ")?" AFTER(U, P)
#define REFERENCE(U, P) "(?:" URI(U, P) "|" RELATIVE(U, P) ")"

#define VARIABLE "(?:[A-Za-z0-9_]|" PCT ")(?:\\.?(?:[A-Za-z0-9_]|" PCT "))*(?::[1-9]\\d{0,3}|\\*)?"
#define TEMPLATE "(?:[!#$&-;=?-\\[\\]_a-z~" UCS "]|" PCT "|\\{[+#./;?&=,!@|]?" VARIABLE "(?:," VARIABLE ")*\\})*"
#define POINTER "(?:/(?:[^~/]|~[01])*)*"

#define DAY "\\d+D"
#define MONTH "\\d+M(?:" DAY ")?"
#define YEAR "\\d+Y(?:" MONTH ")?"
#define SECOND "\\d+S"
#define MINUTE "\\d+M(?:" SECOND ")?"
#define HOUR "\\d+H(?:" MINUTE ")?"
#define SPAN "T(?:" HOUR "|" MINUTE "|" SECOND ")"
#define DURATION "P(?:(?:" DAY "|" MONTH "|" YEAR ")(?:" SPAN ")?|" SPAN "|\\d+W)"

static const struct {
    const char *name, *pattern; /* NULL: cannot be checked */
} formats[] = {
    { "date", DATE }, { "time", TIME }, { "date-time", DATE "[Tt]" TIME }, { "duration", DURATION },
    { "email", EMAIL }, { "idn-email", UMAIL }, { "idn-hostname", NULL },
    { "hostname", NULL }, /* which A-labels (xn--) are valid, Punycode and the rules of RFC 5892 say */
    { "ipv4", IPV4 }, { "ipv6", IPV6 }, { "uuid", "[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}" },
    { "uri", URI("", "") }, { "uri-reference", REFERENCE("", "") }, { "iri", URI(UCS, PRIVATE) }, { "iri-reference", REFERENCE(UCS, PRIVATE) },
    { "uri-template", TEMPLATE }, { "json-pointer", POINTER },
    { "relative-json-pointer", "(?:0|[1-9]\\d*)(?:#|" POINTER ")" }, { "regex", NULL },
};

static int32_t compose(struct rx *x, const char *pattern, uint32_t *out, glm_error *err)
{
    struct buf text;
    buf_init(&text, x->mem);
    for (; *pattern; pattern++) {
        if (*pattern == 1)
            buf_str(&text, ipv6);
        else
            buf_char(&text, *pattern);
    }
    int32_t rc = text.failed ? err_nomem(err, "a format") : rx_pattern(x, text.data, text.size, true, out, err);
    buf_free(&text);
    return rc;
}

int32_t rx_format(struct rx *x, const char *name, size_t size, bool *known, uint32_t *out, glm_error *err)
{
    *known = false;
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        if (strlen(formats[i].name) != size || memcmp(formats[i].name, name, size) != 0)
            continue;
        *known = true;
        if (formats[i].pattern == NULL)
            return err_set(err, GLM_ESCHEMA, 0, NULL, "the format \"%s\" cannot be enforced", formats[i].name);
        return compose(x, formats[i].pattern, out, err);
    }
    return 0;
}
