/* The pool without any I/O: states and edges, dispatch order, sizes, replacement, backoff, and the policies beside it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "maintenance/health.h"
#include "maintenance/janitor.h"
#include "maintenance/room.h"
#include "maintenance/scaler.h"
#include "pool/pool.h"

#define SECOND 1000000U

struct fixture {
    struct pool_set set;
    struct pool pool;
    struct container containers[16];
    unsigned made;
    uint64_t now;
};

static void begin(struct fixture *f, struct pool_limits limits)
{
    memset(f, 0, sizeof *f);
    pool_set_init(&f->set, 100, 100);
    f->now = SECOND;
    if (limits.max_queue == 0)
        limits.max_queue = 100;
    pool_init(&f->pool, &f->set, &limits, f->now);
}

static struct container *make(struct fixture *f)
{
    struct container *container = &f->containers[f->made++];
    container_init(container, &f->pool, f->now);
    return container;
}

static struct container *make_ready(struct fixture *f)
{
    struct container *container = make(f);
    assert_true(container_enter(container, CONTAINER_CONNECTING, f->now));
    assert_true(container_enter(container, CONTAINER_IDLE, f->now));
    return container;
}

static void retire(struct fixture *f, struct container *container)
{
    assert_true(container_enter(container, CONTAINER_RETIRING, f->now));
    assert_true(container_enter(container, CONTAINER_REMOVING, f->now));
    assert_true(container_enter(container, CONTAINER_GONE, f->now));
}

static void submit(struct fixture *f, struct task *task, unsigned priority, bool fresh)
{
    *task = (struct task){.priority = priority, .fresh = fresh};
    list_init(&task->link);
    assert_true(pool_submit(&f->pool, task, 0, ++f->now));
}

static void finish(struct fixture *f, struct task *task)
{
    struct container *container = task->container;
    pool_task_ended(&f->pool, task, f->now);
    assert_true(container_enter(container, CONTAINER_RESETTING, f->now));
    assert_true(container_enter(container, CONTAINER_IDLE, f->now));
}

static struct pool_limits limits_of(uint32_t size, uint32_t min, uint32_t max)
{
    return (struct pool_limits){.size = size, .min = min, .max = max, .reuse = true};
}

static void test_only_the_diagrams_edges_are_legal(void **state)
{
    (void)state;
    static const char legal[CONTAINER_STATES][CONTAINER_STATES + 1] = {
        /*             cnIbru TMSg */
        [CONTAINER_CREATING] = ".x....x...",  [CONTAINER_CONNECTING] = "..x..xx...",
        [CONTAINER_IDLE] = ".x.x.xx...",      [CONTAINER_BUSY] = "....x.x...",
        [CONTAINER_RESETTING] = "..x...x...", [CONTAINER_UNHEALTHY] = "..x...x...",
        [CONTAINER_RETIRING] = ".......x..",  [CONTAINER_REMOVING] = "........xx",
        [CONTAINER_STUCK] = ".......x..",     [CONTAINER_GONE] = "..........",
    };
    for (unsigned from = 0; from < CONTAINER_STATES; from++)
        for (unsigned to = 0; to < CONTAINER_STATES; to++)
            assert_int_equal(container_edge_legal(from, to), legal[from][to] == 'x');
}

static void test_an_illegal_move_changes_nothing(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 2));
    struct container *container = make(&f);
    assert_false(container_enter(container, CONTAINER_BUSY, f.now));
    assert_int_equal(container->state, CONTAINER_CREATING);
    assert_int_equal(f.pool.count[CONTAINER_CREATING], 1);
    assert_int_equal(f.pool.count[CONTAINER_BUSY], 0);
}

static void test_the_most_recently_used_is_taken_first(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(3, 1, 3));
    for (int i = 0; i < 3; i++)
        make_ready(&f);
    struct task first, second;
    submit(&f, &first, 2, false);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &first);
    struct container *used = first.container;
    finish(&f, &first);
    submit(&f, &second, 2, false);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &second);
    assert_ptr_equal(second.container, used);
}

static void test_first_come_first_served_within_a_priority(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    make_ready(&f);
    struct task tasks[5];
    const unsigned priorities[] = {2, 2, 4, 0, 2};
    for (int i = 0; i < 5; i++)
        submit(&f, &tasks[i], priorities[i], false);
    const int order[] = {3, 0, 1, 4, 2};
    for (int i = 0; i < 5; i++) {
        assert_ptr_equal(pool_dispatch(&f.pool, f.now), &tasks[order[i]]);
        assert_null(pool_dispatch(&f.pool, f.now));
        finish(&f, &tasks[order[i]]);
    }
}

static void test_waiting_makes_up_for_a_low_priority(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    make_ready(&f);
    struct task background, low, critical, late;
    submit(&f, &background, 4, false);
    f.now += 2 * QUEUE_AGEING_US;
    submit(&f, &low, 3, false);
    f.now += QUEUE_AGEING_US;
    submit(&f, &critical, 0, false);
    f.now += QUEUE_AGEING_US + SECOND; /* background has waited for four steps and more */
    submit(&f, &late, 0, false);
    struct task *order[] = {&critical, &background, &late, &low};
    for (int i = 0; i < 4; i++) {
        assert_ptr_equal(pool_dispatch(&f.pool, f.now), order[i]);
        finish(&f, order[i]);
    }
}

static void test_deadlines_come_in_order(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    struct task tasks[50];
    assert_true(pool_next_deadline(&f.pool) == UINT64_MAX);
    for (uint64_t i = 0; i < 50; i++) {
        tasks[i] = (struct task){.priority = (unsigned)i % 5};
        list_init(&tasks[i].link);
        assert_true(pool_submit(&f.pool, &tasks[i], i == 7 ? 0 : f.now + (i * 37 % 50 + 1) * SECOND, f.now));
    }
    for (int i = 0; i < 50; i += 10) /* some leave before */
        pool_withdraw(&f.pool, &tasks[i]);
    uint64_t last = 0;
    unsigned ended = 0;
    assert_null(pool_overdue(&f.pool, f.now));
    for (struct task *task; (task = pool_overdue(&f.pool, f.now + 51 * SECOND)) != NULL; ended++) {
        assert_true(task->deadline.key == pool_next_deadline(&f.pool) && task->deadline.key > last);
        last = task->deadline.key;
        pool_withdraw(&f.pool, task);
    }
    assert_int_equal(ended, 44);
    assert_int_equal(pool_waiting(&f.pool), 1);
    assert_ptr_equal(queue_peek(&f.pool.queue), &tasks[7]);
}

static void test_a_task_that_did_not_start_waits_at_its_old_place(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    struct container *bad = make_ready(&f);
    struct task first, second, third;
    submit(&f, &first, 2, false);
    submit(&f, &second, 2, false);
    submit(&f, &third, 2, false);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &first);
    pool_put_back(&f.pool, &first, f.now);
    assert_int_equal(first.state, TASK_QUEUED);
    retire(&f, bad);
    assert_int_equal(f.pool.counters.tasks, 0);
    assert_int_equal(f.pool.counters.retries, 1);
    make_ready(&f);
    struct task *order[] = {&first, &second, &third};
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(pool_dispatch(&f.pool, f.now), order[i]);
        finish(&f, order[i]);
    }
    assert_int_equal(f.pool.counters.tasks, 3);
}

static void test_a_lease_keeps_its_container(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    struct container *container = make_ready(&f);
    struct task lease = {.lease = true}, one = {.priority = 2}, two = {.priority = 2}, other;
    list_init(&lease.link);
    list_init(&one.link);
    list_init(&two.link);
    assert_true(pool_submit(&f.pool, &lease, 0, f.now));
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &lease);
    assert_ptr_equal(container->holder, &lease);
    assert_null(container->task);
    submit(&f, &other, 0, false);
    assert_null(pool_dispatch(&f.pool, f.now)); /* not into the leased one */
    assert_true(pool_lease_run(&f.pool, &lease, &one, f.now));
    assert_false(pool_lease_run(&f.pool, &lease, &two, f.now)); /* one at a time */
    pool_task_ended(&f.pool, &one, f.now);
    assert_true(pool_lease_run(&f.pool, &lease, &two, f.now));
    pool_task_ended(&f.pool, &two, f.now);
    assert_int_equal(container->state, CONTAINER_BUSY);
    assert_int_equal(container->exec_count, 2);
    assert_null(pool_dispatch(&f.pool, f.now));
    pool_lease_ended(&f.pool, &lease, f.now);
    assert_null(container->holder);
    assert_true(container_enter(container, CONTAINER_RESETTING, f.now));
    assert_true(container_enter(container, CONTAINER_IDLE, f.now));
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &other);
}

static void test_a_paused_pool_hands_out_nothing_and_does_not_grow(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 10));
    make_ready(&f);
    f.pool.paused = true;
    struct task tasks[3];
    for (int i = 0; i < 3; i++)
        submit(&f, &tasks[i], 2, false);
    assert_null(pool_dispatch(&f.pool, f.now));
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    assert_null(pool_surplus(&f.pool));
    f.pool.paused = false;
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &tasks[0]);
    assert_int_equal(pool_creations(&f.pool, f.now), 2);
}

static void test_a_draining_pool_serves_what_waits_and_then_empties(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(3, 1, 3));
    struct container *spare[2] = {make_ready(&f), make_ready(&f)}, *worker = make_ready(&f);
    struct task running, waiting;
    submit(&f, &running, 2, false);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &running);
    f.pool.draining = true;
    submit(&f, &waiting, 2, false); /* had been there */
    assert_ptr_equal(running.container, worker);
    for (int i = 0; i < 2; i++) {
        struct container *surplus = pool_surplus(&f.pool);
        if (surplus != NULL)
            retire(&f, surplus);
    }
    assert_int_equal(pool_live(&f.pool), 2);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &waiting);
    assert_false(pool_may_reuse(&f.pool, worker));
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    finish(&f, &running);
    finish(&f, &waiting);
    for (struct container *surplus; (surplus = pool_surplus(&f.pool)) != NULL;)
        retire(&f, surplus);
    assert_true(pool_drained(&f.pool));
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    (void)spare;
}

static void test_replacement_goes_on_under_full_load(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    struct container *old = make_ready(&f);
    struct task tasks[3];
    for (int i = 0; i < 3; i++)
        submit(&f, &tasks[i], 2, false);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &tasks[0]);
    container_expire(old);
    assert_true(pool_may_reuse(&f.pool, old)); /* nothing in its place yet */
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
    make_ready(&f);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &tasks[1]);
    assert_false(pool_may_reuse(&f.pool, old));
}

static void test_an_expiring_container_is_taken_last(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(3, 1, 3));
    struct container *containers[3] = {make_ready(&f), make_ready(&f), make_ready(&f)};
    container_expire(containers[2]);
    struct task tasks[3];
    for (int i = 0; i < 3; i++)
        submit(&f, &tasks[i], 2, false);
    for (int i = 0; i < 3; i++)
        assert_ptr_equal(pool_dispatch(&f.pool, f.now), &tasks[i]);
    assert_ptr_equal(tasks[0].container, containers[1]);
    assert_ptr_equal(tasks[2].container, containers[2]);
}

static void test_new_limits_move_the_target(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(2, 1, 10));
    struct pool_limits limits = limits_of(4, 1, 10);
    limits.max_queue = 100;
    pool_set_limits(&f.pool, &limits);
    assert_int_equal(f.pool.target, 4);
    limits.max = 3;
    limits.size = 3;
    pool_set_limits(&f.pool, &limits);
    assert_int_equal(f.pool.target, 3);
    pool_pin(&f.pool, 2);
    limits.size = 1;
    pool_set_limits(&f.pool, &limits);
    assert_int_equal(f.pool.target, 2); /* pinned */
}

static void test_a_fresh_task_waits_for_an_unused_container(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 3));
    make_ready(&f);
    struct task first, fresh;
    submit(&f, &first, 2, false);
    pool_dispatch(&f.pool, f.now);
    finish(&f, &first);
    submit(&f, &fresh, 2, true);
    assert_null(pool_dispatch(&f.pool, f.now));
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
    f.now++;
    struct container *unused = make_ready(&f);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &fresh);
    assert_ptr_equal(fresh.container, unused);
    assert_false(fresh.hit);
}

static void test_a_fresh_task_gets_room_in_a_full_pool(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    struct container *used = make_ready(&f);
    struct task first, fresh;
    submit(&f, &first, 2, false);
    pool_dispatch(&f.pool, f.now);
    finish(&f, &first);
    submit(&f, &fresh, 2, true);
    assert_null(pool_dispatch(&f.pool, f.now));
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    assert_ptr_equal(pool_surplus(&f.pool), used);
    retire(&f, used);
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
    make_ready(&f);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &fresh);
}

static void test_hits_and_misses_are_told_apart(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 2));
    struct task hit, waited, missed;
    make_ready(&f);
    submit(&f, &hit, 2, false);
    pool_dispatch(&f.pool, f.now);
    submit(&f, &waited, 2, false); /* waits for a container that exists: a hit */
    finish(&f, &hit);
    pool_dispatch(&f.pool, ++f.now);
    submit(&f, &missed, 2, false); /* waits for one that is made: a miss */
    f.now++;
    make_ready(&f);
    pool_dispatch(&f.pool, f.now);
    assert_true(hit.hit);
    assert_true(waited.hit);
    assert_false(missed.hit);
    assert_int_equal(f.pool.counters.hits, 2);
    assert_int_equal(f.pool.counters.misses, 1);
}

static void test_a_miss_grows_the_pool_up_to_its_maximum(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 3));
    make_ready(&f);
    struct task tasks[6];
    for (int i = 0; i < 6; i++) {
        submit(&f, &tasks[i], 2, false);
        pool_dispatch(&f.pool, f.now);
    }
    assert_int_equal(pool_creations(&f.pool, f.now), 2);
    assert_int_equal(f.pool.target, 3);
    make(&f);
    make(&f);
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
}

static void test_a_resetting_container_is_as_good_as_free(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 3));
    make_ready(&f);
    struct task first, second;
    submit(&f, &first, 2, false);
    pool_dispatch(&f.pool, f.now);
    struct container *container = first.container;
    pool_task_ended(&f.pool, &first, f.now);
    container_enter(container, CONTAINER_RESETTING, f.now);
    submit(&f, &second, 2, false);
    assert_null(pool_dispatch(&f.pool, f.now));
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
}

static void test_caps_hold(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(5, 1, 10));
    f.set.max_containers = 4;
    assert_int_equal(pool_creations(&f.pool, f.now), 4);
    f.set.max_creating = 2;
    assert_int_equal(pool_creations(&f.pool, f.now), 2);
    make(&f);
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
}

static void test_a_pinned_pool_keeps_its_size(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 5));
    pool_pin(&f.pool, 2);
    assert_int_equal(pool_creations(&f.pool, f.now), 2);
    make_ready(&f);
    make_ready(&f);
    struct task tasks[4];
    for (int i = 0; i < 4; i++) {
        submit(&f, &tasks[i], 2, false);
        pool_dispatch(&f.pool, f.now);
    }
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    pool_unpin(&f.pool);
    assert_int_equal(pool_creations(&f.pool, f.now), 2);
}

static void test_replacement_comes_before_removal(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(2, 1, 2));
    struct container *old = make_ready(&f);
    make_ready(&f);
    assert_null(pool_surplus(&f.pool));
    container_expire(old);
    assert_null(pool_surplus(&f.pool));
    assert_int_equal(pool_creations(&f.pool, f.now), 1); /* the surge container, above the maximum */
    make_ready(&f);
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    assert_ptr_equal(pool_surplus(&f.pool), old);
    retire(&f, old);
    assert_null(pool_surplus(&f.pool));
    assert_int_equal(pool_live(&f.pool), 2);
    assert_int_equal(f.pool.expiring, 0);
}

static void test_only_one_surge_container_at_a_time(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(3, 1, 3));
    for (int i = 0; i < 3; i++)
        container_expire(make_ready(&f));
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
    make(&f);
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
}

static void test_an_unhealthy_container_goes_when_its_replacement_is_there(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 2));
    struct container *sick = make_ready(&f);
    container_enter(sick, CONTAINER_UNHEALTHY, f.now);
    container_expire(sick);
    struct task task;
    submit(&f, &task, 2, false);
    assert_null(pool_dispatch(&f.pool, f.now)); /* never picked */
    assert_null(pool_surplus(&f.pool));
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
    make_ready(&f);
    assert_ptr_equal(pool_surplus(&f.pool), sick);
}

static void test_failures_back_off_and_try_one_at_a_time(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(3, 1, 3));
    uint64_t delays[12];
    for (int i = 0; i < 12; i++) {
        pool_create_failed(&f.pool, f.now, 1023);
        delays[i] = f.pool.retry_us - f.now;
    }
    assert_true(delays[1] > delays[0] && delays[3] > delays[2]);
    assert_true(delays[11] <= 60 * SECOND);
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    assert_int_equal(pool_creations(&f.pool, f.pool.retry_us), 1);
    pool_create_succeeded(&f.pool);
    assert_int_equal(pool_creations(&f.pool, f.now), 3);
}

static void test_reuse_ends_where_it_is_told_to(void **state)
{
    (void)state;
    struct fixture f;
    struct pool_limits limits = limits_of(1, 1, 1);
    limits.max_tasks_per_container = 2;
    begin(&f, limits);
    struct container *container = make_ready(&f);
    container->exec_count = 1;
    assert_true(pool_may_reuse(&f.pool, container));
    container->exec_count = 2;
    assert_false(pool_may_reuse(&f.pool, container));
    f.pool.limits.max_tasks_per_container = 0;
    f.pool.limits.reuse = false;
    assert_false(pool_may_reuse(&f.pool, container));
}

static void test_a_full_queue_refuses(void **state)
{
    (void)state;
    struct fixture f;
    struct pool_limits limits = limits_of(1, 1, 1);
    limits.max_queue = 1;
    begin(&f, limits);
    struct task first, second = {.priority = 2};
    list_init(&second.link);
    submit(&f, &first, 2, false);
    assert_false(pool_submit(&f.pool, &second, 0, f.now));
    pool_withdraw(&f.pool, &first);
    assert_true(pool_submit(&f.pool, &second, 0, f.now));
}

/* --- policies --------------------------------------------------------------------------------------------- */

static void test_the_threshold_rule_follows_utilisation(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(2, 1, 3));
    struct scaler_config config = {
        .interval_us = 10 * SECOND, .cooldown_us = SECOND, .up_percent = 80, .down_percent = 20};
    struct scaler_state scaler = {0};
    double utilization;
    make_ready(&f);
    make_ready(&f);
    assert_int_equal(scaler_threshold(&scaler, &config, &f.pool, f.now, &utilization), 2);
    struct task tasks[2];
    for (int i = 0; i < 2; i++) {
        submit(&f, &tasks[i], 2, false);
        pool_dispatch(&f.pool, f.now);
    }
    f.now += 10 * SECOND;
    assert_int_equal(scaler_threshold(&scaler, &config, &f.pool, f.now, &utilization), 3);
    assert_true(utilization > 99);
    f.pool.target = 2;
    finish(&f, &tasks[0]);
    finish(&f, &tasks[1]);
    f.now += 10 * SECOND;
    assert_int_equal(scaler_threshold(&scaler, &config, &f.pool, f.now, &utilization), 1);
    f.pool.target = 1;
    f.now += 10 * SECOND;
    assert_int_equal(scaler_threshold(&scaler, &config, &f.pool, f.now, &utilization), 1); /* not below the minimum */
}

static void test_age_expires_with_jitter(void **state)
{
    (void)state;
    struct janitor_config config = {.max_age_us = 1000 * SECOND};
    uint64_t early = janitor_expiry(&config, 0, 1023), late = janitor_expiry(&config, 0, 0);
    assert_int_equal(late, 1000 * SECOND);
    assert_true(early < late && early >= 900ULL * SECOND);
    config.max_age_us = 0;
    assert_int_equal(janitor_expiry(&config, 5, 7), 0);
}

static void test_the_janitor_marks_the_old_and_gives_up_the_idle(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(3, 1, 3));
    struct container *old = make_ready(&f);
    old->expires_us = f.now + SECOND;
    make_ready(&f);
    make_ready(&f);
    struct janitor_config config = {.max_age_us = 1, .idle_timeout_us = 10 * SECOND};
    f.now += SECOND;
    assert_int_equal(janitor_pass(&config, &f.pool, f.now), 1);
    assert_true(old->expiring);
    f.now += 10 * SECOND;
    janitor_pass(&config, &f.pool, f.now);
    assert_int_equal(f.pool.target, 1);
}

static void test_an_unhealthy_container_gets_one_replacement(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 2));
    struct container *sick = make_ready(&f);
    assert_true(container_enter(sick, CONTAINER_UNHEALTHY, f.now));
    container_expire(sick);
    assert_false(pool_replaced(&f.pool, sick));
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
    make(&f);
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    assert_null(pool_surplus(&f.pool));
    container_enter(&f.containers[1], CONTAINER_CONNECTING, f.now);
    container_enter(&f.containers[1], CONTAINER_IDLE, f.now);
    assert_true(pool_replaced(&f.pool, sick));
    assert_ptr_equal(pool_surplus(&f.pool), sick);
}

static void test_a_draining_pool_makes_no_replacement(void **state)
{
    (void)state;
    struct fixture f;
    struct task task;
    begin(&f, limits_of(1, 1, 2));
    struct container *old = make_ready(&f);
    submit(&f, &task, 2, false);
    assert_ptr_equal(pool_dispatch(&f.pool, f.now), &task);
    container_expire(old);
    f.pool.draining = true;
    assert_int_equal(pool_creations(&f.pool, f.now), 0);
    f.pool.draining = false;
    assert_int_equal(pool_creations(&f.pool, f.now), 1);
}

static void test_room_is_made_by_the_longest_idle_that_may_go(void **state)
{
    (void)state;
    struct fixture f;
    struct pool other;
    struct task task;
    struct pool_limits limits = limits_of(1, 0, 4);
    begin(&f, limits_of(2, 2, 2));
    limits.max_queue = 10;
    pool_init(&other, &f.set, &limits, f.now);
    f.set.max_containers = 2;
    struct container *oldest = make_ready(&f);
    f.now += SECOND;
    make_ready(&f);
    struct pool *needy = NULL;
    assert_null(room_make(&f.set, f.now, &needy));
    task = (struct task){.priority = 2};
    list_init(&task.link);
    assert_true(pool_submit(&other, &task, 0, f.now));
    assert_int_equal(room_need(&other), ROOM_STARVED);
    assert_int_equal(pool_creations(&other, f.now), 0);
    f.pool.pinned = true;
    assert_null(room_make(&f.set, f.now, &needy));
    f.pool.pinned = false;
    assert_ptr_equal(room_make(&f.set, f.now, &needy), oldest);
    assert_ptr_equal(needy, &other);
    assert_true(container_enter(oldest, CONTAINER_RETIRING, f.now));
    assert_null(room_make(&f.set, f.now, &needy)); /* one is on its way out */
    assert_true(container_enter(oldest, CONTAINER_REMOVING, f.now));
    assert_true(container_enter(oldest, CONTAINER_GONE, f.now));
    assert_int_equal(pool_creations(&other, f.now), 1);
    f.set.memory_budget = 1; /* less than one of its containers: nobody has to go for that */
    other.limits.memory_bytes = 2;
    assert_null(room_make(&f.set, f.now, &needy));
}

static void test_health_is_due_only_after_silence(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, limits_of(1, 1, 1));
    struct container *container = make_ready(&f);
    assert_false(health_due(container, 0, 30 * SECOND, f.now + 29 * SECOND));
    assert_true(health_due(container, 0, 30 * SECOND, f.now + 30 * SECOND));
    assert_false(health_due(container, f.now + 20 * SECOND, 30 * SECOND, f.now + 30 * SECOND));
    struct task task;
    submit(&f, &task, 2, false);
    pool_dispatch(&f.pool, f.now);
    assert_false(health_due(container, 0, 30 * SECOND, f.now + 90 * SECOND));
}

static void test_health_verdicts(void **state)
{
    (void)state;
    struct health_report report = {
        .memory_bytes = UINT64_MAX, .memory_limit = UINT64_MAX, .pids = UINT64_MAX, .pids_limit = UINT64_MAX};
    assert_null(health_verdict(&report));
    report.spawn_errno = 11;
    assert_non_null(health_verdict(&report));
    report = (struct health_report){.memory_bytes = 96, .memory_limit = 100, .pids = 1, .pids_limit = 100};
    assert_non_null(health_verdict(&report));
    report = (struct health_report){.memory_bytes = 50, .memory_limit = 100, .pids = 99, .pids_limit = 100};
    assert_non_null(health_verdict(&report));
    report.pids = 2;
    assert_null(health_verdict(&report));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_diagrams_edges_are_legal),
        cmocka_unit_test(test_an_illegal_move_changes_nothing),
        cmocka_unit_test(test_the_most_recently_used_is_taken_first),
        cmocka_unit_test(test_first_come_first_served_within_a_priority),
        cmocka_unit_test(test_waiting_makes_up_for_a_low_priority),
        cmocka_unit_test(test_deadlines_come_in_order),
        cmocka_unit_test(test_a_task_that_did_not_start_waits_at_its_old_place),
        cmocka_unit_test(test_a_lease_keeps_its_container),
        cmocka_unit_test(test_a_paused_pool_hands_out_nothing_and_does_not_grow),
        cmocka_unit_test(test_a_draining_pool_serves_what_waits_and_then_empties),
        cmocka_unit_test(test_replacement_goes_on_under_full_load),
        cmocka_unit_test(test_an_expiring_container_is_taken_last),
        cmocka_unit_test(test_new_limits_move_the_target),
        cmocka_unit_test(test_a_fresh_task_waits_for_an_unused_container),
        cmocka_unit_test(test_a_fresh_task_gets_room_in_a_full_pool),
        cmocka_unit_test(test_hits_and_misses_are_told_apart),
        cmocka_unit_test(test_a_miss_grows_the_pool_up_to_its_maximum),
        cmocka_unit_test(test_a_resetting_container_is_as_good_as_free),
        cmocka_unit_test(test_caps_hold),
        cmocka_unit_test(test_a_pinned_pool_keeps_its_size),
        cmocka_unit_test(test_replacement_comes_before_removal),
        cmocka_unit_test(test_only_one_surge_container_at_a_time),
        cmocka_unit_test(test_an_unhealthy_container_goes_when_its_replacement_is_there),
        cmocka_unit_test(test_failures_back_off_and_try_one_at_a_time),
        cmocka_unit_test(test_reuse_ends_where_it_is_told_to),
        cmocka_unit_test(test_a_full_queue_refuses),
        cmocka_unit_test(test_the_threshold_rule_follows_utilisation),
        cmocka_unit_test(test_age_expires_with_jitter),
        cmocka_unit_test(test_the_janitor_marks_the_old_and_gives_up_the_idle),
        cmocka_unit_test(test_an_unhealthy_container_gets_one_replacement),
        cmocka_unit_test(test_a_draining_pool_makes_no_replacement),
        cmocka_unit_test(test_room_is_made_by_the_longest_idle_that_may_go),
        cmocka_unit_test(test_health_is_due_only_after_silence),
        cmocka_unit_test(test_health_verdicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
