/* A container_spec as the JSON that the Docker Engine API takes (POST /containers/create). */
#pragma once

#include <jansson.h>

#include "engine/engine.h"

/* NULL with ERROR_INVALID when the spec lacks something or holds a text that is not UTF-8. */
json_t *spec_container(const struct container_spec *spec, struct error *err);
/* Engines on cgroup v2 refuse or warn about memory_swappiness, which that has not. */
void spec_drop_swappiness(json_t *container);
json_t *spec_network(const struct network_spec *spec, struct error *err);
json_t *spec_volume(const char *name, const struct engine_label *labels, size_t count, struct error *err);
