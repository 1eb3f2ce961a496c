// Command servebench measures what serving a model costs: AOB's HTTP front beside a bare loop in one process, and
// beside what users would use instead, on the same model, pictures and threads.
//
//	go run ./tools/servebench -bundle DIR -images 'DIR/*.jpg'
//
// The bare loop decodes with libjpeg-turbo, resizes and runs ONNX Runtime. Its throughput is the best of several
// batches and numbers of threads. The peers are FastAPI with uvicorn (tools/venv.sh servepeers) and Node with
// onnxruntime-node and sharp (npm ci); one that is not installed is left out, and the table says so.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/turbojpeg"
	"github.com/autonomos/aob/tools/stretch"
)

var (
	bundle  = flag.String("bundle", "", "the bundle's folder")
	images  = flag.String("images", "", "pattern of JPEG files")
	binary  = flag.String("aob-detect", "bin/aob-detect", "the program")
	seconds = flag.Duration("for", 10*time.Second, "the time of each measurement")
	rounds  = flag.Int("rounds", 3, "measurements of each, taken in turns; the middle one counts")
	clients = flag.Int("clients", 8, "clients at the same time, for throughput")
	only    = flag.String("only", "", "the servers to measure, with commas between them; all if empty")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(context.Background()); err != nil {
		log.Fatal("servebench: ", err)
	}
}

// A figure is one measurement.
type figure struct {
	p50, p99  time.Duration
	perSecond float64
	cpu       time.Duration // for an image
	own       time.Duration // of this process, the same
}

// A server is what is measured.
type server struct {
	name    string
	threads int
	start   func(port string) *exec.Cmd
	alone   []figure
	crowd   []figure
}

func run(ctx context.Context) error {
	files, err := filepath.Glob(*images)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no picture is %s", *images)
	}
	var pictures [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		pictures = append(pictures, data)
	}
	cores := runtime.NumCPU()
	python, _ := exec.Command("tools/venv.sh", "--there", "servepeers").Output()
	servers := []*server{{name: "AOB", threads: cores, start: func(port string) *exec.Cmd {
		return exec.Command(*binary, "serve", "--bundle", *bundle, "--listen", "127.0.0.1:"+port, "--threads",
			strconv.Itoa(cores), "--batch", "4", "--batch-wait", "0s")
	}}}
	for _, threads := range slices.Compact([]int{1, cores}) {
		if len(python) > 0 {
			servers = append(
				servers,
				&server{name: "FastAPI, uvicorn", threads: threads, start: func(port string) *exec.Cmd {
					return exec.Command(
						strings.TrimSpace(string(python)),
						"tools/servepeers/fastapi_server.py",
						*bundle,
						port,
						strconv.Itoa(threads),
					)
				}},
			)
		}
		if _, err := os.Stat("tools/servepeers/node_modules/onnxruntime-node"); err == nil {
			servers = append(servers, &server{name: "Node, onnxruntime-node", threads: threads,
				start: func(port string) *exec.Cmd {
					return exec.Command(
						"node",
						"tools/servepeers/node_server.mjs",
						*bundle,
						port,
						strconv.Itoa(threads),
					)
				}})
		}
	}
	if *only != "" {
		servers = slices.DeleteFunc(servers, func(s *server) bool {
			return !slices.Contains(strings.Split(*only, ","), s.name)
		})
	}
	library, err := detect.FindLibrary()
	if err != nil {
		return err
	}
	ort, err := onnx.Open(library)
	if err != nil {
		return err
	}
	// ONNX Runtime's own default: its threads wait without sleeping also between two runs.
	session := profile.Default().Session(profile.Engine{}, "")
	session.Config["session.force_spinning_stop"] = "0"
	awake, err := ort.With(session, nil)
	if err != nil {
		return err
	}
	batches := []int{1}
	if free, err := takesBatches(ort); err != nil {
		return err
	} else if free {
		batches = append(batches, 4, 8)
	}
	var aloneBare, crowdBare []figure
	var best string
	for round := range *rounds {
		log.Printf("round %d of %d", round+1, *rounds)
		one, err := bare(ctx, ort, pictures, cores, 1, 1)
		if err != nil {
			return err
		}
		always, err := bare(ctx, awake, pictures, cores, 1, 1)
		if err != nil {
			return err
		}
		two, err := bare(ctx, ort, pictures, 1, 1, 1)
		if err != nil {
			return err
		}
		log.Printf("bare, one client: %.2f ms on %d threads, %.2f if they never sleep, %.2f on 1", ms(one.p50), cores,
			ms(always.p50), ms(two.p50))
		aloneBare = append(aloneBare, slices.MinFunc([]figure{one, always, two},
			func(a, b figure) int { return int(a.p50 - b.p50) }))
		most, setting := figure{}, ""
		for _, s := range []struct{ threads, loops int }{{1, cores}, {cores, 1}, {cores, 2}, {1, cores + 1}} {
			for _, batch := range batches {
				f, err := bare(ctx, ort, pictures, s.threads, s.loops, batch)
				if err != nil {
					return err
				}
				log.Printf("bare: %d loops of %d threads, batch %d: %.0f/s, CPU %.2f ms", s.loops, s.threads, batch,
					f.perSecond, ms(f.cpu))
				if f.perSecond > most.perSecond {
					most, setting = f, fmt.Sprintf("%d loops of %d threads, batch %d", s.loops, s.threads, batch)
				}
			}
		}
		crowdBare = append(crowdBare, most)
		best = setting
		for _, s := range servers {
			if err := s.measure(ctx, pictures); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	bareAlone, bareCrowd := middle(aloneBare), middle(crowdBare)
	fmt.Printf("| | threads | p50, 1 client (ms) | of bare | images/s, %d clients | of bare | p99 (ms) | CPU (ms) |\n",
		*clients)
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- |")
	fmt.Printf("| bare loop, best setting | %s | %.2f | | %.1f | | | %.2f |\n", best, ms(bareAlone.p50),
		bareCrowd.perSecond, ms(bareCrowd.cpu))
	for _, s := range servers {
		a, c := middle(s.alone), middle(s.crowd)
		fmt.Printf(
			"| %s | %d | %.2f | %+.1f %% | %.1f | %.1f %% | %.1f | %.2f |\n",
			s.name,
			s.threads,
			ms(a.p50),
			100*(a.p50.Seconds()/bareAlone.p50.Seconds()-1),
			c.perSecond,
			100*c.perSecond/bareCrowd.perSecond,
			ms(c.p99),
			ms(c.cpu),
		)
	}
	return nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func middle(list []figure) figure {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b figure) int { return int(a.p50 - b.p50) })
	m := list[len(list)/2]
	slices.SortFunc(list, func(a, b figure) int { return int(1e3 * (a.perSecond - b.perSecond)) })
	m.perSecond = list[len(list)/2].perSecond
	slices.SortFunc(list, func(a, b figure) int { return int(a.cpu - b.cpu) })
	m.cpu = list[len(list)/2].cpu
	return m
}

// takesBatches says whether the model leaves the number of pictures of a run open.
func takesBatches(ort detect.Runtime) (bool, error) {
	data, err := os.ReadFile(filepath.Join(*bundle, delivery.ModelFile))
	if err != nil {
		return false, err
	}
	inputs, _, err := ort.Describe(data)
	return err == nil && len(inputs) == 1 && len(inputs[0].Shape) > 0 && inputs[0].Shape[0] < 0, err
}

// bare runs loops at the same time in this process, without a server: decode, resize, run.
func bare(ctx context.Context, ort detect.Runtime, pictures [][]byte, threads, loops, batch int) (figure, error) {
	var sig delivery.Signature
	data, err := os.ReadFile(filepath.Join(*bundle, delivery.SignatureFile))
	if err == nil {
		err = json.Unmarshal(data, &sig)
	}
	if err != nil {
		return figure{}, err
	}
	if data, err = os.ReadFile(filepath.Join(*bundle, delivery.ModelFile)); err != nil {
		return figure{}, err
	}
	model, err := ort.Load(data, sig.Input, []string{sig.Boxes, sig.Logits}, threads)
	if err != nil {
		return figure{}, err
	}
	defer model.Close()
	shape := []int64{int64(batch), 3, int64(sig.Height), int64(sig.Width)}
	one := 3 * sig.Height * sig.Width
	return load(*seconds/2, loops, batch, os.Getpid(), func() (func(i int) error, error) {
		var rgb []byte
		input := make([]float32, batch*one)
		return func(i int) error {
			for k := range batch {
				pixels, w, h, err := turbojpeg.Decoder{}.Decode(pictures[(i*batch+k)%len(pictures)], rgb)
				if err != nil {
					return err
				}
				rgb = pixels
				stretch.Image(rgb, w, h, sig, input[k*one:][:one])
			}
			_, err := model.Run(context.WithoutCancel(ctx), detect.Tensor{Shape: shape, Data: input})
			return err
		}, nil
	})
}

// load makes calls from several goroutines for a time, after a fifth of it to warm up. Each goroutine has what begin
// returns. Each call counts as n images. The processor's time is that of a process and its children.
func load(d time.Duration, loops, n, process int, begin func() (call func(i int) error, err error)) (figure, error) {
	calls := make([]func(int) error, loops)
	for i := range calls {
		var err error
		if calls[i], err = begin(); err != nil {
			return figure{}, err
		}
	}
	var failed atomic.Value
	var count atomic.Int64
	measure := func(d time.Duration) []time.Duration {
		var mu sync.Mutex
		var all []time.Duration
		var wait sync.WaitGroup
		end := time.Now().Add(d)
		for _, call := range calls {
			wait.Go(func() {
				var mine []time.Duration
				for time.Now().Before(end) {
					began := time.Now()
					if err := call(int(count.Add(1))); err != nil {
						failed.Store(err)
						return
					}
					mine = append(mine, time.Since(began))
				}
				mu.Lock()
				all = append(all, mine...)
				mu.Unlock()
			})
		}
		wait.Wait()
		return all
	}
	measure(d / 5)
	used, err := cpu(process)
	if err != nil {
		return figure{}, err
	}
	own, err := ownCPU()
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	all := measure(d)
	took := time.Since(began)
	ownAfter, err := ownCPU()
	if err != nil {
		return figure{}, err
	}
	after, err := cpu(process)
	if err != nil {
		return figure{}, err
	}
	if err, ok := failed.Load().(error); ok {
		return figure{}, err
	}
	slices.Sort(all)
	images := time.Duration(len(all) * n)
	return figure{all[len(all)/2], all[len(all)*99/100], float64(images) / took.Seconds(), (after - used) / images,
		(ownAfter - own) / images}, nil
}

// ownCPU returns how much of the processors' time this process has had, without its children.
func ownCPU() (time.Duration, error) {
	var used syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), err
}

// cpu returns how much of the processors' time a process and its children have had, in steps of 10 ms.
func cpu(process int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return 0, err
	}
	const user, system = 11, 12 // after the name, which may have spaces
	values := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	ticks := int64(0)
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(values[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	sum := time.Duration(ticks) * 10 * time.Millisecond
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", process))
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return 0, err
			}
			more, err := cpu(id)
			if err != nil {
				return 0, err
			}
			sum += more
		}
	}
	return sum, nil
}

// answered reads an answer, which has to be 200. It parses no more of it than it needs.
func answered(answers *bufio.Reader) error {
	size := -1
	status, err := answers.ReadString('\n')
	for line := []byte(status); err == nil && len(bytes.TrimSpace(line)) > 0; line, err = answers.ReadSlice('\n') {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	if size < 0 {
		return errors.New("an answer does not state its length")
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200") {
		body := make([]byte, size)
		_, err := io.ReadFull(answers, body)
		return errors.Join(err, fmt.Errorf("%s: %s", strings.TrimSpace(status), body))
	}
	_, err = answers.Discard(size)
	return err
}

func (s *server) measure(ctx context.Context, pictures [][]byte) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	l.Close()
	cmd := s.start(port)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}()
	base := "http://127.0.0.1:" + port
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(base + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("it is not ready after a minute: %s", said.String())
		}
	}
	// The clients share the cores with the server, so they do as little as they can: each has a connection and writes
	// requests that are made before.
	requests := make([][]byte, len(pictures))
	for i, picture := range pictures {
		requests[i] = append(fmt.Appendf(nil, "POST /v1/detect?confidence=0.4 HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n"+
			"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", port, len(picture)), picture...)
	}
	ask := func() (func(i int) error, error) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return nil, err
		}
		answers := bufio.NewReader(conn)
		return func(i int) error {
			if _, err := conn.Write(requests[i%len(requests)]); err != nil {
				return err
			}
			return answered(answers)
		}, nil
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one is enough, and wakes up less often
	alone, err := load(*seconds, 1, 1, cmd.Process.Pid, ask)
	if err != nil {
		return err
	}
	crowd, err := load(*seconds, *clients, 1, cmd.Process.Pid, ask)
	if err != nil {
		return err
	}
	log.Printf("%s: %.0f/s, CPU %.2f ms, and the clients %.2f", s.name, crowd.perSecond, ms(crowd.cpu), ms(crowd.own))
	s.alone, s.crowd = append(s.alone, alone), append(s.crowd, crowd)
	return nil
}
