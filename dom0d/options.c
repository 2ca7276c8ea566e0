/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "settings.h"

enum {
    OPT_CONFIG = 256,
    OPT_SOCKET,
    OPT_VERSION,
    OPT_DUMP_SETTINGS,
    OPT_DUMP_OPTIONS,
};

/* The manual page is held against this table by a test. */
static const struct {
    int code;
    char letter; /* 0: none */
    const char *name, *argument, *doc;
} table[] = {
    { 'F', 'F', "foreground", NULL, "stay in the foreground, log to stderr" },
    { 'd', 'd', "debug", NULL, "log everything" },
    { OPT_CONFIG, 0, "config", "FILE", "read settings from FILE" },
    { OPT_SOCKET, 0, "socket", "PATH", "listen at PATH for clients" },
    { OPT_VERSION, 0, "version", NULL, "print the version" },
    { 'h', 'h', "help", NULL, "print this" },
    { OPT_DUMP_SETTINGS, 0, "dump-settings", NULL,
      "print the table of settings" },
    { OPT_DUMP_OPTIONS, 0, "dump-options", NULL, "print the table of options" },
};
#define OPTIONS (sizeof(table) / sizeof(table[0]))

static void print_help(void)
{
    printf("usage: forecopyd [options]\n\n");
    for (unsigned i = 0; i < OPTIONS; i++) {
        char name[64], letter[8] = "";
        if (table[i].letter)
            snprintf(letter, sizeof(letter), "-%c, ", table[i].letter);
        snprintf(name, sizeof(name), "%s--%s%s%s", letter, table[i].name,
                 table[i].argument ? " " : "",
                 table[i].argument ? table[i].argument : "");
        printf("  %-22s %s\n", name, table[i].doc);
    }
}

static void print_options(void)
{
    for (unsigned i = 0; i < OPTIONS; i++)
        printf("%c\t%s\t%s\t%s\n", table[i].letter ? table[i].letter : '-',
               table[i].name, table[i].argument ? table[i].argument : "",
               table[i].doc);
}

/* getopt's two forms of the table. */
static void make_getopt(char *letters, struct option *longs)
{
    for (unsigned i = 0; i < OPTIONS; i++) {
        longs[i] = (struct option){ table[i].name,
                                    table[i].argument ? required_argument
                                                      : no_argument,
                                    NULL, table[i].code };
        if (table[i].letter)
            *letters++ = table[i].letter;
    }
    *letters = '\0';
    memset(&longs[OPTIONS], 0, sizeof(longs[OPTIONS]));
}

static enum fc_options_result take(int code, struct fc_options *o)
{
    switch (code) {
    case 'F':
        o->foreground = true;
        return FC_OPTIONS_RUN;
    case 'd':
        o->debug = true;
        return FC_OPTIONS_RUN;
    case OPT_CONFIG:
        o->config_path = optarg;
        return FC_OPTIONS_RUN;
    case OPT_SOCKET:
        o->socket_path = optarg;
        return FC_OPTIONS_RUN;
    case OPT_VERSION:
        printf("forecopyd %s (Xen %s)\n", FC_VERSION, FC_XEN_VERSION);
        return FC_OPTIONS_DONE;
    case 'h':
        print_help();
        return FC_OPTIONS_DONE;
    case OPT_DUMP_SETTINGS:
        fc_settings_dump();
        return FC_OPTIONS_DONE;
    case OPT_DUMP_OPTIONS:
        print_options();
        return FC_OPTIONS_DONE;
    default:
        return FC_OPTIONS_WRONG;
    }
}

enum fc_options_result fc_options_parse(int argc, char **argv,
                                        struct fc_options *o)
{
    char letters[OPTIONS + 1];
    struct option longs[OPTIONS + 1];
    int code;

    memset(o, 0, sizeof(*o));
    o->socket_path = FC_CTL_PATH;
    make_getopt(letters, longs);
    optind = 1;
    while ((code = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        enum fc_options_result result = take(code, o);
        if (result != FC_OPTIONS_RUN)
            return result;
    }
    if (optind < argc) {
        fprintf(stderr, "forecopyd: \"%s\" is not wanted here\n", argv[optind]);
        return FC_OPTIONS_WRONG;
    }
    return FC_OPTIONS_RUN;
}
