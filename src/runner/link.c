/* How bytes come and go: over a unix socket that the runner connects to, or over its own stdin and stdout, which the
 * engine's attach stream leads to. When the socket breaks the runner connects again. The attach stream never tells that
 * it broke; there a new conversation begins with the container's token, wherever it turns up in the input. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "runner/runner.h"

#define BACKOFF_MIN_US 10000U
#define BACKOFF_MAX_US 1000000U
#define READ_AGAIN_US  100000U /* after the end of stdin: the engine may come back to it */

/* --- attach ------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_token(uint8_t token[SYNC_TOKEN_BYTES], const char *text)
{
    for (size_t i = 0; i < SYNC_TOKEN_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        token[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * (size_t)SYNC_TOKEN_BYTES] == '\0';
}

/* The variable leaves the environment, and its value the memory, before any task could see it. */
static bool take_token(struct runner *runner)
{
    static const char name[] = SYNC_TOKEN_VARIABLE "=";
    bool found = false;
    char **kept = runner->environment;
    for (char **entry = kept; *entry != NULL; entry++) {
        if (strncmp(*entry, name, sizeof name - 1) != 0) {
            *kept++ = *entry;
            continue;
        }
        found = read_token(runner->token, *entry + sizeof name - 1);
        explicit_bzero(*entry, strlen(*entry));
    }
    *kept = NULL;
    return found;
}

bool link_open_attach(struct runner *runner)
{
    if (!take_token(runner))
        return false;
    runner->fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
    runner->out_fd = fcntl(1, F_DUPFD_CLOEXEC, 3);
    dup2(runner->null_fd, 0);
    dup2(runner->null_fd, 1);
    fcntl(runner->fd, F_SETFL, O_NONBLOCK);
    fcntl(runner->out_fd, F_SETFL, O_NONBLOCK);
    runner->deaf = true;
    return runner->fd >= 0 && runner->out_fd >= 0;
}

static bool attached(const struct runner *runner)
{
    return runner->socket_path == NULL;
}

size_t link_tail(const struct runner *runner)
{
    return attached(runner) ? FRAME_TAIL_BYTES : 0;
}

/* --- the input buffer ----------------------------------------------------------------------------------- */

/* A RUN larger than the static buffer gets a mapping for as long as it is there. */
static bool input_grow(struct runner *runner, size_t size)
{
    uint8_t *larger = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (larger == MAP_FAILED)
        return false;
    memcpy(larger, runner->input, runner->input_length);
    forget_bytes(runner->input, runner->input_length);
    if (runner->input != runner->input_small)
        munmap(runner->input, runner->input_size);
    runner->input = larger;
    runner->input_size = size;
    return true;
}

/* Back to the static one. */
static void input_shrink(struct runner *runner)
{
    if (runner->input == runner->input_small || runner->input_length > sizeof runner->input_small)
        return;
    memcpy(runner->input_small, runner->input, runner->input_length);
    munmap(runner->input, runner->input_size);
    runner->input = runner->input_small;
    runner->input_size = sizeof runner->input_small;
}

/* Takes bytes off the input's beginning; arguments, environment and secrets of a task do not stay behind in it. */
static void discard(struct runner *runner, size_t size)
{
    memmove(runner->input, runner->input + size, runner->input_length - size);
    runner->input_length -= size;
    forget_bytes(runner->input + runner->input_length, size);
}

/* --- end and beginning ------------------------------------------------------------------------------------ */

/* Whatever was said to whoever is gone is forgotten; the task's output is in its rings. */
static void forget(struct runner *runner)
{
    runner->synced = false;
    runner->output_start = runner->output_end = 0;
    runner->output_failed = false;
}

void link_drop(struct runner *runner)
{
    forget(runner);
    if (attached(runner)) {
        runner->deaf = true;
        return;
    }
    if (runner->fd < 0)
        return;
    close(runner->fd);
    runner->fd = runner->out_fd = -1;
    discard(runner, runner->input_length);
    input_shrink(runner);
    runner->orphaned_us = now_us();
    runner->connect_backoff_us = BACKOFF_MIN_US;
    runner->connect_us = runner->orphaned_us + BACKOFF_MIN_US;
}

static void connect_failed(struct runner *runner)
{
    if (runner->connect_backoff_us < BACKOFF_MIN_US)
        runner->connect_backoff_us = BACKOFF_MIN_US;
    runner->connect_us = now_us() + runner->connect_backoff_us;
    runner->connect_backoff_us *= 2;
    if (runner->connect_backoff_us > BACKOFF_MAX_US)
        runner->connect_backoff_us = BACKOFF_MAX_US;
}

void link_try(struct runner *runner)
{
    if (attached(runner)) {
        runner->connect_us = 0;
        return;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(runner->socket_path);
    if (length >= sizeof address.sun_path)
        _exit(2);
    memcpy(address.sun_path, runner->socket_path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        runner->fd = runner->out_fd = fd;
        runner->synced = false;
        runner->connect_us = 0;
        runner->connect_backoff_us = BACKOFF_MIN_US;
        return;
    }
    if (fd >= 0)
        close(fd);
    connect_failed(runner);
}

bool link_orphaned(const struct runner *runner, uint64_t now)
{
    return runner->orphan_timeout_us != 0 && (attached(runner) || runner->fd < 0) &&
           now >= runner->orphaned_us + runner->orphan_timeout_us;
}

uint64_t link_wakeup(const struct runner *runner)
{
    uint64_t when = runner->connect_us;
    if (runner->orphan_timeout_us != 0 && (attached(runner) || runner->fd < 0)) {
        uint64_t end = runner->orphaned_us + runner->orphan_timeout_us;
        when = when == 0 || end < when ? end : when;
    }
    return when;
}

/* --- bytes ------------------------------------------------------------------------------------------------- */

void link_flush(struct runner *runner)
{
    /* Before SYNC nobody is known to listen. */
    while (runner->out_fd >= 0 && runner->synced && runner->output_end > runner->output_start) {
        const uint8_t *bytes = runner->output + runner->output_start;
        size_t size = runner->output_end - runner->output_start;
        ssize_t sent = attached(runner) ? write(runner->out_fd, bytes, size)
                                        : send(runner->out_fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            if (attached(runner))
                forget(runner); /* the engine's side is gone; it may come back */
            else
                link_drop(runner);
        }
        if (sent < 0)
            return;
        runner->output_start += (size_t)sent;
        if (runner->output_start == runner->output_end)
            runner->output_start = runner->output_end = 0;
    }
    if (runner->output_failed)
        link_drop(runner);
}

size_t link_send(struct runner *runner, const uint8_t header[FRAME_HEADER_BYTES], const uint8_t *payload, size_t size)
{
    struct iovec parts[2] = {{.iov_base = (void *)(uintptr_t)header, .iov_len = FRAME_HEADER_BYTES},
                             {.iov_base = (void *)(uintptr_t)payload, .iov_len = size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent = attached(runner) ? writev(runner->out_fd, parts, 2)
                                    : sendmsg(runner->out_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? 0 : (size_t)sent; /* what is wrong shows with the next flush */
}

static void handle_input(struct runner *runner)
{
    ptrdiff_t used = conn_handle(runner, runner->input_length);
    if (used < 0) {
        runner_log(runner, 0, "the daemon sent what the protocol does not allow");
        link_flush(runner);
        link_drop(runner);
        return;
    }
    if (runner->fd < 0)
        return;
    if (used > 0)
        discard(runner, (size_t)used);
    ptrdiff_t needed = frame_size(runner->input, runner->input_length);
    if (needed > 0)
        needed += (ptrdiff_t)link_tail(runner);
    if (needed <= (ptrdiff_t)runner->input_size)
        input_shrink(runner);
    else if (!input_grow(runner, (size_t)needed))
        link_drop(runner);
}

/* `from`: where to look for a token; what comes before has been searched. */
static void handle_attached_input(struct runner *runner, size_t from)
{
    while (runner->input_length - from >= SYNC_TOKEN_BYTES) {
        const uint8_t *token =
            memmem(runner->input + from, runner->input_length - from, runner->token, SYNC_TOKEN_BYTES);
        if (token == NULL)
            break;
        size_t before = (size_t)(token - runner->input);
        if (!runner->deaf)
            conn_handle(runner, before); /* whole frames were meant, half a one never will be whole */
        forget(runner);
        runner->deaf = false;
        discard(runner, before + SYNC_TOKEN_BYTES);
        from = 0;
    }
    if (!runner->deaf)
        handle_input(runner);
    if (runner->deaf && runner->input_length >= SYNC_TOKEN_BYTES) /* its end may be the beginning of a token */
        discard(runner, runner->input_length - (SYNC_TOKEN_BYTES - 1));
    if (runner->deaf)
        input_shrink(runner);
}

void link_read(struct runner *runner)
{
    uint8_t *room = runner->input + runner->input_length;
    size_t size = runner->input_size - runner->input_length;
    ssize_t got = attached(runner) ? read(runner->fd, room, size) : recv(runner->fd, room, size, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (attached(runner))
            runner->connect_us = now_us() + READ_AGAIN_US;
        else
            link_drop(runner);
        return;
    }
    size_t length = runner->input_length;
    runner->input_length += (size_t)got;
    if (!attached(runner)) {
        handle_input(runner);
        return;
    }
    runner->orphaned_us = now_us();
    handle_attached_input(runner, length < SYNC_TOKEN_BYTES ? 0 : length - (SYNC_TOKEN_BYTES - 1));
}
