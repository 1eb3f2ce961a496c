package serve

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A pool is memory for the bodies of requests.
type pool struct {
	*semaphore.Weighted
	size int64
}

func newPool(size int64) pool { return pool{semaphore.NewWeighted(size), size} }

// A body is a request's body on its way into memory.
type body struct {
	r     io.Reader // a meter
	size  int64     // -1: unknown
	limit int64
}

// open begins to read the request's body. What has arrived takes memory, times a factor for what is made of it: a
// sender that announces much and sends little holds little. The caller calls release after its last use.
func (a *API) open(w http.ResponseWriter, r *http.Request, factor int64) (b body, release func(), err error) {
	limit := int64(a.o.Body)
	if r.ContentLength > limit {
		return b, nil, tooLarge(limit)
	}
	m := &meter{r: http.MaxBytesReader(w, r.Body, limit), size: r.ContentLength, factor: factor, pool: a.memory,
		control: http.NewResponseController(w), began: time.Now()}
	if !a.authorized(r, keyInQuery) {
		m.pool = a.others
	}
	return body{m, r.ContentLength, limit}, m.release, nil
}

// A meter reads a body, and pays for its memory before it arrives, in steps. It gives up on a sender that is too slow.
type meter struct {
	r       io.Reader
	size    int64 // -1: unknown
	factor  int64
	pool    pool
	control *http.ResponseController
	began   time.Time

	received, paid int64 // bytes of the body
	held           int64 // of the pool
}

// firstStep is how much of a body is paid for at once.
const firstStep = 256 << 10

func (m *meter) Read(p []byte) (int, error) {
	if m.received == m.paid {
		step := int64(firstStep)
		if m.size >= 0 {
			step = min(step, max(1, m.size-m.received))
		}
		need := min(step*m.factor, m.pool.size-m.held)
		if !m.pool.TryAcquire(need) {
			return 0, full(fmt.Sprintf("requests use all of the %s of memory for them", delivery.Bytes(m.pool.size)))
		}
		m.held, m.paid = m.held+need, m.paid+step
	}
	// An error means that the connection has no deadlines, as in tests.
	_ = m.control.SetReadDeadline(slowest(m.began, m.received))
	n, err := m.r.Read(p[:min(int64(len(p)), m.paid-m.received)])
	m.received += int64(n)
	if err == io.EOF || m.received == m.size {
		_ = m.control.SetReadDeadline(time.Time{}) // the connection is watched for the caller's leaving
	}
	return n, err
}

func (m *meter) release() {
	m.pool.Release(m.held)
	m.held = 0
}

// A body must arrive at leastRate a second on average, after patience, and within readTimeout.
const (
	patience    = 10 * time.Second
	leastRate   = 32 << 10
	readTimeout = time.Minute
)

// slowest returns when a body's next bytes must have arrived.
func slowest(began time.Time, received int64) time.Time {
	most := int64(readTimeout/time.Second) * leastRate
	return began.Add(min(patience+time.Duration(min(received, most))*time.Second/leastRate, readTimeout))
}

func tooLarge(limit int64) error {
	return Problem{Status: http.StatusRequestEntityTooLarge,
		Why: fmt.Sprintf("the body is larger than the limit of %d bytes", limit)}
}

// all reads the rest of the body.
func (b body) all() ([]byte, error) {
	if b.size < 0 {
		data, err := io.ReadAll(b.r)
		return data, b.failed(err)
	}
	data, err := exactly[byte](b.size, func(part []byte) error {
		_, err := io.ReadFull(b.r, part)
		return err
	})
	return data, b.failed(err)
}

// exactly reads n values in parts that grow, so that memory is taken for what has arrived.
func exactly[T any](n int64, read func(part []T) error) ([]T, error) {
	data := make([]T, 0, min(n, firstStep))
	for int64(len(data)) < n {
		if len(data) == cap(data) {
			grown := make([]T, len(data), min(n, 4*int64(cap(data))))
			copy(grown, data)
			data = grown
		}
		from := len(data)
		data = data[:cap(data)]
		if err := read(data[from:]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (b body) failed(err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[Problem](err); ok { // of the meter
		return p
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return tooLarge(b.limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Problem{Status: http.StatusRequestTimeout, Why: fmt.Sprintf("the body arrives too slowly: want %dKiB a "+
			"second after the first %s, and all of it within %s", leastRate>>10, patience, readTimeout)}
	}
	return invalid("the body ends too early")
}
