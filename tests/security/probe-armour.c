/* What a task can try on the runner, and what the host's root finds in it. Static, and mounted into containers.
 *
 *     probe-armour calls            every call that the filter refuses: "NAME refused", "NAME reached" a line
 *     probe-armour process          every way to look into PID 1, likewise
 *     probe-armour signals          all signals to PID 1 by every call that sends them, and a flood
 *     probe-armour connects PATH N  connections with forged frames to a socket
 *     probe-armour descriptors      those that it was started with
 *     probe-armour search PID WORD...   on the host: which words are in the memory of a process (a line for each)
 *
 * Arguments are such that the kernel, asked by an unprivileged process, would say something else than the filter does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)(uintptr_t)8)

/* --- system calls --------------------------------------------------------------------------------------- */

static long affinity(void)
{
    unsigned long mask[16] = {0};
    long size = syscall(SYS_sched_getaffinity, 1, sizeof mask, mask);
    return size < 0 ? 0 : syscall(SYS_sched_setaffinity, 1, size, mask);
}

static long attributes(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t times[3];
    } attr = {.size = 48};
    return syscall(SYS_sched_setattr, 1, &attr, 0);
}

static long scheduler(int call)
{
    int priority = 0;
    return call == SYS_sched_setscheduler ? syscall(call, 1, SCHED_OTHER, &priority) : syscall(call, 1, &priority);
}

/* Root of a user namespace of its own, where that can be had: then mounts are the filter's business alone. */
static long as_root(long number, const void *a, const void *b, long c)
{
    (void)!unshare(CLONE_NEWUSER | CLONE_NEWNS);
    return syscall(number, a, b, c, 0, 0);
}

static long old_entry(void)
{
#if defined(__x86_64__)
    long result = 20; /* getpid() of i386 */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    return result;
#else
    return 0;
#endif
}

static long limits(void)
{
    struct rlimit old;
    return syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, NULL, &old);
}

static long a_listener(void)
{
    return syscall(SYS_seccomp, 1, 8, BAD);
}

/* One line a probe: name, errno of the filter, the call. */
#define CALLS                                                                                                          \
    P("prlimit64 of PID 1", EPERM, limits())                                                                           \
    P("sched_setaffinity of PID 1", EPERM, affinity())                                                                 \
    P("sched_setscheduler of PID 1", EPERM, scheduler(SYS_sched_setscheduler))                                         \
    P("sched_setparam of PID 1", EPERM, scheduler(SYS_sched_setparam))                                                 \
    P("sched_setattr of PID 1", EPERM, attributes())                                                                   \
    P("setpriority of PID 1", EPERM, setpriority(PRIO_PROCESS, 1, 0))                                                  \
    P("setpriority of a group", EPERM, setpriority(PRIO_PGRP, 0, 0))                                                   \
    P("setpriority of a user", EPERM, setpriority(PRIO_USER, 0, 0))                                                    \
    P("ioprio_set of PID 1", EPERM, syscall(SYS_ioprio_set, 1, 1, 0))                                                  \
    P("ioprio_set of a group", EPERM, syscall(SYS_ioprio_set, 2, 0, 0))                                                \
    P("ioprio_set of a user", EPERM, syscall(SYS_ioprio_set, 3, getuid(), 0))                                          \
    P("migrate_pages of PID 1", EPERM, syscall(SYS_migrate_pages, 1, 1L << 30, BAD, BAD))                              \
    P("move_pages of PID 1", EPERM, syscall(SYS_move_pages, 1, 0, NULL, NULL, NULL, 0x100))                            \
    P("mmap of huge pages", ENOMEM, syscall(SYS_mmap, 0, 4096, 3, 0x40022 | 1 << 26, -1, 0))                           \
    P("shmget of huge pages", ENOMEM, syscall(SYS_shmget, 0, 4096, 07600 | 1 << 26))                                   \
    P("memfd_create of huge pages", ENOSYS, syscall(SYS_memfd_create, "x", 4 | 1 << 26))                               \
    P("AF_PACKET", EAFNOSUPPORT, socket(AF_PACKET, SOCK_RAW, 0))                                                       \
    P("NETLINK_SOCK_DIAG", EPROTONOSUPPORT, socket(AF_NETLINK, SOCK_RAW, 4))                                           \
    P("NETLINK_GENERIC", EPROTONOSUPPORT, socket(AF_NETLINK, SOCK_RAW, 16))                                            \
    P("NETLINK_KOBJECT_UEVENT", EPROTONOSUPPORT, socket(AF_NETLINK, SOCK_RAW, 15))                                     \
    P("a raw protocol", EPROTONOSUPPORT, socket(AF_INET, SOCK_RAW, 255))                                               \
    P("socketpair of AF_INET", EAFNOSUPPORT, socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}))                         \
    P("clone of a user namespace", EPERM, syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0))          \
    P("clone of a mount namespace", EPERM, syscall(SYS_clone, CLONE_NEWNS | CLONE_FS | SIGCHLD, 0, 0, 0, 0))           \
    P("clone3", ENOSYS, syscall(435, NULL, 0))                                                                         \
    P("unshare of a user namespace", EPERM, syscall(SYS_unshare, CLONE_NEWUSER))                                       \
    P("unshare of a mount namespace", EPERM, syscall(SYS_unshare, CLONE_NEWNS | 1))                                    \
    P("unshare of a network namespace", EPERM, syscall(SYS_unshare, CLONE_NEWNET | 1))                                 \
    P("setns", EPERM, syscall(SYS_setns, -1, 0))                                                                       \
    P("mount", EPERM, as_root(SYS_mount, "tmpfs", BAD, 0))                                                             \
    P("umount2", EPERM, as_root(SYS_umount2, "/", (void *)0x1000, 0))                                                  \
    P("pivot_root", EPERM, as_root(SYS_pivot_root, BAD, BAD, 0))                                                       \
    P("open_tree", EPERM, syscall(428, -1, "", 2))                                                                     \
    P("move_mount", EPERM, as_root(429, (void *)-1L, "", -1))                                                          \
    P("fsopen", EPERM, as_root(430, "tmpfs", NULL, 0))                                                                 \
    P("fsconfig", EPERM, syscall(431, -1, 0, 0, 0, 0))                                                                 \
    P("fsmount", EPERM, as_root(432, (void *)-1L, NULL, 0))                                                            \
    P("fspick", EPERM, as_root(433, (void *)-100L, "/", 0))                                                            \
    P("mount_setattr", EPERM, syscall(442, -1, "", 2, NULL, 0))                                                        \
    P("quotactl", EPERM, syscall(SYS_quotactl, 0x8000ff, NULL, 0, NULL))                                               \
    P("quotactl_fd", EPERM, syscall(443, -1, 0, 0, NULL))                                                              \
    P("name_to_handle_at", EOPNOTSUPP, syscall(SYS_name_to_handle_at, -100, "/", BAD, BAD, 0x80000000U))               \
    P("open_by_handle_at", EPERM, syscall(SYS_open_by_handle_at, -1, BAD, 0))                                          \
    P("fanotify_init", EPERM, syscall(SYS_fanotify_init, 0x200, 0))                                                    \
    P("io_uring_setup", ENOSYS, syscall(425, 0, NULL))                                                                 \
    P("io_uring_enter", ENOSYS, syscall(426, -1, 0, 0, 0, NULL, 0))                                                    \
    P("io_uring_register", ENOSYS, syscall(427, -1, 0, NULL, 0))                                                       \
    P("keyctl", EPERM, syscall(SYS_keyctl, 0, -3, 0, 0, 0))                                                            \
    P("add_key", EPERM, syscall(SYS_add_key, BAD, BAD, NULL, 0, 0))                                                    \
    P("request_key", EPERM, syscall(SYS_request_key, BAD, BAD, NULL, 0))                                               \
    P("userfaultfd", EPERM, syscall(SYS_userfaultfd, 1))                                                               \
    P("bpf", EPERM, syscall(SYS_bpf, 0, BAD, 8192))                                                                    \
    P("perf_event_open", EPERM, syscall(SYS_perf_event_open, NULL, 0, 0, -1, 0x100))                                   \
    P("memfd_secret", ENOSYS, syscall(447, 0x40))                                                                      \
    P("lookup_dcookie", EPERM, syscall(SYS_lookup_dcookie, 0, NULL, 0))                                                \
    P("seccomp with a listener", EINVAL, a_listener())                                                                 \
    P("32-bit entry", ENOSYS, old_entry())

/* --- PID 1's process -------------------------------------------------------------------------------------- */

static long file(const char *name, int flags)
{
    char path[64], byte;
    snprintf(path, sizeof path, "/proc/1/%s", name);
    int fd = open(path, flags);
    if (fd < 0 || (flags & O_DIRECTORY) != 0 || flags == O_WRONLY)
        return fd;
    return read(fd, &byte, 1) < 0 && errno != EIO ? -1 : 0; /* EIO: nothing is mapped at 0 */
}

static long link_of(const char *name)
{
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/1/%s", name);
    return readlink(path, target, sizeof target);
}

static long vm_read(void)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)(uintptr_t)0x400000, 1};
    long got = syscall(SYS_process_vm_readv, 1, &here, 1, &there, 1, 0);
    return got < 0 && errno == EFAULT ? 0 : got;
}

static long vm_write(void)
{
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {(void *)(uintptr_t)8, 1};
    long got = syscall(SYS_process_vm_writev, 1, &here, 1, &there, 1, 0);
    return got < 0 && errno == EFAULT ? 0 : got;
}

static long take_descriptor(void)
{
    int process = (int)syscall(434, 1, 0);
    return syscall(438, process, 0, 0);
}

static long robust_list(void)
{
    void *head;
    size_t size;
    return syscall(SYS_get_robust_list, 1, &head, &size);
}

#define PROCESS                                                                                                        \
    P("ptrace seize", EPERM, ptrace(PTRACE_SEIZE, 1, NULL, NULL))                                                      \
    P("process_vm_readv", EPERM, vm_read())                                                                            \
    P("process_vm_writev", EPERM, vm_write())                                                                          \
    P("pidfd_getfd", EPERM, take_descriptor())                                                                         \
    P("kcmp", EPERM, syscall(SYS_kcmp, getpid(), 1, 1, 0, 0))                                                          \
    P("get_robust_list", EPERM, robust_list())                                                                         \
    P("mem to read", EACCES, file("mem", O_RDONLY))                                                                    \
    P("mem to write", EACCES, file("mem", O_WRONLY))                                                                   \
    P("environ", EACCES, file("environ", O_RDONLY))                                                                    \
    P("auxv", EACCES, file("auxv", O_RDONLY))                                                                          \
    P("maps", EACCES, file("maps", O_RDONLY))                                                                          \
    P("smaps", EACCES, file("smaps", O_RDONLY))                                                                        \
    P("pagemap", EACCES, file("pagemap", O_RDONLY))                                                                    \
    P("personality", EACCES, file("personality", O_RDONLY))                                                            \
    P("io", EACCES, file("io", O_RDONLY))                                                                              \
    P("clear_refs", EACCES, file("clear_refs", O_WRONLY))                                                              \
    P("oom_score_adj", EACCES, file("oom_score_adj", O_WRONLY))                                                        \
    P("coredump_filter", EACCES, file("coredump_filter", O_WRONLY))                                                    \
    P("fd", EACCES, file("fd", O_RDONLY | O_DIRECTORY))                                                                \
    P("map_files", EACCES, file("map_files", O_RDONLY | O_DIRECTORY))                                                  \
    P("exe", EACCES, link_of("exe"))                                                                                   \
    P("cwd", EACCES, link_of("cwd"))                                                                                   \
    P("root", EACCES, link_of("root"))                                                                                 \
    P("stdout", EACCES, file("fd/1", O_WRONLY))                                                                        \
    P("namespaces", EACCES, link_of("ns/net"))

static void tell(const char *name, int refusal, long result, int error)
{
    int refused = result < 0 && (error == refusal || (refusal == EACCES && error == EPERM));
    printf("%s\t%s\t%d\n", name, refused ? "refused" : "reached", result < 0 ? error : 0);
}

/* Each in a process of its own, for some would change it. */
#define P(name, refusal, call)                                                                                         \
    {                                                                                                                  \
        fflush(stdout);                                                                                                \
        pid_t pid = fork();                                                                                            \
        if (pid == 0) {                                                                                                \
            errno = 0;                                                                                                 \
            long result = (call);                                                                                      \
            tell(name, refusal, result, errno);                                                                        \
            fflush(stdout);                                                                                            \
            _exit(0);                                                                                                  \
        }                                                                                                              \
        int status;                                                                                                    \
        if (waitpid(pid, &status, 0) < 0 || status != 0)                                                               \
            printf("%s\tdied\t%d\n", name, status);                                                                    \
    }

static int calls(void)
{
    CALLS
    return 0;
}

static int process(void)
{
    PROCESS
    return 0;
}

/* --- signals, connections, descriptors --------------------------------------------------------------------- */

static int signals(void)
{
    int process = (int)syscall(434, 1, 0);
    for (int round = 0; round < 200; round++) {
        for (int number = 1; number <= 64; number++) {
            /* Forged: as of a timer, or of the kernel. */
            siginfo_t info = {.si_signo = number, .si_code = round % 2 == 0 ? SI_QUEUE : SI_TIMER};
            kill(1, number);
            syscall(SYS_tgkill, 1, 1, number);
            syscall(SYS_tkill, 1, number);
            syscall(SYS_rt_sigqueueinfo, 1, number, &info);
            syscall(SYS_rt_tgsigqueueinfo, 1, 1, number, &info);
            syscall(424, process, number, NULL, 0);
        }
    }
    return kill(1, 0) == 0 ? 0 : 1;
}

static int connects(const char *path, int count)
{
    /* What a runner says first: HELLO, and what ends a task: EXIT. Whatever the version, nobody is to read it. */
    static const unsigned char forged[256] = {2, 0, 0, 0, 1, 0, 0, 0, 16};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = 0;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    for (int i = 0; i < count; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
            made++;
            (void)!send(fd, forged, sizeof forged, MSG_NOSIGNAL);
        } else if (errno == EAGAIN) { /* the backlog is full */
            usleep(1000);
        }
        close(fd);
    }
    printf("%d\n", made);
    return 0;
}

static int descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
            printf("%s\n", entry->d_name);
    return 0;
}

/* --- the host's look ----------------------------------------------------------------------------------------- */

static int search(const char *pid, char *words[])
{
    static char block[4 * 1024 * 1024];
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%s/maps", pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    int mem = open(path, O_RDONLY | O_CLOEXEC);
    unsigned long long from, to, seen = 0;
    if (maps == NULL || mem < 0)
        return 2;
    while (fgets(line, sizeof line, maps) != NULL) {
        if (sscanf(line, "%llx-%llx r", &from, &to) != 2)
            continue;
        size_t size = to - from < sizeof block ? (size_t)(to - from) : sizeof block; /* the runner has none larger */
        ssize_t got = pread(mem, block, size, (off_t)from);
        if (got < 0)
            continue; /* vvar */
        seen += (unsigned long long)got;
        for (char **word = words; *word != NULL; word++)
            if (memmem(block, (size_t)got, *word, strlen(*word)) != NULL)
                printf("%s\n", *word);
    }
    fclose(maps);
    close(mem);
    return seen > 100000 ? 0 : 2;
}

int main(int argc, char *argv[])
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "calls") == 0)
        return calls();
    if (strcmp(what, "process") == 0)
        return process();
    if (strcmp(what, "signals") == 0)
        return signals();
    if (strcmp(what, "connects") == 0 && argc == 4)
        return connects(argv[2], atoi(argv[3]));
    if (strcmp(what, "descriptors") == 0)
        return descriptors();
    if (strcmp(what, "search") == 0 && argc > 3)
        return search(argv[2], argv + 3);
    fprintf(stderr, "probe-armour: see the comment at its beginning\n");
    return 2;
}
