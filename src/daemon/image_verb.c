/* `warmpoold image build`: makes the default agent image of the host's static busybox, without a registry. */
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "daemon/image.h"
#include "daemon/verbs.h"
#include "engine/engine.h"

struct building {
    struct engine *engine;
    const char *tag;
    int code;
};

static void on_built(void *user, const char *id, const struct error *error)
{
    struct building *building = user;
    if (error != NULL)
        fprintf(stderr, "warmpool: %s\n", error->message);
    else
        printf("%s %s\n", building->tag, id);
    building->code = error != NULL ? 1 : 0;
    engine_close(building->engine, NULL, NULL);
}

static void on_opened(void *user, const struct error *error)
{
    struct building *building = user;
    if (error == NULL) {
        image_build(building->engine, building->tag, on_built, building);
        return;
    }
    fprintf(stderr, "warmpool: %s\n", error->message);
    engine_close(building->engine, NULL, NULL);
}

int verb_image(int argc, char *argv[])
{
    struct daemon_arguments arguments;
    if (arguments_read(&arguments, argc, argv) < 0)
        return 2;
    if (arguments.help || arguments.rest_count != 1 || strcmp(arguments.rest[0], "build") != 0) {
        printf("usage: warmpool image build [--tag TAG] [--config FILE] [--set KEY=VALUE ...]\n\n"
               "Makes a small agent image (busybox, CA certificates) and gives it TAG; without one, the dockerImage of "
               "the\n"
               "configuration. No registry is needed.\n");
        arguments_free(&arguments);
        return arguments.help ? 0 : 2;
    }
    struct config *config = arguments_config(&arguments);
    struct building building = {.code = 1};
    uv_loop_t loop;
    uv_loop_init(&loop);
    if (config != NULL) {
        struct error error = ERROR_INIT;
        struct engine_options options = {
            .loop = &loop, .host = config->docker_host, .cert_path = config->docker_cert_path};
        building.tag = arguments.tag != NULL ? arguments.tag : config->defaults.image;
        if (engine_open(&building.engine, &options, on_opened, &building, &error) < 0)
            fprintf(stderr, "warmpool: %s\n", error.message);
        uv_run(&loop, UV_RUN_DEFAULT);
    }
    uv_loop_close(&loop);
    bool loaded = config != NULL;
    config_free(config);
    arguments_free(&arguments);
    return loaded ? building.code : 2;
}
