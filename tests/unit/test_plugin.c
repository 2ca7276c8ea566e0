/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <libnbd.h>

#include "engine_kit.h"

#define BLOCK 4096u
#define SIZE (BLOCK * 512u)

struct world {
    char dir[64];
    struct engine source, shadow;
    struct nbd_handle *nbd;
    uint8_t model[SIZE];
    unsigned seed;
};

static struct nbd_handle *attach(struct engine *e)
{
    struct nbd_handle *h = nbd_create();
    assert_non_null(h);
    if (nbd_connect_unix(h, e->socket))
        fail_msg("%s: %s", e->socket, nbd_get_error());
    return h;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    signal(SIGPIPE, SIG_IGN);
    strcpy(w->dir, "/tmp/forecopy-engine-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->seed = 7;
    engine_file(w->dir, "source.img", SIZE);
    engine_file(w->dir, "shadow.img", SIZE);
    engine_start(&w->source, w->dir, "source", NULL, NULL);
    engine_start(&w->shadow, w->dir, "shadow", NULL, NULL);
    w->nbd = attach(&w->source);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    nbd_close(w->nbd);
    engine_end(&w->source, SIGKILL);
    engine_end(&w->shadow, SIGKILL);
    engine_clean(w->dir);
    free(w);
    return 0;
}

static void guest_writes(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint32_t len = 512u * (1 + (uint32_t)rand_r(&w->seed) % 40);
        uint32_t offset = 512u * ((uint32_t)rand_r(&w->seed) % (SIZE / 512));
        uint32_t flags = rand_r(&w->seed) % 16 ? 0 : LIBNBD_CMD_FLAG_FUA;
        if (len > SIZE - offset)
            len = SIZE - offset;
        if (rand_r(&w->seed) % 8 == 0) {
            memset(w->model + offset, 0, len);
            assert_int_equal(nbd_zero(w->nbd, len, offset, flags), 0);
            continue;
        }
        for (uint32_t j = 0; j < len; j++)
            w->model[offset + j] = (uint8_t)rand_r(&w->seed);
        assert_int_equal(
            nbd_pwrite(w->nbd, w->model + offset, len, offset, flags), 0);
    }
}

static void compare(struct world *w, struct nbd_handle *h)
{
    static uint8_t buf[SIZE];
    assert_int_equal(nbd_pread(h, buf, SIZE, 0, 0), 0);
    for (uint32_t i = 0; i < SIZE; i++)
        if (buf[i] != w->model[i])
            fail_msg("byte %u (block %u) is %02x, not %02x", i, i / BLOCK,
                     buf[i], w->model[i]);
}

static void compare_file(struct world *w, const char *name)
{
    static uint8_t buf[SIZE];
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fread(buf, 1, SIZE, f), SIZE);
    fclose(f);
    assert_memory_equal(buf, w->model, SIZE);
}

#define MIGRATION "\"migration\":\"00112233445566778899aabbccddeeff\""
#define FENCE(more)                                                            \
    "{\"cmd\":\"fence\"," MIGRATION ",\"epoch\":5,\"timeout_ms\":60000" more "}"

/* The first of an engine's ranges: "valid" or "used_s". */
static int64_t range_of(struct engine *e, const char *key)
{
    struct json_object *list = NULL;
    struct json_object *reply = engine_ask(e, "{\"cmd\":\"ranges\"}", NULL, 0);
    json_object_object_get_ex(reply, key, &list);
    int64_t n = json_object_array_length(list) == 1
                    ? json_object_get_int64(json_object_array_get_idx(list, 0))
                    : -1;
    assert_int_equal(fc_json_int(reply, "range_blocks", 0), 4096);
    json_object_put(reply);
    return n;
}

/* Would break: the disk after `xl migrate --complete-disks` is not the disk
 * before it. */
static void complete_migration(void **state)
{
    struct world *w = *state;
    assert_int_equal(range_of(&w->source, "valid"), 0);
    assert_int_equal(range_of(&w->source, "used_s"), 0);
    guest_writes(w, 200);
    assert_true(range_of(&w->source, "used_s") > 1600000000);
    assert_int_equal(nbd_flush(w->nbd, 0), 0);
    engine_join(&w->source, &w->shadow);
    engine_await(engine_number(&w->shadow, "valid_blocks") > 0);
    guest_writes(w, 300);
    assert_true(engine_does(&w->source, FENCE(",\"complete\":true")));
    assert_true(engine_does(&w->source, FENCE(",\"complete\":true")));
    assert_true(engine_is(&w->source, "fenced"));
    assert_true(engine_does(&w->source, "{\"cmd\":\"lease\"}"));
    assert_true(engine_does(&w->source, "{\"cmd\":\"lease\"}"));
    assert_true(engine_is(&w->source, "leased"));
    assert_true(engine_is(&w->shadow, "owned"));
    struct nbd_handle *there = attach(&w->shadow);
    compare(w, there);
    engine_await(engine_number(&w->source, "complete") == 1);
    assert_int_equal(range_of(&w->shadow, "valid"), SIZE / BLOCK);
    /* the guest goes on at the destination */
    nbd_close(w->nbd);
    w->nbd = there;
    guest_writes(w, 100);
    assert_int_equal(nbd_flush(there, 0), 0);
    compare(w, there);
    assert_false(engine_does(&w->source, "{\"cmd\":\"unfence\"}"));
    assert_true(engine_does(&w->source, "{\"cmd\":\"finish\"}"));
    assert_true(engine_does(&w->shadow, "{\"cmd\":\"finish\"}"));
    assert_int_equal(engine_end(&w->source, SIGTERM), 0);
    compare_file(w, "shadow.img");
}

/* Would break: an engine that crashed in the middle of copying costs the guest
 * a write, or the copy a block. */
static void engines_killed_in_mid_copy(void **state)
{
    struct world *w = *state;
    guest_writes(w, 300);
    assert_true(engine_does(&w->source, "{\"cmd\":\"rate\",\"bytes_ps\":1}"));
    engine_join(&w->source, &w->shadow);
    engine_await(engine_number(&w->shadow, "valid_blocks") > 0);
    assert_true(engine_number(&w->shadow, "remaining_blocks") > 0);
    engine_end(&w->shadow, SIGKILL);
    engine_await(engine_number(&w->source, "channel") == 0);
    guest_writes(w, 50);
    engine_start(&w->shadow, w->dir, "shadow", NULL, NULL);
    assert_int_equal(engine_number(&w->shadow, "valid_blocks"), 0);
    engine_join(&w->source, &w->shadow);
    engine_await(engine_number(&w->source, "channel") == 1);

    nbd_close(w->nbd);
    engine_end(&w->source, SIGKILL);
    engine_start(&w->source, w->dir, "source", NULL, NULL);
    w->nbd = attach(&w->source);
    compare(w, w->nbd);
    guest_writes(w, 50);
    engine_join(&w->source, &w->shadow);
    guest_writes(w, 50);
    assert_true(engine_does(&w->source, FENCE(",\"complete\":true")));
    assert_true(engine_does(&w->source, "{\"cmd\":\"lease\"}"));
    struct nbd_handle *there = attach(&w->shadow);
    compare(w, there);
    nbd_close(there);
}

/* Would break: with the disk flipped early, a source engine killed afterwards
 * makes reads fail instead of wait; or the one started for it lets the guest
 * write, or does not serve. */
static void lazy_migration_outlives_the_source_engine(void **state)
{
    struct world *w = *state;
    static uint8_t buf[BLOCK];
    guest_writes(w, 300);
    assert_true(engine_does(&w->source, "{\"cmd\":\"rate\",\"bytes_ps\":1}"));
    engine_join(&w->source, &w->shadow);
    engine_await(engine_number(&w->source, "channel") == 1);
    assert_true(engine_does(&w->source, FENCE("")));
    assert_true(engine_does(&w->source, "{\"cmd\":\"lease\"}"));
    assert_true(engine_number(&w->shadow, "remaining_blocks") > 0);
    engine_end(&w->source, SIGKILL);
    engine_await(engine_number(&w->shadow, "channel") == 0);

    struct nbd_handle *there = attach(&w->shadow);
    int64_t cookie =
        nbd_aio_pread(there, buf, BLOCK, SIZE - BLOCK, NBD_NULL_COMPLETION, 0);
    assert_true(cookie > 0);
    engine_await((nbd_poll(there, 0), engine_number(&w->shadow, "held") == 1));
    assert_int_equal(nbd_aio_command_completed(there, (uint64_t)cookie), 0);
    engine_start(&w->source, w->dir, "source", NULL, "owner=0");
    assert_int_equal(engine_number(&w->source, "owner"), 0);
    assert_true(engine_does(&w->source,
                            "{\"cmd\":\"freeze\"," MIGRATION ",\"epoch\":5}"));
    engine_join(&w->source, &w->shadow);
    engine_await((nbd_poll(there, 0),
                  nbd_aio_command_completed(there, (uint64_t)cookie) == 1));
    assert_memory_equal(buf, w->model + SIZE - BLOCK, BLOCK);
    compare(w, there);
    engine_await(engine_number(&w->source, "complete") == 1);
    nbd_close(there);
    engine_end(&w->source, SIGKILL);
    compare_file(w, "shadow.img");
}

/* Would break: a disk engine that is told to end gives a guest that waits for
 * the hand-over an I/O error. */
static void held_requests_get_no_error(void **state)
{
    struct world *w = *state;
    static uint8_t buf[BLOCK];
    guest_writes(w, 10);
    engine_join(&w->source, &w->shadow);
    assert_true(engine_does(&w->source, FENCE("")));
    int64_t cookie =
        nbd_aio_pread(w->nbd, buf, BLOCK, 0, NBD_NULL_COMPLETION, 0);
    assert_true(cookie > 0);
    engine_await((nbd_poll(w->nbd, 0), engine_number(&w->source, "held") == 1));
    assert_int_equal(engine_end(&w->source, SIGTERM), 0);
    engine_await((nbd_poll(w->nbd, 0),
                  nbd_aio_is_dead(w->nbd) || nbd_aio_is_closed(w->nbd) ||
                      nbd_aio_command_completed(w->nbd, (uint64_t)cookie)));
    assert_true(nbd_aio_is_dead(w->nbd) || nbd_aio_is_closed(w->nbd));

    /* and handed back, it is answered */
    nbd_close(w->nbd);
    engine_start(&w->source, w->dir, "source", NULL, "owner=0");
    w->nbd = attach(&w->source);
    cookie = nbd_aio_pread(w->nbd, buf, BLOCK, 0, NBD_NULL_COMPLETION, 0);
    engine_await((nbd_poll(w->nbd, 0), engine_number(&w->source, "held") == 1));
    assert_true(engine_does(&w->source, "{\"cmd\":\"unfence\"}"));
    engine_await((nbd_poll(w->nbd, 0),
                  nbd_aio_command_completed(w->nbd, (uint64_t)cookie) == 1));
    assert_memory_equal(buf, w->model, BLOCK);
}

/* Would break: a daemon's mistake or a stranger's line ends the engine. */
static void bad_requests_are_refused(void **state)
{
    struct world *w = *state;
    static const char *const bad[] = {
        "{\"cmd\":\"nonsense\"}",
        "{}",
        "{\"cmd\":\"channel\"}",
        "{\"cmd\":\"order\"}",
        "{\"cmd\":\"rate\",\"bytes_ps\":-1}",
        "{\"cmd\":\"rate\",\"bytes_ps\":\"1\"}",
        "{\"cmd\":\"fence\"," MIGRATION ",\"epoch\":0}",
        "{\"cmd\":\"fence\",\"migration\":\"00\",\"epoch\":1}",
        "{\"cmd\":\"fence\",\"epoch\":1}",
        "{\"cmd\":\"lease\"}",
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(engine_does(&w->source, bad[i]));
    assert_false(engine_does(&w->shadow, FENCE("")));
    assert_false(engine_does(&w->shadow, "{\"cmd\":\"finish\"}"));
    int sock = fc_ctl_connect(w->source.control, 1000);
    assert_true(sock >= 0);
    assert_int_equal(fc_write_all(sock, "{]\n", 3), 0);
    char reply[256] = "";
    assert_int_equal(fc_wait_readable(sock, ENGINE_PATIENCE_MS), 1);
    assert_true(read(sock, reply, sizeof(reply) - 1) > 0);
    assert_non_null(strstr(reply, "FC_EFORMAT"));
    close(sock);
    guest_writes(w, 5);
    compare(w, w->nbd);
}

/* Would break: with the shared storage away for a minute, a guest on its cache
 * gets an I/O error, even for what the cache has; or writes miss the primary.
 */
static void cache_outlives_its_primary(void **state)
{
    struct world *w = *state;
    static uint8_t buf[BLOCK];
    struct engine cache = { .pid = 0 };
    char uri[200];
    engine_file(w->dir, "cache.img", SIZE);
    guest_writes(w, 100);
    snprintf(uri, sizeof(uri), "primary=nbd+unix:///?socket=%s",
             w->source.socket);
    engine_start(&cache, w->dir, "cache", NULL, uri);
    struct nbd_handle *h = attach(&cache);
    assert_int_equal(nbd_pread(h, buf, BLOCK, 0, 0), 0);
    assert_memory_equal(buf, w->model, BLOCK);
    memset(w->model + 512, 0x5a, 1024);
    assert_int_equal(nbd_pwrite(h, w->model + 512, 1024, 512, 0), 0);
    assert_int_equal(nbd_flush(h, 0), 0);
    compare(w, w->nbd); /* it is in the primary, too */

    nbd_close(w->nbd);
    engine_end(&w->source, SIGKILL);
    int64_t cookie =
        nbd_aio_pread(h, buf, BLOCK, SIZE - BLOCK, NBD_NULL_COMPLETION, 0);
    assert_true(cookie > 0);
    engine_await((nbd_poll(h, 0), engine_number(&cache, "channel") == 0 &&
                                      engine_number(&cache, "held") == 1));
    static uint8_t hit[BLOCK];
    struct nbd_handle *other = attach(&cache);
    assert_int_equal(nbd_pread(other, hit, BLOCK, 0, 0), 0);
    assert_memory_equal(hit, w->model, BLOCK);
    engine_start(&w->source, w->dir, "source", NULL, NULL);
    w->nbd = attach(&w->source);
    engine_await(
        (nbd_poll(h, 0), nbd_aio_command_completed(h, (uint64_t)cookie) == 1));
    assert_memory_equal(buf, w->model + SIZE - BLOCK, BLOCK);
    compare(w, h);
    nbd_close(other);
    nbd_close(h);
    engine_end(&cache, SIGKILL);
}

/* All blocks, the last one first. */
static void give_order(struct engine *e)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    for (uint32_t b = SIZE / BLOCK; b--;)
        for (unsigned byte = 0; byte < 4; byte++)
            fputc((int)(b >> (8 * byte) & 0xff), f);
    assert_int_equal(fflush(f), 0);
    int fd = fileno(f);
    struct json_object *reply = engine_ask(e, "{\"cmd\":\"order\"}", &fd, 1);
    assert_int_equal(fc_json_int(reply, "blocks", 0), SIZE / BLOCK);
    json_object_put(reply);
    fclose(f);
}

/* Would break: a cache of storage that this host opens itself shows something
 * else than that, keeps writes from it, or cannot do without it for a while. */
static void caches_what_the_host_opens(void **state)
{
    struct world *w = *state;
    static uint8_t buf[BLOCK];
    struct engine cache = { .pid = 0 };
    char path[128], primary[160];
    engine_file(w->dir, "cache.img", SIZE);
    engine_file(w->dir, "home.img", SIZE);
    snprintf(path, sizeof(path), "%s/home.img", w->dir);
    for (unsigned i = 0; i < SIZE; i++)
        w->model[i] = (uint8_t)rand_r(&w->seed);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fwrite(w->model, 1, SIZE, f), SIZE);
    fclose(f);
    snprintf(primary, sizeof(primary), "primary=%s", path);
    engine_start(&cache, w->dir, "cache", NULL, primary);
    struct nbd_handle *h = attach(&cache);
    assert_int_equal(nbd_pread(h, buf, BLOCK, 5 * BLOCK, 0), 0);
    assert_memory_equal(buf, w->model + 5 * BLOCK, BLOCK);
    give_order(&cache);
    engine_await(engine_number(&cache, "complete") == 1);
    assert_int_equal(engine_number(&cache, "channel"), 1);
    memset(w->model + 512, 0x5a, 1024);
    assert_int_equal(nbd_pwrite(h, w->model + 512, 1024, 512, 0), 0);
    assert_int_equal(nbd_flush(h, 0), 0);
    compare(w, h);
    compare_file(w, "home.img");
    nbd_close(h);
    engine_end(&cache, SIGKILL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(complete_migration),
        TEST(engines_killed_in_mid_copy),
        TEST(lazy_migration_outlives_the_source_engine),
        TEST(held_requests_get_no_error),
        TEST(cache_outlives_its_primary),
        TEST(caches_what_the_host_opens),
        TEST(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
