/* The leak canary: warmpool's own hostile task, and the one after it that looks whether it meets anything. Both are
 * this very program, run as tasks, so that any image has them:
 *
 *     runner --canary leave    leaves something of every kind that outlives a process, and processes; exits 0
 *     runner --canary look     prints what it meets, a line each; exits 0: nothing, 1: something
 *
 * Which mounts there are, PID 1's arguments tell. Looking shares no code with reset and receipt, which it is to
 * check. What cannot be left is said on stderr, exit 3: a canary that left nothing would find nothing. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "runner/runner.h"

#define KEY           0x57436e79 /* of the System V objects */
#define PORT          57436
#define ABSTRACT_NAME "\0warmpool-canary"
#define DEPTH         64
#define FILES         26 /* a letter each */
#define MOUNTS_MAX    RECEIPT_MOUNTS_MAX

struct mounts {
    char text[4096];
    const char *path[MOUNTS_MAX];
    unsigned count;
};

static int failures;

static void say(int fd, const char *text, const char *more)
{
    ssize_t written = write(fd, text, strlen(text)) + write(fd, more, strlen(more));
    (void)written;
}

static void expect(bool done, const char *what)
{
    if (done)
        return;
    say(2, "could not leave: ", what);
    say(2, "\n", "");
    failures++;
}

static void met(const char *what, const char *which)
{
    say(1, what, " ");
    say(1, which, "\n");
    failures++;
}

/* PID 1's arguments that begin with a slash, without its own name and the socket's. */
static bool read_mounts(struct mounts *mounts)
{
    int fd = open("/proc/1/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, mounts->text, sizeof mounts->text - 1);
    if (size <= 0)
        return false;
    mounts->text[size] = '\0';
    const char *at = mounts->text + strlen(mounts->text) + 1;
    for (; at < mounts->text + size; at += strlen(at) + 1) {
        if (strcmp(at, "--socket") == 0)
            at += strlen(at) + 1;
        else if (*at == '/' && mounts->count < MOUNTS_MAX)
            mounts->path[mounts->count++] = at;
    }
    return mounts->count > 0;
}

/* --- leaving ----------------------------------------------------------------------------------------------------- */

static bool write_file(int directory, const char *name, mode_t mode)
{
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_CLOEXEC, mode);
    bool done = fd >= 0 && write(fd, name, strlen(name)) > 0;
    close(fd);
    return done;
}

static bool leave_tree(int root)
{
    int at = dup(root);
    for (int i = 0; i < DEPTH && at >= 0; i++) {
        int next = mkdirat(at, "d", 0700) < 0 ? -1 : openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        write_file(at, ".hidden", 0600);
        if (i == DEPTH - 1)
            fchmod(at, 0); /* the last but one can be entered by nobody now */
        close(at);
        at = next;
    }
    close(at);
    return at >= 0;
}

static void leave_files(const char *mount)
{
    int root = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (strcmp(mount, "/dev/mqueue") == 0) { /* a queue is a file there, and nothing else can be */
        int fd = openat(root, "canary", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        expect(fd >= 0, mount);
        return;
    }
    bool done = root >= 0;
    for (int i = 0; i < FILES && done; i++) {
        char name[] = {'c', 'a', 'n', 'a', 'r', 'y', '\n', (char)('A' + i), '\0'};
        done = write_file(root, name, i % 2 == 0 ? 0 : 0600);
    }
    done = done && symlinkat("/", root, "link") == 0 && mkfifoat(root, "fifo", 0600) == 0 && leave_tree(root) &&
           mkdirat(root, "closed", 0) == 0;
    expect(done, mount);
}

static void leave_ipc(void)
{
    expect(shmget(KEY, 4096, IPC_CREAT) >= 0, "System V shared memory"); /* of mode 000 */
    expect(semget(KEY, 1, IPC_CREAT) >= 0, "a System V semaphore");
    expect(msgget(KEY, IPC_CREAT) >= 0, "a System V message queue");
}

/* Outlives its parent, its session and every signal but one, and holds sockets. */
static void leave_daemon(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    memcpy(name.sun_path, ABSTRACT_NAME, sizeof ABSTRACT_NAME - 1);
    int local = socket(AF_UNIX, SOCK_STREAM, 0), listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + sizeof ABSTRACT_NAME - 1;
    expect(bind(local, (struct sockaddr *)&name, size) == 0 && listen(local, 1) == 0, "an abstract socket");
    expect(bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 1) == 0, "a listener");
    pid_t child = fork();
    expect(child >= 0, "a process");
    if (child != 0)
        return;
    setsid();
    if (fork() != 0)
        _exit(0);
    for (int number = 1; number < _NSIG; number++)
        signal(number, SIG_IGN);
    for (;;)
        pause();
}

static int leave(const struct mounts *mounts)
{
    for (unsigned i = 0; i < mounts->count; i++)
        leave_files(mounts->path[i]);
    leave_ipc();
    leave_daemon();
    return failures > 0 ? 3 : 0;
}

/* --- looking -------------------------------------------------------------------------------------------------------
 */

struct entry { /* of getdents64() */
    uint64_t inode, offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

static bool is_expected(const char *name, bool numbers_only)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return true;
    return numbers_only && (name[0] < '0' || name[0] > '9' || strcmp(name, "1") == 0 || atoi(name) == getpid());
}

static void look_into(const char *path, bool numbers_only)
{
    _Alignas(8) char names[4096];
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        met("unreadable", path);
    for (long got; (got = syscall(SYS_getdents64, directory, names, sizeof names)) > 0;) {
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(const void *)(names + at);
            at += entry->size;
            if (!is_expected(entry->name, numbers_only))
                met(path, entry->name);
        }
    }
    close(directory);
}

static void look_at_ipc(void)
{
    if (shmget(KEY, 0, 0) >= 0 || errno != ENOENT)
        met("ipc", "shared memory");
    if (semget(KEY, 0, 0) >= 0 || errno != ENOENT)
        met("ipc", "semaphore");
    if (msgget(KEY, 0) >= 0 || errno != ENOENT)
        met("ipc", "message queue");
}

static void look_at_sockets(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, ABSTRACT_NAME, sizeof ABSTRACT_NAME - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path) + sizeof ABSTRACT_NAME - 1) == 0 ||
        errno != ECONNREFUSED)
        met("socket", "abstract");
    struct sockaddr_in listener = {
        .sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&listener, sizeof listener) == 0)
        met("socket", "listening");
}

static int look(const struct mounts *mounts)
{
    for (unsigned i = 0; i < mounts->count; i++)
        look_into(mounts->path[i], false);
    look_into("/proc", true);
    look_at_ipc();
    look_at_sockets();
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int number = 1; number < _NSIG; number++)
        if (sigismember(&blocked, number) == 1)
            met("signal", "blocked");
    if (umask(0) != 022)
        met("umask", "changed");
    if (getpriority(PRIO_PROCESS, 0) != 0)
        met("priority", "changed");
    return failures > 0 ? 1 : 0;
}

int canary(const char *verb)
{
    static struct mounts mounts;
    if (!read_mounts(&mounts)) {
        say(2, "PID 1 does not tell which mounts there are\n", "");
        return 3;
    }
    if (strcmp(verb, "leave") == 0)
        return leave(&mounts);
    if (strcmp(verb, "look") == 0)
        return look(&mounts);
    say(2, "usage: runner --canary leave|look\n", "");
    return 2;
}
