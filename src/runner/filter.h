/* The system calls that tasks are refused on top of the engine's profile, as a classic BPF program. It is built from
 * one table for either architecture, on any: tests read the program of each. */
#pragma once

#include <stdint.h>

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

enum filter_arch { FILTER_X86_64, FILTER_AARCH64 };

#define FILTER_ARCHES    2
#define FILTER_STEPS_MAX 512U

/* Into `steps`: how many, at most FILTER_STEPS_MAX. */
unsigned short filter_build(enum filter_arch arch, struct bpf_step steps[FILTER_STEPS_MAX]);
/* For this process and all that it starts. 0 or errno. */
int filter_install(void);
