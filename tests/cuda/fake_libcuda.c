/* A double of the CUDA driver's library, in host memory, so that the real cuda.core and PyCUDA can be called on machines
 * without a GPU. It proves that our calls have the names, the arguments and the order that these libraries want, and
 * nothing of CUDA itself. Work is done only when somebody waits for it; copies of memory that is not allocated, and
 * calls without a current context, are refused.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600,
       ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };
enum { MEMORY = 2048, LIMIT = 8, OPS = 4096 };

typedef unsigned long long u64;
typedef struct Event { int recorded, timed; struct timespec when; } Event;
typedef struct Op { void *to; const void *from; size_t bytes; Event *event; void (*call)(void *); } Op;
typedef struct Graph { Op ops[256]; int count; } Graph;
typedef struct Stream { Op ops[OPS]; int count, capturing, spoilt; unsigned flags; pthread_t capturer; Graph *graph; } Stream;
typedef struct Block { char *start; size_t bytes; int host; } Block;

static pthread_mutex_t lock;
static Block blocks[MEMORY];
static Stream *streams[MEMORY];
static Stream none; /* the default stream */
static int primary = 1, primary_uses, other_contexts, allocations, graphs;
static const size_t total = (size_t)1 << 30;
static __thread void *stack[LIMIT];
static __thread int depth;

__attribute__((constructor)) static void begin(void) {
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&lock, &kind);
  streams[0] = &none;
}

static void release(pthread_mutex_t **held) { pthread_mutex_unlock(*held); }
#define LOCKED __attribute__((cleanup(release))) pthread_mutex_t *held = &lock; pthread_mutex_lock(held)
#define IN_CONTEXT if (depth == 0) return INVALID_CONTEXT; LOCKED

static Block *block_of(const void *place, size_t bytes) {
  for (int i = 0; i < MEMORY; ++i)
    if (blocks[i].start && (char *)place >= blocks[i].start && (char *)place + bytes <= blocks[i].start + blocks[i].bytes)
      return &blocks[i];
  return NULL;
}

static Stream *stream_of(Stream *handle) { return (u64)handle <= 2 ? &none : handle; }

static int captures(int others) {
  for (int i = 0; i < MEMORY; ++i)
    if (streams[i] && streams[i]->capturing && (others || pthread_equal(streams[i]->capturer, pthread_self())))
      return streams[i]->spoilt = 1;
  return 0;
}

/* In the mode "thread local", which is ours, others may do as they like, but for waiting for the whole context. */
static int capturing(void) { return captures(0); }

static void finish(Stream *stream) {
  for (int i = 0; i < stream->count; ++i) {
    Op *op = &stream->ops[i];
    if (op->event) clock_gettime(CLOCK_MONOTONIC, &op->event->when), op->event->recorded = 1;
    else if (op->call) op->call(op->to);
    else memmove(op->to, op->from, op->bytes);
  }
  stream->count = 0;
}

static int finish_all(void) {
  for (int i = 0; i < MEMORY; ++i)
    if (streams[i]) finish(streams[i]);
  return OK;
}

static int give(Stream *stream, Op op) {
  if (stream->capturing) {
    if (stream->graph->count == 256) return OUT_OF_MEMORY;
    stream->graph->ops[stream->graph->count++] = op;
    return OK;
  }
  if (stream->count == OPS) finish(stream);
  stream->ops[stream->count++] = op;
  return OK;
}

static int copy(void *to, int to_host, const void *from, int from_host, size_t bytes, Stream *stream) {
  Block *a = block_of(to, bytes), *b = block_of(from, bytes);
  if (!a || !b || (to_host && !a->host) || (from_host && !b->host)) return ILLEGAL_ADDRESS;
  return give(stream_of(stream), (Op){to, from, bytes, NULL, NULL});
}

static int allocate(void **place, size_t bytes, int host) {
  size_t used = 0;
  if (capturing()) return CAPTURE_UNSUPPORTED;
  for (int i = 0; i < MEMORY; ++i) used += blocks[i].start ? blocks[i].bytes : 0;
  if (bytes > total - used) return OUT_OF_MEMORY;
  ++allocations;
  for (int i = 0; i < MEMORY; ++i)
    if (!blocks[i].start) {
      if (posix_memalign((void **)&blocks[i].start, 512, bytes)) return OUT_OF_MEMORY;
      memset(blocks[i].start, 0xCD, bytes);
      blocks[i].bytes = bytes, blocks[i].host = host;
      *place = blocks[i].start;
      return OK;
    }
  return OUT_OF_MEMORY;
}

static int give_back(void *place, int host) {
  Block *block = block_of(place, 1);
  if (!block || block->start != place || block->host != host) return INVALID_VALUE;
  finish_all(); /* as cuMemFree waits */
  free(block->start);
  block->start = NULL;
  return OK;
}

/* The machine. */
int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { return *version = 13000, OK; }
int cuDeviceGetCount(int *count) { return *count = 1, OK; }
int cuDeviceGet(int *device, int number) { return number ? INVALID_VALUE : (*device = 0, OK); }
int cuDeviceGetName(char *name, int bytes, int device) { return snprintf(name, bytes, "Double %d", device), OK; }
int cuDeviceGetPCIBusId(char *id, int bytes, int device) { return snprintf(id, bytes, "0000:%02x:00.0", device + 1), OK; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { return *major = 8, *minor = 9, device; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = total, device; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? 8 : which == 76 ? 9 : 0;
  return device ? INVALID_VALUE : OK; /* 75, 76: compute capability; all else is 0, as of GPUs that lack it */
}
int cuGetErrorName(int error, const char **name) {
  *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
        : error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OF_THE_DOUBLE";
  return OK;
}
int cuGetErrorString(int error, const char **text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : "an error of the double";
  return OK;
}

/* Contexts. */
int cuDevicePrimaryCtxRetain(void **context, int device) { LOCKED; return ++primary_uses, *context = &primary, device; }
int cuDevicePrimaryCtxRelease_v2(int device) { LOCKED; return primary_uses-- > 0 ? device : INVALID_CONTEXT; }
int cuCtxPushCurrent_v2(void *context) { return depth == LIMIT ? INVALID_VALUE : (stack[depth++] = context, OK); }
int cuCtxPopCurrent_v2(void **context) {
  if (!depth) return INVALID_CONTEXT;
  void *top = stack[--depth];
  if (context) *context = top;
  return OK;
}
int cuCtxGetCurrent(void **context) { return *context = depth ? stack[depth - 1] : NULL, OK; }
int cuCtxSetCurrent(void *context) {
  if (!depth) depth = 1;
  return stack[depth - 1] = context, context ? OK : (--depth, OK);
}
int cuCtxGetDevice(int *device) { return depth ? (*device = 0, OK) : INVALID_CONTEXT; }
int cuCtxGetDevice_v2(int *device, void *context) { return context ? (*device = 0, OK) : cuCtxGetDevice(device); }
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  LOCKED;
  ++other_contexts, *context = malloc(1);
  return (int)(flags * 0) + device + cuCtxPushCurrent_v2(*context);
}
int cuCtxCreate_v4(void **context, void *params, unsigned flags, int device) {
  return params ? INVALID_VALUE : cuCtxCreate_v2(context, flags, device);
}
int cuCtxDestroy_v2(void *context) { LOCKED; return --other_contexts, depth && stack[depth - 1] == context ? --depth, OK : OK; }
int cuCtxDetach(void *context) { return cuCtxDestroy_v2(context); }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0, depth ? OK : INVALID_CONTEXT; }
int cuCtxSynchronize(void) {
  IN_CONTEXT;
  return captures(1) ? CAPTURE_UNSUPPORTED : finish_all();
}

/* Memory. */
int cuMemGetInfo_v2(size_t *unused, size_t *all) {
  IN_CONTEXT;
  *all = *unused = total;
  for (int i = 0; i < MEMORY; ++i) *unused -= blocks[i].start && !blocks[i].host ? blocks[i].bytes : 0;
  return OK;
}
int cuMemAlloc_v2(void **place, size_t bytes) { IN_CONTEXT; return allocate(place, bytes, 0); }
int cuMemFree_v2(void *place) { IN_CONTEXT; return give_back(place, 0); }
int cuMemHostAlloc(void **place, size_t bytes, unsigned flags) { IN_CONTEXT; return flags & ~7u ? INVALID_VALUE : allocate(place, bytes, 1); }
int cuMemAllocHost_v2(void **place, size_t bytes) { IN_CONTEXT; return allocate(place, bytes, 1); }
int cuMemFreeHost(void *place) { IN_CONTEXT; return give_back(place, 1); }
int cuMemHostGetDevicePointer_v2(void **device, void *place, unsigned flags) {
  IN_CONTEXT;
  Block *block = block_of(place, 1);
  return flags || !block || !block->host ? INVALID_VALUE : (*device = place, OK);
}
int cuMemcpyHtoD_v2(void *to, const void *from, size_t n) { /* of pageable memory, too */
  IN_CONTEXT;
  return block_of(to, n) ? (memmove(to, from, n), OK) : ILLEGAL_ADDRESS;
}
int cuMemcpyDtoH_v2(void *to, const void *from, size_t n) {
  IN_CONTEXT;
  return block_of(from, n) ? (memmove(to, from, n), OK) : ILLEGAL_ADDRESS;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t n, Stream *s) { IN_CONTEXT; return copy(to, 0, from, 1, n, s); }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t n, Stream *s) { IN_CONTEXT; return copy(to, 1, from, 0, n, s); }
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t n, Stream *s) { IN_CONTEXT; return copy(to, 0, from, 0, n, s); }

/* Streams and events. */
int cuStreamCreateWithPriority(Stream **stream, unsigned flags, int priority) {
  IN_CONTEXT;
  if (flags > 1 || priority || capturing()) return INVALID_VALUE;
  for (int i = 0; i < MEMORY; ++i)
    if (!streams[i]) return streams[i] = *stream = calloc(1, sizeof(Stream)), (*stream)->flags = flags, OK;
  return OUT_OF_MEMORY;
}
int cuStreamCreate(Stream **stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }
int cuStreamDestroy_v2(Stream *stream) {
  IN_CONTEXT;
  for (int i = 0; i < MEMORY; ++i)
    if (streams[i] == stream) return finish(stream), free(stream), streams[i] = NULL, OK;
  return INVALID_HANDLE;
}
int cuStreamSynchronize(Stream *handle) {
  IN_CONTEXT;
  Stream *stream = stream_of(handle);
  if (stream->capturing) return stream->spoilt = 1, CAPTURE_UNSUPPORTED;
  return finish(stream), OK;
}
int cuStreamQuery(Stream *stream) { IN_CONTEXT; return stream_of(stream)->count ? NOT_READY : OK; }
int cuStreamGetCtx(Stream *stream, void **context) { return (void)stream, cuCtxGetCurrent(context); }
int cuStreamGetCtx_v2(Stream *stream, void **context, void **green) { return *green = NULL, cuStreamGetCtx(stream, context); }
int cuStreamGetDevice(Stream *stream, int *device) { return (void)stream, *device = 0, OK; }
int cuStreamGetFlags(Stream *stream, unsigned *flags) { return *flags = stream_of(stream)->flags, OK; }
int cuStreamGetPriority(Stream *stream, int *priority) { return (void)stream, *priority = 0, OK; }
int cuEventCreate(Event **event, unsigned flags) {
  IN_CONTEXT;
  return *event = calloc(1, sizeof(Event)), (*event)->timed = !(flags & 2), flags > 7; /* 2: CU_EVENT_DISABLE_TIMING */
}
int cuEventDestroy_v2(Event *event) { IN_CONTEXT; return finish_all(), free(event), OK; }
int cuEventRecord(Event *event, Stream *stream) {
  IN_CONTEXT;
  event->recorded = 0;
  return give(stream_of(stream), (Op){.event = event});
}
int cuEventSynchronize(Event *event) { IN_CONTEXT; return (void)event, finish_all(); }
int cuEventQuery(Event *event) { return event->recorded ? OK : NOT_READY; }
int cuEventElapsedTime_v2(float *ms, Event *first, Event *last) {
  if (!first->timed || !last->timed) return INVALID_HANDLE;
  if (!first->recorded || !last->recorded) return NOT_READY;
  *ms = 1e3f * (last->when.tv_sec - first->when.tv_sec) + 1e-6f * (last->when.tv_nsec - first->when.tv_nsec);
  return OK;
}
int cuEventElapsedTime(float *ms, Event *first, Event *last) { return cuEventElapsedTime_v2(ms, first, last); }

int cuLaunchHostFunc(Stream *stream, void (*call)(void *), void *data) {
  IN_CONTEXT;
  return give(stream_of(stream), (Op){.call = call, .to = data});
}

/* Graphs. */
int cuStreamBeginCapture_v2(Stream *stream, int mode) {
  IN_CONTEXT;
  if ((u64)stream <= 2 || stream->capturing || mode != 1) return INVALID_VALUE;
  ++graphs, stream->graph = calloc(1, sizeof(Graph)), stream->capturing = 1, stream->spoilt = 0, stream->capturer = pthread_self();
  return OK;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
  IN_CONTEXT;
  if (!stream->capturing) return INVALID_VALUE;
  stream->capturing = 0;
  if (!stream->spoilt) return *graph = stream->graph, OK;
  return *graph = NULL, CAPTURE_INVALIDATED;
}
int cuStreamIsCapturing(Stream *stream, int *status) {
  return *status = !stream_of(stream)->capturing ? 0 : stream_of(stream)->spoilt ? 2 : 1, OK;
}
int cuStreamGetCaptureInfo_v3(Stream *stream, int *status, u64 *id, Graph **graph, void **nodes, void **edges, size_t *n) {
  if (id) *id = 1;
  if (graph) *graph = stream_of(stream)->graph;
  if (nodes) *nodes = NULL;
  if (edges) *edges = NULL;
  if (n) *n = 0;
  return cuStreamIsCapturing(stream, status);
}
int cuStreamGetCaptureInfo_v2(Stream *stream, int *status, u64 *id, Graph **graph, void **nodes, size_t *n) {
  return cuStreamGetCaptureInfo_v3(stream, status, id, graph, nodes, NULL, n);
}
int cuGraphInstantiateWithFlags(Graph **ready, Graph *graph, u64 flags) {
  IN_CONTEXT;
  ++graphs, *ready = malloc(sizeof(Graph));
  return memcpy(*ready, graph, sizeof(Graph)), flags ? INVALID_VALUE : OK;
}
int cuGraphInstantiate(Graph **ready, Graph *graph, u64 flags) { return cuGraphInstantiateWithFlags(ready, graph, flags); }
int cuGraphInstantiateWithParams(Graph **ready, Graph *graph, u64 *params) { /* flags, upload stream, node, result */
  params[2] = 0, ((unsigned *)params)[6] = 0;
  return cuGraphInstantiateWithFlags(ready, graph, 0);
}
int cuGraphLaunch(Graph *ready, Stream *handle) {
  IN_CONTEXT;
  Stream *stream = stream_of(handle);
  for (int i = 0; i < ready->count; ++i)
    if (give(stream, ready->ops[i])) return OUT_OF_MEMORY;
  return OK;
}
int cuGraphExecDestroy(Graph *ready) { LOCKED; return --graphs, free(ready), OK; }
int cuGraphDestroy(Graph *graph) { LOCKED; return --graphs, free(graph), OK; }

/* What cuda.core hangs on a graph lives for ever here. */
int cuUserObjectCreate(void **object, void *ours, void (*drop)(void *), unsigned uses, unsigned flags) {
  return *object = ours, (void)drop, (void)uses, (void)flags, OK;
}
int cuUserObjectRelease(void *object, unsigned uses) { return (void)object, (void)uses, OK; }
int cuGraphRetainUserObject(Graph *graph, void *object, unsigned uses, unsigned flags) {
  return (void)graph, (void)object, (void)uses, (void)flags, OK;
}
int cuGraphReleaseUserObject(Graph *graph, void *object, unsigned uses) { return (void)graph, cuUserObjectRelease(object, uses); }

/* How the libraries find all this: by the name of the header, of whichever version is the newest here. */
int cuGetProcAddress_v2(const char *name, void **function, int version, u64 flags, int *status) {
  static const char *const suffixes[] = {"_v4", "_v3", "_v2", ""};
  *function = NULL;
  for (int i = 0; i < 4 && !*function; ++i) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
    *function = dlsym(RTLD_DEFAULT, full);
  }
  if (status) *status = *function ? 0 : 1;
  return (void)version, (void)flags, OK;
}
int cuGetProcAddress(const char *name, void **function, int version, u64 flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

/* For the tests. */
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { return *flags = 0, *active = primary_uses > 0, device; }
int fake_live(void) { /* blocks of memory, streams and graphs */
  int live = graphs;
  for (int i = 0; i < MEMORY; ++i) live += (blocks[i].start != NULL) + (streams[i] != NULL);
  return live;
}
int fake_allocations(void) { return allocations; } /* so far */
int fake_primary_uses(void) { return primary_uses; }
int fake_other_contexts(void) { return other_contexts; }
