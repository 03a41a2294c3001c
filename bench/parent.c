#include "parent.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void drain(int out_fd, int err_fd, char *out, size_t size)
{
    char bytes[65536];
    size_t kept = 0;
    struct pollfd set[2] = {{.fd = out_fd, .events = POLLIN}, {.fd = err_fd, .events = POLLIN}};
    while (set[0].fd >= 0 || set[1].fd >= 0) {
        poll(set, 2, -1);
        for (int i = 0; i < 2; i++) {
            if (set[i].fd < 0 || set[i].revents == 0)
                continue;
            ssize_t got = read(set[i].fd, bytes, sizeof bytes);
            if (got <= 0)
                set[i].fd = -1;
            else if (i == 0 && out != NULL && kept + 1 < size) {
                size_t take = (size_t)got < size - 1 - kept ? (size_t)got : size - 1 - kept;
                memcpy(out + kept, bytes, take);
                kept += take;
            }
        }
    }
    if (out != NULL)
        out[kept] = '\0';
}

double spawn_measure(char *const argv[], char *out, size_t size)
{
    int to[2], err[2], status = -1;
    pid_t pid;
    double begun = now_us();
    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    int failed = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    close(to[1]);
    close(err[1]);
    if (failed == 0) {
        drain(to[0], err[0], out, size);
        waitpid(pid, &status, 0);
    }
    close(to[0]);
    close(err[0]);
    posix_spawn_file_actions_destroy(&actions);
    double taken = now_us() - begun;
    return failed == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? taken : -1;
}
