package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	encoder "image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// picture returns a JPEG file, with a thumbnail in an APP1 segment.
func picture(t testing.TB, size int) []byte {
	var b bytes.Buffer
	img := image.NewGray(image.Rect(0, 0, size, size))
	for i := range img.Pix {
		img.Pix[i] = uint8(i * i)
	}
	if err := encoder.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	if size <= 4 {
		return b.Bytes()
	}
	thumbnail := picture(t, 4)
	segment := append([]byte{0xff, 0xe1, byte((len(thumbnail) + 2) >> 8), byte(len(thumbnail) + 2)}, thumbnail...)
	return append(append(bytes.Clone(b.Bytes()[:2]), segment...), b.Bytes()[2:]...)
}

func scanned(t testing.TB, r io.Reader) (files [][]byte, err error) {
	err = scanJPEGs(r, func(image []byte) { files = append(files, image) })
	return files, err
}

func TestScanJPEGs(t *testing.T) {
	a, b := picture(t, 40), picture(t, 70)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name   string
		stream []byte
		want   [][]byte
	}{
		{"nothing", nil, nil},
		{"one", a, [][]byte{a}},
		{"two", join(a, b), [][]byte{a, b}},
		{"lines between", join([]byte("frame 1\r\n"), a, []byte("\r\n\xff"), b, []byte("\n")), [][]byte{a, b}},
		{"no JPEG", []byte("\xff\xd8 is no JPEG"), nil},
		{"cut", join(b[:2], a, []byte("\xff\xd8\xff")), [][]byte{a}},
	} {
		for _, slow := range []bool{false, true} {
			var r io.Reader = bytes.NewReader(c.stream)
			if slow {
				r = iotest.OneByteReader(r)
			}
			files, err := scanned(t, r)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if len(files) != len(c.want) {
				t.Errorf("%s: %d files, want %d", c.name, len(files), len(c.want))
				continue
			}
			for i := range files {
				if !bytes.Equal(files[i], c.want[i]) {
					t.Errorf("%s: file %d has %d bytes, want %d", c.name, i, len(files[i]), len(c.want[i]))
				}
			}
		}
	}
}

// Whatever the stream, each file begins and ends as a JPEG file, and the sizes of the reads do not matter.
func FuzzScanJPEGs(f *testing.F) {
	f.Add(append(picture(f, 9), picture(f, 4)...))
	f.Add([]byte("\xff\xd8\xff\xff\xd9\xff\xd8\xff\xda\x00\x02\xff\x00\xff\xd9"))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := scanned(t, bytes.NewReader(data))
		slow, slowErr := scanned(t, iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil || slowErr != nil || len(files) != len(slow) {
			t.Fatalf("%d files, %v; byte by byte %d, %v", len(files), err, len(slow), slowErr)
		}
		for i, file := range files {
			if !bytes.Equal(file, slow[i]) || !bytes.HasPrefix(file, []byte("\xff\xd8\xff")) ||
				!bytes.HasSuffix(file, []byte("\xff\xd9")) {
				t.Fatalf("file %d is %x", i, file)
			}
		}
	})
}

// next returns the next frame of a source.
func next(t *testing.T, s Source) Frame {
	frame, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func TestFolderSource(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b.JPG", []byte("2"))
	write("a.png", []byte("1"))
	write("notes.txt", []byte("x"))
	s, err := OpenSource(dir, nil, SourceOptions{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(next(t, s).Image) + string(next(t, s).Image); got != "12" {
		t.Errorf("got %s", got)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}

	follow, err := OpenSource(dir, nil, SourceOptions{Follow: true, Every: time.Millisecond}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	next(t, follow)
	next(t, follow)
	write("c.jpeg", []byte("3"))
	if frame := next(t, follow); filepath.Base(frame.Name) != "c.jpeg" {
		t.Errorf("got %s", frame.Name)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if _, err := follow.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCommandSource(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.jpg"), picture(t, 30), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	s, err := OpenSource(
		"exec",
		[]string{"sh", "-c", "cat $0; echo no camera >&2; exit 3", filepath.Join(dir, "1.jpg")},
		SourceOptions{},
		&said,
	)
	if err != nil {
		t.Fatal(err)
	}
	if frame := next(t, s); !bytes.Equal(frame.Image, picture(t, 30)) {
		t.Errorf("%d bytes", len(frame.Image))
	}
	if _, err := s.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("after its end: %v", err)
	}
	next(t, s) // it is started again
	if err := s.Close(); err != nil || !strings.Contains(said.String(), "no camera") {
		t.Errorf("%v; it said %q", err, said.String())
	}
}

// A camera that is faster than the model loses frames, and the newest one is the next.
func TestCameraKeepsTheNewest(t *testing.T) {
	written := make(chan struct{})
	c := newCamera(func(ctx context.Context, take func([]byte)) error {
		for i := range 5 {
			take([]byte{byte(i)})
		}
		close(written)
		<-ctx.Done()
		return nil
	})
	<-written
	if frame := next(t, c); frame.Image[0] != 4 || frame.Lost != 4 {
		t.Errorf("frame %v with %d lost", frame.Image, frame.Lost)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestURLSource(t *testing.T) {
	fetched := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/one.jpg", func(w http.ResponseWriter, r *http.Request) {
		fetched++
		fmt.Fprint(w, fetched)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		parts := multipart.NewWriter(w)
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+parts.Boundary())
		part, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"image/jpeg"}})
		if err == nil {
			_, err = part.Write([]byte("first"))
		}
		if err := errors.Join(err, parts.Close()); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/private", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
	server := httptest.NewServer(mux)
	defer server.Close()
	open := func(path string) Source {
		s, err := OpenSource(strings.Replace(server.URL, "://", "://user:s3cret@", 1)+path, nil,
			SourceOptions{Every: time.Millisecond}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open("/one.jpg")
	for i := range 2 {
		if len(next(t, s).Image) == 0 {
			t.Errorf("no picture %d", i)
		}
	}
	s = open("/stream")
	if frame := next(t, s); string(frame.Image) != "first" {
		t.Errorf("got %q", frame.Image)
	}
	if _, err := s.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "the stream has ended") {
		t.Errorf("after the stream: %v", err)
	}
	if _, err := open("/private").Next(t.Context()); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("private: %v", err)
	}
	server.Close()
	if _, err := open("/one.jpg").Next(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("without a server: %v", err)
	}
}

// A camera whose program stops with the connection open is asked again.
func TestStalledStream(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=b")
		fmt.Fprint(w, "--b\r\n\r\nfirst\r\n--b\r\n\r\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done() // nothing more comes
	}))
	defer server.Close()
	s, err := OpenSource(server.URL, nil, SourceOptions{Stall: 100 * time.Millisecond}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if frame := next(t, s); string(frame.Image) != "first" {
			t.Errorf("got %q", frame.Image)
		}
		if _, err := s.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "no picture came for 100ms") {
			t.Errorf("after the stall: %v", err)
		}
	}
}

// A program that a shell has started ends with the source, and so does one that has stopped without ending.
func TestCommandSourceEndsAll(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.jpg"), picture(t, 30), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(dir, "pid")
	s, err := OpenSource("exec", []string{"sh", "-c", `cat "$0"; sh -c 'trap "" TERM; echo $$ >"$0.new"; ` +
		`mv "$0.new" "$0"; while :; do sleep 1000; done' "$1"; true`, filepath.Join(dir, "1.jpg"), pid},
		SourceOptions{Stall: 500 * time.Millisecond}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	next(t, s)
	if _, err := s.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "no picture came for 500ms") {
		t.Errorf("after the stall: %v", err)
	}
	next(t, s) // it is started again
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", number)); err == nil &&
		!strings.Contains(string(state), ") Z ") {
		t.Errorf("a process is left: %s", state)
	}
}

// A camera cannot choose what else of this network is asked.
func TestURLSourceStaysAtItsHost(t *testing.T) {
	asked := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/camera":
			http.Redirect(w, r, "/picture", http.StatusFound)
		case "/picture":
			fmt.Fprint(w, "here")
		default:
			http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/admin", http.StatusFound)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/camera": "", "/elsewhere": "it redirects to another host (localhost)"} {
		s, err := OpenSource(server.URL+path, nil, SourceOptions{}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Next(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", path, err)
		}
		s.Close()
	}
	if len(asked) > 0 {
		t.Errorf("the other host was asked for %s", <-asked)
	}
}

func TestOpenSourceRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.jpg")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{"exec": "needs a command", "/no/such/folder": "no such file",
		file: "not a folder", "https://": "not valid", "http://user:s3cret@%zz/": "not valid"} {
		if _, err := OpenSource(spec, nil, SourceOptions{}, io.Discard); err == nil ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", spec, err)
		}
	}
	if _, err := OpenSource(".", []string{"x"}, SourceOptions{}, io.Discard); err == nil {
		t.Error("a command without exec: no error")
	}
	if _, err := OpenSource("exec", []string{"no-such-camera"}, SourceOptions{}, io.Discard); err == nil ||
		!strings.Contains(err.Error(), "install it, or give its path") {
		t.Errorf("a command that is missing: %v", err)
	}
	empty := t.TempDir()
	if _, err := OpenSource(empty, nil, SourceOptions{}, io.Discard); err == nil ||
		!strings.Contains(err.Error(), "has no .jpg") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := OpenSource(empty, nil, SourceOptions{Follow: true}, io.Discard); err != nil {
		t.Errorf("an empty folder that is followed: %v", err)
	}
}
