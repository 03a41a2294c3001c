/* Leases: lease, renew, release, leases. `exec` and `cp` are in run.c. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/json_write.h"
#include "cli/cli.h"

static bool all_digits(const char *text)
{
    return text[0] != '\0' && strspn(text, "0123456789") == strlen(text) && strlen(text) < 16;
}

static void put_time(struct json_writer *json, const char *key, const char *value)
{
    if (value == NULL)
        return;
    jw_key(json, key);
    if (all_digits(value))
        jw_uint(json, strtoull(value, NULL, 10));
    else
        jw_text(json, value);
}

/* The lease lasts as long as this connection, which ends with this process. */
static int hold(const struct cli *cli, const char *body, bool print)
{
    struct reply reply = {0};
    size_t length = 0;
    char byte;
    int fd = client_connect(cli, true);
    if (fd < 0)
        return EXIT_FAILED;
    reply.status = client_begin(fd, "POST", "/v1/leases", "", body, strlen(body), &reply.body, &length);
    while (reply.status > 0 && buffer_length(&reply.body) < length) {
        uint8_t *room = buffer_reserve(&reply.body, 4096);
        ssize_t got = room == NULL ? -1 : read(fd, room, 4096);
        if (got <= 0)
            break;
        buffer_commit(&reply.body, (size_t)got);
    }
    int code = reply.status >= 400 ? client_refused(&reply) : 0;
    json_t *lease = json_loadb((const char *)buffer_data(&reply.body), buffer_length(&reply.body), 0, NULL);
    if (code == 0 && reply.status != 201)
        code = failed("the daemon at %s hung up", cli->socket);
    if (code == 0) {
        if (print)
            fwrite(buffer_data(&reply.body), 1, buffer_length(&reply.body), stdout);
        else
            printf("%s\n", json_text(lease, "id"));
        fflush(stdout);
        while (read(fd, &byte, 1) > 0)
            ;
        code = failed("the lease has ended: the daemon closed the connection");
    }
    json_decref(lease);
    buffer_free(&reply.body);
    close(fd);
    return code;
}

int verb_lease(struct cli *cli)
{
    const char *ttl = NULL, *priority = NULL, *queue = NULL;
    bool print = false, held = false, fresh = false;
    const struct option_spec specs[] = {{.name = "--ttl", .text = &ttl},
                                        {.name = "--priority", .text = &priority},
                                        {.name = "--queue-timeout", .text = &queue},
                                        {.name = "--fresh", .flag = &fresh},
                                        {.name = "--hold", .flag = &held}};
    int code;
    if (ask_begin(cli, specs, sizeof specs / sizeof specs[0], 1, "takes an agent type", &print, &code) != 0)
        return code;
    struct buffer body = {0};
    struct json_writer json = {.out = &body};
    jw_open(&json, '{');
    jw_key(&json, "agentType");
    jw_text(&json, cli->argv[1]);
    put_time(&json, "ttlMs", ttl);
    put_time(&json, "queueTimeoutMs", queue);
    if (priority != NULL) {
        jw_key(&json, "priority");
        jw_text(&json, priority);
    }
    if (fresh) {
        jw_key(&json, "fresh");
        jw_bool(&json, true);
    }
    if (held) {
        jw_key(&json, "hold");
        jw_bool(&json, true);
    }
    jw_close(&json, '}');
    const char *text = buffer_text(&body);
    if (text == NULL) {
        code = failed("out of memory");
    } else if (held) {
        code = hold(cli, text, print);
    } else {
        json_t *lease = ask(cli, "POST", "/v1/leases", text, print, &code);
        if (lease != NULL)
            printf("%s\n", json_text(lease, "id"));
        json_decref(lease);
    }
    buffer_free(&body);
    return code;
}

static int lease_path(const struct cli *cli, char path[64])
{
    const char *id = cli->argv[1];
    if (strlen(id) != LEASE_ID_LENGTH || id[0] != 'l' || strspn(id + 1, "0123456789abcdef") != LEASE_ID_LENGTH - 1)
        return misused(cli, "\"%s\" is no lease; `warmpool leases` lists them", id);
    snprintf(path, 64, "/v1/leases/%s", id);
    return 0;
}

int verb_renew(struct cli *cli)
{
    const char *ttl = NULL;
    const struct option_spec specs[] = {{.name = "--ttl", .text = &ttl}};
    bool print = false;
    int code;
    char path[64], until[24];
    if (ask_begin(cli, specs, 1, 1, "takes a lease", &print, &code) != 0 || (code = lease_path(cli, path)) != 0)
        return code;
    struct buffer body = {0};
    struct json_writer json = {.out = &body};
    jw_open(&json, '{');
    put_time(&json, "ttlMs", ttl);
    jw_close(&json, '}');
    json_t *lease = ask(cli, "PUT", path, buffer_text(&body), print, &code);
    buffer_free(&body);
    if (lease != NULL) {
        print_age(json_text(lease, "expiresAt"), until);
        printf("%s: %s%s\n", cli->argv[1], until[0] == '-' ? "does not expire" : "ends when it is not used for ",
               until[0] == '-' ? "" : until);
    }
    json_decref(lease);
    return code;
}

int verb_release(struct cli *cli)
{
    bool print = false;
    int code;
    char path[64];
    if (ask_begin(cli, NULL, 0, 1, "takes a lease", &print, &code) != 0 || (code = lease_path(cli, path)) != 0)
        return code;
    json_t *answer = ask(cli, "DELETE", path, NULL, print, &code);
    if (answer != NULL)
        printf("%s is released\n", cli->argv[1]);
    json_decref(answer);
    return code;
}

int verb_leases(struct cli *cli)
{
    bool print = false;
    int code;
    if (ask_begin(cli, NULL, 0, 0, "takes no arguments", &print, &code) != 0)
        return code;
    json_t *rows = ask(cli, "GET", "/v1/leases", NULL, print, &code);
    if (rows == NULL)
        return code;
    size_t index;
    json_t *row;
    printf("%-18s %-14s %-32s %-8s %6s %6s %6s %6s  %s\n", "LEASE", "TYPE", "CONTAINER", "STATE", "TASKS", "AGE",
           "USED", "LEFT", "");
    json_array_foreach (rows, index, row) {
        char age[24], used[24], left[24];
        print_age(json_text(row, "createdAt"), age);
        print_age(json_text(row, "lastUsed"), used);
        print_age(json_text(row, "expiresAt"), left);
        printf("%-18s %-14s %-32s %-8s %6lld %6s %6s %6s  %s%s\n", json_text(row, "id"), json_text(row, "agentType"),
               json_text(row, "containerName"), json_text(row, "state"), json_number(row, "tasks"), age, used, left,
               json_is_true(json_object_get(row, "hold")) ? "held by its connection" : "",
               json_is_true(json_object_get(row, "overdue")) ? "held for long: forgotten?" : "");
    }
    json_decref(rows);
    return 0;
}
