/* What the files of the trouble suite share. */
#pragma once

#include "harness.h"

#define ID "0123456789abcdef"

struct world {
    struct fixture *f;
    struct fake fake;
    struct result opened;
};

/* An engine that answers `reply` to what the test asks for. */
struct fixture *world_open(struct world *w, const char *reply, uint32_t timeout_ms, unsigned max_parallel);

/* broken_streams.c */
void test_stream_pieces(void **state);
void test_stream_lies(void **state);
void test_stream_refused(void **state);
void test_stream_stall(void **state);
void test_stream_without_reader(void **state);

/* hosts.c */
void test_malformed_hosts(void **state);
void test_certificate_files(void **state);
void test_plain_tcp(void **state);
void test_unknown_host(void **state);
void test_podman_create(void **state);

/* pull.c */
void test_pull_progress(void **state);
void test_pull_told_seldom(void **state);
void test_pull_cut(void **state);
void test_pull_garbage(void **state);
void test_pull_errors(void **state);
void test_pull_misleading_name(void **state);
void test_pull_too_much(void **state);
void test_pull_keeps_secrets(void **state);
void test_pull_references(void **state);
void test_pull_stall(void **state);
void test_pull_of_closed(void **state);
void test_pull_by_podman(void **state);
