package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Frame is one image of a source.
type Frame struct {
	Name  string // of the file; empty for a camera
	At    time.Time
	Image []byte // a JPEG or PNG file, not decoded
	Lost  int    // frames of a camera that were replaced by newer ones since the frame before
}

// A Source gives frames. It is for one goroutine.
type Source interface {
	// Next waits for the next frame. After the last one it returns io.EOF.
	Next(ctx context.Context) (Frame, error)
	// Close ends what the source has started.
	Close() error
}

// SourceOptions are the settings of a source.
type SourceOptions struct {
	Every  time.Duration // between two frames of a URL, and two looks into a folder; 0: 1s
	Follow bool          // of a folder: wait for new files
	Stall  time.Duration // of a URL or a command: how long it may take to bring the next picture; 0: 1m
}

// OpenSource opens a source:
//
//	FOLDER             the JPEG and PNG files of a folder, in the order of their names
//	http:// https://   a picture, fetched again and again, or a stream of pictures (multipart/x-mixed-replace)
//	exec               a command, whose output is JPEG files one after the other: of GStreamer, V4L2 or FFmpeg
//
// Of a stream or a command only the newest frame is kept, because a camera does not wait. When it ends it is started
// again after a second; so is one that brings no picture for a minute, because the programs of some cameras stop
// without ending. A command ends with all processes that it has started. Its errors go to stderr.
func OpenSource(spec string, command []string, o SourceOptions, stderr io.Writer) (Source, error) {
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	switch {
	case spec == "exec" && len(command) == 0:
		return nil, errors.New("source exec needs a command: aob-detect run ... --source exec -- COMMAND ARGUMENTS")
	case spec != "exec" && len(command) > 0:
		return nil, fmt.Errorf("source %s takes no command; only exec does", spec)
	case spec == "exec":
		if _, err := exec.LookPath(command[0]); err != nil { // it would be tried each second for ever
			return nil, fmt.Errorf("source exec: %w; install it, or give its path", err)
		}
		return newCamera(func(ctx context.Context, take func([]byte)) error {
			return readCommand(ctx, command, o.Stall, stderr, take)
		}), nil
	case strings.HasPrefix(spec, "http://"), strings.HasPrefix(spec, "https://"):
		u, err := url.Parse(spec)
		if err != nil || u.Host == "" {
			return nil, errors.New("the source's URL is not valid") // without the URL, which may have a password
		}
		return newCamera(func(ctx context.Context, take func([]byte)) error {
			return readURL(ctx, u, o, take)
		}), nil
	}
	info, err := os.Stat(spec)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("source %s is not a folder; want a folder, a URL or exec", spec)
	}
	f := &folder{dir: spec, o: o, seen: map[string]bool{}}
	if err := f.look(); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if len(f.names) == 0 && !o.Follow {
		return nil, fmt.Errorf("source %s has no .jpg, .jpeg or .png file of its own (folders within it do not "+
			"count); --follow waits for files", spec)
	}
	return f, nil
}

// A folder gives the files of a folder.
type folder struct {
	dir   string
	o     SourceOptions
	seen  map[string]bool
	names []string // that are next
}

// Next implements Source.
func (f *folder) Next(ctx context.Context) (Frame, error) {
	for {
		for len(f.names) > 0 {
			path := filepath.Join(f.dir, f.names[0])
			f.names = f.names[1:]
			data, err := durable.ReadFile(path, detect.MaxImageBytes)
			if errors.Is(err, os.ErrNotExist) {
				continue // it was there a moment ago
			}
			if err != nil {
				return Frame{Name: path}, &detect.ImageError{Path: path, Why: err.Error()}
			}
			return Frame{Name: path, At: time.Now(), Image: data}, nil
		}
		if err := f.look(); err != nil {
			return Frame{}, err
		}
		if len(f.names) > 0 {
			continue
		}
		if !f.o.Follow {
			return Frame{}, io.EOF
		}
		select {
		case <-ctx.Done():
			return Frame{}, context.Cause(ctx)
		case <-time.After(f.o.Every):
		}
	}
}

// look finds the files that are new.
func (f *folder) look() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".jpg", ".jpeg", ".png":
			if there[e.Name()] = true; !f.seen[e.Name()] {
				f.names = append(f.names, e.Name())
			}
		}
	}
	f.seen = there // not the files of before that are gone: their names may be used again
	return nil
}

// Close implements Source.
func (f *folder) Close() error { return nil }

// A camera keeps the newest frame of a stream.
type camera struct {
	end   context.CancelFunc
	ended sync.WaitGroup
	ready chan struct{} // has a value when there is a frame or an error

	mu    sync.Mutex
	frame Frame
	there bool
	err   error
}

// newCamera reads a stream, and begins again a second after its end.
func newCamera(read func(ctx context.Context, take func(image []byte)) error) *camera {
	ctx, end := context.WithCancel(context.Background())
	c := &camera{end: end, ready: make(chan struct{}, 1)}
	c.ended.Go(func() {
		for ctx.Err() == nil {
			err := read(ctx, c.take)
			if err == nil {
				err = errors.New("the stream has ended")
			}
			c.mu.Lock()
			c.err = StreamError{err}
			c.mu.Unlock()
			c.wake()
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	return c
}

func (c *camera) take(image []byte) {
	c.mu.Lock()
	if c.there {
		c.frame.Lost++
	}
	c.frame = Frame{At: time.Now(), Image: image, Lost: c.frame.Lost}
	c.there = true
	c.mu.Unlock()
	c.wake()
}

func (c *camera) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// A StreamError is why a camera's stream was interrupted. It begins again by itself.
type StreamError struct{ error }

// Next implements Source. A StreamError is returned once; a later call waits for the stream's new start.
func (c *camera) Next(ctx context.Context) (Frame, error) {
	for {
		c.mu.Lock()
		frame, there, err := c.frame, c.there, c.err
		switch {
		case there:
			c.frame, c.there = Frame{}, false
		case err != nil:
			c.err = nil
		}
		c.mu.Unlock()
		switch {
		case there:
			return frame, nil
		case err != nil:
			return Frame{}, err
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			return Frame{}, context.Cause(ctx)
		}
	}
}

// Close implements Source.
func (c *camera) Close() error {
	c.end()
	c.ended.Wait()
	return nil
}

// readCommand runs a command and takes the JPEG files of its output.
func readCommand(ctx context.Context, command []string, stall time.Duration, stderr io.Writer,
	take func([]byte)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = stderr
	cmd.WaitDelay = time.Second
	// A shell's programs would keep the camera if only the shell ended. SIGTERM, because a program of a camera that is
	// killed may leave it in a state in which no other one can open it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	group := func(signal syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, signal) }
	cmd.Cancel = func() error { return group(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	stalled := noPicture(stall)
	watch := time.AfterFunc(stall, func() { cancel(stalled) })
	defer watch.Stop()
	// Its processes can hold the pipe open after they were told to end.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(cmd.WaitDelay, func() { out.Close() }) })()
	err = scanJPEGs(out, func(image []byte) {
		watch.Reset(stall)
		take(image)
	})
	if err != nil { // it writes something else: end it, so that it does not wait for a reader
		cancel(err)
	}
	err = errors.Join(err, cmd.Wait())
	_ = group(syscall.SIGKILL) // what is left; an error means that nothing is
	if context.Cause(ctx) == stalled {
		return stalled
	}
	return err
}

// noPicture is the error of a source that has stopped without ending.
func noPicture(stall time.Duration) error { return fmt.Errorf("source: no picture came for %s", stall) }

// scanJPEGs takes each JPEG file of a stream of them.
func scanJPEGs(r io.Reader, take func([]byte)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1<<20), detect.MaxImageBytes)
	s.Split(splitJPEG)
	for s.Scan() {
		take(slices.Clone(s.Bytes()))
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("the output has no end of a JPEG file within %d MiB", detect.MaxImageBytes>>20)
	}
	return s.Err()
}

// splitJPEG is a bufio.SplitFunc for JPEG files one after the other. It follows the segments of a file, because a
// thumbnail within has an end of its own. Bytes between files are skipped.
func splitJPEG(data []byte, atEOF bool) (advance int, file []byte, err error) {
	for start := 0; ; start++ {
		found := bytes.Index(data[start:], []byte{0xff, 0xd8, 0xff})
		if found < 0 {
			if atEOF {
				return len(data), nil, nil
			}
			return max(start, len(data)-2), nil, nil // the last two bytes may be a file's first
		}
		start += found
		switch end := jpegEnd(data[start:]); {
		case end > 0:
			return start + end, data[start : start+end], nil
		case end == 0 && !atEOF:
			return start, nil, nil
		}
		// It is no JPEG file, or one that has no end; another may begin within.
	}
}

// jpegEnd returns the length of the JPEG file that data begins with; 0 if more data is needed, -1 if it is none.
func jpegEnd(data []byte) int {
	at := 2
	for {
		for at < len(data) && data[at] == 0xff && at+1 < len(data) && data[at+1] == 0xff {
			at++ // fill bytes
		}
		if at+2 > len(data) {
			return 0
		}
		if data[at] != 0xff {
			return -1
		}
		switch marker := data[at+1]; {
		case marker == 0xd9:
			return at + 2
		case marker == 0x01 || marker >= 0xd0 && marker <= 0xd7:
			at += 2
			continue
		case marker == 0x00 || marker == 0xd8:
			return -1
		}
		if at+4 > len(data) {
			return 0
		}
		length := int(data[at+2])<<8 | int(data[at+3])
		if length < 2 {
			return -1
		}
		scan := data[at+1] == 0xda
		if at += 2 + length; !scan {
			continue
		}
		for ; ; at++ { // pixels, up to a marker that is neither a stuffed zero nor a restart
			if at >= len(data) {
				return 0
			}
			found := bytes.IndexByte(data[at:], 0xff)
			if at += found; found < 0 || at+1 >= len(data) {
				return 0
			}
			if next := data[at+1]; next != 0 && next != 0xff && (next < 0xd0 || next > 0xd7) {
				break
			}
		}
	}
}

// streamClient fetches pictures. A stream has no end, so only its beginning has a limit.
var streamClient = &http.Client{CheckRedirect: sameHost, Transport: &http.Transport{
	ResponseHeaderTimeout: 10 * time.Second, Proxy: http.ProxyFromEnvironment}}

// sameHost refuses a redirect to another host: a camera would choose which addresses of this network are asked.
func sameHost(next *http.Request, before []*http.Request) error {
	const most = 10
	switch {
	case next.URL.Hostname() != before[0].URL.Hostname():
		return fmt.Errorf("it redirects to another host (%s); name that address as the source if it is the camera's",
			delivery.PlainText(next.URL.Hostname(), 100))
	case len(before) >= most:
		return errors.New("it redirects too often")
	}
	return nil
}

// readURL takes the parts of a stream, or one picture again and again.
func readURL(ctx context.Context, u *url.URL, o SourceOptions, take func([]byte)) error {
	for {
		if err := fetch(ctx, u, o.Stall, take); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(o.Every):
		}
	}
}

// fetch takes the pictures of one answer.
func fetch(ctx context.Context, u *url.URL, stall time.Duration, take func([]byte)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := noPicture(stall)
	watch := time.AfterFunc(stall, func() { cancel(stalled) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errors.New("the source's URL is not valid")
	}
	resp, err := streamClient.Do(req)
	if err == nil {
		defer resp.Body.Close()
		err = readResponse(resp, func(image []byte) {
			watch.Reset(stall)
			take(image)
		})
	} else {
		err = fmt.Errorf("source: %w", withoutURL(err))
	}
	if err != nil && context.Cause(ctx) == stalled {
		return stalled
	}
	return err
}

func readResponse(resp *http.Response, take func([]byte)) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("source: the server answers %s", resp.Status)
	}
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(resp.Body, strings.TrimPrefix(params["boundary"], "--"))
		for {
			part, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return errors.New("source: the stream has ended")
			}
			if err != nil {
				return fmt.Errorf("source: %w", err)
			}
			if err := readPicture(part, take); err != nil {
				return err
			}
		}
	}
	return readPicture(resp.Body, take)
}

func readPicture(r io.Reader, take func([]byte)) error {
	image, err := io.ReadAll(io.LimitReader(r, detect.MaxImageBytes+1))
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if len(image) > detect.MaxImageBytes {
		return fmt.Errorf("source: a picture has more than %d MiB", detect.MaxImageBytes>>20)
	}
	take(image)
	return nil
}

// withoutURL removes the URL, which may have a password, from an error.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
