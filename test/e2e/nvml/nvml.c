/* A stand-in for libnvidia-ml.so.1: GPUs without hardware, that can be cut by MIG.
 *
 * FAKE_NVML_MODELS a letter for each GPU, "ah": A100 (40 GB, MIG on: it cannot be toggled; also where there is no letter)
 *                  or H100 (80 GB, MIG off: it can)
 * FAKE_NVML_COUNT  how many GPUs
 * FAKE_NVML_MIG    a 0 or 1 for each GPU, "10": whether MIG is on at first, in place of the model's own
 * FAKE_NVML_STATE  a file that outlives the process, as what is cut outlives it on a GPU
 * FAKE_NVML_CUT    slices that are there at first: "0:19:2 1:9:0" (GPU, profile, first memory slice)
 * FAKE_NVML_LOG    a file to which every change is written
 *
 * The ID of a GPU instance tells what it is: 1 and on, in the order of its table below and of its placements.
 * Sizes and layouts are those of NVML's public ABI.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, IN_USE = 19, INSUFFICIENT_RESOURCES = 23 };
#define API __attribute__((visibility("default")))
#define MAX_GPUS 8
#define MAX_GI 32 /* more than a GPU has placements */
#define MAX_MIG 7

typedef struct { unsigned start, size; } placement_t;
typedef struct {
  unsigned id, p2p, slices, instances, sms, copy, dec, enc, jpeg, ofa;
  unsigned long long mb;
} gi_profile_t;
typedef struct { unsigned id, slices, instances, sms, copy, dec, enc, jpeg, ofa; } ci_profile_t;
typedef struct {
  char legacy[16];
  unsigned domain, bus, device, pci_id, sub_id;
  char id[32];
} pci_t;

struct gpu;
struct gi;
/* A handle of a device is one of these: of a GPU, or of a MIG device (gi != 0). */
typedef struct device { struct gpu *gpu; struct gi *gi; } device_t;
typedef struct gi {
  device_t mig; /* first: the MIG device's handle */
  struct gpu *gpu;
  int used, has_ci;
  unsigned id, profile; /* profile: index into the table below */
  placement_t at;
  char uuid[80];
} gi_t;
typedef struct gpu {
  device_t dev;
  unsigned index;
  int mig, hopper;
  char uuid[80];
  gi_t gis[MAX_GI];
} gpu_t;

/* A profile by its NVML index: which GPU instance it makes, and where that may lie. */
typedef struct { int index; gi_profile_t p; unsigned size, starts[8], n; int ci; } entry_t;
static const entry_t a100[] = {
  {9, {15, 0, 1, 4, 14, 1, 1, 0, 0, 0, 9856}, 2, {0, 2, 4, 6}, 4, 0},
  {0, {19, 0, 1, 7, 14, 1, 0, 0, 0, 0, 4864}, 1, {0, 1, 2, 3, 4, 5, 6}, 7, 0},
  {7, {20, 0, 1, 1, 14, 1, 1, 0, 1, 1, 4864}, 1, {0, 1, 2, 3, 4, 5, 6}, 7, 0},
  {1, {14, 0, 2, 3, 28, 2, 1, 0, 0, 0, 9856}, 2, {0, 2, 4}, 3, 1},
  {2, {9, 0, 3, 2, 42, 3, 2, 0, 0, 0, 19968}, 4, {0, 4}, 2, 2},
  {3, {5, 0, 4, 1, 56, 4, 2, 0, 0, 0, 19968}, 4, {0}, 1, 3},
  {4, {0, 0, 7, 1, 98, 7, 5, 0, 1, 1, 40192}, 8, {0}, 1, 4},
  {-1, {0}, 0, {0}, 0, 0},
};
static const entry_t h100[] = {
  {0, {19, 0, 1, 7, 16, 1, 1, 0, 1, 0, 9856}, 1, {0, 1, 2, 3, 4, 5, 6}, 7, 0},
  {7, {20, 0, 1, 1, 16, 1, 1, 0, 1, 1, 9856}, 1, {0, 1, 2, 3, 4, 5, 6}, 7, 0},
  {9, {15, 0, 1, 4, 26, 1, 1, 0, 1, 0, 20096}, 2, {0, 2, 4, 6}, 4, 0},
  {1, {14, 0, 2, 3, 32, 2, 2, 0, 2, 0, 20096}, 2, {0, 2, 4}, 3, 1},
  {2, {9, 0, 3, 2, 60, 3, 3, 0, 3, 0, 40448}, 4, {0, 4}, 2, 2},
  {3, {5, 0, 4, 1, 64, 4, 4, 0, 4, 0, 40448}, 4, {0}, 1, 3},
  {4, {0, 0, 7, 1, 132, 8, 7, 0, 7, 1, 81152}, 8, {0}, 1, 4},
  {-1, {0}, 0, {0}, 0, 0},
};
static unsigned count = 2;
static gpu_t own[MAX_GPUS], *gpus = own;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const unsigned long long MiB = 1024ull * 1024;

static void say(const char *format, ...) {
  const char *path = getenv("FAKE_NVML_LOG");
  FILE *out = path ? fopen(path, "a") : 0;
  if (!out) return;
  va_list args;
  va_start(args, format);
  vfprintf(out, format, args);
  va_end(args);
  fclose(out);
}

static int cut(gpu_t *g, unsigned id, const placement_t *at, gi_t **out);
static void make_ci(gi_t *gi);

static void start(void) {
  static int done;
  if (done++) return;
  const char *models = getenv("FAKE_NVML_MODELS"), *n = getenv("FAKE_NVML_COUNT"), *on = getenv("FAKE_NVML_MIG");
  const char *state = getenv("FAKE_NVML_STATE"), *there = getenv("FAKE_NVML_CUT");
  if (n && atoi(n) > 0 && atoi(n) <= MAX_GPUS) count = atoi(n);
  int file = state ? open(state, O_RDWR | O_CREAT, 0600) : -1, fresh = 1;
  if (file >= 0) {
    fresh = lseek(file, 0, SEEK_END) == 0;
    void *kept = ftruncate(file, sizeof own) ? MAP_FAILED : mmap(0, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (kept == MAP_FAILED) abort();
    gpus = kept;
  }
  for (unsigned i = 0; i < count; i++) {
    gpu_t *g = &gpus[i];
    g->dev.gpu = g;
    g->index = i;
    g->hopper = models && strlen(models) > i && models[i] == 'h';
    if (fresh) g->mig = on && strlen(on) > i ? on[i] == '1' : !g->hopper;
    snprintf(g->uuid, sizeof g->uuid, "GPU-%08u-0000-0000-0000-000000000000", i);
    for (unsigned k = 0; k < MAX_GI; k++) {
      gi_t *gi = &g->gis[k];
      gi->mig.gpu = gi->gpu = g;
      gi->mig.gi = gi;
      gi->id = k;
    }
  }
  unsigned gpu, id;
  placement_t at;
  for (int used; fresh && there && sscanf(there, "%u:%u:%u%n", &gpu, &id, &at.start, &used) == 3; there += used) {
    gi_t *gi;
    at.size = 0;
    if (gpu < count && cut(&gpus[gpu], id, &at, &gi) == OK) make_ci(gi);
  }
}

static const entry_t *table(const gpu_t *g) { return g->hopper ? h100 : a100; }
static const entry_t *by_index(const gpu_t *g, int index) {
  for (const entry_t *e = table(g); e->index >= 0; e++) if (e->index == index) return e;
  return 0;
}
static const entry_t *by_id(const gpu_t *g, unsigned id) {
  for (const entry_t *e = table(g); e->index >= 0; e++) if (e->p.id == id) return e;
  return 0;
}

/* ---- the library and the system ---- */
API int nvmlInitWithFlags(unsigned flags) { (void)flags; pthread_mutex_lock(&lock); start(); pthread_mutex_unlock(&lock); return OK; }
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlInit(void) { return nvmlInitWithFlags(0); }
API int nvmlShutdown(void) { return OK; }
API const char *nvmlErrorString(int code) {
  switch (code) {
    case OK: return "Success";
    case INVALID: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case IN_USE: return "In use by another client";
    case INSUFFICIENT_RESOURCES: return "Insufficient Resources";
  }
  return "Unknown Error";
}
static int text(char *out, unsigned n, const char *s) {
  if (strlen(s) + 1 > n) return INSUFFICIENT_SIZE;
  strcpy(out, s);
  return OK;
}
API int nvmlSystemGetDriverVersion(char *out, unsigned n) { return text(out, n, "570.86.15"); }
API int nvmlSystemGetNVMLVersion(char *out, unsigned n) { return text(out, n, "12.570.86.15"); }
API int nvmlSystemGetCudaDriverVersion(int *v) { *v = 12080; return OK; }
API int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12080; return OK; }

/* ---- GPUs ---- */
API int nvmlDeviceGetCount_v2(unsigned *n) { *n = count; return OK; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned i, device_t **d) {
  if (i >= count) return INVALID;
  *d = &gpus[i].dev;
  return OK;
}
API int nvmlDeviceGetHandleByUUID(const char *uuid, device_t **d) {
  for (unsigned i = 0; i < count; i++) {
    if (!strcmp(gpus[i].uuid, uuid)) { *d = &gpus[i].dev; return OK; }
    for (unsigned k = 0; k < MAX_GI; k++)
      if (gpus[i].gis[k].has_ci && !strcmp(gpus[i].gis[k].uuid, uuid)) { *d = &gpus[i].gis[k].mig; return OK; }
  }
  return NOT_FOUND;
}
static unsigned bus(const gpu_t *g) { return 0x07 + 8 * g->index; }
API int nvmlDeviceGetPciInfo_v3(device_t *d, pci_t *p) {
  memset(p, 0, sizeof *p);
  p->bus = bus(d->gpu);
  p->pci_id = d->gpu->hopper ? 0x233010deu : 0x20b010deu;
  snprintf(p->legacy, sizeof p->legacy, "0000:%02X:00.0", p->bus);
  snprintf(p->id, sizeof p->id, "00000000:%02X:00.0", p->bus);
  return OK;
}
API int nvmlDeviceGetHandleByPciBusId_v2(const char *id, device_t **d) {
  unsigned domain, b, dev, fn;
  if (sscanf(id, "%x:%x:%x.%x", &domain, &b, &dev, &fn) != 4) return INVALID;
  for (unsigned i = 0; i < count; i++) if (bus(&gpus[i]) == b) { *d = &gpus[i].dev; return OK; }
  return NOT_FOUND;
}
API int nvmlDeviceGetMinorNumber(device_t *d, unsigned *n) { if (d->gi) return NOT_SUPPORTED; *n = d->gpu->index; return OK; }
API int nvmlDeviceGetIndex(device_t *d, unsigned *n) { *n = d->gpu->index; return OK; }
API int nvmlDeviceGetUUID(device_t *d, char *out, unsigned n) { return text(out, n, d->gi ? d->gi->uuid : d->gpu->uuid); }
API int nvmlDeviceGetName(device_t *d, char *out, unsigned n) { return text(out, n, d->gpu->hopper ? "NVIDIA H100 80GB HBM3" : "NVIDIA A100-SXM4-40GB"); }
API int nvmlDeviceGetBrand(device_t *d, unsigned *v) { (void)d; *v = 14; return OK; }
API int nvmlDeviceGetArchitecture(device_t *d, unsigned *v) { *v = d->gpu->hopper ? 9 : 7; return OK; }
API int nvmlDeviceGetCudaComputeCapability(device_t *d, int *major, int *minor) { *major = d->gpu->hopper ? 9 : 8; *minor = 0; return OK; }
API int nvmlDeviceGetVirtualizationMode(device_t *d, unsigned *v) { (void)d; *v = 0; return OK; }
API int nvmlDeviceGetPersistenceMode(device_t *d, unsigned *v) { (void)d; *v = 1; return OK; }
API int nvmlDeviceGetMemoryInfo(device_t *d, unsigned long long *m) {
  m[0] = (d->gpu->hopper ? 81559ull : 40960ull) * MiB;
  m[1] = m[0];
  m[2] = 0;
  return OK;
}

/* ---- MIG ---- */
API int nvmlDeviceGetMigMode(device_t *d, unsigned *now, unsigned *pending) {
  if (d->gi) return NOT_SUPPORTED;
  *now = *pending = d->gpu->mig;
  return OK;
}
API int nvmlDeviceSetMigMode(device_t *d, unsigned mode, int *status) {
  gpu_t *g = d->gpu;
  *status = OK;
  for (unsigned k = 0; k < MAX_GI; k++) if (!mode && g->gis[k].used) { *status = IN_USE; return OK; } /* stays pending */
  g->mig = !!mode;
  say("gpu%u mig=%d\n", g->index, g->mig);
  return OK;
}
API int nvmlDeviceIsMigDeviceHandle(device_t *d, unsigned *is) { *is = d->gi != 0; return OK; }
API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t *d, device_t **parent) { if (!d->gi) return INVALID; *parent = &d->gpu->dev; return OK; }
API int nvmlDeviceGetMaxMigDeviceCount(device_t *d, unsigned *n) { (void)d; *n = MAX_MIG; return OK; }
API int nvmlDeviceGetMigDeviceHandleByIndex(device_t *d, unsigned index, device_t **mig) {
  for (unsigned k = 0; k < MAX_GI; k++)
    if (d->gpu->gis[k].has_ci && index-- == 0) { *mig = &d->gpu->gis[k].mig; return OK; }
  return NOT_FOUND;
}
API int nvmlDeviceGetGpuInstanceId(device_t *d, unsigned *id) { if (!d->gi) return NOT_SUPPORTED; *id = d->gi->id; return OK; }
API int nvmlDeviceGetComputeInstanceId(device_t *d, unsigned *id) { if (!d->gi) return NOT_SUPPORTED; *id = 0; return OK; }
API int nvmlDeviceGetGpuInstanceProfileInfo(device_t *d, unsigned index, gi_profile_t *p) {
  const entry_t *e = by_index(d->gpu, (int)index);
  if (!e) return NOT_SUPPORTED;
  *p = e->p;
  return OK;
}
API int nvmlDeviceGetGpuInstancePossiblePlacements_v2(device_t *d, unsigned id, placement_t *out, unsigned *n) {
  const entry_t *e = by_id(d->gpu, id);
  if (!e) return INVALID;
  if (!out) { *n = e->n; return OK; }
  if (*n < e->n) return INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < e->n; i++) out[i] = (placement_t){e->starts[i], e->size};
  *n = e->n;
  return OK;
}
/* 7_SLICE_NVL (8) is 7_SLICE (4), made for more than one GPU. */
static int is_ci(const entry_t *e, unsigned profile) { return (int)profile == e->ci || (e->ci == 4 && profile == 8); }
static int fits(gpu_t *g, unsigned from, unsigned size) {
  for (unsigned k = 0; k < MAX_GI; k++) {
    gi_t *o = &g->gis[k];
    if (o->used && from < o->at.start + o->at.size && o->at.start < from + size) return 0;
  }
  return 1;
}
API int nvmlDeviceGetGpuInstanceRemainingCapacity(device_t *d, unsigned id, unsigned *n) {
  const entry_t *e = by_id(d->gpu, id);
  if (!e) return INVALID;
  *n = 0;
  for (unsigned i = 0; i < e->n; i++) *n += fits(d->gpu, e->starts[i], e->size);
  return OK;
}
/* A GPU instance; one of size 0 has the size of its profile. */
static int cut(gpu_t *g, unsigned id, const placement_t *at, gi_t **out) {
  const entry_t *e = by_id(g, id);
  unsigned place = 0;
  gi_t *gi = 0;
  if (!e || (at->size && at->size != e->size)) return INVALID;
  for (const entry_t *before = table(g); before < e; before++) place += before->n;
  for (unsigned i = 0; i < e->n; i++) if (e->starts[i] == at->start) gi = &g->gis[1 + place + i];
  if (!gi) return INVALID;
  if (!fits(g, at->start, e->size)) return INSUFFICIENT_RESOURCES;
  gi->used = 1;
  gi->has_ci = 0;
  gi->profile = (unsigned)e->index;
  gi->at = (placement_t){at->start, e->size};
  *out = gi;
  return OK;
}
API int nvmlDeviceCreateGpuInstanceWithPlacement(device_t *d, unsigned id, const placement_t *at, gi_t **out) {
  if (!d->gpu->mig) return NOT_SUPPORTED;
  pthread_mutex_lock(&lock);
  int code = cut(d->gpu, id, at, out);
  pthread_mutex_unlock(&lock);
  say("gpu%u create gi profile=%u at=%u:%u -> %d\n", d->gpu->index, id, at->start, at->size, code);
  return code;
}
API int nvmlDeviceGetGpuInstanceById(device_t *d, unsigned id, gi_t **out) {
  if (id >= MAX_GI || !d->gpu->gis[id].used) return NOT_FOUND;
  *out = &d->gpu->gis[id];
  return OK;
}
typedef struct { device_t *device; unsigned id, profile; placement_t at; } gi_info_t;
API int nvmlGpuInstanceGetInfo(gi_t *gi, gi_info_t *info) {
  info->device = &gi->gpu->dev;
  info->id = gi->id;
  info->profile = by_index(gi->gpu, (int)gi->profile)->p.id;
  info->at = gi->at;
  return OK;
}
API int nvmlGpuInstanceDestroy(gi_t *gi) {
  if (gi->has_ci) return IN_USE;
  gi->used = 0;
  say("gpu%u destroy gi%u\n", gi->gpu->index, gi->id);
  return OK;
}
/* A compute instance takes its whole GPU instance, so its handle is that of the GPU instance. */
API int nvmlGpuInstanceGetComputeInstanceProfileInfo(gi_t *gi, unsigned profile, unsigned engine, ci_profile_t *p) {
  const entry_t *e = by_index(gi->gpu, (int)gi->profile);
  if (engine || !is_ci(e, profile)) return NOT_SUPPORTED;
  *p = (ci_profile_t){profile, e->p.slices, 1, e->p.sms, e->p.copy, e->p.dec, e->p.enc, e->p.jpeg, e->p.ofa};
  return OK;
}
static void make_ci(gi_t *gi) {
  static unsigned made;
  gi->has_ci = 1;
  snprintf(gi->uuid, sizeof gi->uuid, "MIG-%08x-0000-5000-8000-%04x%08x", gi->gpu->index, gi->id, (unsigned)getpid() * 4096 + ++made);
  say("gpu%u create gi%u/ci0 %s\n", gi->gpu->index, gi->id, gi->uuid);
}
API int nvmlGpuInstanceCreateComputeInstance(gi_t *gi, unsigned profile, gi_t **ci) {
  if (!is_ci(by_index(gi->gpu, (int)gi->profile), profile)) return INVALID;
  if (gi->has_ci) return INSUFFICIENT_RESOURCES;
  make_ci(gi);
  *ci = gi;
  return OK;
}
API int nvmlGpuInstanceGetComputeInstanceById(gi_t *gi, unsigned id, gi_t **ci) {
  if (id || !gi->has_ci) return NOT_FOUND;
  *ci = gi;
  return OK;
}
typedef struct { device_t *device; gi_t *gi; unsigned id, profile; placement_t at; } ci_info_t;
API int nvmlComputeInstanceGetInfo_v2(gi_t *ci, ci_info_t *info) {
  info->device = &ci->mig;
  info->gi = ci;
  info->id = 0;
  info->profile = (unsigned)by_index(ci->gpu, (int)ci->profile)->ci;
  info->at = (placement_t){0, by_index(ci->gpu, (int)ci->profile)->p.slices};
  return OK;
}
API int nvmlComputeInstanceDestroy(gi_t *ci) {
  ci->has_ci = 0;
  say("gpu%u destroy gi%u/ci0\n", ci->gpu->index, ci->id);
  return OK;
}
