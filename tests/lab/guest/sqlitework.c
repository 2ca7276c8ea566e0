/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sqlitework FILE: transactions on an SQLite database whose rows can be told
 * right from wrong.
 *
 * Table t has a fixed number of rows.  Transaction n adds n to table done and
 * raises the version of a few rows of t, chosen by n; a row's data is a
 * function of its number and its version.  Versions and n are kept in memory,
 * which migrates with the guest.  Each commit is synchronous
 * (synchronous=FULL).
 *
 * "check ID" closes the database, drops the kernel's caches, opens it again,
 * runs PRAGMA integrity_check and reads all rows: each has the version and the
 * data that were committed last, and all n are in `done`.
 *
 * With --keep the database is another guest's, cut off without a warning: it
 * recovers by its journal, n is the highest in `done`, all of 1..n have to be
 * there, and the rows' versions have to be what these transactions made them.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"

#define TOUCHED 4u /* rows a transaction */
#define DATA_MIN 100u
#define DATA_MAX 1200u

static struct {
    const char *path, *journal;
    sqlite3 *db;
    uint32_t rows;
    uint32_t *version;
    uint64_t committed, errors;
    uint64_t slowest_ms;
    char bad[200];
} g;

static void complain(const char *what, const char *detail)
{
    if (g.errors++ == 0) {
        snprintf(g.bad, sizeof g.bad, "%s: %s", what, detail);
        for (char *p = g.bad; *p; p++)
            if (*p == '"' || *p == '\\' || *p < ' ')
                *p = ' ';
    }
    if (g.errors <= 20)
        fprintf(stderr, "sqlitework: %s: %s\n", what, detail);
}

static bool run(const char *sql)
{
    if (sqlite3_exec(g.db, sql, NULL, NULL, NULL) == SQLITE_OK)
        return true;
    complain(sql, sqlite3_errmsg(g.db));
    return false;
}

static bool database_open(void)
{
    char sql[64];

    if (sqlite3_open(g.path, &g.db) != SQLITE_OK) {
        complain("open", sqlite3_errmsg(g.db));
        return false;
    }
    sqlite3_busy_timeout(g.db, 1000);
    snprintf(sql, sizeof sql, "PRAGMA journal_mode=%s", g.journal);
    return run(sql) && run("PRAGMA synchronous=FULL");
}

static void row_data(uint32_t row, uint32_t version, char *out, int *len_r)
{
    uint64_t x = mix((uint64_t)row << 32 | version);
    uint32_t len = DATA_MIN + (uint32_t)(x % (DATA_MAX - DATA_MIN));

    for (uint32_t i = 0; i < len; i++) {
        if (i % 8 == 0)
            x = mix(x);
        out[i] = (char)('a' + (x >> (i % 8 * 8)) % 26);
    }
    *len_r = (int)len;
}

static uint32_t touched(uint64_t n, unsigned i)
{
    return (uint32_t)(mix(n * TOUCHED + i) % g.rows);
}

static bool statement(const char *sql, int64_t a, int64_t b, const char *data,
                      int len)
{
    sqlite3_stmt *s = NULL;
    bool good = sqlite3_prepare_v2(g.db, sql, -1, &s, NULL) == SQLITE_OK;

    good = good && sqlite3_bind_int64(s, 1, a) == SQLITE_OK;
    if (good && data)
        good = sqlite3_bind_int64(s, 2, b) == SQLITE_OK &&
               sqlite3_bind_text(s, 3, data, len, SQLITE_STATIC) == SQLITE_OK;
    good = good && sqlite3_step(s) == SQLITE_DONE;
    if (!good)
        complain(sql, sqlite3_errmsg(g.db));
    sqlite3_finalize(s);
    return good;
}

static bool row_put(uint32_t row, uint32_t version)
{
    char data[DATA_MAX];
    int len;

    row_data(row, version, data, &len);
    return statement("INSERT OR REPLACE INTO t VALUES(?,?,?)", row, version,
                     data, len);
}

static void transaction(void)
{
    uint64_t n = g.committed + 1, start = now_ns(), took;
    bool good = run("BEGIN IMMEDIATE") &&
                statement("INSERT INTO done VALUES(?)", (int64_t)n, 0, NULL, 0);

    for (unsigned i = 0; i < TOUCHED && good; i++) {
        uint32_t row = touched(n, i);

        good = row_put(row, ++g.version[row]);
    }
    if (good && run("COMMIT"))
        g.committed = n;
    /* Else the error is counted, which no check forgets and ends the load. */
    took = ms_since(start);
    if (took > g.slowest_ms)
        g.slowest_ms = took;
}

static bool create(void)
{
    if (!run("CREATE TABLE done(n INTEGER PRIMARY KEY)") ||
        !run("CREATE TABLE t(id INTEGER PRIMARY KEY, version, data)") ||
        !run("BEGIN"))
        return false;
    for (uint32_t row = 0; row < g.rows; row++)
        if (!row_put(row, 0))
            return false;
    return run("COMMIT");
}

static int64_t number(const char *sql)
{
    sqlite3_stmt *s = NULL;
    int64_t v = -1;

    if (sqlite3_prepare_v2(g.db, sql, -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW)
        v = sqlite3_column_int64(s, 0);
    else
        complain(sql, sqlite3_errmsg(g.db));
    sqlite3_finalize(s);
    return v;
}

static void check_rows(void)
{
    char expect[DATA_MAX], where[32];
    sqlite3_stmt *s = NULL;
    uint32_t row = 0;
    int rc = sqlite3_prepare_v2(
        g.db, "SELECT id,version,data FROM t ORDER BY id", -1, &s, NULL);

    while (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        const void *data = sqlite3_column_blob(s, 2);
        int len = sqlite3_column_bytes(s, 2), wanted;

        rc = SQLITE_OK;
        snprintf(where, sizeof where, "row %" PRIu32, row);
        if (row >= g.rows || sqlite3_column_int64(s, 0) != row) {
            complain(where, "missing");
            break;
        }
        row_data(row, g.version[row], expect, &wanted);
        if (sqlite3_column_int64(s, 1) != g.version[row])
            complain(where, "not the version committed last");
        else if (len != wanted || memcmp(data, expect, (size_t)len))
            complain(where, "other data than was written");
        row++;
    }
    if (rc != SQLITE_DONE)
        complain("rows", sqlite3_errmsg(g.db));
    else if (row != g.rows)
        complain("rows", "some are missing");
    sqlite3_finalize(s);
}

static void integrity(void)
{
    sqlite3_stmt *s = NULL;

    if (sqlite3_prepare_v2(g.db, "PRAGMA integrity_check", -1, &s, NULL) !=
            SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW)
        complain("integrity_check", sqlite3_errmsg(g.db));
    else if (strcmp((const char *)sqlite3_column_text(s, 0), "ok"))
        complain("integrity_check", (const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
}

static void drop_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

    sync();
    if (fd < 0 || write(fd, "3", 1) != 1)
        perror("sqlitework: drop_caches");
    if (fd >= 0)
        close(fd);
}

/* Everything from the disk itself. */
static void check(void)
{
    sqlite3_close(g.db);
    drop_caches();
    if (!database_open())
        return;
    integrity();
    if (number("SELECT count(*) FROM done") != (int64_t)g.committed ||
        number("SELECT coalesce(max(n),0) FROM done") != (int64_t)g.committed)
        complain("done", "not the transactions that were committed");
    check_rows();
}

/* What an earlier guest committed, by its own list. */
static bool take_on(void)
{
    int64_t n = number("SELECT coalesce(max(n),0) FROM done");

    if (n < 0)
        return false;
    g.committed = (uint64_t)n;
    for (uint64_t i = 1; i <= g.committed; i++)
        for (unsigned k = 0; k < TOUCHED; k++)
            g.version[touched(i, k)]++;
    check();
    return true;
}

static void serve(int fd)
{
    static char last_id[32], reply[768];
    char text[64], verb[16] = "", id[32] = "";
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, text, sizeof text - 1, MSG_DONTWAIT,
                         (struct sockaddr *)&from, &len);
    uint64_t start = now_ns();

    if (n <= 0)
        return;
    text[n] = 0;
    if (sscanf(text, "%15s %31s", verb, id) != 2)
        return;
    if (!strcmp(verb, "harm")) {
        g.version[strtoul(id, NULL, 10) % g.rows]++;
        return;
    }
    if (strcmp(id, last_id)) {
        if (!strcmp(verb, "check"))
            check();
        strcpy(last_id, id);
        snprintf(reply, sizeof reply,
                 "%s {\"ok\":%s,\"rows\":%" PRIu32 ",\"errors\":%" PRIu64
                 ",\"first_bad\":\"%s\",\"committed\":%" PRIu64
                 ",\"slowest_ms\":%" PRIu64 ",\"check_ms\":%" PRIu64 "}\n",
                 id, g.errors ? "false" : "true", g.rows, g.errors, g.bad,
                 g.committed, g.slowest_ms, ms_since(start));
    }
    sendto(fd, reply, strlen(reply), 0, (struct sockaddr *)&from, len);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "rows", required_argument, NULL, 'r' },
        { "journal", required_argument, NULL, 'j' },
        { "period-ms", required_argument, NULL, 'p' },
        { "keep", no_argument, NULL, 'k' },
        { 0 },
    };
    uint32_t period_ms = 20;
    bool keep = false;
    int c, fd;

    g.rows = 1000;
    g.journal = "delete";
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'r':
            g.rows = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'j':
            g.journal = optarg;
            break;
        case 'p':
            period_ms = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'k':
            keep = true;
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || g.rows == 0) {
        fprintf(stderr, "usage: sqlitework [OPTION...] FILE\n");
        return 2;
    }
    g.path = argv[optind];
    g.version = calloc(g.rows, sizeof *g.version);
    if (!g.version || !database_open() || !(keep ? take_on() : create()))
        return 1;
    fd = guard_listen("sqlitework: cannot listen");
    if (fd < 0)
        return 1;
    printf("sqlitework: %" PRIu32 " rows, %" PRIu64 " transactions\n", g.rows,
           g.committed);
    fflush(stdout);
    for (;;) {
        struct pollfd pfd = { .fd = fd, .events = POLLIN };

        if (poll(&pfd, 1, (int)period_ms) > 0)
            serve(fd);
        if (!g.errors)
            transaction();
    }
}
