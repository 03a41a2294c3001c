/* What taking a container and queueing cost, by how many there are. */
#include "sim/costs.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pool/pool.h"

#define ROUNDS 21
#define TURNS  20000

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

struct bench {
    struct pool_set set;
    struct pool pool;
    struct container *containers;
    struct task *tasks;
};

static void open_bench(struct bench *bench, uint32_t containers, uint32_t tasks)
{
    struct pool_limits limits = {
        .size = containers, .min = 1, .max = containers, .max_queue = tasks + 10, .reuse = true};
    pool_set_init(&bench->set, containers, containers);
    bench->containers = calloc(containers, sizeof *bench->containers);
    bench->tasks = calloc(tasks + 1, sizeof *bench->tasks);
    if (bench->containers == NULL || bench->tasks == NULL)
        abort();
    pool_init(&bench->pool, &bench->set, &limits, 1);
    for (uint32_t i = 0; i < containers; i++) {
        container_init(&bench->containers[i], &bench->pool, 1);
        container_enter(&bench->containers[i], CONTAINER_CONNECTING, 1);
        container_enter(&bench->containers[i], CONTAINER_IDLE, 1);
    }
}

static void close_bench(struct bench *bench)
{
    free(bench->containers);
    free(bench->tasks);
}

/* Submit, take, end, reset: one task through a pool of idle containers. */
static double take(uint32_t count)
{
    struct bench bench;
    open_bench(&bench, count, 1);
    double begun = now_ns();
    for (uint64_t i = 2; i < TURNS; i++) {
        struct task *task = &bench.tasks[0];
        *task = (struct task){.priority = 2};
        list_init(&task->link);
        pool_submit(&bench.pool, task, i + 60000000, i);
        pool_dispatch(&bench.pool, i);
        struct container *container = task->container;
        pool_task_ended(&bench.pool, task, i);
        container_enter(container, CONTAINER_RESETTING, i);
        container_enter(container, CONTAINER_IDLE, i);
        pool_creations(&bench.pool, i);
        pool_surplus(&bench.pool);
    }
    double taken = (now_ns() - begun) / TURNS;
    close_bench(&bench);
    return taken;
}

/* One more comes and one leaves while `count` wait. */
static double queue(uint32_t count)
{
    struct bench bench;
    open_bench(&bench, 1, count);
    bench.pool.paused = true;
    for (uint32_t i = 0; i < count; i++) {
        bench.tasks[i] = (struct task){.priority = i % TASK_PRIORITIES};
        list_init(&bench.tasks[i].link);
        pool_submit(&bench.pool, &bench.tasks[i], 60000000 + i, i);
    }
    struct task *task = &bench.tasks[count];
    double begun = now_ns();
    for (uint64_t i = count; i < count + TURNS; i++) {
        *task = (struct task){.priority = 2};
        list_init(&task->link);
        pool_submit(&bench.pool, task, 60000000 + i, i);
        queue_peek(&bench.pool.queue);
        pool_next_deadline(&bench.pool);
        pool_withdraw(&bench.pool, task);
    }
    double taken = (now_ns() - begun) / TURNS;
    close_bench(&bench);
    return taken;
}

static int ascending(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int costs(void)
{
    static const uint32_t sizes[] = {10, 1000, 100000};
    static const struct {
        const char *name;
        double (*run)(uint32_t count);
    } ways[] = {{"taking a container", take}, {"queueing a task", queue}};
    int failed = 0;
    for (unsigned way = 0; way < 2; way++) {
        double all[3][ROUNDS], medians[3], most = 0;
        for (int round = 0; round < ROUNDS; round++) /* turn about, so that noise meets all alike */
            for (int i = 0; i < 3; i++)
                all[i][round] = ways[way].run(sizes[i]);
        for (int i = 0; i < 3; i++) {
            qsort(all[i], ROUNDS, sizeof(double), ascending);
            medians[i] = all[i][ROUNDS / 2];
            if (medians[i] / medians[0] > most)
                most = medians[i] / medians[0];
        }
        printf("%s %u - %s: %.0f ns at 10, %.0f at 1,000, %.0f at 100,000: at most %.2f times\n",
               most <= 1.5 ? "ok" : "not ok", way + 1, ways[way].name, medians[0], medians[1], medians[2], most);
        failed += most > 1.5;
    }
    return failed > 0;
}
