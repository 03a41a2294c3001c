#include "engine/docker/docker.h"

void docker_image_pull(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user)
{
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_ENGINE, "not yet");
    done(user, &error);
}
