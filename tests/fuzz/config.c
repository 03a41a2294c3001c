/* Mutated configuration texts. Whatever the text: an answer within a moment, either a configuration or an error that
 * says something and names the file; and what is accepted prints as a configuration that means the same.
 *
 *     config [SECONDS [SEED]] FILE...: first the files as they are, then mutations of them. With sanitizers it finds
 * more.
 *
 * A text that takes too long or that is wrong is left in ./fuzz-config-failed. The entry point is libFuzzer's, too:
 * clang -fsanitize=fuzzer -DLIBFUZZER. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "config/config.h"

#define TEXT_MAX_BYTES 65536U
#define MOMENT_S       5U
#define FAILED_FILE    "fuzz-config-failed"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libfyaml 0.7.12 loses some memory when it gives up on a few texts. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libfyaml";
}

static const uint8_t *current;
static size_t current_size, accepted;

static void keep_current(void)
{
    FILE *file = fopen(FAILED_FILE, "w");
    if (file == NULL)
        return;
    fwrite(current, 1, current_size, file);
    fclose(file);
}

static void fail(const char *what, const char *detail)
{
    keep_current();
    printf("not ok - %s: %.300s; the text is in " FAILED_FILE "\n", what, detail);
    fflush(stdout);
    abort();
}

static void on_alarm(int number)
{
    static const char text[] = "not ok - a text took too long; it is in " FAILED_FILE "\n";
    (void)number;
    keep_current(); /* whatever it interrupts: the process ends here */
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    _exit(1);
}

static void check_error(const struct error *error)
{
    if (error->code != ERROR_INVALID || error->message[0] == '\0')
        fail("an error that says nothing", error->message);
    for (const char *c = error->message; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            fail("a control character in a message", error->message);
}

static void drop(void *user, const char *text)
{
    *(size_t *)user += strlen(text);
}

/* Without the comments that say where a value comes from. */
static void cut_origins(struct buffer *printed)
{
    char *text = buffer_take(printed, NULL), *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        size_t length = strlen(line);
        for (size_t i = length; i-- > 0 && length == strlen(line);)
            if (strncmp(line + i, "  # ", 4) == 0)
                length = i;
        buffer_append(printed, line, length);
        buffer_append_string(printed, "\n");
    }
    free(text);
}

static void check_same(const struct config *config)
{
    struct buffer first = {0}, second = {0};
    struct error error = ERROR_INIT;
    config_print_effective(config, &first);
    /* A login is printed as ***. */
    struct config *again = config_parse(buffer_text(&first), buffer_length(&first), "printed", false, NULL, 0, &error);
    if (again == NULL)
        fail("what is printed is refused", error.message);
    config_print_effective(again, &second);
    cut_origins(&first);
    cut_origins(&second);
    if (strcmp(buffer_text(&first), buffer_text(&second)) != 0)
        fail("what is printed means something else", buffer_text(&second));
    config_free(again);
    buffer_free(&first);
    buffer_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error error = ERROR_INIT;
    size_t warned = 0;
    current = data;
    current_size = size;
    struct config *config = config_parse((const char *)data, size, "fuzz", false, NULL, 0, &error);
    if (config == NULL) {
        check_error(&error);
        return 0;
    }
    accepted++;
    config_warnings(config, drop, &warned);
    if (size < 16384) /* printed, it is much larger */
        check_same(config);
    config_free(config);
    return 0;
}

#ifndef LIBFUZZER

/* --- mutations ---------------------------------------------------------------------------------------------------- */

struct text {
    uint8_t bytes[TEXT_MAX_BYTES];
    size_t size;
};

static const char *const words[] = {
    "&a ",
    "*a",
    "<<: ",
    "!!int ",
    "%YAML 1.2\n",
    "---\n",
    "...\n",
    "- ",
    "? ",
    ": ",
    "|\n",
    ">-\n",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "#",
    "\t",
    "\r\n",
    "\r",
    "\n",
    "\n  ",
    "\n    ",
    "\xef\xbb\xbf",
    "\xc0\x80",
    "\xed\xa0\x80",
    "\xe2\x80\xa8",
    "\xc2\x85",
    "\\0",
    "\\x1b",
    "~",
    "null",
    "-1",
    "0",
    "1e9",
    "99999999999999999999",
    "4294967296",
    "9007199254740993",
    "1024g",
    "0.0001",
    "100%",
    "5m",
    "-5m",
    "true",
    "false",
    "poolSize",
    "maxPoolSize: 3\n",
    "minPoolSize: 9\n",
    "agentConfigs:\n  coder:\n    ",
    "memory: 64m\n",
    "cpuQuota: 30000\n",
    "environment: {A: b}\n",
    "tmpfsLimits: {/tmp: 1m}\n",
    "volumeMounts: [\"/a:/b:rw\"]\n",
    "ulimits: {nofile: \"1:2\"}\n",
    "resourceLimits: {maxMemory: 64m, priority: low}\n",
    "registryAuth: {username: u, password: p}\n",
    "user: \"1:2\"\n",
    "warmupAgentTypes: [a, b]\n",
    "uidRange: 1-5\n",
    "networkSubnetPool: 10.0.0.0/8\n",
    "image: a\n",
    "securityOpts: [\"a=b\"]\n",
};

static uint64_t seed;

static size_t any(size_t below) /* xorshift */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below == 0 ? 0 : (size_t)(seed % below);
}

static void insert(struct text *text, size_t at, const void *bytes, size_t size)
{
    if (text->size + size > TEXT_MAX_BYTES)
        return;
    memmove(text->bytes + at + size, text->bytes + at, text->size - at);
    memcpy(text->bytes + at, bytes, size);
    text->size += size;
}

static void delete (struct text *text, size_t at, size_t size)
{
    if (size > text->size - at)
        size = text->size - at;
    memmove(text->bytes + at, text->bytes + at + size, text->size - at - size);
    text->size -= size;
}

static void repeat(struct text *text)
{
    uint8_t piece[64];
    size_t at = any(text->size), size = 1 + any(sizeof piece - 1), times = 1 + any(any(8) == 0 ? 600 : 6);
    if (size > text->size - at)
        size = text->size - at;
    memcpy(piece, text->bytes + at, size);
    for (size_t i = 0; i < times; i++)
        insert(text, at, piece, size);
}

static void splice(struct text *text, const struct text *other)
{
    size_t at = any(text->size + 1), from = any(other->size), size = any(other->size - from);
    uint8_t piece[1024];
    if (size > sizeof piece)
        size = sizeof piece;
    memcpy(piece, other->bytes + from, size);
    insert(text, at, piece, size);
}

static void mutate(struct text *text, const struct text *other)
{
    const char *word = words[any(sizeof words / sizeof words[0])];
    uint8_t byte = (uint8_t)any(256);
    switch (any(8)) {
    case 0:
        if (text->size > 0)
            text->bytes[any(text->size)] = byte;
        break;
    case 1:
        if (text->size > 0)
            text->bytes[any(text->size)] ^= (uint8_t)(1U << any(8));
        break;
    case 2:
        insert(text, any(text->size + 1), &byte, 1);
        break;
    case 3:
    case 4:
        insert(text, any(text->size + 1), word, strlen(word));
        break;
    case 5:
        delete (text, any(text->size + 1), 1 + any(any(4) == 0 ? 200 : 8));
        break;
    case 6:
        if (text->size > 0)
            repeat(text);
        break;
    default:
        if (other->size > 0)
            splice(text, other);
    }
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static size_t read_texts(struct text *texts, char *paths[], size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        FILE *file = fopen(paths[i], "r");
        if (file == NULL)
            continue;
        texts[kept].size = fread(texts[kept].bytes, 1, TEXT_MAX_BYTES, file);
        fclose(file);
        alarm(MOMENT_S);
        LLVMFuzzerTestOneInput(texts[kept].bytes, texts[kept].size);
        kept++;
    }
    return kept;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char *argv[])
{
    double until = seconds() + (argc > 1 ? atof(argv[1]) : 10.0);
    uint64_t begun = argc > 2 && strtoull(argv[2], NULL, 0) != 0 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
    size_t count = argc > 3 ? (size_t)argc - 3 : 0, tried = 0;
    struct text *texts = calloc(count + 1, sizeof *texts), *text = malloc(sizeof *text);
    if (texts == NULL || text == NULL)
        return 2;
    signal(SIGALRM, on_alarm);
    seed = begun;
    count = read_texts(texts, argv + 3, count);
    printf("ok - %zu texts as they are\n", count);
    for (; seconds() < until; tried++) {
        memcpy(text, &texts[any(count)], sizeof *text);
        for (size_t i = 1 + any(6); i > 0; i--)
            mutate(text, &texts[any(count)]);
        alarm(MOMENT_S);
        LLVMFuzzerTestOneInput(text->bytes, text->size);
    }
    alarm(0);
    printf("ok - %zu mutations of them, %zu accepted, seed %llu\n", tried, accepted, (unsigned long long)begun);
    free(texts);
    free(text);
    return count > 0 ? 0 : 1;
}

#endif
