package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/servesoak/mutate"
)

// hostileRequests sends hostile pictures and requests, half of each, to a server with a good model.
func hostileRequests(ctx context.Context, o options, plan mutationsPlan, flags []string, out io.Writer) (err error) {
	// Hostile pictures may take long, and those of others wait for a processor.
	server, err := startFront(o.binary, o.bundle, append(flags, "--timeout", "1m")...)
	if err != nil {
		return err
	}
	defer func() {
		most, stopErr := server.stop()
		fmt.Fprintf(out, "most memory of a process of the front: %.0f MiB\n", mib(most))
		err = errors.Join(err, stopErr, within(most))
	}()
	c, err := newClients(server.url, o.pictures, 1)
	if err != nil {
		return err
	}
	c.pause = 50 * time.Millisecond
	end := c.start(1)
	defer end()
	target := mutate.Target{Model: modelName, Version: "1", Input: o.shape.input, Boxes: o.shape.boxes,
		Logits: o.shape.logits, Height: o.shape.height, Width: o.shape.width, Pictures: o.pictures}
	counts := newTally()
	first := server.children()
	numbers := make(chan int)
	var held chan struct{}
	if plan.held > 0 {
		held = make(chan struct{}, plan.held)
	}
	var all sync.WaitGroup
	attack := func(i int) {
		s := mutate.Request(target, o.seed, i)
		if i%2 == 0 {
			s.Made = mutate.Picture(o.pictures, o.seed, i/2)
			s.Data, s.Whole, s.Held = pictureRequest(s.Data), true, false
		}
		if s.Held = s.Held && held != nil; s.Held {
			held <- struct{}{}
			all.Go(func() {
				defer func() { <-held }()
				shoot(server, s, i, counts)
			})
			return
		}
		shoot(server, s, i, counts)
	}
	const shooters = 8
	for range shooters {
		all.Go(func() {
			for i := range numbers {
				attack(i)
			}
		})
	}
	for i := range plan.requests {
		if ctx.Err() != nil || !server.alive() {
			break
		}
		numbers <- i
		if i%1000 == 999 {
			fmt.Fprintf(out, "%d pictures and requests\n", i+1)
		}
	}
	close(numbers)
	all.Wait()
	end()
	answers := c.take()
	n, failed := failures(answers)
	fmt.Fprintf(out, "%d hostile pictures and requests, and %d good ones beside them, %d wrong; p99 %.1f ms\n",
		plan.requests,
		len(answers), n, quantile(sortedTimes(answers), 0.99).Seconds()*1e3)
	counts.print(out)
	if !server.alive() {
		return fmt.Errorf("the front has ended: %w\n%s", server.err, tail(server.said()))
	}
	if now := server.children(); !slices.Equal(first, now) {
		failed = errors.Join(failed, fmt.Errorf("the model's process was %v and is %v\n%s", first, now,
			tail(server.said())))
	}
	return errors.Join(ctx.Err(), failed, counts.err("pictures and requests"))
}

// shoot sends one, and counts the outcome.
func shoot(server *front, s mutate.Sent, i int, counts *tally) {
	patience := time.Minute + grace
	if s.Held {
		patience = 90*time.Second + grace // the server's own limits end it
	}
	began := time.Now()
	status, answers, err := send(server.url, s, patience)
	what := "request"
	if i%2 == 0 {
		what = "picture"
	}
	if s.Held {
		what = "held open"
	}
	counts.add(what + ": " + status)
	switch {
	case err != nil:
		counts.fail("%d (%s): %v after %v", i, s.Kind, err, time.Since(began).Round(time.Millisecond))
	case s.Whole && answers == 0:
		counts.fail("%d (%s): closed without an answer", i, s.Kind)
	case status == "500" && !strings.HasPrefix(s.Kind, "V2"): // V2 tensors of the largest numbers have no finite answer
		counts.fail("%d (%s): 500", i, s.Kind)
	}
}

// halfOpen is how long a caller waits for an answer before it closes its half of the connection.
const halfOpen = 2 * time.Second

// send writes to a connection, ends its own half unless it is held, and reads all answers. The status is that of the
// last one. An error means that the server neither answers nor closes, or answers with what is no HTTP.
func send(base string, s mutate.Sent, patience time.Duration) (status string, answers int, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", 0, err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return "no connection", 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", 0, err
	}
	answered := make(chan struct{})
	var written sync.WaitGroup
	written.Go(func() {
		_, _ = conn.Write(s.Data) // an error means that the server has answered and closed
		if tcp, ok := conn.(*net.TCPConn); ok && !s.Held {
			// A server takes this for a caller that leaves, so one that can answer gets the time for it.
			select {
			case <-answered:
			case <-time.After(halfOpen):
			}
			_ = tcp.CloseWrite()
		}
	})
	defer written.Wait()
	defer conn.Close() // before the wait
	defer close(answered)
	status = "closed"
	in := bufio.NewReader(conn)
	for {
		if _, err := in.Peek(1); err != nil {
			return status, answers, silent(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if reset(err) || answers > 0 && silent(err) == nil {
				return status, answers, nil
			}
			return "no HTTP", answers, err
		}
		status = strconv.Itoa(resp.StatusCode)
		answers++
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if reset(err) {
			return status, answers, nil
		}
		if err != nil {
			return "half an answer", answers, err
		}
		if resp.Close {
			return status, answers, nil
		}
	}
}

// silent returns the error of a connection that is neither answered nor closed.
func silent(err error) error {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return errors.New("neither an answer nor an end")
	}
	return nil
}

// reset says that the server has closed while more was sent to it; what it wrote last can be lost then.
func reset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// pictureRequest is a request with a picture.
func pictureRequest(picture []byte) []byte {
	return append(fmt.Appendf(nil,
		"POST /v1/detect HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
		len(picture)), picture...)
}

// plainPicture is of one colour: where traps are, it opens them.
var plainPicture = sync.OnceValue(func() []byte {
	img := image.NewGray(image.Rect(0, 0, 64, 64))
	for i := range img.Pix {
		img.Pix[i] = 128
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		panic(err) // into memory
	}
	return out.Bytes()
})

// neighbours measures a good model while dear ones are its shadow, and while they are loaded in its place.
func neighbours(ctx context.Context, o options, plan mutationsPlan, dir string, flags []string,
	out io.Writer) (err error) {
	good, err := os.ReadFile(filepath.Join(o.bundle, delivery.ModelFile))
	if err != nil {
		return err
	}
	server, err := startFront(o.binary, o.bundle, flags...)
	if err != nil {
		return err
	}
	defer func() {
		_, stopErr := server.stop()
		err = errors.Join(err, stopErr)
	}()
	c, err := newClients(server.url, o.pictures, 1)
	if err != nil {
		return err
	}
	c.pause = 5 * time.Millisecond
	during := func(do func() error) ([]answer, error) {
		end := c.start(1)
		defer end()
		err := do()
		end()
		return c.take(), err
	}
	pause := func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(plan.neighbours):
			return nil
		}
	}
	report := func(what string, list []answer) error {
		times := sortedTimes(list)
		fmt.Fprintf(out, "  %-60s p50 %6.1f ms, p99 %6.1f ms, longest %6.1f ms, of %d\n", what, quantile(times,
			0.5).Seconds()*1e3,
			quantile(times, 0.99).Seconds()*1e3, quantile(times, 1).Seconds()*1e3, len(list))
		_, err := failures(list)
		return err
	}
	fmt.Fprintln(out, "a good model, one client:")
	quiet, err := during(pause)
	if err = errors.Join(err, report("alone", quiet)); err != nil {
		return err
	}
	bundle := filepath.Join(dir, "dear")
	if err := copyBundle(o.bundle, bundle); err != nil {
		return err
	}
	defer os.RemoveAll(bundle)
	for _, name := range mutate.Dear {
		for _, trap := range []bool{true, false} {
			made := mutate.Costly(good, name, trap)
			if err := os.WriteFile(filepath.Join(bundle, delivery.ModelFile), made.Data, 0o600); err != nil {
				return err
			}
			if !trap { // it does not pass the golden, and is given up after the limit
				list, err := during(func() error {
					err := server.load(bundle, "dear", hostileLoad+grace)
					if _, refused := errors.AsType[refusal](err); refused {
						return nil
					}
					return err
				})
				if err = errors.Join(err, report("while a model is loaded, "+made.Kind, list)); err != nil {
					return err
				}
				continue
			}
			list, err := during(func() error {
				err := server.operate("PUT", "/shadow", map[string]any{"bundle": bundle, "version": "dear", "share": 1},
					hostileLoad+grace)
				if refused, ok := errors.AsType[refusal](err); ok {
					return fmt.Errorf("%s: %s", made.Kind, refused)
				}
				if err != nil {
					return err
				}
				_, _, err = send(server.url, mutate.Sent{Made: mutate.Made{Data: pictureRequest(plainPicture())}},
					hostileCall+grace)
				return errors.Join(err, pause())
			})
			if err = errors.Join(err, report("beside a shadow, "+made.Kind, list)); err != nil {
				return err
			}
		}
	}
	return nil
}
