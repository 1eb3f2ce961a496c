package detect

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// asTrained writes pictures with Pillow into a folder, and beside every picture there its pixels as trainers read them:
// Image.open(...).convert("RGB").
const asTrained = `
import glob, os, random, sys
from PIL import Image, ImageCms
out = sys.argv[1]
random.seed(7)
def noise(w, h): return Image.frombytes("RGB", (w, h), random.randbytes(3 * w * h))
def put(name, im, **how): im.save(os.path.join(out, name), **how)
edges = Image.new("RGB", (64, 64))
colours = [(255 * (i & 1), 255 * (i >> 1 & 1), 255 * (i >> 2)) for i in range(8)]
edges.putdata([colours[(x // 8 + y // 8) % 8] for y in range(64) for x in range(64)])
smooth = noise(12, 9).resize((161, 121), Image.BICUBIC)
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
exif = Image.Exif()
exif[0x0112] = 6
for name, im in (("noise", noise(61, 83)), ("edges", edges), ("smooth", smooth)):
    for quality in (30, 75, 100):
        for sampling in (0, 1, 2):
            for progressive in (False, True):
                put(f"{name}-{quality}-{sampling}-{progressive}.jpg", im, quality=quality, subsampling=sampling,
                    progressive=progressive)
    put(name + "-profile.jpg", im, icc_profile=profile)
    put(name + "-turned.jpg", im, exif=exif)
    put(name + "-grey.jpg", im.convert("L"))
    put(name + "-cmyk.jpg", im.convert("CMYK"))
    put(name + "-profile.png", im, icc_profile=profile)
    put(name + "-grey.png", im.convert("L"))
    put(name + "-two.png", im.convert("1"))
    put(name + "-palette.png", im.convert("P"))
    put(name + "-see-through-palette.png", im.convert("P"), transparency=3)
    put(name + "-see-through-grey.png", im.convert("L"), transparency=7)
    put(name + "-see-through.png", im, transparency=(255, 0, 0))
    put(name + "-grey-alpha.png", Image.merge("LA", (im.convert("L"), im.getchannel(1))))
    put(name + "-alpha.png", Image.merge("RGBA", (*im.split(), im.getchannel(0))))
for file in sorted(glob.glob(os.path.join(out, "*.*"))) + sys.argv[2:]:
    with Image.open(file) as im:
        pixels = im.convert("RGB").tobytes()
    with open(os.path.join(out, os.path.basename(file) + ".rgb"), "wb") as f:
        f.write(pixels)
`

// The pixels that a trainer reads with Pillow and those that the detector reads are the same, in PNG and in JPEG.
func TestPixelsAreThoseOfTraining(t *testing.T) {
	python := referencePython(t, "import PIL.ImageCms")
	dir := t.TempDir()
	writeDeep(t, dir)
	args := []string{"-c", asTrained, dir}
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	photos, _ := filepath.Glob(filepath.Join(shared, "data", "bccd", "valid", "*.jpg")) // none: fewer pictures
	photos = photos[:min(len(photos), 20)]
	if out, err := exec.Command(python, append(args, photos...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.*g"))
	if err != nil || len(files) < 90 {
		t.Fatalf("%d pictures, %v", len(files), err)
	}
	for _, file := range append(files, photos...) {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		trained, trainedErr := os.ReadFile(filepath.Join(dir, name+".rgb"))
		if err := errors.Join(err, trainedErr); err != nil {
			t.Fatal(err)
		}
		img, _, err := decodeImage(data, decoder)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := pixelsOf(img)
		if len(got) != len(trained) {
			t.Errorf("%s: %d values, training has %d", name, len(got), len(trained))
			continue
		}
		for i := range got {
			if got[i] != trained[i] {
				t.Errorf("%s: value %d is %d, training has %d", name, i, got[i], trained[i])
				break
			}
		}
		sameStretched(t, name, data)
	}
}

func pixelsOf(m image.Image) []byte {
	b := m.Bounds()
	out, rows := make([]byte, 3*b.Dx()*b.Dy()), rowReader(m)
	for y := range b.Dy() {
		copy(out[3*b.Dx()*y:], rows(y))
	}
	return out
}

// writeDeep writes PNGs with 16 bits a channel, which Pillow cannot write.
func writeDeep(t *testing.T, dir string) {
	r := rand.New(rand.NewPCG(1, 2))
	deep := image.NewNRGBA64(image.Rect(0, 0, 40, 30))
	for y := range 30 {
		for x := range 40 {
			deep.SetNRGBA64(x, y, color.NRGBA64{uint16(r.Uint32()), uint16(r.Uint32()), uint16(r.Uint32()), 0xffff})
		}
	}
	alpha := image.NewNRGBA64(deep.Rect)
	copy(alpha.Pix, deep.Pix)
	for i := 6; i < len(alpha.Pix); i += 8 {
		alpha.Pix[i] = byte(r.Uint32())
	}
	for name, m := range map[string]image.Image{"deep.png": deep, "deep-alpha.png": alpha} {
		var b bytes.Buffer
		if err := errors.Join(png.Encode(&b, m), os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}
