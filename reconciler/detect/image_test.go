package detect

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/turbojpeg"
)

// decoder is aob-detect's.
var decoder = turbojpeg.Decoder{}

// testSignature is that of testdata/detector.onnx.
func testSignature() delivery.Signature {
	return delivery.Signature{
		SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 32, Height: 24,
		Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
		Means:  []float64{0.485, 0.456, 0.406}, Stds: []float64{0.229, 0.224, 0.225},
		Slots: []string{"red", "", "blue", ""}, Background: 3, Select: 8,
	}
}

func read(t testing.TB, path ...string) []byte {
	data, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The expected tensors are torch's. JPEG is decoded by libjpeg there, whose
// arithmetic may be off by one in 255; all else must be equal.
func TestToTensor(t *testing.T) {
	var want map[string][]float64
	if err := json.Unmarshal(read(t, "tensors.json"), &want); err != nil {
		t.Fatal(err)
	}
	for name, list := range want {
		t.Run(name, func(t *testing.T) {
			img, _, err := decodeImage(read(t, name), decoder)
			if err != nil {
				t.Fatal(err)
			}
			got := toTensor(img, testSignature())
			if len(got) != len(list) {
				t.Fatalf("%d numbers, want %d", len(got), len(list))
			}
			worst, sum := 0.0, 0.0
			for i := range got {
				diff := math.Abs(float64(got[i]) - list[i])
				worst, sum = max(worst, diff), sum+diff
			}
			worstAllowed, meanAllowed := 3e-6, 3e-6
			if filepath.Ext(name) == ".jpg" {
				worstAllowed, meanAllowed = 0.05, 0.005
			}
			if mean := sum / float64(len(got)); !(worst <= worstAllowed && mean <= meanAllowed) {
				t.Errorf("at most %.3g and on average %.3g away from torch's", worst, mean)
			}
		})
	}
}

// Every pixel format of the decoders must give the same tensor as the plain one.
func TestToTensorPixelFormats(t *testing.T) {
	const w, h = 9, 7
	plain := image.NewNRGBA(image.Rect(0, 0, w, h))
	grey := image.NewNRGBA(image.Rect(0, 0, w, h))
	rgba, deep, deepRGBA := image.NewRGBA(plain.Rect), image.NewNRGBA64(plain.Rect), image.NewRGBA64(plain.Rect)
	paletted := image.NewPaletted(plain.Rect, nil)
	grey8, grey16 := image.NewGray(plain.Rect), image.NewGray16(plain.Rect)
	for y := range h {
		for x := range w {
			c := color.NRGBA{uint8(20 * x), uint8(30 * y), uint8(x * y), 255}
			see := c
			see.A = uint8(40 * (x % 3)) // alpha is dropped, 0 too
			plain.SetNRGBA(x, y, c)
			rgba.Set(x, y, c)
			deep.SetNRGBA64(x, y, color.NRGBA64{uint16(c.R)<<8 | 0x80, uint16(c.G)<<8 | 0xff, uint16(c.B) << 8,
				uint16(see.A) << 8})
			deepRGBA.SetRGBA64(x, y, color.RGBA64{uint16(c.R) << 8, uint16(c.G) << 8, uint16(c.B) << 8, 0xffff})
			paletted.Palette = append(paletted.Palette, see)
			paletted.SetColorIndex(x, y, uint8(y*w+x))
			grey.SetNRGBA(x, y, color.NRGBA{c.R, c.R, c.R, 255})
			grey8.SetGray(x, y, color.Gray{c.R})
			grey16.SetGray16(x, y, color.Gray16{uint16(c.R)<<8 | 0x7f})
		}
	}
	for _, c := range []struct {
		name      string
		img, same image.Image
	}{
		{"RGBA", rgba, plain}, {"NRGBA64", deep, plain}, {"RGBA64", deepRGBA, plain}, {"Paletted", paletted, plain},
		{"Gray", grey8, grey}, {"Gray16", grey16, grey},
	} {
		want := toTensor(c.same, testSignature())
		for i, v := range toTensor(c.img, testSignature()) {
			if v != want[i] {
				t.Errorf("%s: number %d is %v, want %v", c.name, i, v, want[i])
				break
			}
		}
	}
}

// An image of the input's own size is not interpolated at all.
func TestToTensorSameSize(t *testing.T) {
	sig := testSignature()
	sig.Means, sig.Stds = []float64{0, 0, 0}, []float64{1, 1, 1}
	img := image.NewGray(image.Rect(0, 0, sig.Width, sig.Height))
	for i := range img.Pix {
		img.Pix[i] = uint8(i * 7)
	}
	for i, v := range toTensor(img, sig) {
		if want := float32(img.Pix[i%len(img.Pix)]) / 255; v != want {
			t.Fatalf("number %d is %v, want %v", i, v, want)
		}
	}
}

// Images that shrink to half or less have code of their own, which gives the same to the last bit.
func TestToTensorOfRGB(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	sig := testSignature()
	for _, size := range [][4]int{{640, 480, 224, 160}, {64, 48, 32, 24}, {65, 49, 32, 24}, {63, 47, 32, 24},
		{2, 48, 32, 24}, {1, 48, 32, 24}, {7, 99, 3, 1}, {31, 2, 40, 1}, {500, 301, 10, 100}} {
		m := &rgbImage{make([]byte, 3*size[0]*size[1]), size[0], size[1]}
		for i := range m.pix {
			m.pix[i] = byte(draw.Uint32())
		}
		other := image.NewNRGBA(m.Bounds())
		for y := range size[1] {
			for x := range size[0] {
				other.Set(x, y, m.At(x, y))
			}
		}
		sig.Width, sig.Height = size[2], size[3]
		if !slices.Equal(toTensor(m, sig), toTensor(other, sig)) {
			t.Errorf("%d x %d to %d x %d: the tensors differ", size[0], size[1], size[2], size[3])
		}
	}
}

func TestDecodeImageRefuses(t *testing.T) {
	whole := read(t, "picture.jpg")
	wide := bytes.Clone(read(t, "small.png"))
	copy(wide[16:], "\x7f\xff\xff\xff\x7f\xff\xff\xff") // sizes in the header, with a checksum that is now wrong
	var large bytes.Buffer
	if err := jpeg.Encode(&large, image.NewGray(image.Rect(0, 0, 9, 9)), nil); err != nil {
		t.Fatal(err)
	}
	huge := bytes.Clone(large.Bytes())
	at := bytes.Index(huge, []byte("\xff\xc0"))
	copy(huge[at+5:], "\xea\x60\xea\x60") // 60000 x 60000
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "empty file"},
		{"text", []byte("not an image"), "neither JPEG nor PNG"},
		{"GIF", []byte("GIF89a\x01\x00\x01\x00"), "neither JPEG nor PNG"},
		{"only a JPEG's start", whole[:2], "truncated JPEG"},
		{"JPEG cut in the header", whole[:100], "truncated JPEG"},
		{"JPEG cut in the pixels", whole[:len(whole)-200], "truncated JPEG"},
		{"PNG cut in the pixels", read(t, "picture.png")[:3000], "truncated or malformed PNG"},
		{"PNG with a broken header", wide, "malformed PNG"},
		{"JPEG of 60000 x 60000", huge, "want at most 64 Mpx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := decodeImage(c.data, decoder)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzDecodeImage(f *testing.F) {
	for _, name := range []string{"picture.jpg", "grey.png", "palette.png", "alpha.png"} {
		f.Add(read(f, name))
	}
	sig := testSignature()
	f.Fuzz(func(t *testing.T, data []byte) {
		img, _, err := decodeImage(data, decoder)
		if err != nil || img.Bounds().Dx()*img.Bounds().Dy() > 1<<20 {
			return
		}
		for _, v := range toTensor(img, sig) {
			if math.IsNaN(float64(v)) || math.Abs(float64(v)) > 3 {
				t.Fatalf("%v in the tensor", v)
			}
		}
	})
}

func BenchmarkImage(b *testing.B) {
	picture := image.NewYCbCr(image.Rect(0, 0, 1920, 1080), image.YCbCrSubsampleRatio420)
	for i := range picture.Y {
		picture.Y[i] = uint8(i * i >> 9)
	}
	var file bytes.Buffer
	if err := jpeg.Encode(&file, picture, &jpeg.Options{Quality: 85}); err != nil {
		b.Fatal(err)
	}
	sig := testSignature()
	sig.Width, sig.Height = 512, 512
	b.Run("decode 1080p JPEG", func(b *testing.B) {
		for b.Loop() {
			_, release, err := decodeImage(file.Bytes(), decoder)
			if err != nil {
				b.Fatal(err)
			}
			release()
		}
	})
	img, _, err := decodeImage(file.Bytes(), decoder)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("tensor 1080p to 512", func(b *testing.B) {
		for b.Loop() {
			toTensor(img, sig)
		}
	})
}
