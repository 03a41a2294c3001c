/* The engine's profile refuses much of this too, but not every version of every engine, and a profile of the user's own
 * may refuse nothing. Three kinds of calls are refused: those that reach PID 1 although it cannot be traced, those with
 * which a task would take what belongs to the host or its neighbours, and kernel surfaces that have been exploited more
 * often than used. A refused call gets the errno with which programs that have a fallback take it.
 *
 * Arguments are compared in their lower 32 bits, which is all that the kernel looks at where they are ints: the upper
 * half is the caller's to fill with anything. */
#include "runner/filter.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "wire/weaken.h"

struct seccomp_data {
    int number;
    uint32_t arch;
    uint64_t instruction_pointer;
    uint64_t argument[6];
};

#define LOAD_WORD           0x20U /* BPF_LD | BPF_W | BPF_ABS */
#define AND                 0x54U /* BPF_ALU | BPF_AND | BPF_K */
#define JUMP                0x05U
#define JUMP_EQUAL          0x15U /* BPF_JMP | BPF_JEQ | BPF_K */
#define JUMP_GREATER_EQUAL  0x35U
#define RETURN              0x06U
#define ALLOW               0x7fff0000U
#define REFUSE(error)       (0x00050000U | (error))
#define SECCOMP_MODE_FILTER 2

#define X32_BIT 0x40000000U

static const uint32_t audit_arch[FILTER_ARCHES] = {0xc000003eU, 0xc00000b7U};

#define VALUES_MAX 5
#define TESTS_MAX  2
#define NOWHERE    UINT16_MAX /* the architecture has no such call */

enum { NONE, IN, NOT_IN };

struct test { /* of (argument & mask) */
    uint8_t kind, argument, count;
    uint32_t mask;
    uint16_t values[VALUES_MAX];
};

struct rule {
    uint16_t number[FILTER_ARCHES];
    uint16_t error;
    struct test tests[TESTS_MAX]; /* refused when all of them hold */
};

/* clang-format off */
#define VALUES(...)                 .count = sizeof((uint16_t[]){__VA_ARGS__}) / sizeof(uint16_t), .values = {__VA_ARGS__}
#define IS(at, ...)                 {.kind = IN, .argument = (at), .mask = UINT32_MAX, VALUES(__VA_ARGS__)}
#define IS_NOT(at, ...)             {.kind = NOT_IN, .argument = (at), .mask = UINT32_MAX, VALUES(__VA_ARGS__)}
#define PART_IS_NOT(at, part, ...)  {.kind = NOT_IN, .argument = (at), .mask = (part), VALUES(__VA_ARGS__)}
#define HAS_ANY(at, bits)           {.kind = NOT_IN, .argument = (at), .mask = (bits), VALUES(0)}
#define ALWAYS                      {{.kind = NONE}}
#define CALL(name, x86_64, aarch64) {(x86_64), (aarch64)} /* the name is for the reader */
/* clang-format on */

/* Values of the kernel's interface: the same on both architectures. */
enum {
    WHICH_PROCESS = 0, /* setpriority() */
    IOPRIO_PROCESS = 1,
    UNIX = 1,
    INET = 2,
    INET6 = 10,
    NETLINK = 16,
    NETLINK_ROUTING = 0,
    STREAM = 1,
    DATAGRAM = 2,
    RAW = 3,
    SOCKET_TYPES = 0xf,
    ICMP = 1,
    TCP = 6,
    UDP = 17,
    ICMP6 = 58,
    MAP_HUGE = 0x40000,
    SHM_HUGE = 04000,
    MEMFD_HUGE = 4,
    SET_MODE_FILTER = 1,
    NEW_LISTENER = 8,
    SCHED_CORE = 62,
    /* of clone(): mount, cgroup, UTS, IPC, user, pid, network */
    NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000,
    TIME_NAMESPACE = 0x80,
};

/* clang-format off */
static const struct rule rules[] = {
    /* PID 1 from a task of the same uid. Priorities of a group or a user would reach it too. */
    {CALL(prlimit64,          302, 261), EPERM, {IS_NOT(0, 0)}},
    {CALL(sched_setaffinity,  203, 122), EPERM, {IS(0, 1)}},
    {CALL(sched_setscheduler, 144, 119), EPERM, {IS(0, 1)}},
    {CALL(sched_setparam,     142, 118), EPERM, {IS(0, 1)}},
    {CALL(sched_setattr,      314, 274), EPERM, {IS(0, 1)}},
    {CALL(setpriority,        141, 140), EPERM, {IS_NOT(0, WHICH_PROCESS)}},
    {CALL(setpriority,        141, 140), EPERM, {IS(1, 1)}},
    {CALL(ioprio_set,         251,  30), EPERM, {IS_NOT(0, IOPRIO_PROCESS)}},
    {CALL(ioprio_set,         251,  30), EPERM, {IS(1, 1)}},
    {CALL(migrate_pages,      256, 238), EPERM, {IS_NOT(0, 0)}},
    {CALL(move_pages,         279, 239), EPERM, {IS_NOT(0, 0)}},

    /* What is the host's: huge pages are of one pool and in no memory limit; core scheduling idles a neighbour's CPU. */
    {CALL(mmap,                 9, 222), ENOMEM, {HAS_ANY(3, MAP_HUGE)}},
    {CALL(shmget,              29, 194), ENOMEM, {HAS_ANY(2, SHM_HUGE)}},
    {CALL(memfd_create,       319, 279), ENOSYS, {HAS_ANY(1, MEMFD_HUGE)}},
    {CALL(prctl,              157, 167), EINVAL, {IS(0, SCHED_CORE)}},
    {CALL(syslog,             103, 116), EPERM, ALWAYS},

    /* Sockets: families and protocols that are not named here would even load the host's modules. Of netlink, whose
     * netfilter, xfrm and generic families have had the most holes and whose uevents are the host's, routes remain. */
    {CALL(socket,              41, 198), EAFNOSUPPORT, {IS_NOT(0, UNIX, INET, INET6, NETLINK)}},
    {CALL(socket,              41, 198), EPROTONOSUPPORT, {IS(0, NETLINK), IS_NOT(2, NETLINK_ROUTING)}},
    {CALL(socket,              41, 198), EPROTONOSUPPORT, {IS(0, INET, INET6), IS_NOT(2, 0, ICMP, TCP, UDP, ICMP6)}},
    {CALL(socket,              41, 198), ESOCKTNOSUPPORT, {IS(0, INET, INET6), PART_IS_NOT(1, SOCKET_TYPES, STREAM, DATAGRAM, RAW)}},
    {CALL(socketpair,          53, 199), EAFNOSUPPORT, {IS_NOT(0, UNIX)}},

    /* Namespaces, which make a root of anybody. clone3() keeps its flags in memory, where no filter sees them: without
     * it every libc uses clone(). */
    {CALL(clone,               56, 220), EPERM, {HAS_ANY(0, NAMESPACES)}},
    {CALL(clone3,             435, 435), ENOSYS, ALWAYS},
    {CALL(unshare,            272,  97), EPERM, {HAS_ANY(0, NAMESPACES | TIME_NAMESPACE)}},
    {CALL(setns,              308, 268), EPERM, ALWAYS},

    /* Mounts, by the old calls and the new. */
    {CALL(mount,              165,  40), EPERM, ALWAYS},
    {CALL(umount2,            166,  39), EPERM, ALWAYS},
    {CALL(pivot_root,         155,  41), EPERM, ALWAYS},
    {CALL(open_tree,          428, 428), EPERM, ALWAYS},
    {CALL(move_mount,         429, 429), EPERM, ALWAYS},
    {CALL(fsopen,             430, 430), EPERM, ALWAYS},
    {CALL(fsconfig,           431, 431), EPERM, ALWAYS},
    {CALL(fsmount,            432, 432), EPERM, ALWAYS},
    {CALL(fspick,             433, 433), EPERM, ALWAYS},
    {CALL(mount_setattr,      442, 442), EPERM, ALWAYS},
    {CALL(open_tree_attr,     467, 467), EPERM, ALWAYS},
    {CALL(swapon,             167, 224), EPERM, ALWAYS},
    {CALL(swapoff,            168, 225), EPERM, ALWAYS},
    {CALL(quotactl,           179,  60), EPERM, ALWAYS},
    {CALL(quotactl_fd,        443, 443), EPERM, ALWAYS},
    {CALL(acct,               163,  89), EPERM, ALWAYS},

    /* Files of the host's by their number, and news of files of others. */
    {CALL(name_to_handle_at,  303, 264), EOPNOTSUPP, ALWAYS},
    {CALL(open_by_handle_at,  304, 265), EPERM, ALWAYS},
    {CALL(fanotify_init,      300, 262), EPERM, ALWAYS},

    /* The kernel itself. */
    {CALL(init_module,        175, 105), EPERM, ALWAYS},
    {CALL(finit_module,       313, 273), EPERM, ALWAYS},
    {CALL(delete_module,      176, 106), EPERM, ALWAYS},
    {CALL(kexec_load,         246, 104), EPERM, ALWAYS},
    {CALL(kexec_file_load,    320, 294), EPERM, ALWAYS},
    {CALL(reboot,             169, 142), EPERM, ALWAYS},
    {CALL(iopl,               172, NOWHERE), EPERM, ALWAYS},
    {CALL(ioperm,             173, NOWHERE), EPERM, ALWAYS},

    /* Surfaces: each has been a way into the kernel, and no task needs it. A task may filter its own calls (seccomp,
     * landlock), trace its own children and read its own memory; a listener for another's calls is for sandboxes. */
    {CALL(io_uring_setup,     425, 425), ENOSYS, ALWAYS},
    {CALL(io_uring_enter,     426, 426), ENOSYS, ALWAYS},
    {CALL(io_uring_register,  427, 427), ENOSYS, ALWAYS},
    {CALL(keyctl,             250, 219), EPERM, ALWAYS},
    {CALL(add_key,            248, 217), EPERM, ALWAYS},
    {CALL(request_key,        249, 218), EPERM, ALWAYS},
    {CALL(userfaultfd,        323, 282), EPERM, ALWAYS},
    {CALL(bpf,                321, 280), EPERM, ALWAYS},
    {CALL(perf_event_open,    298, 241), EPERM, ALWAYS},
    {CALL(memfd_secret,       447, 447), ENOSYS, ALWAYS},
    {CALL(lookup_dcookie,     212,  18), EPERM, ALWAYS},
    {CALL(modify_ldt,         154, NOWHERE), ENOSYS, ALWAYS},
    {CALL(seccomp,            317, 277), EINVAL, {IS(0, SET_MODE_FILTER), HAS_ANY(1, NEW_LISTENER)}},
};
/* clang-format on */

#define RULES (sizeof rules / sizeof rules[0])

static struct bpf_step *put(struct bpf_program *program, uint16_t code, uint32_t value, uint8_t jump_true,
                            uint8_t jump_false)
{
    struct bpf_step *step = &program->steps[program->length++];
    *step = (struct bpf_step){code, jump_true, jump_false, value};
    return step;
}

/* Goes on when the test holds; the jump that is returned is taken when it does not, its distance is to be filled in. */
static struct bpf_step *put_test(struct bpf_program *program, const struct test *test)
{
    put(program, LOAD_WORD, (uint32_t)offsetof(struct seccomp_data, argument) + 8U * test->argument, 0, 0);
    if (test->mask != UINT32_MAX)
        put(program, AND, test->mask, 0, 0);
    for (uint8_t i = 0; i < test->count; i++)
        put(program, JUMP_EQUAL, test->values[i], (uint8_t)(test->count - i), 0);
    if (test->kind == NOT_IN)
        put(program, JUMP, 1, 0, 0);
    return put(program, JUMP, 0, 0, 0);
}

static void put_rule(struct bpf_program *program, const struct rule *rule, enum filter_arch arch)
{
    struct bpf_step *unmet[TESTS_MAX];
    unsigned tests = 0;
    if (rule->number[arch] == NOWHERE)
        return;
    struct bpf_step *other = put(program, JUMP_EQUAL, rule->number[arch], 0, 0);
    while (tests < TESTS_MAX && rule->tests[tests].kind != NONE) {
        unmet[tests] = put_test(program, &rule->tests[tests]);
        tests++;
    }
    struct bpf_step *end = put(program, RETURN, REFUSE(rule->error), 0, 0);
    other->jump_false = (uint8_t)(end - other);
    for (unsigned i = 0; i < tests; i++)
        unmet[i]->value = (uint32_t)(end - unmet[i]);
    if (tests > 0) { /* the accumulator has an argument: who jumps past the rule as a whole need not load again */
        put(program, LOAD_WORD, offsetof(struct seccomp_data, number), 0, 0);
        other->jump_false++;
    }
}

unsigned short filter_build(enum filter_arch arch, struct bpf_step steps[FILTER_STEPS_MAX])
{
    struct bpf_program program = {.length = 0, .steps = steps};
    put(&program, LOAD_WORD, offsetof(struct seccomp_data, arch), 0, 0);
    put(&program, JUMP_EQUAL, audit_arch[arch], 1, 0);
    put(&program, RETURN, REFUSE(ENOSYS), 0, 0);
    put(&program, LOAD_WORD, offsetof(struct seccomp_data, number), 0, 0);
    if (arch == FILTER_X86_64) {
        put(&program, JUMP_GREATER_EQUAL, X32_BIT, 0, 1);
        put(&program, RETURN, REFUSE(ENOSYS), 0, 0);
    }
    for (size_t i = 0; i < RULES; i++)
        put_rule(&program, &rules[i], arch);
    put(&program, RETURN, ALLOW, 0, 0);
    return program.length;
}

int filter_install(void)
{
#if defined(__x86_64__)
    const enum filter_arch arch = FILTER_X86_64;
#elif defined(__aarch64__)
    const enum filter_arch arch = FILTER_AARCH64;
#else
#error "the filter knows x86-64 and aarch64"
#endif
    struct bpf_step steps[FILTER_STEPS_MAX];
    struct bpf_program program = {.length = filter_build(arch, steps), .steps = steps};
    if (weakened(NULL, "dumpable")) /* a control of the tests; its place is here, before any task */
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (weakened(NULL, "filter"))
        return 0;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : errno;
}
