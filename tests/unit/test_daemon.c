/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon_kit.h"
#include "hashset.h"
#include "store.h"

#define HOT 3000u
#define HOT_PAGES 100u
#define COLD_PAGES (KIT_RAM - KIT_ZERO - HOT_PAGES)

static uint64_t writes = 1;

static void hot_writes(void)
{
    for (unsigned i = 0; i < HOT_PAGES; i++)
        kit_write(HOT + i, 1000000 + writes++);
}

static void arm_and_stage(void)
{
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    KIT_WAIT(kit_number("valid_pages") >= (int64_t)COLD_PAGES - 8,
             hot_writes());
}

/* Every cold page must be in the set, under the hash it has in the guest. */
static void check_hash_set(int fd)
{
    struct fc_hashset set;
    unsigned missing = 0;
    assert_int_equal(fc_hashset_map(&set, fd), 0);
    for (uint64_t i = KIT_ZERO; i < KIT_RAM; i++)
        if (i < HOT || i >= HOT + HOT_PAGES)
            missing += !fc_hashset_has(&set, fc_page_hash(world->memory[i]));
    assert_true(missing <= 8); /* the canary of the dirty log, and a few */
    fc_hashset_dispose(&set);
}

/* The destination must give what was staged, to whoever knows the token. */
static void check_store(struct json_object *begin)
{
    char request[400];
    struct json_object *reply = NULL;
    struct fc_store_view view;
    uint8_t page[FC_PAGE_SIZE];
    int fd, sock = kit_connect();
    const char *token = fc_json_str(begin, "token", "");
    const char *epoch =
        json_object_to_json_string(json_object_object_get(begin, "epoch"));

    snprintf(request, sizeof(request),
             "{\"cmd\":\"store-open\",\"uuid\":\"" KIT_UUID
             "\",\"token\":\"%s\",\"epoch\":%s}",
             token, epoch);
    assert_int_equal(kit_call_fd(sock, &reply, &fd, request), 0);
    json_object_put(reply);
    assert_int_equal(fc_store_view_open(fd, &view), 0);
    struct fc_hash hash = fc_page_hash(world->memory[700]);
    assert_int_equal(fc_store_view_get(&view, hash, page), 0);
    assert_memory_equal(page, world->memory[700], FC_PAGE_SIZE);
    fc_store_view_dispose(&view);
    close(fd);

    snprintf(request, sizeof(request),
             "{\"cmd\":\"store-open\",\"uuid\":\"" KIT_UUID
             "\",\"token\":\"%032d\",\"epoch\":%s}",
             0, epoch);
    assert_int_equal(kit_call_fd(sock, &reply, NULL, request), FC_EPERM);
    json_object_put(reply);
    close(sock);
}

/* Without it nothing of the daemon works: arm, stage, hand over, revert,
 * migrate. */
static void test_whole_way(void **state)
{
    struct json_object *reply = NULL;
    int fd = -1;
    (void)state;
    kit_start();
    arm_and_stage();
    assert_int_equal(kit_number("zero_pages") >= (int64_t)KIT_ZERO - 8, 1);
    assert_true(kit_number("staged_pages") <=
                (int64_t)(COLD_PAGES + HOT_PAGES));

    int sock = kit_connect();
    assert_int_equal(kit_call_fd(sock, &reply, &fd,
                                 "{\"cmd\":\"migrate-begin\","
                                 "\"domain\":\"guest\",\"host\":\"self\"}"),
                     0);
    assert_true(fd >= 0);
    assert_int_equal(fc_json_int(reply, "domid", 0), 5);
    check_hash_set(fd);
    check_store(reply);
    close(fd);
    json_object_put(reply);

    /* nobody else may begin, and the dirty log is left alone */
    assert_int_equal(kit_ask("{\"cmd\":\"migrate-begin\","
                             "\"domain\":\"5\"}",
                             NULL),
                     FC_EBUSY);
    assert_true(kit_state_is("migrating"));
    kit_lock();
    uint64_t cleans = world->cleans, peeks = world->peeks,
             copies = world->copies,
             switches = world->enables + world->disables;
    kit_unlock();
    for (int i = 0; i < 10; i++) {
        hot_writes();
        usleep(50000);
    }
    kit_lock();
    assert_int_equal(world->cleans, cleans);
    assert_int_equal(world->peeks, peeks);
    assert_int_equal(world->copies, copies);
    assert_int_equal(world->enables + world->disables, switches);
    kit_unlock();

    /* the connection's end means failure: all goes on */
    close(sock);
    KIT_WAIT(world->cleans > cleans, hot_writes());
    KIT_WAIT(kit_number("valid_pages") >= (int64_t)COLD_PAGES - 8,
             hot_writes());
    assert_int_equal(kit_counter("migrations_failed"), 1);

    sock = kit_connect();
    assert_int_equal(kit_call_fd(sock, &reply, &fd,
                                 "{\"cmd\":\"migrate-begin\","
                                 "\"domain\":\"guest\"}"),
                     0);
    json_object_put(reply);
    close(fd);
    assert_int_equal(kit_call_fd(sock, &reply, NULL,
                                 "{\"cmd\":\"migrate-end\",\"uuid\":\"" KIT_UUID
                                 "\",\"success\":true,\"summary\":{}}"),
                     0);
    json_object_put(reply);
    close(sock);
    assert_false(kit_number("armed"));
    KIT_WAIT(kit_counter("keepers") == 0, );
    assert_int_equal(kit_stop(), 0);
}

/* A guest that somebody else saves must not lose dirty bits to us. */
static void test_another_save(void **state)
{
    static const char helper[] = "libxl-save-helper\0--save-domain\0"
                                 "9\0"
                                 "10\0"
                                 "5\0"
                                 "0";
    (void)state;
    kit_start();
    arm_and_stage();
    kit_process(4711, helper, sizeof(helper));
    KIT_WAIT(kit_state_is("paused"), hot_writes());
    kit_lock();
    uint64_t cleans = world->cleans,
             switches = world->enables + world->disables;
    /* as libxc does: off and on at its start, off at its end */
    world->domain[0].log_on = true;
    memset(world->domain[0].dirty, 0, sizeof(world->domain[0].dirty));
    kit_unlock();
    for (int i = 0; i < 30; i++) {
        hot_writes();
        usleep(50000);
    }
    kit_lock();
    assert_int_equal(world->cleans, cleans);
    assert_int_equal(world->enables + world->disables, switches);
    world->domain[0].log_on = false;
    kit_unlock();
    kit_process_ends(4711);
    KIT_WAIT(world->cleans > cleans, hot_writes());
    KIT_WAIT(kit_number("valid_pages") >= (int64_t)COLD_PAGES - 8,
             hot_writes());
    assert_int_equal(kit_stop(), 0);
    assert_false(world->domain[0].log_on);
}

/* A store that is full must neither lose count nor be churned for ever. */
static void test_full_store(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < KIT_ZERO; i++)
        kit_write(i, 777000 + i);
    kit_set_key(FC_XENWATCH_CONFIG "/store_budget_bytes", "16M");
    kit_start();
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    KIT_WAIT(kit_counter("staged_pages_evicted") > 0, );
    KIT_WAIT(kit_state_is("steady"), );
    int64_t sent = kit_counter("staged_pages_sent");
    usleep(3000000);
    assert_true(kit_counter("staged_pages_sent") - sent < 300);
    int64_t staged = kit_number("staged_pages");
    assert_true(staged > 2500 && staged < (int64_t)KIT_RAM);
    assert_true(kit_counter("keeper_used_bytes") <= 16 << 20);
    assert_int_equal(kit_counter("keeper_pages"), staged);
    assert_int_equal(kit_stop(), 0);
}

/* What cannot be done must be said, not tried. */
static void test_refusals(void **state)
{
    struct json_object *reply;
    (void)state;
    kit_start();
    assert_int_equal(kit_ask("{\"cmd\":\"arm\",\"domain\":\"old\","
                             "\"host\":\"h\"}",
                             &reply),
                     FC_ENOLOG);
    assert_non_null(strstr(fc_json_str(reply, "error", ""), "PV guest"));
    json_object_put(reply);
    assert_int_equal(kit_ask("{\"cmd\":\"arm\",\"domain\":\"guest\","
                             "\"host\":\"-oProxyCommand=x\"}",
                             NULL),
                     FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"arm\",\"domain\":\"guest\","
                             "\"host\":\"a;b\"}",
                             NULL),
                     FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"arm\",\"domain\":\"none\","
                             "\"host\":\"h\"}",
                             NULL),
                     FC_ENODOM);
    assert_int_equal(kit_ask("{\"cmd\":\"nonsense\"}", NULL), FC_EINVAL);
    assert_int_equal(kit_ask("{}", NULL), FC_EINVAL);
    assert_int_equal(
        kit_ask("{\"cmd\":\"receive\",\"uuid\":\"" KIT_UUID "\"}", NULL),
        FC_EINVAL);
    assert_int_equal(
        kit_ask("{\"cmd\":\"migrate-end\",\"uuid\":\"" KIT_UUID "\"}", NULL),
        FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"set\",\"key\":\"channels\","
                             "\"value\":\"99\"}",
                             NULL),
                     FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"set\",\"key\":\"channels\","
                             "\"value\":3}",
                             NULL),
                     0);
    assert_int_equal(kit_ask("{\"cmd\":\"set\",\"key\":\"max_armed_guests\","
                             "\"value\":0}",
                             NULL),
                     0);
    assert_int_equal(kit_ask("{\"cmd\":\"arm\",\"domain\":\"guest\","
                             "\"host\":\"h\"}",
                             NULL),
                     FC_ELIMIT);
    assert_int_equal(
        kit_ask("{\"cmd\":\"estimate\",\"domain\":\"guest\"}", NULL), 0);
    assert_int_equal(kit_ask("{\"cmd\":\"log\",\"lines\":5}", NULL), 0);
    assert_int_equal(kit_ask("{\"cmd\":\"version\"}", NULL), 0);
    assert_int_equal(kit_stop(), 0);
}

/* A setting in xenstore must hold while it is there, for its guest only. */
static void test_xenstore_settings(void **state)
{
    static const char path[] = FC_XENWATCH_DOMAINS "/" KIT_UUID "/channels";
    static const char get[] = "{\"cmd\":\"get\",\"key\":\"channels\","
                              "\"domain\":\"guest\"}";
    struct json_object *reply, *s;
    (void)state;
    kit_start();
    close(kit_connect());
    static const struct {
        const char *value;
        int64_t want;
    } steps[] = { { "4", 4 }, { "77", 4 }, { NULL, 1 } };
    for (unsigned i = 0; i < 3; i++) {
        int64_t got = -1;
        kit_set_key(path, steps[i].value);
        for (int n = 0; n < 100 && got != steps[i].want; n++) {
            usleep(20000);
            assert_int_equal(kit_ask(get, &reply), 0);
            assert_true(json_object_object_get_ex(reply, "settings", &s));
            got = fc_json_int(s, "channels", -1);
            json_object_put(reply);
        }
        assert_int_equal(got, steps[i].want);
    }
    assert_int_equal(kit_stop(), 0);
}

/* Of the best of the delta list, how many lie where the guest writes. */
static unsigned hot_regions(int sock)
{
    struct json_object *reply, *list;
    unsigned hot = 0;
    int fd = -1;
    assert_int_equal(kit_call_fd(sock, &reply, &fd,
                                 "{\"cmd\":\"rank\",\"domain\":\"guest\","
                                 "\"list\":\"delta\",\"limit\":10}"),
                     0);
    fc_close(&fd);
    assert_true(json_object_object_get_ex(reply, "regions", &list));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *first =
            json_object_array_get_idx(json_object_array_get_idx(list, i), 0);
        hot += json_object_get_int64(first) >= HOT - 16 &&
               json_object_get_int64(first) < HOT + HOT_PAGES;
    }
    json_object_put(reply);
    return hot;
}

/* What the predictor knows must be there for whoever asks, and of guests that
 * nothing watches a reason why not. */
static void test_predictions(void **state)
{
    struct json_object *reply = NULL, *list;
    struct fc_rank_reader reader;
    struct fc_rank_view view;
    int fd = -1;
    (void)state;
    kit_start();
    assert_int_equal(kit_ask("{\"cmd\":\"rank\",\"domain\":\"guest\"}", NULL),
                     FC_ENOENT);
    assert_int_equal(kit_ask("{\"cmd\":\"when\",\"domain\":\"guest\"}", NULL),
                     FC_ENOENT);
    arm_and_stage();
    int sock = kit_connect();
    KIT_WAIT(hot_regions(sock) >= HOT_PAGES / 16, );
    assert_int_equal(kit_call_fd(sock, &reply, &fd,
                                 "{\"cmd\":\"rank\",\"domain\":\"guest\","
                                 "\"list\":\"delta\",\"limit\":10}"),
                     0);
    assert_true(*fc_json_str(reply, "method", ""));
    json_object_put(reply);
    assert_int_equal(fc_rank_reader_map(&reader, fd), 0);
    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_DELTA, &view), 0);
    assert_true(view.count >= HOT_PAGES / 16);
    fc_rank_reader_unmap(&reader);
    close(fd);

    assert_int_equal(kit_call_fd(sock, &reply, NULL,
                                 "{\"cmd\":\"heatmap\",\"domain\":\"guest\","
                                 "\"cells\":64}"),
                     0);
    assert_true(json_object_object_get_ex(reply, "heat", &list));
    assert_int_equal(json_object_array_length(list), 64);
    int64_t hot = json_object_get_int64(
        json_object_array_get_idx(list, HOT * 64 / KIT_PFNS));
    int64_t cold = json_object_get_int64(json_object_array_get_idx(list, 60));
    assert_true(hot > 2 * cold);
    json_object_put(reply);

    assert_int_equal(kit_call_fd(sock, &reply, NULL,
                                 "{\"cmd\":\"when\",\"domain\":\"guest\","
                                 "\"hours\":5}"),
                     0);
    assert_true(json_object_object_get_ex(reply, "windows", &list));
    assert_int_equal(json_object_array_length(list), 5);
    assert_in_range(fc_json_int(reply, "best", -1), 0, 4);
    json_object_put(reply);
    close(sock);
    assert_int_equal(kit_ask("{\"cmd\":\"when\",\"domain\":\"guest\","
                             "\"hours\":169}",
                             NULL),
                     FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"heatmap\",\"domain\":\"guest\","
                             "\"cells\":0}",
                             NULL),
                     FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"rank\",\"domain\":\"guest\","
                             "\"list\":\"shadow\"}",
                             NULL),
                     FC_EINVAL);
    assert_int_equal(kit_stop(), 0);
}

static void test_prepare(void **state)
{
    static const char request[] = "{\"cmd\":\"prepare\",\"uuid\":\""
                                  "ac010203-0405-0607-0809-010203040506"
                                  "\",\"name\":\"vm\"}";
    static const char script[] = "#!/bin/sh\n[ \"$1 $2\" = 'destroy 8' ]\n";
    static const char restore[] = "libxl-save-helper\0--restore-domain\0"
                                  "1\0"
                                  "2\0"
                                  "8\0"
                                  "0";
    static const char receive[] = "xl\0migrate-receive";
    struct json_object *reply;
    (void)state;
    kit_file(kit_xl, script, sizeof(script) - 1);
    kit_start();
    assert_int_equal(kit_ask(request, &reply), 0);
    assert_int_equal(fc_json_int(reply, "removed", -1), 0);
    json_object_put(reply);
    kit_add_domain(2, 8, "vm--incoming", FC_DOMAIN_PVH);

    for (int step = 0; step < 4; step++) {
        kit_lock();
        world->domain[2].info.paused = step > 0;
        kit_unlock();
        if (step == 1)
            kit_process(50, restore, sizeof(restore));
        if (step == 2) {
            kit_process_ends(50);
            kit_process(51, receive, sizeof(receive));
        }
        if (step == 3)
            kit_process_ends(51);
        assert_int_equal(kit_ask(request, &reply), 0);
        assert_int_equal(fc_json_int(reply, "removed", -1), step == 3 ? 8 : 0);
        if (step < 3)
            assert_string_not_equal(fc_json_str(reply, "reason", ""), "");
        json_object_put(reply);
    }
    assert_int_equal(kit_stop(), 0);
}

#define WITH_GUEST(test)                                                       \
    cmocka_unit_test_setup_teardown(test, kit_guest_setup, kit_guest_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_GUEST(test_whole_way),         WITH_GUEST(test_another_save),
        WITH_GUEST(test_full_store),        WITH_GUEST(test_refusals),
        WITH_GUEST(test_xenstore_settings), WITH_GUEST(test_prepare),
        WITH_GUEST(test_predictions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
