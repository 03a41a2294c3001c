/* System calls that the engine's profile lets through and that no task needs: those that reach PID 1 although it cannot
 * be traced, and kernel surfaces that have been exploited more often than used. A classic BPF program, built from a
 * table. Refused calls get an errno, so that programs with a fallback take it. */
#include <errno.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "runner/runner.h"

/* The kernel's own headers are not there when compiling against musl. */
struct bpf_step {
    uint16_t code;
    uint8_t jump_true, jump_false;
    uint32_t value;
};

struct bpf_program {
    unsigned short length;
    struct bpf_step *steps;
};

struct seccomp_data {
    int number;
    uint32_t arch;
    uint64_t instruction_pointer;
    uint64_t argument[6];
};

#define LOAD_WORD           0x20U /* BPF_LD | BPF_W | BPF_ABS */
#define JUMP_EQUAL          0x15U /* BPF_JMP | BPF_JEQ | BPF_K */
#define JUMP_GREATER_EQUAL  0x35U
#define RETURN              0x06U
#define ALLOW               0x7fff0000U
#define REFUSE(error)       (0x00050000U | (error))
#define SECCOMP_MODE_FILTER 2

#if defined(__x86_64__)
#define NATIVE_ARCH 0xc000003eU
#define X32_BIT     0x40000000U
#elif defined(__aarch64__)
#define NATIVE_ARCH 0xc00000b7U
#else
#error "the filter knows x86-64 and aarch64"
#endif

enum condition { ALWAYS, EQUALS, DIFFERS };

struct rule {
    long number;
    enum condition condition;
    uint8_t argument; /* its lower 32 bits are compared: pids, families and selectors are ints */
    uint32_t value;
    uint16_t error;
};

#define NR_SECRET      447L
#define NR_IO_URING    425L /* setup, enter, register: the same numbers on every architecture */
#define FAMILY_ALG     38U
#define FAMILY_VSOCK   40U
#define IOPRIO_PROCESS 1U

static const struct rule rules[] = {
    /* PID 1 from a task of the same uid */
    {SYS_prlimit64, DIFFERS, 0, 0, EPERM},
    {SYS_sched_setaffinity, EQUALS, 0, 1, EPERM},
    {SYS_sched_setscheduler, EQUALS, 0, 1, EPERM},
    {SYS_sched_setparam, EQUALS, 0, 1, EPERM},
    {SYS_sched_setattr, EQUALS, 0, 1, EPERM},
    {SYS_setpriority, DIFFERS, 0, PRIO_PROCESS, EPERM},
    {SYS_setpriority, EQUALS, 1, 1, EPERM},
    {SYS_ioprio_set, DIFFERS, 0, IOPRIO_PROCESS, EPERM},
    {SYS_ioprio_set, EQUALS, 1, 1, EPERM},
    /* kernel surface */
    {NR_IO_URING, ALWAYS, 0, 0, ENOSYS},
    {NR_IO_URING + 1, ALWAYS, 0, 0, ENOSYS},
    {NR_IO_URING + 2, ALWAYS, 0, 0, ENOSYS},
    {SYS_socket, EQUALS, 0, FAMILY_ALG, EAFNOSUPPORT},
    {SYS_socket, EQUALS, 0, FAMILY_VSOCK, EAFNOSUPPORT},
    {SYS_keyctl, ALWAYS, 0, 0, EPERM},
    {SYS_add_key, ALWAYS, 0, 0, EPERM},
    {SYS_request_key, ALWAYS, 0, 0, EPERM},
    {SYS_userfaultfd, ALWAYS, 0, 0, EPERM},
    {SYS_bpf, ALWAYS, 0, 0, EPERM},
    {SYS_perf_event_open, ALWAYS, 0, 0, EPERM},
    {NR_SECRET, ALWAYS, 0, 0, ENOSYS},
};

#define RULES (sizeof rules / sizeof rules[0])

static void put(struct bpf_program *program, uint16_t code, uint32_t value, uint8_t jump_true, uint8_t jump_false)
{
    program->steps[program->length++] = (struct bpf_step){code, jump_true, jump_false, value};
}

static void put_rule(struct bpf_program *program, const struct rule *rule)
{
    if (rule->condition == ALWAYS) {
        put(program, JUMP_EQUAL, (uint32_t)rule->number, 0, 1);
        put(program, RETURN, REFUSE(rule->error), 0, 0);
        return;
    }
    bool equals = rule->condition == EQUALS;
    put(program, JUMP_EQUAL, (uint32_t)rule->number, 0, 4);
    put(program, LOAD_WORD, (uint32_t)offsetof(struct seccomp_data, argument) + 8U * rule->argument, 0, 0);
    put(program, JUMP_EQUAL, rule->value, equals ? 0 : 1, equals ? 1 : 0);
    put(program, RETURN, REFUSE(rule->error), 0, 0);
    put(program, LOAD_WORD, offsetof(struct seccomp_data, number), 0, 0);
}

int filter_install(void)
{
    struct bpf_step steps[8 + 5 * RULES];
    struct bpf_program program = {.length = 0, .steps = steps};
    put(&program, LOAD_WORD, offsetof(struct seccomp_data, arch), 0, 0);
    put(&program, JUMP_EQUAL, NATIVE_ARCH, 1, 0);
    put(&program, RETURN, REFUSE(ENOSYS), 0, 0);
    put(&program, LOAD_WORD, offsetof(struct seccomp_data, number), 0, 0);
#if defined(X32_BIT)
    put(&program, JUMP_GREATER_EQUAL, X32_BIT, 0, 1);
    put(&program, RETURN, REFUSE(ENOSYS), 0, 0);
#endif
    for (size_t i = 0; i < RULES; i++)
        put_rule(&program, &rules[i]);
    put(&program, RETURN, ALLOW, 0, 0);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : errno;
}
