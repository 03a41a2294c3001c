/* What Podman's service, which speaks the Docker Engine API as well as its own, does another way. */
#pragma once

#include <jansson.h>

#include "base/error.h"

#define PODMAN_CREATE "/v4.0.0/libpod/containers/create" /* the version that Podman 4 and 5 both take */

/* A container as spec_container() describes it, in the form of Podman's own API; NULL with an error. */
json_t *podman_container(const json_t *docker, const char *name, struct error *err);
