#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runner/runner.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

/* By descriptor where the kernel can: a path could lead elsewhere. */
static int open_peer(int master)
{
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    unsigned number;
    if (peer >= 0 || ioctl(master, TIOCGPTN, &number) < 0)
        return peer;
    char path[32];
    snprintf(path, sizeof path, "/dev/pts/%u", number);
    return open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW);
}

int terminal_open(struct terminal *terminal, uint16_t rows, uint16_t columns)
{
    int unlocked = 0;
    terminal->task = -1;
    terminal->master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal->master < 0)
        terminal->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal->master < 0)
        return errno;
    if (ioctl(terminal->master, TIOCSPTLCK, &unlocked) == 0)
        terminal->task = open_peer(terminal->master);
    if (terminal->task < 0) {
        int error = errno;
        close(terminal->master);
        return error;
    }
    terminal_resize(terminal->master, rows, columns);
    return 0;
}

void terminal_resize(int master, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    ioctl(master, TIOCSWINSZ, &size);
}
