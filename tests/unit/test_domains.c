/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "armed.h"
#include "counters.h"
#include "domains.h"
#include "err.h"
#include "log.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/fc-sys-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static void number(const char *device, const char *file, unsigned long value)
{
    char path[300];
    snprintf(path, sizeof(path), "mkdir -p %s/%s/statistics", dir, device);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof(path), "%s/%s/statistics/%s", dir, device, file);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%lu\n", value);
    fclose(f);
}

/* The rates that the status shows come from here. */
static void test_counters(void **state)
{
    (void)state;
    number("class/net/vif3.0", "rx_bytes", 1000);
    number("class/net/vif3.0", "tx_bytes", 200);
    number("class/net/vif3.1", "rx_bytes", 30);
    number("class/net/vif30.0", "rx_bytes", 5000);
    number("bus/xen-backend/devices/vbd-3-51712", "rd_sect", 4);
    number("bus/xen-backend/devices/vbd-3-51712", "wr_sect", 6);
    number("bus/xen-backend/devices/vbd-31-51712", "wr_sect", 100);
    assert_int_equal(fc_counters_vif_bytes(dir, 3), 1230);
    assert_int_equal(fc_counters_vbd_bytes(dir, 3), 5120);
    assert_int_equal(fc_counters_vif_bytes(dir, 4), 0);
    assert_int_equal(fc_counters_vif_bytes("/nonexistent", 3), 0);
}

static struct fc_domain there[8];
static unsigned nthere, described;
static char events[256];

static int list(void *user, struct fc_domain *domains, unsigned cap)
{
    (void)user;
    assert_true(cap >= nthere);
    memcpy(domains, there, nthere * sizeof(*there));
    return (int)nthere;
}

static int describe(void *user, struct fc_domain *domain)
{
    (void)user;
    described++;
    snprintf(domain->name, sizeof(domain->name), "vm%u", domain->domid);
    return 0;
}

static const struct fc_domains_ops ops = { list, describe };

static void came(void *arg, const struct fc_domain *domain)
{
    (void)arg;
    sprintf(events + strlen(events), "+%u", domain->domid);
}

static void gone(void *arg, const struct fc_domain *domain)
{
    (void)arg;
    sprintf(events + strlen(events), "-%u", domain->domid);
}

static void add(uint32_t domid, uint8_t uuid, uint64_t cpu_ns)
{
    struct fc_domain *d = &there[nthere++];
    memset(d, 0, sizeof(*d));
    d->domid = domid;
    d->uuid[0] = uuid;
    d->cpu_ns = cpu_ns;
}

/* Domains that come and go must be noticed, also behind one number. */
static void test_coming_and_going(void **state)
{
    struct fc_domains d;
    (void)state;
    nthere = 0;
    events[0] = '\0';
    assert_int_equal(fc_domains_init(&d, &ops, NULL, dir), 0);
    d.came = came;
    d.gone = gone;
    add(1, 0x11, 0);
    add(2, 0x22, 0);
    assert_int_equal(fc_domains_scan(&d), 0);
    assert_string_equal(events, "+1+2");
    events[0] = '\0';
    nthere = 0;
    add(1, 0x11, 0);
    add(2, 0x33, 0); /* another one under the same number */
    add(4, 0x11, 0); /* being received on the same host */
    assert_int_equal(fc_domains_scan(&d), 0);
    assert_string_equal(events, "-2+2+4");
    assert_int_equal(fc_domains_find(&d, "vm2")->uuid[0], 0x33);
    assert_int_equal(fc_domains_find(&d, "4")->domid, 4);
    assert_int_equal(
        fc_domains_find(&d, "11000000-0000-0000-0000-000000000000")->domid, 1);
    assert_null(fc_domains_find(&d, "vm9"));
    assert_null(fc_domains_find(&d, "9"));
    assert_null(fc_domains_find(&d, "4x"));
    there[0].dying = true;
    events[0] = '\0';
    assert_int_equal(fc_domains_scan(&d), 0);
    assert_string_equal(events, "-1");
    fc_domains_dispose(&d);
}

/* Load is shown a second, and names are not asked for each time. */
static void test_rates(void **state)
{
    struct fc_domains d;
    (void)state;
    nthere = 0;
    assert_int_equal(fc_domains_init(&d, &ops, NULL, dir), 0);
    add(3, 1, 1000000000);
    number("class/net/vif3.0", "rx_bytes", 1000);
    described = 0;
    assert_int_equal(fc_domains_count(&d, 100000), 0);
    assert_true(d.list[0].cpu_percent == 0);
    there[0].cpu_ns += 500000000;
    number("class/net/vif3.0", "rx_bytes", 3000);
    assert_int_equal(fc_domains_scan(&d), 0); /* a watch in between */
    described = 0;
    assert_int_equal(fc_domains_count(&d, 101000), 0);
    assert_true(d.list[0].cpu_percent > 49.9 && d.list[0].cpu_percent < 50.1);
    assert_true(d.list[0].vif_bytes_ps > 1999 && d.list[0].vif_bytes_ps < 2001);
    assert_int_equal(described, 0);
    there[0].suspended = true; /* its new name says where it goes */
    assert_int_equal(fc_domains_count(&d, 102000), 0);
    assert_int_equal(described, 1);
    fc_domains_dispose(&d);
}

static unsigned nrecords;
static struct fc_armed last;

static void record(void *user, const struct fc_armed *armed)
{
    (void)user;
    nrecords++;
    last = *armed;
}

static int nwarned;

static void warned(void *user, enum fc_level level, const char *line)
{
    (void)user;
    (void)line;
    nwarned += level <= FC_LOG_WARN;
}

/* Armed guests must be found again, as they were armed. */
static void test_armed_db(void **state)
{
    struct fc_armed_db *db;
    struct fc_armed a = { .uuid = { 1, 2 },
                          .host = "h",
                          .command = "c %h",
                          .rate_bytes = 1ull << 40,
                          .channels = 3 };
    char path[100];
    (void)state;
    snprintf(path, sizeof(path), "%s/armed", dir);
    assert_int_equal(fc_armed_db_open(path, &db), 0);
    assert_int_equal(fc_armed_db_put(db, &a), 0);
    a.uuid[0] = 9;
    assert_int_equal(fc_armed_db_put(db, &a), 0);
    assert_int_equal(fc_armed_db_put(db, &a), 0);
    fc_armed_db_close(db);
    assert_int_equal(fc_armed_db_open(path, &db), 0);
    nrecords = 0;
    assert_int_equal(fc_armed_db_each(db, record, NULL), 0);
    assert_int_equal(nrecords, 2);
    assert_memory_equal(&last, &a, sizeof(a));
    assert_int_equal(fc_armed_db_remove(db, a.uuid), 0);
    assert_int_equal(fc_armed_db_remove(db, a.uuid), 0);
    struct fc_calibration c;
    fc_armed_db_calibration(db, &c);
    assert_int_equal(c.samples, 0);
    c = (struct fc_calibration){ 12.5, 7000.25, 80.25, 900.5, 40.5, 3 };
    assert_int_equal(fc_armed_db_calibrate(db, &c), 0);
    memset(&c, 0, sizeof(c));
    fc_armed_db_calibration(db, &c);
    assert_true(c.page_us == 12.5 && c.scan_ms == 7000.25);
    assert_true(c.fixed_ms == 80.25 && c.disks_ms == 40.5);
    assert_true(c.overhead_ms == 900.5 && c.samples == 3);
    struct fc_linkrate l = { 0 }, m;
    fc_linkrate_learn(&l, "h", 2e6);
    assert_int_equal(fc_armed_db_links_put(db, &l), 0);
    fc_armed_db_links(db, &m);
    assert_memory_equal(&l, &m, sizeof(l));
    nrecords = nwarned = 0;
    fc_log_set_sink(warned, NULL);
    assert_int_equal(fc_armed_db_each(db, record, NULL), 0);
    fc_log_set_sink(NULL, NULL);
    assert_int_equal(nrecords, 1);
    assert_int_equal(nwarned, 0); /* what else is kept is no damaged guest */
    fc_armed_db_close(db);
}

/* A damaged record must not arm anything. */
static void test_armed_records(void **state)
{
    struct fc_armed a = { .host = "host",
                          .command = "cmd",
                          .away_since_s = 1700000000 },
                    b;
    uint8_t buf[FC_ARMED_RECORD];
    (void)state;
    ssize_t n = fc_armed_encode(&a, buf, sizeof(buf));
    assert_int_equal(n, 24 + 4 + 3);
    assert_int_equal(fc_armed_decode(buf, (size_t)n, &b), 0);
    assert_memory_equal(&a, &b, sizeof(a));
    for (size_t cut = 0; cut < (size_t)n; cut++)
        assert_int_equal(fc_armed_decode(buf, cut, &b), FC_EFORMAT);
    assert_int_equal(fc_armed_decode(buf, (size_t)n + 1, &b), FC_EFORMAT);
    buf[24] = ';';
    assert_int_equal(fc_armed_decode(buf, (size_t)n, &b), FC_EFORMAT);
    buf[24] = 'h';
    buf[0] = 2;
    assert_int_equal(fc_armed_decode(buf, (size_t)n, &b), FC_EFORMAT);
    assert_int_equal(fc_armed_encode(&a, buf, 10), FC_ETOOBIG);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_counters), TEST(test_coming_and_going), TEST(test_rates),
        TEST(test_armed_db), TEST(test_armed_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
