/* Who is heard on a runner's socket: the one process, not another, and not a later one of the same pid. Needs root, for
 * a process is given a pid here. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "transport/socket.h"

struct world {
    uv_loop_t loop;
    char directory[64];
    int directory_fd;
    struct socket_listener *listener;
    unsigned accepted, refused;
};

static void on_accepted(void *user, const struct carrier_ops *ops, void *carrier)
{
    struct world *world = user;
    world->accepted++;
    ops->close(carrier);
}

static void on_refused(void *user, int64_t pid)
{
    struct world *world = user;
    (void)pid;
    world->refused++;
}

static int set_up(void **state)
{
    static struct world world;
    struct error error = ERROR_INIT;
    world = (struct world){.directory = "/tmp/wp-socket-XXXXXX"};
    assert_int_equal(uv_loop_init(&world.loop), 0);
    assert_non_null(mkdtemp(world.directory));
    world.directory_fd = open(world.directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    world.listener =
        socket_listener_new(&world.loop, world.directory_fd, "sock", on_accepted, on_refused, &world, &error);
    assert_non_null(world.listener);
    *state = &world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    socket_listener_free(world->listener);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    unlinkat(world->directory_fd, "sock", 0);
    close(world->directory_fd);
    rmdir(world->directory);
    return 0;
}

/* A process that connects once it is told to, and then stays; with `pid` it gets that one. -1 with errno. */
static pid_t connecting(const struct world *world, int go[2], pid_t pid)
{
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    if (pid != 0) {
        arguments.set_tid = (uint64_t)(uintptr_t)&pid;
        arguments.set_tid_size = 1;
    }
    assert_int_equal(pipe(go), 0);
    pid_t child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child != 0) {
        close(go[0]);
        return child;
    }
    char byte;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", world->directory);
    close(go[1]);
    if (read(go[0], &byte, 1) != 1)
        _exit(1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        _exit(2);
    while (read(go[0], &byte, 1) == 1) /* until the test lets go */
        ;
    _exit(0);
}

static void say_go(int go[2])
{
    assert_int_equal(write(go[1], "!", 1), 1);
}

static void end(pid_t pid, int go[2])
{
    close(go[1]);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Turns the loop until somebody was accepted or refused, 2 s at most. */
static void turn(struct world *world)
{
    for (int i = 0; i < 2000 && world->accepted + world->refused == 0; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
}

static void listen_for(struct world *world, pid_t pid)
{
    struct error error = ERROR_INIT;
    assert_int_equal(socket_listener_start(world->listener, pid, &error), 0);
}

static void the_process_is_heard(void **state)
{
    struct world *world = *state;
    int go[2];
    pid_t pid = connecting(world, go, 0);
    listen_for(world, pid);
    say_go(go);
    turn(world);
    assert_int_equal(world->accepted, 1);
    assert_int_equal(world->refused, 0);
    end(pid, go);
}

static void another_is_not(void **state)
{
    struct world *world = *state;
    int go[2];
    pid_t pid = connecting(world, go, 0);
    listen_for(world, getpid());
    say_go(go);
    turn(world);
    assert_int_equal(world->accepted, 0);
    assert_int_equal(world->refused, 1);
    end(pid, go);
}

static void one_that_has_ended_is_not(void **state)
{
    struct world *world = *state;
    int go[2];
    pid_t pid = connecting(world, go, 0);
    listen_for(world, pid);
    say_go(go);
    usleep(100000); /* it has connected, which outlives it in the backlog */
    end(pid, go);
    turn(world);
    assert_int_equal(world->accepted, 0);
    assert_int_equal(world->refused, 1);
}

static void a_later_one_of_the_same_pid_is_not(void **state)
{
    struct world *world = *state;
    int go[2];
    pid_t pid = connecting(world, go, 0);
    listen_for(world, pid);
    end(pid, go);
    usleep(50000); /* start times are in hundredths of a second */
    pid_t later = connecting(world, go, pid);
    if (later < 0 && (errno == EPERM || errno == EEXIST))
        skip();
    assert_int_equal(later, pid);
    say_go(go);
    turn(world);
    assert_int_equal(world->accepted, 0);
    assert_int_equal(world->refused, 1);
    end(later, go);
}

static void nobody_is_when_there_was_no_process(void **state)
{
    struct world *world = *state;
    int go[2];
    pid_t pid = connecting(world, go, 0);
    end(pid, go);
    listen_for(world, pid);
    pid_t later = connecting(world, go, pid);
    if (later < 0 && (errno == EPERM || errno == EEXIST))
        skip();
    assert_int_equal(later, pid);
    say_go(go);
    turn(world);
    assert_int_equal(world->accepted, 0);
    assert_int_equal(world->refused, 1);
    end(later, go);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_process_is_heard, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_is_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_has_ended_is_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_later_one_of_the_same_pid_is_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_is_when_there_was_no_process, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
