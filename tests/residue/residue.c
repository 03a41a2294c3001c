/* Leaves one kind of residue behind, or looks for it: `residue leave KIND`, `residue look KIND` (0: nothing there, 1:
 * there). Static, and mounted into containers by the tests. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY    4711
#define LEVELS 20000
#define MANY   20000

static int done(int result)
{
    if (result < 0)
        perror("residue");
    return result < 0 ? 2 : 0;
}

static int found(int result)
{
    return result < 0 ? 0 : 1;
}

static int leave_shm(void)
{
    int id = shmget(KEY, 65536, IPC_CREAT | 0000); /* mode 000: SHM_STAT refuses it */
    return done(id);
}

static int look_shm(void)
{
    return found(shmget(KEY, 0, 0));
}

static int leave_sem(void)
{
    return done(semget(KEY, 3, IPC_CREAT | 0600));
}

static int look_sem(void)
{
    return found(semget(KEY, 0, 0));
}

static int leave_msg(void)
{
    struct {
        long type;
        char text[8];
    } message = {1, "secret"};
    int id = msgget(KEY, IPC_CREAT | 0600);
    return done(id < 0 ? id : msgsnd(id, &message, sizeof message.text, 0));
}

static int look_msg(void)
{
    return found(msgget(KEY, 0));
}

static int leave_mqueue(void)
{
    return done(mq_open("/residue", O_CREAT | O_RDWR, 0600, NULL));
}

static int look_mqueue(void)
{
    return found(mq_open("/residue", O_RDONLY));
}

static int leave_posix_shm(void)
{
    int fd = shm_open("/residue", O_CREAT | O_RDWR, 0600);
    return done(fd < 0 ? fd : ftruncate(fd, 65536));
}

static int look_posix_shm(void)
{
    return found(shm_open("/residue", O_RDONLY, 0));
}

/* Deeper than any path is long, and nobody may enter the bottom. */
static int leave_deep(void)
{
    if (chdir("/workspace") < 0)
        return done(-1);
    for (int i = 0; i < LEVELS; i++)
        if (mkdir("d", 0700) < 0 || chdir("d") < 0)
            return done(-1);
    return done(mkdir("closed", 0000));
}

static int look_deep(void)
{
    return found(access("/workspace/d", F_OK));
}

static int leave_many(void)
{
    char name[64];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "/workspace/line\nbreak %d", i);
        if (mknod(name, i % 2 ? S_IFREG | 0000 : S_IFIFO | 0600, 0) < 0)
            return errno == ENOSPC ? 0 : done(-1);
    }
    return 0;
}

static int look_many(void)
{
    return found(access("/workspace/line\nbreak 0", F_OK));
}

static int leave_closed(void)
{
    if (mkdir("/tmp/closed", 0700) < 0 || mkdir("/tmp/closed/inner", 0700) < 0 ||
        symlink("/etc/passwd", "/tmp/closed/inner/link") < 0)
        return done(-1);
    return done(chmod("/tmp/closed/inner", 0000) < 0 ? -1 : chmod("/tmp/closed", 0000));
}

static int look_closed(void)
{
    return found(access("/tmp/closed", F_OK));
}

/* Double-forked, in sessions of their own, deaf to every signal that can be ignored; one of them stopped. */
static int leave_daemons(void)
{
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            setsid();
            if (fork() > 0)
                _exit(0);
            for (int number = 1; number < 32; number++)
                signal(number, SIG_IGN);
            for (int fd = 0; fd < 3; fd++)
                close(fd);
            if (i == 0)
                raise(SIGSTOP);
            for (;;)
                sleep(1000);
        }
        waitpid(pid, NULL, 0);
    }
    return 0;
}

static int look_daemons(void)
{
    int alive = 0;
    for (int pid = 2; pid < 4096; pid++)
        alive += pid != getpid() && kill(pid, 0) == 0;
    return alive > 0;
}

static int hold_socket(int family, const void *address, socklen_t size)
{
    pid_t pid = fork();
    if (pid > 0) {
        usleep(50000);
        return 0;
    }
    setsid();
    int fd = socket(family, SOCK_STREAM, 0);
    if (bind(fd, address, size) < 0 || listen(fd, 1) < 0)
        _exit(2);
    for (;;)
        sleep(1000);
}

static int leave_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(4711)};
    return hold_socket(AF_INET, &address, sizeof address);
}

static int look_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(4711)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return found(connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address));
}

static int leave_abstract(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0residue"};
    return hold_socket(AF_UNIX, &address, sizeof address);
}

static int look_abstract(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0residue"};
    return found(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address));
}

static const struct {
    const char *kind;
    int (*leave)(void), (*look)(void);
} kinds[] = {
    {"shm", leave_shm, look_shm},
    {"sem", leave_sem, look_sem},
    {"msg", leave_msg, look_msg},
    {"mqueue", leave_mqueue, look_mqueue},
    {"posix-shm", leave_posix_shm, look_posix_shm},
    {"deep", leave_deep, look_deep},
    {"many", leave_many, look_many},
    {"closed", leave_closed, look_closed},
    {"daemons", leave_daemons, look_daemons},
    {"listener", leave_listener, look_listener},
    {"abstract", leave_abstract, look_abstract},
};

int main(int argc, char *argv[])
{
    for (size_t i = 0; argc == 3 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(argv[2], kinds[i].kind) == 0)
            return strcmp(argv[1], "leave") == 0 ? kinds[i].leave() : kinds[i].look();
    fprintf(stderr, "usage: residue leave|look KIND\n");
    return 2;
}
