package delivery

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestParseRunStatus(t *testing.T) {
	half := 0.5
	tests := []struct {
		name, data string
		want       RunStatus
		err        string
	}{
		{"whole",
			`{"phase":"training","epoch":3,"epochs":12,"batch":7,"batches":40,` +
				`"heartbeat":"2026-11-24T02:00:00Z","map":0.5}`,
			RunStatus{Phase: "training", Epoch: 3, Epochs: 12, Batch: 7, Batches: 40, Heartbeat: time.Date(2026, 11, 24,
				2, 0, 0, 0, time.UTC), MAP: &half}, ""},
		{"unknown key and phase", `{"phase":"dancing","colour":"red"}`, RunStatus{}, ""},
		{"past the end", `{"phase":"training","epoch":99,"epochs":12,"batch":-4,"batches":-1}`,
			RunStatus{Phase: "training", Epoch: 12, Epochs: 12}, ""},
		{"nonsense numbers", `{"phase":"done","map":7,"secondsLeft":-1}`, RunStatus{Phase: "done"}, ""},
		{"terminal codes", "{\"phase\":\"failed\",\"message\":\"no \\u001b[2J\\u202e\\nspace\\u0000\"}",
			RunStatus{Phase: "failed", Message: "no [2J space"}, ""},
		{"long message", `{"phase":"failed","message":"` + strings.Repeat("é", 400) + `"}`, RunStatus{Phase: "failed",
			Message: strings.Repeat("é", 248) + "…"}, ""},
		{"year 9999", `{"phase":"training","heartbeat":"9999-12-31T23:59:59-12:00"}`, RunStatus{Phase: "training"}, ""},
		{"half a file", `{"phase":"trai`, RunStatus{}, "status.json: unexpected end of JSON input"},
		{"not an object", `[1]`, RunStatus{}, "status.json: json: cannot unmarshal array"},
		{"huge", `{"message":"` + strings.Repeat("x", MaxRunStatus) + `"}`, RunStatus{}, "want at most 65536"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseRunStatus([]byte(test.data), Mask{})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || string(Canonical(got)) != string(Canonical(test.want)) {
				t.Errorf("got %s, %v\nwant %s", Canonical(got), err, Canonical(test.want))
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	since := time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return since.Add(time.Duration(s) * time.Second) }
	tests := []struct {
		name      string
		heartbeat time.Time
		now       time.Time
		want      string
	}{
		{"starting", time.Time{}, at(60), ""},
		{"never came", time.Time{}, at(61), "no heartbeat for 1m1s, allowed are 1m0s"},
		{"fresh", at(100), at(160), ""},
		{"old", at(100), at(170), "no heartbeat for 1m10s, allowed are 1m0s"},
		{"of an attempt before", at(-500), at(30), ""},
		{"a little ahead", at(130), at(100), ""},
		{"far in the future", at(1e6), at(100), "no heartbeat for 1m40s, allowed are 1m0s"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := Heartbeat(RunStatus{Heartbeat: test.heartbeat}, since, test.now, time.Minute); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// Whatever a trainer writes, what is read of it can be shown and stored.
func FuzzRunStatus(f *testing.F) {
	f.Add(
		[]byte(
			`{"phase":"training","epoch":3,"epochs":12,"heartbeat":"2026-11-24T02:00:00Z",` +
				`"message":"ok","map":0.5,"secondsLeft":3}`))
	f.Add([]byte(`{"epoch":1e400}`))
	f.Add([]byte(`{"heartbeat":"0000-01-01T00:00:00+23:59","message":"\ud800\u202e\u001b"}`))
	f.Add([]byte(`{"epoch":-9223372036854775808,"epochs":9223372036854775807,"MAP":1,"map":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseRunStatus(data, Mask{})
		if err != nil {
			return
		}
		if s.Epoch < 0 || s.Epoch > s.Epochs || s.Batch < 0 || s.Batch > s.Batches {
			t.Errorf("numbers out of range: %+v", s)
		}
		if len(s.Message) > 500 || strings.ContainsFunc(s.Message, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("message %q", s.Message)
		}
		for _, v := range []*float64{s.MAP, s.SecondsLeft} {
			if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0) || *v < 0) {
				t.Errorf("number %v", *v)
			}
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		again, err := ParseRunStatus(text, Mask{})
		if err != nil || string(Canonical(again)) != string(Canonical(s)) {
			t.Errorf("read again: %s, %v, want %s", Canonical(again), err, text)
		}
	})
}
