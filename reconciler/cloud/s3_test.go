package cloud

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// A store cannot send this machine to an address that it names, and its answers have bounds.
func TestHostileStore(t *testing.T) {
	var reached atomic.Int32
	internal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		fmt.Fprint(w, "internal")
	}))
	defer internal.Close()
	code, to := http.StatusTemporaryRedirect, internal.URL+"/latest/meta-data"
	var asked atomic.Int32
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case r.URL.Path == "/data/moved":
			fmt.Fprint(w, "content")
		case to == "":
			fmt.Fprint(w, "<ListBucketResult>")
			line := strings.Repeat("<Contents><Key>a/b</Key><Size>1</Size></Contents>", 1000)
			for {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		default:
			w.Header().Set("Location", to)
			w.WriteHeader(code)
		}
	}))
	defer store.Close()
	b, err := OpenBucket(t.Context(), Address{Bucket: "data", Endpoint: store.URL, KeyID: "AKIDEXAMPLE", Key: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	list := func() error { return b.List(t.Context(), "a", func(string, int64, string) error { return nil }) }
	for _, code = range []int{301, 302, 303, 307, 308} {
		if _, err := b.Read(t.Context(), "a", "", 0); err == nil {
			t.Errorf("an object was read after a redirect with %d", code)
		}
		if err := list(); err == nil {
			t.Errorf("a list was read after a redirect with %d", code)
		}
	}
	if reached.Load() > 0 {
		t.Errorf("an internal address was asked %d times", reached.Load())
	}
	code, to = http.StatusTemporaryRedirect, store.URL+"/data/moved"
	body, err := b.Read(t.Context(), "a", "", 0)
	if err != nil {
		t.Fatalf("a redirect within the store: %v", err)
	}
	if text, err := io.ReadAll(body); err != nil || string(text) != "content" {
		t.Errorf("a redirect within the store gives %q, %v", text, err)
	}
	body.Close()
	to, code = store.URL+"/data/a", http.StatusPermanentRedirect // for ever
	if before := asked.Load(); list() == nil || asked.Load()-before > 30 {
		t.Errorf("a circle was followed %d times", asked.Load()-before)
	}
	to = ""
	if err := list(); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a list without an end: %v", err)
	}
}

func TestAmazonsAddresses(t *testing.T) {
	for text, want := range map[string]bool{"https://bucket.s3.eu-central-1.amazonaws.com/a": true,
		"https://s3-fips.us-east-1.amazonaws.com": true, "https://b.s3.cn-north-1.amazonaws.com.cn": true,
		"http://bucket.s3.eu-central-1.amazonaws.com": false, "https://s3.example.com": false,
		"https://ec2-10-0-0-1.compute.amazonaws.com": false, "https://s3.amazonaws.com.example.com": false,
		"https://169.254.169.254": false} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := amazons(u); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
}
