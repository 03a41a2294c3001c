/* One suite for every engine: each call and its classes of error, against the real thing at $DOCKER_HOST. All objects
 * carry LABEL with this run's value and are gone at the end. Its image is made by engine_image_import() itself. */
#include <curl/curl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "conformance.h"
#include "daemon/image.h"

/* One engine for all tests but those that open their own. */
static int suite_up(void **state)
{
    struct fixture *f = fixture_new();
    struct result opened = result_of(f), image = result_of(f);
    fixture_open(f, NULL, 30000, 0, &opened);
    expect_ok(&opened);
    CALL(f, image_build(f->engine, TEST_IMAGE, on_id, &image));
    expect_ok(&image);
    assert_int_equal(strncmp(image.id, "sha256:", 7), 0);
    *state = f;
    return 0;
}

/* The interface has no use for this, so the suite goes past it. */
static void test_image_remove(struct fixture *f)
{
    CURL *easy = curl_easy_init();
    assert_non_null(easy);
    const char *host = engine_info(f->engine)->host, *certificates = getenv("DOCKER_CERT_PATH");
    char url[256];
    bool local = strncmp(host, "unix://", 7) == 0;
    if (local)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, host + 7);
    snprintf(url, sizeof(url), "http%s://%s/images/" TEST_IMAGE "?force=1", !local && certificates != NULL ? "s" : "",
             local ? "docker" : host + strlen("tcp://"));
    curl_easy_setopt(easy, CURLOPT_URL, url);
    static const struct {
        CURLoption option;
        const char *name;
    } files[] = {{CURLOPT_CAINFO, "ca.pem"}, {CURLOPT_SSLCERT, "cert.pem"}, {CURLOPT_SSLKEY, "key.pem"}};
    for (size_t i = 0; certificates != NULL && i < 3; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", certificates, files[i].name);
        curl_easy_setopt(easy, files[i].option, path);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    assert_int_equal(curl_easy_perform(easy), CURLE_OK);
    curl_easy_cleanup(easy);
}

typedef void list_call(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);
typedef void remove_call(struct engine *engine, const char *id, engine_done_fn *done, void *user);

/* Removes what a failed test left, and says how much that was. */
static size_t sweep(struct fixture *f, list_call *list, remove_call *remove)
{
    size_t left = 0;
    for (;; left++) {
        struct result listed = result_of(f), removed = result_of(f);
        list(f->engine, LABEL, f->label, on_list, &listed);
        expect_ok(&listed);
        if (listed.count == 0)
            return left;
        remove(f->engine, listed.id, on_done, &removed);
        expect_ok(&removed);
    }
}

static int suite_down(void **state)
{
    struct fixture *f = *state;
    size_t left = sweep(f, engine_container_list, engine_container_remove);
    left += sweep(f, engine_network_list, engine_network_remove);
    left += sweep(f, engine_volume_list, engine_volume_remove);
    test_image_remove(f);
    fixture_free(f);
    assert_int_equal(left, 0);
    return 0;
}

static const char *const sleeps[] = {"/bin/sleep", "600", NULL};

void made_spec(struct fixture *f, struct made *made, const char *name)
{
    static const struct engine_tmpfs tmpfs[] = {{"/tmp", 4 * MIB, 300, false}, {"/workspace", 8 * MIB, 400, true}};
    static const struct engine_ulimit ulimits[] = {{"nofile", 512, 1024}, {"nproc", 1024, 1024}};
    static const char *const env[] = {"WORDS=a b\"c", NULL};
    snprintf(made->name, sizeof(made->name), "wp-test-%d-%s", (int)getpid(), name);
    made->labels[0] = (struct engine_label){LABEL, f->label};
    made->spec = (struct container_spec){
        .name = made->name,
        .image = TEST_IMAGE,
        .entrypoint = sleeps,
        .env = env,
        .user = "2000000000:2000000000",
        .workdir = "/workspace",
        .hostname = "coder-1",
        .labels = made->labels,
        .label_count = 1,
        .memory_bytes = 64 * MIB,
        .cpu_milli = 500,
        .pids_limit = 64,
        .oom_score_adj = 100,
        .memory_swappiness = 0,
        .shm_bytes = 2 * MIB,
        .shm_inodes = 200,
        .ulimits = ulimits,
        .ulimit_count = 2,
        .tmpfs = tmpfs,
        .tmpfs_count = 2,
        .read_only_root = true,
        .no_new_privileges = true,
        .network = "none",
    };
}

void create_ok(struct fixture *f, const struct container_spec *spec, struct result *result)
{
    *result = result_of(f);
    CALL(f, engine_container_create(f->engine, spec, on_id, result));
    expect_ok(result);
}

void start_ok(struct fixture *f, const char *id)
{
    struct result result = result_of(f);
    CALL(f, engine_container_start(f->engine, id, on_done, &result));
    expect_ok(&result);
}

void remove_ok(struct fixture *f, const char *id)
{
    struct result result = result_of(f);
    CALL(f, engine_container_remove(f->engine, id, on_done, &result));
    expect_ok(&result);
}

static struct result inspect_ok(struct fixture *f, const char *id)
{
    struct result result = result_of(f);
    CALL(f, engine_container_inspect(f->engine, id, on_inspect, &result));
    expect_ok(&result);
    return result;
}

static size_t volume_count(struct fixture *f)
{
    struct result result = result_of(f);
    CALL(f, engine_volume_list(f->engine, LABEL, f->label, on_list, &result));
    expect_ok(&result);
    return result.count;
}

bool is_podman(void)
{
    const char *name = getenv("WARMPOOL_TEST_ENGINE");
    return name != NULL && strcmp(name, "podman") == 0;
}

/* Engines have words of their own; what they mean must be the same. */
static const char *says(const char *docker, const char *podman)
{
    return is_podman() ? podman : docker;
}

static void test_info(void **state)
{
    struct fixture *f = *state;
    const struct engine_info *info = engine_info(f->engine);
    assert_string_equal(info->name, is_podman() ? "podman" : "docker");
    assert_true(strlen(info->version) > 0);
    assert_int_equal(strncmp(info->api_version, "1.4", 3), 0);
    assert_int_equal(info->local, strncmp(info->host, "unix:///", 8) == 0);
    assert_true(info->local || strncmp(info->host, "tcp://", 6) == 0);
    struct utsname machine;
    assert_int_equal(uname(&machine), 0);
    assert_string_equal(info->architecture, strcmp(machine.machine, "x86_64") == 0 ? "amd64" : "arm64");
    assert_int_equal(info->cgroup_v1, access("/sys/fs/cgroup/cgroup.controllers", F_OK) != 0);
    struct result probe = result_of(f), joined = result_of(f);
    CALL(f, engine_probe(f->engine, on_done, &probe));
    CALL(f, engine_probe(f->engine, on_done, &joined));
    expect_ok(&probe);
    expect_ok(&joined);
}

/* --- images --------------------------------------------------------------------------------------- */

static void test_image(void **state)
{
    struct fixture *f = *state;
    struct result image = result_of(f), missing = result_of(f), garbage = result_of(f), change = result_of(f);
    CALL(f, engine_image_inspect(f->engine, TEST_IMAGE, on_image, &image));
    expect_ok(&image);
    assert_int_equal(strncmp(image.id, "sha256:", 7), 0);
    assert_string_equal(image.workdir, "/workspace");
    assert_non_null(strstr(image.env, "PATH=/usr/local/sbin:"));
    assert_true(image.count > MIB);
    assert_int_equal(image.volume_count, 0);
    CALL(f, engine_image_inspect(f->engine, "wp-no-such/image:here", on_image, &missing));
    expect_error(&missing, ERROR_NOT_FOUND,
                 says("No such image: wp-no-such/image:here", "wp-no-such/image:here: No such image"));
    CALL(f, engine_image_import(f->engine, "this is no tar at all", 21, "wp-test-engine:bad", NULL, on_id, &garbage));
    expect_error(&garbage, ERROR_ENGINE, "import image wp-test-engine:bad: ");
    static const char *const nonsense[] = {"FLY away", NULL};
    CALL(f, engine_image_import(f->engine, "", 1, "wp-test-engine:bad", nonsense, on_id, &change));
    expect_error(&change, ERROR_ENGINE, says("not a valid change command", "invalid instruction FLY"));
}

/* --- containers ----------------------------------------------------------------------------------- */

static void test_life(void **state)
{
    struct fixture *f = *state;
    struct made made;
    struct result created, listed = result_of(f), gone = result_of(f);
    made_spec(f, &made, "life");
    create_ok(f, &made.spec, &created);
    assert_int_equal(strlen(created.id), 64);
    struct result status = inspect_ok(f, created.id);
    assert_string_equal(status.state, "created");
    assert_int_equal(status.pid, 0);
    assert_false(status.running);
    start_ok(f, created.id);
    start_ok(f, created.id); /* is so already */
    status = inspect_ok(f, made.name);
    assert_string_equal(status.id, created.id);
    assert_string_equal(status.name, made.name);
    assert_string_equal(status.image, says(TEST_IMAGE, "docker.io/library/" TEST_IMAGE));
    assert_string_equal(status.state, "running");
    assert_string_equal(status.words, "");
    assert_true(status.running);
    assert_true(status.pid > 1);
    CALL(f, engine_container_list(f->engine, LABEL, f->label, on_list, &listed));
    expect_ok(&listed);
    assert_int_equal(listed.count, 1);
    assert_string_equal(listed.id, created.id);
    assert_string_equal(listed.name, made.name);
    assert_string_equal(listed.state, "running");
    /* They carry the label, and go with the container; Podman's anonymous volumes have no labels. */
    assert_int_equal(volume_count(f), is_podman() ? 0 : 2);
    remove_ok(f, created.id);
    assert_int_equal(volume_count(f), 0);
    remove_ok(f, created.id); /* gone is a success */
    CALL(f, engine_container_inspect(f->engine, created.id, on_inspect, &gone));
    expect_error(&gone, ERROR_NOT_FOUND, says("No such container", "no such container"));
}

static void test_errors_of_create_and_start(void **state)
{
    struct fixture *f = *state;
    struct made made, other;
    struct result created, result = result_of(f);
    made_spec(f, &made, "errors");
    create_ok(f, &made.spec, &created);
    CALL(f, engine_container_create(f->engine, &made.spec, on_id, &result));
    expect_error(&result, ERROR_CONFLICT, made.name);
    remove_ok(f, created.id);

    made.spec.image = "wp-no-such-image:here";
    result = result_of(f);
    CALL(f, engine_container_create(f->engine, &made.spec, on_id, &result));
    expect_error(&result, ERROR_NOT_FOUND,
                 says("No such image: wp-no-such-image:here", "wp-no-such-image:here: image not known"));

    struct engine_bind bind = {"/nonexistent/source", "/mnt", false};
    made.spec.image = TEST_IMAGE;
    made.spec.binds = &bind;
    made.spec.bind_count = 1;
    result = result_of(f);
    CALL(f, engine_container_create(f->engine, &made.spec, on_id, &result));
    expect_error(&result, ERROR_ENGINE, "/nonexistent/source");
    assert_int_not_equal(access("/nonexistent", F_OK), 0);

    result = result_of(f);
    CALL(f, engine_container_start(f->engine, "wp-no-such-container", on_done, &result));
    expect_error(&result, ERROR_NOT_FOUND, "wp-no-such-container");

    static const char *const missing[] = {"/bin/no-such-program", NULL};
    made_spec(f, &other, "missing");
    other.spec.entrypoint = missing;
    create_ok(f, &other.spec, &created);
    result = result_of(f);
    CALL(f, engine_container_start(f->engine, created.id, on_done, &result));
    expect_error(&result, ERROR_ENGINE, "no-such-program");
    struct result status = inspect_ok(f, created.id);
    if (!is_podman()) /* that keeps no words of a failed start */
        assert_non_null(strstr(status.words, "no-such-program"));
    remove_ok(f, created.id);
}

/* --- isolation, seen from the host ---------------------------------------------------------------- */

static void proc_read(int64_t pid, const char *file, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%lld/%s", (long long)pid, file);
    FILE *in = fopen(path, "re");
    assert_non_null(in);
    size_t length = fread(out, 1, size - 1, in);
    out[length] = '\0';
    fclose(in);
}

/* The line of mountinfo about `target`, options and super options. */
static void mount_line(const char *mounts, const char *target, char *out, size_t size)
{
    char wanted[128];
    snprintf(wanted, sizeof(wanted), " %s ", target);
    const char *at = strstr(mounts, wanted);
    if (at == NULL)
        fail_msg("%s is no mount", target);
    while (at > mounts && at[-1] != '\n')
        at--;
    snprintf(out, size, "%.*s", (int)strcspn(at, "\n"), at);
}

static void expect_words(const char *text, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strstr(text, *words) == NULL)
            fail_msg("no \"%s\" in: %s", *words, text);
    }
}

#define EXPECT_WORDS(text, ...) expect_words((text), (const char *const[]){__VA_ARGS__, NULL})

/* A file of the container's cgroup, where the engine uses version 1 in the usual place. */
static void expect_cgroup(const char *id, const char *file, const char *controller, const char *content)
{
    char path[256], text[64];
    snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/docker/%s/%s", controller, id, file);
    FILE *in = fopen(path, "re");
    if (in == NULL)
        return;
    text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
    fclose(in);
    assert_string_equal(text, content);
}

static void test_isolation(void **state)
{
    struct fixture *f = *state;
    struct made made;
    struct result created;
    static char text[65536];
    char line[1024];
    struct engine_bind bind = {f->directory, "/.warmpool", false};
    made_spec(f, &made, "isolation");
    made.spec.binds = &bind;
    made.spec.bind_count = 1;
    create_ok(f, &made.spec, &created);
    start_ok(f, created.id);
    struct result status = inspect_ok(f, created.id);
    if (kill((pid_t)status.pid, 0) != 0) {
        remove_ok(f, created.id);
        skip(); /* an engine whose pids are not ours */
    }
    proc_read(status.pid, "status", text, sizeof(text));
    EXPECT_WORDS(text, "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n",
                 "NoNewPrivs:\t1\n", "Seccomp:\t2\n", "Uid:\t2000000000\t2000000000\t2000000000\t2000000000\n");
    proc_read(status.pid, "mountinfo", text, sizeof(text));
    mount_line(text, "/", line, sizeof(line));
    EXPECT_WORDS(line, " / / ro,");
    mount_line(text, "/tmp", line, sizeof(line));
    EXPECT_WORDS(line, "rw", "nosuid", "nodev", "noexec", "tmpfs", "size=4096k", "nr_inodes=300");
    mount_line(text, "/workspace", line, sizeof(line));
    EXPECT_WORDS(line, "rw", "nosuid", "nodev", "tmpfs", "size=8192k", "nr_inodes=400");
    assert_null(strstr(line, "noexec"));
    mount_line(text, "/dev/shm", line, sizeof(line));
    EXPECT_WORDS(line, "nosuid", "nodev", "noexec", "tmpfs", "size=2048k", "nr_inodes=200");
    mount_line(text, "/.warmpool", line, sizeof(line));
    EXPECT_WORDS(line, "/.warmpool ro,");
    proc_read(status.pid, "limits", text, sizeof(text));
    EXPECT_WORDS(text, "Max open files            512                  1024");
    proc_read(status.pid, "oom_score_adj", text, sizeof(text));
    assert_string_equal(text, "100\n");
    expect_cgroup(created.id, "memory.limit_in_bytes", "memory", "67108864\n");
    expect_cgroup(created.id, "memory.memsw.limit_in_bytes", "memory", "67108864\n");
    expect_cgroup(created.id, "memory.swappiness", "memory", "0\n");
    expect_cgroup(created.id, "pids.max", "pids", "64\n");
    expect_cgroup(created.id, "cpu.cfs_quota_us", "cpu", "50000\n");
    struct stat root;
    snprintf(line, sizeof(line), "/proc/%lld/root/workspace", (long long)status.pid);
    assert_int_equal(stat(line, &root), 0);
    assert_int_equal(root.st_mode & 07777, 01777);
    remove_ok(f, created.id);
}

/* --- many at once --------------------------------------------------------------------------------- */

#define MANY 8

static void test_parallel(void **state)
{
    struct fixture *f = *state;
    struct made made[MANY];
    struct result created[MANY], started[MANY], removed[MANY];
    char name[16];
    for (size_t i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "many-%zu", i);
        made_spec(f, &made[i], name);
        created[i] = started[i] = removed[i] = result_of(f);
        CALL(f, engine_container_create(f->engine, &made[i].spec, on_id, &created[i]));
    }
    for (size_t i = 0; i < MANY; i++) {
        expect_ok(&created[i]);
        CALL(f, engine_container_start(f->engine, created[i].id, on_done, &started[i]));
    }
    for (size_t i = 0; i < MANY; i++) {
        expect_ok(&started[i]);
        assert_true(inspect_ok(f, created[i].id).running);
    }
    for (size_t i = 0; i < MANY; i++)
        CALL(f, engine_container_remove(f->engine, created[i].id, on_done, &removed[i]));
    for (size_t i = 0; i < MANY; i++)
        expect_ok(&removed[i]);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(created[i].answers + started[i].answers + removed[i].answers, 3);
}

/* --- events --------------------------------------------------------------------------------------- */

struct watcher {
    unsigned opened, broken, foreign;
    bool open, down, destroyed;
    const char *label, *name;
    char actions[256];
};

static void on_event(void *user, const struct engine_event *event, const struct error *error)
{
    struct watcher *watcher = user;
    if (event == NULL && error == NULL) {
        watcher->opened++;
        watcher->open = true;
    } else if (event == NULL) {
        watcher->broken++;
        watcher->down = true;
    } else {
        const char *label = event->label(event, LABEL), *name = event->label(event, "name");
        if (label == NULL || strcmp(label, watcher->label) != 0 || strcmp(event->type, "container") != 0)
            watcher->foreign++;
        if (name == NULL || strcmp(name, watcher->name) != 0)
            return;
        snprintf(watcher->actions + strlen(watcher->actions), sizeof(watcher->actions) - strlen(watcher->actions),
                 "%s ", event->action);
        watcher->destroyed = watcher->destroyed || strcmp(event->action, "destroy") == 0;
    }
}

/* A container that runs out of memory: told by events and by inspect. Another's events are not heard. */
static void test_events(void **state)
{
    struct fixture *f = fixture_new(); /* a subscription is the engine's for good */
    struct made made, other;
    struct result opened = result_of(f), created, foreign;
    /* Not at once: the engine begins to watch a container's memory after its start. */
    static const char *const hungry[] = {"/bin/sh", "-c", "sleep 0.5; exec dd if=/dev/zero of=/dev/null bs=64M count=1",
                                         NULL};
    struct engine_label label = {LABEL ".other", "x"};
    made_spec(f, &made, "events");
    made_spec(f, &other, "foreign");
    made.spec.entrypoint = hungry;
    made.spec.memory_bytes = 8 * MIB;
    other.spec.labels = &label;
    fixture_open(f, NULL, 30000, 0, &opened);
    struct watcher watcher = {.label = f->label, .name = made.name};
    CALL(f, engine_events(f->engine, LABEL, f->label, on_event, &watcher));
    wait_until(f, &watcher.open);
    create_ok(f, &other.spec, &foreign);
    remove_ok(f, foreign.id);
    create_ok(f, &made.spec, &created);
    start_ok(f, created.id);
    struct result status = inspect_ok(f, created.id);
    for (int i = 0; i < 100 && (status.running || (!is_podman() && !status.oom_killed)); i++) {
        wait_ms(f, 50);
        status = inspect_ok(f, created.id);
    }
    assert_string_equal(status.state, "exited");
    if (!is_podman()) /* its monitor, 2.1, does not see it with cgroup v1 */
        assert_true(status.oom_killed);
    assert_int_equal(status.exit_code, 137);
    remove_ok(f, created.id);
    wait_until(f, &watcher.destroyed);
    EXPECT_WORDS(watcher.actions, "create ", "start ", says("oom ", "die "), "die ", "destroy ");
    assert_int_equal(watcher.foreign, 0);
    assert_int_equal(watcher.opened, 1);
    assert_int_equal(watcher.broken, 0);
    fixture_close(f);
    fixture_free(f);
}

/* The connection breaks, the engine stays away for a while, comes back: one word of the outage, one of its end, and
 * events and requests work again. */
static void test_outage(void **state)
{
    struct fixture *f = fixture_new();
    struct proxy proxy = {0};
    struct made made;
    struct result opened = result_of(f), while_away = result_of(f), created;
    made_spec(f, &made, "outage");
    struct watcher watcher = {.label = f->label, .name = made.name};
    proxy_start(&proxy, f);
    fixture_open(f, proxy.host, 10000, 0, &opened);
    expect_ok(&opened);
    CALL(f, engine_events(f->engine, LABEL, f->label, on_event, &watcher));
    wait_until(f, &watcher.open);
    proxy_stop(&proxy);
    wait_until(f, &watcher.down);
    wait_ms(f, 500);
    CALL(f, engine_container_inspect(f->engine, made.name, on_inspect, &while_away));
    expect_error(&while_away, ERROR_UNAVAILABLE, "is the engine running");
    assert_int_equal(watcher.broken, 1);
    watcher.open = false;
    proxy_start(&proxy, f);
    wait_until(f, &watcher.open);
    assert_int_equal(watcher.opened, 2);
    assert_int_equal(watcher.broken, 1);
    create_ok(f, &made.spec, &created);
    remove_ok(f, created.id);
    wait_until(f, &watcher.destroyed);
    fixture_close(f);
    proxy_stop(&proxy);
    fixture_free(f);
}

/* --- networks and volumes ------------------------------------------------------------------------- */

static void network_ok(struct fixture *f, const struct network_spec *spec, struct result *result)
{
    *result = result_of(f);
    CALL(f, engine_network_create(f->engine, spec, on_id, result));
    expect_ok(result);
}

static void network_remove_ok(struct fixture *f, const char *id)
{
    struct result result = result_of(f);
    CALL(f, engine_network_remove(f->engine, id, on_done, &result));
    expect_ok(&result);
}

static void test_networks(void **state)
{
    struct fixture *f = *state;
    struct engine_label label = {LABEL, f->label};
    char name[40], other_name[40];
    snprintf(name, sizeof(name), "wp-test-%d-net", (int)getpid());
    snprintf(other_name, sizeof(other_name), "wp-test-%d-other", (int)getpid());
    struct network_spec spec = {.name = name, .subnet = "10.213.255.248/29", .labels = &label, .label_count = 1};
    struct result created, result = result_of(f), container;
    network_ok(f, &spec, &created);
    CALL(f, engine_network_create(f->engine, &spec, on_id, &result));
    expect_error(&result, ERROR_CONFLICT, "already exists");
    spec.name = other_name;
    result = result_of(f);
    CALL(f, engine_network_create(f->engine, &spec, on_id, &result));
    expect_error(&result, ERROR_CONFLICT, says("overlaps", "already used"));
    spec.subnet = "not a subnet";
    result = result_of(f);
    CALL(f, engine_network_create(f->engine, &spec, on_id, &result));
    expect_error(&result, ERROR_ENGINE, "subnet");

    result = result_of(f);
    CALL(f, engine_network_list(f->engine, LABEL, f->label, on_list, &result));
    expect_ok(&result);
    assert_int_equal(result.count, 1);
    assert_string_equal(result.id, created.id);
    assert_string_equal(result.name, name);

    struct made made;
    made_spec(f, &made, "networked");
    made.spec.network = created.id;
    create_ok(f, &made.spec, &container);
    start_ok(f, container.id);
    assert_string_equal(inspect_ok(f, container.id).network_id, created.id);
    result = result_of(f);
    CALL(f, engine_network_remove(f->engine, created.id, on_done, &result));
    expect_error(&result, ERROR_CONFLICT, says("active endpoints", "being used"));
    remove_ok(f, container.id);
    network_remove_ok(f, created.id);
    network_remove_ok(f, created.id); /* gone is a success */
}

/* WARMPOOL_TEST_ENGINE_PID: of an engine in another network namespace than ours. */
static bool host_has_address(const char *address)
{
    static char text[65536];
    char path[64];
    const char *engine = getenv("WARMPOOL_TEST_ENGINE_PID");
    snprintf(path, sizeof(path), "/proc/%s/net/fib_trie", engine != NULL ? engine : "self");
    FILE *in = fopen(path, "re");
    assert_non_null(in);
    text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
    fclose(in);
    return strstr(text, address) != NULL;
}

/* An ordinary bridge gives the host an address in the container's network, an internal one of ours does not. */
static void test_internal_network(void **state)
{
    struct fixture *f = *state;
    struct engine_label label = {LABEL, f->label};
    char name[40];
    snprintf(name, sizeof(name), "wp-test-%d-internal", (int)getpid());
    struct network_spec spec = {.name = name, .subnet = "10.213.255.240/29", .labels = &label, .label_count = 1};
    for (int i = 0; i < 2; i++) {
        struct made made;
        struct result created, container;
        spec.internal = i == 1;
        network_ok(f, &spec, &created);
        made_spec(f, &made, "internal");
        made.spec.network = created.id;
        create_ok(f, &made.spec, &container);
        start_ok(f, container.id); /* some engines make the bridge only now */
        assert_int_equal(host_has_address("10.213.255.241"), !spec.internal);
        remove_ok(f, container.id);
        network_remove_ok(f, created.id);
    }
}

static void test_volumes(void **state)
{
    struct fixture *f = *state;
    struct engine_label label = {LABEL, f->label};
    char name[40];
    snprintf(name, sizeof(name), "wp-test-%d-volume", (int)getpid());
    struct result created = result_of(f), listed = result_of(f), in_use = result_of(f), container;
    CALL(f, engine_volume_create(f->engine, name, &label, 1, on_id, &created));
    expect_ok(&created);
    assert_string_equal(created.id, name);
    CALL(f, engine_volume_list(f->engine, LABEL, f->label, on_list, &listed));
    expect_ok(&listed);
    assert_int_equal(listed.count, 1);
    assert_string_equal(listed.name, name);
    for (int i = 0; i < 2; i++) { /* the second time it is gone */
        struct result removed = result_of(f);
        CALL(f, engine_volume_remove(f->engine, name, on_done, &removed));
        expect_ok(&removed);
    }
    /* A volume cannot be taken from a container, but survives it. */
    struct made made;
    struct engine_volume volume = {name, "/data", true};
    created = result_of(f);
    CALL(f, engine_volume_create(f->engine, name, &label, 1, on_id, &created));
    expect_ok(&created);
    made_spec(f, &made, "volume");
    made.spec.volumes = &volume;
    made.spec.volume_count = 1;
    create_ok(f, &made.spec, &container);
    CALL(f, engine_volume_remove(f->engine, name, on_done, &in_use));
    expect_error(&in_use, ERROR_CONFLICT, says("in use", "being used"));
    remove_ok(f, container.id);
    assert_int_equal(volume_count(f), 1);
    struct result removed = result_of(f);
    CALL(f, engine_volume_remove(f->engine, name, on_done, &removed));
    expect_ok(&removed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),          cmocka_unit_test(test_image),
        cmocka_unit_test(test_life),          cmocka_unit_test(test_errors_of_create_and_start),
        cmocka_unit_test(test_isolation),     cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_events),        cmocka_unit_test(test_outage),
        cmocka_unit_test(test_networks),      cmocka_unit_test(test_internal_network),
        cmocka_unit_test(test_volumes),       cmocka_unit_test(test_put),
        cmocka_unit_test(test_echo),          cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_attach_again),  cmocka_unit_test(test_stream_of_ended),
        cmocka_unit_test(test_attach_errors), cmocka_unit_test(test_stream_closing),
    };
    return cmocka_run_group_tests(tests, suite_up, suite_down);
}
