/* Frames and messages: round trips, every truncation, and what a hostile peer might send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/frame.h"
#include "wire/message.h"

/* Decoding must fail for every length but the right one. The copy is exact, so that a sanitizer sees a read past its
 * end. */
#define ASSERT_ONLY_WHOLE(decode, bytes, size, type)                                                                   \
    do {                                                                                                               \
        for (size_t cut = 0; cut <= (size) + 1; cut++) {                                                               \
            uint8_t *copy = calloc(1, cut + 1);                                                                        \
            type message;                                                                                              \
            memcpy(copy, bytes, cut < (size) ? cut : (size));                                                          \
            uint8_t *exact = malloc(cut == 0 ? 1 : cut);                                                               \
            memcpy(exact, copy, cut);                                                                                  \
            assert_int_equal(decode(exact, cut, &message), cut == (size) ? 0 : -1);                                    \
            free(exact);                                                                                               \
            free(copy);                                                                                                \
        }                                                                                                              \
    } while (0)

static void test_a_frame_comes_back_whole(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES + 5];
    struct frame frame;
    frame_encode_header(bytes, FRAME_STDOUT, FRAME_FLAG_EOF, 7, 5);
    memcpy(bytes + FRAME_HEADER_BYTES, "hello", 5);
    assert_int_equal(frame_decode(bytes, sizeof bytes, &frame), sizeof bytes);
    assert_int_equal(frame.type, FRAME_STDOUT);
    assert_int_equal(frame.flags, FRAME_FLAG_EOF);
    assert_int_equal(frame.task, 7);
    assert_int_equal(frame.length, 5);
    assert_memory_equal(frame.payload, "hello", 5);
    for (size_t cut = 0; cut < sizeof bytes; cut++)
        assert_int_equal(frame_decode(bytes, cut, &frame), 0);
}

static void test_a_flipped_bit_in_a_header_is_refused(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < FRAME_HEADER_BYTES * 8; bit++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        struct frame frame;
        frame_encode_header(bytes, FRAME_PING, 0, 1, 0);
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        assert_int_equal(frame_decode(bytes, sizeof bytes, &frame), -1);
    }
}

static void test_lengths_are_bounded_by_type(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 256; type++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        uint32_t most = frame_payload_max((uint8_t)type);
        frame_encode_header(bytes, (uint8_t)type, 0, 0, most + 1);
        assert_int_equal(frame_size(bytes, sizeof bytes), -1);
        frame_encode_header(bytes, (uint8_t)type, 0, 0, UINT32_MAX);
        assert_int_equal(frame_size(bytes, sizeof bytes), -1);
        frame_encode_header(bytes, (uint8_t)type, 0, 0, most);
        assert_int_equal(frame_size(bytes, sizeof bytes),
                         frame_type_known((uint8_t)type) ? (ptrdiff_t)(FRAME_HEADER_BYTES + most) : -1);
    }
}

static void test_sync(void **state)
{
    (void)state;
    struct message_sync in = {.version = 3, .marker = "0123456789abcde"}, out;
    uint8_t bytes[MESSAGE_SYNC_BYTES];
    message_sync_encode(&in, bytes);
    assert_int_equal(message_sync_decode(bytes, sizeof bytes, &out), 0);
    assert_int_equal(out.version, 3);
    assert_memory_equal(out.marker, in.marker, SYNC_MARKER_BYTES);
    ASSERT_ONLY_WHOLE(message_sync_decode, bytes, sizeof bytes, struct message_sync);
}

static uint8_t *encode_run(const char *const argv[], const char *const env[], size_t *size)
{
    struct message_run run = {.flags = RUN_FLAG_STDIN,
                              .timeout_ms = 1000,
                              .kill_timeout_ms = 50,
                              .credit_stdout = 1 << 20,
                              .credit_stderr = 2,
                              .workdir = "/w"};
    *size = message_run_size(&run, argv, env);
    uint8_t *bytes = malloc(*size);
    message_run_encode(&run, argv, env, bytes, *size);
    return bytes;
}

static void test_run(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "", NULL}, *const env[] = {"A=1", "B=", NULL};
    size_t size;
    uint8_t *bytes = encode_run(argv, env, &size);
    struct message_run out;
    assert_int_equal(message_run_decode(bytes, size, &out), 0);
    assert_int_equal(out.flags, RUN_FLAG_STDIN);
    assert_int_equal(out.timeout_ms, 1000);
    assert_int_equal(out.kill_timeout_ms, 50);
    assert_int_equal(out.credit_stdout, 1 << 20);
    assert_int_equal(out.credit_stderr, 2);
    assert_string_equal(out.workdir, "/w");
    assert_int_equal(out.argc, 3);
    assert_int_equal(out.envc, 2);
    for (int i = 0; i < 3; i++)
        assert_string_equal(wire_get_string(&out.argv), argv[i]);
    for (int i = 0; i < 2; i++)
        assert_string_equal(wire_get_string(&out.env), env[i]);
    ASSERT_ONLY_WHOLE(message_run_decode, bytes, size, struct message_run);
    free(bytes);
}

static uint8_t *encode_secrets(const struct message_secret *secrets, uint32_t count, size_t *size)
{
    const char *const argv[] = {"prog", NULL};
    struct message_run run = {.workdir = "", .secret_list = secrets, .secretc = count};
    *size = message_run_size(&run, argv, NULL);
    uint8_t *bytes = malloc(*size);
    message_run_encode(&run, argv, NULL, bytes, *size);
    return bytes;
}

static void test_run_with_secrets(void **state)
{
    (void)state;
    static uint8_t large[SECRET_BYTES_MAX + 1];
    const struct message_secret secrets[] = {{"a\0b", 4}, {"", 0}, {"xyz", 3}};
    size_t size;
    struct message_run out;
    uint8_t *bytes = encode_secrets(secrets, 3, &size);
    assert_int_equal(message_run_decode(bytes, size, &out), 0);
    assert_int_equal(out.secretc, 3);
    for (int i = 0; i < 3; i++) {
        struct message_secret secret = wire_get_secret(&out.secrets);
        assert_int_equal(secret.size, secrets[i].size);
        assert_memory_equal(secret.value, secrets[i].value, secret.size);
    }
    ASSERT_ONLY_WHOLE(message_run_decode, bytes, size, struct message_run);
    memset(bytes + size - 7, 0xff, 4); /* a size past the end, and the largest there is */
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);

    struct message_secret many[SECRETS_MAX + 1] = {{large, SECRET_BYTES_MAX}};
    bytes = encode_secrets(many, SECRETS_MAX, &size);
    assert_int_equal(message_run_decode(bytes, size, &out), 0);
    free(bytes);
    bytes = encode_secrets(many, SECRETS_MAX + 1, &size);
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);
    many[0].size++;
    bytes = encode_secrets(many, 1, &size);
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);
}

static void test_run_with_malformed_strings_is_refused(void **state)
{
    (void)state;
    const char *const argv[] = {"prog", NULL}, *const none[] = {NULL};
    const char *const wrong[] = {"novalue", NULL}, *const nameless[] = {"=x", NULL};
    struct message_run out;
    size_t size;
    uint8_t *bytes = encode_run(argv, NULL, &size);
    size_t last = size - 1, text = size - 5, length = size - 9, counts = 5 * 4 + 4 + 3;
    bytes[last] = 'x'; /* no NUL at the end */
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    bytes[last] = 0;
    bytes[text + 1] = 0; /* one inside */
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    bytes[text + 1] = 'r';
    assert_int_equal(message_run_decode(bytes, size, &out), 0);
    for (unsigned i = 0; i < 4; i++) { /* a length past the end, and the largest there is */
        uint8_t before = bytes[length + i];
        bytes[length + i] = 0xff;
        assert_int_equal(message_run_decode(bytes, size, &out), -1);
        bytes[length + i] = before;
    }
    memset(bytes + length, 0xff, 4);
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);

    bytes = encode_run(argv, NULL, &size);
    bytes[counts + 2] = 2; /* argc above RUN_STRINGS_MAX */
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);
    bytes = encode_run(none, NULL, &size); /* argc 0 */
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);
    bytes = encode_run(argv, wrong, &size);
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);
    bytes = encode_run(argv, nameless, &size);
    assert_int_equal(message_run_decode(bytes, size, &out), -1);
    free(bytes);
}

static struct receipt sample_receipt(void)
{
    struct receipt receipt = {.mount_count = 2, .time_wait = 9, .killed = 8, .removed = 7, .reset_us = 6};
    for (unsigned i = 0; i < RECEIPT_FIELDS; i++)
        receipt.field[i] = i + 100;
    receipt.mount[0] = (struct receipt_mount){1, 2, 3};
    receipt.mount[1] = (struct receipt_mount){4, 5, 6};
    return receipt;
}

static void test_receipt(void **state)
{
    (void)state;
    struct receipt in = sample_receipt(), out;
    uint8_t bytes[RECEIPT_BYTES_MAX];
    size_t size = receipt_encode(&in, bytes);
    assert_int_equal(receipt_decode(bytes, size, &out), 0);
    assert_memory_equal(&in, &out, sizeof in);
    ASSERT_ONLY_WHOLE(receipt_decode, bytes, size, struct receipt);
    bytes[RECEIPT_FIELDS * 8] = RECEIPT_MOUNTS_MAX + 1;
    assert_int_equal(receipt_decode(bytes, size, &out), -1);
}

static void test_every_surface_of_a_receipt_is_compared(void **state)
{
    (void)state;
    struct receipt baseline = sample_receipt(), now = sample_receipt();
    char text[128];
    assert_false(receipt_differs(&baseline, &now, text, sizeof text));
    for (unsigned i = 0; i < RECEIPT_FIELDS; i++) {
        now = sample_receipt();
        now.field[i]++;
        assert_true(receipt_differs(&baseline, &now, text, sizeof text));
        assert_non_null(strstr(text, receipt_field_name(i)));
    }
    for (unsigned i = 0; i < 2; i++) {
        now = sample_receipt();
        now.mount[i].entries++;
        assert_true(receipt_differs(&baseline, &now, text, sizeof text));
        now = sample_receipt();
        now.mount[i].free_blocks--;
        assert_true(receipt_differs(&baseline, &now, text, sizeof text));
        now = sample_receipt();
        now.mount[i].free_inodes--;
        assert_true(receipt_differs(&baseline, &now, text, sizeof text));
    }
    now = sample_receipt();
    now.mount_count = 1;
    assert_true(receipt_differs(&baseline, &now, text, sizeof text));
    now = sample_receipt();
    now.time_wait = now.killed = now.removed = now.reset_us = 1; /* told, not compared */
    assert_false(receipt_differs(&baseline, &now, text, sizeof text));
}

static void test_hello(void **state)
{
    (void)state;
    struct message_hello in = {.version = 1,
                               .marker = "fedcba987654321",
                               .flags = HELLO_FLAG_DIRTY,
                               .task_state = HELLO_TASK_EXITED,
                               .task = 5,
                               .generation = 6,
                               .baseline = sample_receipt()};
    struct message_hello out;
    uint8_t bytes[MESSAGE_HELLO_BYTES_MAX];
    size_t size = message_hello_encode(&in, bytes);
    assert_int_equal(message_hello_decode(bytes, size, &out), 0);
    assert_int_equal(out.flags, HELLO_FLAG_DIRTY);
    assert_int_equal(out.task, 5);
    assert_int_equal(out.generation, 6);
    assert_memory_equal(&in.baseline, &out.baseline, sizeof in.baseline);
    ASSERT_ONLY_WHOLE(message_hello_decode, bytes, size, struct message_hello);
    bytes[19] = HELLO_TASK_EXITED + 1;
    assert_int_equal(message_hello_decode(bytes, size, &out), -1);
}

static void test_exit(void **state)
{
    (void)state;
    struct message_exit in = {.outcome = EXIT_SIGNALED,
                              .peak_source = PEAK_CGROUP,
                              .exit_code = 3,
                              .signal = 9,
                              .wall_us = 1,
                              .spawn_us = 2,
                              .user_us = 3,
                              .system_us = 4,
                              .cgroup_cpu_us = 5,
                              .peak_bytes = 6,
                              .disk_bytes = 7,
                              .network_bytes = EXIT_UNMEASURED};
    struct message_exit out;
    uint8_t bytes[MESSAGE_EXIT_BYTES];
    message_exit_encode(&in, bytes);
    assert_int_equal(message_exit_decode(bytes, sizeof bytes, &out), 0);
    assert_int_equal(out.outcome, EXIT_SIGNALED);
    assert_int_equal(out.signal, 9);
    assert_int_equal(out.peak_bytes, 6);
    assert_true(out.network_bytes == EXIT_UNMEASURED);
    ASSERT_ONLY_WHOLE(message_exit_decode, bytes, sizeof bytes, struct message_exit);
    bytes[0] = EXIT_UNKNOWN; /* zeroed memory must not read as success */
    assert_int_equal(message_exit_decode(bytes, sizeof bytes, &out), -1);
    bytes[0] = EXIT_NOT_STARTED + 1;
    assert_int_equal(message_exit_decode(bytes, sizeof bytes, &out), -1);
}

static void test_small_messages(void **state)
{
    (void)state;
    struct message_credit credit = {.stream = WIRE_STDERR, .bytes = 12345}, credit_out;
    uint8_t credit_bytes[MESSAGE_CREDIT_BYTES];
    message_credit_encode(&credit, credit_bytes);
    assert_int_equal(message_credit_decode(credit_bytes, sizeof credit_bytes, &credit_out), 0);
    assert_int_equal(credit_out.bytes, 12345);
    ASSERT_ONLY_WHOLE(message_credit_decode, credit_bytes, sizeof credit_bytes, struct message_credit);
    credit_bytes[0] = WIRE_FILES + 1;
    assert_int_equal(message_credit_decode(credit_bytes, sizeof credit_bytes, &credit_out), -1);

    struct message_pong pong = {.nonce = 1, .spawn_errno = 2, .spawn_us = 3, .memory_bytes = 4, .pids_limit = 5},
                        pong_out;
    uint8_t pong_bytes[MESSAGE_PONG_BYTES];
    message_pong_encode(&pong, pong_bytes);
    assert_int_equal(message_pong_decode(pong_bytes, sizeof pong_bytes, &pong_out), 0);
    assert_memory_equal(&pong, &pong_out, sizeof pong);
    ASSERT_ONLY_WHOLE(message_pong_decode, pong_bytes, sizeof pong_bytes, struct message_pong);

    struct message_result result = {.exit_code = 124, .message = "timed out", .json = "{}"}, result_out;
    uint8_t result_bytes[64];
    size_t size = message_result_size(&result);
    message_result_encode(&result, result_bytes, size);
    assert_int_equal(message_result_decode(result_bytes, size, &result_out), 0);
    assert_string_equal(result_out.message, "timed out");
    assert_string_equal(result_out.json, "{}");
    ASSERT_ONLY_WHOLE(message_result_decode, result_bytes, size, struct message_result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_frame_comes_back_whole),
        cmocka_unit_test(test_a_flipped_bit_in_a_header_is_refused),
        cmocka_unit_test(test_lengths_are_bounded_by_type),
        cmocka_unit_test(test_sync),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_run_with_secrets),
        cmocka_unit_test(test_run_with_malformed_strings_is_refused),
        cmocka_unit_test(test_receipt),
        cmocka_unit_test(test_every_surface_of_a_receipt_is_compared),
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_exit),
        cmocka_unit_test(test_small_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
