package poll

import (
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// What a command line lacks, it does not stand for.
func TestCommands(t *testing.T) {
	for body, want := range map[string]string{
		"/aob accept 0a1b because the set is small":    "the set is small",
		"  /aob accept 0a1b because  of   this \nBye.": "of this",
		"Well.\n/aob accept 0a1b because of this":      "",
		"```\n/aob accept 0a1b because I show it\n```": "",
		"/aob accept 0a1b because …":                   "",
		"/aob accept 0a1b because ...":                 "",
		"/aob accept 0a1b because":                     "",
		"/aob accept 0a1b":                             "",
		"> /aob accept 0a1b because I quote":           "",
		"please /aob accept 0a1b because I ask":        "",
	} {
		accept, ok := acceptCommand(delivery.Comment{Body: body})
		switch {
		case want == "" && ok:
			t.Errorf("%q accepts because %q", body, accept.Because)
		case want != "" && (!ok || accept.Because != want || accept.Code != "0a1b"):
			t.Errorf("%q: %+v", body, accept)
		}
	}
}
