/* `warmpool down`: asks the daemon to stop and waits until it has. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/cli.h"

#define POLL_NS    20000000L
#define TIMEOUT_MS 60000UL /* for running tasks; then they are ended */

static long status_number(const struct cli *cli, const char *key)
{
    struct reply reply;
    if (client_call(cli, "GET", "/v1/status", NULL, &reply, false) < 0)
        return -1;
    json_t *status = json_loadb((const char *)buffer_data(&reply.body), buffer_length(&reply.body), 0, NULL);
    const json_t *value = json_object_get(status, key);
    long number = json_is_integer(value) ? (long)json_integer_value(value) : -1;
    json_decref(status);
    buffer_free(&reply.body);
    return number;
}

/* As this process numbers it: a daemon in a container says another one. 0: it cannot be seen from here. */
static long peer_pid(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

static bool answers(const struct cli *cli)
{
    int fd = client_connect(cli, false);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int ask_to_stop(const struct cli *cli, bool force, bool loud)
{
    struct reply reply;
    if (client_call(cli, "POST", "/v1/shutdown", force ? "{\"force\":true}" : "{\"force\":false}", &reply, loud) < 0)
        return EXIT_FAILED;
    int code = reply.status >= 400 && loud ? client_refused(&reply) : 0;
    buffer_free(&reply.body);
    return code;
}

static unsigned long milliseconds_since(const struct timespec *begun)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)((now.tv_sec - begun->tv_sec) * 1000 + (now.tv_nsec - begun->tv_nsec) / 1000000);
}

int verb_down(struct cli *cli)
{
    bool force = false;
    const char *timeout = NULL;
    unsigned long timeout_ms = TIMEOUT_MS;
    const struct option_spec specs[] = {{.name = "--force", .flag = &force}, {.name = "--timeout", .text = &timeout}};
    int rest;
    int read = options_read(cli, specs, 2, &rest);
    if (read != 0)
        return read < 0 ? EXIT_FAILED : 0;
    if (cli->argc > 1)
        return misused(cli, "unexpected \"%s\"", cli->argv[1]);
    if (timeout != NULL && options_time(timeout, &timeout_ms) < 0)
        return misused(cli, "--timeout %s: must be a time, as 30s or 2m", timeout);
    int fd = client_connect(cli, false);
    if (fd < 0) {
        fprintf(stderr, "no daemon answers at %s: nothing to stop\n", cli->socket);
        return 0;
    }
    long pid = peer_pid(fd);
    close(fd);
    int code = ask_to_stop(cli, force, true);
    struct timespec begun;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    long shown = -1;
    for (unsigned round = 0; code == 0; round++) {
        if (pid > 0 ? kill((pid_t)pid, 0) < 0 && errno == ESRCH : !answers(cli))
            break;
        if (!force && timeout_ms > 0 && milliseconds_since(&begun) > timeout_ms) {
            fprintf(stderr, "%stasks still run after %lu s: they are ended now\n",
                    shown >= 0 && isatty(2) ? "\r\033[K" : "", timeout_ms / 1000);
            ask_to_stop(cli, force = true, false);
        }
        /* A second of patience before progress is worth a line. */
        long left = round >= 50 && round % 25 == 0 ? status_number(cli, "closingLeft") : -1;
        if (left >= 0 && left != shown) {
            fprintf(stderr,
                    isatty(2) ? "\r\033[Kstopping: %ld containers and networks left"
                              : "stopping: %ld containers and networks left\n",
                    left);
            shown = left;
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    if (shown >= 0 && isatty(2))
        fputs("\n", stderr);
    return code;
}
