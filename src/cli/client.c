/* HTTP/1.1 over the daemon's unix socket, as little of it as the daemon's answers need. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/cli.h"

#define HEAD_MAX 16384U
#define BODY_MAX (128U * 1024U * 1024U)

int write_all(int fd, const void *data, size_t size)
{
    const char *next = data;
    while (size > 0) {
        ssize_t written = write(fd, next, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        next += written;
        size -= (size_t)written;
    }
    return 0;
}

int client_connect(const struct cli *cli, bool loud)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (cli->socket == NULL || strlen(cli->socket) >= sizeof address.sun_path) {
        if (loud)
            failed("the socket path %s is too long", cli->socket == NULL ? "" : cli->socket);
        return -1;
    }
    strcpy(address.sun_path, cli->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (loud && (why == EACCES || why == EPERM))
        failed("%s may not be used by you; be root or in the group that owns it", cli->socket);
    else if (loud)
        failed("no daemon answers at %s; start it: warmpool up", cli->socket);
    return -1;
}

/* More bytes; 0 at the end, -1 on failure. */
static ssize_t read_more(int fd, struct buffer *in)
{
    uint8_t *room = buffer_reserve(in, 65536);
    if (room == NULL)
        return -1;
    ssize_t got;
    do
        got = read(fd, room, 65536);
    while (got < 0 && errno == EINTR);
    if (got > 0)
        buffer_commit(in, (size_t)got);
    return got;
}

static int parse_head(const char *head, size_t *content_length)
{
    *content_length = 0;
    if (strncmp(head, "HTTP/1.1 ", 9) != 0)
        return -1;
    for (const char *line = head; (line = strstr(line, "\r\n")) != NULL; line += 2)
        if (strncasecmp(line + 2, "Content-Length:", 15) == 0)
            *content_length = strtoul(line + 17, NULL, 10);
    return atoi(head + 9);
}

int client_begin(int fd, const char *method, const char *path, const char *headers, const char *body, size_t size,
                 struct buffer *rest, size_t *content_length)
{
    struct buffer out = {.wipe = true};
    buffer_printf(&out, "%s %s HTTP/1.1\r\nHost: warmpool\r\n%s", method, path, headers);
    if (body != NULL)
        buffer_printf(&out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", size);
    buffer_append_string(&out, "\r\n");
    if (body != NULL)
        buffer_append(&out, body, size);
    int result = out.failed ? -1 : write_all(fd, buffer_data(&out), buffer_length(&out));
    buffer_free(&out);
    while (result == 0) {
        const char *text = buffer_text(rest);
        const char *end = text == NULL ? NULL : strstr(text, "\r\n\r\n");
        if (end != NULL) {
            result = parse_head(text, content_length);
            buffer_consume(rest, (size_t)(end - text) + 4);
            return result;
        }
        if (text == NULL || buffer_length(rest) > HEAD_MAX || read_more(fd, rest) <= 0)
            return -1;
    }
    return -1;
}

int client_call(const struct cli *cli, const char *method, const char *path, const char *body, struct reply *reply,
                bool loud)
{
    size_t length = 0;
    *reply = (struct reply){0};
    int fd = client_connect(cli, loud);
    if (fd < 0)
        return -1;
    reply->status = client_begin(fd, method, path, "Connection: close\r\n", body, body == NULL ? 0 : strlen(body),
                                 &reply->body, &length);
    while (reply->status > 0 && length < BODY_MAX && buffer_length(&reply->body) < length)
        if (read_more(fd, &reply->body) <= 0)
            break;
    close(fd);
    if (reply->status > 0 && buffer_length(&reply->body) >= length && buffer_text(&reply->body) != NULL)
        return 0;
    buffer_free(&reply->body);
    if (loud)
        failed("the daemon at %s hung up", cli->socket);
    return -1;
}

int client_refused(const struct reply *reply)
{
    json_t *json = json_loadb((const char *)buffer_data(&reply->body), buffer_length(&reply->body), 0, NULL);
    const json_t *error = json_object_get(json, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *hint = json_string_value(json_object_get(error, "hint"));
    if (message == NULL)
        failed("the daemon answered with status %d", reply->status);
    else if (hint != NULL && hint[0] != '\0')
        failed("%s (%s)", message, hint);
    else
        failed("%s", message);
    json_decref(json);
    return EXIT_FAILED;
}
