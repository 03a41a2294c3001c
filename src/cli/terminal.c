/* The user's terminal while a task has one of its own: raw, so that every key reaches the task, and put back on every
 * way out. */
#include "cli/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before, raw;
static volatile sig_atomic_t is_raw;

void terminal_restore(void)
{
    if (!is_raw)
        return;
    is_raw = 0;
    tcsetattr(0, TCSADRAIN, &before);
}

/* Of a signal that ends us: it does so after the terminal is as it was. */
static void on_deadly(int number)
{
    if (is_raw)
        tcsetattr(0, TCSANOW, &before);
    signal(number, SIG_DFL);
    raise(number);
}

static void on_stop(int number)
{
    sigset_t stop;
    tcsetattr(0, TCSANOW, &before);
    sigemptyset(&stop);
    sigaddset(&stop, number);
    signal(number, SIG_DFL);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &stop, NULL); /* here it stops, until SIGCONT */
    signal(number, on_stop);
    tcsetattr(0, TCSANOW, &raw);
}

bool terminal_raw(void)
{
    static const int deadly[] = {SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM, SIGUSR1, SIGUSR2};
    if (!isatty(0) || tcgetattr(0, &before) < 0)
        return false;
    raw = before;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    atexit(terminal_restore);
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        signal(deadly[i], on_deadly);
    signal(SIGTSTP, on_stop);
    signal(SIGTTOU, SIG_IGN); /* putting it back from the background must not stop us */
    if (tcsetattr(0, TCSADRAIN, &raw) < 0)
        return false;
    is_raw = 1;
    return true;
}

bool terminal_size(uint16_t *rows, uint16_t *columns)
{
    struct winsize size;
    for (int fd = 0; fd <= 2; fd++) {
        if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
            continue;
        *rows = size.ws_row;
        *columns = size.ws_col;
        return true;
    }
    return false;
}
