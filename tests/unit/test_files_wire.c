/* Tree streams: names, records, the grammar and its sums, and what a hostile peer might send. */
#include "files_helper.h"

/* The C version under names of its own, beside the one that takes the processor's instructions. */
#define sha256_init   portable_init
#define sha256_update portable_update
#define sha256_final  portable_final
#pragma push_macro("__x86_64__")
#undef __x86_64__
void portable_init(struct sha256 *sha);
void portable_update(struct sha256 *sha, const void *data, size_t size);
void portable_final(struct sha256 *sha, uint8_t digest[SHA256_BYTES]);
#include "../../src/wire/sha256.c"
#pragma pop_macro("__x86_64__")
#undef sha256_init
#undef sha256_update
#undef sha256_final

static void hex(const uint8_t digest[SHA256_BYTES], char text[65])
{
    for (unsigned i = 0; i < SHA256_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

static void test_sha256_has_the_standard_s_values(void **state)
{
    (void)state;
    static const struct {
        const char *text, *digest;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqr"
         "stu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        struct sha256 sha;
        uint8_t digest[SHA256_BYTES];
        char text[65];
        sha256_init(&sha);
        sha256_update(&sha, vectors[i].text, strlen(vectors[i].text));
        sha256_final(&sha, digest);
        hex(digest, text);
        assert_string_equal(text, vectors[i].digest);
    }
}

static void test_sha256_is_the_same_in_any_pieces_and_both_versions(void **state)
{
    (void)state;
    static uint8_t data[1000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t size = 0; size <= sizeof data; size += 1 + size / 9) {
        uint8_t whole[SHA256_BYTES], pieces[SHA256_BYTES];
        struct sha256 sha;
        sha256_init(&sha);
        sha256_update(&sha, data, size);
        sha256_final(&sha, whole);
        for (size_t piece = 1; piece < 200; piece += 13) {
            portable_init(&sha);
            for (size_t at = 0; at < size; at += piece)
                portable_update(&sha, data + at, size - at < piece ? size - at : piece);
            portable_final(&sha, pieces);
            assert_memory_equal(whole, pieces, SHA256_BYTES);
        }
    }
}

/* --- names ---------------------------------------------------------------------------------------- */

static void test_paths_that_may_come(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a/b", "...", "..a", "a..", ".a/b.", "a\nb", "\xff\xfe", " "};
    static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a/../b", "./a"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(file_path_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(file_path_valid(bad[i]));
    char path[5000];
    memset(path, 'a', sizeof path);
    path[FILE_NAME_MAX] = '\0';
    assert_true(file_path_valid(path));
    path[FILE_NAME_MAX] = 'a';
    path[FILE_NAME_MAX + 1] = '\0';
    assert_false(file_path_valid(path));
    for (size_t i = 0; i < sizeof path; i++) /* depth: components of one byte */
        path[i] = i % 2 == 0 ? 'a' : '/';
    path[2 * FILE_DEPTH_MAX - 1] = '\0';
    assert_true(file_path_valid(path));
    path[2 * FILE_DEPTH_MAX - 1] = '/';
    path[2 * FILE_DEPTH_MAX + 1] = '\0';
    assert_false(file_path_valid(path));
    for (size_t i = 0; i < sizeof path; i++) /* length */
        path[i] = i % 200 == 199 ? '/' : 'a';
    path[FILE_PATH_MAX] = '\0';
    assert_true(file_path_valid(path));
    path[FILE_PATH_MAX] = 'a';
    path[FILE_PATH_MAX + 1] = '\0';
    assert_false(file_path_valid(path));
}

static void test_links_that_stay_inside(void **state)
{
    (void)state;
    static const struct {
        const char *path, *target;
        bool inside;
    } cases[] = {
        {"l", "a", true},
        {"l", "a/b", true},
        {"l", ".", true},
        {"d/l", "..", true},
        {"d/l", "../x", true},
        {"d/e/l", "../../x", true},
        {"l", "./a", true},
        {"d/l", ".././/x/", true},
        {"l", "..", false},
        {"l", "../x", false},
        {"d/l", "../../x", false},
        {"l", "/etc", false},
        {"l", "", false},
        {"", "x", false},
        {"l", "a/../b", false},
        {"d/l", "x/..", false},
        {"d/e/l", "../x/../..", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (file_link_inside(cases[i].path, cases[i].target) != cases[i].inside)
            fail_msg("%s -> %s", cases[i].path, cases[i].target);
}

static void test_base_names(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"a", "a"},  {"/a/b", "b"}, {"a/b/", "b"}, {"a/b//", "b"},
                                           {"a/.", ""}, {".", ""},     {"/", ""},     {"", ""},
                                           {"..", ""},  {"a/..", ""},  {"a/./", ""},  {".x", ".x"}};
    char name[FILE_NAME_MAX + 1];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(file_base_name(cases[i][0], name));
        assert_string_equal(name, cases[i][1]);
    }
    char path[400];
    memset(path, 'a', sizeof path);
    path[300] = '\0';
    assert_false(file_base_name(path, name));
}

/* --- records -------------------------------------------------------------------------------------- */

static void make_sample(struct records *stream)
{
    stream_begin(stream);
    stream_entry(stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(stream, FILE_REGULAR, "a\nb", "", 15);
    stream_data(stream, "hello");
    tree_encode_hole(&stream->encoder, 10);
    tree_encode_sum(&stream->encoder);
    stream_entry(stream, FILE_SYMLINK, "l", "a\nb", 0);
    stream_entry(stream, FILE_HARDLINK, "h", "a\nb", 0);
    tree_encode_skip(&stream->encoder, FILE_FIFO, "pipe");
    stream_entry(stream, FILE_DIRECTORY_DONE, "", "", 0);
    tree_encode_end(&stream->encoder);
}

/* What tree_check says of a whole stream; "" when all is right. */
static const char *verdict(const uint8_t *bytes, size_t size, struct tree_check *check)
{
    tree_check_init(check, 0, 0);
    while (size > 0) {
        struct file_record record;
        /* exact, so that a sanitizer sees a read past the end */
        uint8_t *exact = malloc(size);
        memcpy(exact, bytes, size);
        ptrdiff_t taken = file_record_decode(exact, size, &record);
        const char *wrong = taken < 0 ? "malformed" : tree_check_record(check, &record);
        free(exact);
        if (wrong != NULL)
            return wrong;
        bytes += taken;
        size -= (size_t)taken;
    }
    return check->ended ? "" : "no end";
}

static void test_records_come_back_as_they_were(void **state)
{
    (void)state;
    struct records stream;
    struct tree_check check;
    make_sample(&stream);
    assert_string_equal(verdict(stream.bytes, stream_size(&stream), &check), "");
    assert_int_equal(check.entries, 4);
    assert_int_equal(check.bytes, 15);
    assert_int_equal(check.data_bytes, 5);
    assert_int_equal(check.skipped, 1);
    struct file_record record;
    const uint8_t *next = stream.bytes;
    size_t left = stream_size(&stream);
    ptrdiff_t taken = file_record_decode(next, left, &record);
    assert_int_equal(record.type, FILE_DIRECTORY);
    taken += file_record_decode(next + taken, left - (size_t)taken, &record);
    assert_int_equal(record.kind, RECORD_ENTRY);
    assert_int_equal(record.type, FILE_REGULAR);
    assert_int_equal(record.mode, 0755);
    assert_int_equal(record.mtime_s, 1000000000);
    assert_int_equal(record.size, 15);
    assert_string_equal(record.path, "a\nb");
    file_record_decode(next + taken, left - (size_t)taken, &record);
    assert_int_equal(record.kind, RECORD_DATA);
    assert_int_equal(record.data_size, 5);
    assert_memory_equal(record.data, "hello", 5);
}

static void test_the_sum_of_a_file_is_its_sha256(void **state)
{
    (void)state;
    struct records stream;
    char text[65] = "";
    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 3);
    stream_data(&stream, "abc");
    uint8_t *sum = stream.encoder.out.next;
    tree_encode_sum(&stream.encoder);
    hex(sum + 1, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_a_stream_cut_anywhere_is_not_whole(void **state)
{
    (void)state;
    struct records stream;
    struct tree_check check;
    make_sample(&stream);
    for (size_t cut = 0; cut < stream_size(&stream); cut++)
        assert_string_not_equal(verdict(stream.bytes, cut, &check), "");
}

static void test_any_changed_bit_is_noticed(void **state)
{
    (void)state;
    struct records stream;
    struct tree_check check;
    make_sample(&stream);
    for (size_t bit = 0; bit < stream_size(&stream) * 8; bit++) {
        stream.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        if (verdict(stream.bytes, stream_size(&stream), &check)[0] == '\0')
            fail_msg("bit %zu", bit);
        stream.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

static void assert_refused(struct records *stream, const char *why)
{
    struct tree_check check;
    assert_string_equal(verdict(stream->bytes, stream_size(stream), &check), why);
}

static void test_malformed_records_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum file_type type;
        const char *path, *link;
        uint64_t size;
    } entries[] = {
        {FILE_REGULAR, "/etc/passwd", "", 0},
        {FILE_REGULAR, "../x", "", 0},
        {FILE_REGULAR, "a/../../x", "", 0},
        {FILE_REGULAR, "a/", "", 0},
        {FILE_REGULAR, ".", "", 0},
        {FILE_DIRECTORY, "a", "", 1},
        {FILE_SYMLINK, "a", "", 0},
        {FILE_SYMLINK, "a", "b", 1},
        {FILE_REGULAR, "a", "b", 0},
        {FILE_HARDLINK, "a", "../b", 0},
        {FILE_HARDLINK, "a", "/b", 0},
        {FILE_REGULAR, "a", "", UINT64_MAX},
        {FILE_HARDLINK, "a", "", 0},
        {(enum file_type)0, "a", "", 0},
        {FILE_FIFO, "a", "", 0},
        {FILE_DEVICE, "a", "", 0},
        {(enum file_type)200, "a", "", 0},
        {FILE_DIRECTORY, "a", "b", 0},
    };
    struct records stream;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        stream_begin(&stream);
        stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
        stream_entry(&stream, entries[i].type, entries[i].path, entries[i].link, entries[i].size);
        assert_refused(&stream, "malformed");
    }
    stream_begin(&stream);
    wire_put_u8(&stream.encoder.out, 99);
    assert_refused(&stream, "malformed");
    stream_begin(&stream);
    wire_put_u8(&stream.encoder.out, RECORD_DATA); /* longer than what is there */
    wire_put_u32(&stream.encoder.out, UINT32_MAX);
    wire_put_bytes(&stream.encoder.out, "abc", 3);
    assert_refused(&stream, "malformed");
    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 5);
    tree_encode_hole(&stream.encoder, 0);
    assert_refused(&stream, "malformed");
    stream_begin(&stream);
    tree_encode_fail(&stream.encoder, 0x1000, "", "no errno: its lower half says that all is well");
    assert_refused(&stream, "malformed");
    struct file_record nanoseconds = {.type = FILE_DIRECTORY, .mtime_ns = 1000000000, .path = "", .link = ""};
    stream_begin(&stream);
    tree_encode_entry(&stream.encoder, &nanoseconds);
    assert_refused(&stream, "malformed");
}

static void test_the_grammar_is_kept(void **state)
{
    (void)state;
    struct records stream;
    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "a", "", 0);
    assert_refused(&stream, "the stream does not begin with the root of its tree");

    stream_begin(&stream);
    stream_file(&stream, "", "x");
    stream_file(&stream, "b", "x");
    assert_refused(&stream, "something follows a root that is no directory");

    stream_begin(&stream);
    stream_entry(&stream, FILE_SYMLINK, "", "/etc", 0);
    stream_file(&stream, "passwd", "x");
    assert_refused(&stream, "something follows a root that is no directory");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    assert_refused(&stream, "the root comes a second time");

    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 3);
    stream_data(&stream, "abcd");
    assert_refused(&stream, "content comes that was not announced");

    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 3);
    tree_encode_hole(&stream.encoder, 4);
    assert_refused(&stream, "content comes that was not announced");

    stream_begin(&stream);
    stream_entry(&stream, FILE_REGULAR, "", "", 3);
    stream_data(&stream, "ab");
    tree_encode_sum(&stream.encoder);
    assert_refused(&stream, "a file is shorter than announced");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_data(&stream, "ab");
    assert_refused(&stream, "content comes that was not announced");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_REGULAR, "a", "", 3);
    stream_entry(&stream, FILE_REGULAR, "b", "", 3);
    assert_refused(&stream, "an entry begins before the file before it is complete");

    stream_begin(&stream);
    stream_entry(&stream, FILE_DIRECTORY, "", "", 0);
    stream_entry(&stream, FILE_REGULAR, "a", "", 3);
    stream_data(&stream, "abc");
    tree_encode_end(&stream.encoder);
    assert_refused(&stream, "the stream ends too early");

    stream_begin(&stream);
    tree_encode_end(&stream.encoder);
    assert_refused(&stream, "the stream ends too early");

    stream_begin(&stream);
    stream_file(&stream, "", "x");
    tree_encode_end(&stream.encoder);
    tree_encode_sum(&stream.encoder);
    assert_refused(&stream, "something follows the end");

    stream_begin(&stream);
    stream_file(&stream, "", "x");
    stream.encoder.entries++;
    tree_encode_end(&stream.encoder);
    assert_refused(&stream, "what has come does not have the counts and the sum that were sent with it");
}

static void test_limits_hold(void **state)
{
    (void)state;
    struct records stream;
    struct tree_check check;
    struct file_record record;
    make_sample(&stream);
    for (unsigned bytes = 0; bytes < 2; bytes++) {
        const char *wrong = NULL;
        const uint8_t *next = stream.bytes;
        tree_check_init(&check, bytes ? 0 : 3, bytes ? 4 : 0);
        while (wrong == NULL && next < stream.encoder.out.next) {
            next += file_record_decode(next, (size_t)(stream.encoder.out.next - next), &record);
            wrong = tree_check_record(&check, &record);
        }
        assert_string_equal(wrong, bytes ? "there are more bytes than allowed" : "there are more entries than allowed");
        assert_non_null(tree_check_record(&check, &record)); /* and it stays refused */
    }
}

/* --- PUT, GET, FILE_RESULT ------------------------------------------------------------------------ */

static void test_requests_come_back_as_they_were(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_PUT_BYTES_MAX];
    struct message_put put = {.flags = PUT_MAKE_PARENTS, .destination = "/workspace/x/", .name = "n"}, put_out;
    size_t size = message_put_encode(&put, bytes);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(message_put_decode(bytes, cut, &put_out), -1);
    assert_int_equal(message_put_decode(bytes, size, &put_out), 0);
    assert_string_equal(put_out.destination, "/workspace/x/");
    assert_string_equal(put_out.name, "n");
    assert_int_equal(message_put_decode(bytes, size + 1, &put_out), -1);

    static const struct message_put bad[] = {{.destination = "x", .name = ""},
                                             {.destination = "", .name = ""},
                                             {.destination = "/x", .name = ".."},
                                             {.destination = "/x", .name = "a/b"},
                                             {.flags = 2, .destination = "/x", .name = ""}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(message_put_decode(bytes, message_put_encode(&bad[i], bytes), &put_out), -1);

    struct message_get get = {.max_bytes = 1ULL << 40, .max_entries = 7, .source = "/tmp"}, get_out;
    size = message_get_encode(&get, bytes);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(message_get_decode(bytes, cut, &get_out), -1);
    assert_int_equal(message_get_decode(bytes, size, &get_out), 0);
    assert_true(get_out.max_bytes == 1ULL << 40);
    assert_string_equal(get_out.source, "/tmp");

    uint8_t long_bytes[MESSAGE_FILE_RESULT_BYTES_MAX];
    struct message_file_result result = {.error = ENOSPC, .entries = 3, .bytes = 9, .path = "a/b", .text = "why"}, out;
    size = message_file_result_encode(&result, long_bytes);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(message_file_result_decode(long_bytes, cut, &out), -1);
    assert_int_equal(message_file_result_decode(long_bytes, size, &out), 0);
    assert_int_equal(out.error, ENOSPC);
    assert_string_equal(out.path, "a/b");
    assert_string_equal(out.text, "why");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_has_the_standard_s_values),
        cmocka_unit_test(test_sha256_is_the_same_in_any_pieces_and_both_versions),
        cmocka_unit_test(test_paths_that_may_come),
        cmocka_unit_test(test_links_that_stay_inside),
        cmocka_unit_test(test_base_names),
        cmocka_unit_test(test_records_come_back_as_they_were),
        cmocka_unit_test(test_the_sum_of_a_file_is_its_sha256),
        cmocka_unit_test(test_a_stream_cut_anywhere_is_not_whole),
        cmocka_unit_test(test_any_changed_bit_is_noticed),
        cmocka_unit_test(test_malformed_records_are_refused),
        cmocka_unit_test(test_the_grammar_is_kept),
        cmocka_unit_test(test_limits_hold),
        cmocka_unit_test(test_requests_come_back_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
