// Command databench measures aob data check on many images beside sha256sum on the same files, by turns.
//
//	go run ./tools/databench -aob bin/aob
//
// It makes a dataset of real JPEGs in a temporary folder, and removes it at the end.
package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	n := flag.Int("images", 100_000, "the `number` of images")
	aob := flag.String("aob", "bin/aob", "the aob `program`")
	turns := flag.Int("turns", 5, "how often to measure")
	pixels := flag.Bool("pixels", false, "also measure a whole check, which decodes all images")
	in := flag.String("in", os.TempDir(), "the `folder` to make the dataset in: it needs 2 GB for 100,000 images")
	flag.Parse()
	if err := bench(*in, *aob, *n, *turns, *pixels); err != nil {
		log.Fatal(err)
	}
}

func bench(in, aob string, n, turns int, pixels bool) error {
	dir, err := os.MkdirTemp(in, "aob-databench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	size, err := generate(data, n)
	if err != nil {
		return err
	}
	fmt.Printf("%d JPEGs, %.1f KB each\n", n, float64(size)/float64(n)/1000)
	cache := filepath.Join(dir, "cache")
	check := func(flags ...string) func() (figure, error) {
		return func() (figure, error) {
			c := exec.Command(aob, append([]string{"data", "check", data, "-o", "json"}, flags...)...)
			c.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache)
			return timed(c)
		}
	}
	sums := func() (figure, error) {
		return timed(exec.Command("sh", "-c", `find "$0" -type f -print0 | xargs -0 -P2 -n500 sha256sum >"$0.sums"`,
			data))
	}
	if _, err := sums(); err != nil { // all files are in the page cache then
		return err
	}
	figures := map[string][]figure{}
	measure := func(name string, run func() (figure, error)) error {
		took, err := run()
		figures[name] = append(figures[name], took)
		fmt.Printf("%-28s %v\n", name, took)
		return err
	}
	const sum, headers, again, whole, wholeAgain = "sha256sum", "check --headers-only", "the same again", "check",
		"check again"
	for range turns {
		if err := os.RemoveAll(cache); err != nil {
			return err
		}
		for _, m := range []struct {
			name string
			run  func() (figure, error)
		}{{sum, sums}, {headers, check("--headers-only")}, {again, check("--headers-only")}} {
			if err := measure(m.name, m.run); err != nil {
				return err
			}
		}
	}
	if pixels {
		if err := measure(whole, check()); err != nil {
			return err
		}
		for range turns {
			if err := measure(wholeAgain, check()); err != nil {
				return err
			}
		}
	}
	fmt.Println("medians:")
	for _, name := range []string{sum, headers, again, whole, wholeAgain} {
		if list := figures[name]; len(list) > 0 {
			slices.SortFunc(list, func(a, b figure) int { return cmp.Compare(a.wall, b.wall) })
			fmt.Printf("%-28s %v\n", name, list[len(list)/2])
		}
	}
	return nil
}

// A figure is how long a command took, and how much time of processors.
type figure struct{ wall, cpu time.Duration }

func (f figure) String() string {
	return fmt.Sprintf("%v, %v of CPU", f.wall.Round(10*time.Millisecond), f.cpu.Round(10*time.Millisecond))
}

func timed(c *exec.Cmd) (figure, error) {
	var stderr bytes.Buffer
	c.Stderr = &stderr
	began := time.Now()
	err := c.Run()
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", c.Args, err, stderr.Bytes())
	}
	return figure{time.Since(began), c.ProcessState.UserTime() + c.ProcessState.SystemTime()}, err
}

// generate writes a dataset of n images, 90 % of them in train, and returns their size. Few pictures are encoded; each
// file has a comment of its own, so no two are equal.
func generate(dir string, n int) (size int64, err error) {
	const pictures = 500
	var encoded [][]byte
	random := rand.New(rand.NewPCG(1, 2))
	for range min(pictures, n) {
		encoded = append(encoded, encode(random))
	}
	type object = map[string]any
	for _, s := range []struct {
		name string
		n    int
	}{{"train", n - n/10}, {"valid", n / 10}} {
		if err := os.MkdirAll(filepath.Join(dir, s.name), 0o755); err != nil {
			return 0, err
		}
		var images, boxes []object
		for i := range s.n {
			name := fmt.Sprintf("%06d.jpg", i)
			file := commented(encoded[random.IntN(len(encoded))], s.name+name)
			if err := os.WriteFile(filepath.Join(dir, s.name, name), file, 0o644); err != nil {
				return 0, err
			}
			size += int64(len(file))
			images = append(images, object{"id": i, "file_name": name, "width": 320, "height": 240})
			for k := range 3 {
				boxes = append(boxes, object{"id": 3*i + k, "image_id": i, "category_id": 1, "area": 400, "iscrowd": 0,
					"bbox": []int{10 + 50*k, 20, 20, 20}})
			}
		}
		data, err := json.Marshal(object{"images": images, "annotations": boxes,
			"categories": []object{{"id": 1, "name": "thing"}}})
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, s.name, "_annotations.coco.json"), data, 0o644); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// encode returns a JPEG of 320 x 240 pixels and about 20 KB: a gradient with noise.
func encode(random *rand.Rand) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 320, 240))
	red, green := random.IntN(160), random.IntN(160)
	for y := range 240 {
		for x := range 320 {
			noise := random.IntN(44)
			m.SetRGBA(x, y, color.RGBA{uint8(red + x/6 + noise), uint8(green + y/6 + noise), uint8(100 + noise), 255})
		}
	}
	for range 12 {
		x, y, shade := random.IntN(280), random.IntN(200), uint8(random.IntN(256))
		for dy := range 40 {
			for dx := range 40 {
				m.SetRGBA(x+dx, y+dy, color.RGBA{shade, uint8(255 - int(shade)), shade, 255})
			}
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 80}); err != nil {
		panic(err) // memory takes everything
	}
	return b.Bytes()
}

// commented inserts a comment after the start of a JPEG.
func commented(file []byte, text string) []byte {
	segment := binary.BigEndian.AppendUint16([]byte{0xff, 0xfe}, uint16(len(text)+2))
	return slices.Concat(file[:2], segment, []byte(text), file[2:])
}
