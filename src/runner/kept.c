/* Pipes of background processes that outlived their task (in a lease): what they still write goes nowhere, so that they
 * neither block nor die of it. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "runner/runner.h"

void kept_add(struct runner *runner, int fd)
{
    if (fd < 0)
        return;
    if (runner->kept_count == KEPT_MAX) { /* the oldest is given up */
        close(runner->kept[0]);
        memmove(runner->kept, runner->kept + 1, (KEPT_MAX - 1) * sizeof runner->kept[0]);
        runner->kept_count--;
    }
    runner->kept[runner->kept_count++] = fd;
}

void kept_read(struct runner *runner, int fd)
{
    static char nowhere[65536];
    ssize_t got = read(fd, nowhere, sizeof nowhere);
    int error = errno;
    forget_bytes(nowhere, got > 0 ? (size_t)got : 0);
    errno = error;
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    for (unsigned i = 0; i < runner->kept_count; i++)
        if (runner->kept[i] == fd)
            runner->kept[i] = runner->kept[--runner->kept_count];
    close(fd);
}

void kept_close(struct runner *runner)
{
    while (runner->kept_count > 0)
        close(runner->kept[--runner->kept_count]);
}
