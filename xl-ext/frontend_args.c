/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "frontend_args.h"

/*
 * What xl understands is fixed by Xen's tools/xl: "vftTN" before the command,
 * "hFC:s:epD", --debug, --live and --help after `migrate`, options anywhere
 * among the operands. Two places must agree with it: the scan that decides
 * whether a migrate is predictive (it must not take an option's argument for
 * an option) and the rune.
 *
 * A migrate without --predictive is never parsed further, so that xl judges
 * it alone; ours are errors of ours only when --predictive is there.
 */

/* xl shows messages from "progress" upwards; each -v goes one level down, of
 * which there are four. */
#define XL_VERBOSE_LEVELS 4

#define MAX_DOWNTIME_MS 3600000L
#define MAX_DEADLINE_S 86400L

enum {
    OPT_PREDICTIVE = 0x1000,
    OPT_MAX_DOWNTIME,
    OPT_DEADLINE,
    OPT_AT_DEADLINE,
    OPT_FALLBACK,
    OPT_NO_STAGE,
    OPT_DRY_RUN,
    OPT_JSON,
    OPT_REPORT,
    OPT_WITH_DISKS,
    OPT_COMPLETE_DISKS,
    OPT_LAZY_DISKS,
    OPT_OVERWRITE_DISK,
    OPT_DUMP_OPTIONS,
    OPT_FIRST_XL = 0x2000,
    OPT_DEBUG = OPT_FIRST_XL,
    OPT_LIVE,
};

static const struct option long_options[] = {
    { "predictive", no_argument, NULL, OPT_PREDICTIVE },
    { "max-downtime", required_argument, NULL, OPT_MAX_DOWNTIME },
    { "deadline", required_argument, NULL, OPT_DEADLINE },
    { "at-deadline", required_argument, NULL, OPT_AT_DEADLINE },
    { "fallback", required_argument, NULL, OPT_FALLBACK },
    { "no-stage", no_argument, NULL, OPT_NO_STAGE },
    { "dry-run", no_argument, NULL, OPT_DRY_RUN },
    { "json", no_argument, NULL, OPT_JSON },
    { "report", required_argument, NULL, OPT_REPORT },
    { "with-disks", no_argument, NULL, OPT_WITH_DISKS },
    { "complete-disks", no_argument, NULL, OPT_COMPLETE_DISKS },
    { "lazy-disks", no_argument, NULL, OPT_LAZY_DISKS },
    { "overwrite-disk", no_argument, NULL, OPT_OVERWRITE_DISK },
    { "dump-options", no_argument, NULL, OPT_DUMP_OPTIONS },
    { "debug", no_argument, NULL, OPT_DEBUG },
    { "live", no_argument, NULL, OPT_LIVE },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static bool is_predictive(int argc, char *const *argv, int command)
{
    for (int i = command + 1; i < argc; i++) {
        const char *word = argv[i];
        if (!strcmp(word, "--"))
            return false;
        if (!strcmp(word, "--predictive"))
            return true;
        if (word[0] != '-' || word[1] == '-')
            continue;
        /* a cluster of short options, the last with its argument outside? */
        const char *p = word + 1;
        while (*p && *p != 'C' && *p != 's')
            p++;
        if (*p && !p[1])
            i++;
    }
    return false;
}

enum fc_front_command fc_front_args_classify(int argc, char *const *argv,
                                             struct fc_front_globals *globals)
{
    static const char receive[] = "migrate-receive";
    static const char migrate[] = "migrate";

    *globals = (struct fc_front_globals){ 0 };
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        if (!strcmp(argv[i], "--")) {
            i++;
            break;
        }
        for (const char *p = argv[i] + 1; *p; p++) {
            switch (*p) {
            case 'v':
                globals->verbose++;
                break;
            case 't':
                globals->use_cr = true;
                break;
            case 'T':
                globals->timestamps = true;
                break;
            case 'f':
            case 'N':
                break;
            default:
                return FC_FRONT_OTHER;
            }
        }
    }
    if (i >= argc)
        return FC_FRONT_OTHER;
    globals->command = i;

    if (!strcmp(argv[i], migrate))
        return is_predictive(argc, argv, i) ? FC_FRONT_PREDICTIVE
                                            : FC_FRONT_OTHER;
    size_t len = strlen(argv[i]);
    if (len > strlen(migrate) && !strncmp(argv[i], receive, len))
        return FC_FRONT_RECEIVE;
    return FC_FRONT_OTHER;
}

static int number(const char *option, const char *text, long lowest,
                  long highest, long *value_r, FILE *err)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < lowest || value > highest) {
        fprintf(err,
                "forecopy: --%s: \"%s\" is not a number from %ld to "
                "%ld\n",
                option, text, lowest, highest);
        return FC_EINVAL;
    }
    *value_r = value;
    return 0;
}

static int choice(const char *option, const char *text, const char *no,
                  const char *yes, int *value_r, FILE *err)
{
    if (!strcmp(text, no)) {
        *value_r = 0;
    } else if (!strcmp(text, yes)) {
        *value_r = 1;
    } else {
        fprintf(err, "forecopy: --%s: \"%s\" is neither \"%s\" nor \"%s\"\n",
                option, text, no, yes);
        return FC_EINVAL;
    }
    return 0;
}

static int pass(struct fc_front_args *args, const char *word, FILE *err)
{
    if (args->npassed == FC_FRONT_MAX_PASSED) {
        fprintf(err, "forecopy: more than %d words of options\n",
                FC_FRONT_MAX_PASSED);
        return FC_EINVAL;
    }
    args->passed[args->npassed++] = word;
    return 0;
}

static int take_ours(struct fc_front_args *args, int opt, FILE *err)
{
    switch (opt) {
    case OPT_PREDICTIVE:
        return 0;
    case OPT_MAX_DOWNTIME:
        return number("max-downtime", optarg, 1, MAX_DOWNTIME_MS,
                      &args->max_downtime_ms, err);
    case OPT_DEADLINE:
        return number("deadline", optarg, 0, MAX_DEADLINE_S, &args->deadline_s,
                      err);
    case OPT_AT_DEADLINE:
        return choice("at-deadline", optarg, "stop", "abort",
                      &args->abort_at_deadline, err);
    case OPT_FALLBACK:
        return choice("fallback", optarg, "plain", "fail",
                      &args->fail_when_plain, err);
    case OPT_NO_STAGE:
        args->no_stage = true;
        return 0;
    case OPT_DRY_RUN:
        args->dry_run = true;
        return 0;
    case OPT_JSON:
        args->json = true;
        return 0;
    case OPT_REPORT:
        args->report = optarg;
        return 0;
    case OPT_WITH_DISKS:
        args->with_disks = true;
        return 0;
    case OPT_COMPLETE_DISKS:
        args->complete_disks = true;
        return 0;
    case OPT_LAZY_DISKS:
        args->lazy_disks = true;
        return 0;
    case OPT_OVERWRITE_DISK:
        args->overwrite_disk = true;
        return 0;
    default:
        args->dump_options = true;
        return 0;
    }
}

static int take_xls(struct fc_front_args *args, int opt, FILE *err)
{
    switch (opt) {
    case 'h':
        args->help = true;
        return 0;
    case 's':
        args->ssh = optarg;
        return 0;
    case 'C': {
        args->config = true;
        int rc = pass(args, "-C", err);
        return rc ? rc : pass(args, optarg, err);
    }
    case 'F':
        args->no_daemon = true;
        return pass(args, "-F", err);
    case 'e':
        args->no_daemon = true;
        return pass(args, "-e", err);
    case 'p':
        args->pause = true;
        return pass(args, "-p", err);
    case 'D':
        return pass(args, "-D", err);
    case OPT_DEBUG:
        args->debug = true;
        return pass(args, "--debug", err);
    default:
        return pass(args, "--live", err);
    }
}

/* What must not be taken for a migration with disks, or for one without. */
static int check_disks(const struct fc_front_args *args, FILE *err)
{
    const char *why = NULL;

    if (!args->with_disks) {
        const char *option = args->lazy_disks       ? "--lazy-disks"
                             : args->complete_disks ? "--complete-disks"
                             : args->overwrite_disk ? "--overwrite-disk"
                                                    : NULL;
        if (!option)
            return 0;
        fprintf(err, "forecopy: %s needs --with-disks\n", option);
        return FC_EINVAL;
    }
    if (args->lazy_disks && args->complete_disks)
        why = "--lazy-disks and --complete-disks exclude each other";
    else if (!args->ssh[0])
        why = "--with-disks needs a host: forecopyd there takes the disks, "
              "and a command of your own (-s '') does not say where it leads";
    else if (args->config)
        why = "--with-disks and -C exclude each other: the disks arrive "
              "under the paths they have here";
    if (!why)
        return 0;
    fprintf(err, "forecopy: %s\n", why);
    return FC_EINVAL;
}

int fc_front_args_parse(int argc, char **argv, struct fc_front_args *args,
                        FILE *err)
{
    *args = (struct fc_front_args){
        .argc = argc,
        .argv = argv,
        .max_downtime_ms = -1,
        .deadline_s = -1,
        .abort_at_deadline = -1,
        .fail_when_plain = -1,
        .ssh = "ssh",
    };
    fc_front_args_classify(argc, argv, &args->globals);

    /* getopt sorts the operands to the end: in a copy, argv stays as it is */
    int words = argc - args->globals.command;
    char **copy = calloc((size_t)words + 1, sizeof(*copy));
    if (!copy) {
        fprintf(err, "forecopy: out of memory\n");
        return FC_EINVAL;
    }
    memcpy(copy, argv + args->globals.command, (size_t)words * sizeof(*copy));

    int rc = 0, opt;
    optind = 0;
    opterr = 0;
    while (!rc && (opt = getopt_long(words, copy, ":hFC:s:epD", long_options,
                                     NULL)) >= 0) {
        if (opt == '?' || opt == ':') {
            const char *word = copy[optind - 1];
            fprintf(
                err,
                opt == ':'
                    ? "forecopy: option %s needs an argument\n"
                    : "forecopy: unknown, ambiguous or unsuitable option in "
                      "%s\n",
                word);
            rc = FC_EINVAL;
        } else if (opt >= OPT_PREDICTIVE && opt < OPT_FIRST_XL) {
            rc = take_ours(args, opt, err);
        } else {
            rc = take_xls(args, opt, err);
        }
    }
    if (!rc && !args->help && !args->dump_options) {
        if (words - optind != 2) {
            fprintf(err,
                    "forecopy: migrate --predictive needs a domain and "
                    "a host, got %d operands\n",
                    words - optind);
            rc = FC_EINVAL;
        } else {
            args->domain = copy[optind];
            args->host = copy[optind + 1];
        }
    }
    if (!rc && !args->help && !args->dump_options)
        rc = check_disks(args, err);
    free(copy);
    return rc;
}

void fc_front_args_usage(FILE *out)
{
    fputs("Usage: xl [-vtT] migrate --predictive [options] DOMAIN HOST\n\n"
          "Migrate a domain, sending only what the destination does not hold "
          "yet.\n\n"
          "  --max-downtime MS   aim for at most this downtime\n"
          "  --deadline S        end the rounds after S seconds at the latest\n"
          "  --at-deadline WHAT  then stop the guest and finish (stop) or give "
          "up "
          "(abort)\n"
          "  --fallback WHAT     when prediction is impossible: plain "
          "(default) or "
          "fail\n"
          "  --no-stage          make no use of what is staged at the "
          "destination\n"
          "  --dry-run           say what would happen, change nothing\n"
          "  --json              the forecast or the report as JSON on "
          "standard output\n"
          "  --report FILE       write the report to FILE as JSON\n"
          "  --with-disks        take the disks along that are local to this "
          "host\n"
          "  --complete-disks    all of them before the guest goes over "
          "(default)\n"
          "  --lazy-disks        only what it will need first; the rest "
          "follows\n"
          "  --overwrite-disk    onto volumes that hold something else, too\n"
          "  -h, --help          this text, then xl's own\n\n"
          "All options of a plain migrate, which follow, are understood:\n\n",
          out);
}

void fc_front_args_dump(FILE *out)
{
    for (const struct option *o = long_options; o->name; o++)
        if (o->val < OPT_FIRST_XL && o->val >= OPT_PREDICTIVE &&
            o->val != OPT_DUMP_OPTIONS)
            fprintf(out, "--%s\n", o->name);
    fputs("-h\n--help\n", out);
}

char *fc_front_quote(const char *text)
{
    size_t len = strlen(text), quotes = 0;
    for (const char *p = text; *p; p++)
        quotes += *p == '\'';

    char *out = malloc(len + 3 * quotes + 3);
    if (!out)
        return NULL;
    char *q = out;
    *q++ = '\'';
    for (const char *p = text; *p; p++) {
        if (*p == '\'') {
            memcpy(q, "'\\''", 4);
            q += 4;
        } else {
            *q++ = *p;
        }
    }
    *q++ = '\'';
    *q = '\0';
    return out;
}

char *fc_front_rune(const struct fc_front_args *args, bool stderr_tty)
{
    if (!args->ssh[0])
        return strdup(args->host);

    const struct fc_front_globals *g = &args->globals;
    int verbose =
        g->verbose < XL_VERBOSE_LEVELS ? g->verbose : XL_VERBOSE_LEVELS;
    char *rune;
    int n =
        asprintf(&rune, "exec %s %s xl%s%s%s%.*s migrate-receive%s%s%s",
                 args->ssh, args->host, g->use_cr || stderr_tty ? " -t" : "",
                 g->timestamps ? " -T" : "", verbose ? " -" : "", verbose,
                 "vvvv", args->no_daemon ? " -e" : "", args->debug ? " -d" : "",
                 args->pause ? " -p" : "");
    return n < 0 ? NULL : rune;
}

/* xl, the options before the command, migrate, those that are passed on, then
 * `-s SSH`, and the operands. */
static const char **xl_argv(const struct fc_front_args *args, const char *ssh,
                            const char *domain, const char *host)
{
    int command = args->globals.command;
    const char **out =
        calloc((size_t)(command + args->npassed + 8), sizeof(*out));
    if (!out)
        return NULL;
    int n = 0;
    out[n++] = "xl";
    for (int i = 1; i < command; i++)
        out[n++] = args->argv[i];
    out[n++] = "migrate";
    for (int i = 0; i < args->npassed; i++)
        out[n++] = args->passed[i];
    if (ssh) {
        out[n++] = "-s";
        out[n++] = ssh;
    }
    if (domain[0] == '-' || host[0] == '-')
        out[n++] = "--";
    out[n++] = domain;
    out[n++] = host;
    return out;
}

const char **fc_front_plain_argv(const struct fc_front_args *args)
{
    /* ssh is xl's default as well */
    return xl_argv(args, strcmp(args->ssh, "ssh") ? args->ssh : NULL,
                   args->domain, args->host);
}

const char **fc_front_session_argv(const struct fc_front_args *args,
                                   const char *transport, int back_fd,
                                   const char *rune, char **rune_r)
{
    const char **out = NULL;
    char *program = fc_front_quote(transport);
    char *word = fc_front_quote(rune);

    *rune_r = NULL;
    if (program && word &&
        asprintf(rune_r, "exec %s --back-fd %d -- sh -c %s", program, back_fd,
                 word) >= 0)
        out = xl_argv(args, "", args->domain, *rune_r);
    free(program);
    free(word);
    return out;
}

static bool is_plain_word(const char *text)
{
    return *text && strspn(text, "abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "0123456789_-.:@%+,/") == strlen(text);
}

char *fc_front_remote(const struct fc_front_args *args, const char *words,
                      const char *name)
{
    char *out = NULL, *there = NULL, *here = NULL;

    if (name && is_plain_word(name)) {
        here = strdup(name);
    } else if (name) {
        there = fc_front_quote(name);
        here = there ? fc_front_quote(there) : NULL;
    }
    if (name && !here)
        goto out;
    if (asprintf(&out, "exec %s %s forecopy %s%s%s", args->ssh, args->host,
                 words, name ? " --name " : "", name ? here : "") < 0)
        out = NULL;
out:
    free(there);
    free(here);
    return out;
}
