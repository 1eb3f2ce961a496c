package delivery

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A Digest identifies content: "sha256:" and 64 lower-case hex digits. The zero value stands for no content.
type Digest string

// Sum returns the digest of data.
func Sum(data []byte) Digest {
	sum := sha256.Sum256(data)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// ParseDigest returns s as a digest, or an error if it is not one.
func ParseDigest(s string) (Digest, error) {
	hexa, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hexa) != 64 || strings.Trim(hexa, "0123456789abcdef") != "" {
		return "", fmt.Errorf("want a digest, sha256: and 64 lower-case hex digits, got %q", s)
	}
	return Digest(s), nil
}

// Hex returns the 64 digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Short returns the first 12 digits, for display.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

// Canonical returns the JSON form of v that digests are computed from: sorted object
// keys, no white space, no HTML escapes. It panics if v has no JSON form, such as a NaN.
func Canonical(v any) []byte {
	text, err := EncodeJSON(v)
	if err != nil {
		panic(fmt.Sprintf("delivery: %T has no JSON form: %v", v, err))
	}
	// Structs are encoded in the order of their fields. Decoding into maps and encoding again sorts the keys, so that
	// the order of fields in Go does not affect digests.
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		panic(fmt.Sprintf("delivery: %T does not decode: %v", v, err))
	}
	if text, err = EncodeJSON(plain); err != nil {
		panic(fmt.Sprintf("delivery: %T does not encode: %v", v, err))
	}
	return bytes.TrimSuffix(text, []byte("\n"))
}

// EncodeJSON returns v as one line of JSON, without HTML escapes.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// ParseJSON decodes one JSON value into v. Unknown fields, and anything after the value, are errors.
func ParseJSON(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("there is data after it")
	}
	return nil
}

// DigestOf returns the digest of {kind: v} in its canonical form. Values of different
// kinds have different digests even if their fields are equal.
func DigestOf(kind string, v any) Digest { return Sum(Canonical(map[string]any{kind: v})) }
