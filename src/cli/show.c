/* The verbs that ask and print: status, ps, metrics, scale, warm, refresh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "cli/cli.h"

/* Reads --json and checks that `arguments` words follow the verb. 0, or the code to end with in `code`. */
static int begin(struct cli *cli, int arguments, const char *what, bool *json, int *code)
{
    const struct option_spec specs[] = {{.name = "--json", .flag = json}};
    int rest;
    int read = options_read(cli, specs, 1, &rest);
    *code = read < 0 ? EXIT_FAILED : 0;
    if (read == 0 && cli->argc != arguments + 1) {
        *code = misused(cli, "%s", what);
        read = -1;
    }
    return read;
}

/* Asks; with --json prints the answer and returns NULL with code 0. */
static json_t *ask(const struct cli *cli, const char *method, const char *path, const char *body, bool print, int *code)
{
    struct reply reply;
    json_t *json = NULL;
    *code = EXIT_FAILED;
    if (client_call(cli, method, path, body, &reply, true) < 0)
        return NULL;
    if (reply.status >= 400) {
        *code = client_refused(&reply);
    } else if (print) {
        fputs((const char *)buffer_data(&reply.body), stdout);
        *code = 0;
    } else {
        json = json_loadb((const char *)buffer_data(&reply.body), buffer_length(&reply.body), 0, NULL);
        *code = json == NULL ? failed("the daemon's answer is not JSON") : 0;
    }
    buffer_free(&reply.body);
    return json;
}

static long long number(const json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

static const char *text(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    return value != NULL ? value : "-";
}

/* "12.5", or "-" for what was not measured. */
static const char *decimal(const json_t *json, const char *key, char out[32])
{
    const json_t *value = json_object_get(json, key);
    if (json_is_number(value))
        snprintf(out, 32, "%.2f", json_number_value(value));
    else
        strcpy(out, "-");
    return out;
}

static void print_pools(const json_t *pools)
{
    size_t index;
    json_t *pool;
    printf("%-16s %6s %5s %5s %5s %6s %8s %8s %8s  %s\n", "TYPE", "TARGET", "IDLE", "BUSY", "WAIT", "MAKING", "TASKS",
           "HITS", "MISSES", "IMAGE");
    json_array_foreach ((json_t *)(uintptr_t)pools, index, pool) {
        printf("%-16s %5lld%s %5lld %5lld %5lld %6lld %8lld %8lld %8lld  %s\n", text(pool, "agentType"),
               number(pool, "target"), json_is_true(json_object_get(pool, "pinned")) ? "*" : " ", number(pool, "idle"),
               number(pool, "busy") + number(pool, "resetting"), number(pool, "waiting"), number(pool, "creating"),
               number(pool, "tasks"), number(pool, "hits"), number(pool, "misses"), text(pool, "image"));
        if (json_is_string(json_object_get(pool, "lastError")))
            printf("%-16s ! %s\n", "", text(pool, "lastError"));
    }
}

int verb_status(struct cli *cli)
{
    bool print = false;
    int code;
    if (begin(cli, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *status = ask(cli, "GET", "/v1/status", NULL, print, &code);
    if (status == NULL)
        return code;
    const json_t *engine = json_object_get(status, "engine");
    bool up = json_is_true(json_object_get(engine, "up"));
    long long seconds = number(status, "uptimeMs") / 1000;
    printf("warmpool %s, pid %lld, up %lld:%02lld:%02lld, %s\n", text(status, "version"), number(status, "pid"),
           seconds / 3600, seconds / 60 % 60, seconds % 60,
           json_is_true(json_object_get(status, "closing")) ? "stopping"
           : json_is_true(json_object_get(status, "ready")) ? "ready"
                                                            : "not ready");
    printf("instance %s, state %s, socket %s\n", text(status, "instance"), text(status, "stateDir"),
           text(status, "socket"));
    if (up)
        printf("engine %s %s, API %s, %s\n\n", text(engine, "name"), text(engine, "version"),
               text(engine, "apiVersion"), text(engine, "host"));
    else
        printf("engine DOWN: %s\n\n", text(engine, "error"));
    print_pools(json_object_get(status, "pools"));
    json_decref(status);
    return 0;
}

/* "2026-11-23T19:14:59.314Z" as "3m". */
static void print_age(const char *date, char out[24])
{
    struct tm parts = {0};
    strcpy(out, "-");
    if (strptime(date, "%Y-%m-%dT%H:%M:%S", &parts) == NULL)
        return;
    long long age = (long long)(time(NULL) - timegm(&parts));
    if (age < 0)
        age = 0;
    if (age < 120)
        snprintf(out, 24, "%llds", age);
    else if (age < 7200)
        snprintf(out, 24, "%lldm", age / 60);
    else
        snprintf(out, 24, "%lldh", age / 3600);
}

int verb_ps(struct cli *cli)
{
    bool print = false;
    int code;
    if (begin(cli, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *rows = ask(cli, "GET", "/v1/containers", NULL, print, &code);
    if (rows == NULL)
        return code;
    size_t index;
    json_t *row;
    printf("%-14s %-32s %-14s %-10s %6s %6s %6s  %s\n", "ID", "NAME", "TYPE", "STATE", "TASKS", "AGE", "USED", "TASK");
    json_array_foreach (rows, index, row) {
        char age[24], used[24];
        print_age(text(row, "createdAt"), age);
        print_age(text(row, "lastUsed"), used);
        printf("%-14.12s %-32s %-14s %-10s %6lld %6s %6s  %s\n", text(row, "containerId"), text(row, "containerName"),
               text(row, "agentType"), text(row, "state"), number(row, "execCount"), age, used, text(row, "taskId"));
    }
    json_decref(rows);
    return 0;
}

int verb_metrics(struct cli *cli)
{
    static const char *const times[] = {"execution", "queue", "dispatch", "reset", "create"};
    bool print = false;
    int code;
    if (begin(cli, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *metrics = ask(cli, "GET", "/v1/metrics", NULL, print, &code);
    if (metrics == NULL)
        return code;
    char a[32], b[32], c[32], d[32];
    printf("containers   %lld: %lld active, %lld idle, %lld healthy, %lld unhealthy; %lld made, %lld removed\n",
           number(metrics, "totalContainers"), number(metrics, "activeContainers"), number(metrics, "idleContainers"),
           number(metrics, "healthyContainers"), number(metrics, "unhealthyContainers"),
           number(metrics, "containersCreated"), number(metrics, "containersRemoved"));
    printf("tasks        %lld; hit rate %s %%, utilisation %s %%, mean execution %s ms\n", number(metrics, "tasks"),
           decimal(metrics, "containerHitRate", a), decimal(metrics, "poolUtilization", b),
           decimal(metrics, "averageExecutionTime", c));
    printf("\n%-12s %10s %10s %10s %10s %10s\n", "ms", "count", "p50", "p95", "p99", "max");
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        const json_t *row = json_object_get(metrics, times[i]);
        printf("%-12s %10lld %10s %10s %10s %10s\n", times[i], number(row, "count"), decimal(row, "p50", a),
               decimal(row, "p95", b), decimal(row, "p99", c), decimal(row, "max", d));
    }
    json_decref(metrics);
    return 0;
}

static bool name_sound(const char *name)
{
    return name[0] != '\0' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == strlen(name);
}

static int change_pool(struct cli *cli, const char *method, const char *suffix, const char *size, bool print)
{
    char path[160], body[64];
    int code;
    if (!name_sound(cli->argv[1]) || strlen(cli->argv[1]) > 64)
        return misused(cli, "\"%s\" is no agent type", cli->argv[1]);
    snprintf(path, sizeof path, "/v1/pools/%s%s", cli->argv[1], suffix);
    snprintf(body, sizeof body, "{\"size\":%s}", size);
    json_t *pool = ask(cli, method, path, body, print, &code);
    if (pool == NULL)
        return code;
    printf("%s: %lld wanted%s, %lld there\n", text(pool, "agentType"), number(pool, "target"),
           json_is_true(json_object_get(pool, "pinned")) ? " (pinned)" : "", number(pool, "total"));
    json_decref(pool);
    return 0;
}

static bool is_count(const char *text_given)
{
    return text_given[0] != '\0' && strlen(text_given) < 6 && strspn(text_given, "0123456789") == strlen(text_given);
}

int verb_scale(struct cli *cli)
{
    bool print = false;
    int code;
    if (begin(cli, 2, "takes an agent type, and a size or auto", &print, &code) != 0)
        return code;
    bool release = strcmp(cli->argv[2], "auto") == 0;
    if (!release && !is_count(cli->argv[2]))
        return misused(cli, "\"%s\" is neither a size nor auto", cli->argv[2]);
    return change_pool(cli, "PUT", "", release ? "null" : cli->argv[2], print);
}

int verb_warm(struct cli *cli)
{
    bool print = false;
    int code;
    if (begin(cli, 2, "takes an agent type and a number of containers", &print, &code) != 0)
        return code;
    if (!is_count(cli->argv[2]))
        return misused(cli, "\"%s\" is no number of containers", cli->argv[2]);
    return change_pool(cli, "POST", "/warm", cli->argv[2], print);
}

int verb_refresh(struct cli *cli)
{
    bool print = false;
    int code;
    char path[200];
    if (begin(cli, 1, "takes a container's id or name", &print, &code) != 0)
        return code;
    if (!name_sound(cli->argv[1]) || strlen(cli->argv[1]) > 128)
        return misused(cli, "\"%s\" is no container's id or name", cli->argv[1]);
    snprintf(path, sizeof path, "/v1/containers/%s/refresh", cli->argv[1]);
    json_t *answer = ask(cli, "POST", path, NULL, print, &code);
    if (answer != NULL)
        printf("%s is being replaced\n", cli->argv[1]);
    json_decref(answer);
    return code;
}
