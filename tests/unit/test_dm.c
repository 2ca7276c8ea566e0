/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "dm.h"
#include "err.h"

#define NAME "forecopy-0c6ac5ae-8f1a-4b6c-9d0e-0123456789ab-xvda"
#define DISK "/dev/vg/guest"
#define NBD "/dev/nbd3"
#define SECTORS 2048u

/*
 * A device-mapper that keeps one device, as the kernel would: two slots for
 * tables, a suspended flag, and what a request that came while it was
 * suspended met when it was let go. Writes down what it was asked.
 */
struct fake {
    struct fc_dm_state live;
    char inactive[64]; /* "TARGET PARAMS"; empty: none */
    struct fc_dm_device disk, nbd, own;
    char asked[256];
    const char *fail; /* this call fails, */
    int fail_times;   /* so often */
    bool late;        /* the suspend that fails has come about */
    int busy;         /* removals until its last user lets go */
    unsigned slept_ms;
};

static int ask(struct fake *f, const char *what)
{
    size_t n = strlen(f->asked);
    snprintf(f->asked + n, sizeof(f->asked) - n, "%s%s", n ? " " : "", what);
    if (f->fail && !strcmp(f->fail, what) && f->fail_times-- > 0)
        return FC_ETIMEOUT;
    return 0;
}

static int op_show(void *user, const char *name, struct fc_dm_state *state)
{
    struct fake *f = user;
    assert_string_equal(name, NAME);
    *state = f->live;
    state->inactive_table = *f->inactive;
    if (f->busy > 0 && f->busy--)
        state->open_count = 1;
    return 0;
}

static int op_device(void *user, const char *path, struct fc_dm_device *device)
{
    struct fake *f = user;
    if (!strcmp(path, DISK))
        *device = f->disk;
    else if (!strcmp(path, NBD))
        *device = f->nbd;
    else if (!strcmp(path, "/dev/dm-9"))
        *device = f->own;
    else {
        errno = ENOENT;
        return FC_ESYS;
    }
    return 0;
}

static int op_create(void *user, const char *name, const char *uuid,
                     const struct fc_dm_table *table)
{
    struct fake *f = user;
    int rc = ask(f, "create");
    assert_string_equal(name, NAME);
    if (rc)
        return rc;
    f->live.exists = true;
    f->live.sectors = table->sectors;
    f->live.read_only = table->read_only;
    snprintf(f->live.uuid, sizeof(f->live.uuid), "%s", uuid);
    snprintf(f->live.target, sizeof(f->live.target), "%s", table->target);
    snprintf(f->live.params, sizeof(f->live.params), "%s", table->params);
    return 0;
}

static int op_load(void *user, const char *name,
                   const struct fc_dm_table *table)
{
    struct fake *f = user;
    int rc = ask(f, "load");
    (void)name;
    assert_int_equal(table->sectors, f->live.sectors);
    if (rc == 0)
        snprintf(f->inactive, sizeof(f->inactive), "%s %s", table->target,
                 table->params);
    return rc;
}

static int op_clear(void *user, const char *name)
{
    struct fake *f = user;
    int rc = ask(f, "clear");
    (void)name;
    if (rc == 0)
        *f->inactive = '\0';
    return rc;
}

static int op_suspend(void *user, const char *name, unsigned timeout_ms)
{
    struct fake *f = user;
    int rc = ask(f, "suspend");
    (void)name;
    assert_int_equal(timeout_ms, 1000);
    if (rc == 0 || f->late)
        f->live.suspended = true;
    return rc;
}

static int op_resume(void *user, const char *name)
{
    struct fake *f = user;
    int rc = ask(f, "resume");
    (void)name;
    if (rc)
        return rc;
    if (*f->inactive) {
        char *space = strchr(f->inactive, ' ');
        *space = '\0';
        snprintf(f->live.target, sizeof(f->live.target), "%.16s", f->inactive);
        snprintf(f->live.params, sizeof(f->live.params), "%s", space + 1);
        *f->inactive = '\0';
    }
    f->live.suspended = false;
    return 0;
}

static int op_remove(void *user, const char *name)
{
    struct fake *f = user;
    int rc = ask(f, "remove");
    (void)name;
    if (rc == 0)
        f->live.exists = false;
    return rc ? FC_EBUSY : 0;
}

static void op_sleep(void *user, unsigned ms)
{
    ((struct fake *)user)->slept_ms += ms;
}

static const struct fc_dm_ops ops = {
    .show = op_show,
    .device = op_device,
    .create = op_create,
    .load = op_load,
    .clear = op_clear,
    .suspend = op_suspend,
    .resume = op_resume,
    .remove = op_remove,
    .sleep_ms = op_sleep,
};

/* A guest's disk, linear over DISK. */
static struct fc_dm running(struct fake *f)
{
    struct fc_dm dm = { &ops, f };
    *f = (struct fake){
        .live = { .major = 253, .minor = 9, .open_count = 0 },
        .disk = { 252, 1, SECTORS, 512, false, true },
        .nbd = { 43, 3, SECTORS, 512, false, true },
        .own = { 253, 9, SECTORS, 512, false, true },
    };
    assert_int_equal(fc_dm_create(&dm, NAME, DISK), 0);
    assert_string_equal(f->asked, "create");
    *f->asked = '\0';
    return dm;
}

static void is(const struct fake *f, const char *target, const char *params,
               bool suspended, const char *asked)
{
    assert_string_equal(f->live.target, target);
    assert_string_equal(f->live.params, params);
    assert_int_equal(f->live.suspended, suspended);
    assert_string_equal(f->inactive, "");
    assert_string_equal(f->asked, asked);
}

/* Would break: the guest has no disk, or a second "add" takes it away. */
static void creates_once(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);

    is(&f, "linear", "252:1 0", false, "");
    assert_int_equal(f.live.sectors, SECTORS);
    assert_string_equal(f.live.uuid,
                        "FORECOPY-0c6ac5ae-8f1a-4b6c-9d0e-0123456789ab-xvda");
    assert_int_equal(fc_dm_create(&dm, NAME, DISK), 0);
    assert_int_equal(fc_dm_create(&dm, NAME, NBD), FC_EBUSY);
    assert_int_equal(fc_dm_create(&dm, NAME, "/dev/none"), FC_ESYS);
    is(&f, "linear", "252:1 0", false, "");
}

/* Would break: requests in flight meet the table in the middle. */
static void swaps_with_the_guest_running(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);

    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), 0);
    is(&f, "linear", "43:3 0", false, "load suspend resume");
    *f.asked = '\0';
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), 0);
    is(&f, "linear", "43:3 0", false, "");
    assert_int_equal(fc_dm_swap(&dm, NAME, NULL, 1000), 0);
    is(&f, "error", "", false, "load suspend resume");
    *f.asked = '\0';
    assert_int_equal(fc_dm_swap(&dm, NAME, NULL, 1000), 0);
    is(&f, "error", "", false, "");
    assert_int_equal(fc_dm_swap(&dm, NAME, DISK, 1000), 0);
    is(&f, "linear", "252:1 0", false, "load suspend resume");
}

/* Would break: what was held at a fence fails, or goes to the old table. */
static void holds_until_the_table_is_there(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);

    assert_int_equal(fc_dm_suspend(&dm, NAME, 1000), 0);
    assert_int_equal(fc_dm_suspend(&dm, NAME, 1000), 0);
    is(&f, "linear", "252:1 0", true, "suspend");
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), 0);
    is(&f, "linear", "43:3 0", false, "suspend load resume");
    *f.asked = '\0';
    assert_int_equal(fc_dm_suspend(&dm, NAME, 1000), 0);
    /* the table it has: held requests go on */
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), 0);
    is(&f, "linear", "43:3 0", false, "suspend resume");
    assert_int_equal(fc_dm_resume(&dm, NAME), 0);
    is(&f, "linear", "43:3 0", false, "suspend resume");
}

/* Would break: a swap that fails leaves the guest waiting for ever, or a table
 * that comes into force by itself later. */
static void goes_back_when_a_swap_fails(void **state)
{
    (void)state;
    static const struct {
        const char *fail;
        bool late;
        const char *asked;
    } cases[] = {
        { "load", false, "load" },
        { "suspend", false, "load suspend clear" },
        { "suspend", true, "load suspend clear resume" },
        { "resume", false, "load suspend resume clear resume" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fake f;
        struct fc_dm dm = running(&f);
        f.fail = cases[i].fail;
        f.late = cases[i].late;
        f.fail_times = 1;
        assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), FC_ETIMEOUT);
        is(&f, "linear", "252:1 0", false, cases[i].asked);
    }
}

/* Would break: a fence that fails half-way lets the guest write again. */
static void stays_held_when_it_was(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);

    assert_int_equal(fc_dm_suspend(&dm, NAME, 1000), 0);
    f.fail = "resume";
    f.fail_times = 1;
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), FC_ETIMEOUT);
    is(&f, "linear", "252:1 0", true, "suspend load resume clear");
}

/* Would break: a table left over by a tool that died comes into force. */
static void resumes_the_old_table_only(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);

    assert_int_equal(fc_dm_suspend(&dm, NAME, 1000), 0);
    snprintf(f.inactive, sizeof(f.inactive), "error ");
    assert_int_equal(fc_dm_resume(&dm, NAME), 0);
    is(&f, "linear", "252:1 0", false, "suspend clear resume");
}

/* Would break: the disk changes under the guest in what it was told of it. */
static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);
    struct fc_dm_device good = f.nbd;

    f.nbd.sectors = SECTORS - 1;
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), FC_EINVAL);
    f.nbd = good;
    f.nbd.logical_block = 4096;
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), FC_EINVAL);
    f.nbd = good;
    f.nbd.read_only = true;
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), FC_EINVAL);
    f.nbd = f.own;
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), FC_EINVAL);
    is(&f, "linear", "252:1 0", false, "");
    f.nbd = good;
    f.nbd.sectors = SECTORS + 8; /* a volume is rounded up */
    assert_int_equal(fc_dm_swap(&dm, NAME, NBD, 1000), 0);
    assert_int_equal(f.live.sectors, SECTORS);
}

/* Would break: somebody's root volume gets another table. */
static void touches_only_its_own(void **state)
{
    (void)state;
    static const char *const names[] = {
        "vg-root", "forecopy-", "forecopy-../x", "forecopy-a b", "", "x"
    };
    struct fake f;
    struct fc_dm dm = running(&f);
    struct fc_dm_state s;
    char name[200];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(fc_dm_swap(&dm, names[i], NULL, 1000), FC_EINVAL);
        assert_int_equal(fc_dm_remove(&dm, names[i], 1000), FC_EINVAL);
    }
    snprintf(name, sizeof(name), "forecopy-%0*d", FC_DM_NAME_MAX, 0);
    assert_int_equal(fc_dm_show(&dm, name, &s), FC_EINVAL);
    snprintf(f.live.uuid, sizeof(f.live.uuid), "LVM-abcdef");
    assert_int_equal(fc_dm_swap(&dm, NAME, NULL, 1000), FC_EPERM);
    assert_int_equal(fc_dm_suspend(&dm, NAME, 1000), FC_EPERM);
    assert_int_equal(fc_dm_remove(&dm, NAME, 1000), FC_EPERM);
    is(&f, "linear", "252:1 0", false, "");
}

/* Would break: the device outlives its guest, or is waited for without end. */
static void removes_when_it_is_let_go(void **state)
{
    (void)state;
    struct fake f;
    struct fc_dm dm = running(&f);

    f.busy = 3;
    assert_int_equal(fc_dm_remove(&dm, NAME, 1000), 0);
    assert_string_equal(f.asked, "remove");
    assert_int_equal(f.slept_ms, 300);
    assert_int_equal(fc_dm_remove(&dm, NAME, 1000), 0);
    assert_string_equal(f.asked, "remove");
    assert_int_equal(fc_dm_swap(&dm, NAME, NULL, 1000), FC_ENOENT);

    dm = running(&f);
    f.busy = 1000;
    assert_int_equal(fc_dm_remove(&dm, NAME, 1000), FC_EBUSY);
    is(&f, "linear", "252:1 0", false, "");
    assert_int_equal(f.slept_ms, 1000);

    dm = running(&f); /* opened between the look and the removal */
    f.fail = "remove";
    f.fail_times = 1;
    assert_int_equal(fc_dm_remove(&dm, NAME, 1000), 0);
    assert_string_equal(f.asked, "remove remove");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creates_once),
        cmocka_unit_test(swaps_with_the_guest_running),
        cmocka_unit_test(holds_until_the_table_is_there),
        cmocka_unit_test(goes_back_when_a_swap_fails),
        cmocka_unit_test(stays_held_when_it_was),
        cmocka_unit_test(resumes_the_old_table_only),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(touches_only_its_own),
        cmocka_unit_test(removes_when_it_is_let_go),
    };
    return cmocka_run_group_tests_name("dm", tests, NULL, NULL);
}
