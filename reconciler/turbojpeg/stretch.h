#include <stdint.h>

// aob_stretch decodes a file of width x height pixels and writes it as a tensor of three planes of w x h numbers.
// Number (x, y) of a plane mixes the pixels across_lo[x] and the next one of the rows down_lo[y] and the next one, with
// the shares across_far[x] and down_far[y] of the next. values has the number of each byte of each channel. With two
// not 0, a second thread decodes the lower part. It returns 0 where the file is not such a one, or anything is wrong
// with it.
int aob_stretch(const unsigned char *data, unsigned long size, int width, int height, int w, int h,
                const int32_t *across_lo, const float *across_far, const int32_t *down_lo, const float *down_far,
                const float *values, float *out, int two);
