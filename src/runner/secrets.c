/* A secret is given to a task as a memory file that nobody can change and that no file system shows: it dies with the
 * last process that has it. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runner/runner.h"
#include "wire/weaken.h"

static int fill(int fd, struct message_secret secret)
{
    const uint8_t *next = secret.value;
    size_t left = secret.size;
    while (left > 0) {
        ssize_t written = write(fd, next, left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? errno : ENOSPC;
        next += written;
        left -= (size_t)written;
    }
    if (!weakened(NULL, "secret-seal") &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return errno;
    return lseek(fd, 0, SEEK_SET) < 0 ? errno : 0;
}

int secrets_open(struct secrets *secrets, const struct message_run *run)
{
    struct wire_reader reader = run->secrets;
    secrets->count = 0;
    for (uint32_t i = 0; i < run->secretc; i++) {
        int made = memfd_create("secret", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (made < 0)
            return errno;
        /* In the child none may be in the way of another. */
        int fd = fcntl(made, F_DUPFD_CLOEXEC, SECRET_FD_FIRST + (int)run->secretc);
        int error = fd < 0 ? errno : fill(fd, wire_get_secret(&reader));
        close(made);
        if (fd >= 0)
            secrets->fd[secrets->count++] = fd;
        if (error != 0)
            return error;
    }
    return 0;
}

void secrets_close(struct secrets *secrets)
{
    while (secrets->count > 0)
        close(secrets->fd[--secrets->count]);
}
