/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long a guest stays armed, and what of it is shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon_kit.h"
#include "document.h"

/* An armed guest would be forgotten with the daemon. */
static void test_armed_again(void **state)
{
    (void)state;
    kit_start();
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    assert_int_equal(kit_stop(), 0);
    kit_start();
    KIT_WAIT(kit_number("valid_pages") > 0, );
    /* a reboot: same uuid, another number */
    kit_remove_domain(0);
    KIT_WAIT(kit_ask("{\"cmd\":\"status\",\"domain\":\"guest\"}", NULL) ==
                 FC_ENODOM, );
    kit_add_domain(0, 9, "guest", FC_DOMAIN_PVH);
    KIT_WAIT(kit_number("valid_pages") > 0, );
    assert_int_equal(kit_ask("{\"cmd\":\"disarm\",\"domain\":\"guest\"}", NULL),
                     0);
    assert_int_equal(kit_ask("{\"cmd\":\"disarm\",\"domain\":\"guest\"}", NULL),
                     FC_ENOENT);
    assert_int_equal(kit_stop(), 0);
    kit_start();
    assert_false(kit_number("armed"));
    assert_int_equal(kit_stop(), 0);
}

/* A number of the armed guest that is not here, from the list of all. */
static int64_t away_number(const char *member, char *reason, size_t cap)
{
    struct json_object *reply, *list, *o;
    int64_t n = -1;
    assert_int_equal(kit_ask("{\"cmd\":\"status\"}", &reply), 0);
    assert_true(json_object_object_get_ex(reply, "guests", &list));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        o = json_object_array_get_idx(list, i);
        if (fc_json_int(o, "domid", -1))
            continue;
        n = fc_json_int(o, member, -1);
        snprintf(reason, cap, "%s", fc_json_str(o, "reason", ""));
    }
    json_object_put(reply);
    return n;
}

/* A guest that never comes back would be listed for ever, or one that is only
 * shut down be forgotten; and a daemon that starts anew would count anew. */
static void test_away(void **state)
{
    char why[200] = "";
    (void)state;
    kit_start();
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    assert_int_equal(away_number("disarm_in_s", why, sizeof(why)), -1);
    kit_remove_domain(0);
    KIT_WAIT(away_number("disarm_in_s", why, sizeof(why)) > 0, );
    assert_true(away_number("disarm_in_s", why, sizeof(why)) <= 86400);
    assert_non_null(
        strstr(why, "does not run here; disarmed in 2")); /* 23 or 24 h */
    assert_int_equal(kit_counter("armed_guests"), 1);
    assert_true(kit_number("disarm_in_s") > 0); /* by its uuid */
    assert_int_equal(kit_stop(), 0);
    sleep(3);
    kit_start();
    int64_t left = away_number("disarm_in_s", why, sizeof(why));
    assert_in_range(left, 1, 86397);
    kit_add_domain(0, 8, "guest", FC_DOMAIN_PVH); /* it is back */
    KIT_WAIT(kit_number("armed"), );
    KIT_WAIT(kit_number("channels") > 0, );
    assert_int_equal(kit_ask("{\"cmd\":\"set\",\"domain\":\"guest\","
                             "\"key\":\"armed_away_s\",\"value\":\"1\"}",
                             NULL),
                     0);
    kit_remove_domain(0);
    KIT_WAIT(kit_counter("armed_guests") == 0, );
    assert_int_equal(away_number("disarm_in_s", why, sizeof(why)), -1);
    assert_int_equal(kit_stop(), 0);
    kit_start(); /* nor does the disk know of it */
    assert_int_equal(kit_counter("armed_guests"), 0);
    assert_int_equal(kit_stop(), 0);
}

static bool name_is(const char *name)
{
    struct json_object *v = kit_status("name");
    bool is = v && !strcmp(json_object_get_string(v), name);
    json_object_put(v);
    return is;
}

/* A guest that plain xl took away would stay armed; or one would be disarmed
 * though it is still here under its uuid. */
static void test_migrated_away(void **state)
{
    (void)state;
    kit_start();
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    KIT_WAIT(kit_number("channels") > 0, );
    kit_rename_suspended(0, "guest--migratedaway");
    KIT_WAIT(name_is("guest--migratedaway"), );
    kit_add_domain(0, 8, "guest", FC_DOMAIN_PVH); /* within this host */
    KIT_WAIT(name_is("guest") && kit_number("channels") > 0, );
    assert_int_equal(kit_counter("armed_guests"), 1);
    kit_rename_suspended(0, "guest--migratedaway");
    KIT_WAIT(name_is("guest--migratedaway"), );
    kit_remove_domain(0);
    KIT_WAIT(kit_counter("armed_guests") == 0, );
    KIT_WAIT(kit_counter("keeper_pages") == 0, );
    assert_int_equal(kit_stop(), 0);
}

/* What a program reads would change or appear without the documents. */
static void test_documented(void **state)
{
    struct json_object *reply, *list, *guest, *o;
    char *man = read_document("docs/man/forecopy.8.pod");
    char *control = read_document("docs/formats/control.md");
    char *xl_man = read_document("docs/man/xl-migrate-predictive.8.pod");
    (void)state;
    kit_start();
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    assert_int_equal(kit_ask("{\"cmd\":\"stat\"}", &reply), 0);
    assert_true(json_object_object_get_ex(reply, "counters", &o));
    assert_documented(o, man, "B<", ">");
    json_object_put(reply);
    assert_int_equal(kit_ask("{\"cmd\":\"status\"}", &reply), 0);
    assert_true(json_object_object_get_ex(reply, "guests", &list));
    guest = json_object_array_get_idx(list, 0);
    assert_documented(guest, control, "`", "`");
    assert_true(json_object_object_get_ex(guest, "estimate", &o));
    assert_documented(o, control, "`", "`");
    assert_documented(o, xl_man, "B<", ">");
    json_object_put(reply);
    assert_int_equal(kit_stop(), 0);
    free(xl_man);
    free(man);
    free(control);
}

#define WITH_GUEST(test)                                                       \
    cmocka_unit_test_setup_teardown(test, kit_guest_setup, kit_guest_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_GUEST(test_armed_again),
        WITH_GUEST(test_away),
        WITH_GUEST(test_migrated_away),
        WITH_GUEST(test_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
