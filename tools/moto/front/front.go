// Package front stands between a client and moto, and answers as Amazon does where moto does not: it refuses calls that
// come too fast, splits lists into pages, keeps client tokens, shows changes late, minds the policies of buckets, fires
// schedules, and runs what instances are told to.
//
// Only tests import it.
package front

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Front is a server in front of another one. Its fields are set before it is used.
type Front struct {
	Throttle int // refuse every call of this number, as the 4th, the 8th and so on; 0 for none
	Page     int // so many items on a page of instances, and the first page has none; 0 for moto's pages
	Stale    int // so many lists after a change show what was before it

	Tokens bool // the same client token makes one instance
	// Prices are dollars an hour, by region and instance, as "eu-west-1 g5.xlarge": on demand, and then the spot
	// prices of the region's zones. Moto has none.
	Prices map[string][]float64
	// Policy is the policy of whoever calls, for simulations of what it allows. Moto has none.
	Policy string
	// Quotas are the account's quotas by their codes. Moto has none of EC2.
	Quotas map[string]float64
	// Before and After are called around each call that reaches moto or the store, with its name, as in
	// TerminateInstances, or "PUT /bucket/key" for a service without names. One that panics with http.ErrAbortHandler
	// leaves the call without an answer: Before keeps it from moto, After only from the client.
	Before, After func(name string)
	// Answer may answer a call of EC2 in place of moto; it reports whether it has. nil for none.
	Answer func(w http.ResponseWriter, name string) bool
	// S3 is the address of a store that gets the calls of S3 in place of moto; "" for moto.
	S3 string
	// Instances run what instances are told to; nil for instances that do nothing, as moto's.
	Instances *Instances

	ahead atomic.Int64 // nanoseconds

	mu     sync.Mutex
	all    int
	counts map[string]int
	seen   map[string][]byte // lists, as they were last
	stale  map[string]int    // by region: so many lists are still old
	tokens map[string]made

	changes map[string]bool // the calls that made lists old

	policies map[string]string // by bucket

	to *url.URL
}

// made is what a client token has made.
type made struct {
	form   string // of the call
	answer []byte
}

// Start starts a server in front of another one, which ends with the test. It returns its address.
func (f *Front) Start(t testing.TB, to string) string {
	t.Helper()
	address, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	f.to, f.counts, f.seen = address, map[string]int{}, map[string][]byte{}
	f.stale, f.tokens, f.policies = map[string]int{}, map[string]made{}, map[string]string{}
	f.changes = map[string]bool{}
	if f.Instances != nil {
		f.Instances.start(t, to)
	}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL
}

// Count returns how often a call was made, with those that were refused.
func (f *Front) Count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[name]
}

// Calls returns the names of all calls that were made, with those to the store.
func (f *Front) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.counts))
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if service, _ := signedFor(r); service == "s3" && f.S3 != "" {
		name := r.Method + " " + r.URL.Path
		f.mu.Lock()
		f.counts[name]++
		f.mu.Unlock()
		if f.Before != nil {
			f.Before(name)
		}
		store, err := url.Parse(f.S3)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		proxy := httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(store)
			p.Out.Host = p.In.Host
		}, ModifyResponse: func(*http.Response) error {
			if f.After != nil {
				f.After(name)
			}
			return nil
		}}
		proxy.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	service, region := signedFor(r)
	form, _ := url.ParseQuery(string(body))
	name := cmp.Or(form.Get("Action"), r.Header.Get("X-Amz-Target"), r.Method+" "+r.URL.Path)
	f.mu.Lock()
	f.all++
	f.counts[name]++
	refuse := f.Throttle > 0 && f.all%f.Throttle == 0
	f.mu.Unlock()
	if refuse {
		throttled(w, service)
		return
	}
	switch {
	case service == "s3" && f.bucketPolicy(w, r, body):
	case service == "iam" && form.Get("Action") == "SimulatePrincipalPolicy" && f.Policy != "":
		f.simulate(w, form)
	case service == "servicequotas" && f.Quotas != nil:
		f.quota(w, body)
	case service == "pricing" && f.Prices != nil:
		f.products(w, body)
	case service != "ec2":
		f.forward(w, r, body, name, func([]byte) {})
	case name == "DescribeSpotPriceHistory" && f.Prices != nil:
		f.spotPrices(w, form, region)
	default:
		f.ec2(w, r, form, region)
	}
}

// throttled answers as Amazon does when calls come too fast.
func throttled(w http.ResponseWriter, service string) {
	if service != "ec2" {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Amzn-Errortype", "ThrottlingException")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"Message":"Rate exceeded"}`)
		return
	}
	Refuse(w, http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded.")
}

// Refuse answers with an error of EC2.
func Refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>front</RequestID></Response>`,
		code, message)
}

// firstToken is the token that the empty first page has.
const firstToken = "after-the-empty-page"

func (f *Front) ec2(w http.ResponseWriter, r *http.Request, form url.Values, region string) {
	name := form.Get("Action")
	lists := strings.HasPrefix(name, "Describe")
	if name == "DescribeInstances" && f.Page > 0 {
		if form.Get("NextToken") == "" {
			w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
			fmt.Fprintf(w, `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x`+
				`</requestId><reservationSet/><nextToken>%s</nextToken></DescribeInstancesResponse>`, firstToken)
			return
		}
		if form.Get("NextToken") == firstToken {
			form.Del("NextToken")
		}
		form.Set("MaxResults", strconv.Itoa(f.Page))
	}
	key := region + " " + form.Encode()
	token := region + " " + form.Get("ClientToken")
	f.mu.Lock()
	if old, ok := f.seen[key]; lists && ok && f.stale[region] > 0 {
		f.stale[region]--
		f.mu.Unlock()
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		_, _ = w.Write(old)
		return
	}
	before, again := f.tokens[token]
	f.mu.Unlock()
	if again = again && f.Tokens && name == "RunInstances" && form.Get("ClientToken") != ""; again {
		if before.form != form.Encode() {
			Refuse(w, http.StatusBadRequest, "IdempotentParameterMismatch",
				"The client token you have provided is associated with a resource of another request.")
			return
		}
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		_, _ = w.Write(before.answer)
		return
	}
	if f.Answer != nil && f.Answer(w, name) {
		return
	}
	if f.Instances != nil && name == "TerminateInstances" {
		f.Instances.terminating(form)
	}
	answer := f.forward(w, r, []byte(form.Encode()), name, func(answer []byte) {
		if name == "RunInstances" && answer != nil { // also if the answer is lost on its way
			f.mu.Lock()
			f.tokens[token] = made{form.Encode(), answer}
			f.mu.Unlock()
		}
	})
	if f.Instances != nil && name == "RunInstances" && answer != nil {
		f.Instances.ran(form, region, answer)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if lists {
		f.seen[key] = answer
	} else if answer != nil && !f.changes[key] { // to terminate an instance again changes nothing
		f.changes[key], f.stale[region] = true, f.Stale
	}
}

// forward sends a call on. It returns the answer, if it is no error. made is called with it before the client has it.
func (f *Front) forward(w http.ResponseWriter, r *http.Request, body []byte, name string,
	made func(answer []byte)) (answer []byte) {
	if f.Before != nil {
		f.Before(name)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	proxy := httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(f.to); p.Out.Host = p.In.Host },
		ModifyResponse: func(got *http.Response) error {
			data, err := io.ReadAll(got.Body)
			if err != nil {
				return err
			}
			if got.StatusCode == http.StatusOK {
				answer = data
			}
			made(answer)
			got.Body = io.NopCloser(bytes.NewReader(data))
			if ahead := time.Duration(f.ahead.Load()); ahead > 0 {
				got.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			}
			if f.After != nil {
				f.After(name)
			}
			return nil
		}}
	proxy.ServeHTTP(w, r)
	return answer
}

// signedFor returns the service and the region that a call was signed for.
func signedFor(r *http.Request) (service, region string) {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	parts := strings.Split(scope, "/")
	if len(parts) < 5 {
		return "", ""
	}
	return parts[3], parts[2]
}
