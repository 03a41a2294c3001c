/* Shared by the API's files. An exchange is one request on one connection, from its first byte to its answer. */
#pragma once

#include <microhttpd.h>
#include <uv.h>

#include "api/request.h"
#include "api/server.h"
#include "base/buffer.h"
#include "base/list.h"
#include "wire/frame.h"

#define BODY_MAX       (16U * 1024U * 1024U)
#define RECENT_RESULTS 256U

enum exchange_kind {
    EXCHANGE_PLAIN,
    EXCHANGE_TASK,
    EXCHANGE_STREAM,
    EXCHANGE_UPGRADE,
    EXCHANGE_POOL,  /* waits for a pool to be warm or drained */
    EXCHANGE_LEASE, /* waits for a lease, or for a file of one */
};

struct exchange {
    struct list link; /* in server.exchanges */
    struct api_server *server;
    struct MHD_Connection *connection; /* NULL once libmicrohttpd is done with it */
    enum exchange_kind kind;
    struct buffer body, answer;
    uint64_t received; /* bytes of body */
    bool suspended, answered, ended;
    unsigned status;
    struct task *task; /* NULL: none, or ended */
    char task_id[72];
    struct watch *watch;
    size_t pending[2];     /* task output taken and not given back, by stream */
    struct buffer tail[2]; /* NDJSON: the beginning of a UTF-8 sequence that is cut off */
    struct upgraded *upgraded;
    unsigned holds;                /* the connection, and what it was upgraded to */
    char allow[64];                /* methods, for a 405 */
    struct subscriber *subscriber; /* of events */
    struct grant *grant;           /* of a lease that is waited for */
    struct file_put *put;          /* the body is going into a container; owned */
    bool raw;                      /* the answer is a file */
};

struct recent { /* the result of a task that has ended, without its output */
    char id[72];
    char *json; /* owned */
};

struct api_server {
    uv_loop_t *loop;
    struct executor *executor; /* NULL when detached */
    const struct config *config;
    const struct log *log;
    char *socket_path, *lock_path;
    int lock_fd, listen_fd;
    void (*shutdown)(void *user, bool force);
    int (*reload)(void *user, struct buffer *changed, uint32_t *rolled, struct error *err);
    void *user;
    struct MHD_Daemon *http;
    uv_poll_t poll;
    uv_timer_t timer, events_timer;
    bool running, again, closing;
    unsigned handles; /* that are being closed, or will be */
    void (*closed)(void *user);
    void *closed_user;
    struct list exchanges, upgrades, subscribers;
    unsigned subscriber_count;
    struct recent recent[RECENT_RESULTS];
    unsigned recent_next;
};

/* server.c */
/* Lets libmicrohttpd work; from anywhere but inside its callbacks it happens at once, else right after. */
void server_run(struct api_server *server);
void server_handle_closed(struct api_server *server);
/* Keeps a finished task's result for GET /v1/tasks/ID. */
void server_remember(struct api_server *server, const struct task_result *result);
const char *server_recall(const struct api_server *server, const char *id);

/* exchange.c */
struct exchange *exchange_new(struct api_server *server, struct MHD_Connection *connection);
/* One holder less; the last one frees. */
void exchange_release(struct exchange *exchange);
void exchange_suspend(struct exchange *exchange);
void exchange_resume(struct exchange *exchange);
/* Notices that the client is gone while its connection is suspended: abandons the task. */
void exchange_watch(struct exchange *exchange);
void exchange_unwatch(struct exchange *exchange);
enum MHD_Result exchange_answer(struct exchange *exchange, unsigned status);
enum MHD_Result exchange_error(struct exchange *exchange, unsigned status, const char *code, const char *message,
                               const char *hint);
enum MHD_Result exchange_too_large(struct exchange *exchange);
unsigned status_of_error(enum error_code code);

/* tasks.c */
/* In the lease `lease`; NULL: in none. */
enum MHD_Result tasks_post(struct exchange *exchange, const char *lease);
enum MHD_Result tasks_continue(struct exchange *exchange);

/* events.c */
enum MHD_Result events_get(struct exchange *exchange);
void events_unsubscribe(struct exchange *exchange);
/* Hands on what has happened. */
void events_flush(uv_timer_t *timer);
/* Subscribers are told that the daemon stops. */
void events_stop(struct api_server *server);

/* leases.c */
/* Of libmicrohttpd: a connection begins or ends. */
void leases_connection(void *user, struct MHD_Connection *connection, void **state,
                       enum MHD_ConnectionNotificationCode code);
enum MHD_Result leases_post(struct exchange *exchange);
enum MHD_Result leases_continue(struct exchange *exchange);
/* The client that waits for it has gone. */
void lease_forgotten(struct exchange *exchange);
enum MHD_Result leases_get_all(struct exchange *exchange);
enum MHD_Result leases_get(struct exchange *exchange, const char *id);
enum MHD_Result leases_renew(struct exchange *exchange, const char *id);
enum MHD_Result leases_release(struct exchange *exchange, const char *id);
enum MHD_Result leases_run(struct exchange *exchange, const char *id);
enum MHD_Result leases_file(struct exchange *exchange, const char *id, bool put);

/* upgrade.c */
enum MHD_Result upgrade_begin(struct exchange *exchange);
extern const struct task_handler upgrade_handler;
void upgrades_close(struct api_server *server);
/* The connection ended before it was upgraded. */
void upgrade_abort(struct exchange *exchange);

/* routes.c */
enum MHD_Result route(struct exchange *exchange, const char *method, const char *path);
