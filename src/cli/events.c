/* `warmpool events`: what happens, as it happens. After a broken connection it goes on where it was. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/cli.h"

#define HEAD_MAX  16384U
#define RETRIES   20 /* a tenth of a second each */
#define BLOCK_MAX 1048576U

struct follow {
    const struct cli *cli;
    const char *types, *agent_type;
    char since[64]; /* id of the last event; "" */
    bool json;
    bool once;      /* only what has happened already */
    long left;      /* events still to be shown; -1: any number */
    bool stopping;  /* the daemon */
    bool complete;  /* that was all */
    bool unwritten; /* stdout takes nothing */
};

/* At once, whatever stdout and the daemon do: there is nothing to put in order. */
static void on_interrupt(int number)
{
    (void)number;
    _exit(0);
}

/* --- one event ------------------------------------------------------------------------------------------------ */

/* What a container may have had a hand in does nothing to the terminal: control characters, the two-byte ones (C1) too,
 * are shown as "?". */
static void print_harmless(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        bool c1 = at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0;
        putchar(c1 || *at < 0x20 || *at == 0x7f ? '?' : *at);
        at += c1;
    }
}

static void print_members(const json_t *event)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)event, key, value) {
        if (strcmp(key, "type") == 0 || strcmp(key, "time") == 0 || strcmp(key, "id") == 0 ||
            strcmp(key, "agentType") == 0)
            continue;
        if (json_is_string(value)) {
            printf("  %s=", key);
            print_harmless(json_string_value(value));
        } else if (json_is_integer(value)) {
            printf("  %s=%lld", key, (long long)json_integer_value(value));
        }
    }
}

static void tell_gap(const json_t *event)
{
    const json_t *missed = json_object_get(event, "missed");
    if (json_is_integer(missed))
        fprintf(stderr, "warmpool events: %lld are missing: %s\n", (long long)json_integer_value(missed),
                json_text(event, "text"));
    else
        fprintf(stderr, "warmpool events: some may be missing: %s\n", json_text(event, "text"));
}

static void show(struct follow *follow, const char *data)
{
    json_t *event = json_loads(data, 0, NULL);
    const char *type = json_text(event, "type");
    bool numbered = json_is_string(json_object_get(event, "id"));
    if (strcmp(type, "stopping") == 0)
        follow->stopping = true;
    if (follow->json) {
        puts(data);
    } else if (strcmp(type, "gap") == 0) {
        tell_gap(event);
    } else if (numbered) {
        printf("%.23s  %-18s %-12s", json_text(event, "time"), type, json_text(event, "agentType"));
        print_members(event);
        puts("");
    }
    if (fflush(stdout) != 0)
        follow->unwritten = true;
    if (numbered && follow->left > 0)
        follow->left--;
    json_decref(event);
}

/* What stands between two empty lines; its lines end in NULs. Only a whole one counts, and its id only when it has been
 * shown: what is said again after a broken connection begins right behind. */
static void handle_block(struct follow *follow, const char *block, const char *end)
{
    const char *id = NULL;
    for (const char *line = block; line < end; line += strlen(line) + 1) {
        if (strncmp(line, "id: ", 4) == 0)
            id = line + 4;
        else if (strncmp(line, "data: ", 6) == 0)
            show(follow, line + 6);
        else if (strcmp(line, ": end") == 0)
            follow->complete = true;
    }
    if (id != NULL)
        snprintf(follow->since, sizeof follow->since, "%s", id);
}

/* --- the stream ------------------------------------------------------------------------------------------------ */

static int ask_for(const struct follow *follow, int fd)
{
    struct buffer out = {0};
    /* 1.0: the answer then comes without chunks. */
    buffer_printf(&out, "GET /v1/events?type=%s", follow->types != NULL ? follow->types : "");
    if (follow->agent_type != NULL)
        buffer_printf(&out, "&agentType=%s", follow->agent_type);
    if (follow->once)
        buffer_append_string(&out, "&follow=false");
    buffer_append_string(&out, " HTTP/1.0\r\nHost: warmpool\r\n");
    if (follow->since[0] != '\0')
        buffer_printf(&out, "Last-Event-ID: %s\r\n", follow->since);
    buffer_append_string(&out, "\r\n");
    int result = out.failed ? -1 : write_all(fd, buffer_data(&out), buffer_length(&out));
    buffer_free(&out);
    return result;
}

/* More bytes; 0 at the end. */
static ssize_t more(int fd, struct buffer *in)
{
    uint8_t *room = buffer_reserve(in, 65536);
    ssize_t got = room == NULL ? -1 : read(fd, room, 65536);
    if (got > 0)
        buffer_commit(in, (size_t)got);
    return got < 0 ? 0 : got;
}

/* The status of the answer, whose head is taken away; -1 when there is none. */
static int read_head(int fd, struct buffer *in)
{
    for (;;) {
        const char *text = buffer_text(in), *end = text == NULL ? NULL : strstr(text, "\r\n\r\n");
        if (end != NULL) {
            int status = strncmp(text, "HTTP/1.", 7) == 0 ? atoi(text + 9) : -1;
            buffer_consume(in, (size_t)(end - text) + 4);
            return status;
        }
        if (buffer_length(in) > HEAD_MAX || more(fd, in) == 0)
            return -1;
    }
}

static void handle_blocks(struct follow *follow, struct buffer *in)
{
    while (follow->left != 0 && !follow->unwritten) {
        char *text = buffer_text(in), *end = text == NULL ? NULL : strstr(text, "\n\n");
        if (end == NULL)
            return;
        for (char *at = text; at <= end; at++)
            if (*at == '\n')
                *at = '\0';
        handle_block(follow, text, end);
        buffer_consume(in, (size_t)(end - text) + 2);
    }
}

/* 1: it ended; 0 or an exit code otherwise. */
static int follow_once(struct follow *follow, bool first)
{
    struct buffer in = {0};
    int fd = client_connect(follow->cli, first), code = 1;
    if (fd < 0)
        return first ? EXIT_FAILED : 1;
    int status = ask_for(follow, fd) < 0 ? -1 : read_head(fd, &in);
    if (status >= 400) {
        while (buffer_length(&in) <= BLOCK_MAX && more(fd, &in) > 0)
            ;
        struct reply reply = {.status = status, .body = in};
        code = client_refused(&reply);
    }
    while (status == 200 && code == 1) {
        handle_blocks(follow, &in);
        if (follow->unwritten)
            code = failed("what happens cannot be written to stdout: %s", strerror(errno));
        else if (follow->left == 0 || follow->complete)
            code = 0;
        else if (buffer_length(&in) > BLOCK_MAX || more(fd, &in) == 0)
            break;
    }
    buffer_free(&in);
    close(fd);
    return code;
}

/* Again and again, until it is done or the daemon has gone. */
static int follow_on(struct follow *follow)
{
    int code = follow_once(follow, true);
    for (int tries = 0; code == 1 && !follow->stopping && tries < RETRIES; tries++) {
        char before[sizeof follow->since];
        memcpy(before, follow->since, sizeof before);
        if (tries == 0)
            fprintf(stderr, "warmpool events: the connection ended; going on after the last event\n");
        usleep(100000);
        code = follow_once(follow, false);
        if (strcmp(before, follow->since) != 0)
            tries = -1; /* it went on for a while */
    }
    if (code != 1)
        return code;
    return failed(follow->stopping ? "the daemon at %s has stopped" : "the daemon at %s has gone", follow->cli->socket);
}

/* They become part of a request as they are. */
static bool is_plain(const char *text)
{
    return text == NULL ||
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,-") == strlen(text);
}

int verb_events(struct cli *cli)
{
    struct follow follow = {.cli = cli, .left = -1};
    const char *since = NULL, *count = NULL;
    const struct option_spec specs[] = {{.name = "--type", .text = &follow.types},
                                        {.name = "--agent-type", .text = &follow.agent_type},
                                        {.name = "--since", .text = &since},
                                        {.name = "--no-follow", .flag = &follow.once},
                                        {.name = "-n", .text = &count}};
    int code;
    if (ask_begin(cli, specs, sizeof specs / sizeof specs[0], 0, "takes no arguments", &follow.json, &code) != 0)
        return code;
    const char *texts[] = {follow.types, follow.agent_type, since};
    for (size_t i = 0; i < 3; i++)
        if (!is_plain(texts[i]))
            return misused(cli, "\"%s\" is neither an event's type nor an agent type nor an id", texts[i]);
    if (count != NULL && (count[0] == '\0' || strspn(count, "0123456789") != strlen(count) || strlen(count) > 9))
        return misused(cli, "-n %s: must be a number", count);
    if (count != NULL)
        follow.left = atol(count);
    snprintf(follow.since, sizeof follow.since, "%s", since != NULL ? since : "");
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    return follow_on(&follow);
}
