/* What the files of the conformance suite share. */
#pragma once

#include <unistd.h>

#include "harness.h"

#define MIB ((uint64_t)1 << 20)

struct made {
    char name[40];
    struct engine_label labels[1];
    struct container_spec spec;
};

/* A spec with all that warmpool asks for. `made` must stay where it is. */
void made_spec(struct fixture *f, struct made *made, const char *name);
void create_ok(struct fixture *f, const struct container_spec *spec, struct result *result);
void start_ok(struct fixture *f, const char *id);
void remove_ok(struct fixture *f, const char *id);

/* By WARMPOOL_TEST_ENGINE=podman. */
bool is_podman(void);

/* streams.c */
void test_put(void **state);
void test_echo(void **state);
void test_bytes(void **state);
void test_attach_again(void **state);
void test_stream_of_ended(void **state);
void test_attach_errors(void **state);
void test_stream_closing(void **state);
