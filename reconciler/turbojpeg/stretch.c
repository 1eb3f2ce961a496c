#define _GNU_SOURCE
#include "stretch.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

// No product is fused with a sum: that would round once instead of twice. GCC leaves it for -std=c11.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

typedef struct {
  const unsigned char *data;
  unsigned long size;
  int width, height, w, h;
  const int32_t *across_lo, *down_lo;
  const float *across_far, *down_far, *values;
  float *out;
} file;

typedef struct {
  struct jpeg_error_mgr base;
  jmp_buf back;
} faults;

static void leave(j_common_ptr c) { longjmp(((faults *)c->err)->back, 1); }

static void warned(j_common_ptr c, int level) {
  if (level < 0) leave(c);
}

static void silent(j_common_ptr c) { (void)c; }

// mix writes row y. The order of the operations is that of the resize in Go, whose results these are to the last bit.
static void mix(const file *f, int y, const unsigned char *upper, const unsigned char *lower) {
  float down_far = f->down_far[y], down_near = 1 - down_far;
  for (int c = 0; c < 3; c++) {
    const float *value = f->values + 256 * c;
    float *row = f->out + ((size_t)c * f->h + y) * f->w;
    for (int x = 0; x < f->w; x++) {
      size_t at = 3 * (size_t)f->across_lo[x] + c;
      float far = f->across_far[x], near = 1 - far;
      float top = near * value[upper[at]] + far * value[upper[at + 3]];
      float bottom = near * value[lower[at]] + far * value[lower[at + 3]];
      row[x] = down_near * top + down_far * bottom;
    }
  }
}

// part writes the rows of the tensor from one to before another.
static int part(const file *f, int from, int to) {
  struct jpeg_decompress_struct c;
  faults e;
  size_t stride = 3 * (size_t)f->width;
  unsigned char *pixels = malloc(2 * stride);
  if (pixels == NULL) return 0;
  c.err = jpeg_std_error(&e.base);
  e.base.error_exit = leave;
  e.base.emit_message = warned;
  e.base.output_message = silent;
  if (setjmp(e.back)) {
    jpeg_destroy_decompress(&c);
    free(pixels);
    return 0;
  }
  jpeg_create_decompress(&c);
  jpeg_mem_src(&c, f->data, f->size);
  jpeg_read_header(&c, TRUE);
  // A file of one scan of Huffman codes, as almost all are: its rows come one after the other.
  if ((int)c.image_width != f->width || (int)c.image_height != f->height || c.num_components != 3 ||
      c.jpeg_color_space != JCS_YCbCr || c.data_precision != 8 || c.arith_code || jpeg_has_multiple_scans(&c))
    leave((j_common_ptr)&c);
  c.out_color_space = JCS_EXT_RGB;
  c.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&c);
  int block = c.max_v_samp_factor * DCTSIZE;
  int before = from > 0 ? f->down_lo[from] / block * block : 0;
  if (before > 0) jpeg_skip_scanlines(&c, before);
  for (int y = from; y < to; y++) {
    int lo = f->down_lo[y];
    while ((int)c.output_scanline < lo + 2) {
      JSAMPROW row = pixels + (c.output_scanline & 1) * stride;
      jpeg_read_scanlines(&c, &row, 1);
    }
    mix(f, y, pixels + (lo & 1) * stride, pixels + ((lo + 1) & 1) * stride);
  }
  if (to == f->h) { // is all of the file right?
    while (c.output_scanline < c.output_height) {
      JSAMPROW row = pixels;
      jpeg_read_scanlines(&c, &row, 1);
    }
    jpeg_finish_decompress(&c);
  }
  jpeg_destroy_decompress(&c);
  free(pixels);
  return 1;
}

// The helper is the second thread. It is started when it is first needed.
static struct {
  pthread_mutex_t owner; // held by the call that uses it
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int started;
  const file *f; // what it shall decode, from a row on; NULL: nothing
  int from;
  atomic_int done; // -1: not yet
} helper = {.owner = PTHREAD_MUTEX_INITIALIZER,
            .lock = PTHREAD_MUTEX_INITIALIZER,
            .changed = PTHREAD_COND_INITIALIZER};

static void *help(void *unused) {
  (void)unused;
  pthread_mutex_lock(&helper.lock);
  for (;;) {
    while (helper.f == NULL) pthread_cond_wait(&helper.changed, &helper.lock);
    const file *f = helper.f;
    int from = helper.from;
    helper.f = NULL;
    pthread_mutex_unlock(&helper.lock);
    int ok = part(f, from, f->h);
    pthread_mutex_lock(&helper.lock);
    atomic_store(&helper.done, ok);
    pthread_cond_broadcast(&helper.changed);
  }
}

// start starts the helper. Signals are for the threads of Go.
static int start(void) {
  pthread_t thread;
  pthread_attr_t small;
  sigset_t all, old;
  sigfillset(&all);
  if (pthread_attr_init(&small) != 0) return 0;
  pthread_attr_setstacksize(&small, 512 << 10); // it counts as this process's memory
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int failed = pthread_create(&thread, &small, help, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&small);
  if (failed) return 0;
  pthread_detach(thread);
  return 1;
}

// await returns what the helper's part returned. It is about to end, so the first look is without sleeping.
static int await(void) {
  for (int i = 0; i < 2000; i++) {
    int done = atomic_load(&helper.done);
    if (done >= 0) return done;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  pthread_mutex_lock(&helper.lock);
  while (atomic_load(&helper.done) < 0) pthread_cond_wait(&helper.changed, &helper.lock);
  pthread_mutex_unlock(&helper.lock);
  return atomic_load(&helper.done);
}

// The lower part has to read the codes of the upper one too, and begins later, so it is the smaller one.
#define UPPER(h) ((h) * 5 / 8)

int aob_stretch(const unsigned char *data, unsigned long size, int width, int height, int w, int h,
                const int32_t *across_lo, const float *across_far, const int32_t *down_lo, const float *down_far,
                const float *values, float *out, int two) {
  file f = {data, size, width, height, w, h, across_lo, down_lo, across_far, down_far, values, out};
  if (!two || UPPER(h) < 1 || pthread_mutex_trylock(&helper.owner) != 0) return part(&f, 0, h);
  if (!helper.started) helper.started = start();
  int ok = 0;
  if (!helper.started) {
    ok = part(&f, 0, h);
  } else {
    pthread_mutex_lock(&helper.lock);
    helper.f = &f;
    helper.from = UPPER(h);
    atomic_store(&helper.done, -1);
    pthread_cond_broadcast(&helper.changed);
    pthread_mutex_unlock(&helper.lock);
    ok = part(&f, 0, UPPER(h));
    ok = await() && ok;
  }
  pthread_mutex_unlock(&helper.owner);
  return ok;
}
