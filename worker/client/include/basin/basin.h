/* Basin's client library: the C ABI. Training code declares a model, pulls parameters from the parameter servers and
 * pushes gradients to them. <basin/client.h> is a C++17 wrapper over this file; other languages load libbasin.so.
 *
 * Threads. Every function may be called from any thread; calls on one client may run at the same time. The library has
 * one thread of its own a client (heartbeats), and never calls into the embedding program.
 * Fork. In a child made by fork every call on a client fails with BASIN_FAILED_PRECONDITION, and basin_close does
 * nothing. The process is the embedder's: the library never aborts because of a peer, installs no signal handler, never
 * exits. Errors. Functions return a code; where `status` is not NULL it is filled with the code and a message that
 * names both ends, what was expected, what was found and what to do. NULL where a pointer is needed is
 * BASIN_INVALID_ARGUMENT. Structs that start with their size: set it to their sizeof (functions that end in _init do),
 * so that fields can be added. */
#ifndef BASIN_BASIN_H_
#define BASIN_BASIN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BASIN_API __attribute__((visibility("default")))
#else
#define BASIN_API
#endif

/* Raised when a function or a field changes its meaning; added ones do not raise it. */
#define BASIN_ABI_VERSION 1
BASIN_API int32_t basin_abi_version(void);
BASIN_API const char* basin_version(void); /* "0.1.0" */

/* Canonical codes, as gRPC and Abseil number them. */
enum {
  BASIN_OK = 0,
  BASIN_CANCELLED = 1,
  BASIN_INVALID_ARGUMENT = 3,
  BASIN_DEADLINE_EXCEEDED = 4, /* in doubt: the call goes on, and may still succeed */
  BASIN_NOT_FOUND = 5,
  BASIN_ALREADY_EXISTS = 6,
  BASIN_PERMISSION_DENIED = 7,
  BASIN_RESOURCE_EXHAUSTED = 8,
  BASIN_FAILED_PRECONDITION = 9,
  BASIN_ABORTED = 10, /* this task was replaced by another process */
  BASIN_OUT_OF_RANGE = 11,
  BASIN_UNIMPLEMENTED = 12,
  BASIN_INTERNAL = 13,
  BASIN_UNAVAILABLE = 14,
  BASIN_DATA_LOSS = 15, /* a parameter server came back without its shards */
  BASIN_UNAUTHENTICATED = 16
};
typedef struct basin_status {
  int32_t code;
  char message[1020];
} basin_status;

/* DLPack's layouts (DLDevice, DLDataType, DLTensor of dlpack.h): a DLTensor can be passed as it is. */
typedef struct basin_device {
  int32_t type; /* 1: CPU; 2: CUDA */
  int32_t id;   /* number of the CUDA device, as the CUDA runtime of this process counts */
} basin_device;
typedef struct basin_dtype {
  uint8_t code; /* 0 int, 1 uint, 2 float, 4 bfloat, 6 bool */
  uint8_t bits;
  uint16_t lanes; /* 1 */
} basin_dtype;
typedef struct basin_tensor {
  void* data;
  basin_device device;
  int32_t ndim;
  basin_dtype dtype;
  int64_t* shape;
  int64_t* strides; /* NULL: row-major and dense, the only layout of this version */
  uint64_t byte_offset;
} basin_tensor;

/* ---- Connecting ---- */

typedef struct basin_options {
  size_t size;
  const char* tf_config;        /* the JSON of TF_CONFIG; NULL: ps_address is used */
  const char* ps_address;       /* host:port of ps 0, for observers without a TF_CONFIG */
  const char* run_id;           /* NULL: ps 0 tells */
  const char* token_file;       /* file with the run's token; NULL: none */
  int32_t observer;             /* 1: only reads, claims no task */
  double start_timeout_s;       /* how long to wait for parameter servers that are not there yet; default 600 */
  double unreachable_timeout_s; /* how long a met parameter server may be out of reach before calls fail; default 60 */
  double claim_timeout_s;       /* how long to try for a task whose old process is not counted dead yet; default 30 */
  uint64_t max_bytes_in_flight; /* pushes past this wait; default 256 MiB */
  int32_t log;                  /* 1: lines about waiting and reconnecting on standard error; default 0 */
  /* "auto": shared memory to servers of this host and user, TCP to others; "tcp"; "shm": an error where shared memory
   * cannot be had. NULL: auto. */
  const char* transport;
  /* Over shared memory, how long a waiting thread looks for the answer before it sleeps, in microseconds: shorter
   * answers at the cost of a core for that time (what is spent in vain stays below a twentieth). 0: never; default 50.
   */
  int32_t spin_us;
  /* 1 (default): asks the C library's allocator to keep large blocks that were freed (mallopt, for the whole process,
   * at most 512 MiB): without it each large message costs fresh pages, which cost more than the copy into them. 0:
   * leaves the allocator as it is. */
  int32_t keep_memory;
  /* A file to which the metrics of basin_step are appended, one line of JSON each, for the run's history:
   *   {"name": "loss", "value": 0.41, "step": 1200, "time": 1764370000.123}
   * At most one line a second and metric, with the mean since its last line; basin_finish and basin_close write the
   * newest value where it has not been written. `step` is the run's global step as this task last heard of it, or its
   * own count of steps where that is larger; `time` is in seconds since 1970. The file is made where it is missing. One
   * that cannot be written is told once on standard error (with `log`) and stops nothing. NULL: none. */
  const char* metrics_file;
  /* What float32 gradients are sent as: "float32"; "float16" or "bfloat16", half of the bytes. They are rounded to the
   * nearest, once: in the starting call, into memory of the library's; in device memory on the device, as they are
   * copied out of it; those of tables' rows after the gradients of repeated keys were summed. Updates of statistics
   * stay as they are, and so does what is pulled. A call with a gradient that the type cannot hold (of float16: 65520
   * and more) is refused before any of it is sent; where that one is in device memory, by the call's status. NULL:
   * float32. */
  const char* gradient_dtype;
} basin_options;
/* Fills in the defaults. */
BASIN_API void basin_options_init(basin_options* options, size_t size);
/* As basin_options_init, then TF_CONFIG, BASIN_RUN_ID, BASIN_TOKEN_FILE, BASIN_TRANSPORT, BASIN_METRICS_FILE and
 * BASIN_GRADIENT_DTYPE from the environment: the one place of the library that reads it. The strings point into the
 * environment. */
BASIN_API void basin_options_from_environment(basin_options* options, size_t size);

typedef struct basin_client basin_client;
/* Waits until every parameter server has answered. On success *client is the caller's, to end with basin_close. */
BASIN_API int32_t basin_connect(const basin_options* options, basin_client** client, basin_status* status);
/* Says goodbye (waits at most 5 s) and frees the client. Functions that run on it must have returned. Calls that are
 * not done end with BASIN_CANCELLED, and their buffers are the caller's again; their handles may be freed later. NULL
 * is fine. */
BASIN_API void basin_close(basin_client* client);

typedef struct basin_task {
  size_t size;
  const char* role; /* "chief", "worker", "evaluator", "observer"; lives as long as the client */
  uint32_t index;
  int32_t is_chief;
  const char* run_id;
  uint32_t worker_count; /* chief and workers that TF_CONFIG names; 0 where it is not known */
  uint32_t ps_count;
} basin_task;
BASIN_API void basin_get_task(basin_client* client, basin_task* task);

/* ---- The model ---- */

enum {
  BASIN_ZEROS = 1,
  BASIN_CONSTANT,
  BASIN_UNIFORM,
  BASIN_NORMAL,
  BASIN_GLOROT_UNIFORM,
  BASIN_HE_NORMAL,
  BASIN_ASSIGNED
};
typedef struct basin_initializer {
  int32_t kind;
  float a; /* constant; low; mean */
  float b; /* high; standard deviation */
  uint64_t seed;
} basin_initializer;

enum {
  BASIN_RULE_SGD = 1,
  BASIN_RULE_MOMENTUM,
  BASIN_RULE_ADAGRAD,
  BASIN_RULE_ADAM,
  BASIN_RULE_FTRL,
  BASIN_RULE_ROWWISE_ADAGRAD /* tables only: one accumulator a row */
};
typedef struct basin_rule {
  size_t size;
  int32_t kind;
  float learning_rate;
  float momentum;
  int32_t nesterov;
  float beta1, beta2, epsilon;
  float initial_accumulator;
  float l1, l2, beta; /* FTRL */
} basin_rule;
/* The rule's usual settings: momentum 0.9; Adagrad (both) 0.1 and 1e-7; Adam 0.9, 0.999, 1e-7; FTRL all 0, with an
 * initial accumulator of 0.1. */
BASIN_API void basin_rule_init(basin_rule* rule, size_t size, int32_t kind, float learning_rate);

enum { BASIN_TRAINED = 0, BASIN_STATISTIC_MEAN, BASIN_STATISTIC_SUM, BASIN_STATISTIC_LAST };
typedef struct basin_variable {
  size_t size;
  const char* name; /* unique in the model */
  int32_t ndim;
  const int64_t* shape;
  basin_dtype dtype;
  basin_initializer initializer;
  int32_t statistic;      /* BASIN_TRAINED, or what a push of a variable that is not trained does */
  const basin_rule* rule; /* NULL: the model's */
} basin_variable;

/* An embedding table: rows of `dim` numbers by 64-bit key. A row that is not there has its initial value, which is a
 * function of the initializer's seed and the key alone; a push makes the row, a pull never does. */
typedef struct basin_table {
  size_t size;
  const char* name;              /* unique among the model's variables and tables */
  uint32_t dim;                  /* 1 to 4096 */
  basin_dtype storage;           /* float32, float16 or bfloat16; buffers of calls are float32 all the same */
  basin_initializer initializer; /* zeros, constant, uniform or normal */
  const basin_rule* rule;        /* NULL: the model's */
  uint32_t admit_after;    /* a key gets its row with its n-th push; those before only count. 0 and 1: the first */
  float admit_probability; /* a push of a key without a row makes one with this probability; 0 and 1: always */
  double evict_unused_s;   /* rows that were not pushed for so long are evicted; 0: never */
  uint64_t max_bytes;      /* over all parameter servers; past it the least recently pushed rows make room, and no
                            * push fails for it. 0: what the servers' --memory-limit leaves */
} basin_table;

typedef struct basin_input {
  size_t size;
  const char* name;
  uint64_t items; /* examples; handed out in pieces [begin, end) */
  uint64_t piece_items;
  uint32_t epochs;
  uint64_t shuffle_seed; /* order of the pieces in each epoch; 0: ascending */
} basin_input;

typedef struct basin_model basin_model;
BASIN_API basin_model* basin_model_new(void);
BASIN_API void basin_model_free(basin_model* model);
/* Variables are numbered from 0 in the order of their adding. */
BASIN_API int32_t basin_model_add_variable(basin_model* model, const basin_variable* variable, uint32_t* id,
                                           basin_status* status);
/* Tables are numbered from 0 in the order of their adding, apart from the variables. */
BASIN_API int32_t basin_model_add_table(basin_model* model, const basin_table* table, uint32_t* id,
                                        basin_status* status);
BASIN_API int32_t basin_model_set_rule(basin_model* model, const basin_rule* rule, basin_status* status);
BASIN_API int32_t basin_model_add_input(basin_model* model, const basin_input* input, basin_status* status);
/* All workers' steps together after which no more input is handed out; 0: no limit. */
BASIN_API void basin_model_set_max_steps(basin_model* model, uint64_t max_steps);

/* The chief's declaration makes the run's model; the others' are compared with it and wait for it. It may be repeated
 * with the same model and more variables. Afterwards the model's ids are the run's. Observers may pass NULL: they
 * learn the run's model. */
BASIN_API int32_t basin_declare(basin_client* client, const basin_model* model, basin_status* status);
/* The run's model after basin_declare. Strings and shapes live until the client's next basin_declare or basin_close.
 * BASIN_NOT_FOUND past the last variable. */
BASIN_API int32_t basin_get_variable(basin_client* client, uint32_t id, basin_variable* variable, basin_status* status);

/* As basin_get_variable, for tables. */
BASIN_API int32_t basin_get_table(basin_client* client, uint32_t id, basin_table* table, basin_status* status);

/* ---- Moving parameters ---- */

typedef struct basin_item {
  uint32_t variable;
  const basin_tensor* push;   /* gradient (or a statistic's update) to push, for a float32 variable also in float16 or
                               * bfloat16, sent as it is; NULL: none */
  const basin_tensor* assign; /* new value; NULL: none. Not together with push. */
  const basin_tensor* pull;   /* where the parameters shall go, after the push; NULL: none */
} basin_item;

typedef struct basin_call basin_call;
/* Starts one call over several variables; a variable may stand in it once. The whole call is checked before anything
 * leaves: shapes, dtypes, NaN and Inf. Waits only while more than max_bytes_in_flight are under way.
 * All buffers, pushed, assigned and pulled, are lent until the call is done: what is pushed must not change, and is
 * sent from where it lies. Small calls may wait a moment for others to share a message with; waiting for any call sends
 * all. */
BASIN_API int32_t basin_start(basin_client* client, const basin_item* items, size_t count, basin_call** call,
                              basin_status* status);

/* ---- Device memory ----
 * Tensors of a call may be in the memory of one CUDA device (device type 2), beside others in host memory: gradients
 * and values are read from it and parameters written into it, by copies on streams of the library, in pieces of at most
 * 1 MiB. A piece is sent as soon as its copy has ended; parameters go up as they come.
 *
 * `data` + `byte_offset` is a device pointer of any allocator (cudaMalloc, a framework's pool, managed memory).
 * BASIN_INVALID_ARGUMENT: it is not memory of that device. BASIN_FAILED_PRECONDITION: no CUDA in this libbasin, no
 * driver, no device; then nothing of CUDA is touched. The first device pointer opens the device in this process and
 * pins host memory (max_bytes_in_flight, between 4 and 128 MiB) until the client and all its calls are freed. NaN and
 * Inf in device memory are found when a piece has come to the host, or to a server on that GPU (docs/cuda.md): the
 * call ends with BASIN_INVALID_ARGUMENT, shards that hold them are unchanged, other pieces of the call are applied.
 * Calls take part in the order in which they are started, on device as on host memory; within a call, variables go in
 * the order of `items`, so list those first that are used first. */
enum { BASIN_STREAM_NONE = 0, BASIN_STREAM_CUDA = 1 };
typedef struct basin_stream {
  int32_t kind;
  uintptr_t handle; /* CUDA: the cudaStream_t; 0 is the default stream. Not while a graph is captured. */
} basin_stream;
/* As basin_start. The device memory of the call is read and written after all that is queued on the stream now, which
 * neither the CPU nor the stream waits for. `stream` NULL, or of kind none: at once, so what was queued for this memory
 * must have ended. BASIN_INVALID_ARGUMENT: a stream, and no device memory. */
BASIN_API int32_t basin_start_on_stream(basin_client* client, const basin_item* items, size_t count,
                                        const basin_stream* stream, basin_call** call, basin_status* status);
/* What is queued on the stream from now on runs when the call is done: pulled parameters are there, pushed memory may
 * be overwritten. The CPU does not wait, and nobody need wait for the call. It is done too when it has failed (its
 * servers out of reach, the client closed), so that no stream waits for ever: ask basin_call_wait for its outcome
 * before using what comes of it. For calls with device memory; the stream is of the call's device. Not for a stream
 * that the call's own start must still wait for something on. While a stream waits, let no thread do what waits for the
 * whole device under a lock of CUDA's: cudaFree and the like, and the first launch of a kernel, which loads it; and
 * have as many connections to the device as streams (CUDA_DEVICE_MAX_CONNECTIONS). docs/cuda.md says why, and how. */
BASIN_API int32_t basin_call_order_before(basin_call* call, const basin_stream* stream, basin_status* status);

/* Rows of one table. A key may stand several times: pushed gradients of one key are summed first. */
typedef struct basin_rows {
  size_t size;
  uint32_t table;
  const uint64_t* keys; /* [count] */
  size_t count;
  const float* push; /* [count, dim] gradients; NULL: none */
  float* pull;       /* [count, dim], filled with the rows after the push; NULL: none */
  /* Bags (multi-hot features): bag i has keys[bags[i]] to keys[bags[i + 1] - 1], bag_count + 1 ascending offsets from 0
   * to count. push and pull are then [bag_count, dim]: a pull pools the bag's rows, a push gives the bag's gradient to
   * each of its rows (divided by their number for the mean). An empty bag is zeros. NULL: each key stands alone. */
  const uint64_t* bags;
  size_t bag_count;
  int32_t pooling; /* BASIN_POOL_SUM or BASIN_POOL_MEAN, with bags */
  int32_t unused;  /* so that what follows lies behind the padding of older callers' structs */
  /* Where push and pull are: CPU, or all zeros for the same, or a CUDA device, as in basin_start_on_stream. */
  basin_device device;
  /* Where keys are: CPU, or all zeros for the same, or the device of push and pull. `bags` are host memory always. */
  basin_device keys_device;
} basin_rows;
enum { BASIN_POOL_SUM = 1, BASIN_POOL_MEAN };
/* As basin_start, over rows of tables (a table may stand once). `keys` and `bags` in host memory are the caller's again
 * on return. Calls over one table take part in the order in which they are started. */
BASIN_API int32_t basin_start_rows(basin_client* client, const basin_rows* rows, size_t count, basin_call** call,
                                   basin_status* status);
/* As basin_start_rows, and for device memory as basin_start_on_stream: keys are sorted on the device, repeated ones put
 * together and their gradients summed there, so that each different key and its row is copied once. All of the call,
 * pulls too, begins when the stream has come to it. float32 and keys are aligned to their size. Results are those of
 * host memory: pulled rows and pools bit by bit, and sums of a key's gradients where it stands at most 256 times; a
 * longer sum is made in pieces of 256, whose sums are added (docs/cuda.md). A sum that is not finite, or that
 * options.gradient_dtype cannot hold, ends the call with BASIN_INVALID_ARGUMENT, and nothing of it was sent; of bags
 * without keys nothing is looked at. The call takes device memory for what it sorts, about 60 bytes a key and a row of
 * floats a key, kept for the next calls; BASIN_RESOURCE_EXHAUSTED: there is none, nothing was sent. */
BASIN_API int32_t basin_start_rows_on_stream(basin_client* client, const basin_rows* rows, size_t count,
                                             const basin_stream* stream, basin_call** call, basin_status* status);
/* Keys of evicted rows that this client has not been told yet, at most `capacity` of them; for whoever keeps copies of
 * rows. *missed becomes 1 when the servers (which remember a bounded number) have forgotten some: then no copy can be
 * trusted. Begins with the client's first call for the table. */
BASIN_API int32_t basin_evicted_keys(basin_client* client, uint32_t table, uint64_t* keys, size_t capacity,
                                     size_t* count, int32_t* missed, basin_status* status);

/* Waits at most timeout_s (negative: no limit of its own). BASIN_DEADLINE_EXCEEDED: in doubt — the library keeps
 * trying, the buffers stay lent, and the message says whom it waits for; wait again. Otherwise the call's outcome. */
BASIN_API int32_t basin_call_wait(basin_call* call, double timeout_s, basin_status* status);
/* 1 when the call is done. Never waits. */
BASIN_API int32_t basin_call_done(basin_call* call);
/* Over the shards of a done push: version at apply less version pulled. */
BASIN_API void basin_call_staleness(basin_call* call, double* mean, uint64_t* max);
/* Frees the handle. A call that is not done is waited for (its buffers are lent). NULL is fine. */
BASIN_API void basin_call_free(basin_call* call);

/* 64-byte aligned memory that the transports know: a push from it to a server on the same host is read where it lies,
 * without a copy. Zeros at first. NULL when there is none. It is shared with the servers, which only read it, and with
 * children made by fork: what they write to it shows here. */
BASIN_API void* basin_allocate(size_t bytes);
BASIN_API void basin_deallocate(void* memory);

/* Pushes started from now on are applied with this learning rate instead of their rule's, for schedules; NaN: the
 * rule's again. BASIN_INVALID_ARGUMENT: negative or infinite. */
BASIN_API int32_t basin_set_learning_rate(basin_client* client, float learning_rate, basin_status* status);

/* ---- Steps, inputs, the run ---- */

/* This task finished a step: its clock counts up, its metrics are shown, and go to options.metrics_file. Does not wait.
 */
BASIN_API int32_t basin_step(basin_client* client, const char* const* names, const double* values, size_t count,
                             basin_status* status);

typedef struct basin_piece {
  size_t size;
  int32_t end; /* 1: no more input; the rest is 0 */
  uint64_t piece;
  uint32_t epoch;
  uint64_t begin, end_item; /* items [begin, end_item) */
} basin_piece;
/* The next piece, leased to this task: handed to another when this one dies. Waits while all that is left is leased to
 * others, since it may come back. */
BASIN_API int32_t basin_next_input(basin_client* client, const char* name, basin_piece* piece, basin_status* status);
/* The piece is done: counted once every push started before has been acknowledged, which this waits for.
 * BASIN_ABORTED: the lease was lost to another task; the piece is not counted. */
BASIN_API int32_t basin_input_done(basin_client* client, const char* name, uint64_t piece, basin_status* status);
/* Waits until every living chief and worker is in a barrier of this name. timeout_s as in basin_call_wait: after
 * BASIN_DEADLINE_EXCEEDED this task is in the barrier, and the next call with this name goes on waiting for it. */
BASIN_API int32_t basin_barrier(basin_client* client, const char* name, double timeout_s, basin_status* status);

typedef struct basin_run_state {
  size_t size;
  uint64_t view, global_step, min_clock;
  int32_t stop;     /* max_steps is reached */
  int32_t finished; /* the chief has ended the run */
} basin_run_state;
/* What was heard last; heartbeats refresh it once a second. */
BASIN_API void basin_get_run_state(basin_client* client, basin_run_state* state);

/* Waits until the chief has ended the run; for evaluators. timeout_s as in basin_call_wait; BASIN_DEADLINE_EXCEEDED: it
 * goes on. */
BASIN_API int32_t basin_wait_finished(basin_client* client, double timeout_s, basin_status* status);

/* This task's work is done; waits until its pushes are acknowledged. The chief's ends the run. `failure`: NULL, or why
 * it ended badly. */
BASIN_API int32_t basin_finish(basin_client* client, const char* failure, basin_status* status);

/* What `basin top` shows, as JSON (docs/wire.md, "Stats"). Free it with basin_free_text. */
BASIN_API int32_t basin_stats(basin_client* client, char** json, basin_status* status);
BASIN_API void basin_free_text(char* text);

#ifdef __cplusplus
}
#endif
#endif /* BASIN_BASIN_H_ */
