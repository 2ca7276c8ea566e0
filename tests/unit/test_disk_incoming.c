/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks that come from another host: whose volume is written, and when the
 * guest's disk is put on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "disk_kit.h"

#define NEW "ab010203-0405-0607-0809-010203040506" /* no domain here */
#define RUN "run/" NEW "-xvda"
#define M1 "11111111111111111111111111111111"
#define M2 "22222222222222222222222222222222"

static char error[512];

static int prepare(const char *uuid, const char *migration, const char *size,
                   int epoch, const char *more)
{
    char text[1024];
    struct json_object *reply = NULL, *list;
    snprintf(text, sizeof(text),
             "{\"cmd\":\"disk-prepare\",\"uuid\":\"%s\",\"name\":\"web\","
             "\"migration\":\"%s\",\"disks\":[{\"vdev\":\"xvda\",\"target\":"
             "\"%s/web.img\",\"size\":%s,\"block_bytes\":65536,\"epoch\":%d"
             "%s]}",
             uuid, migration, kit_dir, size, epoch, more);
    int rc = kit_ask(text, &reply);
    snprintf(error, sizeof(error), "%s", fc_json_str(reply, "error", ""));
    if (!rc && json_object_object_get_ex(reply, "disks", &list))
        snprintf(error, sizeof(error), "%s",
                 fc_json_str(json_object_array_get_idx(list, 0), "volume", ""));
    json_object_put(reply);
    return rc;
}

static int discard(const char *migration)
{
    char text[256];
    snprintf(text, sizeof(text),
             "{\"cmd\":\"disk-prepare\",\"uuid\":\"" NEW
             "\",\"name\":\"web\",\"migration\":\"%s\",\"discard\":true}",
             migration);
    return kit_ask(text, NULL);
}

/* One member of the only disk that is shown. */
static bool shows(const char *member, const char *value)
{
    struct json_object *reply = NULL, *list = NULL;
    bool is = false;
    assert_int_equal(kit_ask("{\"cmd\":\"disks\"}", &reply), 0);
    json_object_object_get_ex(reply, "disks", &list);
    if (json_object_array_length(list))
        is = !strcmp(
            fc_json_str(json_object_array_get_idx(list, 0), member, ""), value);
    json_object_put(reply);
    return is;
}

/* A number of the only disk's only range: see control.md. */
static int64_t range(unsigned at)
{
    struct json_object *reply = NULL, *list = NULL, *ranges = NULL;
    int64_t n = -2;
    assert_int_equal(
        kit_ask("{\"cmd\":\"disks\",\"domain\":\"" NEW "\"}", &reply), 0);
    json_object_object_get_ex(reply, "disks", &list);
    if (json_object_array_length(list) == 1)
        json_object_object_get_ex(json_object_array_get_idx(list, 0), "ranges",
                                  &ranges);
    if (ranges && json_object_array_length(ranges) == 1)
        n = json_object_get_int64(json_object_array_get_idx(
            json_object_array_get_idx(ranges, 0), at));
    json_object_put(reply);
    return n;
}

static bool owns(int epoch)
{
    struct json_object *reply = NULL, *list = NULL, *o;
    bool is = false;
    assert_int_equal(kit_ask("{\"cmd\":\"lease-show\"}", &reply), 0);
    json_object_object_get_ex(reply, "leases", &list);
    if (json_object_array_length(list)) {
        o = json_object_array_get_idx(list, 0);
        is = !strcmp(fc_json_str(o, "state", ""), "here") &&
             fc_json_int(o, "epoch", -1) == epoch;
    }
    json_object_put(reply);
    return is;
}

/* A channel as `forecopy disk-receive` hands it over; the connection. */
static int channel(int *sock_r)
{
    struct json_object *reply = NULL,
                       *o = json_tokener_parse("{\"cmd\":\"disk-receive\","
                                               "\"uuid\":\"" NEW
                                               "\",\"vdev\":\"xvda\"}");
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    const int fds[2] = { pair[1], pair[1] };
    *sock_r = kit_connect();
    int rc = fc_ctl_call(*sock_r, o, fds, 2, &reply, NULL, 20000);
    json_object_put(reply);
    json_object_put(o);
    close(pair[0]);
    close(pair[1]);
    return rc;
}

/* As the hotplug script does when the guest's disk is attached. */
static void guest_comes(void)
{
    char text[256];
    snprintf(text, sizeof(text), "%s/web.img\n", kit_dir);
    disk_file(RUN "/target", text);
    disk_file(RUN "/backing", "/dev/loop9\n");
}

/* Would break: the guest's disk is put on a volume that is not complete, or
 * stays on the engine for ever; the lease is not noted here. */
static void test_arrives(void **state)
{
    int sock;
    struct stat st;
    char path[256];
    (void)state;
    disk_engine(false, 16, 16, false, 0);
    kit_start();
    assert_int_equal(channel(&sock), FC_ENOENT); /* nothing is prepared */
    close(sock);
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}"), 0);
    assert_non_null(strstr(error, "web.img is created"));
    snprintf(path, sizeof(path), "%s/web.img", kit_dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1048576);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(disk_has("engine.log", "role=shadow volume=/tmp"));
    assert_true(disk_has("engine.log", "owner=0"));
    assert_string_equal(disk_text(RUN "/incoming"), "/dev/nbd7\n");
    assert_int_equal(channel(&sock), 0);
    KIT_WAIT(disk_has("engine.log", "\"channel\""), );
    disk_engine(false, 16, 4, true, 0);
    KIT_WAIT(shows("state", "filling"), );
    guest_comes();
    /* all is there, but it is not this host's */
    disk_engine(false, 16, 0, true, 0);
    KIT_WAIT(shows("state", "filling"), );
    assert_false(disk_has("tool.log", "dm-swap"));
    /* it is this host's, but not all is there; also for a new daemon */
    disk_file("ranges", "{\"ok\":true,\"range_blocks\":256,\"valid\":[12],"
                        "\"used_s\":[1700000000]}\n");
    disk_engine(true, 16, 4, true, 1);
    KIT_WAIT(owns(1), );
    KIT_WAIT(range(4) == 1, );
    assert_int_equal(range(1), 16);
    assert_int_equal(range(2), 12);
    assert_int_equal(range(5), -1);
    assert_int_equal(range(6), 1700000000);
    assert_true(shows("state", "hydrating"));
    assert_int_equal(discard(M2), 0); /* not of this migration */
    kill(kit_daemon, SIGKILL);
    waitpid(kit_daemon, NULL, 0);
    close(sock);
    kit_start();
    assert_int_equal(range(2), 12);
    KIT_WAIT(shows("state", "hydrating"), );
    assert_int_equal(disk_count("engine.log", "start"), 1);
    assert_int_equal(disk_count("tool.log", "nbd-attach"), 1);
    assert_false(disk_has("tool.log", "dm-swap"));
    disk_engine(true, 16, 0, false, 1);
    KIT_WAIT(shows("role", "volume"), );
    assert_true(disk_has("tool.log",
                         "dm-swap forecopy-" NEW "-xvda linear /dev/loop9\n"
                         "nbd-detach /dev/nbd7"));
    assert_true(disk_has("engine.log", "{\"cmd\":\"sync\"}"));
    assert_false(disk_is_there(RUN "/incoming"));
    /* what is known of it is told on */
    assert_int_equal(range(2), 16);
    assert_int_equal(range(6), 1700000000);
    assert_int_equal(kit_counter("disk_misses"), 2);
    assert_int_equal(kit_counter("disk_hits_predictive"), 6);
    assert_int_equal(kit_counter("disk_reads"), 5);
    assert_int_equal(kit_counter("disk_read_p50_us"), 1);
    assert_int_equal(stat(path, &st), 0);
    /* what is here is not overwritten by an older owner */
    assert_int_equal(prepare(NEW, M2, "1048576", 1, "}"), FC_EPERM);
    assert_int_equal(kit_stop(), 0);
}

/* Would break: a volume of somebody else's is overwritten. */
static void test_whose(void **state)
{
    char path[256], more[300];
    (void)state;
    snprintf(path, sizeof(path), "%s/web.img", kit_dir);
    kit_file(path, "precious", 8);
    if (truncate(path, 1048576))
        abort();
    kit_start();
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}"), FC_EPERM);
    assert_non_null(strstr(error, "--overwrite-disk"));
    assert_int_equal(prepare(NEW, M1, "2097152", 1, ",\"overwrite\":true}"),
                     FC_EINVAL);
    assert_non_null(strstr(error, "has 1048576 bytes"));
    assert_int_equal(prepare(NEW, M1, "1000", 1, "}"), FC_EINVAL);
    assert_int_equal(prepare(NEW, "x", "1048576", 1, "}"), FC_EINVAL);
    assert_int_equal(prepare(NEW, M1, "1048576", 0, "}"), FC_EINVAL);
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "},{\"vdev\":\"xvda\"}"),
                     FC_EINVAL);
    assert_int_equal(prepare(KIT_UUID, M1, "1048576", 1, "}"), FC_EBUSY);
    assert_int_equal(
        prepare(NEW, M1, "1048576", 1, ",\"template\":\"/dev/nothere\"}"),
        FC_EINVAL);
    assert_int_equal(
        prepare(NEW, M1, "1048576", 1, ",\"template\":\"/x/../y\"}"),
        FC_EINVAL);
    assert_int_equal(prepare(NEW, M1, "1048576", 1, ",\"template\":\"/dev\"}"),
                     FC_EINVAL);
    assert_string_equal(disk_text("engine.log"), "");
    assert_true(disk_has("web.img", "precious"));
    /* what was taken once is known as ours, and not removed */
    assert_int_equal(prepare(NEW, M1, "1048576", 1, ",\"overwrite\":true}"), 0);
    assert_non_null(strstr(error, "is overwritten"));
    assert_int_equal(prepare(NEW, M2, "1048576", 1, "}"), 0);
    assert_non_null(strstr(error, "is there, ours"));
    assert_int_equal(discard(M1), 0); /* it belongs to M2 now */
    assert_true(shows("role", "shadow"));
    assert_int_equal(discard(M2), 0);
    KIT_WAIT(!shows("role", "shadow"), );
    assert_true(disk_is_there("web.img"));
    assert_false(disk_is_there(RUN));
    /* the next attempt finds it, also by a daemon started anew */
    assert_int_equal(kit_stop(), 0);
    kit_start();
    assert_false(shows("role", "shadow"));
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}"), 0);
    assert_non_null(strstr(error, "is there, ours"));
    assert_int_equal(discard(M1), 0);
    KIT_WAIT(!shows("role", "shadow"), );

    /* one that was made here goes again */
    snprintf(more, sizeof(more), ",\"template\":\"%s/%%n-%%v.img\"}", kit_dir);
    assert_int_equal(prepare(NEW, M1, "1048576", 1, more), 0);
    assert_true(disk_is_there("web-xvda.img"));
    assert_int_equal(discard(M1), 0);
    KIT_WAIT(!disk_is_there("web-xvda.img"), );

    /* but not under a guest that was given it meanwhile */
    assert_int_equal(prepare(NEW, M1, "1048576", 1, more), 0);
    disk_attach("xvda");
    snprintf(path, sizeof(path), "%s/web-xvda.img\n", kit_dir);
    disk_file("run/" KIT_UUID "-xvda/target", path);
    assert_int_equal(discard(M1), 0);
    KIT_WAIT(!shows("role", "shadow"), );
    assert_true(disk_is_there("web-xvda.img"));
    assert_int_equal(kit_stop(), 0);
}

/* Would break: what fails half way stays, or the source is not told. */
static void test_fails(void **state)
{
    (void)state;
    disk_file("tool-nbd-attach", "");
    kit_start();
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}"), FC_EPEER);
    assert_non_null(strstr(error, "attaching nbd failed: no nbd-attach"));
    KIT_WAIT(!disk_is_there("web.img"), );
    KIT_WAIT(!disk_is_there(RUN), );
    disk_file("tool-nbd-attach", NULL);
    KIT_WAIT(prepare(NEW, M1, "1048576", 1, "}") == 0, );
    assert_int_equal(kit_stop(), 0);
}

/* Would break: a destination that got the LEASE and nothing more keeps what the
 * source has taken back; or gives up what the guest runs on. */
static void test_taken_back(void **state)
{
    int sock;
    (void)state;
    disk_engine(false, 16, 16, true, 0);
    kit_start();
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}"), 0);
    assert_int_equal(channel(&sock), 0);
    disk_engine(true, 16, 4, true, 1);
    KIT_WAIT(owns(1), );
    kit_add_domain(1, 7, "web", FC_DOMAIN_PVH); /* NEW's uuid, and it runs */
    KIT_WAIT(kit_counter("domains") == 2, );    /* it is known here */
    assert_int_equal(discard(M1), FC_EBUSY);
    kit_lock();
    world->domain[1].info.paused = true; /* xl destroys it */
    kit_unlock();
    KIT_WAIT(discard(M1) == 0, );
    sleep(2);
    assert_true(disk_is_there("web.img"));
    kit_remove_domain(1);
    KIT_WAIT(!disk_is_there("web.img"), );
    close(sock);
    assert_int_equal(kit_stop(), 0);
}

/* Would break: a shadow that its source has forgotten stays for ever, or one
 * that is kept warm goes. */
static void test_lingers(void **state)
{
    (void)state;
    disk_engine(false, 16, 16, false, 0);
    kit_set_key(FC_XENWATCH_CONFIG "/disk_linger_s", "1");
    kit_set_key(FC_XENWATCH_CONFIG, NULL);
    kit_start();
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}"), 0);
    KIT_WAIT(!disk_is_there("web.img"), );
    assert_int_equal(prepare(NEW, M1, "1048576", 1, "}],\"warm\":true,\"x\":["),
                     0);
    sleep(4);
    assert_true(shows("state", "waiting"));
    assert_int_equal(kit_stop(), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        WITH_DISKS(test_arrives), WITH_DISKS(test_whose),
        WITH_DISKS(test_fails),   WITH_DISKS(test_taken_back),
        WITH_DISKS(test_lingers),
    };
    if (argc > 1 && !strcmp(argv[1], "fake-engine"))
        return fake_engine(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
