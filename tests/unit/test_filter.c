/* The runner's system call filter, as the program that is given to the kernel: for either architecture it is read here,
 * instruction by instruction, over calls that have to be refused and their neighbours that have not. The numbers are
 * the kernel headers', written down once more, so that a slip in the filter's own table shows. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runner/filter.h"

#define X86_64  0xc000003eU
#define I386    0x40000003U
#define AARCH64 0xc00000b7U
#define ARM     0x40000028U
#define X32     0x40000000U
#define NO_CALL (-1)

#define ALLOWED   0x7fff0000U
#define GARBAGE   0xdeadbeef00000000U /* in the upper half of an int */
#define MINUS_ONE UINT32_MAX

struct program {
    struct bpf_step steps[FILTER_STEPS_MAX];
    unsigned short length;
};

static const struct arch {
    enum filter_arch arch;
    uint32_t audit;
    const char *name;
} arches[] = {{FILTER_X86_64, X86_64, "x86-64"}, {FILTER_AARCH64, AARCH64, "aarch64"}};

/* What the kernel hands to a filter: number, arch, instruction pointer (two words), six arguments. */
static uint32_t word_of(uint32_t number, uint32_t arch, const uint64_t arguments[6], uint32_t offset)
{
    assert_int_equal(offset % 4, 0);
    assert_true(offset < 64);
    if (offset < 16)
        return offset == 0 ? number : offset == 4 ? arch : 0x12345678U;
    uint64_t argument = arguments[(offset - 16) / 8];
    return (uint32_t)(offset % 8 == 0 ? argument : argument >> 32);
}

/* The errno with which a call is refused, 0 when it is allowed. Fails the test where the program is no good. */
static int answer(const struct program *program, uint32_t arch, uint32_t number, const uint64_t arguments[6])
{
    uint32_t accumulator = 0;
    for (size_t at = 0;;) {
        assert_true(at < program->length);
        const struct bpf_step *step = &program->steps[at++];
        switch (step->code) {
        case 0x20: /* ld [k] */
            accumulator = word_of(number, arch, arguments, step->value);
            break;
        case 0x54: /* and #k */
            accumulator &= step->value;
            break;
        case 0x05: /* ja k */
            at += step->value;
            break;
        case 0x15: /* jeq #k */
            at += accumulator == step->value ? step->jump_true : step->jump_false;
            break;
        case 0x35: /* jge #k */
            at += accumulator >= step->value ? step->jump_true : step->jump_false;
            break;
        case 0x06: /* ret #k */
            if (step->value == ALLOWED)
                return 0;
            assert_int_equal(step->value & 0xffff0000U, 0x00050000U); /* SECCOMP_RET_ERRNO */
            return (int)(step->value & 0xffffU);
        default:
            fail_msg("instruction %#x", step->code);
        }
    }
}

static void build(struct program *program, enum filter_arch arch)
{
    program->length = filter_build(arch, program->steps);
    assert_true(program->length > 0 && program->length <= FILTER_STEPS_MAX);
}

static const struct {
    const char *name;
    int x86_64, aarch64;
    uint64_t arguments[6];
    int refused; /* with this errno; 0: not */
} calls[] = {
    /* PID 1 */
    {"prlimit64 of 1", 302, 261, {1, 0}, EPERM},
    {"prlimit64 of 1, garbage above", 302, 261, {GARBAGE | 1}, EPERM},
    {"prlimit64 of another", 302, 261, {77}, EPERM},
    {"prlimit64 of oneself", 302, 261, {0}, 0},
    {"prlimit64 of oneself, garbage above", 302, 261, {GARBAGE}, 0},
    {"getrlimit", 97, 163, {1}, 0},
    {"sched_setaffinity of 1", 203, 122, {1}, EPERM},
    {"sched_setaffinity of 1, garbage above", 203, 122, {GARBAGE | 1}, EPERM},
    {"sched_setaffinity of a thread", 203, 122, {23}, 0},
    {"sched_setaffinity of oneself", 203, 122, {0}, 0},
    {"sched_getaffinity of 1", 204, 123, {1}, 0},
    {"sched_setscheduler of 1", 144, 119, {1}, EPERM},
    {"sched_setscheduler of oneself", 144, 119, {0}, 0},
    {"sched_setparam of 1", 142, 118, {1}, EPERM},
    {"sched_setparam of oneself", 142, 118, {0}, 0},
    {"sched_setattr of 1", 314, 274, {1}, EPERM},
    {"sched_setattr of another", 314, 274, {2}, 0},
    {"setpriority of process 1", 141, 140, {0, 1}, EPERM},
    {"setpriority of process 1, garbage above", 141, 140, {GARBAGE, GARBAGE | 1}, EPERM},
    {"setpriority of group 1", 141, 140, {1, 1}, EPERM},
    {"setpriority of a group", 141, 140, {1, 0}, EPERM},
    {"setpriority of a user", 141, 140, {2, 0}, EPERM},
    {"setpriority of a user, garbage above", 141, 140, {GARBAGE | 2, 0}, EPERM},
    {"setpriority of oneself", 141, 140, {0, 0, 10}, 0},
    {"setpriority of another, to 1", 141, 140, {0, 9, 1}, 0},
    {"getpriority of a user", 140, 141, {2, 0}, 0},
    {"ioprio_set of process 1", 251, 30, {1, 1}, EPERM},
    {"ioprio_set of a group", 251, 30, {2, 0}, EPERM},
    {"ioprio_set of a user", 251, 30, {3, 0}, EPERM},
    {"ioprio_set of oneself", 251, 30, {1, 0}, 0},
    {"ioprio_get of 1", 252, 31, {1, 1}, 0},
    {"migrate_pages of 1", 256, 238, {1}, EPERM},
    {"migrate_pages of oneself", 256, 238, {0}, 0},
    {"move_pages of 1", 279, 239, {1}, EPERM},
    {"move_pages of oneself", 279, 239, {0}, 0},
    /* the host's */
    {"mmap of huge pages", 9, 222, {0, 4096, 3, 0x40022}, ENOMEM},
    {"mmap of huge pages of 1 GiB", 9, 222, {0, 4096, 3, 0x78040022U}, ENOMEM},
    {"mmap", 9, 222, {0, 0x40000, 3, 0x22, MINUS_ONE}, 0},
    {"mmap at an address", 9, 222, {0x40000, 4096, 5, 0x100012}, 0},
    {"munmap", 11, 215, {0x40000, 0x40000, 0x40000, 0x40000}, 0},
    {"shmget of huge pages", 29, 194, {0, 4096, 05600}, ENOMEM},
    {"shmget", 29, 194, {0, 04000, 01600}, 0},
    {"memfd_create of huge pages", 319, 279, {0, 4}, ENOSYS},
    {"memfd_create of huge pages that can be sealed", 319, 279, {0, 7}, ENOSYS},
    {"memfd_create", 319, 279, {0, 3}, 0},
    {"prctl PR_SCHED_CORE", 157, 167, {62}, EINVAL},
    {"prctl PR_SCHED_CORE, garbage above", 157, 167, {GARBAGE | 62}, EINVAL},
    {"prctl PR_SET_NAME", 157, 167, {15}, 0},
    {"syslog", 103, 116, {3}, EPERM},
    /* sockets */
    {"socket UNIX", 41, 198, {1, 1, 0}, 0},
    {"socket INET", 41, 198, {2, 1, 0}, 0},
    {"socket INET TCP, flags", 41, 198, {2, 1 | 02000000 | 04000, 6}, 0},
    {"socket INET6 UDP", 41, 198, {10, 2, 17}, 0},
    {"socket INET ICMP", 41, 198, {2, 2, 1}, 0},
    {"socket INET6 ICMPv6", 41, 198, {10, 2, 58}, 0},
    {"socket NETLINK ROUTE", 41, 198, {16, 3, 0}, 0},
    {"socket NETLINK ROUTE, garbage above", 41, 198, {GARBAGE | 16, 3, GARBAGE}, 0},
    {"socket ALG", 41, 198, {38, 5, 0}, EAFNOSUPPORT},
    {"socket ALG, garbage above", 41, 198, {GARBAGE | 38, 5, 0}, EAFNOSUPPORT},
    {"socket VSOCK", 41, 198, {40, 1, 0}, EAFNOSUPPORT},
    {"socket PACKET", 41, 198, {17, 3, 0}, EAFNOSUPPORT},
    {"socket X25", 41, 198, {9, 5, 0}, EAFNOSUPPORT},
    {"socket CAN", 41, 198, {29, 3, 1}, EAFNOSUPPORT},
    {"socket TIPC", 41, 198, {30, 5, 0}, EAFNOSUPPORT},
    {"socket BLUETOOTH", 41, 198, {31, 1, 0}, EAFNOSUPPORT},
    {"socket RDS", 41, 198, {21, 5, 0}, EAFNOSUPPORT},
    {"socket KCM", 41, 198, {41, 5, 0}, EAFNOSUPPORT},
    {"socket SMC", 41, 198, {43, 1, 0}, EAFNOSUPPORT},
    {"socket XDP", 41, 198, {44, 3, 0}, EAFNOSUPPORT},
    {"socket of no family", 41, 198, {0, 1, 0}, EAFNOSUPPORT},
    {"socket of a family to come", 41, 198, {4711, 1, 0}, EAFNOSUPPORT},
    {"socket NETLINK SOCK_DIAG", 41, 198, {16, 3, 4}, EPROTONOSUPPORT},
    {"socket NETLINK XFRM", 41, 198, {16, 3, 6}, EPROTONOSUPPORT},
    {"socket NETLINK AUDIT", 41, 198, {16, 3, 9}, EPROTONOSUPPORT},
    {"socket NETLINK NETFILTER", 41, 198, {16, 3, 12}, EPROTONOSUPPORT},
    {"socket NETLINK uevents", 41, 198, {16, 2, 15}, EPROTONOSUPPORT},
    {"socket NETLINK GENERIC", 41, 198, {16, 3, 16}, EPROTONOSUPPORT},
    {"socket NETLINK CRYPTO", 41, 198, {16, 3, 21}, EPROTONOSUPPORT},
    {"socket INET SCTP", 41, 198, {2, 1, 132}, EPROTONOSUPPORT},
    {"socket INET6 L2TP", 41, 198, {10, 2, 115}, EPROTONOSUPPORT},
    {"socket INET MPTCP", 41, 198, {2, 1, 262}, EPROTONOSUPPORT},
    {"socket INET, any raw protocol", 41, 198, {2, 3, 255}, EPROTONOSUPPORT},
    {"socket INET DCCP by its type", 41, 198, {2, 6, 0}, ESOCKTNOSUPPORT},
    {"socket INET SEQPACKET, flags", 41, 198, {2, 5 | 02000000, 0}, ESOCKTNOSUPPORT},
    {"socket UNIX SEQPACKET", 41, 198, {1, 5, 0}, 0},
    {"socketpair UNIX", 53, 199, {1, 1, 0}, 0},
    {"socketpair TIPC", 53, 199, {30, 5, 0}, EAFNOSUPPORT},
    {"connect", 42, 203, {38, 38, 38}, 0},
    /* namespaces */
    {"clone of a thread", 56, 220, {0x3d0f00}, 0},
    {"clone as fork does", 56, 220, {0x1200011}, 0},
    {"clone as vfork does", 56, 220, {0x4111}, 0},
    {"clone of a user namespace", 56, 220, {0x10000011}, EPERM},
    {"clone of a pid namespace", 56, 220, {0x20000011}, EPERM},
    {"clone of a network namespace", 56, 220, {0x40000011}, EPERM},
    {"clone of a mount namespace", 56, 220, {0x00020011}, EPERM},
    {"clone of a cgroup namespace", 56, 220, {0x02000011}, EPERM},
    {"clone of a UTS namespace", 56, 220, {0x04000011}, EPERM},
    {"clone of an IPC namespace", 56, 220, {0x08000011}, EPERM},
    {"clone3", 435, 435, {0}, ENOSYS},
    {"unshare of files", 272, 97, {0x400}, 0},
    {"unshare of a user namespace", 272, 97, {0x10000000}, EPERM},
    {"unshare of a user and a mount namespace", 272, 97, {0x10020000}, EPERM},
    {"unshare of a time namespace", 272, 97, {0x80}, EPERM},
    {"setns", 308, 268, {3, 0}, EPERM},
    {"fork", 57, NO_CALL, {0x10000000}, 0},
    {"vfork", 58, NO_CALL, {0x10000000}, 0},
    /* mounts */
    {"mount", 165, 40, {0}, EPERM},
    {"umount2", 166, 39, {0}, EPERM},
    {"pivot_root", 155, 41, {0}, EPERM},
    {"open_tree", 428, 428, {0}, EPERM},
    {"move_mount", 429, 429, {0}, EPERM},
    {"fsopen", 430, 430, {0}, EPERM},
    {"fsconfig", 431, 431, {0}, EPERM},
    {"fsmount", 432, 432, {0}, EPERM},
    {"fspick", 433, 433, {0}, EPERM},
    {"mount_setattr", 442, 442, {0}, EPERM},
    {"open_tree_attr", 467, 467, {0}, EPERM},
    {"swapon", 167, 224, {0}, EPERM},
    {"swapoff", 168, 225, {0}, EPERM},
    {"quotactl", 179, 60, {0}, EPERM},
    {"quotactl_fd", 443, 443, {0}, EPERM},
    {"acct", 163, 89, {0}, EPERM},
    {"statfs", 137, 43, {0}, 0},
    {"name_to_handle_at", 303, 264, {0}, EOPNOTSUPP},
    {"open_by_handle_at", 304, 265, {0}, EPERM},
    {"fanotify_init", 300, 262, {0}, EPERM},
    {"inotify_init1", 294, 26, {0}, 0},
    {"inotify_add_watch", 254, 27, {0}, 0},
    /* the kernel */
    {"init_module", 175, 105, {0}, EPERM},
    {"finit_module", 313, 273, {0}, EPERM},
    {"delete_module", 176, 106, {0}, EPERM},
    {"kexec_load", 246, 104, {0}, EPERM},
    {"kexec_file_load", 320, 294, {0}, EPERM},
    {"reboot", 169, 142, {0}, EPERM},
    {"iopl", 172, NO_CALL, {0}, EPERM},
    {"ioperm", 173, NO_CALL, {0}, EPERM},
    /* surfaces */
    {"io_uring_setup", 425, 425, {0}, ENOSYS},
    {"io_uring_enter", 426, 426, {0}, ENOSYS},
    {"io_uring_register", 427, 427, {0}, ENOSYS},
    {"pidfd_send_signal", 424, 424, {0}, 0},
    {"keyctl", 250, 219, {0}, EPERM},
    {"add_key", 248, 217, {0}, EPERM},
    {"request_key", 249, 218, {0}, EPERM},
    {"userfaultfd", 323, 282, {0}, EPERM},
    {"bpf", 321, 280, {0}, EPERM},
    {"perf_event_open", 298, 241, {0}, EPERM},
    {"memfd_secret", 447, 447, {0}, ENOSYS},
    {"process_mrelease", 448, 448, {0}, 0},
    {"lookup_dcookie", 212, 18, {0}, EPERM},
    {"modify_ldt", 154, NO_CALL, {0}, ENOSYS},
    {"seccomp with a listener", 317, 277, {1, 8}, EINVAL},
    {"seccomp with a listener and more", 317, 277, {1, 0x2b}, EINVAL},
    {"seccomp", 317, 277, {1, 1}, 0},
    {"seccomp, a question about an action", 317, 277, {2, 8}, 0},
    {"landlock_create_ruleset", 444, 444, {0}, 0},
    {"ptrace of a child", 101, 117, {0x10, 5}, 0},
    {"process_vm_readv", 310, 270, {5}, 0},
    /* what every program does */
    {"read", 0, 63, {1, 1, 1}, 0},
    {"write", 1, 64, {1, 1, 1}, 0},
    {"openat", 257, 56, {1, 1, 1}, 0},
    {"execve", 59, 221, {1, 1, 1}, 0},
    {"exit_group", 231, 94, {1}, 0},
    {"futex", 202, 98, {1}, 0},
    {"kill", 62, 129, {1, 9}, 0},
    {"pidfd_open", 434, 434, {1, 0}, 0},
    {"faccessat2", 439, 439, {1}, 0},
    {"rseq", 334, 293, {1}, 0},
};

static void every_rule_and_its_neighbours(void **state)
{
    (void)state;
    static struct program program;
    unsigned wrong = 0;
    for (size_t a = 0; a < sizeof arches / sizeof arches[0]; a++) {
        build(&program, arches[a].arch);
        for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
            int number = arches[a].arch == FILTER_X86_64 ? calls[i].x86_64 : calls[i].aarch64;
            if (number == NO_CALL)
                continue;
            int got = answer(&program, arches[a].audit, (uint32_t)number, calls[i].arguments);
            if (got == calls[i].refused)
                continue;
            print_message("%s: %s: %d instead of %d\n", arches[a].name, calls[i].name, got, calls[i].refused);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

/* Every call of another architecture or of x32 is refused, whatever its number. */
static void other_entries(void **state)
{
    (void)state;
    static struct program program;
    static const uint64_t none[6] = {0};
    static const uint32_t others[] = {I386, ARM, 0, MINUS_ONE, 0x80000016U /* s390x */};
    for (size_t a = 0; a < sizeof arches / sizeof arches[0]; a++) {
        build(&program, arches[a].arch);
        for (uint32_t number = 0; number < 600; number++) {
            for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
                assert_int_equal(answer(&program, others[i], number, none), ENOSYS);
            assert_int_equal(answer(&program, arches[1 - a].audit, number, none), ENOSYS);
            if (arches[a].arch == FILTER_X86_64)
                assert_int_equal(answer(&program, X86_64, number | X32, none), ENOSYS);
        }
    }
    build(&program, FILTER_X86_64);
    assert_int_equal(answer(&program, X86_64, MINUS_ONE, none), ENOSYS);
    assert_int_equal(answer(&program, X86_64, X32 - 1, none), 0);
}

/* What is refused whatever the arguments is a list that is known; a number that slipped in by mistake shows here. */
static void nothing_else_is_refused(void **state)
{
    (void)state;
    static struct program program;
    static const uint64_t none[6] = {0};
    for (size_t a = 0; a < sizeof arches / sizeof arches[0]; a++) {
        build(&program, arches[a].arch);
        for (int number = 0; number < 600; number++) {
            bool named = false;
            for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
                named |= calls[i].refused != 0 &&
                         number == (arches[a].arch == FILTER_X86_64 ? calls[i].x86_64 : calls[i].aarch64);
            if (!named && answer(&program, arches[a].audit, (uint32_t)number, none) != 0)
                fail_msg("%s: %d is refused", arches[a].name, number);
        }
    }
}

/* The kernel takes programs whose jumps stay inside and which end with a return, and nothing else. */
static void the_kernel_would_take_it(void **state)
{
    (void)state;
    static struct program program;
    for (size_t a = 0; a < sizeof arches / sizeof arches[0]; a++) {
        build(&program, arches[a].arch);
        for (size_t at = 0; at < program.length; at++) {
            const struct bpf_step *step = &program.steps[at];
            if (step->code == 0x05)
                assert_true(at + 1 + step->value < program.length);
            if (step->code == 0x15 || step->code == 0x35)
                assert_true(at + 1 + step->jump_true < program.length && at + 1 + step->jump_false < program.length);
        }
        assert_int_equal(program.steps[program.length - 1].code, 0x06);
        print_message("%s: %d instructions\n", arches[a].name, program.length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_and_its_neighbours),
        cmocka_unit_test(other_entries),
        cmocka_unit_test(nothing_else_is_refused),
        cmocka_unit_test(the_kernel_would_take_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
