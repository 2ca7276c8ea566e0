/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many threads on one shadow: against a plain array of bytes, and the races
 * that matter made to happen by a primary that waits at a gate. */
#include <stdatomic.h>

#include "shadow_kit.h"

/* ---- random requests against a plain array ---- */

#define GUESTS 4u
#define CHUNK 1536u     /* a guest's own bytes; no multiple of a block */
#define WIDE_FROM 300u  /* from here on guests own whole blocks */
#define WIDE_BLOCKS 70u /* each so many */
#define STEPS 1500u

struct guest {
    struct kit *k;
    uint8_t *model; /* shared; each guest touches its own bytes only */
    unsigned number;
    pthread_t thread;
};

static void random_span(struct guest *g, uint64_t *rng, uint64_t *offset_r,
                        uint64_t *len_r)
{
    uint64_t r = kit_rng(rng), base, room;

    if (r & 1) {
        uint64_t chunks = WIDE_FROM * KIT_BLOCK / CHUNK / GUESTS;
        base = ((r >> 1) % chunks * GUESTS + g->number) * CHUNK;
        room = CHUNK;
    } else {
        base = (WIDE_FROM + g->number * WIDE_BLOCKS) * KIT_BLOCK;
        room = WIDE_BLOCKS * KIT_BLOCK;
    }
    uint64_t from = kit_rng(rng) % room;
    if (r & 2) /* on a block's edge, as file systems write */
        from -=
            (base + from) % KIT_BLOCK < from ? (base + from) % KIT_BLOCK : 0;
    *offset_r = base + from;
    *len_r = 1 + kit_rng(rng) % (room - from);
    if (*len_r > 5 * KIT_BLOCK)
        *len_r = 5 * KIT_BLOCK;
}

static void *guest_main(void *user)
{
    struct guest *g = user;
    struct fc_shadow *s = g->k->s;
    uint64_t rng = 77 + g->number, offset, len;
    uint8_t buf[5 * KIT_BLOCK];

    for (unsigned i = 0; i < STEPS; i++) {
        random_span(g, &rng, &offset, &len);
        unsigned op = kit_rng(&rng) % 16;
        if (op < 7) {
            assert_int_equal(fc_shadow_read(s, offset, buf, len), 0);
            assert_memory_equal(buf, g->model + offset, len);
        } else if (op < 14) {
            for (uint64_t b = 0; b < len; b++)
                buf[b] = (uint8_t)kit_rng(&rng);
            memcpy(g->model + offset, buf, len);
            assert_int_equal(fc_shadow_write(s, offset, buf, len), 0);
        } else if (op == 14) {
            memset(g->model + offset, 0, len);
            assert_int_equal(fc_shadow_zero(s, offset, len, i & 1), 0);
        } else {
            assert_int_equal(fc_shadow_flush(s), 0);
        }
    }
    return NULL;
}

/* Blocks that come late: always the primary's, whatever the guests did. */
static void *late_main(void *user)
{
    struct kit *k = user;
    uint64_t rng = 4711;

    for (unsigned i = 0; i < 600; i++) {
        uint32_t b = kit_rng(&rng) % KIT_BLOCKS, n = 1 + kit_rng(&rng) % 8;
        if (n > KIT_BLOCKS - b)
            n = KIT_BLOCKS - b;
        uint8_t *data = calloc(n, KIT_BLOCK);
        assert_non_null(data);
        uint64_t at = (uint64_t)b * KIT_BLOCK, len = (uint64_t)n * KIT_BLOCK;
        memcpy(data, k->primary.bytes + at,
               len < KIT_SIZE - at ? len : KIT_SIZE - at);
        assert_int_equal(fc_shadow_put(k->s, b, n, data), 0);
        free(data);
    }
    return NULL;
}

/* The primary comes and goes until `stop`. */
struct flaps {
    struct kit *k;
    atomic_bool stop;
};

static void *flap_main(void *user)
{
    struct flaps *f = user;

    while (!atomic_load(&f->stop)) {
        kit_primary_set(&f->k->primary, true, false);
        usleep(500);
        kit_primary_set(&f->k->primary, false, false);
        fc_shadow_primary_up(f->k->s);
        usleep(500);
    }
    return NULL;
}

/* Would break: with many requests at once, anything that the guest wrote is
 * lost, torn, or shows up where it does not belong. */
static void requests_match_a_plain_array(void **state)
{
    (void)state;
    struct kit k;
    struct guest guests[GUESTS];
    struct flaps flaps = { .k = &k };
    pthread_t late, flap;
    uint32_t order[KIT_BLOCKS];
    kit_init(&k);
    uint8_t *model = malloc(KIT_SIZE);
    assert_non_null(model);
    memcpy(model, k.primary.bytes, KIT_SIZE);
    for (uint32_t i = 0; i < KIT_BLOCKS; i++)
        order[i] = i * 7 % KIT_BLOCKS;
    assert_int_equal(fc_shadow_set_order(k.s, order, KIT_BLOCKS), 0);
    assert_int_equal(fc_shadow_start(k.s), 0);
    fc_shadow_set_rate(k.s, 4 << 20);
    for (unsigned i = 0; i < GUESTS; i++) {
        guests[i] = (struct guest){ .k = &k, .model = model, .number = i };
        assert_int_equal(
            pthread_create(&guests[i].thread, NULL, guest_main, &guests[i]), 0);
    }
    kit_own(&k); /* while they are at it */
    assert_int_equal(pthread_create(&late, NULL, late_main, &k), 0);
    assert_int_equal(pthread_create(&flap, NULL, flap_main, &flaps), 0);
    for (unsigned i = 0; i < GUESTS; i++)
        pthread_join(guests[i].thread, NULL);
    pthread_join(late, NULL);
    atomic_store(&flaps.stop, true);
    pthread_join(flap, NULL);
    kit_assert_reads(&k, 0, model, KIT_SIZE);
    fc_shadow_set_rate(k.s, 0);
    KIT_WAIT("all blocks", fc_shadow_complete(k.s));
    kit_close_shadow(&k);
    assert_memory_equal(k.data.bytes, model, KIT_SIZE);
    free(model);
    kit_dispose(&k);
}

/* ---- races made to happen ---- */

struct request {
    struct kit *k;
    uint64_t offset, len;
    const uint8_t *data; /* NULL: a read */
    uint8_t got[2 * KIT_BLOCK];
    int rc;
    atomic_bool done;
    pthread_t thread;
};

static void *request_main(void *user)
{
    struct request *r = user;

    r->rc = r->data ? fc_shadow_write(r->k->s, r->offset, r->data, r->len)
                    : fc_shadow_read(r->k->s, r->offset, r->got, r->len);
    atomic_store(&r->done, true);
    return NULL;
}

static void request_start(struct request *r, struct kit *k, uint64_t offset,
                          uint64_t len, const uint8_t *data)
{
    memset(r, 0, sizeof(*r));
    r->k = k;
    r->offset = offset;
    r->len = len;
    r->data = data;
    assert_int_equal(pthread_create(&r->thread, NULL, request_main, r), 0);
}

static void request_end(struct request *r, int rc)
{
    KIT_WAIT("a request to end", atomic_load(&r->done));
    pthread_join(r->thread, NULL);
    assert_int_equal(r->rc, rc);
}

/* Would break: what was read from the primary before a write lands on it. */
static void a_write_overtakes_a_fetch(void **state)
{
    (void)state;
    struct kit k;
    struct request read, part;
    uint8_t new[KIT_BLOCK], want[KIT_BLOCK];
    kit_init(&k);
    kit_own(&k);
    kit_primary_set(&k.primary, false, true);
    memset(new, 0x99, sizeof(new));
    request_start(&read, &k, 0, 2 * KIT_BLOCK, NULL);
    KIT_WAIT("the fetch", kit_primary_waiting(&k.primary) == 1);
    assert_int_equal(fc_shadow_write(k.s, 0, new, KIT_BLOCK), 0);
    kit_assert_reads(&k, 0, new, KIT_BLOCK);
    kit_primary_set(&k.primary, false, false);
    request_end(&read, 0);
    /* begun before the write, ended after it: the new bytes or the old */
    assert_memory_equal(k.data.bytes, new, KIT_BLOCK);
    kit_assert_reads(&k, 0, new, KIT_BLOCK);
    assert_memory_equal(read.got + KIT_BLOCK, k.primary.bytes + KIT_BLOCK,
                        KIT_BLOCK);

    /* a part is written while a fetch of its block is under way */
    kit_primary_set(&k.primary, false, true);
    request_start(&read, &k, 5 * KIT_BLOCK, 512, NULL);
    KIT_WAIT("the fetch", kit_primary_waiting(&k.primary) == 1);
    request_start(&part, &k, 5 * KIT_BLOCK + 10, 20, new);
    kit_primary_set(&k.primary, false, false);
    request_end(&read, 0);
    request_end(&part, 0);
    memcpy(want, k.primary.bytes + 5 * KIT_BLOCK, KIT_BLOCK);
    memcpy(want + 10, new, 20);
    kit_assert_reads(&k, 5 * KIT_BLOCK, want, KIT_BLOCK);
    kit_dispose(&k);
}

/* Would break: a channel delivers the blocks before the answer, and the hit
 * rate is of reads that all had to wait for the other host. */
static void an_answer_that_came_as_blocks_is_a_miss(void **state)
{
    (void)state;
    struct kit k;
    struct request read;
    uint8_t *data;
    kit_init(&k);
    data = k.primary.bytes + 3 * KIT_BLOCK;
    kit_own(&k);
    kit_primary_set(&k.primary, false, true);
    request_start(&read, &k, 3 * KIT_BLOCK, 2 * KIT_BLOCK, NULL);
    KIT_WAIT("the fetch", kit_primary_waiting(&k.primary) == 1);
    assert_int_equal(fc_shadow_put(k.s, 3, 3, data), 0);
    kit_primary_set(&k.primary, false, false);
    request_end(&read, 0);
    assert_memory_equal(read.got, data, 2 * KIT_BLOCK);
    assert_int_equal(kit_status(&k).read_misses, 2);
    assert_int_equal(kit_status(&k).read_hits, 0);
    kit_assert_reads(&k, 3 * KIT_BLOCK, data, 3 * KIT_BLOCK);
    assert_int_equal(kit_status(&k).read_misses, 2);
    assert_int_equal(kit_status(&k).read_hits, 3);
    kit_dispose(&k);
}

/* Would break: the block that a request waits for arrives by itself, and the
 * request goes on waiting, or the channel's thread waits for the request. */
static void a_block_that_arrives_ends_the_wait(void **state)
{
    (void)state;
    struct kit k;
    struct request first, second, held;
    uint8_t *data;
    kit_init(&k);
    data = k.primary.bytes;
    kit_own(&k);
    kit_primary_set(&k.primary, false, true);
    request_start(&first, &k, 3 * KIT_BLOCK, KIT_BLOCK, NULL);
    KIT_WAIT("the fetch", kit_primary_waiting(&k.primary) == 1);
    request_start(&second, &k, 3 * KIT_BLOCK, KIT_BLOCK, NULL);
    assert_int_equal(fc_shadow_put(k.s, 3, 1, data + 3 * KIT_BLOCK), 0);
    request_end(&second, 0); /* though the fetch still hangs */
    assert_memory_equal(second.got, data + 3 * KIT_BLOCK, KIT_BLOCK);
    kit_primary_set(&k.primary, true, false);
    request_end(&first, 0);

    request_start(&held, &k, 8 * KIT_BLOCK, 700, NULL);
    KIT_WAIT("a held request", kit_status(&k).held == 1);
    assert_int_equal(fc_shadow_put(k.s, 8, 1, data + 8 * KIT_BLOCK), 0);
    request_end(&held, 0);
    assert_memory_equal(held.got, data + 8 * KIT_BLOCK, 700);
    assert_int_equal(kit_status(&k).held, 0);
    kit_dispose(&k);
}

/* Would break: a lost primary gives the guest an I/O error, or stops what needs
 * no primary. */
static void out_of_reach_holds_and_hits_go_on(void **state)
{
    (void)state;
    struct kit k;
    struct request missed, part;
    uint8_t data[KIT_BLOCK];
    kit_init(&k);
    kit_own(&k);
    memset(data, 0x42, sizeof(data));
    kit_assert_reads(&k, 0, k.primary.bytes, KIT_BLOCK);
    kit_primary_set(&k.primary, true, false);
    request_start(&missed, &k, KIT_BLOCK, 512, NULL);
    request_start(&part, &k, 2 * KIT_BLOCK + 3, 5, data);
    KIT_WAIT("two held requests", kit_status(&k).held == 2);
    assert_false(kit_status(&k).primary_reachable);
    kit_assert_reads(&k, 0, k.primary.bytes, KIT_BLOCK);
    assert_int_equal(fc_shadow_write(k.s, 10, data, 10), 0);
    assert_int_equal(fc_shadow_write(k.s, 9 * KIT_BLOCK, data, KIT_BLOCK), 0);
    assert_int_equal(fc_shadow_flush(k.s), 0);
    assert_false(atomic_load(&missed.done) || atomic_load(&part.done));
    kit_primary_set(&k.primary, false, false);
    fc_shadow_primary_up(k.s);
    request_end(&missed, 0);
    request_end(&part, 0);
    assert_memory_equal(missed.got, k.primary.bytes + KIT_BLOCK, 512);
    assert_true(kit_status(&k).primary_reachable);
    kit_dispose(&k);
}

/* Would break: the first write does not wait for the lease, or for ever. */
static void writes_wait_for_the_lease(void **state)
{
    (void)state;
    struct kit k;
    struct request write;
    uint8_t data[512];
    kit_init(&k);
    memset(data, 0x24, sizeof(data));
    request_start(&write, &k, 0, 512, data);
    KIT_WAIT("a held write", kit_status(&k).held == 1);
    kit_fence(&k, NULL);
    KIT_WAIT("a held write", kit_status(&k).held == 1);
    assert_int_equal(kit_status(&k).valid_blocks, 0);
    assert_int_equal(fc_shadow_return(k.s, kit_migration, 8), 0);
    assert_false(atomic_load(&write.done));
    struct fc_blockset none;
    assert_int_equal(fc_blockset_init(&none, KIT_BLOCKS, false), 0);
    assert_int_equal(fc_shadow_fence(k.s, &none, kit_migration, 9), 0);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 9), 0);
    request_end(&write, 0);
    kit_assert_reads(&k, 0, data, 512);
    fc_blockset_dispose(&none);
    kit_dispose(&k);
}

/* Would break: the engine cannot be ended while requests are held. */
static void cancelling_ends_every_wait(void **state)
{
    (void)state;
    struct kit k;
    struct request held, gated, behind, early;
    uint8_t data[512] = { 1 };
    kit_init(&k);
    request_start(&early, &k, 0, 512, data);
    KIT_WAIT("a held write", kit_status(&k).held == 1);
    fc_shadow_cancel(k.s);
    request_end(&early, FC_ECANCEL);
    kit_close_shadow(&k);

    kit_open(&k);
    kit_own(&k);
    kit_primary_set(&k.primary, false, true);
    request_start(&gated, &k, 0, 512, NULL);
    KIT_WAIT("the fetch", kit_primary_waiting(&k.primary) == 1);
    request_start(&behind, &k, 0, 512, NULL);
    kit_primary_set(&k.primary, true, true);
    request_start(&held, &k, 7 * KIT_BLOCK, 512, NULL);
    KIT_WAIT("a held read", kit_status(&k).held == 1);
    fc_shadow_cancel(k.s);
    request_end(&held, FC_ECANCEL);
    request_end(&gated, FC_ECANCEL);
    request_end(&behind, FC_ECANCEL);
    kit_dispose(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_match_a_plain_array),
        cmocka_unit_test(a_write_overtakes_a_fetch),
        cmocka_unit_test(an_answer_that_came_as_blocks_is_a_miss),
        cmocka_unit_test(a_block_that_arrives_ends_the_wait),
        cmocka_unit_test(out_of_reach_holds_and_hits_go_on),
        cmocka_unit_test(writes_wait_for_the_lease),
        cmocka_unit_test(cancelling_ends_every_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
