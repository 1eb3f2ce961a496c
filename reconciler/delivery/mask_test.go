package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const key = "-----BEGIN KEY-----\nQUJDREVGR0hJSktMTU5P\nshort\n-----END KEY-----\n"

func maskOf(values ...string) Mask { return NewMask(slices.Values(values)) }

func TestMaskText(t *testing.T) {
	m := maskOf("hf_S3cr3t", "hf_S3cr3t+longer=", key, " \n", "")
	for text, want := range map[string]string{
		"":                          "",
		"nothing here":              "nothing here",
		"401 for x?token=hf_S3cr3t": "401 for x?token=***",
		"hf_S3cr3t+longer=":         "***",
		"?t=hf_S3cr3t%2Blonger%3D&": "?t=***&",
		"hf_S3cr3thf_S3cr3t":        "******",
		"key: " + key:               "key: ***\n",
		"line QUJDREVGR0hJSktMTU5P": "line ***",
		"short lines stay: short":   "short lines stay: short",
		"hf_S3c":                    "hf_S3c", // cut before
	} {
		if got := m.Text(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	path := maskOf("rf/S3 cr3t+") // as Go and Python write it in a path
	if got, want := path.Text("a/rf%2FS3%20cr3t+ b/rf/S3+cr3t%2B"), "a/*** b/***"; got != want {
		t.Errorf("in a path: got %q, want %q", got, want)
	}
	if got := (Mask{}).Text("a"); got != "a" {
		t.Errorf("the zero mask: %q", got)
	}
}

func TestMaskJSON(t *testing.T) {
	m := maskOf("s3cr3t é")
	for text, want := range map[string]string{
		`{"a":[1.50,"x s3cr3t \u00e9"],"s3cr3t é":{"b":null}}`: `{"***":{"b":null},"a":[1.50,"x ***"]}`,
		`"s3cr3t`: `"s3cr3t`,
		`{}`:      `{}`,
	} {
		if got := string(m.JSON([]byte(text))); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestMaskError(t *testing.T) {
	m := maskOf("s3cr3t")
	err := m.Error(fmt.Errorf("%w (after: %w)", Blockedf("do s3cr3t", "what s3cr3t"), context.Canceled))
	if got, want := err.Error(), "what ***; do *** (after: context canceled)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if b, ok := errors.AsType[Blocked](err); !ok || b != (Blocked{What: "what ***", Do: "do ***"}) {
		t.Errorf("Blocked: %+v, %v", b, ok)
	}
	if !errors.Is(err, context.Canceled) {
		t.Error("the context's error is lost")
	}
	if _, ok := errors.AsType[Blocked](m.Error(errors.New("s3cr3t"))); ok || m.Error(nil) != nil {
		t.Error("an error became another one")
	}
}

// A log is read in parts, while it is written. No part shows a secret, and offsets are those of the file.
func TestMaskReadFrom(t *testing.T) {
	m := maskOf("s3cr3t-value", key)
	text := "begin s3cr3t-value, s3cr3t-val!\n" + key + "s3cr3t-values3cr3t-value end"
	stars := func(s string) string { return strings.Repeat("*", len(s)) }
	want := "begin " + stars("s3cr3t-value") + ", s3cr3t-val!\n" + stars(strings.TrimSpace(key)) + "\n" +
		stars("s3cr3t-values3cr3t-value") + " end"
	for offset := range len(text) + 1 {
		r, err := m.ReadFrom(strings.NewReader(text), int64(offset))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(iotest.OneByteReader(r)); err != nil || string(got) != want[offset:] {
			t.Fatalf("from %d: got %q, %v, want %q", offset, got, err, want[offset:])
		}
	}
	for first := range len(text) + 1 { // the log had this many bytes when it was read first
		read := ""
		for _, there := range []string{text[:first], text} {
			r, err := m.ReadFrom(strings.NewReader(there), int64(len(read)))
			if err != nil {
				t.Fatal(err)
			}
			part, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			read += string(part)
		}
		if masked := strings.ReplaceAll(read, "s3cr3t-val!", ""); strings.Contains(masked, "s3cr") ||
			strings.Contains(masked, "QUJD") || len(read) != len(text) {
			t.Fatalf("after %d bytes: %q", first, read)
		}
	}
	if r, err := (Mask{}).ReadFrom(strings.NewReader(text), 6); err != nil {
		t.Error(err)
	} else if got, err := io.ReadAll(r); string(got) != text[6:] {
		t.Errorf("the zero mask: %q, %v", got, err)
	}
}
