/* The verbs that ask and print: status, ps, metrics, scale, warm, refresh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "cli/cli.h"

#define OPTIONS_MAX 8

int ask_begin(struct cli *cli, const struct option_spec *more, size_t more_count, int arguments, const char *what,
              bool *json, int *code)
{
    struct option_spec specs[OPTIONS_MAX] = {{.name = "--json", .flag = json}};
    int rest;
    for (size_t i = 0; i < more_count; i++)
        specs[i + 1] = more[i];
    int read = options_read(cli, specs, more_count + 1, &rest);
    *code = read < 0 ? EXIT_FAILED : 0;
    if (read == 0 && cli->argc != arguments + 1) {
        *code = misused(cli, "%s", what);
        read = -1;
    }
    return read;
}

json_t *ask(const struct cli *cli, const char *method, const char *path, const char *body, bool print, int *code)
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

long long json_number(const json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

const char *json_text(const json_t *json, const char *key)
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
        printf("%-16s %5lld%s %5lld %5lld %5lld %6lld %8lld %8lld %8lld  %s\n", json_text(pool, "agentType"),
               json_number(pool, "target"), json_is_true(json_object_get(pool, "pinned")) ? "*" : " ",
               json_number(pool, "idle"), json_number(pool, "busy") + json_number(pool, "resetting"),
               json_number(pool, "waiting"), json_number(pool, "creating"), json_number(pool, "tasks"),
               json_number(pool, "hits"), json_number(pool, "misses"), json_text(pool, "image"));
        if (json_is_true(json_object_get(pool, "paused")))
            printf("%-16s ! paused: tasks wait; warmpool resume %s\n", "", json_text(pool, "agentType"));
        if (json_is_true(json_object_get(pool, "draining")))
            printf("%-16s ! drained: takes no tasks; warmpool resume %s\n", "", json_text(pool, "agentType"));
        if (json_is_string(json_object_get(pool, "lastError")))
            printf("%-16s ! %s\n", "", json_text(pool, "lastError"));
    }
}

int verb_status(struct cli *cli)
{
    bool print = false;
    int code;
    if (ask_begin(cli, NULL, 0, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *status = ask(cli, "GET", "/v1/status", NULL, print, &code);
    if (status == NULL)
        return code;
    const json_t *engine = json_object_get(status, "engine");
    bool up = json_is_true(json_object_get(engine, "up"));
    long long seconds = json_number(status, "uptimeMs") / 1000;
    printf("warmpool %s, pid %lld, up %lld:%02lld:%02lld, %s\n", json_text(status, "version"),
           json_number(status, "pid"), seconds / 3600, seconds / 60 % 60, seconds % 60,
           json_is_true(json_object_get(status, "closing")) ? "stopping"
           : json_is_true(json_object_get(status, "ready")) ? "ready"
                                                            : "not ready");
    printf("instance %s, state %s, socket %s\n", json_text(status, "instance"), json_text(status, "stateDir"),
           json_text(status, "socket"));
    if (up)
        printf("engine %s %s, API %s, %s\n\n", json_text(engine, "name"), json_text(engine, "version"),
               json_text(engine, "apiVersion"), json_text(engine, "host"));
    else
        printf("engine DOWN: %s\n\n", json_text(engine, "error"));
    print_pools(json_object_get(status, "pools"));
    json_decref(status);
    return 0;
}

void print_age(const char *date, char out[24])
{
    struct tm parts = {0};
    strcpy(out, "-");
    if (strptime(date, "%Y-%m-%dT%H:%M:%S", &parts) == NULL)
        return;
    long long age = llabs((long long)(time(NULL) - timegm(&parts)));
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
    if (ask_begin(cli, NULL, 0, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *rows = ask(cli, "GET", "/v1/containers", NULL, print, &code);
    if (rows == NULL)
        return code;
    size_t index;
    json_t *row;
    printf("%-14s %-32s %-14s %-10s %6s %6s %6s  %s\n", "ID", "NAME", "TYPE", "STATE", "TASKS", "AGE", "USED", "TASK");
    json_array_foreach (rows, index, row) {
        char age[24], used[24];
        print_age(json_text(row, "createdAt"), age);
        print_age(json_text(row, "lastUsed"), used);
        printf("%-14.12s %-32s %-14s %-10s %6lld %6s %6s  %s\n", json_text(row, "containerId"),
               json_text(row, "containerName"), json_text(row, "agentType"), json_text(row, "state"),
               json_number(row, "execCount"), age, used, json_text(row, "taskId"));
    }
    json_decref(rows);
    return 0;
}

int verb_metrics(struct cli *cli)
{
    static const char *const times[] = {"execution", "queue", "dispatch", "reset", "create"};
    bool print = false;
    int code;
    if (ask_begin(cli, NULL, 0, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *metrics = ask(cli, "GET", "/v1/metrics", NULL, print, &code);
    if (metrics == NULL)
        return code;
    char a[32], b[32], c[32], d[32];
    printf("containers   %lld: %lld active, %lld idle, %lld healthy, %lld unhealthy; %lld made, %lld removed\n",
           json_number(metrics, "totalContainers"), json_number(metrics, "activeContainers"),
           json_number(metrics, "idleContainers"), json_number(metrics, "healthyContainers"),
           json_number(metrics, "unhealthyContainers"), json_number(metrics, "containersCreated"),
           json_number(metrics, "containersRemoved"));
    printf("tasks        %lld; hit rate %s %%, utilisation %s %%, mean execution %s ms\n",
           json_number(metrics, "tasks"), decimal(metrics, "containerHitRate", a),
           decimal(metrics, "poolUtilization", b), decimal(metrics, "averageExecutionTime", c));
    printf("\n%-12s %10s %10s %10s %10s %10s\n", "ms", "count", "p50", "p95", "p99", "max");
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        const json_t *row = json_object_get(metrics, times[i]);
        printf("%-12s %10lld %10s %10s %10s %10s\n", times[i], json_number(row, "count"), decimal(row, "p50", a),
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
    printf("%s: %lld wanted%s, %lld there\n", json_text(pool, "agentType"), json_number(pool, "target"),
           json_is_true(json_object_get(pool, "pinned")) ? " (pinned)" : "", json_number(pool, "total"));
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
    if (ask_begin(cli, NULL, 0, 2, "takes an agent type, and a size or auto", &print, &code) != 0)
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
    if (ask_begin(cli, NULL, 0, 2, "takes an agent type and a number of containers", &print, &code) != 0)
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
    struct reply reply;
    if (ask_begin(cli, NULL, 0, 1, "takes an agent type, or a container's id or name", &print, &code) != 0)
        return code;
    const char *name = cli->argv[1];
    if (!name_sound(name) || strlen(name) > 128)
        return misused(cli, "\"%s\" is neither an agent type nor a container's id or name", name);
    snprintf(path, sizeof path, "/v1/pools/%s", name);
    if (client_call(cli, "GET", path, NULL, &reply, true) < 0)
        return EXIT_FAILED;
    bool is_pool = reply.status == 200;
    buffer_free(&reply.body);
    snprintf(path, sizeof path, "/v1/%s/%s/refresh", is_pool ? "pools" : "containers", name);
    json_t *answer = ask(cli, "POST", path, NULL, print, &code);
    if (answer != NULL && is_pool)
        printf("%s: %lld containers are being replaced, one after the other\n", name, json_number(answer, "expiring"));
    else if (answer != NULL)
        printf("%s is being replaced\n", name);
    json_decref(answer);
    return code;
}

int verb_pool(struct cli *cli)
{
    static const char *const said[][2] = {{"pause", "paused: tasks wait"},
                                          {"resume", "resumed"},
                                          {"drain", "drained: no task, no container; it takes none"}};
    bool print = false;
    int code;
    char path[160];
    if (ask_begin(cli, NULL, 0, 1, "takes an agent type", &print, &code) != 0)
        return code;
    if (!name_sound(cli->argv[1]) || strlen(cli->argv[1]) > 64)
        return misused(cli, "\"%s\" is no agent type", cli->argv[1]);
    snprintf(path, sizeof path, "/v1/pools/%s/%s", cli->argv[1], cli->argv[0]);
    json_t *pool = ask(cli, "POST", path, NULL, print, &code);
    for (size_t i = 0; pool != NULL && i < sizeof said / sizeof said[0]; i++)
        if (strcmp(said[i][0], cli->argv[0]) == 0)
            printf("%s: %s\n", json_text(pool, "agentType"), said[i][1]);
    json_decref(pool);
    return code;
}

int verb_reload(struct cli *cli)
{
    bool print = false;
    int code;
    size_t index;
    json_t *key;
    if (ask_begin(cli, NULL, 0, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *answer = ask(cli, "POST", "/v1/reload", NULL, print, &code);
    json_t *changed = json_object_get(answer, "changed");
    if (answer != NULL)
        printf("%zu keys changed%s", json_array_size(changed), json_array_size(changed) > 0 ? ":" : "");
    json_array_foreach (changed, index, key) {
        printf(" %s", json_string_value(key));
    }
    if (answer != NULL)
        printf("; %lld pools replace their containers\n", json_number(answer, "rolled"));
    json_decref(answer);
    return code;
}
