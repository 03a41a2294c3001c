/* Cleanup between tasks, in this order: processes, which could make more of the rest; IPC objects; files. Then count.
 */
#include <errno.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runner/runner.h"
#include "wire/weaken.h"

#define RESET_LIMIT_US 900000U
#define WIPE_PASSES    2
#define STACK_BYTES    (24U * 1024U) /* deeper than any call goes: tests/runner measures it */

uint64_t kill_everything(struct runner *runner, uint64_t deadline_us)
{
    uint64_t reaped = 0;
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid > 0) {
            reaped++;
            continue;
        }
        if (pid < 0 && errno == ECHILD) { /* every process of the namespace would be a descendant */
            runner->children = false;
            return reaped;
        }
        if (now_us() >= deadline_us)
            return reaped;
        kill(-1, SIGKILL);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
}

static uint32_t parse_column(const char *line, unsigned column)
{
    for (;;) {
        line += strspn(line, " ");
        if (column-- == 0)
            break;
        line += strcspn(line, " \n");
    }
    int64_t value = 0;
    for (; *line >= '0' && *line <= '9'; line++)
        value = value * 10 + (*line - '0');
    return (uint32_t)value;
}

static void remove_ipc(unsigned kind, int id)
{
    if (kind == 0)
        shmctl(id, IPC_RMID, NULL);
    else if (kind == 1)
        semctl(id, 0, IPC_RMID);
    else
        msgctl(id, IPC_RMID, NULL);
}

/* /proc/sysvipc names objects of mode 000 too, which SHM_STAT does not. */
static uint64_t remove_ipc_objects(struct runner *runner, unsigned kind, uint64_t deadline_us)
{
    uint64_t removed = 0;
    for (;;) {
        char text[8192];
        if (read_again(runner->sysvipc_fd[kind], text, sizeof text) <= 0)
            return removed;
        uint64_t here = 0;
        char *line = strchr(text, '\n'); /* past the header */
        while (line != NULL && line[1] != '\0') {
            char *end = strchr(line + 1, '\n');
            if (end == NULL)
                break; /* cut off: the next round reads it */
            remove_ipc(kind, (int)parse_column(line + 1, 1));
            here++;
            line = end;
        }
        removed += here;
        if (here == 0 || now_us() >= deadline_us)
            return removed;
    }
}

/* What calls that have returned left on the stack: a task's path, names of its files. */
__attribute__((noinline)) static void forget_stack(void)
{
    uint8_t below[STACK_BYTES];
    forget_bytes(below, sizeof below);
}

/* Nothing of the last task stays in this process, which nobody but the host's root can read. */
static void forget_task(struct runner *runner)
{
    stream_clear(&runner->task.out);
    stream_clear(&runner->task.err);
    forget_bytes(runner->stdin_buffer, runner->stdin_touched);
    runner->stdin_touched = 0;
    conn_wipe(runner);
    files_wipe(runner);
    forget_stack();
}

void reset(struct runner *runner, struct receipt *receipt)
{
    uint64_t begun = now_us(), deadline = begun + RESET_LIMIT_US;
    uint64_t removed = 0;
    bool kills = !weakened(NULL, "kill"), removes = !weakened(NULL, "sysv"), wipes = !weakened(NULL, "wipe");
    if (runner->children && kills)
        kill(-1, SIGKILL);
    uint64_t killed = kills ? kill_everything(runner, deadline) : 0;
    kept_close(runner);
    for (unsigned kind = 0; kind < 3 && removes; kind++)
        removed += remove_ipc_objects(runner, kind, deadline);
    for (uint32_t i = 0; i < runner->mount_count && wipes; i++)
        if (runner->mount_fds[i] >= 0)
            removed += wipe_directory(runner->mount_fds[i], deadline);
    umask(022);
    residue_count(runner, receipt);
    receipt->killed = killed + runner->task.exit.killed;
    receipt->removed = removed;
    receipt->reset_us = now_us() - begun;
    char difference[128];
    if (weakened(NULL, "receipt") || !receipt_differs(&runner->baseline, receipt, difference, sizeof difference))
        runner->dirty = false;
    figures_read(&runner->figures);
    runner->figures_fresh = true;
    forget_task(runner);
}
