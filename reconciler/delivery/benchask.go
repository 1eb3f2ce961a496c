package delivery

import (
	"errors"
	"fmt"
	"time"
)

// BenchPayload is the DSSE payload type of a BenchRequest.
const BenchPayload = "application/vnd.aob.bench.v1+json"

// A BenchRequest asks one device to measure a bundle. AOB signs it. The bundle need not be released: the device runs it
// to measure it, and never serves it.
type BenchRequest struct {
	Ring   string `json:"ring"` // the fleet's name
	Device string `json:"device"`
	BenchRun
	Attempt int       `json:"attempt"` // how many benches of the bundle on the profile there were before
	Expires time.Time `json:"expires"` // the server sets it
}

// Key identifies a request, whenever it is signed.
func (r BenchRequest) Key() Digest {
	r.Expires = time.Time{}
	return DigestOf("bench request", r)
}

// A BenchAnswer is what the device measured, or why it could not.
type BenchAnswer struct {
	Key   Digest `json:"key"` // of the request
	Bench *Bench `json:"bench,omitempty"`
	Why   string `json:"why,omitempty"`
}

const maxBenchWhy = 1000

// Check returns what is wrong with an answer to a request, whose every value comes from outside.
func (a BenchAnswer) Check(r BenchRequest) error {
	switch {
	case a.Key != r.Key():
		return errors.New("it is the answer to another request")
	case (a.Bench == nil) == (a.Why == ""):
		return errors.New("want a bench, or why there is none")
	case len(a.Why) > maxBenchWhy || a.Why != PlainText(a.Why, maxBenchWhy):
		return fmt.Errorf("why: want plain text of at most %d bytes", maxBenchWhy)
	case a.Bench == nil:
		return nil
	case a.Bench.BenchRun != r.BenchRun:
		return errors.New("it measured another bundle, or on another profile or with other settings")
	case a.Bench.Fleet != "" || a.Bench.Device != "":
		return errors.New("the server knows which device it is")
	}
	return a.Bench.Check()
}

// BenchAsked is a request to a device, with its answer.
type BenchAsked struct {
	Request BenchRequest `json:"request"`
	Answer  *BenchAnswer `json:"answer,omitempty"` // nil: none yet
}

// BenchDevices selects the devices of a fleet that measure models before they are released.
type BenchDevices struct {
	Match map[string]string `json:"match" check:"nonempty,keys=label,label"`
}
