/* Where an engine is said to be, before anything is asked there. TLS itself is tests/integration/tls.bats. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trouble.h"

static void expect_refused(struct world *w, const char *host, const char *cert_path, const char *words)
{
    struct engine *engine;
    struct error error = ERROR_INIT;
    struct engine_options options = {.loop = &w->f->loop, .log = &w->f->log, .host = host, .cert_path = cert_path};
    assert_int_equal(engine_open(&engine, &options, on_done, NULL, &error), -1);
    assert_int_equal(error.code, ERROR_INVALID);
    if (strstr(error.message, words) == NULL)
        fail_msg("no \"%s\" in: %s", words, error.message);
}

void test_malformed_hosts(void **state)
{
    struct world *w = *state;
    char longer[400] = "unix:///";
    memset(longer + 8, 'a', 150);
    const char *const hosts[] = {
        "unix://relative/path",          "nonsense", "unix://", longer, "ssh://root@engine", "http://engine:2375",
        "npipe:////./pipe/docker_engine"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        expect_refused(w, hosts[i], NULL, "unix://");
    expect_refused(w, "ssh://root@engine", NULL, "tcp://name:port are supported");
    memset(longer, 'a', 300);
    memcpy(longer, "tcp://", 6);
    const char *const tcp[] = {"tcp://",
                               "tcp://:2375",
                               "tcp://engine:",
                               "tcp://engine:0",
                               "tcp://engine:65536",
                               "tcp://engine:-1",
                               "tcp://engine:23x",
                               "tcp://engine:2375/path",
                               "tcp://user@engine:2375",
                               "tcp://[::1:2375",
                               "tcp://[::1]2375",
                               "tcp://[engine]:2375",
                               "tcp://::1:2375",
                               "tcp://engine%41:2375",
                               "tcp://a b:2375",
                               "tcp://a\r\nX: y:2375",
                               longer};
    for (size_t i = 0; i < sizeof(tcp) / sizeof(tcp[0]); i++)
        expect_refused(w, tcp[i], NULL, "after tcp:// comes NAME:PORT");
}

void test_certificate_files(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"ca.pem", "cert.pem", "key.pem"};
    char words[128], path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", w->f->directory, names[i]);
        snprintf(words, sizeof(words), "%s cannot be read: No such file", path);
        expect_refused(w, "tcp://engine", w->f->directory, words);
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(words, sizeof(words), "%s cannot be read: Is a directory", path);
        expect_refused(w, "tcp://engine", w->f->directory, words);
        assert_int_equal(rmdir(path), 0);
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        fclose(file);
    }
    /* Docker's own variables; a path that was given is stronger. */
    setenv("DOCKER_CERT_PATH", "/nonexistent/environment", 1);
    expect_refused(w, "tcp://engine", NULL, "/nonexistent/environment/ca.pem");
    expect_refused(w, "tcp://engine", "/nonexistent/given", "/nonexistent/given/ca.pem");
    unsetenv("DOCKER_CERT_PATH");
    setenv("DOCKER_TLS_VERIFY", "1", 1);
    char *home = strdup(getenv("HOME") != NULL ? getenv("HOME") : "/");
    setenv("HOME", "/nonexistent/home", 1);
    expect_refused(w, "tcp://engine", NULL, "/nonexistent/home/.docker/ca.pem");
    unsetenv("HOME");
    expect_refused(w, "tcp://engine", NULL, "HOME is not");
    unsetenv("DOCKER_TLS_VERIFY");
    setenv("HOME", home, 1);
    free(home);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", w->f->directory, names[i]);
        unlink(path);
    }
}

/* A port of ours that nobody listens at any more. */
static unsigned free_port(int family, const char *address)
{
    struct sockaddr_storage bound = {.ss_family = (sa_family_t)family};
    socklen_t size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    void *where = family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)(void *)&bound)->sin6_addr
                                     : (void *)&((struct sockaddr_in *)(void *)&bound)->sin_addr;
    inet_pton(family, address, where);
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&bound, size) != 0) {
        close(fd);
        return 0;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
    close(fd);
    return ntohs(((struct sockaddr_in *)(void *)&bound)->sin_port);
}

/* One warning, and who does not answer is named as he was. */
void test_plain_tcp(void **state)
{
    struct world *w = *state;
    static const struct {
        int family;
        const char *address, *host;
    } rows[] = {{AF_INET, "127.0.0.1", "127.0.0.1"}, {AF_INET6, "::1", "[::1]"}};
    for (size_t i = 0; i < 2; i++) {
        char host[64], words[128];
        unsigned port = free_port(rows[i].family, rows[i].address);
        if (port == 0)
            continue; /* a machine without IPv6 */
        struct result opened = result_of(w->f);
        w->f->logged[0] = '\0';
        snprintf(host, sizeof(host), "tcp://%s:%u", rows[i].host, port);
        snprintf(words, sizeof(words), "cannot connect to the engine at %s: Connection refused (is the engine running,",
                 host);
        fixture_open(w->f, host, 5000, 0, &opened);
        expect_error(&opened, ERROR_UNAVAILABLE, words);
        assert_false(engine_info(w->f->engine)->local);
        assert_string_equal(engine_info(w->f->engine)->host, host);
        assert_non_null(strstr(w->f->logged, "is root on the engine's host"));
        fixture_close(w->f);
    }
}

void test_unknown_host(void **state)
{
    struct world *w = *state;
    fixture_open(w->f, "tcp://no-such-engine.invalid:2375", 20000, 0, &w->opened);
    expect_error(&w->opened, ERROR_UNAVAILABLE, "the engine's host in tcp://no-such-engine.invalid:2375 is unknown");
}

/* Podman's own API makes containers; what has no place there is refused, not left out. */
void test_podman_create(void **state)
{
    struct world *w = *state;
    static const char *const entrypoint[] = {"/bin/true", NULL};
    static const char *const profile[] = {"seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}", NULL};
    struct container_spec spec = {
        .name = "coder-1", .image = "b", .entrypoint = entrypoint, .memory_swappiness = -1, .network = "none"};
    w->fake.version = "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.24\",\"Version\":\"4.3.1\",\"Components\":"
                      "[{\"Name\":\"Podman Engine\"},{\"Name\":\"Conmon\"}]}";
    struct fixture *f = world_open(w, "HTTP/1.1 201 Created\r\nContent-Length: 11\r\n\r\n{\"Id\":\"ab\"}", 5000, 0);
    struct result made = result_of(f), refused = result_of(f);
    assert_string_equal(engine_info(f->engine)->name, "podman");
    CALL(f, engine_container_create(f->engine, &spec, on_id, &made));
    expect_ok(&made);
    assert_string_equal(w->fake.paths, "/v4.0.0/libpod/containers/create\n");
    spec.security_opt = profile;
    CALL(f, engine_container_create(f->engine, &spec, on_id, &refused));
    expect_error(&refused, ERROR_INVALID, "create container coder-1: the security option \"seccomp={");
    assert_int_equal(w->fake.requests, 1);
}
