/* `warmpoold image build`: makes the default agent image of the host's static busybox, without a registry.
 * `warmpoold image pull REF`: pulls an image as the pools do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "config/login.h"
#include "config/reference.h"
#include "daemon/image.h"
#include "daemon/verbs.h"
#include "engine/engine.h"

#define MB           1000000U
#define PULL_LINE_US 1000000U /* between two lines of progress where lines cannot be rewritten */

struct imaging {
    struct engine *engine;
    const struct config *config;
    const char *name; /* of the image: to be made, or as it was asked for */
    char *reference;  /* to pull by */
    bool terminal;    /* stderr is one */
    char line[768];   /* of progress, not said yet */
    uint64_t said_us;
    int code;
};

static void fail(struct imaging *imaging, const struct error *error)
{
    fprintf(stderr, "warmpool: %s\n", error->message);
    engine_close(imaging->engine, NULL, NULL);
}

/* --- build ---------------------------------------------------------------------------------------- */

static void on_built(void *user, const char *id, const struct error *error)
{
    struct imaging *imaging = user;
    if (error != NULL) {
        fail(imaging, error);
        return;
    }
    printf("%s %s\n", imaging->name, id);
    imaging->code = 0;
    engine_close(imaging->engine, NULL, NULL);
}

static void build(struct imaging *imaging)
{
    image_build(imaging->engine, imaging->name, on_built, imaging);
}

/* --- pull ----------------------------------------------------------------------------------------- */

static void say(struct imaging *imaging)
{
    fprintf(stderr, "%s%s%s", imaging->terminal ? "\r" : "", imaging->line, imaging->terminal ? "\033[K" : "\n");
    imaging->said_us = clock_us();
    imaging->line[0] = '\0';
}

static void on_progress(void *user, const struct pull_progress *progress)
{
    struct imaging *imaging = user;
    snprintf(imaging->line, sizeof(imaging->line), "pulling %s: %llu of %llu MB, %u of %u layers, %s",
             imaging->reference, (unsigned long long)progress->bytes / MB,
             (unsigned long long)progress->total_bytes / MB, progress->layers_done, progress->layers, progress->words);
    if (imaging->terminal || imaging->said_us == 0 || clock_us() - imaging->said_us >= PULL_LINE_US)
        say(imaging);
}

/* Of another architecture its programs would only fail one by one, each with "exec format error". */
static int check_architecture(const struct imaging *imaging, const struct image_status *status, struct error *err)
{
    const char *ours = engine_info(imaging->engine)->architecture;
    bool other = status->architecture[0] != '\0' && ours[0] != '\0' && strcmp(status->architecture, ours) != 0;
    if (other || (status->os[0] != '\0' && strcmp(status->os, "linux") != 0))
        return error_set(err, ERROR_INVALID,
                         "image %s was pulled, but is made for %.32s/%.32s; the engine's host is linux/%s",
                         imaging->reference, status->os, status->architecture, ours);
    return 0;
}

static void on_pulled_status(void *user, const struct image_status *status, const struct error *error)
{
    struct imaging *imaging = user;
    struct error trouble = ERROR_INIT;
    if (error == NULL && check_architecture(imaging, status, &trouble) < 0)
        error = &trouble;
    if (error != NULL) {
        fail(imaging, error);
        return;
    }
    printf("%s %s\n", imaging->reference, status->digest);
    imaging->code = 0;
    engine_close(imaging->engine, NULL, NULL);
}

static void on_pulled(void *user, const struct error *error)
{
    struct imaging *imaging = user;
    if (imaging->terminal || imaging->line[0] != '\0')
        say(imaging);
    if (error != NULL)
        fail(imaging, error);
    else
        engine_image_inspect(imaging->engine, imaging->reference, on_pulled_status, imaging);
}

static void pull(struct imaging *imaging)
{
    struct error error = ERROR_INIT;
    struct login login;
    int found =
        login_find(&login, imaging->config, imaging->config->defaults.docker_registry, imaging->reference, &error);
    if (found < 0) {
        fail(imaging, &error);
        return;
    }
    struct registry_auth auth = {.username = login.username,
                                 .password = login.password,
                                 .identity_token = login.identity_token,
                                 .server = login.server};
    imaging->terminal = isatty(STDERR_FILENO) == 1;
    engine_image_pull(imaging->engine, imaging->reference, found > 0 ? &auth : NULL, on_progress, on_pulled, imaging);
    login_forget(&login);
}

static void on_opened(void *user, const struct error *error)
{
    struct imaging *imaging = user;
    if (error != NULL)
        fail(imaging, error);
    else if (imaging->reference != NULL)
        pull(imaging);
    else
        build(imaging);
}

/* --- both ----------------------------------------------------------------------------------------- */

static int run(struct imaging *imaging)
{
    uv_loop_t loop;
    struct error error = ERROR_INIT;
    uv_loop_init(&loop);
    struct engine_options options = {
        .loop = &loop, .host = imaging->config->docker_host, .cert_path = imaging->config->docker_cert_path};
    imaging->code = 1;
    if (engine_open(&imaging->engine, &options, on_opened, imaging, &error) < 0)
        fprintf(stderr, "warmpool: %s\n", error.message);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return fflush(stdout) == 0 ? imaging->code : 1;
}

static int run_build(const struct config *config, const char *tag)
{
    struct imaging imaging = {.config = config, .name = tag != NULL ? tag : config->defaults.image};
    return run(&imaging);
}

static int run_pull(const struct config *config, const char *name)
{
    struct error error = ERROR_INIT;
    struct imaging imaging = {.config = config, .name = name};
    if (reference_check(name, &error) < 0) {
        fprintf(stderr, "warmpool: image pull: %s\n", error.message);
        return 2;
    }
    imaging.reference = reference_at(config->defaults.docker_registry, name);
    int code = imaging.reference != NULL ? run(&imaging) : 1;
    free(imaging.reference);
    return code;
}

static void usage(void)
{
    printf("usage: warmpool image build [--tag TAG] [--config FILE] [--set KEY=VALUE ...]\n"
           "       warmpool image pull REFERENCE [--config FILE] [--set KEY=VALUE ...]\n\n"
           "build makes a small agent image (busybox, CA certificates) and gives it TAG; without one, the dockerImage "
           "of the\n"
           "configuration. No registry is needed.\n"
           "pull brings an image from its registry, or from dockerRegistry when REFERENCE names none, with the login "
           "of\n"
           "registryAuth, and prints what it pulled and its digest.\n");
}

int verb_image(int argc, char *argv[])
{
    struct daemon_arguments arguments;
    if (arguments_read(&arguments, argc, argv) < 0)
        return 2;
    const char *what = arguments.rest_count > 0 ? arguments.rest[0] : "";
    bool builds = strcmp(what, "build") == 0 && arguments.rest_count == 1;
    bool pulls = strcmp(what, "pull") == 0 && arguments.rest_count == 2 && arguments.tag == NULL;
    int code = 2;
    if (arguments.help || (!builds && !pulls)) {
        usage();
        code = arguments.help ? 0 : 2;
    } else {
        struct config *config = arguments_config(&arguments);
        if (config != NULL)
            code = builds ? run_build(config, arguments.tag) : run_pull(config, arguments.rest[1]);
        config_free(config);
    }
    arguments_free(&arguments);
    return code;
}
