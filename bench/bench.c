/* Measures, in one run and interleaved so that noise hits all alike, what it takes to run one program: bare, through
 * each door of warmpool, and through Docker. run.sh prepares the places and passes them in the environment:
 *
 *     BENCH_DIR     holds `tiny` and `busybox`, mounted at /bench in every container
 *     BENCH_STATE   a state directory for the library's executors
 *     BENCH_SOCKET  the socket of a running daemon with agent type `bench`
 *     BENCH_CLI     the warmpool command
 *     BENCH_CONTAINER, BENCH_IMAGE   for docker exec and docker run
 *
 * Prints the first table and the first half of the second, and writes the same as JSON to the file that is its
 * argument. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <warmpool/warmpool.h>

#include "parent.h"

#define ROUNDS   25
#define FAST     40 /* per round */
#define SLOW     1  /* per round */
#define WARMUP   50
#define SAMPLES  (ROUNDS * FAST)
#define VARIANTS 8
#define EXEC     6 /* indices of variants */
#define RUN      7

struct bench {
    wp_executor *pooled, *attached, *fresh;
    int api; /* connection, kept alive */
    const char *dir, *socket, *cli, *container, *image;
    char program[256], inside[64]; /* on the host, in a container */
    char *argument;                /* NULL or "true" */
};

struct variant {
    const char *name;
    double (*run)(struct bench *bench);
    int per_round;
    double samples[SAMPLES];
    int count, failures;
    char why[256];
};

static char reason[256]; /* why the last measurement failed */

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* --- the ways to run it ------------------------------------------------------------------------------------------ */

static double run_bare(struct bench *bench)
{
    char *argv[] = {bench->program, bench->argument, NULL};
    return spawn_measure(argv, NULL, 0);
}

static double run_library(struct bench *bench, wp_executor *executor)
{
    wp_error error;
    const char *argv[] = {bench->inside, bench->argument, NULL};
    wp_task task = WP_TASK_INIT;
    task.agent_type = "bench";
    task.argv = argv;
    double begun = now_us();
    wp_result *result = wp_executor_execute(executor, &task, &error);
    double taken = now_us() - begun;
    if (result == NULL || !result->success) {
        snprintf(reason, sizeof reason, "%.200s", result == NULL ? error.message : result->message);
        taken = -1;
    }
    wp_result_free(result);
    return taken;
}

static double run_pooled(struct bench *bench)
{
    return run_library(bench, bench->pooled);
}

static double run_attached(struct bench *bench)
{
    return run_library(bench, bench->attached);
}

static double run_fresh(struct bench *bench)
{
    return run_library(bench, bench->fresh);
}

static int api_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    snprintf(reason, sizeof reason, "no daemon at %.200s", path);
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Reads one answer whole; its body begins at the returned place in `answer`. */
static const char *api_read(int fd, char *answer, size_t size)
{
    size_t have = 0;
    for (;;) {
        ssize_t got = read(fd, answer + have, size - 1 - have);
        if (got <= 0)
            return NULL;
        have += (size_t)got;
        answer[have] = '\0';
        const char *body = strstr(answer, "\r\n\r\n"), *length = strstr(answer, "Content-Length: ");
        if (body != NULL && length != NULL && have >= (size_t)(body + 4 - answer) + strtoul(length + 16, NULL, 10))
            return body + 4;
    }
}

static double run_api(struct bench *bench)
{
    char body[256], request[512], answer[8192];
    if (bench->api < 0)
        bench->api = api_connect(bench->socket);
    if (bench->api < 0)
        return -1;
    int size = bench->argument == NULL
                   ? snprintf(body, sizeof body, "{\"agentType\":\"bench\",\"command\":[\"%s\"]}", bench->inside)
                   : snprintf(body, sizeof body, "{\"agentType\":\"bench\",\"command\":[\"%s\",\"%s\"]}", bench->inside,
                              bench->argument);
    int length = snprintf(request, sizeof request,
                          "POST /v1/tasks HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s", size, body);
    double begun = now_us();
    const char *result =
        write(bench->api, request, (size_t)length) == length ? api_read(bench->api, answer, sizeof answer) : NULL;
    double taken = now_us() - begun;
    if (result != NULL && strstr(result, "\"success\":true") != NULL)
        return taken;
    snprintf(reason, sizeof reason, "the API answered %.150s", result == NULL ? "nothing" : result);
    return -1;
}

static double run_cli(struct bench *bench)
{
    char *argv[] = {(char *)(uintptr_t)bench->cli,
                    "--socket",
                    (char *)(uintptr_t)bench->socket,
                    "run",
                    "bench",
                    "--",
                    bench->inside,
                    bench->argument,
                    NULL};
    return spawn_measure(argv, NULL, 0);
}

static double run_docker_exec(struct bench *bench)
{
    char *argv[] = {"docker", "exec", (char *)(uintptr_t)bench->container, bench->inside, bench->argument, NULL};
    return spawn_measure(argv, NULL, 0);
}

static double run_docker_run(struct bench *bench)
{
    char mount[300];
    snprintf(mount, sizeof mount, "%s:/bench:ro", bench->dir);
    char *argv[] = {
        "docker",      "run",           "--rm", "--network", "none", "-v", mount, (char *)(uintptr_t)bench->image,
        bench->inside, bench->argument, NULL};
    return spawn_measure(argv, NULL, 0);
}

/* --- figures -------------------------------------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double quantile(struct variant *variant, double fraction)
{
    if (variant->count == 0)
        return NAN;
    qsort(variant->samples, (size_t)variant->count, sizeof(double), ascending);
    int index = (int)(fraction * variant->count);
    return variant->samples[index < variant->count ? index : variant->count - 1];
}

static void measure(struct bench *bench, struct variant *variants)
{
    for (int i = 0; i < VARIANTS; i++)
        for (int n = 0; n < (variants[i].per_round == FAST ? WARMUP : 1); n++)
            variants[i].run(bench);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < VARIANTS; i++) {
            struct variant *variant = &variants[i];
            for (int n = 0; n < variant->per_round && variant->failures < 5; n++) {
                reason[0] = '\0';
                double taken = variant->run(bench);
                if (taken >= 0) {
                    variant->samples[variant->count++] = taken;
                } else {
                    variant->failures++;
                    snprintf(variant->why, sizeof variant->why, "%s", reason[0] != '\0' ? reason : "it failed");
                }
            }
        }
        if (isatty(2))
            fprintf(stderr, "\r%s: round %d of %d ", bench->inside, round + 1, ROUNDS);
    }
    if (isatty(2))
        fprintf(stderr, "\r\033[K");
}

static void print_table(const char *title, struct variant *variants, FILE *json)
{
    double bare = quantile(&variants[0], 0.5), exec = quantile(&variants[EXEC], 0.5),
           run = quantile(&variants[RUN], 0.5);
    printf("\n%s\n%-26s %6s %11s %11s %11s %13s %9s %9s\n", title, "us", "n", "p50", "p95", "p99", "added to bare",
           "x exec", "x run");
    for (int i = 0; i < VARIANTS; i++) {
        struct variant *variant = &variants[i];
        double p50 = quantile(variant, 0.5);
        if (variant->count == 0) {
            printf("%-26s not measured: %s\n", variant->name, variant->why);
            continue;
        }
        printf("%-26s %6d %11.0f %11.0f %11.0f %13.0f %9.1f %9.1f%s\n", variant->name, variant->count, p50,
               quantile(variant, 0.95), quantile(variant, 0.99), p50 - bare, exec / p50, run / p50,
               variant->failures > 0 ? "  (some failed)" : "");
        fprintf(json,
                "{\"program\":\"%s\",\"variant\":\"%s\",\"n\":%d,\"p50_us\":%.0f,\"p95_us\":%.0f,\"p99_us\":%.0f},\n",
                title, variant->name, variant->count, p50, quantile(variant, 0.95), quantile(variant, 0.99));
    }
}

static void compare(struct bench *bench, const char *name, char *argument, FILE *json)
{
    static struct variant variants[VARIANTS];
    const struct variant fresh[VARIANTS] = {{.name = "posix_spawn on the host", .run = run_bare, .per_round = FAST},
                                            {.name = "warm, library", .run = run_pooled, .per_round = FAST},
                                            {.name = "warm, library, attach", .run = run_attached, .per_round = FAST},
                                            {.name = "warm, API (keep-alive)", .run = run_api, .per_round = FAST},
                                            {.name = "warm, warmpool run", .run = run_cli, .per_round = FAST},
                                            {.name = "WP_FRESH, library", .run = run_fresh, .per_round = SLOW},
                                            {.name = "docker exec", .run = run_docker_exec, .per_round = SLOW},
                                            {.name = "docker run", .run = run_docker_run, .per_round = SLOW}};
    memcpy(variants, fresh, sizeof variants);
    snprintf(bench->program, sizeof bench->program, "%s/%s", bench->dir, name);
    snprintf(bench->inside, sizeof bench->inside, "/bench/%s", name);
    bench->argument = argument;
    measure(bench, variants);
    char title[64];
    snprintf(title, sizeof title, "%s%s%s", name, argument != NULL ? " " : "", argument != NULL ? argument : "");
    print_table(title, variants, json);
}

/* --- the seed's claims
 * --------------------------------------------------------------------------------------------------- */

static double run_step(wp_executor *executor, const char *type, const char *script)
{
    wp_error error;
    const char *argv[] = {"sh", "-c", script, NULL};
    wp_task task = WP_TASK_INIT;
    task.agent_type = type;
    task.argv = argv;
    double begun = now_us();
    wp_result *result = wp_executor_execute(executor, &task, &error);
    double taken = result != NULL && result->success ? now_us() - begun : NAN;
    wp_result_free(result);
    return taken / 1000;
}

/* Milliseconds of a task that are not the command itself, by the runner's clock from its making to its exit. */
static double run_overhead(wp_executor *executor, const char *type)
{
    wp_error error;
    const char *argv[] = {"sh", "-c", "true", NULL};
    wp_task task = WP_TASK_INIT;
    task.agent_type = type;
    task.argv = argv;
    double begun = now_us(), overhead = NAN;
    wp_result *result = wp_executor_execute(executor, &task, &error);
    if (result != NULL && result->success)
        overhead = (now_us() - begun - (double)result->exec_us) / 1000;
    wp_result_free(result);
    return overhead;
}

static double workflow(wp_executor *executor)
{
    static const char *const steps[][2] = {{"architect", "echo design | sha256sum"},
                                           {"coder", "echo 'int main;' > /workspace/a.c; wc /workspace/a.c"},
                                           {"tester", "test 1 = 1 && echo passed"},
                                           {"reviewer", "ls -la / | awk '{ n += $5 } END { print n }'"}};
    double sum = 0;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        sum += run_step(executor, steps[i][0], steps[i][1]);
    return sum;
}

static double median_of(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

static void claims(struct bench *bench, FILE *json)
{
    double fresh[5], pooled[25], first_fresh[5], again[200], overhead[200], overhead_fresh[5];
    wp_error error;
    for (int i = 0; i < 4; i++)
        wp_executor_warm(bench->pooled, ((const char *const[]){"architect", "coder", "tester", "reviewer"})[i], 1,
                         &error);
    for (int i = 0; i < 5; i++)
        first_fresh[i] = run_step(bench->fresh, "coder", "true");
    for (int i = 0; i < 5; i++)
        fresh[i] = workflow(bench->fresh);
    for (int i = 0; i < 25; i++)
        pooled[i] = workflow(bench->pooled);
    for (int i = 0; i < 200; i++)
        again[i] = run_step(bench->pooled, "coder", "true");
    for (int i = 0; i < 200; i++)
        overhead[i] = run_overhead(bench->pooled, "coder");
    for (int i = 0; i < 5; i++)
        overhead_fresh[i] = run_overhead(bench->fresh, "coder");
    wp_metrics *metrics = wp_executor_metrics(bench->pooled, &error);
    double startup_fresh = median_of(first_fresh, 5), startup_pooled = median_of(again, 200);
    printf("\nthe seed's claims%-38s %12s %12s %8s\n", "", "fresh", "pooled", "ratio");
    printf("%-55s %9.1f ms %9.2f ms %7.0fx\n", "startup: sh -c true in a container (claimed 19x)", startup_fresh,
           startup_pooled, startup_fresh / startup_pooled);
    double over = median_of(overhead, 200), over_fresh = median_of(overhead_fresh, 5);
    printf("%-55s %9.1f ms %9.2f ms %7.0fx\n", "overhead of a repeated execution (claimed 50-100 ms)", over_fresh, over,
           over_fresh / over);
    double flow_fresh = median_of(fresh, 5), flow_pooled = median_of(pooled, 25);
    printf("%-55s %9.1f ms %9.2f ms %7.0fx\n", "workflow architect, coder, tester, reviewer (20x)", flow_fresh,
           flow_pooled, flow_fresh / flow_pooled);
    if (metrics != NULL)
        printf("%-55s %12s %9.1f %%\n", "hit rate of repeated agents (claimed 85 %)", "", metrics->container_hit_rate);
    fprintf(json,
            "{\"claim\":\"startup\",\"fresh_ms\":%.2f,\"pooled_ms\":%.3f},\n"
            "{\"claim\":\"overhead\",\"fresh_ms\":%.2f,\"pooled_ms\":%.3f},\n{\"claim\":\"workflow\",\"fresh_ms\":%.2f,"
            "\"pooled_ms\":%.3f},\n"
            "{\"claim\":\"hit_rate\",\"percent\":%.2f}\n",
            startup_fresh, startup_pooled, over_fresh, over, flow_fresh, flow_pooled,
            metrics != NULL ? metrics->container_hit_rate : NAN);
    wp_metrics_free(metrics);
}

/* --- all together
 * ------------------------------------------------------------------------------------------------------------- */

static wp_executor *open_executor(const struct bench *bench, wp_mode mode, const char *name, const char *transport)
{
    char state[300], mount[300];
    snprintf(state, sizeof state, "stateDir=%s/%s", getenv("BENCH_STATE"), name);
    snprintf(mount, sizeof mount, "volumeMounts=%s:/bench", bench->dir);
    const char *const settings[] = {state,
                                    transport,
                                    mount,
                                    "warmupAgentTypes=bench",
                                    "poolSize=1",
                                    "agentConfigs.bench.cpus=2",
                                    "agentConfigs.bench.poolSize=2",
                                    "autoScaling=false",
                                    NULL};
    wp_options options = WP_OPTIONS_INIT;
    options.mode = mode;
    options.settings = settings;
    wp_error error;
    wp_executor *executor = wp_executor_open(&options, &error);
    if (executor == NULL || wp_executor_ready(executor, 60000, &error) < 0) {
        fprintf(stderr, "bench: %s\n", error.message);
        wp_executor_close(executor);
        exit(1);
    }
    return executor;
}

int main(int argc, char *argv[])
{
    struct bench bench = {.api = -1,
                          .dir = getenv("BENCH_DIR"),
                          .socket = getenv("BENCH_SOCKET"),
                          .cli = getenv("BENCH_CLI"),
                          .container = getenv("BENCH_CONTAINER"),
                          .image = getenv("BENCH_IMAGE")};
    FILE *json = argc > 1 ? fopen(argv[1], "w") : NULL;
    if (json == NULL || bench.dir == NULL || bench.socket == NULL || bench.cli == NULL || bench.container == NULL ||
        bench.image == NULL) {
        fprintf(stderr, "bench: bench/run.sh starts this\n");
        return 2;
    }
    bench.pooled = open_executor(&bench, WP_POOLED, "pooled", "transport=socket");
    bench.attached = open_executor(&bench, WP_POOLED, "attached", "transport=attach");
    bench.fresh = open_executor(&bench, WP_FRESH, "fresh", "transport=socket");
    fprintf(json, "[\n");
    compare(&bench, "tiny", NULL, json);
    compare(&bench, "busybox", "true", json);
    claims(&bench, json);
    fprintf(json, "]\n");
    fclose(json);
    wp_executor_close(bench.pooled);
    wp_executor_close(bench.attached);
    wp_executor_close(bench.fresh);
    return 0;
}
