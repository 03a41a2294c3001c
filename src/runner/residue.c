/* Counting what is left, surface by surface. The files are opened once and read again from their beginning. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "runner/runner.h"

enum { NET_SOCKSTAT, NET_SOCKSTAT6, NET_PACKET, NET_UNIX, NET_NETLINK };
static const char *const net_paths[] = {"/proc/net/sockstat", "/proc/net/sockstat6", "/proc/net/packet",
                                        "/proc/net/unix", "/proc/net/netlink"};
static const char *const sysvipc_paths[] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"};

void residue_open(struct runner *runner)
{
    for (unsigned i = 0; i < 3; i++)
        runner->sysvipc_fd[i] = open(sysvipc_paths[i], O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < sizeof net_paths / sizeof net_paths[0]; i++)
        runner->net_fds[i] = open(net_paths[i], O_RDONLY | O_CLOEXEC);
    for (uint32_t i = 0; i < runner->mount_count; i++)
        runner->mount_fds[i] = open(runner->mounts[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    runner->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    runner->self_fd_fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

ssize_t read_again(int fd, char *text, size_t size)
{
    ssize_t got = fd < 0 ? -1 : pread(fd, text, size - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    return got;
}

struct entry { /* of getdents64() */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* Entries but "." and ".."; with `numbers` those whose name is one. */
static uint64_t count_entries(int directory, bool numbers)
{
    _Alignas(8) char names[4096];
    uint64_t count = 0;
    if (directory < 0)
        return RECEIPT_UNKNOWN;
    lseek(directory, 0, SEEK_SET);
    for (;;) {
        long got = syscall(SYS_getdents64, directory, names, sizeof names);
        if (got < 0)
            return RECEIPT_UNKNOWN;
        if (got == 0)
            return count;
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(const void *)(names + at);
            at += entry->size;
            if (numbers ? entry->name[0] >= '0' && entry->name[0] <= '9'
                        : strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
                count++;
        }
    }
}

void signal_session(const struct runner *runner, pid_t session, int signal)
{
    _Alignas(8) char names[4096];
    kill(-session, signal); /* most of it is one group */
    if (runner->proc_fd < 0)
        return;
    lseek(runner->proc_fd, 0, SEEK_SET);
    for (long got; (got = syscall(SYS_getdents64, runner->proc_fd, names, sizeof names)) > 0;) {
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(const void *)(names + at);
            pid_t pid = entry->name[0] >= '0' && entry->name[0] <= '9' ? atoi(entry->name) : 0;
            at += entry->size;
            if (pid > 1 && getsid(pid) == session && getpgid(pid) != session)
                kill(pid, signal);
        }
    }
}

/* Lines after the header; counted to the end of the file however long it is. */
static uint64_t count_lines(int fd)
{
    char text[4096];
    uint64_t lines = 0;
    off_t at = 0;
    if (fd < 0)
        return RECEIPT_UNKNOWN;
    for (;;) {
        ssize_t got = pread(fd, text, sizeof text, at);
        if (got < 0)
            return RECEIPT_UNKNOWN;
        if (got == 0)
            return lines > 0 ? lines - 1 : 0;
        for (ssize_t i = 0; i < got; i++)
            lines += text[i] == '\n';
        at += got;
    }
}

/* The number after "key " in the line that begins with `line`, as in "TCP: inuse 5 orphan 0 tw 2 ...". */
static uint64_t stat_value(const char *text, const char *line, const char *key)
{
    size_t length = strlen(line);
    while (strncmp(text, line, length) != 0) {
        text = strchr(text, '\n');
        if (text == NULL)
            return 0;
        text++;
    }
    const char *end = strchr(text, '\n');
    const char *found = strstr(text, key);
    if (found == NULL || (end != NULL && found > end))
        return 0;
    uint64_t value = 0;
    for (found += strlen(key); *found >= '0' && *found <= '9'; found++)
        value = value * 10 + (uint64_t)(*found - '0');
    return value;
}

static void count_sockets(struct runner *runner, struct receipt *receipt)
{
    char four[1024], six[1024];
    bool known = read_again(runner->net_fds[NET_SOCKSTAT], four, sizeof four) > 0;
    read_again(runner->net_fds[NET_SOCKSTAT6], six, sizeof six); /* absent without IPv6 */
    uint64_t packets = count_lines(runner->net_fds[NET_PACKET]);
    uint64_t *field = receipt->field;
    field[RECEIPT_UNIX] = count_lines(runner->net_fds[NET_UNIX]);
    field[RECEIPT_NETLINK] = count_lines(runner->net_fds[NET_NETLINK]);
    if (!known) {
        field[RECEIPT_TCP] = field[RECEIPT_UDP] = field[RECEIPT_RAW] = RECEIPT_UNKNOWN;
        return;
    }
    field[RECEIPT_TCP] = stat_value(four, "TCP:", "inuse ") + stat_value(six, "TCP6:", "inuse ");
    field[RECEIPT_UDP] = stat_value(four, "UDP:", "inuse ") + stat_value(six, "UDP6:", "inuse ") +
                         stat_value(four, "UDPLITE:", "inuse ") + stat_value(six, "UDPLITE6:", "inuse ");
    field[RECEIPT_RAW] = stat_value(four, "RAW:", "inuse ") + stat_value(six, "RAW6:", "inuse ") +
                         (packets == RECEIPT_UNKNOWN ? 0 : packets);
    receipt->time_wait = stat_value(four, "TCP:", "tw ");
}

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 1099511628211U;
    return hash;
}

/* What a task could have changed about PID 1, and what its children would inherit. */
static uint64_t digest_self(void)
{
    uint64_t hash = 14695981039346656037U;
    for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
        struct rlimit limit = {0, 0};
        getrlimit(resource, &limit);
        hash = mix(hash, &limit, sizeof limit);
    }
    int nice = getpriority(PRIO_PROCESS, 0);
    long policy = syscall(SYS_sched_getscheduler, 0);
    unsigned long affinity[16] = {0};
    syscall(SYS_sched_getaffinity, 0, sizeof affinity, affinity);
    mode_t mask = umask(022);
    umask(mask);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    int domain = personality(0xffffffff);
    hash = mix(hash, &nice, sizeof nice);
    hash = mix(hash, &policy, sizeof policy);
    hash = mix(hash, affinity, sizeof affinity);
    hash = mix(hash, &mask, sizeof mask);
    hash = mix(hash, &blocked, 8);
    return mix(hash, &domain, sizeof domain);
}

static void count_mount(int directory, struct receipt_mount *mount)
{
    struct statfs status;
    *mount = (struct receipt_mount){RECEIPT_UNKNOWN, RECEIPT_UNKNOWN, RECEIPT_UNKNOWN};
    if (directory < 0)
        return;
    mount->entries = count_entries(directory, false);
    if (fstatfs(directory, &status) == 0) {
        mount->free_blocks = status.f_bfree;
        mount->free_inodes = status.f_ffree;
    }
}

void residue_count(struct runner *runner, struct receipt *receipt)
{
    memset(receipt, 0, sizeof *receipt);
    uint64_t *field = receipt->field;
    uint64_t processes = count_entries(runner->proc_fd, true);
    field[RECEIPT_PROCESSES] = processes == RECEIPT_UNKNOWN || processes == 0 ? processes : processes - 1;
    for (unsigned i = 0; i < 3; i++)
        field[RECEIPT_SYSV_SHM + i] = count_lines(runner->sysvipc_fd[i]);
    count_sockets(runner, receipt);
    field[RECEIPT_DESCRIPTORS] = count_entries(runner->self_fd_fd, false);
    field[RECEIPT_SELF] = digest_self();
    receipt->mount_count = runner->mount_count;
    for (uint32_t i = 0; i < runner->mount_count; i++)
        count_mount(runner->mount_fds[i], &receipt->mount[i]);
}
