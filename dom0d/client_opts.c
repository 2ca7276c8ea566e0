/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client_opts.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"
#include "log.h"

#define MAX_OPTIONS 7 /* of one subcommand, help included */
#define MAX_RATE_BYTES (1ll << 40)
#define MAX_CHANNELS 16
#define MAX_LINES 1024 /* what the daemon keeps */
#define MAX_HOURS 168
#define MAX_SECONDS (31 * 86400)
#define MIN_INTERVAL_MS 50
#define MAX_INTERVAL_MS 60000
#define MAX_DELAY_S 86400.0
#define MAX_DISK 15 /* letters of a virtual device */
#define LONG_ONLY 0x1000

enum { EXIT_PARSED = -1, EXIT_USAGE = 2 };

struct option_row {
    const char *name;
    int letter;      /* LONG_ONLY + n: no short form */
    const char *arg; /* NULL: a flag */
    const char *help;
};

struct verb_row {
    const char *name, *operands, *help;
    int least, most; /* operands */
    struct option_row option[MAX_OPTIONS];
};

enum {
    OPT_JSON = LONG_ONLY,
    OPT_RATE,
    OPT_CHANNELS,
    OPT_COMMAND,
    OPT_LEVEL,
    OPT_UUID,
    OPT_NAME,
    OPT_LIST,
    OPT_HOURS,
    OPT_SECONDS,
    OPT_INTERVAL,
    OPT_FORCE,
    OPT_OVERWRITE,
    OPT_TEMPLATE,
    OPT_HOST,
    OPT_DISK,
};

#define HELP_ROW                                                               \
    {                                                                          \
        "help", 'h', NULL, "show this help"                                    \
    }
#define JSON_ROW                                                               \
    {                                                                          \
        "json", OPT_JSON, NULL, "print JSON"                                   \
    }

/* In the order of enum fc_client_verb. */
static const struct verb_row verbs[] = {
    [FC_VERB_ARM] = { "arm",
                      "DOMAIN HOST",
                      "stage a guest's pages at HOST ahead of a migration",
                      2,
                      2,
                      { { "rate", OPT_RATE, "BYTES[k|M|G]",
                          "send at most so much a second for staging" },
                        { "channels", OPT_CHANNELS, "N",
                          "use N connections (1-16)" },
                        { "command", OPT_COMMAND, "CMD",
                          "connect by CMD (%h: HOST, %u: the guest's uuid)" },
                        HELP_ROW } },
    [FC_VERB_DISARM] = { "disarm",
                         "DOMAIN",
                         "stop staging and free what is staged",
                         1,
                         1,
                         { HELP_ROW } },
    [FC_VERB_STATUS] = { "status",
                         "[DOMAIN]",
                         "show the guests and how far their staging is",
                         0,
                         1,
                         { JSON_ROW,
                           { "batch", 'b', NULL,
                             "repeat without clearing the screen" },
                           { "delay", 'd', "SECONDS",
                             "repeat, with a pause of SECONDS (3)" },
                           { "iterations", 'i', "N", "repeat N times" },
                           HELP_ROW } },
    [FC_VERB_STAT] = { "stat",
                       "",
                       "show the daemon's counters",
                       0,
                       0,
                       { JSON_ROW, HELP_ROW } },
    [FC_VERB_LOG] = { "log",
                      "",
                      "show the daemon's last messages",
                      0,
                      0,
                      { { "lines", 'n', "N", "show N lines (50)" },
                        { "level", OPT_LEVEL, "LEVEL",
                          "least severe to show: error, warning, info, debug" },
                        JSON_ROW,
                        HELP_ROW } },
    [FC_VERB_SET] = { "set",
                      "KEY VALUE [DOMAIN]",
                      "change a setting while the daemon runs",
                      2,
                      3,
                      { HELP_ROW } },
    [FC_VERB_GET] = { "get",
                      "[KEY] [DOMAIN]",
                      "show the settings in force",
                      0,
                      2,
                      { JSON_ROW, HELP_ROW } },
    [FC_VERB_RANK] = { "rank",
                       "DOMAIN",
                       "show the predictor's ranked list of regions",
                       1,
                       1,
                       { { "list", OPT_LIST, "LIST", "staging or delta" },
                         { "lines", 'n', "N", "show N regions (50)" },
                         JSON_ROW,
                         HELP_ROW } },
    [FC_VERB_HEATMAP] = { "heatmap",
                          "DOMAIN",
                          "show which memory is expected to be written",
                          1,
                          1,
                          { { "output", 'o', "FILE.svg",
                              "write an SVG picture" },
                            JSON_ROW,
                            HELP_ROW } },
    [FC_VERB_WHEN] = { "when",
                       "DOMAIN",
                       "forecast migrations in the coming hours",
                       1,
                       1,
                       { { "hours", OPT_HOURS, "N",
                           "so many hours, 1 to 168 (24)" },
                         JSON_ROW,
                         HELP_ROW } },
    [FC_VERB_RECORD] = { "record",
                         "DOMAIN",
                         "record what the guest writes, or a disk's requests",
                         1,
                         1,
                         { { "disk", OPT_DISK, "[=VDEV]",
                             "a disk's requests instead of the memory" },
                           { "output", 'o', "FILE",
                             "write to FILE (NAME-TIME.fct)" },
                           { "seconds", OPT_SECONDS, "N",
                             "end after N seconds" },
                           { "interval", OPT_INTERVAL, "MS",
                             "take the log each MS (50-60000)" },
                           { "force", OPT_FORCE, NULL,
                             "overwrite FILE when it is there" },
                           JSON_ROW,
                           HELP_ROW } },
    [FC_VERB_DISKS] = { "disks",
                        "[DOMAIN]",
                        "show disks, their copies, and who owns them",
                        0,
                        1,
                        { JSON_ROW, HELP_ROW } },
    [FC_VERB_SHADOW] = { "shadow",
                         "DOMAIN HOST",
                         "keep a copy of a guest's disks at HOST",
                         2,
                         2,
                         { { "template", OPT_TEMPLATE, "PATH",
                             "path of the volumes there (%p, %u, %v, %n)" },
                           { "overwrite-disk", OPT_OVERWRITE, NULL,
                             "take volumes there that are not known as ours" },
                           HELP_ROW } },
    [FC_VERB_UNSHADOW] = { "unshadow",
                           "DOMAIN HOST",
                           "give that copy up",
                           2,
                           2,
                           { HELP_ROW } },
    [FC_VERB_LEASE] = { "lease",
                        "[show | override UUID VDEV]",
                        "show who owns which disk, or overrule it",
                        0,
                        3,
                        { { "host", OPT_HOST, "HOST",
                            "the owner to be (this host)" },
                          { "force", OPT_FORCE, NULL,
                            "overrule it, at the risk of losing data" },
                          JSON_ROW,
                          HELP_ROW } },
    [FC_VERB_RECEIVE] = { "receive",
                          "UUID",
                          "serve a channel on standard input and output",
                          1,
                          1,
                          { HELP_ROW } },
    [FC_VERB_PREPARE] = { "prepare",
                          "",
                          "make ready to receive a guest (the source calls it)",
                          0,
                          0,
                          { { "uuid", OPT_UUID, "UUID", "the guest's uuid" },
                            { "name", OPT_NAME, "NAME", "the guest's name" },
                            JSON_ROW,
                            HELP_ROW } },
    [FC_VERB_DISK_RECEIVE] = { "disk-receive",
                               "UUID VDEV",
                               "serve a disk's channel on standard input and "
                               "output",
                               2,
                               2,
                               { HELP_ROW } },
    [FC_VERB_DISK_PREPARE] = { "disk-prepare",
                               "",
                               "make volumes ready for disks (the source calls "
                               "it)",
                               0,
                               0,
                               { HELP_ROW } },
    [FC_VERB_VERSION] = { "version",
                          "",
                          "show the versions of program and daemon",
                          0,
                          0,
                          { JSON_ROW, HELP_ROW } },
    [FC_VERB_DOCTOR] = { "doctor",
                         "[DOMAIN] [HOST]",
                         "look for what would keep a migration from being "
                         "predictive",
                         0,
                         2,
                         { JSON_ROW, HELP_ROW } },
};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct option_row global[] = {
    HELP_ROW,
    { "version", 'V', NULL, "show the version of this program" },
};
#define GLOBALS (sizeof(global) / sizeof(global[0]))

/* Its value may be left out, and is joined by a "=". */
static bool is_optional(const struct option_row *o)
{
    return o->arg && *o->arg == '[';
}

static void print_option(FILE *out, const struct option_row *o)
{
    char left[64];
    int n = o->letter < LONG_ONLY
                ? snprintf(left, sizeof(left), "-%c, ", o->letter)
                : snprintf(left, sizeof(left), "    ");
    snprintf(left + n, sizeof(left) - (size_t)n, "--%s%s%s", o->name,
             o->arg && !is_optional(o) ? " " : "", o->arg ? o->arg : "");
    fprintf(out, "  %-28s %s\n", left, o->help);
}

static void print_usage(FILE *out)
{
    fprintf(out, "Usage: forecopy SUBCOMMAND [options] [operands]\n\n");
    for (unsigned i = 0; i < VERBS; i++)
        fprintf(out, "  %-12s %-19s %s\n", verbs[i].name, verbs[i].operands,
                verbs[i].help);
    fprintf(out, "\n");
    for (unsigned i = 0; i < GLOBALS; i++)
        print_option(out, &global[i]);
    fprintf(out, "\nforecopy SUBCOMMAND --help shows its options.\n");
}

static void print_verb_usage(FILE *out, const struct verb_row *v)
{
    fprintf(out, "Usage: forecopy %s [options]%s%s\n\n%s\n\n", v->name,
            *v->operands ? " " : "", v->operands, v->help);
    for (unsigned i = 0; i < MAX_OPTIONS && v->option[i].name; i++)
        print_option(out, &v->option[i]);
}

static void dump_option(FILE *out, const char *verb, const struct option_row *o)
{
    fprintf(out, "%s --%s\n", verb, o->name);
    if (o->letter < LONG_ONLY)
        fprintf(out, "%s -%c\n", verb, o->letter);
}

/* Every subcommand and each of its options, one a line. */
static void dump(FILE *out)
{
    for (unsigned i = 0; i < GLOBALS; i++)
        dump_option(out, "forecopy", &global[i]);
    for (unsigned i = 0; i < VERBS; i++) {
        fprintf(out, "%s\n", verbs[i].name);
        for (unsigned k = 0; k < MAX_OPTIONS && verbs[i].option[k].name; k++)
            dump_option(out, verbs[i].name, &verbs[i].option[k]);
    }
}

int64_t fc_client_bytes_parse(const char *text)
{
    static const char suffixes[] = "kmgt";
    char *end;
    errno = 0;
    if (*text < '0' || *text > '9')
        return -1;
    long long value = strtoll(text, &end, 10);
    if (errno)
        return -1;
    if (*end) {
        const char *s = strchr(suffixes, *end | 0x20);
        int shift = s ? 10 * (int)(s - suffixes + 1) : 0;
        if (!s || end[1] || value > INT64_MAX >> shift)
            return -1;
        value <<= shift;
    }
    return value;
}

static bool number(const char *text, int64_t least, int64_t most,
                   int64_t *value_r)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        return false;
    *value_r = value;
    return true;
}

static bool seconds(const char *text, double *value_r)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0) || value > MAX_DELAY_S)
        return false;
    *value_r = value;
    return true;
}

static bool rate(const char *text, int64_t *value_r)
{
    *value_r = fc_client_bytes_parse(text);
    return *value_r >= 0 && *value_r <= MAX_RATE_BYTES;
}

static bool is_uuid(const char *text)
{
    uint8_t uuid[FC_UUID_BYTES];
    return !fc_uuid_parse(text, uuid);
}

static bool is_disk(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789");
    return len > 0 && len <= MAX_DISK && !text[len];
}

/* Takes one option's value; false when it is no good. */
static bool take(struct fc_client_args *args, int letter, const char *value)
{
    switch (letter) {
    case OPT_JSON:
        args->json = true;
        return true;
    case 'b':
        args->batch = true;
        return true;
    case 'd':
        return seconds(value, &args->delay_s);
    case 'i':
        return number(value, 1, INT32_MAX, &args->iterations);
    case 'n':
        return number(value, 1, MAX_LINES, &args->lines);
    case OPT_RATE:
        return rate(value, &args->rate_bytes);
    case OPT_CHANNELS:
        return number(value, 1, MAX_CHANNELS, &args->channels);
    case OPT_COMMAND:
        args->command = value;
        return *value != '\0';
    case OPT_LEVEL:
        args->level = value;
        return fc_log_level_parse(value) >= 0;
    case OPT_LIST:
        args->list = value;
        return !strcmp(value, "staging") || !strcmp(value, "delta");
    case OPT_HOURS:
        return number(value, 1, MAX_HOURS, &args->hours);
    case OPT_SECONDS:
        return number(value, 1, MAX_SECONDS, &args->seconds);
    case OPT_INTERVAL:
        return number(value, MIN_INTERVAL_MS, MAX_INTERVAL_MS,
                      &args->interval_ms);
    case OPT_FORCE:
        args->force = true;
        return true;
    case 'o':
        args->output = value;
        return *value != '\0';
    case OPT_OVERWRITE:
        args->overwrite = true;
        return true;
    case OPT_TEMPLATE:
        args->template_ = value;
        return *value != '\0';
    case OPT_DISK:
        args->disk = value ? value : "";
        return !value || is_disk(value);
    case OPT_HOST:
        args->host = value;
        return *value != '\0';
    case OPT_UUID:
        args->uuid = value;
        return is_uuid(value);
    default:
        args->name = value;
        return *value != '\0';
    }
}

static int usage_error(FILE *err, const char *verb)
{
    fprintf(err, "Try 'forecopy %s%s--help'.\n", verb ? verb : "",
            verb ? " " : "");
    return EXIT_USAGE;
}

/* getopt's tables for one subcommand. */
static void make_tables(const struct verb_row *v, struct option *longs,
                        char *shorts)
{
    unsigned n = 0;
    *shorts++ = ':';
    for (; n < MAX_OPTIONS && v->option[n].name; n++) {
        const struct option_row *o = &v->option[n];
        longs[n] = (struct option){ o->name,
                                    is_optional(o) ? optional_argument
                                    : o->arg       ? required_argument
                                                   : no_argument,
                                    NULL, o->letter };
        if (o->letter < LONG_ONLY) {
            *shorts++ = (char)o->letter;
            if (o->arg)
                *shorts++ = ':';
        }
    }
    longs[n] = (struct option){ NULL, 0, NULL, 0 };
    *shorts = '\0';
}

static const char *option_name(const struct verb_row *v, int letter)
{
    for (unsigned i = 0; i < MAX_OPTIONS && v->option[i].name; i++)
        if (v->option[i].letter == letter)
            return v->option[i].name;
    return "";
}

static int check_operands(const struct verb_row *v, int argc, char **argv,
                          struct fc_client_args *args, FILE *err)
{
    int count = argc - optind;
    if (count < v->least || count > v->most) {
        fprintf(err, "forecopy: %s: %s operands\n", v->name,
                count < v->least ? "too few" : "too many");
        return usage_error(err, v->name);
    }
    for (int i = 0; i < count; i++)
        args->operand[i] = argv[optind + i];
    if ((args->verb == FC_VERB_RECEIVE || args->verb == FC_VERB_DISK_RECEIVE) &&
        !is_uuid(args->operand[0])) {
        fprintf(err, "forecopy: %s: \"%s\" is not a uuid\n", v->name,
                args->operand[0]);
        return usage_error(err, v->name);
    }
    const char *first = args->operand[0];
    bool override = first && !strcmp(first, "override");
    if (args->verb == FC_VERB_LEASE && first &&
        !(override ? count == 3 && is_uuid(args->operand[1])
                   : count == 1 && !strcmp(first, "show"))) {
        fprintf(err, "forecopy: lease: show, or override UUID VDEV\n");
        return usage_error(err, v->name);
    }
    if (args->verb == FC_VERB_PREPARE && (!args->uuid || !args->name)) {
        fprintf(err, "forecopy: prepare: --uuid and --name are needed\n");
        return usage_error(err, v->name);
    }
    return EXIT_PARSED;
}

static int parse_verb(const struct verb_row *v, int argc, char **argv,
                      struct fc_client_args *args, FILE *out, FILE *err)
{
    struct option longs[MAX_OPTIONS + 1];
    char shorts[2 * MAX_OPTIONS + 2];
    int c;
    make_tables(v, longs, shorts);
    opterr = 0;
    optind = 0; /* getopt starts anew */
    while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (c == 'h') {
            print_verb_usage(out, v);
            return 0;
        }
        if (c == '?' || c == ':') {
            fprintf(err, "forecopy: %s: %s %s\n", v->name,
                    c == ':' ? "a value is missing for" : "unknown option",
                    argv[optind - 1]);
            return usage_error(err, v->name);
        }
        if (!take(args, c, optarg)) {
            fprintf(err, "forecopy: %s: --%s: bad value \"%s\"\n", v->name,
                    option_name(v, c), optarg);
            return usage_error(err, v->name);
        }
    }
    return check_operands(v, argc, argv, args, err);
}

static int parse_global(const char *word, FILE *out, FILE *err)
{
    if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
        print_usage(out);
        return 0;
    }
    if (!strcmp(word, "-V") || !strcmp(word, "--version")) {
        fprintf(out, "forecopy %s\n", FC_VERSION);
        return 0;
    }
    if (!strcmp(word, "--dump-options")) {
        dump(out);
        return 0;
    }
    fprintf(err, "forecopy: unknown %s \"%s\"\n",
            *word == '-' ? "option" : "subcommand", word);
    return usage_error(err, NULL);
}

int fc_client_args_parse(int argc, char **argv, struct fc_client_args *args,
                         FILE *out, FILE *err)
{
    *args = (struct fc_client_args){ .rate_bytes = -1,
                                     .channels = -1,
                                     .iterations = -1,
                                     .lines = -1,
                                     .hours = -1,
                                     .seconds = -1,
                                     .interval_ms = -1,
                                     .delay_s = -1 };
    if (argc < 2) {
        print_usage(err);
        return EXIT_USAGE;
    }
    for (unsigned i = 0; i < VERBS; i++)
        if (!strcmp(argv[1], verbs[i].name)) {
            args->verb = (enum fc_client_verb)i;
            return parse_verb(&verbs[i], argc - 1, argv + 1, args, out, err);
        }
    return parse_global(argv[1], out, err);
}
